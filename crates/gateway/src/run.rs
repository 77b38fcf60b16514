//! Puts a gateway together, and takes it apart again.

use crate::{
    broker,
    bundle::BundleError,
    clock,
    cloud::{CloudHandle, CloudOptions},
    control,
    extraction::Workers,
    fabric::{Fabric, FabricOptions},
    http::{self, Served},
    keeper::RootKeeping,
    kept::Kept,
    law::InForce,
    metrics::Metrics,
    opened::Opened,
    scribe::Scribe,
    store::{Input, Store, Surroundings},
    terminals::{Terminals, TerminalsOptions},
    witness::{self, Witness},
};
use palmgate_palm::Extractor;
use palmgate_policy::{Engine, Event, Pack, Settings};
use palmgate_protocol::{Name, Secret};
use palmgate_seal::{
    aead,
    envelope::OpeningKey,
    pki::{self, ClientAuth, Identity},
    sign::VerifyingKey,
};
use palmgate_vault::Vault;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Requests that wait for the event loop.
const REQUEST_QUEUE: usize = 256;

/// Everything that a gateway is started with; built from a checked configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose people are kept.
    pub tenant: Name,
    /// Which store this is.
    pub store: Name,
    /// Where state lies.
    pub state_directory: PathBuf,
    /// Who keeps the vault's root.
    pub root: RootKeeping,
    /// What the policy goes by. Thresholds and liveness are set from the models' calibration.
    pub settings: Settings,
    /// False match rate that the threshold of each purpose is chosen for, by
    /// [`palmgate_protocol::Purpose::MATCHED`] position.
    pub false_match_rates: [f64; 4],
    /// How long a person's own history reaches back.
    pub history: Duration,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// DNS name or address that terminals dial.
    pub public_host: String,
    /// The broker.
    pub broker: Broker,
    /// The cloud, if there is one.
    pub cloud: Option<Cloud>,
    /// Threads that work on pictures.
    pub workers: usize,
    /// Pictures that wait for a thread.
    pub queue_length: usize,
    /// Language of letters (BCP 47).
    pub language: String,
}

/// Which broker carries the store's messages.
#[derive(Clone, Debug)]
pub enum Broker {
    /// The gateway's own.
    Embedded {
        /// Where it listens.
        listen: SocketAddr,
        /// Its bounds.
        limits: Box<broker::Limits>,
    },
    /// Another one, with the store's certificates and the shipped access rules.
    External {
        /// Host that it is dialled at.
        host: String,
        /// Port.
        port: u16,
    },
}

/// How the cloud is reached.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// Where the bundle lies, or lay until it was taken in.
    pub bundle: PathBuf,
    /// Pause between two rounds.
    pub refresh: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// A gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A path cannot be used.
    #[error("{}: {cause}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; is another gateway running?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The bundle is of another tenant or store.
    #[error(
        "the bundle is for store {found}, the configuration says {wanted}: use the right bundle, or correct [store]"
    )]
    OtherStore {
        /// In the bundle.
        found: String,
        /// In the configuration.
        wanted: String,
    },
    /// The systemd credential that the root needs is not there.
    #[error(
        "the credential palmgate-root is not there: give it to the unit with LoadCredentialEncrypted=, or choose another [root] keeper"
    )]
    Credential,
    /// The program cannot talk to a TPM.
    #[error(
        "this program was built without a TPM: build it with --features tpm, or choose another [root] keeper"
    )]
    WithoutTpm,
    /// Something below failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl StartError {
    /// Whether the configuration is at fault, so that starting again cannot help.
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::OtherStore { .. } | Self::Credential | Self::WithoutTpm)
    }
}

impl From<BundleError> for StartError {
    fn from(error: BundleError) -> Self {
        Self::Other(error.into())
    }
}

/// A running gateway.
pub struct Gateway {
    https: SocketAddr,
    broker: Option<broker::Broker>,
    served: Served,
    stop: watch::Sender<bool>,
    store: tokio::task::JoinHandle<()>,
    server: axum_server::Handle<SocketAddr>,
    control: tokio::task::JoinHandle<()>,
    vault: Arc<Vault>,
}

