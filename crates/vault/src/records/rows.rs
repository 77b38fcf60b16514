//! Values in the record store: cut into pieces, put together again, and removed.

use sled::{Batch, IVec, Tree};

use super::{Records, Shelf};
use crate::error::VaultError;

/// Bytes of one piece of a value. A sled leaf has at most 16 items and some ten pending changes:
/// 26 pieces stay under a quarter of a segment.
const PIECE_BYTES: usize = 16 * 1024;
const REMOVED_AT_ONCE: usize = 1_024;

impl Records {
    /// Stores values under keys that are new; durable after [`sync`](Self::sync).
    pub(crate) fn add<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
    ) -> Result<(), VaultError> {
        self.store(shelf, values, |_, _, _| Ok(()))
    }

    /// Stores values in place of those before; durable after [`sync`](Self::sync).
    pub(crate) fn put<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
    ) -> Result<(), VaultError> {
        self.store(shelf, values, |key, pieces, batch| {
            self.remove_pieces(shelf, key, pieces, batch)
        })
    }

    /// `remove_behind` removes what a longer value before left behind the pieces of the new one.
    fn store<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
        remove_behind: impl Fn(&[u8], usize, &mut Batch) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        self.ready()?;
        #[cfg(test)]
        self.note(values);
        let mut long = self.put_short(shelf, values)?.peekable();
        if long.peek().is_none() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for (key, value) in long {
            let pieces = insert(&mut batch, key.as_ref(), value);
            remove_behind(key.as_ref(), pieces, &mut batch)?;
        }
        self.apply(shelf, batch)
    }

    /// Stores the values of one piece, which a power cut cannot tear, and gives back the others. A
    /// batch would make sled write out its buffer twice. A short first piece hides what a power cut
    /// leaves of a longer value before.
    fn put_short<'a, K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &'a [(K, Vec<u8>)],
    ) -> Result<impl Iterator<Item = &'a (K, Vec<u8>)> + use<'a, K>, VaultError> {
        let is_short = |value: &Vec<u8>| value.len() < PIECE_BYTES;
        for (key, value) in values.iter().filter(|(_, value)| is_short(value)) {
            let first = piece_key(key.as_ref(), 0);
            self.dirty.set(true);
            let before = self.tree(shelf).insert(first, value.as_slice()).map_err(self.failed())?;
            if before.is_some_and(|before| before.len() >= PIECE_BYTES) {
                let mut batch = Batch::default();
                self.remove_pieces(shelf, key.as_ref(), 1, &mut batch)?;
                self.apply(shelf, batch)?;
            }
        }
        Ok(values.iter().filter(move |(_, value)| !is_short(value)))
    }

    #[cfg(test)]
    fn note<K: AsRef<[u8]>>(&self, values: &[(K, Vec<u8>)]) {
        if let Some(rows) = &self.disk.rows {
            let owned = values.iter().map(|(key, value)| (key.as_ref().to_vec(), value.clone()));
            rows.lock().unwrap().extend(owned);
        }
    }

    /// A value, put together again.
    pub(crate) fn get(&self, shelf: Shelf, key: &[u8]) -> Result<Option<IVec>, VaultError> {
        value(self.tree(shelf), key).map_err(self.failed())
    }

    /// Whether a value is there.
    pub(crate) fn contains(&self, shelf: Shelf, key: &[u8]) -> Result<bool, VaultError> {
        self.tree(shelf).contains_key(piece_key(key, 0)).map_err(self.failed())
    }

    /// Removes values. Their bytes stay in sled's log for a while: only keys forget.
    pub(crate) fn remove<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        keys: &[K],
    ) -> Result<(), VaultError> {
        self.ready()?;
        let mut batch = Batch::default();
        for key in keys {
            self.remove_pieces(shelf, key.as_ref(), 0, &mut batch)?;
        }
        self.apply(shelf, batch)
    }

    fn remove_pieces(
        &self,
        shelf: Shelf,
        key: &[u8],
        from: usize,
        batch: &mut Batch,
    ) -> Result<(), VaultError> {
        for index in from.. {
            let key = piece_key(key, index);
            if !self.tree(shelf).contains_key(&key).map_err(self.failed())? {
                break;
            }
            batch.remove(key);
        }
        Ok(())
    }

    fn apply(&self, shelf: Shelf, batch: Batch) -> Result<(), VaultError> {
        self.dirty.set(true);
        self.tree(shelf).apply_batch(batch).map_err(self.failed())
    }

    /// The keys of all values that begin with `prefix`, in order; none whose removal was begun.
    pub(crate) fn keys<'a>(
        &'a self,
        shelf: Shelf,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Vec<u8>, VaultError>> + use<'a> {
        let first_piece = |key: &IVec| key.ends_with(&0u16.to_be_bytes());
        let not_removed = match shelf {
            Shelf::People => self.finish_removal().err(),
            Shelf::Store => None,
        };
        let keys = self
            .tree(shelf)
            .scan_prefix(prefix)
            .keys()
            .filter(move |key| key.as_ref().map_or(true, first_piece))
            .map(|key| key.map(|key| key[..key.len() - 2].to_vec()).map_err(self.failed()));
        not_removed.into_iter().map(Err).chain(keys)
    }

    /// Removes every value with an unwanted key among those that begin with `prefix`.
    pub(crate) fn remove_all(
        &self,
        shelf: Shelf,
        prefix: &[u8],
        is_unwanted: impl Fn(&[u8]) -> bool,
    ) -> Result<usize, VaultError> {
        let mut unwanted = Vec::new();
        for key in self.keys(shelf, prefix) {
            let key = key?;
            if is_unwanted(&key) {
                unwanted.push(key);
            }
        }
        for some in unwanted.chunks(REMOVED_AT_ONCE) {
            self.remove(shelf, some)?;
        }
        Ok(unwanted.len())
    }
}

/// A value of a tree, put together again.
pub(crate) fn value(tree: &Tree, key: &[u8]) -> sled::Result<Option<IVec>> {
    let piece = |index| tree.get(piece_key(key, index));
    let Some(first) = piece(0)? else { return Ok(None) };
    if first.len() < PIECE_BYTES {
        return Ok(Some(first));
    }
    let (mut value, mut last) = (first.to_vec(), first.len());
    for index in 1.. {
        if last < PIECE_BYTES {
            break;
        }
        let Some(next) = piece(index)? else { break };
        value.extend_from_slice(&next);
        last = next.len();
    }
    Ok(Some(value.into()))
}

/// Adds the pieces of a value to a batch and says how many there are.
fn insert(batch: &mut Batch, key: &[u8], value: &[u8]) -> usize {
    let pieces = value.chunks(PIECE_BYTES);
    pieces.enumerate().map(|(index, piece)| batch.insert(piece_key(key, index), piece)).count()
}

fn piece_key(key: &[u8], index: usize) -> Vec<u8> {
    let index = u16::try_from(index).expect("values are bounded far below 65,536 pieces");
    [key, &index.to_be_bytes()].concat()
}
