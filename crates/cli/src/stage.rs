//! Real processes for `demo` and `bench`: a cloud and gateways, each this same program, on loopback,
//! with their state and logs in one directory.

use crate::control::{self, Control};
use anyhow::{Context, Result, bail};
use palmgate_cloud::provision;
use palmgate_gateway::control::AddTerminal;
use palmgate_protocol::{Custody, Name, Secret, Timestamp};
use palmgate_seal::{pairing::PairingCode, sign::VerifyingKey};
use palmgate_terminal::{Paired, Terminal};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a process may take to be ready: seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where free ports are looked for, and how many.
const FIRST_PORT: u16 = 16_384;
/// See [`FIRST_PORT`].
const PORTS: u32 = 16_384;

/// More of a configuration, for what measures: slots of time would round its figures.
pub const WITHOUT_SLOTS: &str = "\n[limits]\nanswer_slot_milliseconds = 0\n";

/// A process that ends with its owner.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(arguments: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(arguments, log, &[])
    }

    fn start_with(arguments: &[&str], log: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| log.display().to_string())?;
        let child = Command::new(program()?)
            .args(arguments)
            // Where systemd would put the unit's credentials.
            .envs(environment.iter().copied())
            .env("CREDENTIALS_DIRECTORY", log.parent().unwrap_or(Path::new(".")))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Fails when the process has ended by itself, with the end of its log.
    fn is_running(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(8).collect();
        let end = end.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        bail!("a process ended with {status}; the end of {}:\n  {end}", self.log.display());
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in MiB.
    pub fn memory_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Ends the process as a power cut would: without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, without waiting.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
    }

    /// Has the process read its configuration again.
    pub fn reload(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
    }

    /// Waits for the process to end and says how it did.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Asks the process to end and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.terminate()?;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("a process ended with {status}; see {}", self.log.display());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cloud of one tenant.
pub struct Cloud {
    /// Its process.
    pub process: Process,
    /// Where its health and metrics are served without TLS.
    pub monitor: SocketAddr,
    /// Its state directory.
    pub state: PathBuf,
    /// Where the next store is told to dial.
    pub url: String,
}

impl Cloud {
    /// Founds and starts a cloud below `directory`.
    pub fn start(directory: &Path, tenant: &Name) -> Result<Self> {
        let state = directory.join("cloud");
        let founding = provision::Founding {
            host: "127.0.0.1",
            accept_operator: true,
            ..provision::Founding::new(tenant)
        };
        provision::init(&state, &founding, now())?;
        let (listen, monitor) = (free_address()?, free_address()?);
        let process = Self::launch(&state, listen, monitor, directory)?;
        Ok(Self { process, monitor, state, url: format!("https://{listen}") })
    }

    fn launch(
        state: &Path,
        listen: SocketAddr,
        monitor: SocketAddr,
        directory: &Path,
    ) -> Result<Process> {
        let state = state.display().to_string();
        let (listen, monitor) = (listen.to_string(), monitor.to_string());
        let log = directory.join("cloud.log");
        let at = ["--state", &state, "--listen", &listen, "--monitor", &monitor];
        Process::start(&[&["cloud"], at.as_slice()].concat(), &log)
    }

    /// Admits a store and writes its bundle.
    pub fn admit(&self, store: &Name, bundle: &Path) -> Result<()> {
        provision::add_store(&self.state, store, bundle, Some(&self.url), now())?;
        Ok(())
    }

    /// The tenant's transform key, as the chain's administrator holds it.
    pub fn transform_key(&self) -> Result<Secret<[u8; 32]>> {
        let bytes = fs::read(self.state.join("provisioning").join("transform.key"))?;
        Ok(Secret::new(bytes.as_slice().try_into()?))
    }
}

/// What differs between the gateways of a stage.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Whose people.
    pub tenant: &'a Name,
    /// Which store.
    pub store: &'a Name,
    /// Who can open a reference.
    pub custody: Custody,
    /// Its cloud.
    pub cloud: Option<&'a Cloud>,
    /// Random protected templates that stand for people who are never here.
    pub strangers: usize,
    /// An external broker's port on loopback, in place of the embedded one.
    pub broker: Option<u16>,
    /// A TPM that keeps the root, as tpm2-tss spells it; otherwise a file.
    pub tpm: Option<&'a str>,
    /// More of the configuration, such as table `[law]`.
    pub more: &'a str,
    /// Whether employees are served, which only the French pack allows.
    pub staff: bool,
}