impl Gateway {
    /// Where HTTPS is served.
    pub const fn https(&self) -> SocketAddr {
        self.https
    }

    /// Where the embedded broker listens.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(broker::Broker::address)
    }

    /// Whether the event loop ticks: what the watchdog is told.
    pub fn is_alive(&self) -> bool {
        self.served.is_alive()
    }

    /// Whether a failed write left the store in a state that only a new start ends, and the disk takes
    /// writes again.
    pub async fn should_restart(&self) -> bool {
        let vault = Arc::clone(&self.vault);
        let asked = tokio::task::spawn_blocking(move || vault.should_be_reopened());
        asked.await.unwrap_or(false)
    }

    /// Whether terminals can be served.
    pub fn is_ready(&self) -> bool {
        self.served.is_alive() && self.served.broker_passes()
    }

    /// Finishes what is in work, makes everything durable, disconnects.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.store.await;
        // Answers that were just sealed leave through the broker before it closes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.server.graceful_shutdown(Some(Duration::from_secs(1)));
        self.control.abort();
        if let Some(broker) = self.broker {
            broker.shutdown().await;
        }
    }
}

/// Starts a gateway that decides by `law`, which has let it open ([`crate::law::open`]).
///
/// # Errors
/// [`StartError`] says what is at fault; nothing keeps running then.
pub async fn run(options: Options, law: InForce) -> Result<Gateway, StartError> {
    let opened = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || Opened::open(&options))
            .await
            .map_err(anyhow::Error::from)??
    };
    start(options, law, opened)
}

