use crate::limits::{CHALLENGE_LIFETIME, CHALLENGES_AT_HAND};
use minicbor::{Decode, Encode};
use std::time::Duration;

/// Random bytes of the gateway that a scan names, good once and for seconds: what was recorded
/// before the gateway drew them cannot be about them. A sensor that signs its verdict signs them
/// with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ScanChallenge(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]);

impl ScanChallenge {
    /// Label of the first challenges of a session, which both sides derive by the exporter of MLS
    /// (RFC 9420 section 8.5): no message has to bring them.
    pub const LABEL: &str = "palmgate scan challenges";
    /// Bytes of the first challenges of a session.
    pub const FIRST_BYTES: usize = 16 * CHALLENGES_AT_HAND;

    /// Wraps 16 random bytes.
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, as a sensor signs them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first challenges of a session, out of [`Self::FIRST_BYTES`] exported bytes.
    pub fn first(exported: &[u8]) -> impl Iterator<Item = Self> {
        exported.as_chunks().0.iter().copied().map(Self)
    }
}

/// Challenges that come with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Challenges {
    /// For how many milliseconds they are good.
    #[n(0)]
    pub lifetime_ms: u32,
    /// The challenges.
    #[n(1)]
    pub given: Vec<ScanChallenge>,
}

impl Challenges {
    /// For how long they are good.
    pub const fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms as u64)
    }

    /// The first ones of a session.
    pub fn first(exported: &[u8]) -> Self {
        let lifetime_ms = CHALLENGE_LIFETIME.as_millis() as u32;
        Self { lifetime_ms, given: ScanChallenge::first(exported).collect() }
    }
}
