//! Files that only the terminal may read, written so that a power cut leaves the old or the new.

use crate::TerminalError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// No file of a terminal is larger; the session is the largest with some 10 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Makes the directory with mode 0700; one that is there must not be open to others.
pub(crate) fn private_directory(path: &Path) -> Result<(), TerminalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(TerminalError::file("create the directory", path))?;
    refuse_exposed(path, 0o700)
}

/// Refuses a file or directory that group or others may use.
pub(crate) fn refuse_exposed(path: &Path, wanted: u32) -> Result<(), TerminalError> {
    let metadata = fs::metadata(path).map_err(TerminalError::file("inspect", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    let exposed = mode & 0o077;
    if exposed == 0 {
        Ok(())
    } else {
        Err(TerminalError::Exposed { path: path.into(), mode, wanted })
    }
}

/// Replaces a file durably: when it returns, a power cut cannot bring the old content back.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TerminalError> {
    replace(path, bytes).map_err(TerminalError::file("write", path))
}

/// Makes a private file of zeros, durably, to be written in place.
pub(crate) fn create(path: &Path, length: usize) -> io::Result<()> {
    replace(path, &vec![0; length])
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory_of(path)
}

/// Deletes a file durably; one that is not there is deleted already.
pub(crate) fn delete(path: &Path) -> Result<(), TerminalError> {
    remove(path).and_then(|()| sync_directory_of(path)).map_err(TerminalError::file("delete", path))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a file; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, TerminalError> {
    let doing = TerminalError::file("read", path);
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(doing(error)),
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(doing)?;
            Ok(Some(bytes))
        }
    }
}

/// Keeps other processes out of the directory for as long as the file is held.
pub(crate) fn lock(directory: &Path) -> Result<File, TerminalError> {
    let path: PathBuf = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(TerminalError::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TerminalError::InUse(directory.into())),
        Err(TryLockError::Error(error)) => Err(TerminalError::file("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_private_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("till-1");
        private_directory(&directory).unwrap();
        let path = directory.join("session.sealed");
        assert!(read(&path).unwrap().is_none());
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_leftover_of_a_power_cut_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("session.sealed");
        fs::write(root.path().join("session.sealed.new"), b"half").unwrap();
        write(&path, b"whole").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"whole");
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let refused = private_directory(root.path()).unwrap_err();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
    }

    #[test]
    fn a_directory_serves_one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = lock(root.path()).unwrap();
        assert!(matches!(lock(root.path()), Err(TerminalError::InUse(_))));
        drop(first);
        lock(root.path()).unwrap();
    }
}
