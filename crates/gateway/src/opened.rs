//! The state directory, opened: what a gateway needs before it serves anybody.

use crate::{
    bundle::Bundle,
    calibration,
    clock::Believed,
    cloud::ShardHeld,
    decision_log::DecisionLog,
    forgotten::Forgotten,
    identity::{OwnIdentity, OwnIdentityOptions},
    in_use, kept,
    metrics::Certificate,
    receipts::{self, Receipts},
    references::{self, References},
    run::{Options, StartError},
    scribe::CHECKPOINT,
};
use palmgate_ledger::Ledger;
use palmgate_matcher::{Keyed, Models};
use palmgate_palm::{Calibration, Extractor};
use palmgate_policy::{Pack, Profile};
use palmgate_protocol::{MemberId, Name, Secret, Timestamp, decode};
use palmgate_seal::{envelope::OpeningKey, pki::Authority, random};
use palmgate_vault::Vault;
use rustls::pki_types::CertificateDer;
use std::{
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

/// What is on disk, opened.
pub(crate) struct Opened {
    pub(crate) calibration: Calibration,
    pub(crate) vault: Arc<Vault>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Arc<Believed>,
    pub(crate) identity: Arc<OwnIdentity>,
    pub(crate) opening_key: OpeningKey,
    pub(crate) bundle: Option<Bundle>,
    pub(crate) transform_key: Secret<[u8; 32]>,
    pub(crate) log: DecisionLog,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) receipts: Receipts,
    pub(crate) people: Vec<(MemberId, Profile)>,
    pub(crate) references: Arc<References>,
    pub(crate) shard: Option<ShardHeld>,
}

impl Opened {
    pub(crate) fn open(options: &Options, pack: &Pack) -> Result<Self, StartError> {
        let models = options.models.as_ref();
        let models = models.map(|at| Models::read(at, &options.updates.signers)).transpose();
        let models = models.map_err(StartError::Models)?;
        let hash = models.as_ref().map_or_else(palmgate_palm::models_hash, Models::hash);
        let calibration = calibration::read(options.calibration.as_deref(), &hash)?;
        let extractor = begin_loading(options, models)?;
        let directory = &options.state_directory;
        private_directory(directory)?;
        let floor = in_use::announced_floor(&options.updates)?;
        let keeper = options.root.keeper(directory)?;
        let vault = Vault::open(&directory.join("vault"), &options.tenant, keeper)
            .map_err(anyhow::Error::from)?;
        in_use::keep_floor(&vault, floor, directory)?;
        let vault = Arc::new(vault);
        let seen = kept::time_seen(&vault)?.unwrap_or_default();
        let clock = Arc::new(Believed::new(seen, pack.clock_jump()));
        let authority = Arc::new(authority(&vault, &options.store, clock.now())?);
        let own = OwnIdentity::open(OwnIdentityOptions {
            vault: Arc::clone(&vault),
            authority: Arc::clone(&authority),
            clock: Arc::clone(&clock),
            host: options.public_host.clone(),
            lifetime: options.certificate_lifetime,
        })?;
        let identity = own.current();
        let bundle = match &options.cloud {
            Some(cloud) => Some(own_bundle(options, Bundle::load(&cloud.bundle, &vault)?)?),
            None => None,
        };
        let transform_key = match &bundle {
            Some(bundle) => Secret::new(*bundle.transform_key.expose()),
            None => Secret::new(state_key(&vault, "transform-key")?),
        };
        let signing_key = identity.signing_key();
        let origin = palmgate_ledger::origin(&options.tenant, &options.store);
        let ledger = Ledger::open(&directory.join("ledger"), &origin, identity.signing_key());
        let ledger = ledger.map_err(anyhow::Error::from)?;
        if let Some(note) = vault.state(CHECKPOINT).map_err(anyhow::Error::from)? {
            ledger
                .continues(&String::from_utf8_lossy(note.expose()))
                .map_err(anyhow::Error::from)?;
        }
        let log = DecisionLog::new(ledger);
        let forgotten = Arc::new(Forgotten::load(Arc::clone(&vault))?);
        receipts::publish_key(&directory.join("ledger.pub"), signing_key.public())
            .and_then(|()| match &bundle {
                Some(bundle) => {
                    receipts::publish_key(&directory.join("cloud.pub"), bundle.publisher)
                }
                None => Ok(()),
            })
            .and_then(|()| {
                let path = directory.join("authority.pem");
                receipts::replace(&path, authority.certificate_pem().as_bytes())
            })
            .map_err(|cause| StartError::File { path: directory.clone(), cause })?;
        let (tenant, store) = (options.tenant.clone(), options.store.clone());
        let receipts = Receipts::open(directory.join("receipts"), tenant, store, signing_key)
            .map_err(anyhow::Error::from)?;
        let keyed = Keyed {
            key: Secret::new(*transform_key.expose()),
            tenant: options.tenant.clone(),
            fusion: references::fusion(),
            models: hash,
        };
        let references = References::open(options.matcher.clone(), keyed, || loaded(extractor))?;
        let references = Arc::new(references);
        let people = references.fill(&vault)?;
        let shard = vault.state("shard").map_err(anyhow::Error::from)?;
        let shard = shard.and_then(|held| decode::<ShardHeld>(held.expose()).ok());
        Ok(Self {
            calibration,
            opening_key: OpeningKey::from_bytes(&state_key(&vault, "opening-key")?)
                .map_err(anyhow::Error::from)?,
            vault,
            authority,
            clock,
            identity: Arc::new(own),
            bundle,
            transform_key,
            log,
            forgotten,
            receipts,
            people,
            references,
            shard,
        })
    }

