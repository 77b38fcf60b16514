//! The root of all keys and who keeps it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use palmgate_protocol::Secret;
use palmgate_seal::aead::Key;
use ring::digest::{SHA256, digest};

use crate::{
    disk::{self, Disk, beside},
    error::{RootError, VaultError},
    keys::Seed,
};

const MAGIC: &[u8; 16] = b"palmgate root 1\n";
const CHECK_BYTES: usize = 8;
const SEALED_MAGIC: &[u8; 16] = b"palmgate root s\n";
/// One of the two places of a root file. The first format was one record without padding.
const SLOT_BYTES: usize = 4096;
const CREDENTIAL_BYTES: usize = 32;

/// The key of the key table, and how often it has changed. Whoever holds it, and the disk, can
/// open all that is stored; whoever destroys it has erased everything sealed under it.
pub struct Root {
    generation: u64,
    pub(crate) seed: Seed,
}

impl Root {
    /// Bytes of a root as a keeper stores it.
    pub const BYTES: usize = 40;

    /// The first root of a box.
    pub(crate) fn first() -> Self {
        Self { generation: 1, seed: Seed::generate() }
    }

    /// The root that takes this one's place; random, not derived from it.
    pub(crate) fn successor(&self) -> Self {
        Self { generation: self.generation + 1, seed: Seed::generate() }
    }

    /// The same key with another number, for tests: what a box has that does not change its root,
    /// and what a thief tries.
    #[cfg(test)]
    pub(crate) fn numbered(&self, generation: u64) -> Self {
        let seed = Seed::from_slice(self.seed.expose()).expect("32 bytes");
        Self { generation, seed }
    }

    /// How many roots there were, this one included.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// For a keeper to store: the generation as eight bytes, big endian, then the key.
    pub fn to_bytes(&self) -> Secret<[u8; Self::BYTES]> {
        let mut bytes = Secret::new([0; Self::BYTES]);
        bytes.expose_mut()[..8].copy_from_slice(&self.generation.to_be_bytes());
        bytes.expose_mut()[8..].copy_from_slice(self.seed.expose());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (generation, seed) = bytes.split_first_chunk().expect("40 bytes begin with 8");
        let seed = Seed::from_slice(seed).expect("32 of 40 bytes are left");
        Self { generation: u64::from_be_bytes(*generation), seed }
    }
}

/// Where the root lives. The promise of erasure is exactly as strong as `replace`.
pub trait RootKeeper: Send {
    /// The root, if one was ever kept.
    ///
    /// # Errors
    /// The keeper failed or holds something else. Never `None` for a root that cannot be read.
    fn load(&mut self) -> Result<Option<Root>, RootError>;

    /// Takes `new` and destroys the root before it. When it returns, `new` survives a power cut
    /// and the old root is beyond recovery, as far as this keeper can promise.
    ///
    /// # Errors
    /// It is not known which root is kept; [`load`](Self::load) tells after a restart.
    fn replace(&mut self, new: &Root) -> Result<(), RootError>;

    /// Makes `new` durable without its counting, for a keeper that can: [`replace`](Self::replace) has
    /// less to do then. The root in force stays so, also after a crash.
    ///
    /// # Errors
    /// The keeper failed; the root in force has not changed.
    fn stage(&mut self, new: &Root) -> Result<(), RootError> {
        let _ = new;
        Ok(())
    }

    /// Writes the root in force as programs of the vault's first format read it, where that differs.
    /// Durable; this keeper still reads it, too.
    ///
    /// # Errors
    /// The keeper failed; the root in force has not changed.
    fn step_back(&mut self) -> Result<(), RootError> {
        Ok(())
    }

    /// What this is, for messages: "root file", "TPM".
    fn describe(&self) -> &'static str;

    /// What becomes of a root that was replaced.
    fn promise(&self) -> Promise;
}

/// How far a [`RootKeeper`] can promise that a replaced root is beyond recovery, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Nothing survives the process: for tests.
    Volatile,
    /// Overwritten in a file: flash may keep a copy, and so may a backup of the file. A directory
    /// that was put back together with its root file is not noticed here, only by a witness of the
    /// ledger.
    Overwritten,
    /// As [`Overwritten`](Self::Overwritten), but a copy of the file is of no use on another
    /// machine: it is sealed under a credential that is not on the disk in the clear.
    OverwrittenSealed,
    /// Destroyed in hardware made for it, with a counter that never goes back.
    Destroyed,
}

