//! What is kept of an erasure; nothing here names the person.

use minicbor::{Decode, Encode};
use palmgate_protocol::{Name, Timestamp, cloud::Erasure};
use palmgate_seal::hidden_id::IdHasher;

/// An erasure that was asked for.
#[derive(Clone, Encode, Decode)]
pub(crate) struct ErasureRow {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) member_hash: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) claim_hash: [u8; 32],
    #[n(2)]
    pub(crate) asked_by: Name,
    /// When the person's key was destroyed, where the row itself says so and no column beside it.
    #[n(3)]
    pub(crate) erased_at: Option<Timestamp>,
}

impl ErasureRow {
    /// As a store asks for it.
    pub(crate) fn asked(erasure: &Erasure, store: &Name, tombstones: &IdHasher) -> Self {
        Self {
            member_hash: tombstones.member(&erasure.member),
            claim_hash: tombstones.claim(&erasure.claim),
            asked_by: store.clone(),
            erased_at: None,
        }
    }

    /// Whether this is the other one asked for again, which then changes nothing.
    pub(crate) fn repeats(&self, known: &Self) -> bool {
        (self.member_hash, self.claim_hash) == (known.member_hash, known.claim_hash)
            && self.asked_by == known.asked_by
    }
}
