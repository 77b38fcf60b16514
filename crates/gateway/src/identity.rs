//! The gateway's own identity: kept in the vault, renewed while everything runs.

use crate::clock::Believed;
use palmgate_protocol::{Biometric, Name, Secret, Timestamp, decode, encode_for_sealing, topic};
use palmgate_seal::{
    pki::{Authority, Identity, PendingIdentity, Presented, Role},
    sign::SigningKey,
};
use palmgate_vault::Vault;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Where the vault keeps it.
const STATE: &str = "identity";

/// The gateway's key, which never changes, with its present certificate.
pub(crate) struct OwnIdentity {
    options: OwnIdentityOptions,
    current: RwLock<Arc<Identity>>,
    presented: Arc<Presented>,
}

/// What it takes to issue one.
pub(crate) struct OwnIdentityOptions {
    pub(crate) vault: Arc<Vault>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Arc<Believed>,
    /// What terminals dial.
    pub(crate) host: String,
    pub(crate) lifetime: Duration,
}

/// The identity as the vault keeps it.
#[derive(minicbor::Encode, minicbor::Decode)]
struct KeptIdentity {
    #[n(0)]
    chain: String,
    #[n(1)]
    key: Biometric<Vec<u8>>,
    #[n(2)]
    host: String,
    #[n(3)]
    renew_at: Timestamp,
}

/// The gateway's key; `None` before its first start.
pub(crate) fn signing_key(vault: &Vault) -> Result<Option<SigningKey>, anyhow::Error> {
    let Some(kept) = vault.state(STATE)? else { return Ok(None) };
    let kept: KeptIdentity = decode(kept.expose())?;
    let key = std::str::from_utf8(kept.key.expose())?;
    Ok(Some(Identity::from_pem(&kept.chain, key)?.signing_key()))
}

impl OwnIdentity {
    /// Reads the identity, or makes it at the first start; another host than before costs it its
    /// certificate.
    pub(crate) fn open(options: OwnIdentityOptions) -> Result<Self, anyhow::Error> {
        let identity = match options.vault.state(STATE)? {
            None => options.issue(SigningKey::generate())?,
            Some(kept) => {
                let kept: KeptIdentity = decode(kept.expose())?;
                let key = std::str::from_utf8(kept.key.expose())?;
                let identity = Identity::from_pem(&kept.chain, key)?;
                let due = identity.validity().is_due(options.clock.now());
                if due || kept.host != options.host {
                    options.issue(identity.signing_key())?
                } else {
                    identity
                }
            }
        };
        let presented = Arc::new(Presented::new(&identity)?);
        Ok(Self { options, current: RwLock::new(Arc::new(identity)), presented })
    }

    /// The identity now; hold it no longer than one use.
    pub(crate) fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What connections show.
    pub(crate) const fn presented(&self) -> &Arc<Presented> {
        &self.presented
    }

    /// Takes a new certificate when the present one is due, and shows it from the next connection
    /// on. Blocks on the disk.
    pub(crate) fn renew_if_due(&self) -> Result<bool, anyhow::Error> {
        let current = self.current();
        if !current.validity().is_due(self.options.clock.now()) {
            return Ok(false);
        }
        let renewed = self.options.issue(current.signing_key())?;
        self.presented.replace(&renewed)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(true)
    }
}

impl OwnIdentityOptions {
    fn issue(&self, key: SigningKey) -> Result<Identity, anyhow::Error> {
        let name: Name = topic::GATEWAY.parse()?;
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !hosts.contains(&self.host) {
            hosts.push(self.host.clone());
        }
        let pending = PendingIdentity { key };
        let (role, now) = (Role::Both { hosts }, self.clock.now());
        let csr = pending.csr_der();
        let issued = self.authority.issue(&csr, &name, role, now, self.lifetime)?;
        let chain = vec![issued.der, self.authority.certificate_der().clone()];
        let identity = pending.certified(chain)?;
        let key: Secret<String> = identity.key_pem();
        let kept = KeptIdentity {
            chain: identity.chain_pem(),
            key: Biometric::new(key.expose().clone().into_bytes()),
            host: self.host.clone(),
            renew_at: now.after(self.lifetime * 2 / 3),
        };
        self.vault.put_state(STATE, encode_for_sealing(&kept).expose())?;
        Ok(identity)
    }
}
