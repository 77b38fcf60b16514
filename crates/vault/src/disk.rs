//! File operations: each names its path when it fails, and each is one [`Step`], so that a test
//! can cut the power before, in the middle of and after every one of them.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    thread::sleep,
    time::Duration,
};

use palmgate_protocol::Secret;

use crate::{error::VaultError, worker::Worker};

const POLL_EVERY: Duration = Duration::from_millis(5);

/// One change of the file system.
pub(crate) enum Step<'a> {
    /// Bytes at an offset, created with mode 0600 where missing; on the medium only after `Sync`.
    Write { path: &'a Path, offset: u64, bytes: &'a [u8], truncate: bool },
    /// Several writes into one file, in any order; on the medium only after `Sync`.
    WriteParts { path: &'a Path, parts: &'a [Part] },
    /// Contents and length of a file onto the medium.
    Sync { path: &'a Path },
    /// A second name for a file.
    Link { from: &'a Path, to: &'a Path },
    /// A new name, replacing what had it.
    Rename { from: &'a Path, to: &'a Path },
    /// A name taken away; no error where it is not there.
    Remove { path: &'a Path },
    /// Names of a directory onto the medium.
    SyncDirectory { path: &'a Path },
    /// sled is about to write; nothing to do here.
    Records,
}

/// Bytes for a place in a file.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Step<'_> {
    /// Does it.
    pub(crate) fn apply(&self) -> Result<(), VaultError> {
        match *self {
            Self::Write { path, offset, bytes, truncate } => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(truncate)
                .mode(0o600)
                .open(path)
                .and_then(|file| file.write_all_at(bytes, offset))
                .map_err(at("write", path)),
            Self::WriteParts { path, parts } => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .and_then(|file| {
                    parts.iter().try_for_each(|part| file.write_all_at(&part.bytes, part.offset))
                })
                .map_err(at("write", path)),
            Self::Sync { path } => {
                File::open(path).and_then(|file| file.sync_data()).map_err(at("sync", path))
            }
            Self::Link { from, to } => fs::hard_link(from, to).map_err(at("link", to)),
            Self::Rename { from, to } => fs::rename(from, to).map_err(at("rename to", to)),
            Self::Remove { path } => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(at("remove", path)),
            },
            Self::SyncDirectory { path } => {
                File::open(path).and_then(|file| file.sync_all()).map_err(at("sync", path))
            }
            Self::Records => Ok(()),
        }
    }
}

/// The way to all files but sled's own.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) fuse: Option<std::sync::Arc<crate::tests::fuse::Fuse>>,
    /// Every row ever handed to the record store, if a test wants to know.
    #[cfg(test)]
    pub(crate) rows: Option<Rows>,
    /// How long sled is waited for.
    pub(crate) patience: Patience,
}

/// How long sled is waited for. A disk that takes longer is as good as none.
#[derive(Clone, Copy)]
pub(crate) struct Patience(pub(crate) Duration);

impl Default for Patience {
    /// Less than a watchdog's usual patience. Tests run beside others, on disks that are busy.
    fn default() -> Self {
        Self(Duration::from_secs(if cfg!(test) { 120 } else { 20 }))
    }
}

/// A file that is being made durable.
#[must_use]
pub(crate) struct FileSync(Begun);

enum Begun {
    Beside(PathBuf, Receiver<Result<(), VaultError>>),
    Done(Result<(), VaultError>),
}

impl FileSync {
    /// Nothing is under way.
    pub(crate) const fn none() -> Self {
        Self(Begun::Done(Ok(())))
    }

    /// Waits until it is durable.
    pub(crate) fn finish(self) -> Result<(), VaultError> {
        match self.0 {
            Begun::Beside(path, waits) => {
                let lost = |_| Err(at("sync", &path)(io::ErrorKind::BrokenPipe.into()));
                waits.recv().unwrap_or_else(lost)
            }
            Begun::Done(done) => done,
        }
    }
}

/// Keys of rows with their sealed values, in the order in which they were written.
#[cfg(test)]
pub(crate) type Rows = std::sync::Arc<std::sync::Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

