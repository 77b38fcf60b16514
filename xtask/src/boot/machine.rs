//! A virtual machine with a TPM, whose power can be cut.

use super::{WORK, image::Image};
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long one request may take in the box: everything in it is emulated.
const PATIENCE: Duration = Duration::from_mins(5);
/// A file in the box, a place in it, and what stands there before a write that is not flushed.
const PAGE: (&str, usize, u8) = ("/var/lib/trial/page", 128 * 1024, b'F');

/// Where the terminal reaches the box, the same within it.
pub(super) struct Ports {
    pub(super) broker: u16,
    pub(super) https: u16,
}

impl Ports {
    /// Two that nobody listens on.
    pub(super) fn free() -> Result<Self, String> {
        let bind = || TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string());
        let (one, other) = (bind()?, bind()?);
        let port = |listener: &TcpListener| listener.local_addr().map(|at| at.port());
        let told = |error: std::io::Error| error.to_string();
        Ok(Self { broker: port(&one).map_err(told)?, https: port(&other).map_err(told)? })
    }
}

/// A running box. It ends with its owner.
pub(super) struct Machine {
    qemu: Process,
    tpm: Process,
    agent: BufReader<UnixStream>,
    console: PathBuf,
    disk: PathBuf,
}

impl Machine {
    /// Boots the box, for the `number`th time, with the disk and the TPM as the boot before left them.
    ///
    /// Each boot writes to a layer of its own above the one before. QEMU keeps that layer's tables in
    /// its memory until the box flushes its disk, so that ending QEMU loses what was written and not
    /// flushed, as a disk with a volatile cache does.
    pub(super) fn boot(
        image: &Image,
        work: &Path,
        number: u64,
        ports: &Ports,
        kvm: bool,
    ) -> Result<Self, String> {
        let layer = |number: u64| work.join(format!("disk-{number}.qcow2"));
        let disk = layer(number);
        let (below, kind) = match number {
            1 => (image.disk.clone(), "raw"),
            _ => (layer(number - 1), "qcow2"),
        };
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", kind, "-b"]).arg(name(&below)).arg(&disk);
        output(create)?;
        let tpm = start_tpm(work)?;
        let console = work.join(format!("console-{number}.log"));
        let port = work.join("agent");
        let _ = fs::remove_file(&port);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(if kvm {
            ["-accel", "kvm", "-cpu", "host"]
        } else {
            // Debian 12's QEMU panics the kernel with the first of these instructions; the others it
            // emulates at half the speed of what programs do without them.
            ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-avx,-avx2,-fma,-f16c"]
        });
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-smp", "2", "-m", "1536", "-device", "virtio-rng-pci"]);
        qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
        qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1"]);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        let drive =
            format!("file={},if=none,id=disk,format=qcow2,l2-cache-size=8M", disk.display());
        qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
        let forward = |port: u16| format!("hostfwd=tcp:127.0.0.1:{port}-:{port}");
        let net = format!("user,id=net,{},{}", forward(ports.broker), forward(ports.https));
        qemu.args(["-netdev", &net, "-device", "virtio-net-pci,netdev=net"]);
        let chip = format!("socket,id=tpm,path={}", work.join("tpm.socket").display());
        qemu.args(["-chardev", &chip, "-tpmdev", "emulator,id=tpm,chardev=tpm"]);
        qemu.args(["-device", "tpm-tis,tpmdev=tpm", "-device", "virtio-serial-pci"]);
        let agent = format!("socket,id=agent,path={},server=on,wait=off", port.display());
        qemu.args(["-chardev", &agent]);
        qemu.args(["-device", "virtserialport,chardev=agent,name=palmgate.trial"]);
        let log = fs::File::create(work.join("qemu.log")).map_err(|error| error.to_string())?;
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut qemu = Process::start(qemu)?;
        let agent = connect(&port, &mut qemu)?;
        let mut machine = Self { qemu, tpm, agent: BufReader::new(agent), console, disk };
        match machine.line()?.as_str() {
            "ready" => Ok(machine),
            other => Err(format!("the box began with {other:?}")),
        }
    }

