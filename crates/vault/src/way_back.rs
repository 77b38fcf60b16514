//! The way back to the format before, until somebody commits to the present one.
//!
//! A mark in the directory says where a migration came from; its file's time says when. The mark opens
//! nothing and holds nothing: who puts it back can only ask for what [`Vault::roll_back`] does, which
//! writes the vault of that moment.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use palmgate_protocol::Timestamp;

use crate::{
    disk::at, error::VaultError, inner::Inner, keys::FORMAT, migration::FIRST,
    opening::read_format, vault::Vault,
};

const MARK: &str = "way-back";

/// Where a vault came from and can go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// The format before the migration.
    pub format: u16,
    /// When it was migrated, by the system's clock.
    pub since: Timestamp,
}

/// What a vault is after [`Vault::roll_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The format that it has now.
    pub format: u16,
    /// Written releases among it. The first programs of that format do not know such a column, and
    /// remove it at their start.
    pub releases: usize,
}

impl Vault {
    /// The way back of the vault in `directory`, which may be open; `None` once the migration is
    /// committed, and for a vault that began in its format.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn way_back_in(directory: &Path) -> Result<Option<WayBack>, VaultError> {
        let path = mark(directory);
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at("look at", &path)(error)),
        };
        // A migration that was cut before its first step leaves the mark beside the format before.
        if Self::format_in(directory)? != Some(FORMAT) {
            return Ok(None);
        }
        Ok(Some(WayBack { format: FIRST, since: Timestamp::from_millis(found.mtime() * 1000) }))
    }

    /// The format of the vault in `directory`; `None` where there is none.
    ///
    /// # Errors
    /// The format's file cannot be read.
    pub fn format_in(directory: &Path) -> Result<Option<u16>, VaultError> {
        Ok(read_format(&directory.join("format"))?.map(|(format, _)| format))
    }

    /// As [`way_back_in`](Self::way_back_in), of this vault.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn way_back(&self) -> Result<Option<WayBack>, VaultError> {
        Self::way_back_in(&self.lock()?.directory)
    }

    /// Gives up the way back: from now on only programs that know the present format open this vault.
    /// Durable. Says whether there was one.
    ///
    /// # Errors
    /// The disk.
    pub fn commit_format(&self) -> Result<bool, VaultError> {
        let inner = self.lock()?;
        let found = mark(&inner.directory).exists();
        if found {
            inner.remove_way_back()?;
        }
        Ok(found)
    }

    /// Brings the vault to the format before, as it is now, for an older program, and closes it. Nothing
    /// from before the migration is put back: who was erased and what was forgotten since stays so, and
    /// what came since goes along. Durable when it returns. Cut off, the vault is whole in one of the two
    /// formats, and a new call finishes it.
    ///
    /// # Errors
    /// [`NoWayBack`](VaultError::NoWayBack); too little space for a copy of the rows; the disk or the
    /// keeper.
    pub fn roll_back(self) -> Result<RolledBack, VaultError> {
        let mut inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if inner.stopped {
            return Err(VaultError::Stopped);
        }
        if !mark(&inner.directory).exists() {
            return Err(VaultError::NoWayBack { path: inner.directory.clone(), format: FORMAT });
        }
        let releases = inner.take_back()?;
        Ok(RolledBack { format: FIRST, releases })
    }
}

impl Inner {
    pub(crate) fn mark_way_back(&self, format: u16) -> Result<(), VaultError> {
        // One that a cut start left keeps its time.
        let path = mark(&self.directory);
        if path.exists() && Vault::format_in(&self.directory)? == Some(FORMAT) {
            return Ok(());
        }
        self.disk.replace(&path, format!("palmgate vault {format}\n").as_bytes())
    }

    pub(crate) fn remove_way_back(&self) -> Result<(), VaultError> {
        self.disk.remove(&mark(&self.directory))?;
        self.disk.sync_directory(&self.directory)
    }
}

fn mark(directory: &Path) -> PathBuf {
    directory.join(MARK)
}
