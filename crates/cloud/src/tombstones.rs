//! Who was forgotten: keyed hashes and their Merkle root.

use ring::digest::{Context, SHA256};
use std::{collections::BTreeMap, sync::OnceLock};

#[derive(Default)]
pub(crate) struct TombstoneSet {
    hashes: BTreeMap<[u8; 32], u64>,
    by_revision: BTreeMap<u64, [u8; 32]>,
    root: OnceLock<[u8; 32]>,
}

impl TombstoneSet {
    /// `false` when it was there already.
    pub(crate) fn insert(&mut self, hash: [u8; 32], revision: u64) -> bool {
        if self.contains(&hash) {
            return false;
        }
        self.hashes.insert(hash, revision);
        self.by_revision.insert(revision, hash);
        self.root = OnceLock::new();
        true
    }

    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.hashes.contains_key(hash)
    }

    /// Those that came after a revision, in order.
    pub(crate) fn after(&self, revision: u64) -> impl Iterator<Item = (&u64, &[u8; 32])> {
        self.by_revision.range(revision.saturating_add(1)..)
    }

    /// The revision of the last one; 0 when there is none.
    pub(crate) fn last_revision(&self) -> u64 {
        self.by_revision.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn root(&self) -> [u8; 32] {
        let root = || tree_hash(&self.hashes.keys().collect::<Vec<_>>());
        *self.root.get_or_init(root)
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

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
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
