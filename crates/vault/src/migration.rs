//! From the first format to this one, and back.
//!
//! Format 1 had one key table, written as a whole for every change, erasures in a file of their own,
//! and every row at a place of its own. A migration copies rows to their new places beside the old
//! ones, then writes the new key table with the same keys under the same root. Until that is whole
//! the old one counts and the next start begins again; from then on the old one is a leftover.
//!
//! The way back is the same in the other direction: nothing is kept from before, so that nobody who was
//! forgotten since can be in it. What is written is today's table with today's keys under today's root.

use std::{fs, path::PathBuf};

use palmgate_protocol::{MemberId, Secret};
use palmgate_seal::aead::Place;

use crate::{
    disk::read,
    erasures,
    error::{START_ANEW, VaultError},
    inner::Inner,
    keys::{Change, FORMAT, KeyTable, Person, SEED_BYTES, Seed, TombstoneHead},
    people::{Column, PersonCipher},
    records::Shelf,
    root::Root,
    space,
    table::{KeyFiles, counted, put_row, take, take_count},
};

const MAGIC: &[u8; 14] = b"palmgate keys\n";
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + 8;
/// The format before this one.
pub(crate) const FIRST: u16 = 1;
const PEOPLE_AT_ONCE: usize = 64;

/// A key table of the first format: everything but the people, and they as newcomers.
pub(crate) struct Old {
    pub(crate) table: KeyTable,
    pub(crate) change: Change,
}

impl Old {
    /// Reads the table of `root` in the first format; `None` where there is none.
    pub(crate) fn read(
        files: &KeyFiles<'_>,
        root: &Root,
        keeper: &'static str,
    ) -> Result<Option<Self>, VaultError> {
        let path = files.directory.join(root.generation().to_string());
        let Some(file) = read(&path)? else { return Ok(None) };
        let damaged = |what| VaultError::Damaged { path: path.clone(), what, remedy: START_ANEW };
        let (head, sealed) = file
            .expose()
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or_else(|| damaged("it is too short"))?;
        let rest = head.strip_prefix(MAGIC).ok_or_else(|| damaged("its head is not known"))?;
        let found = u16::from_be_bytes([rest[0], rest[1]]);
        if found != FIRST {
            return Err(VaultError::NewerFormat { path, found, known: FORMAT });
        }
        let generation = root.generation().to_be_bytes();
        if rest[2..10] != generation {
            return Err(damaged("its head is of another generation"));
        }
        if rest[10..] != root.seed.check() {
            return Err(VaultError::WrongRoot { path, keeper });
        }
        let plain = root.seed.sealing().open(&aad(files, &generation, "keys"), sealed);
        let plain = plain.map_err(|_| damaged("it does not open under its root"))?;
        let mut old = decode(plain.expose()).ok_or_else(|| damaged("its contents are cut off"))?;
        old.table.begun = begun(files, &old.table.marking)?;
        Ok(Some(old))
    }
}

fn aad(files: &KeyFiles<'_>, record: &[u8], column: &str) -> Vec<u8> {
    Place { tenant: files.tenant, purpose: None, record, column, version: FIRST }.aad()
}

fn begun(files: &KeyFiles<'_>, marking: &Seed) -> Result<Vec<erasures::Erasure>, VaultError> {
    let path: PathBuf = files.directory.join("erasures");
    let Some(sealed) = read(&path)? else { return Ok(Vec::new()) };
    let plain = marking.sealing().open(&aad(files, b"", "erasures"), sealed.expose()).ok();
    plain.and_then(|plain| erasures::decode(plain.expose())).ok_or(VaultError::Damaged {
        path,
        what: "it does not open under its key",
        remedy: "restore it; if that is impossible remove it, and check the ledger for erasures \
                 that were asked for and not acknowledged",
    })
}

fn decode(bytes: &[u8]) -> Option<Old> {
    let mut left = bytes;
    let mut table = KeyTable::new();
    table.state = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
    table.outbox = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
    table.marking = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
    let count = u64::from_be_bytes(take(&mut left, 8)?.try_into().ok()?);
    let chain = take(&mut left, 32)?.try_into().ok()?;
    table.tombstones = TombstoneHead { count, chain };
    for _ in 0..take_count(&mut left)? {
        let length = usize::from(take(&mut left, 1)?[0]);
        let name = std::str::from_utf8(take(&mut left, length)?).ok()?.parse().ok()?;
        table.terminals.insert(name, Seed::from_slice(take(&mut left, SEED_BYTES)?)?);
    }
    let mut change = Change::default();
    for _ in 0..take_count(&mut left)? {
        let member = MemberId::from_random(take(&mut left, 16)?.try_into().ok()?);
        let columns = u16::from_be_bytes(take(&mut left, 2)?.try_into().ok()?);
        let seed = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        change.people.insert(member, Some(Person::new(seed, columns)));
    }
    left.is_empty().then_some(Old { table, change })
}

