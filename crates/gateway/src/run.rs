//! Puts a gateway together, and takes it apart again.

use crate::{
    broker,
    bundle::BundleError,
    calibration::{self, CalibrationFault},
    clock::{self, Believed},
    cloud::{CloudHandle, CloudOptions, ShardHeld},
    control,
    decision_log::DecisionLog,
    extraction::Workers,
    fabric::{Fabric, FabricOptions, Freshness},
    http::{self, Served},
    identity::OwnIdentity,
    in_use::{self, Updates},
    keeper::RootKeeping,
    kept::Kept,
    law::InForce,
    metrics::Metrics,
    opened::Opened,
    pressure::Pressure,
    probe::Probe,
    receipts::Receipts,
    references, renewal,
    scribe::Scribe,
    slots::Slots,
    store::{Desk, Input, Store, Surroundings},
    supervision::{self, Embedded},
    terminals::{Terminals, TerminalsOptions},
    way_back,
    witness::{self, Witness},
};
use palmgate_policy::{Engine, Event, Pack, Profile, Settings};
use palmgate_protocol::{MemberId, Name, Secret};
use palmgate_seal::{
    aead,
    envelope::OpeningKey,
    pki::{self, ClientAuth, Presented},
    sign::VerifyingKey,
};
use palmgate_update::Refusal;
use palmgate_vault::Vault;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

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
    /// What the policy goes by. Thresholds and galleries are set from the calibration.
    pub settings: Settings,
    /// False match rate that the threshold of each purpose is chosen for, by
    /// [`palmgate_protocol::Purpose::MATCHED`] position.
    pub false_match_rates: [f64; 4],
    /// Where thresholds come from; the calibration that is built in when there is none.
    pub calibration: Option<PathBuf>,
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
    /// Socket of the process that parses pictures and searches; this process does when there is
    /// none.
    pub matcher: Option<PathBuf>,
    /// Language of letters (BCP 47).
    pub language: String,
    /// How long certificates of the gateway and of terminals last.
    pub certificate_lifetime: Duration,
    /// A directory of models with their registry; those that are built in when there is none.
    pub models: Option<PathBuf>,
    /// Whose updates are taken, and what they left.
    pub updates: Updates,
    /// How fresh scans have to be.
    pub freshness: Freshness,
    /// In `operator` custody scans are answered at multiples of this after they came; zero is at
    /// once.
    pub answer_slot: Duration,
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
    /// This program is below the version floor, or what updates left cannot be used.
    #[error(transparent)]
    Update(#[from] Refusal),
    /// The directory of models cannot be used.
    #[error(transparent)]
    Models(palmgate_matcher::ModelsError),
    /// The calibration cannot be used.
    #[error(transparent)]
    Calibration(#[from] CalibrationFault),
    /// Something below failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl StartError {
    /// Whether the configuration is at fault, so that starting again cannot help.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::OtherStore { .. }
                | Self::Credential
                | Self::WithoutTpm
                | Self::Update(_)
                | Self::Models(_)
                | Self::Calibration(_)
        )
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
    broker: Option<SocketAddr>,
    embedded: Embedded,
    served: Served,
    inputs: mpsc::UnboundedSender<Input>,
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
    pub const fn broker(&self) -> Option<SocketAddr> {
        self.broker
    }

    /// Reads the law pack again and puts it in force, if it holds; says which it is.
    ///
    /// # Errors
    /// Why the one before stays in force.
    pub async fn reload(&self) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the gateway is stopping".to_owned();
        self.inputs.send(Input::Office(Desk::Reload(reply))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(|refused| refused.to_string())
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
        if let Some(broker) = self.embedded.lock().await.take() {
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
        let (options, pack) = (options.clone(), Arc::clone(&law.pack));
        let open = move || {
            let mut opened = Opened::open(&options, &pack)?;
            let models = opened.references.models();
            in_use::note(&options, (pack.hash(), models), &mut opened.log, &opened.vault);
            way_back::end_below_floor(&options, &opened.vault, (&mut opened.log, pack.hash()));
            Ok::<_, StartError>(opened)
        };
        tokio::task::spawn_blocking(open).await.map_err(anyhow::Error::from)??
    };
    start(options, law, opened)
}

fn start(options: Options, law: InForce, opened: Opened) -> Result<Gateway, StartError> {
    let authority_der = opened.authority.certificate_der().clone();
    let own = Arc::clone(&opened.identity);
    let time = || Arc::<Believed>::clone(&opened.clock);
    let clients = ClientAuth::Required { authority_der: authority_der.clone(), revoked: None };
    let first = pki::server_config_at(own.presented(), clients, time());
    let (tls, tls_now) = watch::channel(Arc::new(first.map_err(anyhow::Error::from)?));
    let (broker, host, port) = start_broker(&options.broker, tls_now)?;
    let settings = calibrated(&options, &opened);
    let metrics = metrics(&options, (&settings, &law.pack), &opened, broker.as_ref())?;
    let https = listen(options.https)?;
    let https_at =
        https.local_addr().map_err(|cause| StartError::Listen { address: options.https, cause })?;

    let (inputs, inputs_rx) = mpsc::unbounded_channel::<Input>();
    let (requests, requests_rx) = mpsc::channel(REQUEST_QUEUE);
    let terminals = load_terminals(&options, &opened, (port, https_at.port()), tls, &inputs)?;
    let pressure = broker.as_ref().map(broker::Broker::pressure).unwrap_or_default();
    let fabric = Fabric::start(FabricOptions {
        host: host.clone(),
        port,
        tls: client_config(Some(own.presented()), &authority_der, time())?,
        terminals: terminals.clone(),
        authority_der: authority_der.clone(),
        vault: Arc::clone(&opened.vault),
        metrics: Arc::clone(&metrics),
        requests,
        inputs: inputs.clone(),
        freshness: options.freshness,
        pressure: pressure.clone(),
    });
    let issuers = Arc::new(RwLock::new(vec![own.current().verifying_key()]));
    let cloud = connect_cloud(&options, &opened, &inputs, &issuers, &metrics)?;
    let workers = start_workers(&options, &opened, &inputs, pressure)?;
    let pending = opened.receipts.pending();
    let (log, receipts, vault) = (opened.log, opened.receipts, Arc::clone(&opened.vault));
    let scribe = start_scribe((vault, log, receipts), &options, &law, &terminals, &inputs)?;
    if let Some(cloud) = &cloud {
        cloud.start(scribe.clone());
    }
    let stranger = Arc::new(client_config(None, &authority_der, time())?);
    let kept = Kept::load(&opened.vault)?;
    let (engine, desk) = engine(settings, &law, kept, opened.people, opened.shard);
    opened.clock.observe(engine.time_seen());
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
            signing_key: own.current().signing_key(),
            record_key: record_key(&opened.transform_key),
            issuers,
            clock: Arc::clone(&opened.clock),
            terminals: Arc::clone(&terminals),
            vault: opened.vault,
            forgotten: opened.forgotten,
            references: opened.references,
            workers,
            scribe,
            cloud,
            fabric: Arc::clone(&fabric),
            metrics: Arc::clone(&metrics),
            inputs: inputs.clone(),
            slots: Slots::of(options.settings.custody, options.answer_slot),
        },
        desk,
    );
    tokio::spawn(renewal::run(terminals.clone(), metrics.clone(), stopping.clone()));
    let store = tokio::spawn(store.run(requests_rx, inputs_rx, stopping, alive));
    let probe = Probe { host, port, terminals: terminals.clone(), fabric: fabric.clone() };
    let served = Served {
        terminals,
        fabric,
        metrics: Arc::clone(&metrics),
        alive: alive_rx,
        pairing: Arc::new(tokio::sync::Semaphore::new(1)),
        probe,
    };
    let at = broker.as_ref().map(broker::Broker::address);
    let embedded: Embedded = Arc::new(Mutex::new(broker));
    tokio::spawn(supervision::run(embedded.clone(), stranger, metrics, stop.subscribe()));
    let server = serve_https(https, &own, opened.clock, served.clone())?;
    let control = serve_control(&options.state_directory, served.clone(), inputs.clone())?;
    Ok(Gateway {
        https: https_at,
        broker: at,
        embedded,
        served,
        inputs,
        stop,
        store,
        server,
        control,
        vault,
    })
}

