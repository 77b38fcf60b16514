//! A proxy with the cloud's own certificate, between a store and its real cloud: it sees what the
//! cloud's front sees, and answers what it likes.

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use palmgate_cli::stage::Cloud;
use palmgate_cloud::{clock, provision};
use palmgate_protocol::{
    Name,
    cloud::{Hello, MemberRecord, ProbeQuery, Registration, Resolution},
    decode, encode,
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey, SealingKey},
    pki::{self, ClientAuth, Identity},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// Longer than a store waits for the cloud.
const SLOW: Duration = Duration::from_millis(2500);
const PATIENCE: Duration = Duration::from_mins(1);
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const CBOR: &str = "application/cbor";

/// What a server says.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn cbor(body: impl Into<Bytes>) -> Self {
        Self { status: 200, kind: CBOR, body: body.into() }
    }
}

/// What the proxy does instead of passing on.
#[derive(Clone)]
pub(crate) enum Lie {
    /// The cloud's own answer.
    Nothing,
    /// It, but too late.
    Late,
    /// To whatever begins with this path, this.
    Instead(&'static str, Answer),
    /// To whoever is asked for, this encoded record, sealed to the store.
    Record(Vec<u8>),
}

/// A store's way to a cloud, with a certificate of that store.
pub(crate) struct Way {
    client: reqwest::Client,
    base: String,
}

impl Way {
    /// Reads a bundle of the store.
    pub(crate) fn read(directory: &Path, base: &str) -> Result<Self> {
        let text = |name: &str| fs::read_to_string(directory.join(name));
        let identity = Identity::from_pem(&text("gateway.pem")?, &text("gateway.key")?)?;
        let authority = CertificateDer::from_pem_slice(text("authority.pem")?.as_bytes())?;
        let tls = pki::client_config(Some(&identity), &authority)?;
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build()?;
        Ok(Self { client, base: base.into() })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        answer(self.client.get(format!("{}{path}", self.base)).send().await?).await
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", CBOR);
        answer(request.body(body).send().await?).await
    }
}

async fn answer(response: reqwest::Response) -> Result<Answer> {
    let kinds = [CBOR, "application/octet-stream", "application/problem+json", "text/x.tlog.size"];
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let kind = kinds.into_iter().find(|known| kind == Some(known)).unwrap_or("text/plain");
    let status = response.status().as_u16();
    Ok(Answer { status, kind, body: response.bytes().await? })
}

pub(crate) struct Liar {
    store: Name,
    tenant: Name,
    cloud: PathBuf,
    directory: tempfile::TempDir,
    upstream: String,
    way: OnceCell<Way>,
    seen: Mutex<Seen>,
}

/// What passed by.
struct Seen {
    lie: Lie,
    told: usize,
    paths: Vec<String>,
    hello: Option<Hello>,
    registrations: Vec<Vec<u8>>,
    shards: Vec<Bytes>,
    cosignatures: Vec<Bytes>,
}

impl Liar {
    /// Stands before the cloud; the next store of the stage dials this one and is called `store`.
    pub(crate) fn before(cloud: &mut Cloud, real: &str, store: &str) -> Result<Arc<Self>> {
        let file = |name: &str| fs::read_to_string(cloud.state.join(name));
        let identity = Identity::from_pem(&file("server.pem")?, &file("server.key")?)?;
        let authority_der = CertificateDer::from_pem_slice(file("authority.pem")?.as_bytes())?;
        let clients = ClientAuth::Required { authority_der, revoked: None };
        let tls = RustlsConfig::from_config(Arc::new(pki::server_config(&identity, clients)?));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        cloud.url = format!("https://{}", listener.local_addr()?);
        let liar = Arc::new(Self {
            store: store.parse()?,
            tenant: provision::tenant(&cloud.state)?,
            cloud: cloud.state.clone(),
            directory: tempfile::tempdir()?,
            upstream: real.into(),
            way: OnceCell::new(),
            seen: Mutex::new(Seen {
                lie: Lie::Nothing,
                told: 0,
                paths: Vec::new(),
                hello: None,
                registrations: Vec::new(),
                shards: Vec::new(),
                cosignatures: Vec::new(),
            }),
        });
        let routes = Router::new().fallback(serve).with_state(Arc::clone(&liar));
        let server = from_tcp_rustls(listener, tls)?;
        tokio::spawn(server.serve(routes.into_make_service()));
        Ok(liar)
    }

