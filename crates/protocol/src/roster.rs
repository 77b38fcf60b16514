//! Who has sessions in a store: one list for everybody, signed by the gateway, so that a listener
//! whom nobody knows of cannot be among them.

use crate::{Name, PurposeSet, Timestamp, limits::MAX_ROSTER_CERTIFICATES};
use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};

/// Everybody who has a session in a store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Roster {
    /// The store.
    #[n(0)]
    pub store: Name,
    /// Rises by one with every change: pairing, renewal, revocation.
    #[n(1)]
    pub sequence: u64,
    /// When it became so, on the gateway's clock.
    #[n(2)]
    pub at: Timestamp,
    /// The gateway, then the terminals, sorted by name.
    #[n(3)]
    pub members: Vec<RosterMember>,
}

impl Roster {
    /// What the gateway signs it under.
    pub const LABEL: &str = "roster";

    /// Who has this name.
    pub fn find(&self, name: &Name) -> Option<&RosterMember> {
        self.members.iter().find(|member| member.name == *name)
    }
}

/// One side of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RosterMember {
    /// The name in its certificate.
    #[n(0)]
    pub name: Name,
    /// SHA-256 of each certificate that it may take part with: during a renewal two.
    #[n(1)]
    pub certificates: Vec<ByteArray<32>>,
    /// The Ed25519 key behind its MLS credential. A terminal's changes with each certificate and is
    /// in it; the gateway's never does, and is here.
    #[n(2)]
    pub key: Option<ByteArray<32>>,
    /// What it serves.
    #[n(3)]
    pub purposes: PurposeSet,
    /// Whether it enrols.
    #[n(4)]
    pub enrols: bool,
}

impl RosterMember {
    /// Whether it may take part with the certificate that has this SHA-256.
    pub fn has(&self, certificate: &[u8; 32]) -> bool {
        self.certificates.iter().take(MAX_ROSTER_CERTIFICATES).any(|one| **one == *certificate)
    }
}

/// A roster as the gateway gives it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedRoster {
    /// The [`Roster`], encoded. Its SHA-256 is what people and the ledger compare.
    #[n(0)]
    pub roster: ByteVec,
    /// Ed25519 over it under [`Roster::LABEL`], by the key of the gateway's certificate.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
}
