//! Real processes of the cloud over a PostgreSQL.

use super::{Gateway, apart, cluster::Cluster, found_on_postgres};
use palmgate_cloud::{clock, provision};
use palmgate_protocol::Name;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_palmgate-cloud");

/// A process of the cloud, killed when it goes out of scope.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn start(state: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(state)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, address)) = line.rsplit_once("address=") {
                break address.parse().unwrap();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Process {
    /// Asks it to end, as a supervisor does, and waits until it has; whether it ended well.
    pub(crate) fn stop(&mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tenant with a directory for each of its processes' keys; here they share one.
pub(crate) struct Tenant {
    directory: tempfile::TempDir,
}

impl Tenant {
    pub(crate) fn new(cluster: &Cluster, choices: &str) -> Self {
        Self { directory: found_on_postgres(cluster, choices) }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn name(&self) -> Name {
        provision::tenant(&self.state()).unwrap()
    }

    pub(crate) async fn store(&self, name: &str, partition: &str, address: SocketAddr) -> Gateway {
        let bundle = self.directory.path().join(format!("bundle-{name}"));
        let (state, store, partition): (_, Name, Name) =
            (self.state(), name.parse().unwrap(), partition.parse().unwrap());
        let now = clock::now();
        apart(|| {
            provision::add_store_to(&state, &store, &partition, &bundle, None, now)
                .map(drop)
                .unwrap();
        });
        let gateway = Gateway::read(&bundle, address);
        gateway.hello().await;
        gateway
    }
}
