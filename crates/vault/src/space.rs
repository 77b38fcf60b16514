//! A file that holds nothing but space, given up when the disk is full and somebody is erased.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    disk::{Disk, at},
    error::VaultError,
    keys::KeyTable,
};

/// Left free for others, the ledger first, where the reserve takes the last.
const LEFT_BYTES: u64 = 256 * 1024;

const FILE: &str = "reserve";

/// Bytes to keep for an erasure: two more key tables, and what sled may write.
pub(crate) fn needed(table: &KeyTable) -> u64 {
    4 * 1024 * 1024 + 2 * table.bytes()
}

/// Refuses when the rest is needed for erasures. sled does not recover from a full disk without a
/// restart, so the last space is never given to it for anything else.
pub(crate) fn check(disk: &Disk, directory: &Path, needed: u64) -> Result<(), VaultError> {
    let available = disk.available(directory)?;
    if available < needed {
        return Err(VaultError::DiskFull { path: directory.to_path_buf(), available, needed });
    }
    Ok(())
}

/// Gives up the reserve when the disk is full, so that forgetting goes on.
pub(crate) fn make_room(disk: &Disk, directory: &Path, needed: u64) -> Result<(), VaultError> {
    if disk.available(directory)? < needed { disk.remove(&directory.join(FILE)) } else { Ok(()) }
}

/// Makes the reserve so large, or as large as it can; without one the vault works all the same.
pub(crate) fn keep(disk: &Disk, directory: &Path, needed: u64) {
    if let Err(error) = try_keep(disk, directory, needed) {
        tracing::warn!(%error, "no space can be reserved for erasures");
    }
}

fn try_keep(disk: &Disk, directory: &Path, needed: u64) -> Result<(), VaultError> {
    let path = &directory.join(FILE);
    let held = fs::metadata(path).map_or(0, |found| found.len());
    if held >= needed {
        return Ok(());
    }
    let free = disk.available(directory)?.saturating_sub(LEFT_BYTES);
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(at("open", path))?;
    let wanted = needed.min(held + free).max(1);
    fallocate(&file, FallocateFlags::empty(), 0, wanted)
        .map_err(|errno| at("reserve", path)(errno.into()))
}
