//! Connections, transactions that are tried again, and the schema.

use crate::problem::Problem;
use palmgate_protocol::Name;
use postgres::{
    Client, Transaction,
    config::{Host, SslMode},
    error::SqlState,
};
use r2d2_postgres::PostgresConnectionManager;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The newest schema that this program knows.
pub(super) const SCHEMA_VERSION: i32 = 1;
pub(super) const MIGRATIONS: [&str; SCHEMA_VERSION as usize] =
    [include_str!("../../migrations/0001_registry.sql")];
/// How often a transaction is begun anew when another one was in its way.
const ATTEMPTS: usize = 12;
/// How long a request waits for a connection.
const POOL_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Every statement is bounded, so that a stuck database cannot hold requests for ever.
const SESSION: &str = "-c search_path=palmgate -c statement_timeout=60s -c lock_timeout=10s \
                       -c idle_in_transaction_session_timeout=60s";

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseSettings {
    /// A PostgreSQL connection URL without a password, such as
    /// `postgres://db.example/palmgate`. The role is that of the tenant.
    url: String,
    /// A file with the role's password, in the state directory or absolute.
    #[serde(default)]
    password_file: Option<PathBuf>,
    /// The certificate authority of the database's certificate (PEM). Required unless the database
    /// is on this machine.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Connections at most.
    #[serde(default = "connections")]
    connections: u32,
}

fn connections() -> u32 {
    16
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The operator's words about it are wrong.
    #[error("[database] {0}")]
    Settings(String),
    /// It cannot be reached, or said no.
    #[error("the database at {place}: {source}")]
    Unreachable {
        /// Host and name.
        place: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its schema is older than this program.
    #[error(
        "the schema of the database has version {0}, this program needs {SCHEMA_VERSION}: run `palmgate-cloud migrate`"
    )]
    Old(i32),
    /// Its schema is newer than this program, which could damage it.
    #[error(
        "the schema of the database has version {0}, this program knows {SCHEMA_VERSION}: install the newer program"
    )]
    New(i32),
    /// The tenant was never founded in this database.
    #[error("the database has no tenant {0}: run `palmgate-cloud migrate`")]
    NoTenant(Name),
    /// The tenant belongs to another region than this process serves.
    #[error(
        "the tenant is kept in the region {found}, this process serves {configured}: start it where the data may be"
    )]
    Region {
        /// As the database has it.
        found: String,
        /// As the configuration has it.
        configured: Name,
    },
}

impl DatabaseSettings {
    /// The same database for its administrator.
    pub(crate) fn administered(&self, url: &str, password_file: Option<PathBuf>) -> Self {
        Self { url: url.into(), password_file, ..self.clone() }
    }

    /// The password of the tenant's role.
    pub(crate) fn password(&self, state: &Path) -> Result<Option<String>, DatabaseError> {
        let read = |file: &PathBuf| {
            let path = state.join(file);
            std::fs::read_to_string(&path).map(|text| text.trim_end().to_owned()).map_err(|error| {
                DatabaseError::Settings(format!("password_file: {}: {error}", path.display()))
            })
        };
        self.password_file.as_ref().map(read).transpose()
    }
}

impl DatabaseError {
    /// Whether the operator's own words are at fault.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Old(_) | Self::New(_) | Self::Region { .. })
    }
}

