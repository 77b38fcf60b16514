//! The key table: one random key for each person's rows, all of them under the root key.
//!
//! New keys are appended. To destroy a key, the table is written without it under a new root,
//! the new root is made durable and the old one destroyed; what is left of the old table on the
//! medium can then be opened by nobody. A key is named by a random [`KeyId`], so that the table
//! says nothing about people.

use crate::{
    files::{self, FileError},
    root::{Root, RootFile},
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{Name, Secret, decode, encode_for_sealing};
use palmgate_seal::{aead, random};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

pub(crate) const KEY_ID_BYTES: usize = 16;

/// Names a key of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(pub(crate) [u8; KEY_ID_BYTES]);

/// Why the key table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no readable root key: without it nothing in this state directory can be opened.
    #[error("{} holds no root key: restore the whole state directory or begin a new one", .0.display())]
    NoRoot(PathBuf),
    /// The table was changed by something else than this program.
    #[error("{} is damaged: restore the whole state directory", .0.display())]
    Damaged(PathBuf),
    /// An earlier write failed, so what is durable is unknown.
    #[error("an earlier write to the key table failed: start the service anew")]
    Unsure,
}

/// Keys that live as long as the state directory and open nothing biometric.
pub(crate) struct FixedKeys {
    /// Seals what is about no person: chains, removals, erasures.
    pub(crate) state: aead::Key,
    /// Hides ids in the names of rows.
    pub(crate) index: [u8; 32],
    /// Hides ids in tombstones; the tenant's stores know it too.
    pub(crate) tombstone: [u8; 32],
}

#[derive(Encode, Decode)]
enum Frame {
    #[n(0)]
    Fixed {
        #[n(0)]
        state: Secret<Vec<u8>>,
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        index: [u8; 32],
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        tombstone: [u8; 32],
    },
    /// Any number of a key's name, then the key.
    #[n(1)]
    People(#[n(0)] Secret<Vec<u8>>),
}

const ENTRY_BYTES: usize = KEY_ID_BYTES + 32;
/// People in one frame when the whole table is written: one for each would cost seconds.
const PEOPLE_PER_FRAME: usize = 1024;

pub(crate) struct KeyTable {
    directory: PathBuf,
    tenant: Name,
    root_file: RootFile,
    log: Log,
    fixed: FixedKeys,
    keys: HashMap<KeyId, aead::Key>,
    unsure: bool,
}

impl KeyTable {
    /// A table without people.
    pub(crate) fn create(directory: &Path, tenant: &Name) -> Result<(), KeyError> {
        files::create_directory(directory)?;
        let root = Root::fresh(1);
        let fixed = FixedKeys {
            state: aead::Key::generate(),
            index: random::bytes(),
            tombstone: random::bytes(),
        };
        let (path, key) = (table_path(directory, 1), root.key.duplicate());
        Log::write(path, tenant, 1, key, &fixed, std::iter::empty())?;
        RootFile::create(&root_path(directory), &root)?;
        files::sync_directory(directory)?;
        Ok(())
    }

    /// Opens the table and destroys what an interrupted replacement left.
    pub(crate) fn open(directory: &Path, tenant: &Name) -> Result<Self, KeyError> {
        let (root_file, root) = RootFile::open(&root_path(directory))?;
        let root = root.ok_or_else(|| KeyError::NoRoot(root_path(directory)))?;
        files::remove(&table_path(directory, root.generation + 1))?;
        files::remove(&table_path(directory, root.generation - 1))?;
        let path = table_path(directory, root.generation);
        let (log, frames) = Log::read(path, tenant, root)?;
        let (fixed, keys) = unpack(frames).ok_or_else(|| KeyError::Damaged(log.path.clone()))?;
        let (directory, tenant) = (directory.into(), tenant.clone());
        Ok(Self { directory, tenant, root_file, log, fixed, keys, unsure: false })
    }

    pub(crate) fn fixed(&self) -> &FixedKeys {
        &self.fixed
    }

