//! The record store: sealed bytes in sled, under keys that are hashes.
//!
//! Two things sled 0.34 does not do are done here. Its flush ends in `sync_file_range`, which
//! leaves the file's size and the drive's cache alone, so a sync follows. And it writes a page over
//! a quarter of a segment to a file of its own that it never syncs; values are cut into pieces
//! ([`rows`]), and segments are large, so that no page gets there.

mod rows;

pub(crate) use rows::value;

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::fs::{Advice, fadvise};
use sled::{Db, Tree};

use crate::{
    disk::{Disk, at, lock, names},
    error::VaultError,
    worker::{Worker, attempt},
};

const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
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
    failed: AtomicBool,
    /// Something was written since the last sync.
    dirty: Cell<bool>,
    /// Syncs and removes, one after the other. When a write fails, sled 0.34 may wait for ever for the
    /// word that it was done (a lost wake-up), and panics when its last sync fails. Neither may take
    /// along the lock behind which erasures wait. One of each waits at most.
    worker: Worker,
    /// A removal that was begun.
    removing: RefCell<Option<mpsc::Receiver<sled::Result<()>>>>,
    /// Reading ahead, which holds the file open until it is done.
    ahead: Option<mpsc::Receiver<()>>,
}

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
        if let Some(ahead) = &self.ahead
            && !self.stuck.get()
        {
            let _ = ahead.recv_timeout(self.disk.patience.0);
        }
        let sled = self.sled.take();
        if self.stuck.get() {
            // Whoever waits for it waits for ever; the process gives it up with its end.
            mem::forget(sled);
        } else if attempt("records close", move || drop(sled))
            .and_then(|closed| closed.recv_timeout(self.disk.patience.0).ok())
            .is_none()
        {
            tracing::warn!(path = %self.path.display(), "the record store could not be closed");
        }
    }
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
        let ahead = attempt("records ahead", {
            let log = log.clone();
            move || read_ahead(&log)
        });
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
            failed: AtomicBool::new(false),
            dirty: Cell::new(true),
            worker: Worker::new("records worker"),
            removing: RefCell::default(),
            ahead,
        })
    }

    /// Where sled works.
    pub(crate) fn path(&self) -> &Path {
        &self.path
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

    fn ready(&self) -> Result<(), VaultError> {
        if self.stuck.get() {
            return Err(self.timed_out());
        }
        self.disk.records().inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }

    /// Whether only opening it anew can help.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
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
            self.failed.store(true, Ordering::Relaxed);
        })
    }

    /// Gives the worker something to do after what it has.
    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<mpsc::Receiver<T>, VaultError> {
        self.worker.begin(work).ok_or_else(|| self.timed_out())
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

    pub(crate) fn tree(&self, shelf: Shelf) -> &Tree {
        match shelf {
            Shelf::People => &self.sled().people,
            Shelf::Store => &self.sled().store,
        }
    }

    /// Where a failure of a read is noted.
    pub(crate) const fn failure(&self) -> &AtomicBool {
        &self.failed
    }

    pub(crate) fn failed(&self) -> impl Fn(sled::Error) -> VaultError {
        |source| {
            self.failed.store(true, Ordering::Relaxed);
            VaultError::Records { path: self.path.clone(), source }
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

/// Has the system take the log into its cache while it has room: sled reads one page after the other,
/// and would wait for the disk at each.
fn read_ahead(log: &Path) {
    if let Ok(file) = File::open(log) {
        let _ = fadvise(&file, 0, None, Advice::WillNeed);
    }
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
