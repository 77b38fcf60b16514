//! The record store: sealed bytes in sled, under keys that are hashes.
//!
//! Two things sled 0.34 does not do are done here. Its flush ends in `sync_file_range`, which
//! leaves the file's size and the drive's cache alone, so a sync follows. And it writes a page over
//! a quarter of a segment to a file of its own that it never syncs; values are cut into pieces, and
//! segments are large, so that no page gets there.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use sled::{Batch, Db, IVec, Tree};

use crate::{
    disk::{Disk, at, lock},
    error::VaultError,
};

/// Bytes of one piece of a value. A sled leaf has at most 16 items and some ten pending changes:
/// 26 pieces stay under a quarter of a segment.
const PIECE_BYTES: usize = 16 * 1024;
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const REMOVED_AT_ONCE: usize = 1_024;
const CLOSING_TAKES: Duration = Duration::from_secs(10);
const SYNC_EVERY_MILLIS: u64 = 1_000;

/// Which tree a value is in.
#[derive(Clone, Copy)]
pub(crate) enum Shelf {
    /// Columns of people.
    People,
    /// Store-level state and the outbox.
    Store,
}

/// sled, and what it takes to make it durable.
pub(crate) struct Records {
    path: PathBuf,
    disk: Disk,
    db: Db,
    people: Tree,
    store: Tree,
    file: File,
}

impl Records {
    /// Opens or creates the store in its own directory.
    pub(crate) fn open(path: PathBuf, disk: Disk) -> Result<Self, VaultError> {
        let failed = |source| VaultError::Records { path: path.clone(), source };
        let log = path.join("db");
        if let Ok(earlier) = File::open(&log) {
            // sled lets go of its file some time after its drop.
            lock(&earlier, &log, CLOSING_TAKES)?;
            earlier.unlock().map_err(at("unlock", &log))?;
        }
        let db = sled::Config::new()
            .path(&path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(SYNC_EVERY_MILLIS))
            .open()
            .map_err(failed)?;
        let people = db.open_tree("people").map_err(failed)?;
        let store = db.open_tree("store").map_err(failed)?;
        let file = File::open(&log).map_err(at("open", &log))?;
        Ok(Self { path, disk, db, people, store, file })
    }

    /// Where sled works.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores values under keys that are new; durable after [`sync`](Self::sync).
    pub(crate) fn add<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
    ) -> Result<(), VaultError> {
        self.disk.records()?;
        let mut batch = Batch::default();
        for (key, value) in values {
            insert(&mut batch, key.as_ref(), value);
        }
        self.tree(shelf).apply_batch(batch).map_err(self.failed())
    }

    /// Stores values in place of those before; durable after [`sync`](Self::sync).
    pub(crate) fn put<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
    ) -> Result<(), VaultError> {
        self.disk.records()?;
        let mut batch = Batch::default();
        for (key, value) in values {
            let pieces = insert(&mut batch, key.as_ref(), value);
            for old in self.piece_keys(shelf, key.as_ref()).skip(pieces) {
                batch.remove(old?);
            }
        }
        self.tree(shelf).apply_batch(batch).map_err(self.failed())
    }

    /// A value, put together again.
    pub(crate) fn get(&self, shelf: Shelf, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let mut found = None;
        for piece in self.tree(shelf).scan_prefix(key).values() {
            found.get_or_insert_with(Vec::new).extend_from_slice(&piece.map_err(self.failed())?);
        }
        Ok(found)
    }

    /// Whether a value is there.
    pub(crate) fn contains(&self, shelf: Shelf, key: &[u8]) -> Result<bool, VaultError> {
        self.piece_keys(shelf, key).next().transpose().map(|found| found.is_some())
    }

    /// Removes values. Their bytes stay in sled's log for a while: only keys forget.
    pub(crate) fn remove<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        keys: &[K],
    ) -> Result<(), VaultError> {
        self.disk.records()?;
        let mut batch = Batch::default();
        for key in keys {
            for piece in self.piece_keys(shelf, key.as_ref()) {
                batch.remove(piece?);
            }
        }
        self.tree(shelf).apply_batch(batch).map_err(self.failed())
    }

    /// The keys of all values that begin with `prefix`, in order.
    pub(crate) fn keys<'a>(
        &'a self,
        shelf: Shelf,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Vec<u8>, VaultError>> + use<'a> {
        let first_piece = |key: &IVec| key.ends_with(&0u16.to_be_bytes());
        self.tree(shelf)
            .scan_prefix(prefix)
            .keys()
            .filter(move |key| key.as_ref().map_or(true, first_piece))
            .map(|key| key.map(|key| key[..key.len() - 2].to_vec()).map_err(self.failed()))
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

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), VaultError> {
        self.disk.records()?;
        self.db.flush().map_err(self.failed())?;
        self.file.sync_data().map_err(at("sync", &self.path))
    }

    /// A number that no call gave before, larger than all of them, restarts included.
    pub(crate) fn next_number(&self) -> Result<u64, VaultError> {
        self.db.generate_id().map_err(self.failed())
    }

    fn piece_keys(
        &self,
        shelf: Shelf,
        key: &[u8],
    ) -> impl Iterator<Item = Result<IVec, VaultError>> {
        self.tree(shelf).scan_prefix(key).keys().map(|found| found.map_err(self.failed()))
    }

    fn tree(&self, shelf: Shelf) -> &Tree {
        match shelf {
            Shelf::People => &self.people,
            Shelf::Store => &self.store,
        }
    }

    fn failed(&self) -> impl Fn(sled::Error) -> VaultError {
        let path = self.path.clone();
        move |source| VaultError::Records { path: path.clone(), source }
    }
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
