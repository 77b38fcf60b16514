//! The record store: sealed bytes in sled, under keys that are hashes.
//!
//! Two things sled 0.34 does not do are done here. Its flush ends in `sync_file_range`, which
//! leaves the file's size and the drive's cache alone, so a sync follows. And it writes a page over
//! a quarter of a segment to a file of its own that it never syncs; values are cut into pieces, and
//! segments are large, so that no page gets there.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fs::File,
    io, mem,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use sled::{Batch, Db, IVec, Tree};

use crate::{
    disk::{Disk, at, lock, names},
    error::VaultError,
};

/// Bytes of one piece of a value. A sled leaf has at most 16 items and some ten pending changes:
/// 26 pieces stay under a quarter of a segment.
const PIECE_BYTES: usize = 16 * 1024;
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const REMOVED_AT_ONCE: usize = 1_024;
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
    /// There until the drop.
    sled: Option<Sled>,
    file: Arc<File>,
    /// sled did not come back: nothing more is asked of it.
    stuck: Cell<bool>,
    /// A write failed: sled 0.34 answers with that error until it is opened anew.
    failed: Cell<bool>,
    /// Something was written since the last sync.
    dirty: Cell<bool>,
    /// Syncs and removes, one after the other: a thread for each would cost more than some syncs do.
    /// One of each waits at most.
    worker: OnceCell<mpsc::Sender<Work>>,
    /// A removal that was begun.
    removing: RefCell<Option<mpsc::Receiver<sled::Result<()>>>>,
}

/// Something for a thread to do.
type Work = Box<dyn FnOnce() + Send>;

/// A sync under way.
#[must_use]
pub(crate) struct Syncing(Option<mpsc::Receiver<Result<(), VaultError>>>);

struct Sled {
    db: Db,
    people: Tree,
    store: Tree,
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Err(error) = self.finish_removal() {
            tracing::warn!(%error, "removing unreadable rows failed");
        }
        let sled = self.sled.take();
        if self.stuck.get() {
            // Whoever waits for it waits for ever; the process gives it up with its end.
            mem::forget(sled);
        } else if attempt("close", move || drop(sled))
            .and_then(|closed| closed.recv_timeout(self.disk.patience.0).ok())
            .is_none()
        {
            tracing::warn!(path = %self.path.display(), "the record store could not be closed");
        }
    }
}

/// Does what sled may never come back from. When a write fails, sled 0.34 may wait for ever for the
/// word that it was done (a lost wake-up), and panics when its last sync fails. Neither may take
/// along the lock behind which erasures wait.
fn attempt<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<mpsc::Receiver<T>> {
    let (done, waits) = mpsc::sync_channel(1);
    let worker = thread::Builder::new().name(format!("records {name}"));
    worker.spawn(move || done.send(work())).ok()?;
    Some(waits)
}

/// Begins a thread that does what it is given, in turn; it ends with whoever gives.
fn worker() -> Option<mpsc::Sender<Work>> {
    let (give, take) = mpsc::channel::<Work>();
    let worker = thread::Builder::new().name("records worker".into());
    worker.spawn(move || take.into_iter().for_each(|work| work())).ok()?;
    Some(give)
}

impl Records {
    /// Opens or creates the store in its own directory.
    pub(crate) fn open(path: PathBuf, disk: Disk) -> Result<Self, VaultError> {
        let failed = |source| VaultError::Records { path: path.clone(), source };
        let log = path.join("db");
        if let Ok(earlier) = File::open(&log) {
            // sled lets go of its file some time after its drop.
            lock(&earlier, &log, disk.patience.0)?;
            earlier.unlock().map_err(at("unlock", &log))?;
        }
        remove_unfinished_snapshots(&path, &disk)?;
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
        Ok(Self {
            path,
            disk,
            sled: Some(Sled { db, people, store }),
            file: Arc::new(file),
            stuck: Cell::new(false),
            failed: Cell::new(false),
            dirty: Cell::new(true),
            worker: OnceCell::new(),
            removing: RefCell::default(),
        })
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
        self.ready()?;
        #[cfg(test)]
        self.note(values);
        let mut long = self.put_short(shelf, values)?.peekable();
        if long.peek().is_none() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for (key, value) in long {
            insert(&mut batch, key.as_ref(), value);
        }
        self.apply(shelf, batch)
    }

    /// Stores values in place of those before; durable after [`sync`](Self::sync).
    pub(crate) fn put<K: AsRef<[u8]>>(
        &self,
        shelf: Shelf,
        values: &[(K, Vec<u8>)],
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
            self.remove_pieces(shelf, key.as_ref(), pieces, &mut batch)?;
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
        let tree = self.tree(shelf);
        let piece = |index| tree.get(piece_key(key, index)).map_err(self.failed());
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

    /// Begins to remove all values with keys that begin with one of these: nobody has to wait for
    /// it, and every [`sync`](Self::sync) comes after it.
    ///
    /// # Errors
    /// The removal before this one failed, or this one could not begin.
    pub(crate) fn begin_removal<K: AsRef<[u8]> + Send + 'static>(
        &self,
        shelf: Shelf,
        prefixes: Vec<K>,
    ) -> Result<(), VaultError> {
        self.finish_removal()?;
        self.ready()?;
        let tree = self.tree(shelf).clone();
        self.dirty.set(true);
        let removing = self.begin(move || remove_groups(&tree, &prefixes))?;
        *self.removing.borrow_mut() = Some(removing);
        Ok(())
    }