    pub(crate) fn key(&self, id: KeyId) -> Option<&aead::Key> {
        self.keys.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds a new key; it is durable when this returns.
    pub(crate) fn add(&mut self) -> Result<KeyId, KeyError> {
        let (id, key) = (KeyId(random::bytes()), aead::Key::generate());
        self.surely(|this| {
            this.log.append(&this.tenant, &people(&[(&id, &key)]))?;
            Ok(this.log.sync()?)
        })?;
        self.keys.insert(id, key);
        Ok(id)
    }

    /// Destroys every key but those in `live`; they are unreadable when this returns.
    pub(crate) fn keep_only(&mut self, live: &HashSet<KeyId>) -> Result<(), KeyError> {
        self.keys.retain(|id, _| live.contains(id));
        self.surely(|this| {
            let next = Root::fresh(this.log.generation + 1);
            let path = table_path(&this.directory, next.generation);
            let kept: Vec<_> = this.keys.iter().collect();
            let kept = kept.chunks(PEOPLE_PER_FRAME).map(people);
            let key = next.key.duplicate();
            let log = Log::write(path, &this.tenant, next.generation, key, &this.fixed, kept)?;
            files::sync_directory(&this.directory)?;
            this.root_file.replace(&next)?;
            let old = std::mem::replace(&mut this.log, log);
            Ok(files::remove(&old.path)?)
        })
    }

    /// After a failed write nobody knows what is durable, so nothing more is promised.
    fn surely<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        if self.unsure {
            return Err(KeyError::Unsure);
        }
        write(self).inspect_err(|_| self.unsure = true)
    }
}

fn root_path(directory: &Path) -> PathBuf {
    directory.join("root.key")
}

fn table_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("table-{generation}"))
}

fn people(keys: &[(&KeyId, &aead::Key)]) -> Secret<Vec<u8>> {
    let mut entries = Secret::new(Vec::with_capacity(keys.len() * ENTRY_BYTES));
    for (id, key) in keys {
        entries.expose_mut().extend_from_slice(&id.0);
        entries.expose_mut().extend_from_slice(key.expose());
    }
    encode_for_sealing(&Frame::People(entries))
}

fn unpack(frames: Vec<Frame>) -> Option<(FixedKeys, HashMap<KeyId, aead::Key>)> {
    let mut frames = frames.into_iter();
    let Some(Frame::Fixed { state, index, tombstone }) = frames.next() else { return None };
    let fixed = FixedKeys { state: key(state.expose())?, index, tombstone };
    let mut keys = HashMap::new();
    for frame in frames {
        let Frame::People(entries) = frame else { return None };
        let (entries, []) = entries.expose().as_chunks::<ENTRY_BYTES>() else { return None };
        for entry in entries {
            let (id, bytes) = entry.split_first_chunk()?;
            keys.insert(KeyId(*id), key(bytes)?);
        }
    }
    Some((fixed, keys))
}

fn key(bytes: &[u8]) -> Option<aead::Key> {
    bytes.try_into().ok().map(aead::Key::from_bytes)
}

/// The table's file: frames of a length and a sealed [`Frame`], each bound to its position.
struct Log {
    path: PathBuf,
    file: File,
    generation: u64,
    key: aead::Key,
    frames: u64,
}

impl Log {
    /// Writes a new file and makes it durable.
    fn write(
        path: PathBuf,
        tenant: &Name,
        generation: u64,
        key: aead::Key,
        fixed: &FixedKeys,
        people: impl Iterator<Item = Secret<Vec<u8>>>,
    ) -> Result<Self, FileError> {
        let file = files::create(&path)?;
        let mut log = Self { path, file, generation, key, frames: 0 };
        let mut bytes = log.sealed(tenant, &fixed_frame(fixed));
        for frame in people {
            bytes.extend(log.sealed(tenant, &frame));
        }
        log.file.write_all(&bytes).map_err(|error| FileError::new("write", &log.path, error))?;
        log.sync()?;
        Ok(log)
    }

    fn append(&mut self, tenant: &Name, frame: &Secret<Vec<u8>>) -> Result<(), FileError> {
        let bytes = self.sealed(tenant, frame);
        self.file.write_all(&bytes).map_err(|error| FileError::new("append to", &self.path, error))
    }

    fn sync(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(|error| FileError::new("sync", &self.path, error))
    }

    fn sealed(&mut self, tenant: &Name, frame: &Secret<Vec<u8>>) -> Vec<u8> {
        let aad = frame_place(tenant, self.generation, self.frames);
        let sealed = self.key.seal(&aad, frame.expose());
        self.frames += 1;
        let length = u32::try_from(sealed.len()).expect("a frame has less than 64 KiB");
        [&length.to_be_bytes(), sealed.as_slice()].concat()
    }

