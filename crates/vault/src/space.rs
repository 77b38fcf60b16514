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
};

/// Left free for others, the ledger first, where the reserve takes the last.
const LEFT_BYTES: u64 = 256 * 1024;

/// Makes the reserve so large, or as large as it can; without one the vault works all the same.
pub(crate) fn keep(disk: &Disk, path: &Path, bytes: u64) {
    if let Err(error) = try_keep(disk, path, bytes) {
        tracing::warn!(%error, "no space can be reserved for erasures");
    }
}

fn try_keep(disk: &Disk, path: &Path, bytes: u64) -> Result<(), VaultError> {
    let held = fs::metadata(path).map_or(0, |found| found.len());
    if held >= bytes {
        return Ok(());
    }
    let free = disk.available(path.parent().unwrap_or(path))?.saturating_sub(LEFT_BYTES);
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(at("open", path))?;
    let wanted = bytes.min(held + free).max(1);
    fallocate(&file, FallocateFlags::empty(), 0, wanted)
        .map_err(|errno| at("reserve", path)(errno.into()))
}
