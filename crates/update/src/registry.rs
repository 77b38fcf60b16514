//! The registry of models: what they are for, where they are from, what they may do, signed by two people.

use crate::{
    files,
    manifest::is_name,
    refusal::{Reason, Refusal},
    signed,
};
use data_encoding::HEXLOWER;
use palmgate_ledger::note::{NoteError, Signer, sign_too};
use palmgate_seal::sign::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The registry of a directory of models, signed.
pub const REGISTRY: &str = "registry.note";
const HEAD: &str = "palmgate models";
const MAX_MODELS: usize = 16;
/// Bytes of one model at most.
const MAX_MODEL_BYTES: u64 = 32 * 1024 * 1024;
const FETCH: &str = "install the bundle that brought the models again";

/// A model in a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// What it is for: `detection`, `landmarks` or `embedding`.
    pub role: String,
    /// Its file's name in the registry's directory.
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// Its licence (SPDX).
    pub licence: String,
    /// Where it is from, and what it was made with.
    pub origin: String,
    /// ONNX names of the operators that it may use.
    pub operators: Vec<String>,
    /// Mean absolute value of each answer to the fixed input.
    pub golden: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    model: Vec<Registered>,
}

/// A model whose file is the registered one.
pub struct Checked {
    /// What the registry says.
    pub registered: Registered,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// The file.
    pub bytes: Vec<u8>,
}

/// Reads a directory of models: the registry, signed by two of `trusted`, and every file in it.
///
/// # Errors
/// [`Refusal`] with the path, what was wanted, what was found, and the remedy.
pub fn read_models(directory: &Path, trusted: &[Signer]) -> Result<Vec<Checked>, Refusal> {
    let opened = files::directory(directory)?;
    let registry = directory.join(REGISTRY);
    let body = signed::read(&opened, directory, REGISTRY, HEAD, trusted)?.body;
    let written: Written = toml::from_str(&body).map_err(|error| {
        Refusal::malformed(&registry, "a registry of this version", error.message())
    })?;
    if written.model.len() > MAX_MODELS {
        let wanted = format!("{MAX_MODELS} models at most");
        let found = written.model.len();
        return Err(Refusal::new(Reason::TooLarge, &registry, wanted, found, FETCH));
    }
    written.model.into_iter().map(|one| check(&opened, directory, one)).collect()
}

fn check(
    opened: &std::fs::File,
    directory: &Path,
    registered: Registered,
) -> Result<Checked, Refusal> {
    let registry = directory.join(REGISTRY);
    let unfit = |wanted: &str, found: &str| {
        let found = format!("{:?}", found.chars().take(80).collect::<String>());
        Err(Refusal::malformed(&registry, wanted, found))
    };
    if !is_name(&registered.file) || registered.size > MAX_MODEL_BYTES {
        return unfit("a plain name and a size within bounds", &registered.file);
    }
    if registered.licence.trim().is_empty() || registered.origin.trim().is_empty() {
        return unfit("licence and origin of each model", &registered.file);
    }
    let path = directory.join(&registered.file);
    let bytes = files::read(opened, &registered.file, &path, MAX_MODEL_BYTES)?;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    if bytes.len() as u64 != registered.size || HEXLOWER.encode(&sha256) != registered.sha256 {
        let wanted = format!("{} bytes with SHA-256 {}", registered.size, registered.sha256);
        let found = format!("{} bytes with {}", bytes.len(), HEXLOWER.encode(&sha256));
        return Err(Refusal::new(Reason::Tampered, &path, wanted, found, FETCH));
    }
    Ok(Checked { registered, sha256, bytes })
}

/// The text of a registry, to be looked at and signed.
///
/// # Errors
/// [`NoteError`] when a number is beyond what TOML can write.
pub fn unsigned_registry(models: Vec<Registered>) -> Result<String, NoteError> {
    toml::to_string(&Written { model: models })
        .map_err(|_| NoteError::Malformed("a number is beyond what can be written"))
}

/// Signs a registry: begins its note, or adds a signature to one that says the same.
///
/// # Errors
/// [`NoteError`] when it is no registry, the note says something else, or it is longer than a note may
/// be.
pub fn sign_models(
    registry: &str,
    note: Option<&str>,
    name: &str,
    key: &SigningKey,
) -> Result<String, NoteError> {
    if toml::from_str::<Written>(registry).is_err() {
        return Err(NoteError::Malformed("its text is no registry of models"));
    }
    sign_too(note, &format!("{HEAD}\n{registry}"), name, key)
}