    /// Reads a file. A last frame that is cut or unreadable was never acknowledged: the power
    /// went while it was appended, and it is cut off. Anything else that is wrong is damage.
    fn read(path: PathBuf, tenant: &Name, root: Root) -> Result<(Self, Vec<Frame>), KeyError> {
        let bytes = files::read(&path)?;
        let (mut frames, mut position) = (Vec::new(), 0);
        while let Some((sealed, after)) = next_frame(&bytes, position) {
            let aad = frame_place(tenant, root.generation, frames.len() as u64);
            match root.key.open(&aad, sealed).ok().and_then(|plain| decode(plain.expose()).ok()) {
                Some(frame) => frames.push(frame),
                None if after == bytes.len() => break,
                None => return Err(KeyError::Damaged(path)),
            }
            position = after;
        }
        let file = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_len(position as u64).map(|()| file))
            .map_err(|error| FileError::new("open", &path, error))?;
        let count = frames.len() as u64;
        let log = Self { path, file, generation: root.generation, key: root.key, frames: count };
        log.sync()?;
        Ok((log, frames))
    }
}

fn fixed_frame(fixed: &FixedKeys) -> Secret<Vec<u8>> {
    encode_for_sealing(&Frame::Fixed {
        state: Secret::new(fixed.state.expose().to_vec()),
        index: fixed.index,
        tombstone: fixed.tombstone,
    })
}

fn frame_place(tenant: &Name, generation: u64, frame: u64) -> Vec<u8> {
    let record = [generation.to_be_bytes(), frame.to_be_bytes()].concat();
    aead::Place { tenant, purpose: None, record: &record, column: "key-table", version: 1 }.aad()
}

/// The sealed bytes of the frame at `position` and where the next one begins.
fn next_frame(bytes: &[u8], position: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.get(position..)?.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some((rest.get(..length)?, position + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (tempfile::TempDir, KeyTable) {
        let directory = tempfile::tempdir().unwrap();
        KeyTable::create(directory.path(), &tenant()).unwrap();
        let table = KeyTable::open(directory.path(), &tenant()).unwrap();
        (directory, table)
    }

    fn tenant() -> Name {
        "acme".parse().unwrap()
    }

    #[test]
    fn an_added_key_is_there_after_opening_again() {
        let (directory, mut table) = table();
        let id = table.add().unwrap();
        let key = *table.key(id).unwrap().expose();
        drop(table);
        let table = KeyTable::open(directory.path(), &tenant()).unwrap();
        assert!(table.key(id).unwrap().expose() == &key);
    }

    #[test]
    fn a_destroyed_key_cannot_be_recovered_from_any_old_table() {
        let (directory, mut table) = table();
        let (gone, kept) = (table.add().unwrap(), table.add().unwrap());
        let old = std::fs::read(table_path(directory.path(), 1)).unwrap();
        table.keep_only(&HashSet::from([kept])).unwrap();
        assert!(table.key(gone).is_none() && table.key(kept).is_some());
        let (_, root) = RootFile::open(&root_path(directory.path())).unwrap();
        let root = root.unwrap();
        let mut position = 0;
        for frame in 0.. {
            let Some((sealed, after)) = next_frame(&old, position) else { break };
            assert!(root.key.open(&frame_place(&tenant(), 1, frame), sealed).is_err());
            position = after;
        }
        assert!(position > 100, "the old table was read");
        assert!(!table_path(directory.path(), 1).exists());
    }

    #[test]
    fn a_crash_before_the_new_root_leaves_the_old_table_in_force() {
        let (directory, mut table) = table();
        let id = table.add().unwrap();
        std::fs::write(table_path(directory.path(), 2), b"half a table").unwrap();
        drop(table);
        let table = KeyTable::open(directory.path(), &tenant()).unwrap();
        assert!(table.key(id).is_some());
        assert!(!table_path(directory.path(), 2).exists());
    }

    #[test]
    fn a_cut_last_frame_is_dropped_at_every_length_and_the_table_goes_on() {
        let (directory, mut table) = table();
        let first = table.add().unwrap();
        let path = table_path(directory.path(), 1);
        let before = std::fs::read(&path).unwrap().len();
        table.add().unwrap();
        drop(table);
        let whole = std::fs::read(&path).unwrap();
        for length in before..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut table = KeyTable::open(directory.path(), &tenant()).unwrap();
            assert_eq!(table.len(), 1);
            let third = table.add().unwrap();
            drop(table);
            let table = KeyTable::open(directory.path(), &tenant()).unwrap();
            assert!(table.key(first).is_some() && table.key(third).is_some());
        }
    }

    #[test]
    fn damage_in_the_middle_is_named_and_not_skipped() {
        let (directory, mut table) = table();
        table.add().unwrap();
        table.add().unwrap();
        drop(table);
        let path = table_path(directory.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let opened = KeyTable::open(directory.path(), &tenant());
        assert!(matches!(opened, Err(KeyError::Damaged(_))));
    }
}
