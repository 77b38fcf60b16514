//! Nearest neighbours of a probe in a partition, found in this process's memory.
//!
//! Only embeddings are here; who they are of, whether the person is still there, and the line codes
//! that the decision needs are read from the database for the few nearest, so that whoever was
//! erased matches nobody from the moment in which the erasure is durable, however old this index is.

use palmgate_gallery::{RowId, Shard, ShardError, Vector};
use palmgate_protocol::{EMBEDDING_DIMENSIONS, Embedding, Name, Purpose};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// Rows of one purpose in one partition at most.
const MAX_ROWS: usize = 1 << 24;
/// The bits of a row number that tell hands apart; the rest is the beginning of the member's hash.
const HAND_BITS: u64 = 0b111;
/// An index that was not compared with the database for so long does not count as searched.
const MAX_AGE: Duration = Duration::from_secs(5);

type Rows = Shard<EMBEDDING_DIMENSIONS>;

/// A row that is near to a probe.
#[derive(Clone)]
pub(crate) struct Near {
    pub(crate) partition: Name,
    /// The first 61 bits of the member's hash, zeros after them.
    pub(crate) prefix: u64,
    pub(crate) cosine: f32,
}

/// One embedding of a member.
pub(crate) struct Entry {
    pub(crate) purpose: Purpose,
    pub(crate) hand: u8,
    pub(crate) embedding: Embedding,
}

/// The index of one partition.
pub(crate) struct PartitionIndex {
    purposes: [Rows; Purpose::MATCHED.len()],
    state: Mutex<Freshness>,
}

struct Freshness {
    revision: i64,
    compared: Instant,
}

impl PartitionIndex {
    fn new(revision: i64) -> Self {
        Self {
            purposes: std::array::from_fn(|_| Rows::new(MAX_ROWS)),
            state: Mutex::new(Freshness { revision, compared: Instant::now() }),
        }
    }

    /// The last revision of the partition that is in here.
    pub(crate) fn revision(&self) -> i64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// Notes that everything up to `revision` is in here.
    pub(crate) fn is_at(&self, revision: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Freshness { revision, compared: Instant::now() };
    }

    fn is_fresh(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.compared.elapsed() < MAX_AGE
    }

    /// Replaces what is known of a member. Two members whose hashes begin with the same 61 bits
    /// cannot both be here: the later one is, and the other is found by claim only.
    ///
    /// # Errors
    /// [`ShardError`] when there is no room.
    pub(crate) fn set(&self, hash: &[u8; 32], entries: &[Entry]) -> Result<(), ShardError> {
        let prefix = prefix(hash);
        for rows in &self.purposes {
            (0..=1).for_each(|hand| {
                rows.remove(RowId(prefix | hand));
            });
        }
        for entry in entries {
            let rows = slot(entry.purpose).map(|slot| &self.purposes[slot]);
            let vector = Vector::from_components(&entry.embedding).ok();
            let (Some(rows), Some(vector)) = (rows, vector) else { continue };
            let row = RowId(prefix | u64::from(entry.hand & 1));
            match rows.insert(row, &vector, &()) {
                Ok(()) | Err(ShardError::Duplicate(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.purposes.iter().map(Rows::len).sum()
    }
}

/// The partitions that this process searches.
#[derive(Default)]
pub(crate) struct Index(RwLock<HashMap<Name, Arc<PartitionIndex>>>);

impl Index {
    pub(crate) fn partition(&self, partition: &Name) -> Option<Arc<PartitionIndex>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(partition).cloned()
    }

    pub(crate) fn partitions(&self) -> Vec<(Name, Arc<PartitionIndex>)> {
        let partitions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().map(|(name, index)| (name.clone(), index.clone())).collect()
    }

    /// An index to be filled; nobody searches it before [`Index::publish`].
    pub(crate) fn empty(revision: i64) -> Arc<PartitionIndex> {
        Arc::new(PartitionIndex::new(revision))
    }

    pub(crate) fn publish(&self, partition: &Name, index: Arc<PartitionIndex>) {
        let mut partitions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition.clone(), index);
    }

    pub(crate) fn retain(&self, wanted: &[Name]) {
        let mut partitions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        partitions.retain(|partition, _| wanted.contains(partition));
    }

    pub(crate) fn forget(&self, partition: &Name) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    /// Embeddings held.
    pub(crate) fn rows(&self) -> usize {
        self.partitions().iter().map(|(_, index)| index.rows()).sum()
    }

    /// The rows of a partition that are nearest to the probe, nearest first; `None` when this
    /// process does not search the partition or may have missed changes.
    pub(crate) fn nearest(
        &self,
        partition: &Name,
        purpose: Purpose,
        embedding: &Embedding,
        limit: usize,
    ) -> Option<Vec<Near>> {
        let index = self.partition(partition).filter(|index| index.is_fresh())?;
        let rows = &index.purposes[slot(purpose)?];
        let Ok(vector) = Vector::from_components(embedding) else { return Some(Vec::new()) };
        // An empty partition was searched.
        let mut found = rows.nearest(&[&vector], limit).unwrap_or_default();
        let hits = found.pop().unwrap_or_default();
        let near = hits.iter().map(|hit| Near {
            partition: partition.clone(),
            prefix: hit.row.0 & !HAND_BITS,
            cosine: hit.cosine,
        });
        Some(near.collect())
    }
}

fn slot(purpose: Purpose) -> Option<usize> {
    Purpose::MATCHED.iter().position(|matched| *matched == purpose)
}

fn prefix(hash: &[u8; 32]) -> u64 {
    let (first, _) = hash.split_first_chunk().expect("longer than 8 bytes");
    u64::from_be_bytes(*first) & !HAND_BITS
}

impl Near {
    /// The first and the last bytes, exclusive, of the hashes that this row can be of.
    pub(crate) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let last = self.prefix.checked_add(HAND_BITS + 1);
        let last = last.map_or_else(|| vec![0xff; 33], |last| last.to_be_bytes().to_vec());
        (self.prefix.to_be_bytes().to_vec(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seed: u8) -> Entry {
        let embedding =
            std::array::from_fn(|i| if (i * 7 + usize::from(seed)) % 3 == 0 { 22 } else { -22 });
        Entry { purpose: Purpose::Pay, hand: 0, embedding }
    }

    #[test]
    fn a_member_is_found_until_they_are_set_to_nothing() {
        let (index, partition): (Index, Name) = (Index::default(), "main".parse().unwrap());
        let near = |index: &Index| index.nearest(&partition, Purpose::Pay, &entry(1).embedding, 4);
        assert!(near(&index).is_none(), "a partition that is not held was not searched");
        index.publish(&partition, Index::empty(0));
        assert!(near(&index).unwrap().is_empty());
        let held = index.partition(&partition).unwrap();
        held.set(&[7; 32], &[entry(1)]).unwrap();
        held.set(&[9; 32], &[entry(2)]).unwrap();
        let found = near(&index).unwrap();
        assert_eq!(found.len(), 2);
        let (first, after) = found[0].range();
        assert!([7; 32].as_slice() >= first.as_slice() && [7; 32].as_slice() < after.as_slice());
        held.set(&[7; 32], &[]).unwrap();
        assert_eq!(near(&index).unwrap().len(), 1);
        assert_eq!(index.rows(), 1);
    }

    #[test]
    fn the_last_hashes_have_a_range() {
        let near = Near { partition: "main".parse().unwrap(), prefix: !HAND_BITS, cosine: 1.0 };
        let (first, after) = near.range();
        assert!(
            [0xff; 32].as_slice() >= first.as_slice() && [0xff; 32].as_slice() < after.as_slice()
        );
    }
}
