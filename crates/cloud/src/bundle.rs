//! What a store needs to speak with its cloud: a directory that is carried to the box by hand.
//!
//! | file | content |
//! |---|---|
//! | `bundle.toml` | `tenant`, `store` and `url` as strings, and no more |
//! | `gateway.pem` | certificate of the store, then that of the authority (PEM) |
//! | `gateway.key` | private key of the store (PKCS#8, PEM) |
//! | `authority.pem` | certificate of the tenant's authority (PEM) |
//! | `publisher.pub` | Ed25519 key that checks shards and erasures |
//! | `matcher.pub` | X25519 key that registrations and probes are sealed to |
//! | `witness.pub` | Ed25519 key that checks cosignatures of the store's ledger, if the cloud has one |
//! | `transform.key` | the tenant's template transform key |
//!
//! The last four hold 64 lower-case hexadecimal digits and a newline. The directory has mode
//! 0700, every file 0600. Whoever holds the bundle is the store: it is deleted once the box has
//! read it.

use crate::files::{self, FileError};
use data_encoding::HEXLOWER;
use palmgate_protocol::{Name, Secret};
use palmgate_seal::{envelope::SealingKey, pki::Identity, sign::VerifyingKey};
use std::path::Path;

/// The content of a store's bundle.
pub struct Bundle {
    /// The tenant.
    pub tenant: Name,
    /// The store.
    pub store: Name,
    /// Where the cloud is.
    pub url: String,
    /// Who the store is on the network.
    pub gateway: Identity,
    /// Certificate of the tenant's authority.
    pub authority_pem: String,
    /// Checks shards and erasures.
    pub publisher: VerifyingKey,
    /// What registrations and probes are sealed to.
    pub matcher: SealingKey,
    /// Checks the cosignatures of the store's ledger; `None` when the cloud has no witness.
    pub witness: Option<VerifyingKey>,
    /// The tenant's template transform key.
    pub transform_key: Secret<[u8; 32]>,
}

impl Bundle {
    /// Writes the directory; `bundle.toml` last, so that a bundle with it is whole.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        files::create_directory(directory)?;
        let hex = |key: &[u8; 32]| Secret::new(format!("{}\n", HEXLOWER.encode(key)));
        let write = |name, bytes: &str| files::write(&directory.join(name), bytes.as_bytes());
        write("gateway.pem", &self.gateway.chain_pem())?;
        write("gateway.key", self.gateway.key_pem().expose())?;
        write("authority.pem", &self.authority_pem)?;
        write("publisher.pub", hex(&self.publisher.0).expose())?;
        write("matcher.pub", hex(&self.matcher.0).expose())?;
        if let Some(witness) = &self.witness {
            write("witness.pub", hex(&witness.0).expose())?;
        }
        write("transform.key", hex(self.transform_key.expose()).expose())?;
        let url = toml::Value::String(self.url.clone());
        let toml =
            format!("tenant = \"{}\"\nstore = \"{}\"\nurl = {url}\n", self.tenant, self.store);
        write("bundle.toml", &toml)
    }
}
