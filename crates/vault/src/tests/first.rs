//! A reader of the first format, as its programs read it: written from the format, not from the code
//! that migrates.

use std::collections::HashMap;

use palmgate_seal::aead::Place;

use super::*;
use crate::{
    disk::names,
    keys::{Hashing, Seed},
    records::{Records, Shelf},
    slots::Slots,
    store::StoreCipher,
};

/// A vault of the first format, open.
pub(crate) struct First {
    pub(crate) generation: u64,
    pub(crate) people: HashMap<MemberId, (u16, Seed)>,
    /// Commitments of erasures that the ledger has not been told of.
    pub(crate) begun: Vec<[u8; 32]>,
    pub(crate) records: Records,
    state: Seed,
    outbox: Seed,
    marking: Hashing,
    terminals: HashMap<Name, Seed>,
    tombstones: Vec<[u8; 16]>,
    directory: PathBuf,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn seed(&mut self) -> Seed {
        Seed::from_slice(self.take(32)).unwrap()
    }

    fn count(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
}

fn aad(record: &[u8], column: &str) -> Vec<u8> {
    Place { tenant: &tenant(), purpose: None, record, column, version: 1 }.aad()
}

impl First {
    /// What the root file holds: one record, nothing behind it.
    fn root(machine: &Machine) -> (u64, Seed) {
        let file = fs::read(machine.root()).unwrap();
        let (body, check) = file.split_at(16 + 8 + 32);
        assert_eq!(&digest(&SHA256, body).as_ref()[..8], check, "a root file of one record");
        let mut left = Bytes(body.strip_prefix(b"palmgate root 1\n").unwrap());
        (u64::from_be_bytes(left.take(8).try_into().unwrap()), left.seed())
    }

    /// Whether a program of the first format would begin to open it.
    pub(crate) fn is_offered(machine: &Machine) -> bool {
        let format = fs::read_to_string(machine.data().join("format")).unwrap();
        format == "palmgate vault 1\ntenant lyon\n"
    }

    pub(crate) fn open(machine: &Machine) -> Self {
        assert!(Self::is_offered(machine));
        let keys = machine.data().join("keys");
        let (generation, root) = Self::root(machine);
        let table = fs::read(keys.join(generation.to_string())).unwrap();
        let head =
            [b"palmgate keys\n\0\x01", &generation.to_be_bytes()[..], &root.check()].concat();
        let sealed = table.strip_prefix(head.as_slice()).unwrap();
        let plain = root.sealing().open(&aad(&generation.to_be_bytes(), "keys"), sealed).unwrap();
        let mut left = Bytes(plain.expose());
        let (state, outbox, marking) = (left.seed(), left.seed(), left.seed());
        let count = u64::from_be_bytes(left.take(8).try_into().unwrap()) as usize;
        let chain = left.take(32);
        let file = fs::read(keys.join("tombstones")).unwrap_or_default();
        let link = |chain: [u8; 32], one: &[u8]| {
            digest(&SHA256, &[&chain[..], one].concat()).as_ref().try_into().unwrap()
        };
        let known = &file[..count * 32];
        assert_eq!(known.chunks(32).fold([0; 32], link), chain, "the chain of the tombstones");
        let mut terminals = HashMap::new();
        for _ in 0..left.count() {
            let length = usize::from(left.take(1)[0]);
            let terminal = name(std::str::from_utf8(left.take(length)).unwrap());
            terminals.insert(terminal, left.seed());
        }
        let mut people = HashMap::new();
        for _ in 0..left.count() {
            let member = MemberId::from_random(left.take(16).try_into().unwrap());
            let columns = u16::from_be_bytes(left.take(2).try_into().unwrap());
            people.insert(member, (columns, left.seed()));
        }
        assert!(left.0.is_empty());
        let sealed = fs::read(keys.join("erasures")).unwrap();
        let begun = marking.sealing().open(&aad(b"", "erasures"), &sealed).unwrap();
        let begun = begun.expose().chunks(64).map(|one| one[32..].try_into().unwrap()).collect();
        let directory = machine.data();
        Self {
            generation,
            people,
            begun,
            records: Records::open(directory.join("records"), Disk::default()).unwrap(),
            state,
            outbox,
            marking: marking.hashing(),
            terminals,
            tombstones: known.chunks(16).map(|mark| mark.try_into().unwrap()).collect(),
            directory,
        }
    }

    pub(crate) fn value(&self, number: u64, column: Column) -> Option<Vec<u8>> {
        let (_, seed) = self.people.get(&member(number))?;
        let place = seed.hashing().hash(&column.bit().to_be_bytes());
        let sealed = self.records.get(Shelf::People, &place).unwrap()?;
        let aad = column.aad(&tenant(), &member(number));
        Some(seed.sealing().open(&aad, &sealed).unwrap().expose().clone())
    }

    pub(crate) fn is_whole(&self, number: u64) -> bool {
        let columns = person(number).columns;
        columns.iter().all(|(at, value)| self.value(number, *at).as_ref() == Some(value.expose()))
    }

    /// Whether nobody has a key of theirs, and they are refused.
    pub(crate) fn is_gone(&self, number: u64) -> bool {
        let ids = [*member(number).as_bytes(), *claim(number).as_bytes()];
        let refused = |id: &[u8; 16]| self.tombstones.contains(&self.marking.hash(id));
        !self.people.contains_key(&member(number)) && ids.iter().all(refused)
    }

    pub(crate) fn is_furnished(&self) -> bool {
        let (tenant, till) = (tenant(), name("till-1"));
        let key = self.terminals[&till].sealing();
        let path = self.directory.join("terminals/till-1");
        let slots = Slots::open(path, Disk::default(), &tenant, &till, &key).unwrap();
        let state = StoreCipher::new(&tenant, &self.records, &self.state);
        let lease = state.get(&self.marking.hash(b"state lease")).unwrap();
        let outbox = StoreCipher::new(&tenant, &self.records, &self.outbox);
        let letters: Vec<_> = outbox.numbers().map(Result::unwrap).collect();
        slots.get(&key).unwrap().is_some_and(|session| session.expose() == b"session of till 1")
            && lease.is_some_and(|lease| lease.expose() == b"until noon")
            && letters.len() == 1
    }

    /// The files of the key table's directory.
    pub(crate) fn key_files(&self) -> Vec<String> {
        let mut found = names(&self.directory.join("keys")).unwrap();
        found.sort();
        found
    }
}
