//! Four eyes: a pack is signed by two people, as a C2SP signed note over its statement.

use palmgate_ledger::note::{Note, NoteError, Signer, sign};
use palmgate_policy::Pack;
use palmgate_seal::sign::SigningKey;

/// Signatures that production needs.
pub const NEEDED_SIGNATURES: usize = 2;
const HEAD: &str = "palmgate law pack";

/// A pack is not signed as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No note, or a wrong signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is about other files.
    #[error("the signatures are of another pack: {0} is not as it was signed")]
    Other(String),
    /// Too few of the trusted people signed.
    #[error("{found} of {NEEDED_SIGNATURES} signatures: ask another of {trusted} to sign")]
    TooFew {
        /// How many there are.
        found: usize,
        /// Who could sign.
        trusted: String,
    },
    /// The same key twice.
    #[error("two of the trusted keys are the same: four eyes need two people")]
    SameKey,
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
    let signed = sign(&text, name, key)?;
    let Some(note) = note else { return Ok(signed) };
    same(&text, Note::parse(note)?.text())?;
    let line = signed.get(text.len() + 1..).unwrap_or_default();
    let both = format!("{note}{line}");
    Note::parse(&both)?;
    Ok(both)
}

/// Checks that two different trusted people signed exactly this pack; says who did.
///
/// # Errors
/// [`SignatureError`] says what is missing.
pub fn verify(pack: &Pack, note: &str, trusted: &[Signer]) -> Result<Vec<String>, SignatureError> {
    let repeated = trusted
        .iter()
        .enumerate()
        .any(|(at, signer)| trusted.iter().take(at).any(|other| other.key() == signer.key()));
    if repeated {
        return Err(SignatureError::SameKey);
    }
    let note = Note::parse(note)?;
    same(&text(pack), note.text())?;
    let mut names = Vec::new();
    for signer in trusted {
        match note.verify(signer) {
            Ok(_) => names.push(signer.name().to_owned()),
            Err(NoteError::NotSigned(_)) => (),
            Err(error) => return Err(error.into()),
        }
    }
    if names.len() < NEEDED_SIGNATURES {
        let trusted: Vec<_> = trusted.iter().map(Signer::name).collect();
        return Err(SignatureError::TooFew { found: names.len(), trusted: trusted.join(", ") });
    }
    Ok(names)
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
