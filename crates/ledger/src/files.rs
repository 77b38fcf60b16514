//! Files whose every failure names its path.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// A file or directory of the ledger could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Adds what was tried, and on which path, to an error of the system.
pub(crate) fn io<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { action, path: path.into(), source }
}

/// Where the parts of a ledger are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn entries(&self) -> PathBuf {
        self.dir.join("entries")
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.entries().join(format!("{number:06}.jsonl"))
    }

    pub(crate) fn hashes(&self) -> PathBuf {
        self.dir.join("hashes")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }
}

/// Makes created, renamed and removed names of `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("make durable", dir))
}

/// The directory that has `path` in it.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Replaces the file durably: after a crash at any point it has the old or the new content.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft).map_err(io("create", &draft))?;
    file.write_all(content).map_err(io("write", &draft))?;
    file.sync_all().map_err(io("make durable", &draft))?;
    fs::rename(&draft, path).map_err(io("put in place", path))?;
    sync_dir(parent(path))
}

/// The text, or `None` when there is no such file; what follows `limit` bytes is not read.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text).map_err(io("read", path))?;
    Ok(Some(text))
}
