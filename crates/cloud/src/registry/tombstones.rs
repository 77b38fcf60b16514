//! Who was forgotten: keyed hashes, their Merkle root, and pages of them for the stores.

use super::Registry;
use crate::problem::Problem;
use palmgate_protocol::cloud::Tombstones;
use ring::digest::{Context, SHA256};
use std::{collections::BTreeMap, sync::OnceLock};

/// Hashes in one page.
const PAGE: usize = 4096;

#[derive(Default)]
pub(super) struct TombstoneSet {
    hashes: BTreeMap<[u8; 32], u64>,
    by_revision: BTreeMap<u64, [u8; 32]>,
    root: OnceLock<[u8; 32]>,
}

impl TombstoneSet {
    /// `false` when it was there already.
    pub(super) fn insert(&mut self, hash: [u8; 32], revision: u64) -> bool {
        if self.contains(&hash) {
            return false;
        }
        self.hashes.insert(hash, revision);
        self.by_revision.insert(revision, hash);
        self.root = OnceLock::new();
        true
    }

    pub(super) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.hashes.contains_key(hash)
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn root(&self) -> [u8; 32] {
        let root = || tree_hash(&self.hashes.keys().collect::<Vec<_>>());
        *self.root.get_or_init(root)
    }
}

impl Registry {
    /// What was forgotten after the point that an earlier page named; 0 for the first page.
    pub(crate) fn tombstones(&self, after: u64) -> Result<Tombstones, Problem> {
        let state = self.read()?;
        let set = &state.tombstones;
        let mut later = set.by_revision.range(after.saturating_add(1)..);
        let page: Vec<_> = later.by_ref().take(PAGE).collect();
        Ok(Tombstones {
            key: state.keys.fixed().tombstone,
            up_to: page.last().map_or(after, |(revision, _)| **revision),
            hashes: page.into_iter().map(|(_, hash)| (*hash).into()).collect(),
            more: later.next().is_some(),
        })
    }
}

/// Merkle tree hash (RFC 9162, 2.1.1).
fn tree_hash(leaves: &[&[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0], *leaf]),
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], &tree_hash(left), &tree_hash(right)])
        }
    }
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_changes_with_every_tombstone_and_with_nothing_else() {
        let mut set = TombstoneSet::default();
        assert_eq!(set.root()[..4], [0xe3, 0xb0, 0xc4, 0x42], "the hash of nothing");
        let mut roots = vec![set.root()];
        for n in 0..20 {
            assert!(set.insert([n; 32], u64::from(n)));
            assert!(!roots.contains(&set.root()));
            roots.push(set.root());
        }
        assert!(!set.insert([3; 32], 99));
        assert_eq!(roots.last(), Some(&set.root()));
    }

    #[test]
    fn a_root_of_three_is_the_one_of_the_rfc() {
        let leaf = |n: u8| sha256(&[&[0], &[n; 32]]);
        let two = sha256(&[&[1], &leaf(1), &leaf(2)]);
        let three = sha256(&[&[1], &two, &leaf(3)]);
        assert_eq!(tree_hash(&[&[1; 32], &[2; 32], &[3; 32]]), three);
    }
}
