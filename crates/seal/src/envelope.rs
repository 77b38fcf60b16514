//! Single envelopes between gateway and cloud, and from the gateway to a person: HPKE (RFC 9180)
//! base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! Base mode says nothing about the sender: what is in an envelope is signed, or travels over
//! mutual TLS.

use crate::{labelled, random};
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{AeadCtxR, AeadCtxS, AesGcm256},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
};
use palmgate_protocol::{Name, Secret};

type Kem = X25519HkdfSha256;
pub(crate) type Sender = AeadCtxS<AesGcm256, HkdfSha256, Kem>;
pub(crate) type Receiver = AeadCtxR<AesGcm256, HkdfSha256, Kem>;

/// Bytes of an encapsulated key.
pub(crate) const ENCAPSULATED_BYTES: usize = 32;
/// What an envelope adds to what is in it: the encapsulated key and the tag (RFC 9180, 7.1 and 7.3).
pub const OVERHEAD_BYTES: usize = ENCAPSULATED_BYTES + 16;

/// A private X25519 key that opens envelopes.
///
/// ```compile_fail,E0277
/// println!("{:?}", palmgate_seal::envelope::OpeningKey::generate());
/// ```
/// ```compile_fail,E0599
/// let key = palmgate_seal::envelope::OpeningKey::generate();
/// let copy = key.clone();
/// ```
pub struct OpeningKey(<Kem as hpke::Kem>::PrivateKey);

/// A public X25519 key that envelopes are sealed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealingKey(pub [u8; 32]);

/// What an envelope is for. An envelope made for one use does not open in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A template shard, cloud to gateway.
    Shard,
    /// A protected probe, gateway to matcher.
    Probe,
    /// An enrolment, gateway to matcher.
    Registration,
    /// The answer to a probe or a claim, cloud to gateway.
    Resolution,
    /// A person's own templates, gateway to the person (GDPR Art. 20).
    Portability,
}

impl Label {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Probe => "probe",
            Self::Registration => "registration",
            Self::Resolution => "resolution",
            Self::Portability => "portability",
        }
    }

    fn info(self, tenant: &Name) -> Vec<u8> {
        labelled(self.as_str(), &[tenant.as_str().as_bytes()])
    }
}

/// Why an envelope was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The recipient's public key, or a stored private key, is unusable.
    #[error("the key is not a usable X25519 key")]
    Key,
    /// The sender's envelope is for somebody or something else, or was changed.
    #[error("not sealed to this key, for this use, tenant and context")]
    Open,
    /// The sender's padding is not ISO/IEC 7816-4.
    #[error("the content of the envelope is not padded as agreed")]
    Padding,
}

impl OpeningKey {
    /// A new random key.
    pub fn generate() -> Self {
        let bytes = Secret::new(random::bytes());
        Self::from_bytes(bytes.expose()).expect("any 32 bytes make an X25519 key")
    }

    /// Reads what [`OpeningKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`EnvelopeError::Key`] when they are no key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, EnvelopeError> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes).map(Self).map_err(|_| EnvelopeError::Key)
    }

    /// The key's bytes, to be kept sealed.
    pub fn to_bytes(&self) -> Secret<[u8; 32]> {
        let mut bytes = Secret::new([0; 32]);
        self.0.write_exact(bytes.expose_mut());
        bytes
    }

    /// The key that others seal to.
    pub fn public(&self) -> SealingKey {
        SealingKey(Kem::sk_to_pk(&self.0).to_bytes().into())
    }
}

/// Starts an HPKE context to `to`: the encapsulated key and the sender's side.
pub(crate) fn sender(
    to: &SealingKey,
    label: Label,
    tenant: &Name,
) -> Result<([u8; ENCAPSULATED_BYTES], Sender), EnvelopeError> {
    let to = <Kem as hpke::Kem>::PublicKey::from_bytes(&to.0).map_err(|_| EnvelopeError::Key)?;
    let (encapsulated, context) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, Kem>(&OpModeS::Base, &to, &label.info(tenant))
            .map_err(|_| EnvelopeError::Key)?;
    Ok((encapsulated.to_bytes().into(), context))
}

/// The receiver's side of [`sender`].
pub(crate) fn receiver(
    key: &OpeningKey,
    label: Label,
    tenant: &Name,
    encapsulated: &[u8],
) -> Result<Receiver, EnvelopeError> {
    let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)
        .map_err(|_| EnvelopeError::Open)?;
    hpke::setup_receiver(&OpModeR::Base, &key.0, &encapsulated, &label.info(tenant))
        .map_err(|_| EnvelopeError::Open)
}

