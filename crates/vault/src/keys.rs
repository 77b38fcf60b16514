//! The key table: every key of the box, in memory and in one sealed file.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    path::{Path, PathBuf},
};

use palmgate_protocol::{MemberId, Name, Secret};
use palmgate_seal::{
    aead::{Key, Place},
    random,
};
use ring::hmac;

use crate::{
    disk::{Disk, read},
    error::{START_ANEW, VaultError},
    root::Root,
};

/// The format of everything the vault writes.
pub(crate) const FORMAT: u16 = 1;

const MAGIC: &[u8; 14] = b"palmgate keys\n";
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + CHECK_BYTES;
const CHECK_BYTES: usize = 8;
const SEED_BYTES: usize = 32;
const PERSON_BYTES: usize = 16 + 2 + SEED_BYTES;
const TERMINAL_BYTES: usize = 1 + 32 + SEED_BYTES;

/// A random 256-bit secret that other keys are derived from. Boxed, so that growing a table leaves
/// no copies in freed memory.
pub(crate) struct Seed(Box<Secret<[u8; SEED_BYTES]>>);

impl Seed {
    pub(crate) fn generate() -> Self {
        Self(Box::new(Secret::new(random::bytes())))
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Box::new(Secret::new(bytes.try_into().ok()?))))
    }

    pub(crate) const fn expose(&self) -> &[u8; SEED_BYTES] {
        self.0.expose()
    }

    /// The key that seals what this seed owns.
    pub(crate) fn sealing(&self) -> Key {
        Key::from_bytes(self.derive("sealing"))
    }

    /// The key that hashes names, so that places in the record store and tombstones say nothing.
    pub(crate) fn hashing(&self) -> Hashing {
        Hashing(hmac::Key::new(hmac::HMAC_SHA256, &self.derive("hashing")))
    }

    /// Says whether a file was sealed under this seed, and nothing else about it.
    fn check(&self) -> [u8; CHECK_BYTES] {
        *self.derive("check").first_chunk().expect("a hash is longer")
    }

    fn derive(&self, label: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.expose());
        let tag = hmac::sign(&key, format!("palmgate vault 1 {label}").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }
}

/// HMAC-SHA-256 (RFC 2104), cut to 128 bits.
pub(crate) struct Hashing(hmac::Key);

impl Hashing {
    pub(crate) fn hash(&self, name: &[u8]) -> [u8; 16] {
        *hmac::sign(&self.0, name).as_ref().first_chunk().expect("a hash is longer")
    }
}

/// What the table knows about a person.
pub(crate) struct Person {
    pub(crate) seed: Seed,
    /// The columns known to be stored, one bit each; a row that is missing here is damage.
    pub(crate) columns: u16,
}

/// How many tombstones there are, and the hash chain over them: the tombstone file cannot be
/// rolled back without the table, nor the table without the root.
#[derive(Clone, Copy)]
pub(crate) struct TombstoneHead {
    pub(crate) count: u64,
    pub(crate) chain: [u8; 32],
}

/// Every key of the box.
pub(crate) struct KeyTable {
    pub(crate) people: HashMap<MemberId, Person>,
    pub(crate) terminals: BTreeMap<Name, Seed>,
    /// Seals store-level state; changes with the root.
    pub(crate) state: Seed,
    /// Seals the outbox; changes with the root unless too much waits there.
    pub(crate) outbox: Seed,
    /// Hashes tombstones and seals unfinished erasures; lives as long as the box.
    pub(crate) marking: Seed,
    pub(crate) tombstones: TombstoneHead,
}

/// What the next table on disk has otherwise than the one in memory. A key that goes is `None`.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) people: HashMap<MemberId, Option<Person>>,
    pub(crate) terminals: BTreeMap<Name, Option<Seed>>,
    pub(crate) state: Option<Seed>,
    pub(crate) outbox: Option<Seed>,
    pub(crate) tombstones: Option<TombstoneHead>,
}

