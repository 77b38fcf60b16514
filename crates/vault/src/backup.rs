//! Backups that bring nobody back: sealed rows and nothing that opens them.
//!
//! The keys stay where they are forgotten. A backup of the record store, put back under the key
//! table of today, is as good as that table: rows of people who were erased since have no key, and
//! the next start sweeps them. Sessions of terminals are in no backup, for an old one could open old
//! messages: terminals join again by themselves.

use std::{
    fs::{self, File},
    path::Path,
};

use crate::{
    disk::{Disk, at, names},
    error::VaultError,
};

const NO_BACKUP: &str = "name a directory that Vault::backup wrote";

/// Copies the record store, which must not be written meanwhile, into a new directory.
pub(crate) fn save(disk: &Disk, records: &Path, to: &Path) -> Result<(), VaultError> {
    if !names(to)?.is_empty() {
        let (path, source) = (to.to_path_buf(), std::io::ErrorKind::DirectoryNotEmpty.into());
        return Err(VaultError::Io { action: "write a backup into", path, source });
    }
    copy(disk, records, to)
}

/// Puts a saved record store in the place of the present one.
pub(crate) fn put_back(disk: &Disk, directory: &Path, backup: &Path) -> Result<(), VaultError> {
    if !backup.join("db").is_file() {
        return Err(VaultError::Missing { path: backup.join("db"), remedy: NO_BACKUP });
    }
    let records = directory.join("records");
    let (new, old) = (directory.join("records.new"), directory.join("records.old"));
    remove(&new)?;
    copy(disk, backup, &new)?;
    // The next start has to sweep.
    disk.remove(&directory.join("tidy"))?;
    if records.exists() {
        remove(&old)?;
        fs::rename(&records, &old).map_err(at("rename to", &old))?;
    }
    fs::rename(&new, &records).map_err(at("rename to", &records))?;
    disk.sync_directory(directory)?;
    remove(&old)
}

fn copy(disk: &Disk, from: &Path, to: &Path) -> Result<(), VaultError> {
    disk.create_directory(to)?;
    for name in names(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy(disk, &source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(at("copy", &source))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(at("sync", &target))?;
        }
    }
    disk.sync_directory(to)
}

fn remove(path: &Path) -> Result<(), VaultError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(at("remove", path)),
    }
}
