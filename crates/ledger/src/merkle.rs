//! Hashes and proofs of the Merkle tree of RFC 9162, section 2.1 (the tree of RFC 6962).

use crate::text::hexes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of an entry: SHA-256 of a zero byte and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(entry).finalize().into()
}

/// The hash of two subtrees: SHA-256 of a one byte, the left and the right hash.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A proof shows something else than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof was made for another tree.
    #[error("the proof is for a tree of {proof} entries, the checkpoint has {checkpoint}")]
    Size {
        /// Entries in the tree of the proof.
        proof: u64,
        /// Entries in the tree it is held against.
        checkpoint: u64,
    },
    /// The entry would stand outside the tree, or the trees in the wrong order.
    #[error("the proof asks for position {position} in a tree of {size} entries")]
    Range {
        /// The position, or the size of the earlier tree.
        position: u64,
        /// The size of the tree.
        size: u64,
    },
    /// Too few or too many hashes.
    #[error("the proof has {hashes} hashes, which is not the number for its place in the tree")]
    Length {
        /// The number.
        hashes: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root: the entry or the history is not the one signed")]
    Root,
}

/// Shows that an entry stands in a tree (RFC 9162, section 2.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Position of the entry, from 0.
    pub index: u64,
    /// Entries in the tree.
    pub size: u64,
    /// Hashes of the subtrees beside the way from the leaf to the root.
    #[serde(with = "hexes")]
    pub path: Vec<Hash>,
}

impl InclusionProof {
    /// Checks the proof for a leaf hash against the size and root of a checkpoint.
    ///
    /// # Errors
    /// [`ProofError`] says what does not fit.
    pub fn verify(&self, leaf: &Hash, size: u64, root: &Hash) -> Result<(), ProofError> {
        if self.size != size {
            return Err(ProofError::Size { proof: self.size, checkpoint: size });
        }
        if self.index >= size {
            return Err(ProofError::Range { position: self.index, size });
        }
        let mut way = Way { node: self.index, last: size - 1 };
        let mut hash = *leaf;
        for sibling in &self.path {
            let side = way.climb().ok_or(ProofError::Length { hashes: self.path.len() })?;
            hash = side.join(&hash, sibling);
        }
        way.end(self.path.len())?;
        if hash == *root { Ok(()) } else { Err(ProofError::Root) }
    }
}

/// Shows that a tree is the beginning of a later one (RFC 9162, section 2.1.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// Entries in the earlier tree.
    pub from: u64,
    /// Entries in the later tree.
    pub to: u64,
    /// Hashes of the subtrees that both roots are made of.
    #[serde(with = "hexes")]
    pub path: Vec<Hash>,
}

impl ConsistencyProof {
    /// Checks the proof against the (size, root) of both trees.
    ///
    /// # Errors
    /// [`ProofError`] says what does not fit.
    pub fn verify(&self, from: (u64, &Hash), to: (u64, &Hash)) -> Result<(), ProofError> {
        for (proof, checkpoint) in [(self.from, from.0), (self.to, to.0)] {
            if proof != checkpoint {
                return Err(ProofError::Size { proof, checkpoint });
            }
        }
        if self.from > self.to {
            return Err(ProofError::Range { position: self.from, size: self.to });
        }
        if self.from == 0 || self.from == self.to {
            let beginning = if self.from == 0 { empty_root() } else { *to.1 };
            return self.nothing_to_prove(*from.1 == beginning);
        }
        self.climb(from.1, to.1)
    }

    fn nothing_to_prove(&self, roots_fit: bool) -> Result<(), ProofError> {
        if !self.path.is_empty() {
            return Err(ProofError::Length { hashes: self.path.len() });
        }
        if roots_fit { Ok(()) } else { Err(ProofError::Root) }
    }

    fn climb(&self, from_root: &Hash, to_root: &Hash) -> Result<(), ProofError> {
        let wrong_length = ProofError::Length { hashes: self.path.len() };
        // A complete earlier tree is itself a node of the later one, and is left out of the proof.
        let mut path =
            self.from.is_power_of_two().then_some(from_root).into_iter().chain(&self.path);
        let first = path.next().ok_or(wrong_length)?;
        let mut way = Way { node: self.from - 1, last: self.to - 1 };
        way.shift(way.node.trailing_ones());
        let (mut earlier, mut later) = (*first, *first);
        for sibling in path {
            let side = way.climb().ok_or(wrong_length)?;
            if side == Side::Left {
                earlier = side.join(&earlier, sibling);
            }
            later = side.join(&later, sibling);
        }
        way.end(self.path.len())?;
        if earlier == *from_root && later == *to_root { Ok(()) } else { Err(ProofError::Root) }
    }
}

/// Where a sibling stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn join(self, node: &Hash, sibling: &Hash) -> Hash {
        match self {
            Self::Left => node_hash(sibling, node),
            Self::Right => node_hash(node, sibling),
        }
    }
}

/// The way up from a node: its position and that of the last node, level by level.
struct Way {
    node: u64,
    last: u64,
}

impl Way {
    /// One sibling up; `None` above the root.
    fn climb(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // At the right edge, levels without a sibling are passed over.
            self.shift(self.node.trailing_zeros());
            Side::Left
        } else {
            Side::Right
        };
        self.shift(1);
        Some(side)
    }

    fn shift(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }

    const fn end(&self, hashes: usize) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::Length { hashes }) }
    }
}

/// The largest power of two below `size`, which is 2 or more: where RFC 9162 splits a tree.
pub(crate) const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The root over leaf hashes, as RFC 9162, section 2.1.1 defines it.
#[cfg(test)]
pub(crate) fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}
