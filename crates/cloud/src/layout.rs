//! Where things lie in the state directory.
//!
//! | path | what |
//! |---|---|
//! | `cloud.toml` | the operator's choices |
//! | `authority.pem` | the tenant's authority: who is a store |
//! | `server.pem`, `server.key` | the service's own certificate |
//! | `publisher.key` | signs shards and erasures (PKCS#8) |
//! | `witness.key` | cosigns the stores' ledgers (PKCS#8) |
//! | `matcher.key` | opens `operator` registrations and probes (32 bytes) |
//! | `keys/`, `database/` | the registry of one process |
//! | `stores/NAME.toml` | the certificates of a store; written by the operator's commands only |
//! | `registry.keys`, `roots/` | instead of these, when the rows are in PostgreSQL: keys that last, and root keys that are replaced |
//! | `provisioning/` | the authority's key and the template transform key: never read by the running service |

use crate::{
    config::{self, Settings},
    files::{self, FileError},
};
use data_encoding::HEXLOWER;
use palmgate_protocol::Name;
use palmgate_seal::{
    envelope::OpeningKey,
    pki::{Identity, PkiError},
    sign::SigningKey,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Why something in the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of choices is wrong.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A certificate or its key is unusable.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PkiError,
    },
    /// A key file does not hold a key.
    #[error("{} does not hold a key: restore it", .0.display())]
    Key(PathBuf),
}

impl LayoutError {
    /// Whether the operator's own words are at fault, not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Toml { .. })
    }
}

/// A store, as the operator knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreEntry {
    /// SHA-256 of the certificates that may speak for the store, newest last, in hexadecimal.
    pub certificates: Vec<String>,
    /// How often the operator declared the box replaced.
    pub resets: u32,
}

impl StoreEntry {
    pub(crate) fn accepts(&self, fingerprint: &[u8; 32]) -> bool {
        let fingerprint = HEXLOWER.encode(fingerprint);
        self.certificates.contains(&fingerprint)
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn new(state: &Path) -> Self {
        Self(state.into())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The keys of a tenant whose rows are in PostgreSQL.
    pub(crate) fn fixed_keys(&self) -> PathBuf {
        self.path("registry.keys")
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.path("roots")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("database")
    }

    pub(crate) fn provisioning(&self) -> PathBuf {
        self.path("provisioning")
    }

    pub(crate) fn stores(&self) -> PathBuf {
        self.path("stores")
    }

    pub(crate) fn store_path(&self, store: &Name) -> PathBuf {
        self.stores().join(format!("{store}.toml"))
    }

    pub(crate) fn settings(&self) -> Result<Settings, LayoutError> {
        let path = self.path("cloud.toml");
        let text = files::read_text(&path)?;
        config::parse(&text).map_err(|error| LayoutError::Toml { path, source: error.into() })
    }

    pub(crate) fn publisher(&self) -> Result<SigningKey, LayoutError> {
        let path = self.path("publisher.key");
        SigningKey::from_pkcs8(&files::read(&path)?).map_err(|_| LayoutError::Key(path))
    }

    pub(crate) fn matcher(&self) -> Result<OpeningKey, LayoutError> {
        let path = self.path("matcher.key");
        let bytes = files::read(&path)?;
        let key = bytes.as_slice().try_into().ok().map(OpeningKey::from_bytes);
        key.and_then(Result::ok).ok_or(LayoutError::Key(path))
    }

    /// The key that cosigns the stores' ledgers; `None` in state directories from before it.
    pub(crate) fn witness(&self) -> Result<Option<SigningKey>, LayoutError> {
        let path = self.path("witness.key");
        match files::read(&path) {
            Err(error) if error.is_missing() => Ok(None),
            bytes => SigningKey::from_pkcs8(&bytes?).map(Some).map_err(|_| LayoutError::Key(path)),
        }
    }

    pub(crate) fn server(&self) -> Result<Identity, LayoutError> {
        let path = self.path("server.pem");
        let (chain, key) = (files::read_text(&path)?, files::read_text(&self.path("server.key"))?);
        Identity::from_pem(&chain, &key).map_err(|source| LayoutError::Certificate { path, source })
    }

    pub(crate) fn authority_pem(&self) -> Result<String, LayoutError> {
        Ok(files::read_text(&self.path("authority.pem"))?)
    }

    pub(crate) fn authority(&self) -> Result<CertificateDer<'static>, LayoutError> {
        let pem = self.authority_pem()?;
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| LayoutError::Certificate {
            path: self.path("authority.pem"),
            source: PkiError::Pem("a certificate"),
        })
    }

    /// The entry of a store; `None` when the operator knows no such store.
    pub(crate) fn store(&self, store: &Name) -> Result<Option<StoreEntry>, LayoutError> {
        let path = self.store_path(store);
        let text = match files::read_text(&path) {
            Err(error) if error.is_missing() => return Ok(None),
            text => text?,
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| LayoutError::Toml { path, source: error.into() })
    }
}