    /// Runs a command in the box and gives what it printed.
    pub(super) fn ask(&mut self, command: &str) -> Result<String, String> {
        let sent = self.agent.get_mut().write_all(format!("{command}\n").as_bytes());
        sent.map_err(|error| format!("{command}: {error}"))?;
        let mut printed = String::new();
        loop {
            let line = self.line().map_err(|error| format!("{command}: {error}"))?;
            match (line.strip_prefix(' '), line.strip_prefix('=')) {
                (Some(output), _) => {
                    printed.push_str(output);
                    printed.push('\n');
                }
                (None, Some("0")) => return Ok(printed),
                (None, Some(status)) => {
                    return Err(format!("in the box, {command} ended with {status}:\n{printed}"));
                }
                (None, None) => return Err(format!("{command}: the box said {line:?}")),
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.agent.read_line(&mut line) {
            Ok(read) if read > 0 => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            Ok(_) => Err(format!("the machine ended; see {}", self.console.display())),
            Err(error) => Err(format!("no answer ({error}); see {}", self.console.display())),
        }
    }

    /// Waits until the daemon serves the control socket and systemd knows it.
    pub(super) fn runs(&mut self) -> Result<(), String> {
        let command = "for i in $(seq 120); do palmgate counter && systemctl -q is-active palmgated \
                       && exit 0; sleep 1; done; \
                       journalctl -b --no-pager -n 40 -u palmgated -o cat; exit 1";
        self.ask(command).map(drop)
    }

    /// What the box's programs said, with what the terminal was not told.
    pub(super) fn explained<T>(&mut self, told: Result<T, String>) -> Result<T, String> {
        told.map_err(|error| {
            let said = self.ask(
                "journalctl -b --no-pager -n 60 -u palmgated -u palmgate-matcher \
                 -o short-monotonic",
            );
            format!("{error}\n{}", said.unwrap_or_else(|error| error))
        })
    }

    /// The ledger holds and goes on from a checkpoint that somebody has in hand.
    pub(super) fn continues(&mut self, checkpoint: &str) -> Result<(), String> {
        let lines = checkpoint.trim_end().replace('\n', "' '");
        self.ask(&format!(
            "printf '%s\\n' '{lines}' >/run/held && palmgate audit verify /var/lib/palmgate/ledger \
             --key /var/lib/trial/ledger.pub --since /run/held"
        ))
        .map(drop)
    }

    /// Ends everything between two instructions, the TPM, too.
    pub(super) fn cut(self) {
        drop((self.qemu, self.tpm));
    }

    /// Cuts the power right after a write that reached the disk without a flush, and looks into the
    /// disk: were the write there, the cuts would show little.
    pub(super) fn cut_loses_what_is_not_flushed(mut self, work: &Path) -> Result<(), String> {
        let (file, place, before) = PAGE;
        // Nothing else may flush meanwhile.
        self.ask("systemctl stop palmgated palmgate-matcher palmgate-matcher.socket && sync")?;
        let block = place / 4096;
        self.ask(&format!(
            "tr '\\0' D </dev/zero | dd of={file} bs=4096 count=1 seek={block} iflag=fullblock \
             oflag=direct conv=notrunc status=none"
        ))?;
        let (disk, flat) = (self.disk.clone(), work.join("flat.raw"));
        self.cut();
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-O", "raw"]).arg(disk).arg(&flat);
        output(convert)?;
        let mut look = Command::new("/usr/sbin/debugfs");
        look.args(["-R", &format!("cat {file}")]).arg(&flat);
        let page = output(look)?;
        let _ = fs::remove_file(&flat);
        match page.get(place) {
            Some(found) if *found == before => Ok(()),
            Some(b'D') => Err("a write that was not flushed is on the disk after a cut".into()),
            _ => Err(format!("{file} is damaged: {} bytes", page.len())),
        }
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Result<Self, String> {
        let spawned = command.spawn();
        spawned.map(Self).map_err(|error| format!("{}: {error}", command.get_program().display()))
    }

    fn is_running(&mut self) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("a process ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_tpm(work: &Path) -> Result<Process, String> {
    let (state, socket) = (work.join("tpm"), work.join("tpm.socket"));
    fs::create_dir_all(&state).map_err(|error| error.to_string())?;
    let _ = fs::remove_file(&socket);
    let mut swtpm = Command::new("swtpm");
    swtpm.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", state.display()));
    swtpm.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
    let mut swtpm = Process::start(swtpm)?;
    let begun = Instant::now();
    while !socket.exists() {
        swtpm.is_running().map_err(|error| format!("swtpm: {error}"))?;
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("swtpm does not start".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(swtpm)
}

fn connect(port: &Path, qemu: &mut Process) -> Result<UnixStream, String> {
    let begun = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(port) {
            let set = stream.set_read_timeout(Some(PATIENCE));
            return set.map(|()| stream).map_err(|error| error.to_string());
        }
        qemu.is_running().map_err(|error| format!("{error}; see {WORK}/qemu.log"))?;
        if begun.elapsed() > PATIENCE {
            return Err("QEMU does not open the agent's port".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn output(mut command: Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A layer names the one below it by its place beside it.
fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
