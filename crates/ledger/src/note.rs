//! Signed notes (C2SP signed-note): a text with signature lines that anybody can append to.

use data_encoding::{BASE64, HEXLOWER};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Bytes of a note at most.
pub const MAX_NOTE_BYTES: usize = 16 * 1024;
/// Signature lines of a note at most.
pub const MAX_SIGNATURES: usize = 32;

const DASH: &str = "\u{2014} ";

/// The note is malformed or not signed as expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note at all.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// No signature line carries the signer's name and key id.
    #[error("the note has no signature of {0}")]
    NotSigned(Signer),
    /// The signature line is there, and wrong.
    #[error("the note's signature of {0} does not fit its text: the text was changed")]
    BadSignature(Signer),
    /// Names are not empty and have neither space nor `+`.
    #[error("{0:?} cannot sign notes: a name is not empty and has neither spaces nor plus signs")]
    Name(String),
    /// Not a verifier key as C2SP writes it.
    #[error("not a verifier key: use name+key id in hex+key in base64")]
    Signer,
}

/// Different people who sign together what one alone may not change.
pub const FOUR_EYES: usize = 2;

/// Too few people signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FourEyesError {
    /// Not a note, or a signature that does not fit.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not enough of the trusted people.
    #[error("{found} of {FOUR_EYES} signatures: ask another of {trusted} to sign")]
    TooFew {
        /// How many signed.
        found: usize,
        /// Who could sign.
        trusted: String,
    },
    /// One key twice.
    #[error("two of the trusted keys are the same: four eyes need two people")]
    SameKey,
}

/// How the text was signed; a part of the key id, so that one key serves one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 over the text: what logs use.
    Ed25519,
    /// Ed25519 over the text and a time (C2SP tlog-cosignature): what witnesses use.
    Cosignature,
}

impl Algorithm {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// Whose signature to look for. As text it is a C2SP verifier key:
/// `name+key id in hex+base64(algorithm and key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    name: String,
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl Signer {
    /// The signer with this name and key.
    ///
    /// # Errors
    /// [`NoteError::Name`] when the name would not be told apart in a signature line.
    pub fn new(name: &str, algorithm: Algorithm, key: VerifyingKey) -> Result<Self, NoteError> {
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
        {
            return Err(NoteError::Name(name.chars().take(64).collect()));
        }
        Ok(Self { name: name.into(), algorithm, key })
    }

    /// The name in signature lines; a log's name is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// First 4 bytes of SHA-256 of name, line feed, algorithm and public key.
    pub fn key_id(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(&self.name)
            .chain_update([b'\n', self.algorithm.byte()])
            .chain_update(self.key.0)
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// The signature line for these signature bytes, line feed included.
    pub(crate) fn line(&self, signature: &[u8]) -> String {
        let bytes = [&self.key_id(), signature].concat();
        format!("{DASH}{} {}\n", self.name, BASE64.encode(&bytes))
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.algorithm.byte()], self.key.0.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.key_id()), BASE64.encode(&key))
    }
}

impl FromStr for Signer {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Signer);
        };
        let bytes = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Signer)?;
        let (byte, key) = bytes.split_first().ok_or(NoteError::Signer)?;
        let algorithm = [Algorithm::Ed25519, Algorithm::Cosignature]
            .into_iter()
            .find(|algorithm| algorithm.byte() == *byte)
            .ok_or(NoteError::Signer)?;
        let key = VerifyingKey(key.try_into().map_err(|_| NoteError::Signer)?);
        let signer = Self::new(name, algorithm, key)?;
        if HEXLOWER.encode(&signer.key_id()) == id { Ok(signer) } else { Err(NoteError::Signer) }
    }
}

/// A parsed note; nothing about its signatures is known yet.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Note<'a> {
    /// Takes a note apart into its text and its signature lines.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] when it is none.
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Malformed("it is too long"));
        }
        if note.contains(|c: char| c.is_ascii_control() && c != '\n') {
            return Err(NoteError::Malformed("it has a control character"));
        }
        let blank = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no blank line"))?;
        let (text, lines) = (&note[..=blank], &note[blank + 2..]);
        let lines = lines
            .strip_suffix('\n')
            .ok_or(NoteError::Malformed("it does not end with a signature line"))?;
        let signatures: Vec<_> = lines
            .split('\n')
            .map(|line| signature(line).ok_or(NoteError::Malformed("it has a bad signature line")))
            .collect::<Result<_, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        Ok(Self { text, signatures })
    }

    /// The text, with its last line feed. Worth nothing before a signature is checked.
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// Checks the Ed25519 signature of `signer` and returns the text.
    ///
    /// # Errors
    /// [`NoteError`] when it is absent or wrong; the signatures of others do not matter.
    pub fn verify(&self, signer: &Signer) -> Result<&'a str, NoteError> {
        let signature = self.signature_of(signer)?;
        let good = signer.key.verify_exact(self.text.as_bytes(), signature);
        good.map(|()| self.text).map_err(|_| NoteError::BadSignature(signer.clone()))
    }

    /// Checks that [`FOUR_EYES`] different trusted people signed; says who did. A wrong signature of
    /// one of them is refused even where enough others signed.
    ///
    /// # Errors
    /// [`FourEyesError`] says what is missing.
    pub fn verify_four_eyes(&self, trusted: &[Signer]) -> Result<Vec<String>, FourEyesError> {
        let repeated = trusted
            .iter()
            .enumerate()
            .any(|(at, signer)| trusted.iter().take(at).any(|other| other.key == signer.key));
        if repeated {
            return Err(FourEyesError::SameKey);
        }
        let mut names = Vec::new();
        for signer in trusted {
            match self.verify(signer) {
                Ok(_) => names.push(signer.name.clone()),
                Err(NoteError::NotSigned(_)) => (),
                Err(error) => return Err(error.into()),
            }
        }
        if names.len() < FOUR_EYES {
            let trusted: Vec<_> = trusted.iter().map(Signer::name).collect();
            return Err(FourEyesError::TooFew { found: names.len(), trusted: trusted.join(", ") });
        }
        Ok(names)
    }

    /// The bytes after the key id in the first line with the name and key id of `signer`.
    pub(crate) fn signature_of(&self, signer: &Signer) -> Result<&[u8], NoteError> {
        let id = signer.key_id();
        self.signatures
            .iter()
            .filter(|(name, _)| *name == signer.name)
            .find_map(|(_, bytes)| bytes.strip_prefix(&id))
            .ok_or_else(|| NoteError::NotSigned(signer.clone()))
    }
}

