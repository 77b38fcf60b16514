//! A cloud on the loopback interface and the stores that speak with it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod cluster;
pub(crate) mod people;
pub(crate) mod process;

use cluster::Cluster;
use palmgate_cloud::{
    Options, Service, clock,
    provision::{self, Database, Founding},
};
use palmgate_protocol::{
    DAY, Name, Purpose, PurposeSet, Timestamp,
    cloud::{
        Directory, Erasure, ErasureState, Hello, ProbeQuery, Registration, Resolution, Shard,
        ShardApplied, Tombstones,
    },
    decode, encode,
};
use palmgate_seal::{
    envelope::{self, OpeningKey, SealingKey},
    pki::{self, Identity},
    shard,
    sign::{SigningKey, VerifyingKey},
};
use people::{Person, purposes};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A cloud in this process.
pub(crate) struct Cloud {
    directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) monitor: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Cloud {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines in `cloud.toml`.
    pub(crate) fn start_with(choices: &str) -> Self {
        Self::over(found(choices))
    }

    /// Over PostgreSQL.
    pub(crate) fn start_on_postgres() -> Self {
        Self::over(found_on_postgres(Cluster::shared(), ""))
    }

    fn over(directory: tempfile::TempDir) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        let mut cloud = Self { directory, address: any, monitor: any, running: None };
        cloud.run();
        cloud
    }

    fn run(&mut self) {
        let options = Options {
            state: self.state(),
            listen: ([127, 0, 0, 1], 0).into(),
            monitor: Some(([127, 0, 0, 1], 0).into()),
            matcher: None,
        };
        let service = apart(|| Service::bind(&options).unwrap());
        self.address = service.address().unwrap();
        self.monitor = service.monitor_address().unwrap().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            service
                .run(async {
                    let _ = stopped.await;
                })
                .await
                .unwrap();
        });
        self.running = Some((stop, task));
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run();
    }

    /// Every directory that the cloud writes to, directly or through its database.
    pub(crate) fn places(&self) -> Vec<PathBuf> {
        let mut places = vec![self.state()];
        if self.state().join("registry.keys").exists() {
            Cluster::shared().sql("postgres", "CHECKPOINT").unwrap();
            places.push(Cluster::shared().directory().into());
        }
        places
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Admits a store, which says hello.
    pub(crate) async fn store(&self, name: &str) -> Gateway {
        let gateway = self.silent_store(name);
        gateway.hello().await;
        gateway
    }

    pub(crate) fn silent_store(&self, name: &str) -> Gateway {
        let bundle = self.directory.path().join(format!("bundle-{name}"));
        let name = name.parse().unwrap();
        let (state, now) = (self.state(), clock::now());
        apart(|| provision::add_store(&state, &name, &bundle, None, now).map(drop).unwrap());
        Gateway::read(&bundle, self.address)
    }
}

/// Blocking work, away from the tasks of the test.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A state directory whose tenant, with a name of its own, keeps its rows in a database that others
/// share.
pub(crate) fn found_on_postgres(cluster: &Cluster, choices: &str) -> tempfile::TempDir {
    static SCHEMA: Mutex<()> = Mutex::new(());
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let random = data_encoding::HEXLOWER.encode(&palmgate_seal::random::bytes::<6>());
    let tenant = format!("acme-{random}").parse().unwrap();
    let database = Database { url: &cluster.url("postgres"), password_file: None, ca: None };
    let founding = Founding {
        host: "127.0.0.1",
        accept_operator: true,
        database: Some(database),
        ..Founding::new(&tenant)
    };
    provision::init(&state, &founding, clock::now()).unwrap();
    let file = state.join("cloud.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}connections = 4\n{choices}")).unwrap();
    let one_after_the_other = SCHEMA.lock().unwrap();
    apart(|| provision::migrate(&state, &cluster.admin_url("postgres"), None).unwrap());
    drop(one_after_the_other);
    directory
}

/// A state directory whose tenant accepts `operator` records.
pub(crate) fn found(choices: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let tenant = "acme".parse().unwrap();
    let founding = Founding { host: "127.0.0.1", accept_operator: true, ..Founding::new(&tenant) };
    provision::init(&state, &founding, clock::now()).unwrap();
    let file = state.join("cloud.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{choices}")).unwrap();
    directory
}

