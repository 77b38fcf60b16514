//! Ed25519 signatures (RFC 8032) with labels, so that a signature made for one use is worth
//! nothing in another.

use crate::{PREFIX, sha256};
use palmgate_protocol::Secret;
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

/// An Ed25519 private key.
///
/// ```compile_fail,E0277
/// println!("{:?}", palmgate_seal::sign::SigningKey::generate());
/// ```
/// ```compile_fail,E0599
/// let key = palmgate_seal::sign::SigningKey::generate();
/// let copy = key.clone();
/// ```
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Secret<Vec<u8>>,
}

/// The bytes are no Ed25519 private key in PKCS#8 form (RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PKCS#8 form")]
pub struct KeyError;

/// The signature was not made by this key over this message under this label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the message, its label or the key")]
pub struct BadSignature;

impl SigningKey {
    /// A new random key.
    pub fn generate() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("the operating system provides randomness");
        Self::from_pkcs8(document.as_ref()).expect("a key just made is well-formed")
    }

    /// Reads what [`SigningKey::pkcs8`] wrote, or any Ed25519 key in PKCS#8 form.
    ///
    /// # Errors
    /// [`KeyError`] when it is anything else.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| KeyError)?;
        Ok(Self { pair, pkcs8: Secret::new(bytes.to_vec()) })
    }

    /// The key in PKCS#8 form, to be kept sealed.
    pub fn pkcs8(&self) -> Secret<Vec<u8>> {
        Secret::new(self.pkcs8.expose().clone())
    }

    /// The key that checks this key's signatures.
    pub fn public(&self) -> VerifyingKey {
        let bytes = self.pair.public_key().as_ref();
        VerifyingKey(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs `message` under `label`: over `palmgate/1 `, the label, a zero byte and the message.
    pub fn sign(&self, label: &str, message: &[u8]) -> [u8; 64] {
        self.sign_exact(&signed(label, message))
    }

    /// Signs exactly `message`, for formats that define their own bytes (COSE, C2SP notes).
    pub fn sign_exact(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// Checks what [`SigningKey::sign`] made.
    ///
    /// # Errors
    /// [`BadSignature`] for another key, label or message.
    pub fn verify(
        &self,
        label: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        self.verify_exact(&signed(label, message), signature)
    }

    /// Checks what [`SigningKey::sign_exact`] made.
    ///
    /// # Errors
    /// [`BadSignature`] for another key or message.
    pub fn verify_exact(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(message, signature).map_err(|_| BadSignature)
    }

    /// First 8 bytes of SHA-256 of the key: names it in a token, proves nothing.
    pub fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&sha256(&self.0)[..8]);
        id
    }
}

fn signed(label: &str, message: &[u8]) -> Vec<u8> {
    [PREFIX, label.as_bytes(), &[0], message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_label_and_message_only() {
        let key = SigningKey::generate();
        let signature = key.sign("shard", b"message");
        let public = key.public();
        assert!(public.verify("shard", b"message", &signature).is_ok());
        assert!(public.verify("claim", b"message", &signature).is_err());
        assert!(public.verify("shard", b"massage", &signature).is_err());
        assert!(public.verify_exact(b"message", &signature).is_err());
        assert!(SigningKey::generate().public().verify("shard", b"message", &signature).is_err());
        for bit in 0..signature.len() * 8 {
            let mut changed = signature;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(public.verify("shard", b"message", &changed).is_err(), "bit {bit}");
        }
        assert!(public.verify("shard", b"message", &signature[..63]).is_err());
    }

    #[test]
    fn a_key_survives_its_pkcs8_form() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pkcs8(key.pkcs8().expose()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(key.sign("a", b"b"), again.sign("a", b"b"));
        assert!(SigningKey::from_pkcs8(b"").is_err());
        assert!(SigningKey::from_pkcs8(&[0; 83]).is_err());
    }

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn the_published_vector_verifies() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = hex(concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ));
        let key = VerifyingKey(key.try_into().unwrap());
        assert!(key.verify_exact(&[0x72], &signature).is_ok());
        assert!(key.verify_exact(&[0x73], &signature).is_err());
    }
}
