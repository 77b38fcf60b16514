//! A database across a network: TLS 1.3 with its own authority, its name checked, a password.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{
    Gateway, apart,
    cluster::Cluster,
    pay_and_roam,
    people::Person,
    process::{PROGRAM, Process},
};
use palmgate_cloud::{
    clock,
    provision::{self, Database, Founding, ProvisionError},
};
use palmgate_protocol::Name;
use palmgate_seal::random;
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const PASSWORD: &str = "a password that stands in no message";

/// Addresses of the loopback network that no other test listens on; the port is the usual one.
struct Addresses {
    named: String,
    /// The same server, which has no certificate for it.
    unnamed: String,
}

impl Addresses {
    fn new() -> Self {
        let [a, b] = random::bytes::<2>();
        let address = |last: u8| format!("127.{}.{}.{last}", a.max(1), b);
        Self { named: address(7), unnamed: address(8) }
    }

    fn listen(&self) -> String {
        format!("listen_addresses={},{}", self.named, self.unnamed)
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.current_dir(directory).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority in `NAME.pem` and `NAME.key`.
fn authority(directory: &Path, name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let files = format!("-keyout {name}.key -out {name}.pem -subj /CN={name} -days 2");
    openssl(directory, &format!("req -x509 {key} {files}"));
}

/// A certificate of the authority `ca` for an address, in `server.crt` and `server.key`.
fn certified(directory: &Path, address: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req {key} -keyout server.key -out server.csr -subj /CN=database"));
    std::fs::write(directory.join("names"), format!("subjectAltName=IP:{address}\n")).unwrap();
    let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 2";
    openssl(directory, &format!("x509 -req -in server.csr -out server.crt {by}"));
}

/// Lets nobody in over a network but with TLS and a password.
fn prepare(cluster: &Path, certificates: &Path) {
    for file in ["server.crt", "server.key"] {
        std::fs::copy(certificates.join(file), cluster.join(file)).unwrap();
    }
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(cluster.join("server.key"), private).unwrap();
    let rules = "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n";
    std::fs::write(cluster.join("pg_hba.conf"), rules).unwrap();
}

struct World {
    directory: tempfile::TempDir,
    tenant: Name,
    cluster: Cluster,
    addresses: Addresses,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses = Addresses::new();
        authority(directory.path(), "ca");
        authority(directory.path(), "stranger");
        certified(directory.path(), &addresses.named);
        let listen = addresses.listen();
        let cluster = Cluster::start_after(&["ssl=on", "fsync=off", &listen], |cluster| {
            prepare(cluster, directory.path());
        });
        cluster.sql("postgres", &format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("password", &format!("{PASSWORD}\n")).unwrap();
        write("wrong-password", "another one\n").unwrap();
        let random = data_encoding::HEXLOWER.encode(&random::bytes::<6>());
        let tenant = format!("acme-{random}").parse().unwrap();
        Self { directory, tenant, cluster, addresses }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A state directory for the database as these words describe it.
    fn found(&self, name: &str, address: &str, ca: &str, password: &str) -> PathBuf {
        let state = self.file(name);
        let database = Database {
            url: &url("", address),
            password_file: Some(&self.file(password)),
            ca: Some(&self.file(ca)),
        };
        let founding = Founding {
            host: "127.0.0.1",
            accept_operator: true,
            database: Some(database),
            ..Founding::new(&self.tenant)
        };
        provision::init(&state, &founding, clock::now()).unwrap();
        state
    }

    fn migrate(&self, state: &Path, address: &str) -> Result<(), ProvisionError> {
        let (url, password) = (url("postgres@", address), self.file("password"));
        apart(|| provision::migrate(state, &url, Some(&password)))
    }
}

fn url(role: &str, address: &str) -> String {
    format!("postgres://{role}{address}/postgres")
}

/// Starts the program; what it says when it ends by itself.
fn refused(state: &Path) -> String {
    let output = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{words}");
    assert!(!words.contains(PASSWORD), "{words}");
    words
}

#[tokio::test]
async fn the_cloud_speaks_tls_with_the_database_that_it_was_told_of_and_with_no_other() {
    let world = World::new();
    let (named, unnamed) = (world.addresses.named.clone(), world.addresses.unnamed.clone());
    let state = world.found("state", &named, "ca.pem", "password");
    world.migrate(&state, &named).unwrap();
    let bundle = world.file("bundle");
    let lyon: Name = "lyon".parse().unwrap();
    apart(|| provision::add_store(&state, &lyon, &bundle, None, clock::now()).map(drop).unwrap());
    let process = Process::start(&state, &[]);
    let gateway = Gateway::read(&bundle, process.address);
    gateway.hello().await;
    let person = Person::new();
    gateway.enrol(&person, pay_and_roam()).await;
    assert!(gateway.finds(&person).await);
    let connections = |condition: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
             WHERE usename = 'palmgate_{}' AND {condition}",
            world.tenant
        );
        world.cluster.sql("postgres", &sql).unwrap().trim().parse::<u32>().unwrap()
    };
    assert!(connections("ssl AND version = 'TLSv1.3'") > 0);
    assert_eq!(connections("NOT ssl"), 0);
    drop(process);

    // Each of them differs from the one above in one thing.
    for (name, address, ca, password, reason) in [
        ("stranger", &named, "stranger.pem", "password", "UnknownIssuer"),
        ("unnamed", &unnamed, "ca.pem", "password", "not valid for name"),
        ("guessed", &named, "ca.pem", "wrong-password", "password authentication failed"),
    ] {
        let state = world.found(name, address, ca, password);
        let words = refused(&state);
        assert!(words.contains(reason), "{name}: {words}");
        if password == "password" {
            let words = world.migrate(&state, address).unwrap_err().to_string();
            assert!(words.contains(reason), "{name}, its administrator: {words}");
        }
    }
    let World { directory: _directory, cluster, .. } = world;
    let listen = format!("listen_addresses={named}");
    let _cluster = apart(|| cluster.restarted(&["ssl=off", "fsync=off", &listen]));
    let words = refused(&state);
    assert!(words.contains("TLS"), "a server without it: {words}");
}
