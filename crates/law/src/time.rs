//! A signed time, as a C2SP signed note: what confirms the clock of a box after a jump forward.

use crate::receipt::rfc3339;
use palmgate_ledger::note::{Note, NoteError, Signer, sign};
use palmgate_protocol::{Name, Timestamp};
use palmgate_seal::sign::SigningKey;

const HEAD: &str = "palmgate time";

/// A note does not confirm the time of this store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// No note, or a wrong signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a time, or one of another store.
    #[error("the note is not a time for {0}: `palmgate clock sign` makes one")]
    Other(String),
    /// Nobody who is trusted signed it.
    #[error("no trusted person signed the time: ask one of {0}")]
    Untrusted(String),
}

fn place(tenant: &Name, store: &Name) -> String {
    format!("{tenant}/{store}")
}

/// Signs a time for one store.
///
/// # Errors
/// [`TimeError::Note`] when the name cannot sign.
pub fn sign_time(
    tenant: &Name,
    store: &Name,
    at: Timestamp,
    name: &str,
    key: &SigningKey,
) -> Result<String, TimeError> {
    let text = format!("{HEAD}\n{}\n{}\n", place(tenant, store), rfc3339(at));
    Ok(sign(&text, name, key)?)
}

/// The time that a trusted person signed for this store.
///
/// # Errors
/// [`TimeError`] says what is wrong with the note.
pub fn verify_time(
    tenant: &Name,
    store: &Name,
    note: &str,
    trusted: &[Signer],
) -> Result<Timestamp, TimeError> {
    let other = || TimeError::Other(place(tenant, store));
    let note = Note::parse(note)?;
    let mut signed = false;
    for signer in trusted {
        match note.verify(signer) {
            Ok(_) => signed = true,
            Err(NoteError::NotSigned(_)) => (),
            Err(error) => return Err(error.into()),
        }
    }
    if !signed {
        let names: Vec<_> = trusted.iter().map(Signer::name).collect();
        return Err(TimeError::Untrusted(names.join(", ")));
    }
    let lines: Vec<&str> = note.text().lines().collect();
    let [HEAD, of, at] = lines.as_slice() else { return Err(other()) };
    let at: jiff::Timestamp = at.parse().map_err(|_| other())?;
    if *of != place(tenant, store) {
        return Err(other());
    }
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use palmgate_ledger::note::Algorithm;

    #[test]
    fn a_time_counts_for_its_store_and_by_a_trusted_hand_only() {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let (tenant, store, at) =
            (name("chain"), name("lyon"), Timestamp::from_millis(1_800_000_000_000));
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let signer =
            |name, key: &SigningKey| Signer::new(name, Algorithm::Ed25519, key.public()).unwrap();
        let note = sign_time(&tenant, &store, at, "martin", &key).unwrap();
        let trusted = [signer("martin", &key)];
        assert_eq!(verify_time(&tenant, &store, &note, &trusted), Ok(at));
        assert!(matches!(
            verify_time(&tenant, &name("paris"), &note, &trusted),
            Err(TimeError::Other(_))
        ));
        assert!(matches!(
            verify_time(&tenant, &store, &note, &[signer("petit", &other)]),
            Err(TimeError::Untrusted(_))
        ));
        let moved = note.replace("2027-01-15", "2037-01-15");
        assert_ne!(moved, note);
        assert!(matches!(verify_time(&tenant, &store, &moved, &trusted), Err(TimeError::Note(_))));
        assert!(verify_time(&tenant, &store, "", &trusted).is_err());
    }
}