    /// The real cloud, as the store.
    pub(crate) async fn way(&self) -> Result<&Way> {
        let make = async || {
            let directory = self.directory.path().join("bundle");
            let cloud = &self.cloud;
            provision::renew_store(cloud, &self.store, &directory, None, clock::now())?;
            Way::read(&directory, &self.upstream)
        };
        self.way.get_or_try_init(make).await
    }

    /// Lies until `times` of the store's questions were answered so.
    pub(crate) async fn tell(&self, lie: Lie, times: usize) -> Result<()> {
        self.begin(lie);
        let begun = Instant::now();
        while self.seen().told < times {
            ensure!(begun.elapsed() < PATIENCE, "the store does not ask");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Lies from now on, or no more.
    pub(crate) fn begin(&self, lie: Lie) {
        let mut seen = self.seen();
        (seen.lie, seen.told) = (lie, 0);
        seen.paths.clear();
    }

    /// What the store asked for since the last lie began.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().paths.clone()
    }

    /// The key that the store's shards and answers are sealed to.
    pub(crate) fn sealing_key(&self) -> Result<SealingKey> {
        let seen = self.seen();
        Ok(SealingKey(seen.hello.as_ref().context("no hello passed by")?.seal_key))
    }

    pub(crate) fn hello(&self) -> Result<Vec<u8>> {
        Ok(encode(self.seen().hello.as_ref().context("no hello passed by")?))
    }

    /// The registrations that passed by, as a cloud of `operator` custody reads them.
    pub(crate) fn registered(&self) -> Result<Vec<(Registration, MemberRecord)>> {
        let key: [u8; 32] = fs::read(self.cloud.join("matcher.key"))?.as_slice().try_into()?;
        let key = OpeningKey::from_bytes(&key)?;
        let open = |body: &Vec<u8>| {
            let it: Registration = decode(body)?;
            let (label, aad) = (Label::Registration, it.binding());
            let record = envelope::open(&key, label, &self.tenant, &aad, &it.sealed)?;
            Ok((it, decode(record.expose())?))
        };
        self.seen().registrations.iter().map(open).collect()
    }

    pub(crate) fn shards(&self) -> Vec<Bytes> {
        self.seen().shards.clone()
    }

    pub(crate) fn cosignatures(&self) -> Vec<Bytes> {
        self.seen().cosignatures.clone()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }

    fn note_question(&self, path: &str, body: &Bytes) -> Lie {
        let mut seen = self.seen();
        seen.paths.push(path.into());
        match path {
            "/v1/hello" => seen.hello = decode(body).ok(),
            "/v1/registrations" => seen.registrations.push(body.to_vec()),
            _ => {}
        }
        seen.lie.clone()
    }

    fn note_answer(&self, path: &str, answer: &Answer) {
        let mut seen = self.seen();
        match path {
            _ if answer.status != 200 => {}
            _ if path.starts_with("/v1/shard?") => seen.shards.push(answer.body.clone()),
            "/v1/witness/add-checkpoint" => seen.cosignatures.push(answer.body.clone()),
            _ => {}
        }
    }

    fn lied(&self) {
        self.seen().told += 1;
    }

    async fn answer(&self, request: Request) -> Result<Answer> {
        let path = request.uri().path_and_query().context("a path")?.to_string();
        let method = request.method().clone();
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await?;
        match self.note_question(&path, &body) {
            Lie::Instead(about, answer) if path.starts_with(about) => {
                self.lied();
                return Ok(answer);
            }
            Lie::Record(record) if path == "/v1/resolve/probe" => {
                self.lied();
                return self.sealed(&body, &record);
            }
            Lie::Late => {
                self.lied();
                tokio::time::sleep(SLOW).await;
            }
            _ => {}
        }
        let way = self.way().await?;
        let answer = match method.as_str() {
            "GET" => way.get(&path).await?,
            _ => way.post(&path, body.to_vec()).await?,
        };
        self.note_answer(&path, &answer);
        Ok(answer)
    }

    fn sealed(&self, query: &[u8], record: &[u8]) -> Result<Answer> {
        let query: ProbeQuery = decode(query)?;
        let (to, aad) = (self.sealing_key()?, Resolution::binding(&query.claim));
        let sealed = envelope::seal(&to, Label::Resolution, &self.tenant, &aad, record)?;
        let answer = encode(&Resolution::Found { sealed });
        let padded = envelope::pad(&answer, Resolution::WIRE_BYTES);
        let body = padded.expose().clone().into();
        Ok(Answer { status: 200, kind: "application/octet-stream", body })
    }
}

async fn serve(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    let Ok(answer) = liar.answer(request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(CONTENT_TYPE, answer.kind)], answer.body).into_response()
}
