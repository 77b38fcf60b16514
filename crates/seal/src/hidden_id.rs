//! Ids that must be recognised and not read: keyed hashes, HMAC-SHA-256 (RFC 2104).

use palmgate_protocol::{ClaimHandle, MemberId, Purpose, Timestamp};
use ring::hmac;

/// Hides ids under one key. Whoever has the key can test a guess and nothing else; ids are random,
/// so that there is nothing to guess from.
pub struct IdHasher(hmac::Key);

impl IdHasher {
    /// A hasher under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The hash of `0x01` and the member's bytes.
    pub fn member(&self, member: &MemberId) -> [u8; 32] {
        self.hash(1, member.as_bytes())
    }

    /// The hash of `0x02` and the claim's bytes.
    pub fn claim(&self, claim: &ClaimHandle) -> [u8; 32] {
        self.hash(2, claim.as_bytes())
    }

    /// The hash of `0x03`, the purpose's number, the moment (8 bytes, big endian) and zeros to 16
    /// bytes: names one consent of the person whose secret the key is.
    pub fn consent(&self, purpose: Purpose, given_at: Timestamp) -> [u8; 32] {
        let mut id = [0; 16];
        id[0] = purpose as u8;
        id[1..9].copy_from_slice(&given_at.as_millis().to_be_bytes());
        self.hash(3, &id)
    }

    fn hash(&self, kind: u8, id: &[u8; 16]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[kind]);
        context.update(id);
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_ids_and_keys_have_hashes_of_their_own() {
        let (one, other) = (IdHasher::new(&[1; 32]), IdHasher::new(&[2; 32]));
        let member = |byte| MemberId::from_random([byte; 16]);
        let claim = ClaimHandle::from_random([7; 16]);
        let hashes = [
            one.member(&member(7)),
            one.member(&member(8)),
            one.claim(&claim),
            other.claim(&claim),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(hashes[..i].iter().all(|earlier| earlier != hash));
        }
        assert_eq!(one.claim(&claim), IdHasher::new(&[1; 32]).claim(&claim));
    }
}
