//! Verdicts of sensors: a reader that detects presentation attacks by itself (ISO/IEC 30107-3) signs
//! what it found, over a challenge of the gateway and the pictures that it took. An application that
//! feeds the terminal other pictures, or those of another day, has no verdict about them.

use crate::{
    sha256,
    sign::{SigningKey, VerifyingKey},
    token::{self, TokenError},
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    Biometric, ScanChallenge, Timestamp, decode, encode, limits,
    limits::{MAX_CAPTURES_PER_ENROLMENT, MAX_FRAMES_PER_CAPTURE, MAX_VERDICT_BYTES},
};

const CONTENT_TYPE: &str = "application/vnd.palmgate.sensor-verdict+cbor";

/// SHA-256 of one frame's file.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct PictureHash(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

impl PictureHash {
    /// Of the PNG or JPEG file in a frame, byte for byte.
    pub fn of(picture: &[u8]) -> Self {
        Self(sha256(picture))
    }
}

/// What a sensor says of the pictures that it took.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Verdict {
    /// The gateway's challenge for the act.
    #[n(0)]
    pub challenge: ScanChallenge,
    /// The pictures, all of them; their order means nothing.
    #[n(1)]
    pub pictures: Vec<PictureHash>,
    /// Whether the sensor takes what it saw for a living hand.
    #[n(2)]
    pub living: bool,
    /// How sure it is of that, from 0, an attack, to 100. Sensors count differently, so that nothing
    /// is decided by it.
    #[n(3)]
    pub score: u8,
    /// Maker and model.
    #[n(4)]
    pub model: String,
    /// When, by the sensor's clock.
    #[n(5)]
    pub at: Timestamp,
}

/// Why a verdict does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// Not signed by a sensor of this terminal.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// About another act, or about none that the gateway gave a challenge for.
    #[error("the verdict is about another challenge")]
    Challenge,
    /// A picture was not taken by the sensor, or not for this verdict.
    #[error("the verdict is not about these pictures")]
    Pictures,
    /// Signed too long ago, or in the future.
    #[error("the verdict is not of now")]
    Stale,
}

impl VerdictError {
    /// The label used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token(TokenError::TooLong | TokenError::Malformed) => "malformed",
            Self::Token(TokenError::UnknownIssuer) => "unknown-sensor",
            Self::Token(TokenError::Forged) => "forged",
            Self::Challenge => "other-challenge",
            Self::Pictures => "other-pictures",
            Self::Stale => "stale",
        }
    }
}

/// Signs a verdict, as a sensor does.
///
/// ```
/// use palmgate_protocol::{ScanChallenge, Timestamp};
/// use palmgate_seal::{sensor::{self, PictureHash, Verdict}, sign::SigningKey};
///
/// let verdict = Verdict {
///     challenge: ScanChallenge::from_random([7; 16]),
///     pictures: vec![PictureHash::of(b"a PNG file")],
///     living: true,
///     score: 98,
///     model: "example".into(),
///     at: Timestamp::from_millis(1_800_000_000_000),
/// };
/// let signed = sensor::issue(&verdict, &SigningKey::generate());
/// ```
pub fn issue(verdict: &Verdict, key: &SigningKey) -> Biometric<Vec<u8>> {
    Biometric::new(token::issue(CONTENT_TYPE, encode(verdict), key).expose().clone())
}

/// What a verdict has to be about.
pub struct About<'a> {
    /// The challenge that the request named and that was good, if any.
    pub challenge: Option<ScanChallenge>,
    /// The pictures in the request.
    pub pictures: &'a [PictureHash],
    /// The gateway's time.
    pub now: Timestamp,
}