/// Seals one message: encapsulated key, then ciphertext.
///
/// # Errors
/// [`EnvelopeError::Key`] when the recipient's key is unusable.
pub fn seal(
    to: &SealingKey,
    label: Label,
    tenant: &Name,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    let (encapsulated, mut context) = sender(to, label, tenant)?;
    let ciphertext = context.seal(plaintext, aad).map_err(|_| EnvelopeError::Key)?;
    Ok([encapsulated.as_slice(), &ciphertext].concat())
}

/// Opens what [`seal`] made with the same label, tenant and additional data.
///
/// # Errors
/// [`EnvelopeError::Open`] for anything else.
pub fn open(
    key: &OpeningKey,
    label: Label,
    tenant: &Name,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, EnvelopeError> {
    let (encapsulated, ciphertext) =
        sealed.split_at_checked(ENCAPSULATED_BYTES).ok_or(EnvelopeError::Open)?;
    let mut context = receiver(key, label, tenant, encapsulated)?;
    context.open(ciphertext, aad).map(Secret::new).map_err(|_| EnvelopeError::Open)
}

/// Pads to a multiple of `to_multiple_of` bytes (ISO/IEC 7816-4: one byte 0x80, then zeros), so
/// that the size of an envelope says little. At least one byte is added.
pub fn pad(plaintext: &[u8], to_multiple_of: usize) -> Secret<Vec<u8>> {
    let length = (plaintext.len() + 1).next_multiple_of(to_multiple_of.max(1));
    let mut padded = Vec::with_capacity(length);
    padded.extend_from_slice(plaintext);
    padded.push(0x80);
    padded.resize(length, 0);
    Secret::new(padded)
}

/// What [`pad`] was given.
///
/// # Errors
/// [`EnvelopeError::Padding`] when there is no such padding.
pub fn unpad(padded: &[u8]) -> Result<&[u8], EnvelopeError> {
    let end = padded.iter().rposition(|&byte| byte != 0).ok_or(EnvelopeError::Padding)?;
    if padded[end] == 0x80 { Ok(&padded[..end]) } else { Err(EnvelopeError::Padding) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn an_envelope_opens_for_its_key_use_tenant_and_context_only() {
        let (key, tenant) = (OpeningKey::generate(), name("acme"));
        let sealed = seal(&key.public(), Label::Probe, &tenant, b"aad", b"probe").unwrap();
        let opened = open(&key, Label::Probe, &tenant, b"aad", &sealed);
        assert_eq!(opened.unwrap().expose(), b"probe");
        let wrong = [
            open(&OpeningKey::generate(), Label::Probe, &tenant, b"aad", &sealed),
            open(&key, Label::Shard, &tenant, b"aad", &sealed),
            open(&key, Label::Resolution, &tenant, b"aad", &sealed),
            open(&key, Label::Registration, &tenant, b"aad", &sealed),
            open(&key, Label::Probe, &name("acmee"), b"aad", &sealed),
            open(&key, Label::Probe, &tenant, b"", &sealed),
        ];
        assert!(wrong.iter().all(|opened| matches!(opened, Err(EnvelopeError::Open))));
    }

    #[test]
    fn every_changed_bit_and_every_cut_of_an_envelope_is_noticed() {
        let (key, tenant) = (OpeningKey::generate(), name("acme"));
        let sealed = seal(&key.public(), Label::Probe, &tenant, b"", b"p").unwrap();
        for bit in 0..sealed.len() * 8 {
            // RFC 7748, 5: the top bit of an X25519 public key is ignored, but HPKE binds it.
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, Label::Probe, &tenant, b"", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&key, Label::Probe, &tenant, b"", &sealed[..length]).is_err());
        }
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let tenant = name("acme");
        let refused = seal(&SealingKey([0; 32]), Label::Probe, &tenant, b"", b"p");
        assert_eq!(refused, Err(EnvelopeError::Key));
    }

    #[test]
    fn a_key_survives_its_bytes() {
        let key = OpeningKey::generate();
        let again = OpeningKey::from_bytes(key.to_bytes().expose()).unwrap();
        assert!(key.public() == again.public());
    }

    #[test]
    fn padding_hides_the_length_and_comes_off_again() {
        for length in 0..70 {
            let plaintext = vec![0; length];
            let padded = pad(&plaintext, 32);
            assert_eq!(padded.expose().len(), (length / 32 + 1) * 32);
            assert_eq!(unpad(padded.expose()).unwrap(), plaintext);
        }
        assert_eq!(unpad(pad(&[0x80, 0], 4).expose()).unwrap(), [0x80, 0]);
        for bad in [&[][..], &[0, 0], &[1, 0], &[0x80, 1]] {
            assert_eq!(unpad(bad), Err(EnvelopeError::Padding));
        }
    }
}
