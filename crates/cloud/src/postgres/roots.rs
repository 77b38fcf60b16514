//! Root keys that several processes share: one file for each partition, in a directory that all of
//! them see. Which generation is in force says the database; a file holds that one, and during a
//! replacement the next.
//!
//! Only who holds the partition's row in the database locked writes here. The directory belongs on
//! a volume that overwrites in place and is neither backed up nor copied: a backup of the database
//! then opens nobody who was erased since.

use crate::{
    files::FileError,
    root::{Root, RootFile},
};
use palmgate_protocol::Name;
use std::path::{Path, PathBuf};

pub(super) struct Roots(PathBuf);

impl Roots {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.into())
    }

    /// The root of this generation; `None` when it was destroyed, or never was.
    pub(super) fn read(
        &self,
        partition: &Name,
        generation: u64,
    ) -> Result<Option<Root>, FileError> {
        match RootFile::attach(&self.path(partition)) {
            Err(error) if error.is_missing() => Ok(None),
            file => file?.find(generation),
        }
    }

    /// Makes a root durable beside the one in force.
    pub(super) fn add(&self, partition: &Name, root: &Root) -> Result<(), FileError> {
        let path = self.path(partition);
        match RootFile::attach(&path) {
            Err(error) if error.is_missing() => RootFile::create(&path, root).map(drop),
            file => file?.add(root),
        }
    }

    /// Destroys every root but that of this generation. `false` when that was all there was.
    pub(super) fn keep_only(&self, partition: &Name, generation: u64) -> Result<bool, FileError> {
        RootFile::attach(&self.path(partition))?.keep_only(generation)
    }

    fn path(&self, partition: &Name) -> PathBuf {
        self.0.join(format!("{partition}.root"))
    }
}
