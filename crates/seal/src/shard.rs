//! Shards: the people whom one store may recognise, sealed by the cloud for that store alone.
//!
//! A manifest signed by the tenant's publishing key lists the SHA-256 of every sealed chunk. All
//! chunks share one HPKE context (a key exchange for each template would take seconds), and each
//! is bound to its place in its shard, so no chunk can be moved, repeated or left out.

mod content;

pub use content::{ContentError, inspect};

use crate::{
    envelope::{self, Label, OpeningKey, SealingKey},
    labelled, sha256,
    sign::{SigningKey, VerifyingKey},
};
use minicbor::bytes::{ByteArray, ByteVec};
use palmgate_protocol::{
    Name, Secret, Timestamp,
    cloud::{Shard, ShardChunk, ShardManifest},
    decode, encode, encode_for_sealing,
};

const SIGNATURE_LABEL: &str = "shard-manifest";
/// Chunks of one shard, at most.
pub const MAX_CHUNKS: usize = 4096;
/// Bytes of one sealed chunk, at most.
pub const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Names, numbers and hashes of a manifest, besides the chunks' hashes.
const MAX_MANIFEST_BYTES: usize = 512 + MAX_CHUNKS * 34;

/// What a publisher says about a shard.
pub struct Draft<'a> {
    /// Whose.
    pub tenant: &'a Name,
    /// For which store.
    pub store: &'a Name,
    /// One more than the store's last, from 1.
    pub version: u64,
    /// 0 for a whole shard, `version - 1` for the difference to the last.
    pub base: u64,
    /// [`Opened::manifest_hash`] of the last; zeros for the first.
    pub previous: [u8; 32],
    /// After this time the store must not match against it.
    pub lease_until: Timestamp,
    /// Rows after this shard is applied.
    pub rows: u64,
    /// Merkle root over everybody the tenant erased.
    pub tombstone_root: [u8; 32],
}

/// What a store expects of the next shard.
pub struct Expected<'a> {
    /// The store's tenant.
    pub tenant: &'a Name,
    /// The store.
    pub store: &'a Name,
    /// Version and manifest hash of the shard in force, if any.
    pub held: Option<(u64, [u8; 32])>,
}

/// A shard that was checked and opened completely.
pub struct Opened {
    /// What it is and how long it holds.
    pub manifest: ShardManifest,
    /// SHA-256 of the manifest: the next shard names it.
    pub manifest_hash: [u8; 32],
    /// Its content, in order.
    pub chunks: Vec<ShardChunk>,
}

/// Why a shard was not made, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The publisher's draft contradicts itself.
    #[error("the draft's version and base do not follow each other")]
    Draft,
    /// The store's public key is unusable.
    #[error("the store's key is not a usable X25519 key")]
    Key,
    /// Over a bound: for a publisher, make smaller chunks.
    #[error("the shard, or a chunk of it, is too large")]
    TooLarge,
    /// Not signed by the tenant's publishing key.
    #[error("the manifest is not signed by the tenant's publishing key")]
    Signature,
    /// Signed, but unreadable: the publisher is newer or faulty.
    #[error("the manifest cannot be read")]
    Manifest,
    /// Signed for another tenant or store.
    #[error("the shard is for another tenant or store")]
    OtherStore,
    /// As old as the shard in force, or older.
    #[error("version {offered} is offered, version {held} is in force")]
    Stale {
        /// The version offered.
        offered: u64,
        /// The version in force.
        held: u64,
    },
    /// A difference to another shard, or a history that forked.
    #[error("the shard does not follow the one in force: ask for a whole one")]
    BrokenChain,
    /// Fewer or more chunks than the manifest lists.
    #[error("the delivery has {delivered} of {listed} chunks")]
    Incomplete {
        /// Chunks that arrived.
        delivered: usize,
        /// Chunks in the manifest.
        listed: usize,
    },
    /// A chunk is not the one in the manifest.
    #[error("chunk {0} was damaged or exchanged on the way")]
    Damaged(usize),
    /// A chunk is as listed, but not sealed to this store's key, for this place.
    #[error("chunk {0} is not sealed for this store")]
    Sealed(usize),
    /// A chunk opens, but cannot be read: the publisher is newer or faulty.
    #[error("chunk {0} cannot be read")]
    Chunk(usize),
}

