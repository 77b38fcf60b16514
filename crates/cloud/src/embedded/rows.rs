//! What is kept at rest, and how it is sealed: people's rows under their own keys, the rest under
//! the state key; each bound to tenant, table and name.

use crate::{
    embedded::disk::Table,
    embedded::keys::{KEY_ID_BYTES, KeyId},
    problem::Problem,
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    ClaimHandle, Custody, MemberId, Name, PurposeSet, Timestamp, decode, encode_for_sealing,
};
use palmgate_seal::aead;

/// A person to the cloud: everything but the record itself.
#[derive(Encode, Decode)]
pub(super) struct Member {
    #[n(0)]
    pub(super) id: MemberId,
    #[n(1)]
    pub(super) claim: ClaimHandle,
    #[n(2)]
    pub(super) custody: Custody,
    #[n(3)]
    pub(super) purposes: PurposeSet,
    #[n(4)]
    pub(super) expires_at: Timestamp,
    /// When the consent to roaming ends; `None` without one.
    #[n(5)]
    pub(super) roaming_until: Option<Timestamp>,
    /// The store that registered the person.
    #[n(6)]
    pub(super) home: Name,
    /// SHA-256 of the registration, to know a repetition.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
    /// The stores that were given the person, home included (GDPR Art. 19).
    #[n(8)]
    pub(super) holders: Vec<Held>,
}

impl Member {
    pub(super) fn roams(&self, now: Timestamp) -> bool {
        self.roaming_until.is_some_and(|end| now < end)
    }

    pub(super) fn is_held_by(&self, store: &Name) -> bool {
        self.holders.iter().any(|held| held.store == *store)
    }
}

/// A store that has the record, as it was at a revision.
#[derive(Clone, Encode, Decode)]
pub(super) struct Held {
    #[n(0)]
    pub(super) store: Name,
    #[n(1)]
    pub(super) since: u64,
}

/// A person whom a store must remove.
#[derive(Clone, Copy, Encode, Decode)]
pub(super) struct Removal {
    #[n(0)]
    pub(super) member: MemberId,
    /// The person's keyed hash, which an erasure knows them by.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) hash: [u8; 32],
    /// When the person had to go; `None` in rows of earlier versions.
    #[n(2)]
    pub(super) asked_at: Option<Timestamp>,
}

/// What was done about an erasure; nothing here names the person.
#[derive(Clone, Encode, Decode)]
pub(super) struct ErasureRow {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) member_hash: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) claim_hash: [u8; 32],
    #[n(2)]
    pub(super) asked_by: Name,
    /// `None` until the person's key is destroyed.
    #[n(3)]
    pub(super) erased_at: Option<Timestamp>,
}

/// What is known of a store.
#[derive(Clone, Default, Encode, Decode)]
pub(super) struct HolderRow {
    #[n(0)]
    pub(super) keys: Option<GatewayKeys>,
    /// The operator's resets that were in force when the keys were taken.
    #[n(1)]
    pub(super) resets: u32,
    /// No two shards of a store have the same version.
    #[n(2)]
    pub(super) last_version: u64,
    /// SHA-256 of the manifest of that version; zeros before the first.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) last_hash: [u8; 32],
    /// What that version holds; `None` when the store certainly has none.
    #[n(4)]
    pub(super) last: Option<Link>,
}

#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct GatewayKeys {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) seal: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) verify: [u8; 32],
}

/// The last shard in a store's chain.
#[derive(Clone, Copy, Encode, Decode)]
pub(super) struct Link {
    #[n(0)]
    pub(super) version: u64,
    /// The last revision that is in it.
    #[n(1)]
    pub(super) up_to: u64,
    #[n(2)]
    pub(super) lease_until: Timestamp,
}

/// A row that says when it came to be.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Revision(#[n(0)] pub(super) u64);

/// Seals and opens the rows of one tenant.
pub(super) struct Rows {
    pub(super) tenant: Name,
}

impl Rows {
    fn aad(&self, table: Table, row: &[u8]) -> Vec<u8> {
        let column = table.column();
        aead::Place { tenant: &self.tenant, purpose: None, record: row, column, version: 1 }.aad()
    }

    pub(super) fn seal<T: Encode<()>>(
        &self,
        key: &aead::Key,
        table: Table,
        row: &[u8],
        value: &T,
    ) -> Vec<u8> {
        key.seal(&self.aad(table, row), encode_for_sealing(value).expose())
    }

    pub(super) fn open<T: for<'b> Decode<'b, ()>>(
        &self,
        key: &aead::Key,
        table: Table,
        row: &[u8],
        sealed: &[u8],
    ) -> Result<T, Problem> {
        let plain = key.open(&self.aad(table, row), sealed).map_err(Problem::internal)?;
        decode(plain.expose()).map_err(Problem::internal)
    }
}

/// A row under a person's key begins with the key's name.
pub(super) fn with_key_id(key: KeyId, sealed: Vec<u8>) -> Vec<u8> {
    [key.0.as_slice(), &sealed].concat()
}

pub(super) fn split_key_id(bytes: &[u8]) -> Option<(KeyId, &[u8])> {
    let (id, sealed) = bytes.split_first_chunk::<KEY_ID_BYTES>()?;
    Some((KeyId(*id), sealed))
}

/// The name of a removal's row: by store, then in order.
pub(super) fn removal_name(store: &Name, revision: u64) -> Vec<u8> {
    [store.as_str().as_bytes(), &[0], &revision.to_be_bytes()].concat()
}

/// Reads what [`removal_name`] wrote.
pub(super) fn parse_removal_name(name: &[u8]) -> Option<(Name, u64)> {
    let (store, revision) = name.split_last_chunk::<8>()?;
    let store = std::str::from_utf8(store.strip_suffix(&[0])?).ok()?;
    Some((store.parse().ok()?, u64::from_be_bytes(*revision)))
}