fn signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, bytes) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = BASE64.decode(bytes.as_bytes()).ok()?;
    let valid = !name.is_empty() && !name.contains(['+', ' ']) && bytes.len() > 4;
    valid.then_some((name, bytes))
}

/// Signs a text, which must end with a line feed, as a note with one signature.
///
/// # Errors
/// [`NoteError`] when the name or the text cannot stand in a note.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<String, NoteError> {
    let signer = Signer::new(name, Algorithm::Ed25519, key.public())?;
    let note = format!("{text}\n{}", signer.line(&key.sign_exact(text.as_bytes())));
    if Note::parse(&note)?.text == text {
        Ok(note)
    } else {
        Err(NoteError::Malformed("its text does not end with a line feed"))
    }
}

/// Adds a signature to a note over exactly this text; without a note it is the first.
///
/// # Errors
/// [`NoteError`] when the note has another text, or the name or the text cannot stand in one.
pub fn sign_too(
    note: Option<&str>,
    text: &str,
    name: &str,
    key: &SigningKey,
) -> Result<String, NoteError> {
    let signed = sign(text, name, key)?;
    let Some(note) = note else { return Ok(signed) };
    if Note::parse(note)?.text != text {
        return Err(NoteError::Malformed("it is over another text"));
    }
    let line = signed.get(text.len() + 1..).unwrap_or_default();
    let both = format!("{note}{line}");
    Note::parse(&both)?;
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the Go package `golang.org/x/mod/sumdb/note`, where the format began.
    const SIGNER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    const LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUg\
        YN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> SigningKey {
        let seed = BASE64.decode(SEED.as_bytes()).unwrap();
        let prefix = HEXLOWER.decode(b"302e020100300506032b657004220420").unwrap();
        SigningKey::from_pkcs8(&[&prefix, &seed[1..]].concat()).unwrap()
    }

    #[test]
    fn notes_are_those_of_the_go_implementation() {
        let signer: Signer = SIGNER.parse().unwrap();
        assert_eq!(signer.to_string(), SIGNER);
        let note = format!("{TEXT}\n{LINE}");
        assert_eq!(Note::parse(&note).unwrap().verify(&signer), Ok(TEXT));
        assert_eq!(sign(TEXT, "PeterNeumann", &key()).unwrap(), note);
    }

    #[test]
    fn the_key_of_the_go_checksum_database_has_its_published_id() {
        let text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert_eq!(text.parse::<Signer>().unwrap().to_string(), text);
        assert_eq!(text.replace("033de0ae", "033de0af").parse::<Signer>(), Err(NoteError::Signer));
    }

    #[test]
    fn signatures_of_others_do_not_matter_and_a_missing_one_is_said_to_be_missing() {
        let signer: Signer = SIGNER.parse().unwrap();
        let other = SigningKey::generate();
        let note = sign(TEXT, "someone", &other).unwrap();
        let missing = Note::parse(&note).unwrap().verify(&signer);
        assert_eq!(missing, Err(NoteError::NotSigned(signer.clone())));
        let both = format!("{note}{LINE}");
        assert_eq!(Note::parse(&both).unwrap().verify(&signer), Ok(TEXT));
        let changed = both.replace("cryptography", "cryptocurrency");
        let bad = Note::parse(&changed).unwrap().verify(&signer);
        assert_eq!(bad, Err(NoteError::BadSignature(signer)));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = format!("{TEXT}\n{LINE}");
        for bad in [
            String::new(),
            TEXT.into(),
            format!("{TEXT}\n"),
            good.trim_end().into(),
            good.replace("\u{2014}", "-"),
            good.replace("PeterNeumann x08", "PeterNeumann  x08"),
            good.replace("JnAM=", "JnAN="),
            good.replace("your", "yo\tur"),
            format!("{good}\n"),
            format!("{TEXT}\n{}", LINE.repeat(MAX_SIGNATURES + 1)),
            format!("{}\n{LINE}", "a\n".repeat(MAX_NOTE_BYTES / 2)),
        ] {
            assert!(matches!(Note::parse(&bad), Err(NoteError::Malformed(_))), "{bad}");
        }
        for name in ["", "two words", "a+b", "a\u{a0}b", "line\nfeed"] {
            assert_eq!(sign(TEXT, name, &key()), Err(NoteError::Name(name.into())));
        }
        assert!(sign("no line feed", "name", &key()).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_note_never_verifies(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let good = format!("{TEXT}\n{LINE}");
            let mut bytes = good.clone().into_bytes();
            *at.get_mut(&mut bytes) = byte;
            let signer: Signer = SIGNER.parse().unwrap();
            if let Ok(changed) = String::from_utf8(bytes)
                && changed != good
                && let Ok(note) = Note::parse(&changed)
            {
                prop_assert!(note.verify(&signer).is_err());
            }
        }
    }
}
