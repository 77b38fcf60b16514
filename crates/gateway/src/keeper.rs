//! Where the root of the vault is kept.

use crate::run::StartError;
use palmgate_protocol::Secret;
use palmgate_vault::{FileRoot, RootKeeper};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The systemd credential that seals a root file, or authorises the use of the TPM's indices.
const CREDENTIAL: &str = "palmgate-root";

/// Who keeps the key above all keys. The promise of erasure is as strong as the keeper's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKeeping {
    /// A file of mode 0600 in the state directory.
    File,
    /// The same, sealed under the systemd credential `palmgate-root`.
    Credential,
    /// A TPM 2.0, authorised by that credential.
    Tpm {
        /// Which one, as tpm2-tss spells it: `device:/dev/tpmrm0`.
        tcti: String,
    },
}

impl RootKeeping {
    /// What becomes of a root that was replaced, for who runs the box.
    pub const fn promise(&self) -> &'static str {
        match self {
            Self::File => {
                "a file: an erasure overwrites the old root, flash may keep it, and a copy of the \
                 disk opens everything that is stored now"
            }
            Self::Credential => {
                "a file sealed under a systemd credential: an erasure overwrites the old root, flash \
                 may keep it; a copy of the disk alone opens nothing"
            }
            Self::Tpm { .. } => {
                "a TPM: an erasure destroys the old root in hardware, and an older copy of the disk \
                 does not open"
            }
        }
    }

    pub(crate) fn keeper(&self, state: &Path) -> Result<Box<dyn RootKeeper>, StartError> {
        let file = state.join("root");
        match self {
            Self::File => Ok(Box::new(FileRoot::new(file))),
            Self::Credential => {
                let sealed = FileRoot::sealed(file, &credential()?);
                Ok(Box::new(sealed.map_err(anyhow::Error::from)?))
            }
            Self::Tpm { tcti } => tpm(tcti),
        }
    }
}

#[cfg(feature = "tpm")]
fn tpm(tcti: &str) -> Result<Box<dyn RootKeeper>, StartError> {
    let keeper = palmgate_vault::TpmRoot::connect(tcti, &credential()?);
    Ok(Box::new(keeper.map_err(anyhow::Error::from)?))
}

#[cfg(not(feature = "tpm"))]
fn tpm(_: &str) -> Result<Box<dyn RootKeeper>, StartError> {
    Err(StartError::WithoutTpm)
}

fn credential() -> Result<Secret<Vec<u8>>, StartError> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let read = directory.and_then(|directory| fs::read(directory.join(CREDENTIAL)).ok());
    read.map(Secret::new).ok_or(StartError::Credential)
}
