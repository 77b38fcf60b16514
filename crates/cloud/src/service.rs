//! The running service.

use crate::{
    clock,
    embedded::Embedded,
    http::{self, App, tls::Doorkeeper, witness::Witness},
    layout::{Layout, LayoutError},
    metrics::Metrics,
    postgres::Postgres,
    registry::{Health, OpenError, Registry},
};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use palmgate_protocol::Name;
use palmgate_seal::pki::{self, ClientAuth, Identity, PkiError};
use rustls::ServerConfig;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// How long requests may go on after the service was asked to stop.
const GRACE: Duration = Duration::from_secs(10);
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// How often the registry and the certificate are looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Where the service finds its state and where it listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory that [`crate::provision::init`] made.
    pub state: PathBuf,
    /// Where stores connect, with mutual TLS; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are also served without TLS: keep it on the loopback
    /// interface.
    pub monitor: Option<SocketAddr>,
    /// The name of this process in the plan that gives partitions to matchers; without one it
    /// searches all of its region.
    pub matcher: Option<Name>,
}

/// Why the service did not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] PkiError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The network failed while serving.
    #[error("cannot serve: {0}")]
    Serve(#[from] io::Error),
    /// The metrics contradict each other: a fault of this program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A write failed, so that nothing more can be promised before a new start.
    #[error("a write to the state directory failed: see the log, then start the service anew")]
    Broken,
}

impl From<LayoutError> for ServeError {
    fn from(error: LayoutError) -> Self {
        Self::Open(error.into())
    }
}

impl ServeError {
    /// Whether the operator's own words are at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Open(OpenError::Layout(error)) => error.is_configuration(),
            Self::Open(OpenError::Database(error)) => error.is_configuration(),
            _ => false,
        }
    }
}

/// A service that listens but does not serve yet.
pub struct Service {
    app: Arc<App>,
    door: Doorkeeper,
    certificate: Certificate,
    listener: TcpListener,
    monitor: Option<TcpListener>,
}

/// Runs a service until `shutdown` is ready.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let service = tokio::task::spawn_blocking(move || Service::bind(&options));
    service.await.map_err(io::Error::other)??.run(shutdown).await
}

impl Service {
    /// Reads the state, finishes interrupted erasures and binds the addresses. Blocking.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is bound unless the state is usable.
    pub fn bind(options: &Options) -> Result<Self, ServeError> {
        let layout = Layout::new(&options.state);
        let (certificate, tls) = Certificate::read(&layout)?;
        let settings = layout.settings()?;
        let registry: Arc<dyn Registry> = match &settings.database {
            Some(database) => Postgres::open(&layout, database, options.matcher.clone())?,
            None => Arc::new(Embedded::open(&layout, clock::now())?),
        };
        let witness = layout.witness()?.map(|key| Witness::new(&settings.tenant, key));
        Ok(Self {
            door: Doorkeeper::new(tls, layout.authority()?),
            certificate,
            app: Arc::new(App::new(registry, witness, settings.limits, Metrics::new()?)),
            listener: listen(options.listen)?,
            monitor: options.monitor.map(listen).transpose()?,
        })
    }

    /// The address that stores connect to.
    ///
    /// # Errors
    /// When the operating system does not know it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the monitoring, if it was asked for.
    ///
    /// # Errors
    /// When the operating system does not know it.
    pub fn monitor_address(&self) -> io::Result<Option<SocketAddr>> {
        self.monitor.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `shutdown` is ready, then lets requests end within ten seconds.
    ///
    /// # Errors
    /// [`ServeError::Broken`] after a failed write, [`ServeError::Serve`] when the network fails.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let handle = Handle::new();
        let routes = http::routes(&self.app);
        let door = self.door.clone();
        let mut stores =
            axum_server::from_tcp(self.listener)?.acceptor(door).handle(handle.clone());
        configure(stores.http_builder());
        let stores = stores.http1_only().serve(routes.into_make_service());
        let monitoring = monitoring(self.monitor, &self.app, handle.clone());
        let stop = async {
            let outcome = tokio::select! {
                () = shutdown => Ok(()),
                () = look_after(&self.app, &self.door, self.certificate) => Err(ServeError::Broken),
            };
            handle.graceful_shutdown(Some(GRACE));
            outcome
        };
        let (served, monitored, stopped) = tokio::join!(stores, monitoring, stop);
        served.and(monitored)?;
        stopped
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| ServeError::Listen { address, source })
}

async fn monitoring(
    listener: Option<TcpListener>,
    app: &Arc<App>,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    configure(server.http_builder());
    server.http1_only().serve(http::monitoring(app).into_make_service()).await
}

fn configure(builder: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEADER_BYTES);
}

/// The certificate that the service shows.
struct Certificate {
    layout: Layout,
    pem: String,
}

impl Certificate {
    fn read(layout: &Layout) -> Result<(Self, ServerConfig), ServeError> {
        let server = layout.server()?;
        let this = Self { layout: layout.clone(), pem: server.chain_pem() };
        let config = this.config(&server)?;
        Ok((this, config))
    }

    /// The new one, once the operator has renewed it. Until its key and certificate are both
    /// there, the old one stays.
    fn renewed(&mut self) -> Option<ServerConfig> {
        let server = self.layout.server().ok()?;
        let pem = server.chain_pem();
        if pem == self.pem {
            return None;
        }
        let config = self.config(&server).ok()?;
        self.pem = pem;
        Some(config)
    }

    fn config(&self, server: &Identity) -> Result<ServerConfig, ServeError> {
        let authority_der = self.layout.authority()?;
        let clients = ClientAuth::Required { authority_der, revoked: None };
        Ok(pki::server_config(server, clients)?)
    }
}

/// Keeps the promises that depend on time; returns when a write failed.
async fn look_after(app: &Arc<App>, door: &Doorkeeper, mut certificate: Certificate) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        let swept = app.clone();
        let upkeep = tokio::task::spawn_blocking(move || {
            let renewed = certificate.renewed();
            if let Err(problem) = swept.registry.sweep(clock::now()) {
                tracing::warn!(problem = problem.name(), "upkeep failed and is tried again");
            }
            (certificate, renewed, swept.registry.health())
        });
        let Ok((kept, renewed, Health::Ready | Health::Waiting)) = upkeep.await else { return };
        certificate = kept;
        if let Some(config) = renewed {
            door.renew(config);
            tracing::info!("a renewed certificate is shown from now on");
        }
    }
}