/// A store's gateway.
pub(crate) struct Gateway {
    pub(crate) tenant: Name,
    pub(crate) name: Name,
    pub(crate) publisher: VerifyingKey,
    pub(crate) matcher: SealingKey,
    pub(crate) key: OpeningKey,
    pub(crate) signing: SigningKey,
    pub(crate) held: Option<(u64, [u8; 32])>,
    pub(crate) members: BTreeSet<[u8; 16]>,
    pub(crate) tombstone_root: [u8; 32],
    client: Client,
    tls: rustls::ClientConfig,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    pub(crate) fn read(bundle: &Path, address: SocketAddr) -> Self {
        let text = |name: &str| std::fs::read_to_string(bundle.join(name)).unwrap();
        let key = |name: &str| {
            let hex = text(name);
            let bytes = data_encoding::HEXLOWER.decode(hex.trim_end().as_bytes()).unwrap();
            <[u8; 32]>::try_from(bytes).unwrap()
        };
        let toml: toml::Table = text("bundle.toml").parse().unwrap();
        let name = |key: &str| toml[key].as_str().unwrap().parse().unwrap();
        let identity = Identity::from_pem(&text("gateway.pem"), &text("gateway.key")).unwrap();
        Self {
            tenant: name("tenant"),
            name: name("store"),
            publisher: VerifyingKey(key("publisher.pub")),
            matcher: SealingKey(key("matcher.pub")),
            key: OpeningKey::generate(),
            signing: SigningKey::generate(),
            held: None,
            members: BTreeSet::new(),
            tombstone_root: [0; 32],
            client: client(Some(&identity), &text("authority.pem")),
            tls: tls(Some(&identity), &text("authority.pem")),
            address,
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_to(self.address, method, path)
    }

    pub(crate) fn request_to(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
    ) -> RequestBuilder {
        self.client.request(method, format!("https://{address}{path}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Response {
        self.request(Method::POST, path)
            .header("content-type", "application/cbor")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// A connection without an HTTP library.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(self.tls.clone()));
        let stream = TcpStream::connect(self.address).await.unwrap();
        connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
    }

    pub(crate) async fn server_certificate(&self) -> Vec<u8> {
        let stream = self.connect().await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    pub(crate) fn greeting(&self) -> Hello {
        Hello { seal_key: self.key.public().0, verify_key: self.signing.public().0 }
    }

    pub(crate) async fn hello(&self) -> Directory {
        read(self.post("/v1/hello", encode(&self.greeting())).await).await
    }

    pub(crate) fn operator(&self, person: &Person, purposes: PurposeSet) -> Registration {
        person.operator(&self.tenant, &self.matcher, purposes, clock::now(), in_a_month())
    }

    pub(crate) async fn enrol(&self, person: &Person, purposes: PurposeSet) {
        self.register(&self.operator(person, purposes)).await;
    }

    pub(crate) async fn register(&self, registration: &Registration) {
        let response = self.post("/v1/registrations", encode(registration)).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    /// Fetches and applies the next shard; `false` when there is none.
    pub(crate) async fn fetch(&mut self) -> bool {
        let held = self.held.map_or(0, |(version, _)| version);
        let response = self.get(&format!("/v1/shard?held={held}")).await;
        if response.status() == StatusCode::NO_CONTENT {
            return false;
        }
        let shard: Shard = read(response).await;
        let expected = shard::Expected { tenant: &self.tenant, store: &self.name, held: self.held };
        let opened = shard::open(&shard, &self.publisher, &self.key, &expected).unwrap();
        if opened.manifest.base == 0 {
            self.members.clear();
        }
        for chunk in opened.chunks {
            for member in chunk.remove {
                self.members.remove(member.as_bytes());
            }
            self.members.extend(chunk.add.iter().map(|record| *record.member.as_bytes()));
        }
        assert_eq!(opened.manifest.rows, self.members.len() as u64);
        self.held = Some((opened.manifest.version, opened.manifest_hash));
        self.tombstone_root = opened.manifest.tombstone_root;
        true
    }

    pub(crate) async fn confirm(&self) {
        let applied = ShardApplied { version: self.held.unwrap().0 };
        let response = self.post("/v1/shard/applied", encode(&applied)).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    pub(crate) fn has(&self, person: &Person) -> bool {
        self.members.contains(person.member.as_bytes())
    }

    pub(crate) fn query(&self, person: &Person, purpose: Purpose, palm: &Person) -> ProbeQuery {
        person.query(&self.tenant, &self.matcher, purpose, &palm.probe())
    }

    /// The answer and its length on the wire.
    pub(crate) async fn resolve(&self, query: &ProbeQuery) -> (Resolution, usize) {
        resolution(self.post("/v1/resolve/probe", encode(query)).await).await
    }

    pub(crate) async fn finds(&self, person: &Person) -> bool {
        let (answer, _) = self.resolve(&self.query(person, Purpose::Pay, person)).await;
        matches!(answer, Resolution::Found { .. })
    }

    pub(crate) async fn erase(&self, person: &Person) -> ErasureState {
        read(self.post("/v1/erasures", encode(&erasure_of(person))).await).await
    }

    pub(crate) async fn erasure(&self, person: &Person) -> ErasureState {
        let commitment = data_encoding::HEXLOWER.encode(&erasure_of(person).commitment);
        read(self.get(&format!("/v1/erasures/{commitment}")).await).await
    }

    pub(crate) async fn tombstones(&self, after: u64) -> Tombstones {
        read(self.get(&format!("/v1/tombstones?after={after}")).await).await
    }
}

/// A client with or without a certificate, who trusts one authority.
pub(crate) fn client(identity: Option<&Identity>, authority_pem: &str) -> Client {
    Client::builder().tls_backend_preconfigured(tls(identity, authority_pem)).build().unwrap()
}

fn tls(identity: Option<&Identity>, authority_pem: &str) -> rustls::ClientConfig {
    let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap();
    pki::client_config(identity, &authority).unwrap()
}

pub(crate) async fn read<T: for<'b> minicbor::Decode<'b, ()>>(response: Response) -> T {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/cbor");
    decode(&response.bytes().await.unwrap()).unwrap()
}

pub(crate) async fn resolution(response: Response) -> (Resolution, usize) {
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.bytes().await.unwrap();
    (decode(envelope::unpad(&bytes).unwrap()).unwrap(), bytes.len())
}

/// The last part of a problem's type, after its form was checked.
pub(crate) async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let text = response.text().await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], status);
    let kind = json["type"].as_str().unwrap().strip_prefix("urn:palmgate:problem:").unwrap();
    (status, kind.into())
}

pub(crate) fn erasure_of(person: &Person) -> Erasure {
    let commitment = std::array::from_fn(|i| person.member.as_bytes()[i % 16] ^ 0x5a);
    Erasure { member: person.member, claim: person.claim, commitment }
}

pub(crate) fn pay_and_roam() -> PurposeSet {
    purposes([Purpose::Pay, Purpose::Roaming])
}

pub(crate) fn in_a_month() -> Timestamp {
    clock::now().after(30 * DAY)
}
