//! What every test needs: a box with people in it, and copies of its disk.

mod crashes;
mod damage;
mod everyday;
mod first;
mod forensic;
mod forgetting;
pub(crate) mod fuse;
mod kills;
mod medium;
mod memory;
mod migrating;
mod model;
mod powercut;
mod scale;
mod space;

use std::{
    fs,
    path::{Path, PathBuf},
};

use palmgate_protocol::{ClaimHandle, Hand, MemberId, Name, Purpose, Secret};
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use crate::{
    Batch, Column, ErasureRequest, FileRoot, NewPerson, RootKeeper, Vault, VaultError, disk::Disk,
    inner::Inner,
};

pub(crate) const TEMPLATE: Column = Column::Template(Purpose::Pay, Hand::Left);

/// The whole disk of a box: `root` and `data`.
pub(crate) struct Machine(TempDir);

impl Machine {
    /// In memory where that is possible: these tests decide themselves what reaches the disk.
    pub(crate) fn new() -> Self {
        tempfile::tempdir_in("/dev/shm").map_or_else(|_| Self::on_disk(), Self)
    }

    pub(crate) fn on_disk() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    pub(crate) fn all(&self) -> &Path {
        self.0.path()
    }

    /// What a thief, a backup or the next start after a power cut would find now.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_directory(self.0.path(), copy.0.path());
        copy
    }

    pub(crate) fn open(&self) -> Vault {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Vault, VaultError> {
        self.open_on(&Disk::default())
    }

    pub(crate) fn open_on(&self, disk: &Disk) -> Result<Vault, VaultError> {
        let keeper = FileRoot::on(self.root(), disk.clone());
        Vault::open_on(&self.data(), &tenant(), Box::new(keeper), disk.clone())
    }

    pub(crate) fn open_with(&self, keeper: impl RootKeeper + 'static) -> Result<Vault, VaultError> {
        Vault::open(&self.data(), &tenant(), Box::new(keeper))
    }
}

impl Vault {
    /// Looks behind the lock.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below a directory with its contents.
pub(crate) fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let contents = fs::read(&path).unwrap();
            found.push((path, contents));
        }
    }
    found
}

pub(crate) fn tenant() -> Name {
    "lyon".parse().unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn id(kind: &str, number: u64) -> [u8; 16] {
    let hash = digest(&SHA256, format!("{kind} {number}").as_bytes());
    *hash.as_ref().first_chunk().unwrap()
}

pub(crate) fn member(number: u64) -> MemberId {
    MemberId::from_random(id("member", number))
}

pub(crate) fn claim(number: u64) -> ClaimHandle {
    ClaimHandle::from_random(id("claim", number))
}

pub(crate) fn commitment(number: u64) -> [u8; 32] {
    digest(&SHA256, &number.to_be_bytes()).as_ref().try_into().unwrap()
}

/// What is stored of a person: recognisable, and long enough to be found by chance never.
pub(crate) fn value(number: u64, column: Column) -> Vec<u8> {
    let text = format!("<plaintext of {column:?} of person {number}>");
    text.repeat(1 + 1024 / text.len()).into_bytes()
}

pub(crate) fn person(number: u64) -> NewPerson {
    let columns = [Column::Profile, Column::CardToken, TEMPLATE];
    let columns = columns.map(|column| (column, Secret::new(value(number, column)))).into();
    NewPerson { member: member(number), claim: claim(number), columns }
}

pub(crate) fn request(number: u64) -> ErasureRequest {
    ErasureRequest { member: member(number), claim: claim(number), commitment: commitment(number) }
}

pub(crate) fn read(vault: &Vault, number: u64, column: Column) -> Option<Vec<u8>> {
    vault.read(&member(number), column).unwrap().map(|value| value.expose().clone())
}

/// Whether a person is there with everything that `person` gave.
pub(crate) fn is_whole(vault: &Vault, number: u64) -> bool {
    vault.contains(&member(number))
        && person(number)
            .columns
            .iter()
            .all(|(column, value)| read(vault, number, *column).as_ref() == Some(value.expose()))
}

/// Whether nothing is left of a person but the refusal to take them back.
pub(crate) fn is_gone(vault: &Vault, number: u64) -> bool {
    !vault.contains(&member(number))
        && Column::all().all(|column| read(vault, number, column).is_none())
        && vault.is_tombstoned(member(number).as_bytes())
        && vault.is_tombstoned(claim(number).as_bytes())
        && matches!(vault.insert(vec![person(number)]), Err(VaultError::Tombstoned))
}

/// A box with three people, a terminal, state and a letter to the cloud, cleanly stopped.
pub(crate) fn furnished() -> Machine {
    let machine = Machine::new();
    furnish(&machine);
    machine
}

pub(crate) fn furnish(machine: &Machine) {
    let vault = machine.open();
    vault.insert(vec![person(1), person(2)]).unwrap();
    vault.insert(vec![person(3)]).unwrap();
    vault.put_terminal_state(&name("till-1"), b"session of till 1").unwrap();
    vault.put_state("lease", b"until noon").unwrap();
    vault.outbox_push(b"letter").unwrap();
}

/// Whether everything of `furnished` but the people is there.
pub(crate) fn is_furnished(vault: &Vault) -> bool {
    let session = vault.terminal_state(&name("till-1")).unwrap();
    let state = vault.state("lease").unwrap();
    let letters = vault.outbox_peek(9).unwrap();
    session.is_some_and(|session| session.expose() == b"session of till 1")
        && state.is_some_and(|state| state.expose() == b"until noon")
        && letters.len() == 1
        && letters[0].1.expose() == b"letter"
}