    /// Waits until what [`begin_removal`](Self::begin_removal) began is done.
    pub(crate) fn finish_removal(&self) -> Result<(), VaultError> {
        let Some(waits) = self.removing.borrow_mut().take() else { return Ok(()) };
        // Whoever waited for a sync in vain has waited for this, too.
        let patience = if self.stuck.get() { Duration::ZERO } else { self.disk.patience.0 };
        let done = waits.recv_timeout(patience).unwrap_or_else(|_| {
            self.stuck.set(true);
            Err(sled::Error::Io(io::ErrorKind::TimedOut.into()))
        });
        done.map_err(self.failed())
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

    fn ready(&self) -> Result<(), VaultError> {
        if self.stuck.get() {
            return Err(self.timed_out());
        }
        self.disk.records().inspect_err(|_| self.failed.set(true))
    }

    /// Whether only opening it anew can help.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), VaultError> {
        self.finish_sync(self.begin_sync()?)
    }

    /// Begins to make everything written so far durable.
    pub(crate) fn begin_sync(&self) -> Result<Syncing, VaultError> {
        self.ready()?;
        if !self.dirty.get() {
            return Ok(Syncing(None));
        }
        let (db, file, path) = (self.sled().db.clone(), Arc::clone(&self.file), self.path.clone());
        let work = move || {
            let flushed = db.flush().map(drop);
            flushed.map_err(|source| VaultError::Records { path: path.clone(), source })?;
            file.sync_data().map_err(at("sync", &path))
        };
        let begun = self.begin(work)?;
        self.dirty.set(false);
        Ok(Syncing(Some(begun)))
    }

    /// Waits until what [`begin_sync`](Self::begin_sync) began is done.
    pub(crate) fn finish_sync(&self, syncing: Syncing) -> Result<(), VaultError> {
        let Some(waits) = syncing.0 else { return Ok(()) };
        let done = waits.recv_timeout(self.disk.patience.0).unwrap_or_else(|_| {
            self.stuck.set(true);
            Err(self.timed_out())
        });
        done.inspect_err(|_| {
            self.dirty.set(true);
            self.failed.set(true);
        })
    }

    /// Gives the worker something to do after what it has.
    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<mpsc::Receiver<T>, VaultError> {
        let (done, waits) = mpsc::sync_channel(1);
        let work: Work = Box::new(move || drop(done.send(work())));
        self.worker()?.send(work).map_err(|_| self.timed_out())?;
        Ok(waits)
    }

    fn worker(&self) -> Result<&mpsc::Sender<Work>, VaultError> {
        if let Some(worker) = self.worker.get() {
            return Ok(worker);
        }
        let begun = worker().ok_or_else(|| self.timed_out())?;
        Ok(self.worker.get_or_init(|| begun))
    }

    fn timed_out(&self) -> VaultError {
        self.failed()(sled::Error::Io(io::ErrorKind::TimedOut.into()))
    }

    /// A number that no call gave before, larger than all of them, restarts included.
    pub(crate) fn next_number(&self) -> Result<u64, VaultError> {
        self.sled().db.generate_id().map_err(self.failed())
    }

    fn sled(&self) -> &Sled {
        self.sled.as_ref().expect("it is there until the drop")
    }

    fn tree(&self, shelf: Shelf) -> &Tree {
        match shelf {
            Shelf::People => &self.sled().people,
            Shelf::Store => &self.sled().store,
        }
    }

    fn failed(&self) -> impl Fn(sled::Error) -> VaultError {
        let path = self.path.clone();
        move |source| {
            self.failed.set(true);
            VaultError::Records { path: path.clone(), source }
        }
    }
}

fn remove_groups<K: AsRef<[u8]>>(tree: &Tree, prefixes: &[K]) -> sled::Result<()> {
    for prefix in prefixes {
        let keys = tree.scan_prefix(prefix).keys().collect::<sled::Result<Vec<_>>>()?;
        // From the last piece to the first, by which the next start would find the others.
        for key in keys.iter().rev() {
            tree.remove(key)?;
        }
    }
    Ok(())
}

/// sled takes a snapshot that a power cut left half written for a whole one, and refuses to open.
fn remove_unfinished_snapshots(directory: &Path, disk: &Disk) -> Result<(), VaultError> {
    for name in names(directory)? {
        if name.starts_with("snap.") && name.ends_with(".generating") {
            disk.remove(&directory.join(name))?;
        }
    }
    Ok(())
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
