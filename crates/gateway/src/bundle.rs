//! The store's bundle: what the chain's administrator carries to the box so that it may speak with
//! the cloud. Read once into the vault; its secret files are removed then.

use minicbor::{Decode, Encode};
use palmgate_protocol::{Biometric, Name, Secret, decode, encode_for_sealing};
use palmgate_seal::{envelope::SealingKey, pki::Identity, sign::VerifyingKey};
use palmgate_vault::Vault;
use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the vault keeps the bundle.
const STATE: &str = "bundle";

/// A store's bundle, read and checked.
pub(crate) struct Bundle {
    pub(crate) tenant: Name,
    pub(crate) store: Name,
    pub(crate) url: String,
    pub(crate) identity: Identity,
    pub(crate) authority_pem: String,
    pub(crate) publisher: VerifyingKey,
    pub(crate) matcher: SealingKey,
    pub(crate) transform_key: Secret<[u8; 32]>,
    /// Checks the cloud's cosignature under the ledger; absent in a bundle of a cloud without one.
    pub(crate) witness: Option<VerifyingKey>,
}

/// The bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{}: {cause}: copy the whole bundle that `palmgate-cloud store add` wrote", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{}: {what}: make a new bundle with `palmgate-cloud store add`", path.display())]
    Content { path: PathBuf, what: String },
    #[error("the bundle in the vault is damaged: {0}")]
    Kept(String),
    #[error(transparent)]
    Vault(#[from] palmgate_vault::VaultError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    tenant: String,
    store: String,
    url: String,
}

/// The bundle as the vault keeps it.
#[derive(Encode, Decode)]
struct Kept {
    #[n(0)]
    tenant: Name,
    #[n(1)]
    store: Name,
    #[n(2)]
    url: String,
    #[n(3)]
    chain_pem: String,
    #[n(4)]
    key_pem: Biometric<Vec<u8>>,
    #[n(5)]
    authority_pem: String,
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    publisher: [u8; 32],
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    matcher: [u8; 32],
    #[n(8)]
    transform_key: Biometric<Vec<u8>>,
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    witness: Option<[u8; 32]>,
}

impl Bundle {
    /// The bundle in `directory` if there is one, otherwise the one taken in earlier.
    pub(crate) fn load(directory: &Path, vault: &Vault) -> Result<Self, BundleError> {
        if directory.join("bundle.toml").exists() {
            let kept = read(directory)?;
            vault.put_state(STATE, encode_for_sealing(&kept).expose())?;
            remove_secrets(directory)?;
            tracing::info!("the store's bundle was taken into the vault");
            return kept.open();
        }
        let Some(kept) = vault.state(STATE)? else {
            let cause = io::Error::from(io::ErrorKind::NotFound);
            return Err(BundleError::File { path: directory.join("bundle.toml"), cause });
        };
        let kept: Kept =
            decode(kept.expose()).map_err(|error| BundleError::Kept(error.to_string()))?;
        kept.open()
    }
}

impl Kept {
    fn open(self) -> Result<Bundle, BundleError> {
        let damaged = |what: String| BundleError::Kept(what);
        let key_pem = std::str::from_utf8(self.key_pem.expose())
            .map_err(|error| damaged(error.to_string()))?;
        let identity = Identity::from_pem(&self.chain_pem, key_pem)
            .map_err(|error| damaged(error.to_string()))?;
        let transform_key = <[u8; 32]>::try_from(self.transform_key.expose().as_slice())
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Bundle {
            tenant: self.tenant,
            store: self.store,
            url: self.url,
            identity,
            authority_pem: self.authority_pem,
            publisher: VerifyingKey(self.publisher),
            matcher: SealingKey(self.matcher),
            transform_key: Secret::new(transform_key),
            witness: self.witness.map(VerifyingKey),
        })
    }
}

fn read(directory: &Path) -> Result<Kept, BundleError> {
    let text = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|cause| BundleError::File { path, cause })
    };
    let content =
        |name: &str, what: String| BundleError::Content { path: directory.join(name), what };
    let key = |name: &str| {
        let hex = Secret::new(text(name)?);
        let bytes = data_encoding::HEXLOWER.decode(hex.expose().trim().as_bytes());
        let bytes = bytes.map_err(|error| content(name, error.to_string()))?;
        <[u8; 32]>::try_from(bytes).map_err(|_| content(name, "not 32 bytes".into()))
    };
    let description: Description = toml::from_str(&text("bundle.toml")?)
        .map_err(|error| content("bundle.toml", error.message().into()))?;
    let name =
        |name: &str| name.parse().map_err(|error| content("bundle.toml", format!("{error}")));
    Ok(Kept {
        tenant: name(&description.tenant)?,
        store: name(&description.store)?,
        url: description.url,
        chain_pem: text("gateway.pem")?,
        key_pem: Biometric::new(text("gateway.key")?.into_bytes()),
        authority_pem: text("authority.pem")?,
        publisher: key("publisher.pub")?,
        matcher: key("matcher.pub")?,
        transform_key: Biometric::new(key("transform.key")?.to_vec()),
        witness: directory.join("witness.pub").exists().then(|| key("witness.pub")).transpose()?,
    })
}

/// `bundle.toml` goes first: without it the directory is no bundle any more.
fn remove_secrets(directory: &Path) -> Result<(), BundleError> {
    for name in ["bundle.toml", "gateway.key", "transform.key"] {
        let path = directory.join(name);
        fs::remove_file(&path).map_err(|cause| BundleError::File { path, cause })?;
    }
    Ok(())
}