impl<'a> Shape<'a> {
    /// A store in `operator` custody by itself.
    pub const fn new(tenant: &'a Name, store: &'a Name) -> Self {
        Self {
            tenant,
            store,
            custody: Custody::Operator,
            cloud: None,
            strangers: 0,
            broker: None,
            tpm: None,
            more: "",
            staff: true,
        }
    }
}

/// A gateway.
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Its state directory.
    pub state: PathBuf,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// Where the embedded broker listens.
    pub broker: SocketAddr,
    /// Its control socket.
    pub control: Control,
    file: PathBuf,
    directory: PathBuf,
}

impl Gateway {
    /// Writes a configuration below `directory` and starts a gateway with it.
    pub async fn start(directory: &Path, shape: &Shape<'_>) -> Result<Self> {
        let state = directory.join(shape.store.as_str());
        let (https, broker) = (free_address()?, free_address()?);
        let mut text = configuration(shape, &state, https, broker);
        if let Some(port) = shape.broker {
            write!(text, "\n[broker]\nkind = \"external\"\nhost = \"127.0.0.1\"\nport = {port}\n")?;
        }
        if let Some(tpm) = shape.tpm {
            write!(text, "\n[root]\nkeeper = \"tpm\"\ntpm = {tpm:?}\n")?;
            fs::write(directory.join("palmgate-root"), "what systemd unseals for the unit")?;
        }
        if let Some(cloud) = shape.cloud {
            let bundle = directory.join(format!("{}-bundle", shape.store));
            cloud.admit(shape.store, &bundle)?;
            write!(
                text,
                "\n[cloud]\nidentity = {:?}\nshard_refresh_seconds = 1\ntimeout_ms = 2000\n",
                bundle.display().to_string()
            )?;
        }
        text.push_str(shape.more);
        let file = directory.join(format!("{}.toml", shape.store));
        fs::write(&file, text)?;
        if shape.strangers > 0 {
            palmgate_gateway::synthetic::fill(&state, shape.tenant, shape.strangers)?;
        }
        let process = Self::launch(&file)?;
        let control = Control::new(&control::Arguments { state: state.clone() })?;
        let mut gateway =
            Self { process, state, https, broker, control, file, directory: directory.to_owned() };
        match shape.broker {
            None => gateway.ready().await?,
            Some(_) => gateway.controlled().await?,
        }
        Ok(gateway)
    }

    fn launch(file: &Path) -> Result<Process> {
        let config = file.display().to_string();
        Process::start(&["daemon", "--config", &config], &file.with_extension("log"))
    }

    /// Starts the gateway again after it ended.
    pub async fn restart(&mut self) -> Result<()> {
        let _ = self.process.child.wait();
        self.process = Self::launch(&self.file)?;
        self.ready().await
    }