impl KeyTable {
    /// A table for a box that stores nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            people: HashMap::new(),
            terminals: BTreeMap::new(),
            state: Seed::generate(),
            outbox: Seed::generate(),
            marking: Seed::generate(),
            tombstones: TombstoneHead { count: 0, chain: [0; 32] },
        }
    }

    /// Makes in memory the change that is durable on disk. Replaced keys are wiped, but for those of
    /// state and outbox, which are given back to find what they sealed.
    pub(crate) fn apply(&mut self, change: Change) -> Vec<Seed> {
        for (member, person) in change.people {
            match person {
                Some(person) => self.people.insert(member, person),
                None => self.people.remove(&member),
            };
        }
        for (terminal, seed) in change.terminals {
            match seed {
                Some(seed) => self.terminals.insert(terminal, seed),
                None => self.terminals.remove(&terminal),
            };
        }
        self.tombstones = change.tombstones.unwrap_or(self.tombstones);
        let state = change.state.map(|new| mem::replace(&mut self.state, new));
        let outbox = change.outbox.map(|new| mem::replace(&mut self.outbox, new));
        state.into_iter().chain(outbox).collect()
    }

    /// Writes the table with the change to its file, sealed under `root`. Durable.
    pub(crate) fn write(
        &self,
        change: &Change,
        files: &KeyFiles<'_>,
        root: &Root,
    ) -> Result<(), VaultError> {
        let generation = root.generation().to_be_bytes();
        let plain = self.encode(change);
        let sealed = root.seed.sealing().seal(&files.aad(generation), plain.expose());
        let mut file = Vec::with_capacity(HEAD_BYTES + sealed.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&FORMAT.to_be_bytes());
        file.extend_from_slice(&generation);
        file.extend_from_slice(&root.seed.check());
        file.extend_from_slice(&sealed);
        files.disk.replace(&files.path(root.generation()), &file)
    }

    /// Reads the table of `root`; `None` where there is no such file.
    pub(crate) fn read(
        files: &KeyFiles<'_>,
        root: &Root,
        keeper: &'static str,
    ) -> Result<Option<Self>, VaultError> {
        let path = files.path(root.generation());
        let Some(file) = read(&path)? else { return Ok(None) };
        let damaged = |what| VaultError::Damaged { path: path.clone(), what, remedy: START_ANEW };
        let (head, sealed) = file
            .expose()
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or_else(|| damaged("it is too short"))?;
        let rest = head.strip_prefix(MAGIC).ok_or_else(|| damaged("its head is not known"))?;
        let found = u16::from_be_bytes([rest[0], rest[1]]);
        if found != FORMAT {
            return Err(VaultError::NewerFormat { path, found, known: FORMAT });
        }
        let generation = root.generation().to_be_bytes();
        if rest[2..10] != generation {
            return Err(damaged("its head is of another generation"));
        }
        if rest[10..] != root.seed.check() {
            return Err(VaultError::WrongRoot { path, keeper });
        }
        let plain = root.seed.sealing().open(&files.aad(generation), sealed);
        let plain = plain.map_err(|_| damaged("it does not open under its root"))?;
        Self::decode(plain.expose()).map(Some).ok_or_else(|| damaged("its contents are cut off"))
    }

    /// Bytes of the table's file, or somewhat less.
    pub(crate) fn bytes(&self) -> u64 {
        size(self.people.len(), self.terminals.len()) as u64
    }

    fn encode(&self, change: &Change) -> Secret<Vec<u8>> {
        let people = self.people.len() + change.people.len();
        let terminals = self.terminals.len() + change.terminals.len();
        // One allocation: a vector that grows would leave keys in freed memory.
        let mut secret = Secret::new(Vec::with_capacity(size(people, terminals)));
        let out = secret.expose_mut();
        out.extend_from_slice(change.state.as_ref().unwrap_or(&self.state).expose());
        out.extend_from_slice(change.outbox.as_ref().unwrap_or(&self.outbox).expose());
        out.extend_from_slice(self.marking.expose());
        let tombstones = change.tombstones.unwrap_or(self.tombstones);
        out.extend_from_slice(&tombstones.count.to_be_bytes());
        out.extend_from_slice(&tombstones.chain);

        let kept = self.terminals.iter().filter(|(name, _)| !change.terminals.contains_key(name));
        let new = change.terminals.iter().filter_map(|(name, seed)| Some((name, seed.as_ref()?)));
        counted(out, kept.chain(new), |out, (name, seed)| {
            out.push(name.as_str().len() as u8);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(seed.expose());
        });
        let kept = self.people.iter().filter(|(member, _)| !change.people.contains_key(member));
        let new = change.people.iter().filter_map(|(member, who)| Some((member, who.as_ref()?)));
        counted(out, kept.chain(new), |out, (member, person)| {
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(&person.columns.to_be_bytes());
            out.extend_from_slice(person.seed.expose());
        });
        secret
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut left = bytes;
        let state = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let outbox = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let marking = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let count = u64::from_be_bytes(take(&mut left, 8)?.try_into().ok()?);
        let chain = take(&mut left, 32)?.try_into().ok()?;

        let mut terminals = BTreeMap::new();
        for _ in 0..take_count(&mut left)? {
            let length = usize::from(take(&mut left, 1)?[0]);
            let name = std::str::from_utf8(take(&mut left, length)?).ok()?.parse().ok()?;
            terminals.insert(name, Seed::from_slice(take(&mut left, SEED_BYTES)?)?);
        }
        let number = take_count(&mut left)?;
        let mut people = HashMap::with_capacity(number.min(left.len() / PERSON_BYTES));
        for _ in 0..number {
            let member = MemberId::from_random(take(&mut left, 16)?.try_into().ok()?);
            let columns = u16::from_be_bytes(take(&mut left, 2)?.try_into().ok()?);
            let seed = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
            people.insert(member, Person { seed, columns });
        }
        let tombstones = TombstoneHead { count, chain };
        left.is_empty().then_some(Self { people, terminals, state, outbox, marking, tombstones })
    }
}

/// Where key tables lie, and whose they are.
pub(crate) struct KeyFiles<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) directory: &'a Path,
    pub(crate) tenant: &'a Name,
}

impl KeyFiles<'_> {
    /// The file of a generation.
    pub(crate) fn path(&self, generation: u64) -> PathBuf {
        self.directory.join(generation.to_string())
    }

    fn aad(&self, generation: [u8; 8]) -> Vec<u8> {
        let tenant = self.tenant;
        Place { tenant, purpose: None, record: &generation, column: "keys", version: FORMAT }.aad()
    }
}

/// The most that so many people and terminals take.
const fn size(people: usize, terminals: usize) -> usize {
    3 * SEED_BYTES + 48 + terminals * TERMINAL_BYTES + people * PERSON_BYTES
}

/// Writes how many items there are, as four bytes, and the items.
fn counted<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for item in items {
        write(out, item);
        count += 1;
    }
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
}

fn take_count(left: &mut &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(take(left, 4)?.try_into().ok()?) as usize)
}

fn take<'a>(left: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(taken)
}