impl Promise {
    /// One word for metrics and for `palmgate check`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::Overwritten => "overwritten",
            Self::OverwrittenSealed => "overwritten-sealed",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether erased people stay erased for somebody who takes the storage chips out.
    pub const fn is_strong(self) -> bool {
        matches!(self, Self::Destroyed)
    }
}

/// Keeps the root in a small file of mode 0600, for development and for machines without a TPM.
///
/// The file has two places of 4 KiB. The next root is written to the free one, where it does not count
/// while the other is there; to overwrite that one is both the change and the end of the old root. On
/// a magnetic disk that destroys it. On
/// flash, and on file systems that copy on write, the controller may keep the overwritten block
/// until it needs it: whoever takes the chips out may find an old root, and with it and an old
/// copy of the data may read who was erased since. Nor does it help against a thief of the powered
/// off box, who has the file. Production keeps the root in a TPM.
pub struct FileRoot {
    path: PathBuf,
    disk: Disk,
    credential: Option<Key>,
    staged: Option<StagedRoot>,
}

/// What [`RootKeeper::stage`] left, so that the change need not read it all again.
struct StagedRoot {
    generation: u64,
    check: [u8; CHECK_BYTES],
    /// Where the root in force stands.
    in_force: usize,
}

impl FileRoot {
    /// Keeps the root at `path`, best on another file system than the data; its directory exists.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), disk: Disk::default(), credential: None, staged: None }
    }

    /// Keeps the root at `path`, sealed under a secret of at least 32 random bytes that is not on
    /// the disk in the clear: a systemd credential (`LoadCredentialEncrypted=`), which systemd
    /// binds to the machine. The credential never changes, so it hinders a thief of the disk and
    /// not the recovery of old roots from flash.
    ///
    /// # Errors
    /// [`RootError::Credential`] where it is shorter than 32 bytes.
    pub fn sealed(
        path: impl Into<PathBuf>,
        credential: &Secret<Vec<u8>>,
    ) -> Result<Self, RootError> {
        let path = path.into();
        if credential.expose().len() < CREDENTIAL_BYTES {
            return Err(RootError::Credential { needed: CREDENTIAL_BYTES });
        }
        let seed = Seed::from_slice(digest(&SHA256, credential.expose()).as_ref());
        let key = seed.expect("SHA-256 gives 32 bytes").sealing();
        Ok(Self { path, disk: Disk::default(), credential: Some(key), staged: None })
    }

    #[cfg(test)]
    pub(crate) fn on(path: impl Into<PathBuf>, disk: Disk) -> Self {
        Self { path: path.into(), disk, credential: None, staged: None }
    }

    /// Destroys what an interrupted `replace` left: a root that came too late or stayed too long.
    fn tidy(&self) -> Result<(), VaultError> {
        self.disk.destroy(&beside(&self.path, ".new"))?;
        let old = beside(&self.path, ".old");
        if same_file(&old, &self.path) { self.disk.remove(&old) } else { self.disk.destroy(&old) }
    }

    fn exchange(&self, bytes: &[u8]) -> Result<(), VaultError> {
        self.tidy()?;
        let old = beside(&self.path, ".old");
        if self.path.exists() {
            self.disk.link(&self.path, &old)?;
        }
        self.disk.replace(&self.path, bytes)?;
        self.disk.destroy(&old)
    }

    fn unwrap(&self, body: &[u8]) -> Result<Root, RootError> {
        let unknown = || self.damaged("its first line is not known");
        let bytes = match &self.credential {
            None => Secret::new(body.strip_prefix(MAGIC).ok_or_else(unknown)?.to_vec()),
            Some(key) => {
                let sealed = body.strip_prefix(SEALED_MAGIC).ok_or_else(unknown)?;
                key.open(SEALED_MAGIC, sealed)
                    .map_err(|_| self.damaged("it does not open under this credential"))?
            }
        };
        let bytes = bytes.expose().as_slice().try_into();
        Ok(Root::from_bytes(bytes.map_err(|_| self.damaged("wrong length"))?))
    }

    /// The roots that the file holds.
    fn held(&self) -> Result<Option<Held>, RootError> {
        let Some(bytes) = disk::read(&self.path).map_err(Box::new)? else { return Ok(None) };
        let bytes = bytes.expose();
        if bytes.len() < SLOT_BYTES {
            return Ok(Some(Held { root: self.record(bytes)?, place: None, other: Other::Empty }));
        }
        if bytes.len() != 2 * SLOT_BYTES {
            return Err(self.damaged("wrong length"));
        }
        let (one, two) = bytes.split_at(SLOT_BYTES);
        let found = [one, two].map(|slot| {
            let length = slot.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            (length > 0).then(|| self.padded_record(slot, length))
        });
        let held = |root, place, other| Ok(Some(Held { root, place: Some(place), other }));
        match found {
            [Some(Ok(one)), Some(Ok(two))] if one.generation < two.generation => {
                held(one, 0, Other::Staged(two.generation))
            }
            [Some(Ok(one)), Some(Ok(two))] => held(two, 1, Other::Staged(one.generation)),
            [Some(Ok(root)), None] => held(root, 0, Other::Empty),
            [None, Some(Ok(root))] => held(root, 1, Other::Empty),
            [Some(Ok(root)), Some(Err(_))] => held(root, 0, Other::Torn),
            [Some(Err(_)), Some(Ok(root))] => held(root, 1, Other::Torn),
            [Some(Err(error)), _] | [None, Some(Err(error))] => Err(error),
            [None, None] => Err(self.damaged("it is empty")),
        }
    }

    /// The record in a place; its last bytes may be zeros like what follows.
    fn padded_record(&self, slot: &[u8], length: usize) -> Result<Root, RootError> {
        let whole = match self.credential {
            None => MAGIC.len() + Root::BYTES + CHECK_BYTES,
            Some(_) => MAGIC.len() + 12 + Root::BYTES + 16 + CHECK_BYTES,
        };
        if length > whole {
            return Err(self.damaged("something stands behind it"));
        }
        self.record(&slot[..whole])
    }

    fn record(&self, bytes: &[u8]) -> Result<Root, RootError> {
        let (body, check) =
            bytes.split_last_chunk::<CHECK_BYTES>().ok_or_else(|| self.damaged("wrong length"))?;
        if digest(&SHA256, body).as_ref()[..CHECK_BYTES] != *check {
            return Err(self.damaged("its check sum does not fit"));
        }
        self.unwrap(body)
    }

    /// A place with this root in it.
    fn slot_with(&self, root: &Root) -> Secret<Vec<u8>> {
        let mut slot = self.record_of(root);
        slot.expose_mut().resize(SLOT_BYTES, 0);
        slot
    }

    fn record_of(&self, root: &Root) -> Secret<Vec<u8>> {
        let mut slot = Secret::new(Vec::with_capacity(SLOT_BYTES));
        let bytes = slot.expose_mut();
        match &self.credential {
            None => {
                bytes.extend_from_slice(MAGIC);
                bytes.extend_from_slice(root.to_bytes().expose());
            }
            Some(key) => {
                bytes.extend_from_slice(SEALED_MAGIC);
                bytes.extend_from_slice(&key.seal(SEALED_MAGIC, root.to_bytes().expose()));
            }
        }
        let check = digest(&SHA256, bytes);
        bytes.extend_from_slice(&check.as_ref()[..CHECK_BYTES]);
        slot
    }

    fn put(&self, place: usize, slot: &[u8]) -> Result<(), VaultError> {
        self.disk.write_at(&self.path, (place * SLOT_BYTES) as u64, slot)?;
        self.disk.sync(&self.path)
    }

    /// A new file that holds this root alone; the one before is destroyed.
    fn begin(&self, root: &Root) -> Result<(), VaultError> {
        let mut file = Secret::new(Vec::with_capacity(2 * SLOT_BYTES));
        file.expose_mut().extend_from_slice(self.slot_with(root).expose());
        file.expose_mut().resize(2 * SLOT_BYTES, 0);
        self.exchange(file.expose())
    }

    fn damaged(&self, what: &'static str) -> RootError {
        RootError::Damaged { path: self.path.clone(), what }
    }
}