/// Certificates are judged by the time that the policy believes in.
fn client_config(
    presented: Option<&Arc<Presented>>,
    authority_der: &CertificateDer<'_>,
    time: Arc<Believed>,
) -> Result<rustls::ClientConfig, anyhow::Error> {
    Ok(pki::client_config_at(presented, authority_der, time)?)
}

fn load_terminals(
    options: &Options,
    opened: &Opened,
    (broker_port, https_port): (u16, u16),
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    inputs: &mpsc::UnboundedSender<Input>,
) -> Result<Arc<Terminals>, anyhow::Error> {
    let terminals = Terminals::load(TerminalsOptions {
        authority: Arc::clone(&opened.authority),
        identity: Arc::clone(&opened.identity),
        clock: Arc::clone(&opened.clock),
        lifetime: options.certificate_lifetime,
        vault: Arc::clone(&opened.vault),
        broker_host: options.public_host.clone(),
        broker_port,
        https_port,
        store: options.store.clone(),
        tenant: options.tenant.clone(),
        tls,
        inputs: inputs.clone(),
    });
    terminals.map(Arc::new)
}

fn start_scribe(
    (vault, log, receipts): (Arc<Vault>, DecisionLog, Receipts),
    options: &Options,
    law: &InForce,
    terminals: &Terminals,
    inputs: &mpsc::UnboundedSender<Input>,
) -> Result<Scribe, anyhow::Error> {
    let done = inputs.clone();
    let told = move |written| {
        let _ = done.send(Input::Done(written));
    };
    let paired = terminals.list().into_iter().map(|one| one.name).collect();
    let around = (paired, options.cloud.is_some());
    let rules = (options.history, law.pack.hash());
    Ok(Scribe::start(vault, log, receipts, around, rules, told)?)
}