fn start(options: Options, law: InForce, opened: Opened) -> Result<Gateway, StartError> {
    let authority_der = opened.authority.certificate_der().clone();
    let clients = || ClientAuth::Required { authority_der: authority_der.clone(), revoked: None };
    let first = pki::server_config(&opened.identity()?, clients()).map_err(anyhow::Error::from)?;
    let (tls, tls_now) = watch::channel(Arc::new(first));
    let (broker, host, port) = start_broker(&options.broker, tls_now)?;
    let metrics = metrics(&options, &law.pack, &opened, broker.as_ref())?;
    let https = listen(options.https)?;
    let https_at =
        https.local_addr().map_err(|cause| StartError::Listen { address: options.https, cause })?;

    let (inputs, inputs_rx) = mpsc::unbounded_channel::<Input>();
    let (requests, requests_rx) = mpsc::channel(REQUEST_QUEUE);
    let fabric = Fabric::start(FabricOptions {
        host,
        port,
        tls: pki::client_config(Some(&opened.identity()?), &authority_der)
            .map_err(anyhow::Error::from)?,
        identity: opened.identity()?,
        authority_der: authority_der.clone(),
        vault: Arc::clone(&opened.vault),
        metrics: Arc::clone(&metrics),
        requests,
    });
    let identity = opened.identity()?;
    let issuers = Arc::new(RwLock::new(vec![identity.verifying_key()]));
    let cloud = connect_cloud(&options, &opened, &inputs, &issuers, &metrics)?;
    let workers = start_workers(&options, opened.extractor, &opened.transform_key, &inputs)?;
    let done = inputs.clone();
    let pending = opened.receipts.pending();
    let scribe = Scribe::start(
        Arc::clone(&opened.vault),
        opened.log,
        opened.receipts,
        options.history,
        law.pack.hash(),
        move |written| {
            let _ = done.send(Input::Done(written));
        },
    )
    .map_err(anyhow::Error::from)?;
    if let Some(cloud) = &cloud {
        cloud.start(scribe.clone());
    }
    let terminals = Arc::new(Terminals::load(TerminalsOptions {
        authority: opened.authority,
        identity: Identity::from_pem(&opened.identity_pem.0, opened.identity_pem.1.expose())
            .map_err(anyhow::Error::from)?,
        vault: Arc::clone(&opened.vault),
        broker_host: options.public_host.clone(),
        broker_port: port,
        store: options.store.clone(),
        tenant: options.tenant.clone(),
        tls,
        inputs: inputs.clone(),
    })?);

    let Kept { desk, time, visitors } = Kept::load(&opened.vault)?;
    let mut engine = Engine::with_pack(calibrated(&options), Arc::clone(&law.pack));
    let known = time.map(Event::TimeSeen).into_iter().chain([Event::VisitorsLoaded(visitors)]);
    let people = opened.people.into_iter().map(|(who, profile)| (who, Box::new(profile)));
    let people = people.map(|(who, profile)| Event::Loaded(who, profile));
    let lease = opened.shard.map(|shard| Event::LeaseLoaded(shard.lease_until));
    for event in known.chain(people).chain(lease) {
        engine.handle(event, clock::now());
    }
    terminals.announce(&fabric);
    let (alive, alive_rx) = watch::channel(Instant::now());
    let (stop, stopping) = watch::channel(false);
    let vault = Arc::clone(&opened.vault);
    let store = Store::new(
        engine,
        Surroundings {
            tenant: options.tenant.clone(),
            store: options.store.clone(),
            law,
            language: options.language.clone(),
            pending,
            signing_key: identity.signing_key(),
            record_key: record_key(&opened.transform_key),
            issuers,
            vault: opened.vault,
            forgotten: opened.forgotten,
            references: opened.references,
            workers,
            scribe,
            cloud,
            fabric: Arc::clone(&fabric),
            metrics: Arc::clone(&metrics),
            inputs: inputs.clone(),
        },
        desk,
    );
    let store = tokio::spawn(store.run(requests_rx, inputs_rx, stopping, alive));
    let served = Served {
        terminals,
        fabric,
        metrics,
        alive: alive_rx,
        pairing: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    let server = serve_https(https, &identity, served.clone())?;
    let control = serve_control(&options.state_directory, served.clone(), inputs)?;
    Ok(Gateway { https: https_at, broker, served, stop, store, server, control, vault })
}

/// Metrics that show what was opened, too.
fn metrics(
    options: &Options,
    law: &Pack,
    opened: &Opened,
    broker: Option<&broker::Broker>,
) -> Result<Arc<Metrics>, anyhow::Error> {
    let metrics = Metrics::new(options.state_directory.clone())?;
    metrics.build(palmgate_palm::models_hash(), law.hash());
    for (which, ends) in opened.certificates_end()? {
        metrics.certificate_ends(which, ends);
    }
    let (_, promise) = opened.vault.keeper();
    metrics.root_promise(promise.as_str());
    if !promise.is_strong() {
        tracing::warn!(
            promise = promise.as_str(),
            "erasure is as good as the disk's: a TPM destroys what a disk overwrites"
        );
    }
    if let Some(broker) = broker {
        metrics.add_broker(broker.counters())?;
    }
    Ok(Arc::new(metrics))
}

/// Thresholds come from the models' calibration; a rate that it cannot vouch for matches nobody.
fn calibrated(options: &Options) -> Settings {
    let calibration = palmgate_palm::calibration();
    let threshold = |rate: f64| calibration.threshold(rate).unwrap_or(f32::INFINITY);
    let thresholds = options.false_match_rates.map(threshold);
    Settings { thresholds, ..options.settings.clone() }
}

/// Seals what tokens carry in `subject` custody: every store of the tenant derives the same key.
fn record_key(transform_key: &Secret<[u8; 32]>) -> aead::Key {
    aead::Key::derive(transform_key, "subject-record")
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address);
    let listener = listener.map_err(|cause| StartError::Listen { address, cause })?;
    let nonblocking = listener.set_nonblocking(true);
    nonblocking.map_err(|cause| StartError::Listen { address, cause })?;
    Ok(listener)
}