impl About<'_> {
    /// Reads a verdict that one of `sensors` signed about exactly this act.
    ///
    /// # Errors
    /// [`VerdictError`] says why it does not count.
    pub fn read(&self, bytes: &[u8], sensors: &[VerifyingKey]) -> Result<Verdict, VerdictError> {
        let payload = token::read(CONTENT_TYPE, bytes, MAX_VERDICT_BYTES, sensors)?;
        let verdict: Verdict = decode(payload.expose()).map_err(|_| TokenError::Malformed)?;
        let most = MAX_CAPTURES_PER_ENROLMENT * MAX_FRAMES_PER_CAPTURE;
        if verdict.pictures.len() > most || verdict.score > 100 {
            return Err(TokenError::Malformed.into());
        }
        if self.challenge != Some(verdict.challenge) {
            return Err(VerdictError::Challenge);
        }
        let covered = |picture| verdict.pictures.contains(picture);
        if self.pictures.is_empty() || !self.pictures.iter().all(covered) {
            return Err(VerdictError::Pictures);
        }
        if verdict.at.distance(self.now) > limits::MAX_CLOCK_SKEW {
            return Err(VerdictError::Stale);
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cddl_cat::validate_cbor_bytes;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn challenge(byte: u8) -> ScanChallenge {
        ScanChallenge::from_random([byte; 16])
    }

    fn verdict() -> Verdict {
        Verdict {
            challenge: challenge(1),
            pictures: vec![PictureHash::of(b"visible"), PictureHash::of(b"infrared")],
            living: true,
            score: 97,
            model: "maker model".into(),
            at: NOW,
        }
    }

    fn read(
        verdict: &Verdict,
        (key, sensors): (&SigningKey, &[VerifyingKey]),
        about: &About<'_>,
    ) -> Result<bool, VerdictError> {
        about.read(issue(verdict, key).expose(), sensors).map(|verdict| verdict.living)
    }

    #[test]
    fn a_verdict_counts_for_its_act_its_pictures_and_its_sensor_alone() {
        let (key, foreign) = (SigningKey::generate(), SigningKey::generate());
        let sensors = [foreign.public(), key.public()];
        let by = (&key, sensors.as_slice());
        let pictures = [PictureHash::of(b"infrared"), PictureHash::of(b"visible")];
        let about = |pictures| About { challenge: Some(challenge(1)), pictures, now: NOW };
        assert_eq!(read(&verdict(), by, &about(&pictures)), Ok(true));
        assert_eq!(read(&verdict(), by, &about(&pictures[..1])), Ok(true), "fewer were sent");
        let attack = Verdict { living: false, ..verdict() };
        assert_eq!(read(&attack, by, &about(&pictures)), Ok(false));
        let unknown = read(&verdict(), (&key, &sensors[..1]), &about(&pictures));
        assert_eq!(unknown, Err(TokenError::UnknownIssuer.into()));

        let other = [pictures[0], PictureHash::of(b"another")];
        for wrong in [other.as_slice(), &[]] {
            assert_eq!(read(&verdict(), by, &about(wrong)), Err(VerdictError::Pictures));
        }
        for wrong in [None, Some(challenge(2))] {
            let about = About { challenge: wrong, ..about(&pictures) };
            assert_eq!(read(&verdict(), by, &about), Err(VerdictError::Challenge));
        }
        for off in [-60_001, 60_001] {
            let at = Timestamp::from_millis(NOW.as_millis() + off);
            let about = About { now: at, ..about(&pictures) };
            assert_eq!(read(&verdict(), by, &about), Err(VerdictError::Stale));
        }
    }

    /// What a sensor's maker reads: the payload is held to the rule, not only the message around it.
    #[test]
    fn a_signed_payload_follows_the_cddl_and_one_of_a_later_version_is_read() {
        const CDDL: &str = include_str!("../../protocol/wire.cddl");
        let key = SigningKey::generate();
        let signed = issue(&verdict(), &key);
        let payload = |signed: &[u8]| {
            token::read(CONTENT_TYPE, signed, MAX_VERDICT_BYTES, &[key.public()]).unwrap()
        };
        let payload = payload(signed.expose());
        let follows = |bytes: &[u8]| validate_cbor_bytes("verdict-payload", CDDL, bytes).is_ok();
        assert!(follows(payload.expose()));

        // A map of six entries becomes one of seven.
        assert_eq!(payload.expose()[0], 0xa6);
        let later = [&[0xa7], &payload.expose()[1..], b"\x06\x63new"].concat();
        assert!(follows(&later));
        let pictures = [PictureHash::of(b"visible")];
        let about = About { challenge: Some(challenge(1)), pictures: &pictures, now: NOW };
        let signed = token::issue(CONTENT_TYPE, later, &key);
        assert!(about.read(signed.expose(), &[key.public()]).is_ok_and(|verdict| verdict.living));

        for wrong in [
            encode(&Verdict { score: 101, ..verdict() }),
            [&[0xa5], &payload.expose()[1..payload.expose().len() - 10]].concat(),
            b"\x80".to_vec(),
        ] {
            assert!(!follows(&wrong));
        }
    }

    #[test]
    fn what_is_changed_by_a_bit_is_no_verdict() {
        let key = SigningKey::generate();
        let pictures = [PictureHash::of(b"visible")];
        let about = About { challenge: Some(challenge(1)), pictures: &pictures, now: NOW };
        let signed = issue(&verdict(), &key);
        for bit in 0..signed.expose().len() * 8 {
            let mut changed = signed.expose().clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(about.read(&changed, &[key.public()]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_verdict_about_a_whole_enrolment_fits() {
        let key = SigningKey::generate();
        let pictures: Vec<_> = (0..24_u8).map(|number| PictureHash::of(&[number])).collect();
        let about = About { challenge: Some(challenge(1)), pictures: &pictures, now: NOW };
        let model = "m".repeat(limits::MAX_TEXT_BYTES);
        let whole = Verdict { pictures: pictures.clone(), model: model.clone(), ..verdict() };
        let signed = issue(&whole, &key);
        assert!(signed.expose().len() <= MAX_VERDICT_BYTES, "{} bytes", signed.expose().len());
        assert!(about.read(signed.expose(), &[key.public()]).is_ok());
        let more = [pictures.as_slice(), &[PictureHash::of(b"more")]].concat();
        let signed = issue(&Verdict { pictures: more, model, ..verdict() }, &key);
        assert!(about.read(signed.expose(), &[key.public()]).is_err());
    }
}
