//! Proof that a phone or card is there: its key signs one act of one terminal, so that the signature
//! is worth nothing for another payment, terminal or moment (RTS on SCA Art. 4(1), 5, 7).

use crate::{
    labelled,
    sign::{BadSignature, SigningKey, VerifyingKey},
};
use palmgate_protocol::{
    CaptureId, Timestamp, encode,
    terminal::{Intent, Possession},
};

const LABEL: &str = "possession";

/// What the phone or card is asked to sign: the act's id, fresh from the terminal, its moment, and
/// what is wanted, amount, payee and the till's nonce included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(Vec<u8>);

impl Challenge {
    /// The challenge of an act.
    pub fn new(capture: CaptureId, at: Timestamp, intent: &Intent) -> Self {
        let at = at.as_millis().to_be_bytes();
        Self(labelled(LABEL, &[capture.as_bytes(), &at, &encode(intent)]))
    }

    /// The bytes to sign: what goes to the phone or card.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Signs it, as a phone or card does.
    pub fn sign(&self, key: &SigningKey) -> Possession {
        Possession { signature: key.sign_exact(&self.0) }
    }

    /// Checks what the phone or card answered.
    ///
    /// # Errors
    /// [`BadSignature`] for another key or act.
    pub fn verify(&self, key: &VerifyingKey, proof: &Possession) -> Result<(), BadSignature> {
        key.verify_exact(&self.0, &proof.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::terminal::Payment;

    #[test]
    fn a_proof_is_for_its_act_alone() {
        let key = SigningKey::generate();
        let pay = |minor_units, nonce| {
            let (currency, payee) = ("EUR".into(), "till".into());
            Intent::Pay(Payment { minor_units, currency, payee, nonce: [nonce; 16] })
        };
        let (capture, at) = (CaptureId::from_random([1; 16]), Timestamp::from_millis(1_000));
        let proof = Challenge::new(capture, at, &pay(100, 1)).sign(&key);
        let holds = |challenge: Challenge, key: &SigningKey| {
            challenge.verify(&key.public(), &proof).is_ok()
        };
        assert!(holds(Challenge::new(capture, at, &pay(100, 1)), &key));
        let other = CaptureId::from_random([2; 16]);
        let later = Timestamp::from_millis(1_001);
        assert!(!holds(Challenge::new(other, at, &pay(100, 1)), &key), "another act");
        assert!(!holds(Challenge::new(capture, later, &pay(100, 1)), &key), "another moment");
        assert!(!holds(Challenge::new(capture, at, &pay(101, 1)), &key), "another amount");
        assert!(!holds(Challenge::new(capture, at, &pay(100, 2)), &key), "another nonce");
        assert!(!holds(Challenge::new(capture, at, &pay(100, 1)), &SigningKey::generate()));
    }
}