fn start_broker(
    broker: &Broker,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
) -> Result<(Option<broker::Broker>, String, u16), StartError> {
    match broker {
        Broker::External { host, port } => Ok((None, host.clone(), *port)),
        Broker::Embedded { listen: address, limits } => {
            let listener = listen(*address)?;
            let broker = broker::Broker::start(listener, tls, (**limits).clone());
            let broker = broker.map_err(anyhow::Error::from)?;
            let at = broker.address();
            let host =
                if at.ip().is_unspecified() { "127.0.0.1".into() } else { at.ip().to_string() };
            Ok((Some(broker), host, at.port()))
        }
    }
}

fn connect_cloud(
    options: &Options,
    opened: &Opened,
    inputs: &mpsc::UnboundedSender<Input>,
    issuers: &Arc<RwLock<Vec<VerifyingKey>>>,
    metrics: &Arc<Metrics>,
) -> Result<Option<CloudHandle>, StartError> {
    let (Some(cloud), Some(bundle)) = (&options.cloud, &opened.bundle) else { return Ok(None) };
    let authority = CertificateDer::from_pem_slice(bundle.authority_pem.as_bytes())
        .map_err(anyhow::Error::from)?;
    let tls =
        pki::client_config(Some(&bundle.identity), &authority).map_err(anyhow::Error::from)?;
    let opening_key = OpeningKey::from_bytes(&opened.opening_key.to_bytes().expose().clone());
    let handle = CloudHandle::new(CloudOptions {
        url: bundle.url.clone(),
        matcher: bundle.matcher,
        publisher: bundle.publisher,
        tls,
        timeout: cloud.timeout,
        refresh: cloud.refresh,
        store: options.store.clone(),
        tenant: options.tenant.clone(),
        opening_key: opening_key.map_err(anyhow::Error::from)?,
        verify_key: opened.identity()?.verifying_key(),
        vault: Arc::clone(&opened.vault),
        forgotten: Arc::clone(&opened.forgotten),
        issuers: Arc::clone(issuers),
        inputs: inputs.clone(),
        metrics: Arc::clone(metrics),
        waiting: opened.receipts.waiting(),
        witness: Witness {
            log: opened.identity()?.verifying_key(),
            name: witness::name(&options.tenant),
            key: bundle.witness,
            file: options.state_directory.join("ledger.cosigned"),
        },
    });
    Ok(Some(handle.map_err(anyhow::Error::from)?))
}

fn start_workers(
    options: &Options,
    extractor: Extractor,
    key: &Secret<[u8; 32]>,
    inputs: &mpsc::UnboundedSender<Input>,
) -> Result<Workers, StartError> {
    let inputs = inputs.clone();
    let (count, queue) = (options.workers, options.queue_length);
    let workers = Workers::start(extractor, key, &options.tenant, count, queue, move |worked| {
        inputs.send(Input::Worked(worked)).is_ok()
    });
    Ok(workers.map_err(anyhow::Error::from)?)
}

fn serve_https(
    listener: TcpListener,
    identity: &Identity,
    served: Served,
) -> Result<axum_server::Handle<SocketAddr>, StartError> {
    let tls = pki::server_config(identity, ClientAuth::None).map_err(anyhow::Error::from)?;
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(tls));
    let handle = axum_server::Handle::new();
    let server = axum_server::from_tcp_rustls(listener, tls).map_err(anyhow::Error::from)?;
    let app = http::router(served).into_make_service();
    let serving = server.handle(handle.clone()).serve(app);
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "HTTPS stopped");
        }
    });
    Ok(handle)
}

/// The control socket belongs to the user that the daemon runs as.
fn serve_control(
    directory: &Path,
    served: Served,
    inputs: mpsc::UnboundedSender<Input>,
) -> Result<tokio::task::JoinHandle<()>, StartError> {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(control::SOCKET);
    let at = |cause| StartError::File { path: path.clone(), cause };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&path).map_err(at)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(at)?;
    let app = control::router(served, inputs);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the control socket stopped");
        }
    }))
}