/// The policy, told what was kept.
fn engine(
    settings: Settings,
    law: &InForce,
    Kept { desk, time, visitors, tries }: Kept,
    people: Vec<(MemberId, Profile)>,
    shard: Option<ShardHeld>,
) -> (Engine, palmgate_policy::office::Desk) {
    let mut engine = Engine::with_pack(settings, Arc::clone(&law.pack));
    let kept = [Event::VisitorsLoaded(visitors), Event::TriesLoaded(tries)];
    let known = time.map(Event::TimeSeen).into_iter().chain(kept);
    let people = people.into_iter().map(|(who, profile)| Event::Loaded(who, Box::new(profile)));
    let lease = shard.map(|shard| Event::LeaseLoaded(shard.lease_until));
    for event in known.chain(people).chain(lease) {
        engine.handle(event, clock::now());
    }
    (engine, desk)
}

/// Metrics that show what was opened, too.
fn metrics(
    options: &Options,
    (settings, law): (&Settings, &Pack),
    opened: &Opened,
    broker: Option<&broker::Broker>,
) -> Result<Arc<Metrics>, anyhow::Error> {
    let metrics = Metrics::new(options.state_directory.clone())?;
    metrics.build(opened.references.models(), law.hash());
    metrics.calibrated(settings);
    for (which, ends) in opened.certificates_end()? {
        metrics.certificate_ends(which, ends);
    }
    let (_, promise) = opened.vault.keeper();
    metrics.root_promise(promise.as_str());
    let way_back = opened.vault.way_back()?;
    metrics.uncommitted_since(way_back.map(|way_back| way_back.since));
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

/// The settings under the calibration in use. Models that it was not measured with match nobody.
fn calibrated(options: &Options, opened: &Opened) -> Settings {
    let settings = calibration::settings(options, &opened.calibration);
    if opened.calibration.is_of(&opened.references.models()) {
        return settings;
    }
    tracing::error!("nobody is recognised: no calibration was measured with these models");
    Settings { thresholds: [f32::INFINITY; 4], ..settings }
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
        alike_from: calibration::alike_from(&opened.calibration),
        store: options.store.clone(),
        tenant: options.tenant.clone(),
        opening_key: opening_key.map_err(anyhow::Error::from)?,
        verify_key: opened.identity.current().verifying_key(),
        vault: Arc::clone(&opened.vault),
        forgotten: Arc::clone(&opened.forgotten),
        issuers: Arc::clone(issuers),
        inputs: inputs.clone(),
        metrics: Arc::clone(metrics),
        waiting: opened.receipts.waiting(),
        witness: Witness {
            log: opened.identity.current().verifying_key(),
            name: witness::name(&options.tenant),
            key: bundle.witness,
            file: options.state_directory.join("ledger.cosigned"),
        },
    });
    Ok(Some(handle.map_err(anyhow::Error::from)?))
}

fn start_workers(
    options: &Options,
    opened: &Opened,
    inputs: &mpsc::UnboundedSender<Input>,
    pressure: Pressure,
) -> Result<Workers, StartError> {
    let inputs = inputs.clone();
    let (count, queue) = (options.workers, (options.queue_length, pressure));
    let workers = Workers::start(&opened.references, count, queue, move |worked| {
        inputs.send(Input::Worked(worked)).is_ok()
    });
    if options.matcher.is_some() {
        let (references, vault) = (Arc::clone(&opened.references), Arc::clone(&opened.vault));
        references::watch(references, vault).map_err(anyhow::Error::from)?;
    }
    Ok(workers.map_err(anyhow::Error::from)?)
}

fn serve_https(
    listener: TcpListener,
    identity: &OwnIdentity,
    time: Arc<Believed>,
    served: Served,
) -> Result<axum_server::Handle<SocketAddr>, StartError> {
    let tls = pki::server_config_at(identity.presented(), ClientAuth::None, time)
        .map_err(anyhow::Error::from)?;
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
