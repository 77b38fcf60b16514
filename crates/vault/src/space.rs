//! A file that holds nothing but space, given up when the disk is full and somebody is erased.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate};

/// Makes the reserve at least so large, if it can; without one the vault works all the same.
pub(crate) fn keep(path: &Path, bytes: u64) {
    if let Err(error) = try_keep(path, bytes) {
        tracing::warn!(%error, path = %path.display(), "no space can be reserved for erasures");
        let _ = fs::remove_file(path);
    }
}

fn try_keep(path: &Path, bytes: u64) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() >= bytes) {
        return Ok(());
    }
    let file =
        OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
}
