//! Four eyes: a pack is signed by two people, as a C2SP signed note over its statement.

use palmgate_ledger::note::{FourEyesError, Note, NoteError, Signer, sign_too};
use palmgate_policy::Pack;
use palmgate_seal::sign::SigningKey;

const HEAD: &str = "palmgate law pack";

/// A pack is not signed as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is about other files.
    #[error("the signatures are of another pack: {0} is not as it was signed")]
    Other(String),
    /// A wrong signature, or too few.
    #[error(transparent)]
    FourEyes(#[from] FourEyesError),
}

fn text(pack: &Pack) -> String {
    let top = pack.top();
    format!("{HEAD}\n{} {}\n{}", top.name, top.version, pack.statement())
}

/// Adds a signature to the note of a pack; without a note it is the first.
///
/// # Errors
/// [`SignatureError`] when the note is about other files, or the name cannot sign.
pub fn add_signature(
    pack: &Pack,
    note: Option<&str>,
    name: &str,
    key: &SigningKey,
) -> Result<String, SignatureError> {
    let text = text(pack);
    if let Some(note) = note {
        same(&text, Note::parse(note)?.text())?;
    }
    Ok(sign_too(note, &text, name, key)?)
}

/// Checks that two different trusted people signed exactly this pack; says who did.
///
/// # Errors
/// [`SignatureError`] says what is missing.
pub fn verify(pack: &Pack, note: &str, trusted: &[Signer]) -> Result<Vec<String>, SignatureError> {
    let note = Note::parse(note)?;
    same(&text(pack), note.text())?;
    Ok(note.verify_four_eyes(trusted)?)
}

/// Names the first file that differs.
fn same(wanted: &str, found: &str) -> Result<(), SignatureError> {
    if wanted == found {
        return Ok(());
    }
    let other = wanted.lines().find(|line| !found.lines().any(|known| known == *line));
    let file = other.and_then(|line| line.split("  ").nth(1)).unwrap_or("the list of files");
    Err(SignatureError::Other(file.to_owned()))
}