impl Inner {
    /// Finishes what was opened in the first format. `change` has its people.
    pub(crate) fn migrate(&mut self, change: Change) -> Result<(), VaultError> {
        tracing::info!(people = change.people.len(), "the vault is brought to format {FORMAT}");
        self.check_room_for_copies()?;
        self.mark_way_back(FIRST)?;
        // An older program must not take what is half done for its own.
        self.write_format(FORMAT)?;
        self.disk.remove(&self.tidy_mark())?;
        self.disk.sync_directory(&self.directory)?;
        let people = change.people.iter();
        let people = people.filter_map(|(member, person)| Some((member, &person.as_ref()?.seed)));
        self.copy_rows(people, |place| (place.first, place.now))?;
        self.rewrite(change)
    }

    /// Brings an opened vault to the first format; says how many columns there are that the first
    /// programs of that format do not know. Cut off before the new key table is taken away, nothing has
    /// happened; cut off later, the next start of this program migrates anew and older ones refuse it,
    /// until the last but one step.
    pub(crate) fn take_back(&mut self) -> Result<usize, VaultError> {
        self.check_room_for_copies()?;
        // What this vault would write at its end is of the format that it leaves.
        self.stopped = true;
        let people = self.table.people.iter().map(|(member, person)| (member, &person.seed));
        self.copy_rows(people, |place| (place.now, place.first))?;
        let files = self.key_files();
        let (marking, begun) = (self.table.marking.sealing(), erasures::encode(&self.table.begun));
        let sealed = marking.seal(&aad(&files, b"", "erasures"), &begun);
        self.disk.replace(&files.directory.join("erasures"), &sealed)?;
        let generation = self.root.generation();
        self.disk.replace(&files.directory.join(generation.to_string()), &self.first_table())?;
        let keeper = self.keeper.describe();
        let failed = |source| VaultError::Keeper { keeper, source };
        self.keeper.step_back().map_err(failed)?;
        self.disk.remove(&self.key_files().path())?;
        self.disk.sync_directory(&self.keys)?;
        self.write_format(FIRST)?;
        self.remove_way_back()?;
        let unknown = |person: &&Person| person.columns & Column::Release.bit() != 0;
        Ok(self.table.people.values().filter(unknown).count())
    }

    /// Rows are copied before the others go.
    fn check_room_for_copies(&self) -> Result<(), VaultError> {
        let rows = fs::metadata(self.records.path().join("db")).map_or(0, |found| found.len());
        space::check(&self.disk, &self.directory, rows + space::needed(&self.table))
    }

    /// Copies everybody's rows from one place to another, durably. What stays at the place before is
    /// swept by the next start.
    fn copy_rows<'a>(
        &self,
        people: impl Iterator<Item = (&'a MemberId, &'a Seed)>,
        way: impl Fn(Places) -> ([u8; 16], [u8; 16]),
    ) -> Result<(), VaultError> {
        let people: Vec<_> = people.collect();
        for some in people.chunks(PEOPLE_AT_ONCE) {
            let mut moved = Vec::new();
            for (member, seed) in some {
                let places = seed.hashing();
                let cipher = PersonCipher::new(&self.tenant, member, seed);
                for column in Column::all() {
                    let first = places.hash(&column.bit().to_be_bytes());
                    let (from, to) = way(Places { first, now: cipher.place(column) });
                    if let Some(sealed) = self.records.get(Shelf::People, &from)? {
                        moved.push((to, sealed.to_vec()));
                    }
                }
            }
            self.records.put(Shelf::People, &moved)?;
        }
        self.records.sync()
    }

    /// The file of the key table as the first format has it.
    fn first_table(&self) -> Vec<u8> {
        let table = &self.table;
        // One allocation: a vector that grows would leave keys in freed memory.
        let size = 3 * SEED_BYTES + 64 + table.terminals.len() * 65 + table.people.len() * 50;
        let mut plain = Secret::new(Vec::with_capacity(size));
        let out = plain.expose_mut();
        for seed in [&table.state, &table.outbox, &table.marking] {
            out.extend_from_slice(seed.expose());
        }
        out.extend_from_slice(&table.tombstones.count.to_be_bytes());
        out.extend_from_slice(&table.tombstones.chain);
        counted(out, table.terminals.iter(), |out, (name, seed)| {
            out.push(name.as_str().len() as u8);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(seed.expose());
        });
        counted(out, table.people.iter(), |out, (member, person)| {
            put_row(out, member, person);
        });
        let generation = self.root.generation().to_be_bytes();
        let aad = aad(&self.key_files(), &generation, "keys");
        let sealed = self.root.seed.sealing().seal(&aad, plain.expose());
        [&MAGIC[..], &FIRST.to_be_bytes(), &generation, &self.root.seed.check(), &sealed].concat()
    }
}

/// Where a column of a person lies in the two formats.
struct Places {
    first: [u8; 16],
    now: [u8; 16],
}
