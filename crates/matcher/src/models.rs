//! Models that are not built in: read once, by the process that uses them.

use data_encoding::HEXLOWER;
use palmgate_ledger::note::Signer;
use palmgate_palm::{Extractor, ModelError, ModelFile, Role, models_hash_of};
use palmgate_update::{Refusal, Registered, read_models};
use std::path::{Path, PathBuf};

/// A directory of models cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The registry or a file is not as two trusted people signed it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The registry does not name one model for each part.
    #[error(
        "{}: wanted one model each for detection, landmarks and embedding, found {found}; install the bundle that brought the models again",
        path.display()
    )]
    Roles {
        /// The directory.
        path: PathBuf,
        /// The parts it names.
        found: String,
    },
    /// A model does not do what it did when it was signed.
    #[error("{}: {cause}; install the bundle that brought the models again", path.display())]
    Model {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        cause: ModelError,
    },
}

/// One model for each part, as two trusted people registered them.
pub struct Models {
    path: PathBuf,
    files: [ModelFile; 3],
}

/// What a registry says of a model that is built in; `file` is its name beside the registry.
pub fn register(model: &ModelFile, file: String) -> Registered {
    let role = model.role;
    Registered {
        role: role.as_str().into(),
        file,
        size: model.bytes.len() as u64,
        sha256: HEXLOWER.encode(&model.sha256),
        licence: role.licence().into(),
        origin: role.origin().into(),
        operators: model.operators.clone(),
        golden: model.golden.clone(),
    }
}

impl Models {
    /// Reads the registry in `directory` and the files that it names.
    ///
    /// # Errors
    /// [`ModelsError`] with path, what was wanted, what was found, and the remedy.
    pub fn read(directory: &Path, trusted: &[Signer]) -> Result<Self, ModelsError> {
        let mut read = read_models(directory, trusted)?;
        let found: Vec<String> = read.iter().map(|one| one.registered.role.clone()).collect();
        let wrong = || ModelsError::Roles { path: directory.to_owned(), found: found.join(", ") };
        if read.len() != Role::ALL.len() {
            return Err(wrong());
        }
        let mut take = |role: Role| -> Result<ModelFile, ModelsError> {
            let at = read.iter().position(|one| one.registered.role == role.as_str());
            let one = read.swap_remove(at.ok_or_else(wrong)?);
            Ok(ModelFile {
                role,
                bytes: one.bytes,
                sha256: one.sha256,
                operators: one.registered.operators,
                golden: one.registered.golden,
            })
        };
        let files = [take(Role::Detection)?, take(Role::Landmarks)?, take(Role::Embedding)?];
        Ok(Self { path: directory.to_owned(), files })
    }

    /// Prepares them: operators, hashes and stored answers are checked.
    ///
    /// # Errors
    /// [`ModelsError::Model`] names the model.
    pub fn extractor(&self) -> Result<Extractor, ModelsError> {
        Extractor::load_from(&self.files)
            .map_err(|cause| ModelsError::Model { path: self.path.clone(), cause })
    }

    /// SHA-256 over them, as of those that are built in.
    pub fn hash(&self) -> [u8; 32] {
        models_hash_of(&self.files.each_ref().map(|file| file.sha256))
    }
}
