//! A PostgreSQL cluster for one test program: real, on a socket of its own, gone with the program.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

/// Where Debian and its relatives keep the programs; elsewhere they are on the path.
const DEBIAN: &str = "/usr/lib/postgresql";

pub(crate) struct Cluster {
    data: PathBuf,
    server: Mutex<Option<u32>>,
    settings: Vec<String>,
}

impl Cluster {
    /// The cluster of this test program, started when it is first asked for.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["fsync=off", "max_connections=500"]))
    }

    /// A new cluster. Its server ends when this process does.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_after(settings, |_| {})
    }

    /// [`Cluster::start`], after `prepare` wrote into the cluster's directory.
    pub(crate) fn start_after(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let data = tempfile::Builder::new().prefix("palmgate-pg").tempdir().unwrap().keep();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&data));
        }
        let initdb = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N", "-D"];
        run(unprivileged(&program("initdb")).args(initdb).arg(data.join("cluster")));
        prepare(&data.join("cluster"));
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(&data));
        }
        let settings = settings.iter().map(|&setting| setting.into()).collect();
        let cluster = Self { data, server: Mutex::new(None), settings };
        cluster.launch();
        cluster
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn launch(&self) {
        let mut command = unprivileged(&program("postgres"));
        command.arg("-D").arg(self.data.join("cluster"));
        command.args(["-c", "listen_addresses=", "-k"]).arg(&self.data);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stderr(std::fs::File::create(self.log()).unwrap()).stdout(Stdio::null());
        let (sender, receiver) = mpsc::channel();
        // The server gets a signal when the thread that started it ends, so that thread stays.
        thread::spawn(move || {
            let mut child: Child = command.spawn().unwrap();
            sender.send(child.id()).unwrap();
            child.wait().unwrap();
            loop {
                thread::park();
            }
        });
        *self.server.lock().unwrap() = Some(receiver.recv().unwrap());
        for _ in 0..600 {
            if self.sql("postgres", "SELECT 1").is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{}", std::fs::read_to_string(self.log()).unwrap());
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Ends the server as a crash does.
    pub(crate) fn kill(&self) {
        let server = self.server.lock().unwrap().take().unwrap();
        run(Command::new("kill").args(["-9", &server.to_string()]));
        thread::sleep(Duration::from_millis(200));
    }

    /// The same data under a server with other settings.
    pub(crate) fn restarted(mut self, settings: &[&str]) -> Self {
        self.sql("postgres", "CHECKPOINT").unwrap();
        self.kill();
        self.settings = settings.iter().map(|&setting| setting.into()).collect();
        self.launch();
        self
    }

    /// A new database.
    pub(crate) fn create(&self, database: &str) {
        self.sql("postgres", &format!("CREATE DATABASE \"{database}\"")).unwrap();
    }

    /// The URL of a database, for the tenant's role.
    pub(crate) fn url(&self, database: &str) -> String {
        let host = data_encoding::HEXLOWER.encode(self.data.to_str().unwrap().as_bytes());
        let mut escaped = String::new();
        for (place, digit) in host.chars().enumerate() {
            if place % 2 == 0 {
                escaped.push('%');
            }
            escaped.push(digit);
        }
        format!("postgres://{escaped}/{database}")
    }

    /// The URL of a database, for its administrator.
    pub(crate) fn admin_url(&self, database: &str) -> String {
        self.url(database).replacen("postgres://", "postgres://postgres@", 1)
    }

    /// Runs SQL as the administrator, to whom no policy applies; the answer without decoration.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        self.sql_as("postgres", database, sql)
    }

    pub(crate) fn sql_as(&self, role: &str, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(program("psql"))
            .args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database])
            .arg("-h")
            .arg(&self.data)
            .args(["-c", sql])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Every row of a database, as the administrator's backup has them.
    pub(crate) fn dump(&self, database: &str) -> String {
        let mut command = Command::new(program("pg_dump"));
        command.args(["--data-only", "-U", "postgres", "-d", database, "-h"]).arg(&self.data);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything that the server has written.
    pub(crate) fn directory(&self) -> &Path {
        &self.data
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            let _ = Command::new("kill").args(["-9", &server.to_string()]).status();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// The server refuses to be root, and ends with who started it.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program).current_dir("/");
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn program(name: &str) -> PathBuf {
    if let Some(chosen) = std::env::var_os("PGVECTOR_BIN") {
        return PathBuf::from(chosen).join(name);
    }
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