    /// When the certificates end that this gateway shows and trusts.
    pub(crate) fn certificates_end(&self) -> Result<Vec<(Certificate, Timestamp)>, anyhow::Error> {
        let mut ends = vec![
            (Certificate::Gateway, self.identity.current().validity().until),
            (Certificate::Authority, not_after(self.authority.certificate_der())?),
        ];
        if let Some(bundle) = &self.bundle {
            ends.push((Certificate::Cloud, bundle.identity.validity().until));
        }
        Ok(ends)
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Result<Timestamp, anyhow::Error> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    Ok(Timestamp::from_millis(certificate.validity().not_after.timestamp().saturating_mul(1000)))
}

pub(crate) fn private_directory(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|cause| StartError::File { path: path.to_owned(), cause })
}

/// A 32-byte key of the store, made at first use.
fn state_key(vault: &Vault, name: &str) -> Result<[u8; 32], anyhow::Error> {
    if let Some(key) = vault.state(name)? {
        return Ok(key.expose().as_slice().try_into()?);
    }
    let key = random::bytes();
    vault.put_state(name, &key)?;
    Ok(key)
}

/// The store's device authority, made at first start.
fn authority(vault: &Vault, store: &Name, now: Timestamp) -> Result<Authority, anyhow::Error> {
    let (certificate, key) = (vault.state("authority-certificate")?, vault.state("authority-key")?);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Ok(Authority::from_parts(
            std::str::from_utf8(certificate.expose())?,
            key.expose(),
        )?);
    }
    let authority = Authority::generate(&format!("Palmgate store {store}"), now)?;
    vault.put_state("authority-key", authority.key_pkcs8().expose())?;
    vault.put_state("authority-certificate", authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

fn own_bundle(options: &Options, bundle: Bundle) -> Result<Bundle, StartError> {
    if bundle.tenant == options.tenant && bundle.store == options.store {
        return Ok(bundle);
    }
    Err(StartError::OtherStore {
        found: format!("{}/{}", bundle.tenant, bundle.store),
        wanted: format!("{}/{}", options.tenant, options.store),
    })
}

/// Models that are being loaded.
type Loading = JoinHandle<Result<Extractor, StartError>>;

/// Loads the models, beside what else has to be opened; not where another process has them.
fn begin_loading(options: &Options, models: Option<Models>) -> Result<Option<Loading>, StartError> {
    if options.matcher.is_some() {
        return Ok(None);
    }
    let load = move || match models {
        Some(models) => models.extractor().map_err(StartError::Models),
        None => Ok(Extractor::load().map_err(anyhow::Error::from)?),
    };
    let loading = thread::Builder::new().name("models".into()).spawn(load);
    Ok(Some(loading.map_err(anyhow::Error::from)?))
}

fn loaded(loading: Option<Loading>) -> Result<Extractor, StartError> {
    let loading = loading.and_then(|loading| loading.join().ok());
    loading.ok_or_else(|| anyhow::anyhow!("loading the models ended early"))?
}