/// Why a transaction did not come about.
pub(super) enum Failed {
    /// It must not: this is the answer.
    Problem(Problem),
    /// What was read was already outdated: begin anew.
    Again,
    Database(postgres::Error),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<postgres::Error> for Failed {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

pub(super) type Done<T> = Result<T, Failed>;

type Manager = PostgresConnectionManager<MakeRustlsConnect>;

pub(super) struct Database {
    /// `None` only while this is dropped.
    pool: Option<r2d2::Pool<Manager>>,
    place: String,
}

impl Database {
    /// Connects once, so that what is in the way is said at once and in full, refuses a schema that
    /// this program does not know, and opens the pool.
    pub(super) fn open(
        settings: &DatabaseSettings,
        tenant: &Name,
        state: &Path,
    ) -> Result<Self, DatabaseError> {
        let config = config(settings, Some(tenant), state)?;
        let place = place(&config);
        let tls = tls(settings, state)?;
        check_schema(&mut connect(&config, tls.clone())?, &place)?;
        let manager = Manager::new(config, tls);
        let pool = r2d2::Pool::builder()
            .max_size(settings.connections)
            .min_idle(Some(1))
            .connection_timeout(POOL_TIMEOUT)
            .error_handler(Box::new(Quiet))
            .build_unchecked(manager);
        Ok(Self { pool: Some(pool), place })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn unreachable(
        &self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> DatabaseError {
        DatabaseError::Unreachable { place: self.place.clone(), source: source.into() }
    }

    /// Does `work` in one transaction, begun anew when another transaction was in its way.
    ///
    /// A connection that breaks while committing leaves open whether the changes are there; the
    /// caller is told that the cloud is busy, and a repetition finds out.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Done<T>,
    ) -> Result<T, Problem> {
        for attempt in 0..ATTEMPTS {
            let mut client = self.connection().map_err(|error| {
                tracing::warn!(%error, "no connection to the database");
                Problem::Busy
            })?;
            match attempted(&mut client, &mut work) {
                Ok(done) => return Ok(done),
                Err(Failed::Problem(problem)) => return Err(problem),
                Err(Failed::Again) => {}
                Err(Failed::Database(error)) if is_transient(&error) => {}
                Err(Failed::Database(error)) => return Err(refused(&error)),
            }
            drop(client);
            std::thread::sleep(Duration::from_millis(1 << attempt.min(7)));
        }
        tracing::error!("a transaction did not come about in {ATTEMPTS} attempts");
        Err(Problem::Busy)
    }

    fn connection(&self) -> Result<r2d2::PooledConnection<Manager>, r2d2::Error> {
        self.pool.as_ref().expect("there until it is dropped").get()
    }

    /// Whether the database answers.
    pub(super) fn answers(&self) -> bool {
        self.connection().is_ok_and(|mut client| client.simple_query("SELECT 1").is_ok())
    }
}

/// Connections wait for their end, which tasks must not.
impl Drop for Database {
    fn drop(&mut self) {
        let pool = self.pool.take();
        let _ = std::thread::spawn(move || drop(pool)).join();
    }
}

fn attempted<T>(
    client: &mut Client,
    work: &mut impl FnMut(&mut Transaction<'_>) -> Done<T>,
) -> Done<T> {
    let mut transaction = client.transaction()?;
    let done = work(&mut transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Whether the same transaction may succeed when it is begun anew at once.
fn is_transient(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNIQUE_VIOLATION,
            SqlState::LOCK_NOT_AVAILABLE,
        ]
        .contains(code)
    })
}

fn refused(error: &postgres::Error) -> Problem {
    if error.is_closed() || error.as_db_error().is_none() || is_stopping(error) {
        tracing::warn!(%error, "the database went away");
        return Problem::Busy;
    }
    Problem::internal(error)
}

/// Whether the server ends, begins, or is a standby for the moment.
fn is_stopping(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        let code = code.code();
        code.starts_with("57P")
            || code.starts_with("08")
            || code.starts_with("53")
            || code == "25006"
    })
}

/// The pool's own complaints repeat those of the requests.
#[derive(Debug)]
struct Quiet;

impl<E: std::error::Error> r2d2::HandleError<E> for Quiet {
    fn handle_error(&self, error: E) {
        tracing::debug!(error = words(&error), "a connection to the database was not made");
    }
}

/// The role of a tenant.
pub(super) fn role(tenant: &Name) -> String {
    format!("palmgate_{tenant}")
}

/// A connection as the role in the URL, for the administrator's commands.
pub(super) fn administrator(
    settings: &DatabaseSettings,
    state: &Path,
) -> Result<(Client, String), DatabaseError> {
    let config = config(settings, None, state)?;
    Ok((connect(&config, tls(settings, state)?)?, place(&config)))
}

fn connect(config: &postgres::Config, tls: MakeRustlsConnect) -> Result<Client, DatabaseError> {
    config.connect(tls).map_err(|error| unreachable_at(&place(config), &error))
}

fn unreachable_at(place: &str, error: &postgres::Error) -> DatabaseError {
    DatabaseError::Unreachable { place: place.into(), source: words(error).into() }
}

fn check_schema(client: &mut Client, place: &str) -> Result<(), DatabaseError> {
    match version(client).map_err(|error| unreachable_at(place, &error))? {
        SCHEMA_VERSION => Ok(()),
        old @ ..SCHEMA_VERSION => Err(DatabaseError::Old(old)),
        new => Err(DatabaseError::New(new)),
    }
}

/// An error with its causes: its own text is often only "db error".
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn config(
    settings: &DatabaseSettings,
    tenant: Option<&Name>,
    state: &Path,
) -> Result<postgres::Config, DatabaseError> {
    let mut config: postgres::Config =
        settings.url.parse().map_err(|error| DatabaseError::Settings(format!("url: {error}")))?;
    if config.get_password().is_some() {
        let text = "url: it holds a password: put it into a file and name that in password_file";
        return Err(DatabaseError::Settings(text.into()));
    }
    if let Some(password) = settings.password(state)? {
        config.password(password);
    }
    if let Some(tenant) = tenant {
        config.user(&role(tenant)).options(SESSION);
    }
    config.application_name("palmgate-cloud");
    prepared(config, settings.ca.is_some())
}

/// Over a network only with TLS.
fn prepared(mut config: postgres::Config, has_ca: bool) -> Result<postgres::Config, DatabaseError> {
    config.connect_timeout(CONNECT_TIMEOUT).keepalives_idle(Duration::from_secs(15));
    if config.get_hosts().is_empty() {
        return Err(DatabaseError::Settings("url: it names no host".into()));
    }
    if has_ca {
        config.ssl_mode(SslMode::Require);
    } else if config.get_hosts().iter().all(is_here) {
        config.ssl_mode(SslMode::Disable);
    } else {
        let text = "ca: a database on another machine needs the authority of its certificate";
        return Err(DatabaseError::Settings(text.into()));
    }
    Ok(config)
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    }
}

fn place(config: &postgres::Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    let hosts: Vec<String> = hosts.collect();
    format!(
        "{} port {}",
        hosts.join(","),
        if ports.is_empty() { "5432".into() } else { ports.join(",") }
    )
}

fn tls(settings: &DatabaseSettings, state: &Path) -> Result<MakeRustlsConnect, DatabaseError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &settings.ca {
        let path = state.join(file);
        let wrong = |error: &dyn std::fmt::Display| {
            DatabaseError::Settings(format!("ca: {}: {error}", path.display()))
        };
        let certificates = CertificateDer::pem_file_iter(&path).map_err(|error| wrong(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| DatabaseError::Settings(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

pub(super) fn version(client: &mut Client) -> Result<i32, postgres::Error> {
    let table: bool =
        client.query_one("SELECT to_regclass('palmgate.schema_version') IS NOT NULL", &[])?.get(0);
    if !table {
        return Ok(0);
    }
    let newest = client.query_one("SELECT max(version) FROM palmgate.schema_version", &[])?;
    Ok(newest.get::<_, Option<i32>>(0).unwrap_or(0))
}