impl Disk {
    /// Replaces a file as a whole: afterwards either all of the old or all of the new is there,
    /// and the new is durable when this returns.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        let new = beside(path, ".new");
        self.step(&Step::Write { path: &new, offset: 0, bytes, truncate: true })?;
        self.step(&Step::Sync { path: &new })?;
        self.step(&Step::Rename { from: &new, to: path })?;
        self.step(&Step::SyncDirectory { path: parent(path) })
    }

    /// Writes in place; durable only after a [`sync`](Self::sync).
    pub(crate) fn write_at(
        &self,
        path: &Path,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), VaultError> {
        self.step(&Step::Write { path, offset, bytes, truncate: false })
    }

    /// Writes in several places; durable only after a [`sync`](Self::sync).
    pub(crate) fn write_parts(&self, path: &Path, parts: &[Part]) -> Result<(), VaultError> {
        self.step(&Step::WriteParts { path, parts })
    }

    /// Makes a file's contents durable.
    pub(crate) fn sync(&self, path: &Path) -> Result<(), VaultError> {
        self.step(&Step::Sync { path })
    }

    /// Overwrites a file in place, then removes it. On flash the overwritten blocks may live on.
    pub(crate) fn destroy(&self, path: &Path) -> Result<(), VaultError> {
        let Some(length) = length(path)? else { return Ok(()) };
        self.write_at(path, 0, &vec![0; length as usize])?;
        self.sync(path)?;
        self.remove(path)
    }

    /// Removes a name, where it is there; durable with the directory's next sync.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), VaultError> {
        self.step(&Step::Remove { path })
    }

    /// Begins to make a file's contents durable, beside whoever asks.
    pub(crate) fn begin_sync(&self, worker: &Worker, path: &Path) -> FileSync {
        let (disk, owned) = (self.clone(), path.to_path_buf());
        match worker.begin(move || disk.sync(&owned)) {
            Some(waits) => FileSync(Begun::Beside(path.to_path_buf(), waits)),
            None => FileSync(Begun::Done(self.sync(path))),
        }
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&self, path: &Path) -> Result<(), VaultError> {
        self.step(&Step::SyncDirectory { path })
    }

    /// Gives a file a second name.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> Result<(), VaultError> {
        self.step(&Step::Link { from, to })
    }

    /// Creates a directory that only its owner may enter, parents too, and keeps it if it exists.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<(), VaultError> {
        if path.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create", path))?;
        self.step(&Step::SyncDirectory { path: parent(path) })
    }

    /// Called before sled writes or syncs.
    pub(crate) fn records(&self) -> Result<(), VaultError> {
        self.step(&Step::Records)
    }

    /// Bytes that may still be written below `path`.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only a test has a fuse"))]
    pub(crate) fn available(&self, path: &Path) -> Result<u64, VaultError> {
        #[cfg(test)]
        if let Some(bytes) = self.fuse.as_ref().and_then(|fuse| fuse.available()) {
            return Ok(bytes);
        }
        let found = rustix::fs::statvfs(path)
            .map_err(|errno| at("ask the free space of", path)(errno.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only a test has a fuse"))]
    fn step(&self, step: &Step<'_>) -> Result<(), VaultError> {
        #[cfg(test)]
        if let Some(fuse) = &self.fuse {
            return fuse.step(step);
        }
        step.apply()
    }
}

/// The contents of a file, if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Secret::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// The names in a directory; none where it is missing.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, VaultError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("list", directory))?,
    };
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| entry.map(name).map_err(at("list", directory))).collect()
}

/// Takes the lock of a file, waiting so long for its holder to let go.
pub(crate) fn lock(file: &File, path: &Path, patience: Duration) -> Result<(), VaultError> {
    let mut left = patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(at("lock", path)(error)),
            Err(TryLockError::WouldBlock) if left.is_zero() => {
                return Err(VaultError::InUse { path: path.to_path_buf() });
            }
            Err(TryLockError::WouldBlock) => {
                sleep(POLL_EVERY);
                left = left.saturating_sub(POLL_EVERY);
            }
        }
    }
}

/// Says what was tried and where.
pub(crate) fn at<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> VaultError + 'a {
    move |source| VaultError::Io { action, path: path.to_path_buf(), source }
}

/// The path with `ending` behind its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// The directory that has a path in it.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The length of a file, if it is there.
pub(crate) fn length(path: &Path) -> Result<Option<u64>, VaultError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("look at", path)(error)),
    }
}
