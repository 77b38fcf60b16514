//! Records at rest: AES-256-GCM with a random nonce, bound to tenant, purpose, record and column.

use crate::{labelled, random};
use palmgate_protocol::{Name, Purpose, Secret};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Bytes that sealing adds: nonce and tag.
pub const SEAL_BYTES: usize = NONCE_LEN + 16;

/// An AES-256-GCM key. Nonces are drawn at random: seal less than 2³² records with one key
/// (NIST SP 800-38D, 8.3).
///
/// ```compile_fail,E0277
/// println!("{:?}", palmgate_seal::aead::Key::generate());
/// ```
/// ```compile_fail,E0277
/// println!("{}", palmgate_seal::aead::Key::generate());
/// ```
/// ```compile_fail,E0599
/// let key = palmgate_seal::aead::Key::generate();
/// let copy = key.clone();
/// ```
pub struct Key(Secret<[u8; 32]>);

/// The bytes were not sealed with this key for this place, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sealed with this key for this place")]
pub struct OpenError;

impl Key {
    /// A new random key.
    pub fn generate() -> Self {
        Self::from_bytes(random::bytes())
    }

    /// Takes the bytes of a key in; the caller keeps no copy.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The key's bytes, to be sealed under another key.
    pub const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// A second copy, wiped on its own. Deliberately not `Clone`.
    #[must_use]
    pub const fn duplicate(&self) -> Self {
        Self::from_bytes(*self.0.expose())
    }

    /// Seals `plaintext` for the place that `aad` names: nonce, ciphertext, tag.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_BYTES);
        self.seal_onto(&mut sealed, aad, plaintext);
        sealed
    }

    /// Appends what [`Key::seal`] gives, which is longer than the plaintext by [`SEAL_BYTES`].
    pub fn seal_onto(&self, to: &mut Vec<u8>, aad: &[u8], plaintext: &[u8]) {
        let nonce = random::bytes::<NONCE_LEN>();
        to.reserve(plaintext.len() + SEAL_BYTES);
        to.extend_from_slice(&nonce);
        let begin = to.len();
        to.extend_from_slice(plaintext);
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut to[begin..],
            )
            .expect("a plaintext in memory is shorter than the limit of AES-GCM");
        to.extend_from_slice(tag.as_ref());
    }

    /// Opens what [`Key::seal`] made for the same place.
    ///
    /// # Errors
    /// [`OpenError`] for another key, another place, or a single changed bit.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, OpenError> {
        let (nonce, ciphertext) = sealed.split_first_chunk().ok_or(OpenError)?;
        let mut buffer = Secret::new(ciphertext.to_vec());
        let length = self
            .cipher()
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(aad),
                buffer.expose_mut(),
            )
            .map_err(|_| OpenError)?
            .len();
        buffer.expose_mut().truncate(length);
        Ok(buffer)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.0.expose());
        LessSafeKey::new(key.expect("an AES-256 key has 32 bytes"))
    }
}

/// Where a sealed record belongs. A record moved to any other place does not open.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Whose data it is.
    pub tenant: &'a Name,
    /// For which purpose, when it is kept for one only.
    pub purpose: Option<Purpose>,
    /// Which record.
    pub record: &'a [u8],
    /// Which part of the record.
    pub column: &'a str,
    /// Layout version of the plaintext.
    pub version: u16,
}

impl Place<'_> {
    /// The additional data for [`Key::seal`] and [`Key::open`].
    pub fn aad(&self) -> Vec<u8> {
        labelled(
            "place",
            &[
                self.tenant.as_str().as_bytes(),
                self.purpose.map_or("", Purpose::as_str).as_bytes(),
                self.record,
                self.column.as_bytes(),
                &self.version.to_be_bytes(),
            ],
        )
    }
}

impl Key {
    /// A key for another use, derived from a secret with HKDF-SHA256 (RFC 5869). The secret tells
    /// every key derived from it: never derive what must be forgotten on its own.
    pub fn derive(secret: &Secret<[u8; 32]>, label: &str) -> Self {
        let salt = Salt::new(HKDF_SHA256, &[]);
        let mut key = [0; 32];
        salt.extract(secret.expose())
            .expand(&[&labelled(label, &[])], HKDF_SHA256)
            .and_then(|material| material.fill(&mut key))
            .expect("32 bytes are the length of the hash");
        Self::from_bytes(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_in_its_place() {
        let key = Key::generate();
        let sealed = key.seal(b"place", b"palm");
        assert_eq!(key.open(b"place", &sealed).unwrap().expose(), b"palm");
        assert_eq!(key.duplicate().open(b"place", &sealed).unwrap().expose(), b"palm");
        assert_ne!(sealed, key.seal(b"place", b"palm"), "nonces repeat");
        assert_eq!(key.open(b"", &key.seal(b"", b"")).unwrap().expose(), b"");
    }

    #[test]
    fn another_key_or_place_does_not_open_it() {
        let (key, sealed) = (Key::generate(), |key: &Key| key.seal(b"place", b"palm"));
        assert!(Key::generate().open(b"place", &sealed(&key)).is_err());
        assert!(key.open(b"other", &sealed(&key)).is_err());
        assert!(key.open(b"", &sealed(&key)).is_err());
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let key = Key::generate();
        let sealed = key.seal(b"place", b"palm");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(b"place", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(b"place", &sealed[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn no_two_places_share_additional_data() {
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "ab".parse().unwrap());
        let place = Place { tenant: &a, purpose: None, record: b"bc", column: "d", version: 1 };
        let places = [
            place,
            Place { tenant: &b, record: b"c", ..place },
            Place { purpose: Some(Purpose::Pay), ..place },
            Place { purpose: Some(Purpose::Staff), ..place },
            Place { record: b"b", column: "cd", ..place },
            Place { column: "e", ..place },
            Place { version: 2, ..place },
        ];
        let distinct: std::collections::HashSet<_> = places.iter().map(Place::aad).collect();
        assert_eq!(distinct.len(), places.len());
    }
}
