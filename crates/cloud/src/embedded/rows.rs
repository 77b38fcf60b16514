//! What is kept at rest, and how it is sealed: people's rows under their own keys, the rest under
//! the state key; each bound to tenant, table and name.

use crate::{
    embedded::disk::Table,
    embedded::keys::{KEY_ID_BYTES, KeyId},
    problem::Problem,
    registry::member,
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{MemberId, Name, Timestamp, decode, encode_for_sealing};
use palmgate_seal::aead;

/// A person, with the stores as they were given the person.
pub(super) type Member = member::Member<Held>;

/// A store that has the record, as it was at a revision.
#[derive(Clone, Encode, Decode)]
pub(super) struct Held {
    #[n(0)]
    pub(super) store: Name,
    #[n(1)]
    pub(super) since: u64,
    /// When the visit ends; `None` at home, and in rows of earlier versions.
    #[n(2)]
    pub(super) visit_until: Option<Timestamp>,
}

impl member::Holder for Held {
    fn store(&self) -> &Name {
        &self.store
    }
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
