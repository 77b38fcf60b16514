//! Founding a cloud and admitting stores: the operator's commands. They work beside a running
//! service.
//!
//! The authority's key and the tenant's template transform key lie in `provisioning/`, which the
//! running service does not read: whoever takes over the service can neither admit stores nor,
//! with the protected templates it keeps, compute what the transform hides. Move the directory
//! off the machine between uses if you can.

use crate::{
    bundle::Bundle,
    config,
    embedded::{KeyError, KeyTable},
    files::{self, FileError},
    layout::{Layout, LayoutError, StoreEntry},
    postgres::{self, DatabaseError, Stores},
};
use data_encoding::HEXLOWER;
use palmgate_protocol::{DAY, InvalidName, Name, Secret, Timestamp};
use palmgate_seal::{
    envelope::OpeningKey,
    pki::{Authority, Identity, PkiError, Role},
    random,
    sign::SigningKey,
};
use ring::digest::{SHA256, digest};
use std::{
    net::Ipv6Addr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The port in a bundle's URL when the operator gives none.
pub const DEFAULT_PORT: u16 = 7443;
/// Renew certificates, the service's and the stores', within this time.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(2 * 365 * DAY.as_secs());

/// Why a command of the operator failed.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// There is a cloud in the state directory already.
    #[error("{} holds a cloud already", .0.display())]
    Founded(PathBuf),
    /// The store has a bundle already.
    #[error(
        "store {0} exists: `store renew` makes a new certificate, `store reset` forgets its box"
    )]
    StoreExists(Name),
    /// No such store.
    #[error("there is no store {0}: `store add` makes one")]
    NoStore(Name),
    /// The directory for the bundle has one in it.
    #[error("{} holds a bundle already: choose another directory", .0.display())]
    BundleExists(PathBuf),
    /// The keys for admitting stores are elsewhere.
    #[error("{} is not here: bring the provisioning directory back for this command", .0.display())]
    NoProvisioning(PathBuf),
    /// The rows are in the state directory.
    #[error("cloud.toml has no [database], so there is nothing to migrate")]
    NoDatabase,
    /// A file in `stores/` has a name that no store can have.
    #[error("in {}: {source}", path.display())]
    StrangeStore {
        /// The directory.
        path: PathBuf,
        /// The name.
        source: InvalidName,
    },
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state directory is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The key table cannot be made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The PostgreSQL database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] PkiError),
}

/// What a new cloud is to be.
pub struct Founding<'a> {
    /// Whose people it keeps.
    pub tenant: &'a Name,
    /// DNS name or IP address that the stores dial.
    pub host: &'a str,
    /// Whether it keeps records that it can open. The safe answer is no.
    pub accept_operator: bool,
    /// The region whose law the data is under; the default is `eu`.
    pub region: Option<&'a Name>,
    /// Where the rows are, if not in the state directory.
    pub database: Option<Database<'a>>,
}

impl<'a> Founding<'a> {
    /// A cloud on this machine that keeps its rows in the state directory and none that it can
    /// open.
    pub const fn new(tenant: &'a Name) -> Self {
        Self { tenant, host: "localhost", accept_operator: false, region: None, database: None }
    }
}

/// A PostgreSQL database, as `[database]` in `cloud.toml` names it.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    /// Connection URL without a password.
    pub url: &'a str,
    /// File with the password of the tenant's role.
    pub password_file: Option<&'a Path>,
    /// Authority of the database's certificate.
    pub ca: Option<&'a Path>,
}

/// Founds a cloud in an empty state directory.
///
/// # Errors
/// [`ProvisionError`]; an interrupted founding may be repeated.
pub fn init(state: &Path, founding: &Founding<'_>, now: Timestamp) -> Result<(), ProvisionError> {
    let layout = Layout::new(state);
    if layout.path("cloud.toml").exists() {
        return Err(ProvisionError::Founded(state.into()));
    }
    for directory in [state.to_path_buf(), layout.provisioning(), layout.stores()] {
        files::create_directory(&directory)?;
    }
    let authority = Authority::generate(&format!("Palmgate tenant {}", founding.tenant), now)?;
    let provisioning = layout.provisioning();
    files::write(&provisioning.join("authority.key"), authority.key_pkcs8().expose())?;
    let transform = Secret::new(random::bytes::<32>());
    files::write(&provisioning.join("transform.key"), transform.expose())?;
    files::write(&layout.path("authority.pem"), authority.certificate_pem().as_bytes())?;
    files::write(&layout.path("publisher.key"), SigningKey::generate().pkcs8().expose())?;
    files::write(&layout.path("matcher.key"), OpeningKey::generate().to_bytes().expose())?;
    files::write(&layout.path("witness.key"), SigningKey::generate().pkcs8().expose())?;
    issue_server(&layout, &authority, founding.host, now)?;
    if founding.database.is_some() {
        postgres::create_keys(&layout)?;
    } else {
        KeyTable::create(&layout.keys(), founding.tenant)?;
    }
    let text = config::text(founding);
    files::write(&layout.path("cloud.toml"), text.as_bytes())?;
    Ok(())
}

