//! Who was forgotten, here or in another store of the tenant. A card that carries its own record
//! works without any store's copy: only this list ends it.

use minicbor::{Decode, Encode, bytes::ByteArray};
use palmgate_protocol::{ClaimHandle, MemberId, cloud::Tombstones, decode, encode};
use palmgate_seal::hidden_id::IdHasher;
use palmgate_vault::{Vault, VaultError};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

/// Hashes in one kept page.
const PAGE: usize = 4_096;
const HEAD: &str = "tombstones";

/// The tombstones of the store and those that the cloud told it, kept in the vault.
pub(crate) struct Forgotten {
    vault: Arc<Vault>,
    told: RwLock<Told>,
}

struct Told {
    head: Head,
    hasher: IdHasher,
    hashes: HashSet<[u8; 32]>,
    /// The page that is not full yet.
    last: Vec<ByteArray<32>>,
}

#[derive(Clone, Default, Encode, Decode)]
struct Head {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    key: [u8; 32],
    #[n(1)]
    up_to: u64,
    #[n(2)]
    full_pages: u64,
}

impl Forgotten {
    /// Reads what the vault keeps.
    pub(crate) fn load(vault: Arc<Vault>) -> Result<Self, anyhow::Error> {
        let head = vault.state(HEAD)?.map(|head| decode::<Head>(head.expose())).transpose()?;
        let head = head.unwrap_or_default();
        let page = |number: u64| -> Result<Vec<ByteArray<32>>, anyhow::Error> {
            let page = vault.state(&page_name(number))?;
            Ok(page.map(|page| decode(page.expose())).transpose()?.unwrap_or_default())
        };
        let mut hashes = HashSet::new();
        for number in 0..head.full_pages {
            hashes.extend(page(number)?.into_iter().map(<[u8; 32]>::from));
        }
        let last = page(head.full_pages)?;
        hashes.extend(last.iter().map(|hash| <[u8; 32]>::from(*hash)));
        let hasher = IdHasher::new(&head.key);
        Ok(Self { vault, told: RwLock::new(Told { head, hasher, hashes, last }) })
    }

    /// Whether the person was forgotten.
    pub(crate) fn member(&self, member: &MemberId) -> bool {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        self.vault.is_tombstoned(member.as_bytes())
            || told.hashes.contains(&told.hasher.member(member))
    }

    /// Whether whom the claim names was forgotten.
    pub(crate) fn claim(&self, claim: &ClaimHandle) -> bool {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        self.vault.is_tombstoned(claim.as_bytes())
            || told.hashes.contains(&told.hasher.claim(claim))
    }

    /// Hashes known from the cloud.
    pub(crate) fn len(&self) -> usize {
        self.told.read().unwrap_or_else(PoisonError::into_inner).hashes.len()
    }

    /// Where the cloud's next page begins.
    pub(crate) fn after(&self) -> u64 {
        self.told.read().unwrap_or_else(PoisonError::into_inner).head.up_to
    }

    /// Takes in a page of the cloud's, durably. `false`: its hashes are under another key than the
    /// first page's, so that taking it in would bring back everybody known by now.
    pub(crate) fn learn(&self, page: &Tombstones) -> Result<bool, VaultError> {
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        let told = &mut *told;
        if told.head.key != page.key {
            if told.head.up_to > 0 {
                return Ok(false);
            }
            told.head.key = page.key;
            told.hasher = IdHasher::new(&page.key);
        }
        for hash in &page.hashes {
            if !told.hashes.insert((*hash).into()) {
                continue;
            }
            told.last.push(*hash);
            if told.last.len() == PAGE {
                self.vault.put_state(&page_name(told.head.full_pages), &encode(&told.last))?;
                told.head.full_pages += 1;
                told.last.clear();
            }
        }
        // The page before the head: a crash in between asks for the same hashes again.
        self.vault.put_state(&page_name(told.head.full_pages), &encode(&told.last))?;
        told.head.up_to = page.up_to;
        self.vault.put_state(HEAD, &encode(&told.head))?;
        Ok(true)
    }
}

fn page_name(number: u64) -> String {
    format!("{HEAD}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_vault::MemoryRoot;
    use std::path::Path;

    fn open(directory: &Path, root: &MemoryRoot) -> Arc<Vault> {
        let tenant = "chain".parse().unwrap();
        Arc::new(Vault::open(directory, &tenant, Box::new(root.clone())).unwrap())
    }

    fn page(key: u8, claims: std::ops::Range<u16>) -> Tombstones {
        let hasher = IdHasher::new(&[key; 32]);
        let up_to = u64::from(claims.end);
        let hashes = claims.map(|claim| hasher.claim(&handle(claim)).into()).collect();
        Tombstones { key: [key; 32], hashes, up_to, more: false }
    }

    fn handle(number: u16) -> ClaimHandle {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        ClaimHandle::from_random(bytes)
    }

    #[test]
    fn what_the_cloud_forgot_stays_forgotten_after_a_restart_offline() {
        let directory = tempfile::tempdir().unwrap();
        let root = MemoryRoot::new();
        let forgotten = Forgotten::load(open(directory.path(), &root)).unwrap();
        forgotten.learn(&page(1, 0..4_000)).unwrap();
        forgotten.learn(&page(1, 4_000..4_100)).unwrap();
        // Told twice: as after a crash.
        forgotten.learn(&page(1, 4_000..4_100)).unwrap();
        drop(forgotten);
        let again = Forgotten::load(open(directory.path(), &root)).unwrap();
        assert_eq!((again.len(), again.after()), (4_100, 4_100));
        assert!((0..4_100).all(|claim| again.claim(&handle(claim))));
        assert!(!again.claim(&handle(4_100)) && !again.member(&MemberId::from_random([0; 16])));
    }

    #[test]
    fn a_list_under_another_key_does_not_replace_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let forgotten = Forgotten::load(open(directory.path(), &MemoryRoot::new())).unwrap();
        assert!(forgotten.learn(&page(1, 0..10)).unwrap());
        assert!(!forgotten.learn(&page(2, 10..12)).unwrap());
        assert!(forgotten.claim(&handle(9)) && !forgotten.claim(&handle(11)));
    }
}
