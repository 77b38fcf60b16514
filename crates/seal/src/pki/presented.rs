use super::{Identity, PkiError, provider};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// The identity that new connections show: replaced while configurations that hold it stay in use.
pub struct Presented(RwLock<Arc<CertifiedKey>>);

impl Presented {
    /// Shows `identity` until another takes its place.
    ///
    /// # Errors
    /// [`PkiError::Tls`] when TLS cannot use the key.
    pub fn new(identity: &Identity) -> Result<Self, PkiError> {
        Ok(Self(RwLock::new(certified(identity)?)))
    }

    /// Shows `identity` from the next connection on.
    ///
    /// # Errors
    /// [`PkiError::Tls`] when TLS cannot use the key; the one before stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), PkiError> {
        let certified = certified(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, PkiError> {
    let key = provider().key_provider.load_private_key(identity.tls_key());
    let key = key.map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(identity.chain(), key)))
}

/// Says nothing of the key.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.current();
        current.key.choose_scheme(schemes).is_some().then_some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
