use crate::{TerminalError, files};
use palmgate_protocol::{Name, Secret};
use palmgate_seal::aead::{Key, Place};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Version of the file's content.
const VERSION: u16 = 2;

/// Bytes of one slot: a sealed session is about 10 KB.
const SLOT_BYTES: usize = 64 * 1024;
/// Bytes in front of the sealed content: its length.
const HEAD_BYTES: usize = 4;

/// A state with the number of its save.
type Numbered = (u64, Secret<Vec<u8>>);

/// The MLS session on disk, sealed so that a torn, swapped or damaged file is noticed.
///
/// Two slots are written in turn, in place: one synchronous write a save, and a power cut leaves the
/// older slot whole.
pub(crate) struct SessionFile {
    path: PathBuf,
    key: Key,
    tenant: Name,
    terminal: Name,
    /// Saves so far; its parity is the slot.
    saves: Mutex<u64>,
}

impl SessionFile {
    /// Opens it; the first time makes its key.
    pub(crate) fn open(
        directory: &Path,
        tenant: &Name,
        terminal: &Name,
    ) -> Result<Self, TerminalError> {
        let key_path = directory.join("session.key");
        let key = if let Some(bytes) = files::read(&key_path)? {
            files::refuse_exposed(&key_path, 0o600)?;
            let bytes = Secret::new(bytes);
            let exact = <[u8; 32]>::try_from(bytes.expose().as_slice()).map_err(|_| {
                TerminalError::Damaged { path: key_path, why: "it is not 32 bytes".into() }
            })?;
            Key::from_bytes(exact)
        } else {
            let key = Key::generate();
            files::write(&key_path, key.expose())?;
            key
        };
        let path = directory.join("session.sealed");
        let (tenant, terminal) = (tenant.clone(), terminal.clone());
        let file = Self { path, key, tenant, terminal, saves: Mutex::new(0) };
        let newest = file.newest()?.map_or(0, |(saves, _)| saves);
        *file.saves() = newest;
        Ok(file)
    }

    /// Replaces the stored session durably.
    pub(crate) fn save(&self, state: &Secret<Vec<u8>>) -> Result<(), TerminalError> {
        let mut saves = self.saves();
        let number = *saves + 1;
        let plain = Secret::new([&number.to_be_bytes(), state.expose().as_slice()].concat());
        let sealed = self.key.seal(&self.place(), plain.expose());
        self.write(number, &sealed).map_err(TerminalError::file("write", &self.path))?;
        *saves = number;
        Ok(())
    }

