//! Texts that two people signed.

use crate::{
    files,
    refusal::{Reason, Refusal},
};
use palmgate_ledger::note::{MAX_NOTE_BYTES, Note, NoteError, Signer, sign_too};
use palmgate_seal::sign::SigningKey;
use sha2::{Digest, Sha256};
use std::{os::fd::AsFd, path::Path};

/// The note of a bundle.
pub const NOTE: &str = "update.note";

const ASK: &str = "use a bundle of your own publisher, have two of [update] signers sign it, or \
                   correct [update] signers";

/// What stands in a note, and who signed it.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Behind the head line.
    pub(crate) body: String,
    pub(crate) signers: Vec<String>,
    /// SHA-256 of the text.
    pub(crate) id: [u8; 32],
}

/// Reads the note `name` in `directory`, checks both signatures, and takes off its `head` line: a text
/// that was signed for another use is no such text.
pub(crate) fn read(
    directory: impl AsFd,
    place: &Path,
    name: &str,
    head: &str,
    trusted: &[Signer],
) -> Result<Signed, Refusal> {
    let path = place.join(name);
    let bytes = files::read(directory, name, &path, MAX_NOTE_BYTES as u64)?;
    let note = String::from_utf8(bytes)
        .map_err(|_| Refusal::malformed(&path, "a signed note", "bytes that are no text"))?;
    let note =
        Note::parse(&note).map_err(|error| Refusal::malformed(&path, "a signed note", error))?;
    let signers = note.verify_four_eyes(trusted).map_err(|error| {
        let wanted = "signatures of two of the trusted people";
        Refusal::new(Reason::Unsigned, &path, wanted, error, ASK)
    })?;
    let id = Sha256::digest(note.text()).into();
    let body = note.text().strip_prefix(head).and_then(|rest| rest.strip_prefix('\n'));
    let Some(body) = body else {
        let found = format!("{:?}", note.text().lines().next().unwrap_or_default());
        let wanted = format!("the first line {head:?}");
        return Err(Refusal::new(Reason::Foreign, &path, wanted, found, ASK));
    };
    Ok(Signed { body: body.to_owned(), signers, id })
}

/// Adds a signature to the note over `head` and `body`; without a note it is the first.
///
/// # Errors
/// [`NoteError`] when the note has another text, or the name cannot sign.
pub(crate) fn sign(
    note: Option<&str>,
    head: &str,
    body: &str,
    name: &str,
    key: &SigningKey,
) -> Result<String, NoteError> {
    sign_too(note, &format!("{head}\n{body}"), name, key)
}

/// Adds the signature of a further person to a note, whatever its text says.
///
/// # Errors
/// [`NoteError`] when it is no note, or the name cannot sign.
pub fn add_signature(note: &str, name: &str, key: &SigningKey) -> Result<String, NoteError> {
    let text = Note::parse(note)?.text().to_owned();
    sign_too(Some(note), &text, name, key)
}