/// Seals chunks to one store and signs the manifest that lists them.
///
/// # Errors
/// [`ShardError::Draft`], [`ShardError::Key`] or [`ShardError::TooLarge`].
pub fn publish(
    key: &SigningKey,
    to: &SealingKey,
    draft: &Draft<'_>,
    chunks: &[ShardChunk],
) -> Result<Shard, ShardError> {
    let follows = draft.base == 0 || draft.base.checked_add(1) == Some(draft.version);
    if draft.version == 0 || !follows {
        return Err(ShardError::Draft);
    }
    if chunks.len() > MAX_CHUNKS {
        return Err(ShardError::TooLarge);
    }
    let mut manifest = draft.manifest(chunks.len());
    let (encapsulated_key, mut context) =
        envelope::sender(to, Label::Shard, draft.tenant).map_err(|_| ShardError::Key)?;
    let mut sealed = Vec::with_capacity(chunks.len());
    for (index, chunk) in chunks.iter().enumerate() {
        let plaintext = encode_for_sealing(chunk);
        let ciphertext = context
            .seal(plaintext.expose(), &place(&manifest, index))
            .map_err(|_| ShardError::TooLarge)?;
        if ciphertext.len() > MAX_CHUNK_BYTES {
            return Err(ShardError::TooLarge);
        }
        manifest.chunks[index] = ByteArray::from(sha256(&ciphertext));
        sealed.push(ByteVec::from(ciphertext));
    }
    let manifest = encode(&manifest);
    Ok(Shard {
        signature: key.sign(SIGNATURE_LABEL, &manifest).to_vec(),
        manifest,
        encapsulated_key: encapsulated_key.to_vec(),
        chunks: sealed,
    })
}

/// Checks and opens a shard; all of it or nothing. Whether its lease is fresh is for the policy.
///
/// # Errors
/// [`ShardError`] says what is wrong; the shard in force stays in force.
pub fn open(
    shard: &Shard,
    publisher: &VerifyingKey,
    key: &OpeningKey,
    expected: &Expected<'_>,
) -> Result<Opened, ShardError> {
    if shard.manifest.len() > MAX_MANIFEST_BYTES {
        return Err(ShardError::TooLarge);
    }
    publisher
        .verify(SIGNATURE_LABEL, &shard.manifest, &shard.signature)
        .map_err(|_| ShardError::Signature)?;
    let manifest: ShardManifest = decode(&shard.manifest).map_err(|_| ShardError::Manifest)?;
    expected.check(&manifest)?;
    let chunks = open_chunks(shard, &manifest, key)?;
    Ok(Opened { manifest, manifest_hash: sha256(&shard.manifest), chunks })
}

fn open_chunks(
    shard: &Shard,
    manifest: &ShardManifest,
    key: &OpeningKey,
) -> Result<Vec<ShardChunk>, ShardError> {
    let (delivered, listed) = (shard.chunks.len(), manifest.chunks.len());
    if delivered != listed {
        return Err(ShardError::Incomplete { delivered, listed });
    }
    for (index, (chunk, hash)) in shard.chunks.iter().zip(&manifest.chunks).enumerate() {
        if chunk.len() > MAX_CHUNK_BYTES {
            return Err(ShardError::TooLarge);
        }
        if sha256(chunk) != **hash {
            return Err(ShardError::Damaged(index));
        }
    }
    let mut context =
        envelope::receiver(key, Label::Shard, &manifest.tenant, &shard.encapsulated_key)
            .map_err(|_| ShardError::Sealed(0))?;
    let mut opened = Vec::with_capacity(listed);
    for (index, chunk) in shard.chunks.iter().enumerate() {
        let plaintext = context
            .open(chunk, &place(manifest, index))
            .map(Secret::new)
            .map_err(|_| ShardError::Sealed(index))?;
        opened.push(decode(plaintext.expose()).map_err(|_| ShardError::Chunk(index))?);
    }
    Ok(opened)
}

impl Draft<'_> {
    fn manifest(&self, chunks: usize) -> ShardManifest {
        ShardManifest {
            tenant: self.tenant.clone(),
            store: self.store.clone(),
            version: self.version,
            base: self.base,
            previous: self.previous,
            lease_until: self.lease_until,
            chunks: vec![ByteArray::from([0; 32]); chunks],
            rows: self.rows,
            tombstone_root: self.tombstone_root,
        }
    }
}

impl Expected<'_> {
    fn check(&self, manifest: &ShardManifest) -> Result<(), ShardError> {
        if manifest.tenant != *self.tenant || manifest.store != *self.store {
            return Err(ShardError::OtherStore);
        }
        let whole = manifest.base == 0;
        let Some((held, hash)) = self.held else {
            return if whole { Ok(()) } else { Err(ShardError::BrokenChain) };
        };
        let offered = manifest.version;
        if offered <= held {
            return Err(ShardError::Stale { offered, held });
        }
        let next = offered - 1 == held;
        let continues = next && manifest.previous == hash;
        // A whole shard may skip versions; the next one may not deny the one in force.
        let allowed = if whole { continues || !next } else { continues && manifest.base == held };
        if allowed { Ok(()) } else { Err(ShardError::BrokenChain) }
    }
}

/// Binds a chunk to its place. The chunks' hashes cannot be part of it: they follow from it.
fn place(manifest: &ShardManifest, index: usize) -> Vec<u8> {
    labelled(
        "shard-chunk",
        &[
            manifest.tenant.as_str().as_bytes(),
            manifest.store.as_str().as_bytes(),
            &manifest.version.to_be_bytes(),
            &manifest.base.to_be_bytes(),
            &manifest.previous,
            &(index as u64).to_be_bytes(),
            &(manifest.chunks.len() as u64).to_be_bytes(),
        ],
    )
}

#[cfg(test)]
mod tests;