    fn write(&self, number: u64, sealed: &[u8]) -> io::Result<()> {
        if sealed.len() > SLOT_BYTES - HEAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the session outgrew its slot",
            ));
        }
        if !self.path.exists() {
            files::create(&self.path, 2 * SLOT_BYTES)?;
        }
        let mut bytes = (sealed.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(sealed);
        let file = File::options().write(true).open(&self.path)?;
        file.write_all_at(&bytes, number % 2 * SLOT_BYTES as u64)?;
        file.sync_data()
    }

    /// Overwrites and deletes the stored session durably, if there is one: its keys may open the last
    /// messages. Flash may keep a block that was overwritten.
    pub(crate) fn delete(&self) -> Result<(), TerminalError> {
        let _saves = self.saves();
        self.wipe().map_err(TerminalError::file("overwrite", &self.path))?;
        files::delete(&self.path)
    }

    fn wipe(&self) -> io::Result<()> {
        let file = match File::options().write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        file.write_all_at(&vec![0; 2 * SLOT_BYTES], 0)?;
        file.sync_data()
    }

    /// The stored session; `None` when there is none or it is damaged, since joining anew costs
    /// less than anything that could be saved of it.
    pub(crate) fn load(&self) -> Result<Option<Secret<Vec<u8>>>, TerminalError> {
        Ok(self.newest()?.map(|(_, state)| state))
    }

    fn newest(&self) -> Result<Option<Numbered>, TerminalError> {
        let Some(bytes) = files::read(&self.path)? else { return Ok(None) };
        let opened = bytes.chunks(SLOT_BYTES).filter_map(|slot| self.open_slot(slot));
        let newest = opened.max_by_key(|(number, _)| *number);
        if newest.is_none() {
            tracing::warn!(path = %self.path.display(), "the stored session is damaged: joining anew");
        }
        Ok(newest)
    }

    fn open_slot(&self, slot: &[u8]) -> Option<Numbered> {
        let (length, rest) = slot.split_first_chunk::<HEAD_BYTES>()?;
        let sealed = rest.get(..u32::from_be_bytes(*length) as usize)?;
        let plain = self.key.open(&self.place(), sealed).ok()?;
        let (number, state) = plain.expose().split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*number), Secret::new(state.to_vec())))
    }

    fn saves(&self) -> MutexGuard<'_, u64> {
        self.saves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Vec<u8> {
        let record = self.terminal.as_str().as_bytes();
        let column = "terminal session";
        Place { tenant: &self.tenant, purpose: None, record, column, version: VERSION }.aad()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path, terminal: &str) -> SessionFile {
        let tenant = "grocer".parse().unwrap();
        SessionFile::open(directory, &tenant, &terminal.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_session_outlives_its_process() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path(), "till-1").load().unwrap().is_none());
        open(root.path(), "till-1").save(&Secret::new(b"state".to_vec())).unwrap();
        assert_eq!(open(root.path(), "till-1").load().unwrap().unwrap().expose(), b"state");
        let stored = std::fs::read(root.path().join("session.sealed")).unwrap();
        assert!(!stored.windows(5).any(|window| window == b"state"));
        (0..2).for_each(|_| open(root.path(), "till-1").delete().unwrap());
        assert!(open(root.path(), "till-1").load().unwrap().is_none());
    }

    #[test]
    fn of_a_deleted_session_both_slots_are_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (path, kept) = (root.path().join("session.sealed"), root.path().join("kept"));
        let file = open(root.path(), "till-1");
        file.save(&Secret::new(b"older".to_vec())).unwrap();
        file.save(&Secret::new(b"state".to_vec())).unwrap();
        std::fs::hard_link(&path, &kept).unwrap();
        let slots = |bytes: &[u8]| {
            bytes.chunks(SLOT_BYTES).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
        };
        assert_eq!(slots(&std::fs::read(&kept).unwrap()), 2, "the control");
        file.delete().unwrap();
        assert!(!path.exists());
        assert_eq!(slots(&std::fs::read(&kept).unwrap()), 0);
        file.save(&Secret::new(b"newer".to_vec())).unwrap();
        assert_eq!(open(root.path(), "till-1").load().unwrap().unwrap().expose(), b"newer");
    }

    #[test]
    fn a_damaged_or_foreign_session_is_as_good_as_none() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("session.sealed");
        open(root.path(), "till-1").save(&Secret::new(b"state".to_vec())).unwrap();
        assert!(open(root.path(), "till-2").load().unwrap().is_none());
        // The first save lies in the second slot.
        let used = SLOT_BYTES..SLOT_BYTES + 60;
        let whole = std::fs::read(&path).unwrap();
        for position in used {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let left = open(root.path(), "till-1").load().unwrap();
            let sealed = HEAD_BYTES + 12 + 8 + b"state".len() + 16;
            assert_eq!(left.is_none(), position < SLOT_BYTES + sealed, "byte {position}");
            std::fs::write(&path, &whole[..position]).unwrap();
            let left = open(root.path(), "till-1").load().unwrap();
            assert_eq!(left.is_none(), position < SLOT_BYTES + sealed, "cut at {position}");
        }
    }

    #[test]
    fn a_torn_save_leaves_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("session.sealed");
        let file = open(root.path(), "till-1");
        file.save(&Secret::new(b"one".to_vec())).unwrap();
        file.save(&Secret::new(b"two".to_vec())).unwrap();
        assert_eq!(open(root.path(), "till-1").load().unwrap().unwrap().expose(), b"two");
        let mut torn = std::fs::read(&path).unwrap();
        torn[20] ^= 1;
        std::fs::write(&path, torn).unwrap();
        let file = open(root.path(), "till-1");
        assert_eq!(file.load().unwrap().unwrap().expose(), b"one");
        file.save(&Secret::new(b"three".to_vec())).unwrap();
        assert_eq!(open(root.path(), "till-1").load().unwrap().unwrap().expose(), b"three");
    }
}
