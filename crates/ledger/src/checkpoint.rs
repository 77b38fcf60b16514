use crate::{
    Hash,
    note::{self, Algorithm, Note, NoteError, Signer},
};
use data_encoding::BASE64;
use palmgate_protocol::Name;
use palmgate_seal::sign::{SigningKey, VerifyingKey};

/// The origin of a store's ledger: names it among all logs.
pub fn origin(tenant: &Name, store: &Name) -> String {
    format!("palmgate/{tenant}/{store}")
}

/// The size and root of a log at one moment (C2SP tlog-checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
}

/// The text is no checkpoint of the log, or not signed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The lines of the text.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Signed, but for another log.
    #[error("the checkpoint is of the log {found:?}, not of {expected:?}")]
    Origin {
        /// The log asked for.
        expected: String,
        /// The log that the checkpoint names.
        found: String,
    },
}

impl Checkpoint {
    /// The checkpoint as a note that the log signs under its origin.
    ///
    /// # Errors
    /// [`NoteError`] when the origin cannot stand in a note.
    pub fn sign(&self, key: &SigningKey) -> Result<String, NoteError> {
        note::sign(&self.text(), &self.origin, key)
    }

    /// Reads a note and checks the log's signature, whatever the log is called.
    ///
    /// # Errors
    /// [`CheckpointError`] says what is wrong with it.
    pub fn verify(note: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::read(note.text())?;
        note.verify(&Signer::new(&checkpoint.origin, Algorithm::Ed25519, *key)?)?;
        Ok(checkpoint)
    }

    /// [`Checkpoint::verify`] for one log.
    ///
    /// # Errors
    /// [`CheckpointError`] says what is wrong with it.
    pub fn verify_of(
        origin: &str,
        note: &str,
        key: &VerifyingKey,
    ) -> Result<Self, CheckpointError> {
        let checkpoint = Self::verify(note, key)?;
        if checkpoint.origin == origin {
            return Ok(checkpoint);
        }
        Err(CheckpointError::Origin { expected: origin.into(), found: checkpoint.origin })
    }

    pub(crate) fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root))
    }

    /// Lines after the third are extensions, which mean nothing here.
    fn read(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed("fewer than three lines"));
        };
        let canonical = |size: &u64| size.to_string();
        let parsed = size.parse().ok().filter(|number| canonical(number) == size);
        let size = parsed.ok_or(CheckpointError::Malformed("its size is no number"))?;
        let root = BASE64.decode(root.as_bytes()).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(CheckpointError::Malformed("its root is no hash in base64"))?;
        Ok(Self { origin: origin.into(), size, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::empty_root;

    #[test]
    fn a_checkpoint_is_three_lines_signed_by_its_origin() {
        let key = SigningKey::generate();
        let checkpoint =
            Checkpoint { origin: "palmgate/shop/lyon".into(), size: 0, root: empty_root() };
        let note = checkpoint.sign(&key).unwrap();
        let expected = "palmgate/shop/lyon\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} palmgate/shop/lyon ";
        assert!(note.starts_with(expected), "{note}");
        assert_eq!(Checkpoint::verify(&note, &key.public()), Ok(checkpoint.clone()));
        assert_eq!(
            Checkpoint::verify_of("palmgate/shop/lyon", &note, &key.public()),
            Ok(checkpoint)
        );
        let other = Checkpoint::verify_of("palmgate/shop/paris", &note, &key.public());
        assert!(matches!(other, Err(CheckpointError::Origin { .. })));
        let stranger = Checkpoint::verify(&note, &SigningKey::generate().public());
        assert!(matches!(stranger, Err(CheckpointError::Note(NoteError::NotSigned(_)))));
    }

    #[test]
    fn a_signed_text_that_is_no_checkpoint_is_refused() {
        let key = SigningKey::generate();
        let root = BASE64.encode(&empty_root());
        for text in [
            "log\n".into(),
            format!("log\n01\n{root}\n"),
            format!("log\n-1\n{root}\n"),
            "log\n1\nAA==\n".into(),
        ] {
            let note = note::sign(&text, "log", &key).unwrap();
            let read = Checkpoint::verify(&note, &key.public());
            assert!(matches!(read, Err(CheckpointError::Malformed(_))), "{text}");
        }
        let extended = note::sign(&format!("log\n7\n{root}\nextension\n"), "log", &key).unwrap();
        assert_eq!(Checkpoint::verify(&extended, &key.public()).unwrap().size, 7);
    }
}
