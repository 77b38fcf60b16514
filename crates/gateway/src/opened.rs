//! The state directory, opened: what a gateway needs before it serves anybody.

use crate::{
    bundle::Bundle,
    clock,
    cloud::ShardHeld,
    decision_log::DecisionLog,
    forgotten::Forgotten,
    metrics::Certificate,
    receipts::{self, Receipts},
    references::{self, References},
    run::{Options, StartError},
    scribe::CHECKPOINT,
};
use palmgate_ledger::Ledger;
use palmgate_matcher::Keyed;
use palmgate_policy::Profile;
use palmgate_protocol::{MemberId, Name, Secret, Timestamp, decode, topic};
use palmgate_seal::{
    envelope::OpeningKey,
    pki::{Authority, Identity, PendingIdentity, Role},
    random,
    sign::SigningKey,
};
use palmgate_vault::Vault;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{path::Path, sync::Arc, time::Duration};

/// How long the gateway's own certificate lasts.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(397 * 24);

/// What is on disk, opened.
pub(crate) struct Opened {
    pub(crate) vault: Arc<Vault>,
    pub(crate) authority: Authority,
    pub(crate) identity_pem: (String, Secret<String>),
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
    pub(crate) fn open(options: &Options) -> Result<Self, StartError> {
        let directory = &options.state_directory;
        private_directory(directory)?;
        let keeper = options.root.keeper(directory)?;
        let vault = Vault::open(&directory.join("vault"), &options.tenant, keeper)
            .map_err(anyhow::Error::from)?;
        let vault = Arc::new(vault);
        let authority = authority(&vault, &options.store)?;
        let identity = identity(&vault, &authority, &options.public_host)?;
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
        let references = open_references(options, &transform_key)?;
        let people = references::people(&vault)?;
        references.fill(&vault, &people)?;
        let shard = vault.state("shard").map_err(anyhow::Error::from)?;
        let shard = shard.and_then(|held| decode::<ShardHeld>(held.expose()).ok());
        Ok(Self {
            opening_key: OpeningKey::from_bytes(&state_key(&vault, "opening-key")?)
                .map_err(anyhow::Error::from)?,
            identity_pem: (identity.chain_pem(), identity.key_pem()),
            vault,
            authority,
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

    /// Each user of the gateway's identity holds its own copy: keys are not cloned.
    pub(crate) fn identity(&self) -> Result<Identity, StartError> {
        let (chain, key) = &self.identity_pem;
        Ok(Identity::from_pem(chain, key.expose()).map_err(anyhow::Error::from)?)
    }

    /// When the certificates end that this gateway shows and trusts.
    pub(crate) fn certificates_end(&self) -> Result<Vec<(Certificate, Timestamp)>, anyhow::Error> {
        let mut ends = vec![
            (
                Certificate::Gateway,
                not_after(&CertificateDer::from_pem_slice(self.identity_pem.0.as_bytes())?)?,
            ),
            (Certificate::Authority, not_after(self.authority.certificate_der())?),
        ];
        if let Some(bundle) = &self.bundle {
            let chain = bundle.identity.chain_pem();
            let own = CertificateDer::from_pem_slice(chain.as_bytes())?;
            ends.push((Certificate::Cloud, not_after(&own)?));
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
fn authority(vault: &Vault, store: &Name) -> Result<Authority, anyhow::Error> {
    let (certificate, key) = (vault.state("authority-certificate")?, vault.state("authority-key")?);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Ok(Authority::from_parts(
            std::str::from_utf8(certificate.expose())?,
            key.expose(),
        )?);
    }
    let authority = Authority::generate(&format!("Palmgate store {store}"), clock::now())?;
    vault.put_state("authority-key", authority.key_pkcs8().expose())?;
    vault.put_state("authority-certificate", authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

/// The gateway's own identity. Its certificate is renewed when a third of its life is left, or when
/// terminals dial another host.
fn identity(
    vault: &Vault,
    authority: &Authority,
    public_host: &str,
) -> Result<Identity, anyhow::Error> {
    if let Some(kept) = vault.state("identity")? {
        let kept: KeptIdentity = decode(kept.expose())?;
        let identity = Identity::from_pem(&kept.chain, std::str::from_utf8(kept.key.expose())?)?;
        if kept.host == public_host && clock::now() < kept.renew_at {
            return Ok(identity);
        }
        return issue_identity(vault, authority, public_host, identity.signing_key());
    }
    issue_identity(vault, authority, public_host, SigningKey::generate())
}

/// The identity as the vault keeps it.
#[derive(minicbor::Encode, minicbor::Decode)]
struct KeptIdentity {
    #[n(0)]
    chain: String,
    #[n(1)]
    key: palmgate_protocol::Biometric<Vec<u8>>,
    #[n(2)]
    host: String,
    #[n(3)]
    renew_at: Timestamp,
}

fn issue_identity(
    vault: &Vault,
    authority: &Authority,
    public_host: &str,
    key: SigningKey,
) -> Result<Identity, anyhow::Error> {
    let name: Name = topic::GATEWAY.parse()?;
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !hosts.iter().any(|host| host == public_host) {
        hosts.push(public_host.to_owned());
    }
    let pending = PendingIdentity { key };
    let (role, now) = (Role::Both { hosts }, clock::now());
    let issued = authority.issue(&pending.csr_der(), &name, role, now, CERTIFICATE_LIFETIME)?;
    let identity = pending.certified(vec![issued.der, authority.certificate_der().clone()])?;
    let kept = KeptIdentity {
        chain: identity.chain_pem(),
        key: palmgate_protocol::Biometric::new(identity.key_pem().expose().clone().into_bytes()),
        host: public_host.to_owned(),
        renew_at: now.after(CERTIFICATE_LIFETIME * 2 / 3),
    };
    vault.put_state("identity", palmgate_protocol::encode_for_sealing(&kept).expose())?;
    Ok(identity)
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

fn open_references(
    options: &Options,
    transform_key: &Secret<[u8; 32]>,
) -> Result<Arc<References>, anyhow::Error> {
    let keyed = Keyed {
        key: Secret::new(*transform_key.expose()),
        tenant: options.tenant.clone(),
        fusion: references::calibrated(),
    };
    Ok(Arc::new(References::open(options.matcher.clone(), keyed)?))
}
