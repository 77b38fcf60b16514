//! What is sealed in the database's rows, and the keys that live as long as the tenant.

use crate::{
    files::{self, FileError},
    layout::LayoutError,
    problem::Problem,
    registry::member,
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    ClaimHandle, MemberId, Name, Secret, Timestamp, decode, encode_for_sealing,
};
use palmgate_seal::{aead, hidden_id::IdHasher, random};
use ring::hmac;
use std::path::Path;

/// A person; their stores are named only, and the holdings say the rest.
pub(super) type Member = member::Member<Name>;

/// When something about the person ends next.
pub(super) fn due_at(row: &Member) -> i64 {
    let ends = [Some(row.expires_at), row.roaming_until].into_iter().flatten();
    ends.map(Timestamp::as_millis).min().unwrap_or(0)
}

/// What a holding or a removal is about. Under the state key: the person's may be gone.
#[derive(Clone, Copy, Encode, Decode)]
pub(super) struct Held {
    #[n(0)]
    pub(super) member: MemberId,
}

/// Keys that live as long as the tenant and open nothing biometric; every process has the same.
pub(super) struct FixedKeys {
    state: aead::Key,
    index: IdHasher,
    pub(super) tombstone_key: [u8; 32],
    pub(super) tombstones: IdHasher,
    handle: hmac::Key,
}

/// State key, index key, tombstone key, handle key.
const FIXED_BYTES: usize = 4 * 32;

impl FixedKeys {
    pub(super) fn create(path: &Path) -> Result<(), FileError> {
        let bytes = Secret::new(random::bytes::<FIXED_BYTES>());
        files::write(path, bytes.expose())
    }

    pub(super) fn read(path: &Path) -> Result<Self, LayoutError> {
        let bytes = Secret::new(files::read(path)?);
        let (keys, rest) = bytes.expose().as_chunks::<32>();
        let &[state, index, tombstone, handle] = keys else {
            return Err(LayoutError::Key(path.into()));
        };
        if !rest.is_empty() {
            return Err(LayoutError::Key(path.into()));
        }
        Ok(Self {
            state: aead::Key::from_bytes(state),
            index: IdHasher::new(&index),
            tombstone_key: tombstone,
            tombstones: IdHasher::new(&tombstone),
            handle: hmac::Key::new(hmac::HMAC_SHA256, &handle),
        })
    }

    /// The name of a person's rows.
    pub(super) fn member(&self, member: &MemberId) -> [u8; 32] {
        self.index.member(member)
    }

    pub(super) fn claim(&self, claim: &ClaimHandle) -> [u8; 32] {
        self.index.claim(claim)
    }

    /// The name of a holding: the same person has another one in every store.
    pub(super) fn handle(&self, store: &Name, member: &MemberId) -> Vec<u8> {
        let named = [member.as_bytes().as_slice(), store.as_str().as_bytes()].concat();
        hmac::sign(&self.handle, &named).as_ref()[..16].to_vec()
    }

    pub(super) fn state(&self) -> &aead::Key {
        &self.state
    }
}

/// The tables with sealed rows; the name is what they are bound to.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Member,
    Record,
    Embedding,
    Holding,
    Removal,
    Erasure,
}

impl Column {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Record => "record",
            Self::Embedding => "embedding",
            Self::Holding => "holding",
            Self::Removal => "removal",
            Self::Erasure => "erasure",
        }
    }

    fn aad(self, tenant: &Name, row: &[u8]) -> Vec<u8> {
        let column = self.as_str();
        aead::Place { tenant, purpose: None, record: row, column, version: 1 }.aad()
    }

    pub(super) fn seal_bytes(
        self,
        tenant: &Name,
        key: &aead::Key,
        row: &[u8],
        bytes: &Secret<Vec<u8>>,
    ) -> Vec<u8> {
        key.seal(&self.aad(tenant, row), bytes.expose())
    }

    pub(super) fn open_bytes(
        self,
        tenant: &Name,
        key: &aead::Key,
        row: &[u8],
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, Problem> {
        key.open(&self.aad(tenant, row), sealed).map_err(Problem::internal)
    }

    /// For who tries keys that do not fit.
    #[cfg(test)]
    pub(super) fn open_quietly(
        self,
        tenant: &Name,
        key: &aead::Key,
        row: &[u8],
        sealed: &[u8],
    ) -> Option<Secret<Vec<u8>>> {
        key.open(&self.aad(tenant, row), sealed).ok()
    }

    pub(super) fn seal<T: Encode<()>>(
        self,
        tenant: &Name,
        key: &aead::Key,
        row: &[u8],
        value: &T,
    ) -> Vec<u8> {
        self.seal_bytes(tenant, key, row, &encode_for_sealing(value))
    }

    pub(super) fn open<T: for<'b> Decode<'b, ()>>(
        self,
        tenant: &Name,
        key: &aead::Key,
        row: &[u8],
        sealed: &[u8],
    ) -> Result<T, Problem> {
        let plain = self.open_bytes(tenant, key, row, sealed)?;
        decode(plain.expose()).map_err(Problem::internal)
    }
}