/// What a root file holds.
struct Held {
    /// The root in force.
    root: Root,
    /// Where it stands; `None` in a file of the first format.
    place: Option<usize>,
    other: Other,
}

/// What the other place of a root file holds.
#[derive(PartialEq, Eq)]
enum Other {
    Empty,
    /// A whole root of this generation, which does not count yet.
    Staged(u64),
    /// What a cut write left.
    Torn,
}

impl RootKeeper for FileRoot {
    fn load(&mut self) -> Result<Option<Root>, RootError> {
        let Some(held) = self.held()? else { return Ok(None) };
        let found = fs::metadata(&self.path)
            .map_err(|error| Box::new(disk::at("look at", &self.path)(error)))?;
        let mode = found.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(RootError::Exposed { path: self.path.clone(), mode });
        }
        self.tidy().map_err(Box::new)?;
        if let Some(place) = held.place
            && held.other != Other::Empty
        {
            self.put(1 - place, &[0; SLOT_BYTES]).map_err(Box::new)?;
        }
        Ok(Some(held.root))
    }

    fn stage(&mut self, new: &Root) -> Result<(), RootError> {
        self.staged = None;
        let place = match self.held()? {
            None => return Ok(()),
            Some(Held { place: Some(place), .. }) => place,
            Some(Held { root, place: None, .. }) => {
                self.begin(&root).map_err(Box::new)?;
                0
            }
        };
        self.put(1 - place, self.slot_with(new).expose()).map_err(Box::new)?;
        let (generation, check) = (new.generation, new.seed.check());
        self.staged = Some(StagedRoot { generation, check, in_force: place });
        Ok(())
    }

    fn replace(&mut self, new: &Root) -> Result<(), RootError> {
        if let Some(StagedRoot { generation, check, in_force }) = self.staged.take()
            && (generation, check) == (new.generation, new.seed.check())
        {
            return Ok(self.put(in_force, &[0; SLOT_BYTES]).map_err(Box::new)?);
        }
        let staged = Other::Staged(new.generation);
        let mut held = self.held()?;
        match &held {
            None => return Ok(self.begin(new).map_err(Box::new)?),
            Some(found) if found.other != staged => {
                self.stage(new)?;
                held = self.held()?;
            }
            Some(_) => {}
        }
        match held {
            Some(Held { place: Some(place), other, .. }) if other == staged => {
                Ok(self.put(place, &[0; SLOT_BYTES]).map_err(Box::new)?)
            }
            _ => Err(self.damaged("it was changed by another hand")),
        }
    }

    fn step_back(&mut self) -> Result<(), RootError> {
        match self.held()? {
            Some(Held { root, place: Some(_), .. }) => {
                Ok(self.exchange(self.record_of(&root).expose()).map_err(Box::new)?)
            }
            _ => Ok(()),
        }
    }

    fn describe(&self) -> &'static str {
        "root file"
    }

    fn promise(&self) -> Promise {
        match self.credential {
            None => Promise::Overwritten,
            Some(_) => Promise::OverwrittenSealed,
        }
    }
}

/// Keeps the root in memory, for tests: a clone holds the same root, so a vault can be reopened.
#[derive(Clone, Default)]
pub struct MemoryRoot(Arc<Mutex<Option<Secret<[u8; Root::BYTES]>>>>);

impl MemoryRoot {
    /// A keeper without a root.
    pub fn new() -> Self {
        Self::default()
    }
}

impl RootKeeper for MemoryRoot {
    fn load(&mut self) -> Result<Option<Root>, RootError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(held.as_ref().map(|bytes| Root::from_bytes(bytes.expose())))
    }

    fn replace(&mut self, new: &Root) -> Result<(), RootError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(new.to_bytes());
        Ok(())
    }

    fn describe(&self) -> &'static str {
        "memory"
    }

    fn promise(&self) -> Promise {
        Promise::Volatile
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