    /// Starts the gateway again after it ended, with more in its environment.
    pub async fn restart_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let _ = self.process.child.wait();
        let config = self.file.display().to_string();
        let (arguments, log) = (["daemon", "--config", &config], self.file.with_extension("log"));
        self.process = Process::start_with(&arguments, &log, environment)?;
        self.ready().await
    }

    /// Waits until the control socket answers.
    async fn controlled(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.control.list().await.is_err() {
            self.process.is_running()?;
            if begun.elapsed() > PATIENCE {
                bail!("the gateway does not answer after {PATIENCE:?}; see its log");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until terminals can be served.
    pub async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let client = self.web()?;
        loop {
            self.process.is_running()?;
            let answer = match &client {
                Some(client) => {
                    client.get(format!("https://{}/readyz", self.https)).send().await.ok()
                }
                None => None,
            };
            if answer.is_some_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the gateway is not ready after {PATIENCE:?}; see its log");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            if client.is_none() {
                return Box::pin(self.ready()).await;
            }
        }
    }

    /// A client that trusts the gateway's own authority; `None` before the gateway has made it.
    fn web(&self) -> Result<Option<reqwest::Client>> {
        let Ok(pem) = fs::read(self.state.join("authority.pem")) else { return Ok(None) };
        let authority = CertificateDer::from_pem_slice(&pem)?;
        let tls = palmgate_seal::pki::client_config(None, &authority)?;
        Ok(Some(reqwest::Client::builder().tls_backend_preconfigured(tls).build()?))
    }

    /// The metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> Result<String> {
        let Some(client) = self.web()? else { bail!("the gateway has no authority yet") };
        let address = format!("https://{}/metrics", self.https);
        Ok(client.get(address).send().await?.error_for_status()?.text().await?)
    }

    /// Adds a terminal, pairs it and connects it.
    pub async fn terminal(&self, name: &str, purposes: &[&str], enrols: bool) -> Result<Terminal> {
        self.terminal_with(name, purposes, enrols, &[]).await
    }

    /// The same, with the public keys of its sensors.
    pub async fn terminal_with(
        &self,
        name: &str,
        purposes: &[&str],
        enrols: bool,
        sensors: &[VerifyingKey],
    ) -> Result<Terminal> {
        let purposes = purposes.iter().map(|purpose| (*purpose).to_owned()).collect();
        let sensors = sensors.iter().map(|key| data_encoding::HEXLOWER.encode(&key.0)).collect();
        let wanted = AddTerminal { name: name.to_owned(), purposes, enrols, sensors };
        let code = PairingCode::parse(&self.control.add(&wanted).await?.code)?;
        let directory = self.directory.join(format!("terminal-{name}"));
        let url = format!("https://{}", self.https);
        let paired = Paired::pair(&url, &code, &name.parse()?, &directory).await?;
        let terminal = Terminal::connect(paired)?;
        terminal.ready(PATIENCE).await?;
        Ok(terminal)
    }
}

/// This program, or the one beside the tests that are run.
/// # Errors
/// It is not built.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let parent = own.parent().context("a program lies in a directory")?;
    if parent.file_name().is_none_or(|name| name != "deps") {
        return Ok(own);
    }
    let program = parent.with_file_name("palmgate");
    if !program.exists() {
        bail!("{} is not built: run `cargo build --release` first", program.display());
    }
    Ok(program)
}

fn configuration(shape: &Shape<'_>, state: &Path, https: SocketAddr, broker: SocketAddr) -> String {
    let broker = match shape.broker {
        Some(_) => String::new(),
        None => format!("broker = \"{broker}\"\n"),
    };
    let (staff, zones) = if shape.staff { (", \"staff\"", "\"strong-room\"") } else { ("", "") };
    let roaming = if shape.cloud.is_some() { ", \"roaming\"" } else { "" };
    format!(
        r#"[store]
tenant = "{}"
name = "{}"
custody = "{}"
purposes = ["pay", "loyalty", "entry"{staff}{roaming}]
state_directory = {:?}

[store.operator_dossier]
reason = "demonstration on loopback with openly licensed and synthetic pictures"
dpia_sha256 = "{}"
assessed = 2026-01-31
signed_by = ["demonstration one", "demonstration two"]
expires = "{}"

[listen]
{broker}https = "{https}"
public_host = "127.0.0.1"

[staff]
zones = [{zones}]

[development]
root_in_file = true
"#,
        shape.tenant,
        shape.store,
        shape.custody,
        state.display().to_string(),
        "0".repeat(64),
        in_a_month(),
    )
}

/// A date a month from now: an exception for `operator` custody ends.
fn in_a_month() -> String {
    let date = time::OffsetDateTime::now_utc() + time::Duration::days(30);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// Runs the cloud in this process until it is told to end.
pub fn serve_cloud(state: PathBuf, listen: SocketAddr, monitor: SocketAddr) -> ExitCode {
    let served = control::block_on(async {
        let options =
            palmgate_cloud::Options { state, listen, monitor: Some(monitor), matcher: None };
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stop = async move {
            term.recv().await;
        };
        Ok(palmgate_cloud::serve(options, stop).await?)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::format::problem(&error);
            ExitCode::FAILURE
        }
    }
}

/// An address on loopback that nobody listens on.
///
/// Linux gives outgoing connections ports from 32768 on. Below it, nobody takes the port before the
/// process that it is for, nor while that one restarts; and each program begins elsewhere.
///
/// # Errors
/// Every port is taken.
pub fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = u16::try_from(u32::from(FIRST_PORT) + number % PORTS)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port from {FIRST_PORT} on is free on loopback")
}

fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
}