/// Gives the service a new certificate; it is shown after the next start.
///
/// # Errors
/// [`ProvisionError`], among others when the provisioning directory is elsewhere.
pub fn renew_server(state: &Path, now: Timestamp) -> Result<(), ProvisionError> {
    let layout = Layout::new(state);
    issue_server(&layout, &authority(&layout)?, &layout.settings()?.host, now)
}

/// Admits a store and writes its bundle; `url` is where it dials, by default the host that the
/// cloud was founded with, at [`DEFAULT_PORT`].
///
/// # Errors
/// [`ProvisionError::StoreExists`] among others.
pub fn add_store(
    state: &Path,
    store: &Name,
    out: &Path,
    url: Option<&str>,
    now: Timestamp,
) -> Result<Bundle, ProvisionError> {
    add_store_to(state, store, &default_partition(), out, url, now)
}

/// [`add_store`] with the partition that the store's people are searched in, when the rows are in
/// PostgreSQL.
///
/// # Errors
/// [`ProvisionError::StoreExists`] among others.
pub fn add_store_to(
    state: &Path,
    store: &Name,
    partition: &Name,
    out: &Path,
    url: Option<&str>,
    now: Timestamp,
) -> Result<Bundle, ProvisionError> {
    let entries = Entries::open(state)?;
    if entries.get(store)?.is_some() {
        return Err(ProvisionError::StoreExists(store.clone()));
    }
    issue_bundle(&entries, (store, partition), StoreEntry::default(), out, url, now)
}

/// Writes a bundle with a new certificate for a store; the earlier certificates hold on, so that
/// the store is not cut off while the bundle travels.
///
/// # Errors
/// [`ProvisionError::NoStore`] among others.
pub fn renew_store(
    state: &Path,
    store: &Name,
    out: &Path,
    url: Option<&str>,
    now: Timestamp,
) -> Result<Bundle, ProvisionError> {
    let entries = Entries::open(state)?;
    let entry = entries.get(store)?.ok_or_else(|| ProvisionError::NoStore(store.clone()))?;
    issue_bundle(&entries, (store, &default_partition()), entry, out, url, now)
}

/// Declares a store's box replaced: the keys of its next hello are taken for its own, it begins
/// with a whole shard, and only its newest certificate holds.
///
/// # Errors
/// [`ProvisionError::NoStore`] among others.
pub fn reset_store(state: &Path, store: &Name) -> Result<(), ProvisionError> {
    let entries = Entries::open(state)?;
    let mut entry = entries.get(store)?.ok_or_else(|| ProvisionError::NoStore(store.clone()))?;
    entry.resets += 1;
    entry.certificates.drain(..entry.certificates.len().saturating_sub(1));
    entries.put(store, &entry, &default_partition())
}

/// The stores, by name.
///
/// # Errors
/// [`ProvisionError`] when the directory or an entry cannot be read.
pub fn stores(state: &Path) -> Result<Vec<(Name, StoreEntry)>, ProvisionError> {
    Entries::open(state)?.list()
}

/// Brings the schema of the database up to this program, and founds the tenant in it. `url` is that
/// of a role that may create schemas and roles. Repeating it changes nothing.
///
/// # Errors
/// [`ProvisionError::Database`] among others.
pub fn migrate(
    state: &Path,
    url: &str,
    password_file: Option<&Path>,
) -> Result<(), ProvisionError> {
    let layout = Layout::new(state);
    let settings = layout.settings()?;
    let database = settings.database.ok_or(ProvisionError::NoDatabase)?;
    let password = database.password(state)?;
    let admin = database.administered(url, password_file.map(Into::into));
    postgres::migrate(&admin, &settings.tenant, &settings.region, password.as_deref(), state)?;
    Ok(())
}

/// The tenant that a state directory is of.
///
/// # Errors
/// [`ProvisionError::Layout`].
pub fn tenant(state: &Path) -> Result<Name, ProvisionError> {
    Ok(Layout::new(state).settings()?.tenant)
}

/// Gives partitions to a matcher, in place of those that it had: the process that is started with
/// its name searches them.
///
/// # Errors
/// [`ProvisionError::NoDatabase`] among others.
pub fn assign(state: &Path, matcher: &Name, partitions: &[Name]) -> Result<(), ProvisionError> {
    let stores = Entries::open(state)?.database.ok_or(ProvisionError::NoDatabase)?;
    Ok(stores.assign(matcher, partitions)?)
}

fn default_partition() -> Name {
    "main".parse().expect("a name")
}

/// Where the operator's stores are listed.
struct Entries {
    layout: Layout,
    database: Option<Stores>,
}

