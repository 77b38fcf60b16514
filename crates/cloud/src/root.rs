//! The root key: one small file with two slots that are overwritten in place, because a renamed
//! file leaves its old blocks, and with them the old key, on the medium.
//!
//! The promise is weaker than that of a TPM: flash that levels wear, a copy-on-write file system
//! or a snapshot may keep the old slot. Whoever needs more keeps the state directory on a medium
//! that overwrites in place, or the whole machine's disk under a key that can be destroyed.

use crate::files::{self, FileError};
use palmgate_protocol::Secret;
use palmgate_seal::{aead, random};
use ring::digest;
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 16] = b"palmgate-root-1\n";
/// A page of flash, so that no write touches both slots.
const SLOT_BYTES: u64 = 4096;
const SEALED_PART: usize = 16 + 8 + 32;
const RECORD: usize = SEALED_PART + 32;

/// A root key with its place in the sequence of root keys.
pub(crate) struct Root {
    pub(crate) generation: u64,
    pub(crate) key: aead::Key,
}

impl Root {
    pub(crate) fn fresh(generation: u64) -> Self {
        Self { generation, key: aead::Key::from_bytes(random::bytes()) }
    }
}

pub(crate) struct RootFile {
    path: PathBuf,
    file: File,
}

impl RootFile {
    /// A new file that holds `root`.
    pub(crate) fn create(path: &Path, root: &Root) -> Result<Self, FileError> {
        let file = files::create(path)?;
        let this = Self { path: path.into(), file };
        this.wipe(0)?;
        this.wipe(1)?;
        this.write(root)?;
        Ok(this)
    }

    /// Opens a file that other processes may have open, and destroys nothing.
    pub(crate) fn attach(path: &Path) -> Result<Self, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| FileError::new("open", path, error))?;
        Ok(Self { path: path.into(), file })
    }

    /// The root of a generation, if it is in the file.
    pub(crate) fn find(&self, generation: u64) -> Result<Option<Root>, FileError> {
        let found = self.read(generation % 2)?;
        Ok(found.filter(|root| root.generation == generation))
    }

    /// Makes `root` durable beside its predecessor.
    pub(crate) fn add(&self, root: &Root) -> Result<(), FileError> {
        self.write(root)
    }

    /// Destroys the root that is not of `generation`; `false` when there is none.
    pub(crate) fn keep_only(&self, generation: u64) -> Result<bool, FileError> {
        if self.is_empty(generation + 1)? {
            return Ok(false);
        }
        self.wipe(generation + 1).map(|()| true)
    }

    fn is_empty(&self, slot: u64) -> Result<bool, FileError> {
        let mut bytes = Secret::new(vec![0; SLOT_BYTES as usize]);
        self.file
            .read_exact_at(bytes.expose_mut(), slot % 2 * SLOT_BYTES)
            .map_err(|error| FileError::new("read", &self.path, error))?;
        Ok(bytes.expose().iter().all(|byte| *byte == 0))
    }

    /// Opens the file and returns the newest root; an older one, left by a crash in the middle
    /// of a replacement, is destroyed.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Root>), FileError> {
        let this = Self::attach(path)?;
        let newest = match (this.read(0)?, this.read(1)?) {
            (Some(a), Some(b)) => Some(if a.generation > b.generation { a } else { b }),
            (a, b) => a.or(b),
        };
        if let Some(root) = &newest {
            this.wipe(root.generation + 1)?;
        }
        Ok((this, newest))
    }

    /// Makes `next` durable, then destroys its predecessor.
    pub(crate) fn replace(&self, next: &Root) -> Result<(), FileError> {
        self.write(next)?;
        self.wipe(next.generation + 1)
    }

    fn write(&self, root: &Root) -> Result<(), FileError> {
        let mut record = Secret::new(Vec::with_capacity(RECORD));
        let bytes = record.expose_mut();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&root.generation.to_be_bytes());
        bytes.extend_from_slice(root.key.expose());
        let checksum = digest::digest(&digest::SHA256, bytes);
        bytes.extend_from_slice(checksum.as_ref());
        self.overwrite(root.generation, record.expose())
    }

    /// Zeroes the slot that `generation` would be in.
    fn wipe(&self, generation: u64) -> Result<(), FileError> {
        self.overwrite(generation, &[0; SLOT_BYTES as usize])
    }

    fn overwrite(&self, generation: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.file
            .write_all_at(bytes, generation % 2 * SLOT_BYTES)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| FileError::new("overwrite", &self.path, error))
    }

    fn read(&self, slot: u64) -> Result<Option<Root>, FileError> {
        let mut record = Secret::new(vec![0; RECORD]);
        self.file
            .read_exact_at(record.expose_mut(), slot * SLOT_BYTES)
            .map_err(|error| FileError::new("read", &self.path, error))?;
        Ok(decode(record.expose()))
    }
}

/// `None` for an empty or half-written slot.
fn decode(record: &[u8]) -> Option<Root> {
    let (content, checksum) = record.split_at_checked(SEALED_PART)?;
    let (generation, key) = content.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    if digest::digest(&digest::SHA256, content).as_ref() != checksum {
        return None;
    }
    let key = aead::Key::from_bytes(key.try_into().ok()?);
    Some(Root { generation: u64::from_be_bytes(*generation), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_contains(path: &Path, needle: &[u8]) -> bool {
        std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
    }

    #[test]
    fn a_replaced_root_is_gone_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let (first, second) = (Root::fresh(1), Root::fresh(2));
        let file = RootFile::create(&path, &first).unwrap();
        assert!(file_contains(&path, first.key.expose()), "the control: it was there");
        file.replace(&second).unwrap();
        assert!(!file_contains(&path, first.key.expose()));
        let (_, read) = RootFile::open(&path).unwrap();
        assert!(read.unwrap().key.expose() == second.key.expose());
    }

    #[test]
    fn a_crash_between_the_two_writes_leaves_one_root_after_opening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let (first, second) = (Root::fresh(1), Root::fresh(2));
        RootFile::create(&path, &first).unwrap().write(&second).unwrap();
        let (_, read) = RootFile::open(&path).unwrap();
        assert_eq!(read.unwrap().generation, 2);
        assert!(!file_contains(&path, first.key.expose()));
    }

    #[test]
    fn a_half_written_slot_leaves_the_old_root_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let file = RootFile::create(&path, &Root::fresh(1)).unwrap();
        file.overwrite(2, MAGIC).unwrap();
        let (_, read) = RootFile::open(&path).unwrap();
        assert_eq!(read.unwrap().generation, 1);
    }
}