impl Entries {
    fn open(state: &Path) -> Result<Self, ProvisionError> {
        let layout = Layout::new(state);
        let settings = layout.settings()?;
        let database = settings
            .database
            .as_ref()
            .map(|database| Stores::open(&layout, database, &settings.tenant, &settings.region));
        Ok(Self { database: database.transpose()?, layout })
    }

    fn get(&self, store: &Name) -> Result<Option<StoreEntry>, ProvisionError> {
        match &self.database {
            Some(stores) => Ok(stores.get(store)?),
            None => Ok(self.layout.store(store)?),
        }
    }

    fn put(
        &self,
        store: &Name,
        entry: &StoreEntry,
        partition: &Name,
    ) -> Result<(), ProvisionError> {
        if let Some(stores) = &self.database {
            return Ok(stores.put(store, entry, partition)?);
        }
        let text = toml::to_string_pretty(entry).expect("an entry is plain TOML");
        Ok(files::write(&self.layout.store_path(store), text.as_bytes())?)
    }

    fn list(&self) -> Result<Vec<(Name, StoreEntry)>, ProvisionError> {
        match &self.database {
            Some(stores) => Ok(stores.list()?),
            None => listed(&self.layout),
        }
    }
}

fn listed(layout: &Layout) -> Result<Vec<(Name, StoreEntry)>, ProvisionError> {
    let path = layout.stores();
    let list = |error| FileError::new("list", &path, error);
    let mut stores = Vec::new();
    for file in std::fs::read_dir(&path).map_err(list)? {
        let file = file.map_err(list)?.file_name();
        let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".toml")) else {
            continue;
        };
        let name: Name = name
            .parse()
            .map_err(|source| ProvisionError::StrangeStore { path: path.clone(), source })?;
        if let Some(entry) = layout.store(&name)? {
            stores.push((name, entry));
        }
    }
    stores.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(stores)
}

fn issue_server(
    layout: &Layout,
    authority: &Authority,
    host: &str,
    now: Timestamp,
) -> Result<(), ProvisionError> {
    let name: Name = "cloud".parse().expect("a name");
    let role = Role::Server { hosts: vec![host.into()] };
    let server = certified(authority, &name, role, now)?;
    files::write(&layout.path("server.key"), server.key_pem().expose().as_bytes())?;
    files::write(&layout.path("server.pem"), server.chain_pem().as_bytes())?;
    Ok(())
}

fn issue_bundle(
    entries: &Entries,
    (store, partition): (&Name, &Name),
    mut entry: StoreEntry,
    out: &Path,
    url: Option<&str>,
    now: Timestamp,
) -> Result<Bundle, ProvisionError> {
    if out.join("bundle.toml").exists() {
        return Err(ProvisionError::BundleExists(out.into()));
    }
    let layout = &entries.layout;
    let settings = layout.settings()?;
    let authority = authority(layout)?;
    let transform = provisioned(layout, "transform.key")?;
    let transform: [u8; 32] = transform
        .expose()
        .as_slice()
        .try_into()
        .map_err(|_| LayoutError::Key(layout.provisioning().join("transform.key")))?;
    let gateway = certified(&authority, store, Role::Client, now)?;
    entry.certificates.push(HEXLOWER.encode(digest(&SHA256, gateway.certificate_der()).as_ref()));
    let bundle = Bundle {
        tenant: settings.tenant.clone(),
        store: store.clone(),
        url: url.map_or_else(|| default_url(&settings.host), Into::into),
        gateway,
        authority_pem: authority.certificate_pem().into(),
        publisher: layout.publisher()?.public(),
        matcher: layout.matcher()?.public(),
        witness: layout.witness()?.map(|key| key.public()),
        transform_key: Secret::new(transform),
    };
    bundle.write(out)?;
    entries.put(store, &entry, partition)?;
    Ok(bundle)
}

fn certified(
    authority: &Authority,
    name: &Name,
    role: Role,
    now: Timestamp,
) -> Result<Identity, PkiError> {
    let pending = Identity::generate();
    let certificate = authority.issue(&pending.csr_der(), name, role, now, CERTIFICATE_LIFETIME)?;
    pending.certified(vec![certificate.der, authority.certificate_der().clone()])
}

fn authority(layout: &Layout) -> Result<Authority, ProvisionError> {
    let key = provisioned(layout, "authority.key")?;
    Ok(Authority::from_parts(&layout.authority_pem()?, key.expose())?)
}

fn provisioned(layout: &Layout, name: &str) -> Result<Secret<Vec<u8>>, ProvisionError> {
    let path = layout.provisioning().join(name);
    match files::read(&path) {
        Err(error) if error.is_missing() => Err(ProvisionError::NoProvisioning(path)),
        bytes => Ok(Secret::new(bytes?)),
    }
}

fn default_url(host: &str) -> String {
    let host = host.parse::<Ipv6Addr>().map_or_else(|_| host.into(), |ip| format!("[{ip}]"));
    format!("https://{host}:{DEFAULT_PORT}")
}
