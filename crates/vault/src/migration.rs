//! From the first format to this one.
//!
//! Format 1 had one key table, written as a whole for every change, erasures in a file of their own,
//! and every row at a place of its own. A migration copies rows to their new places beside the old
//! ones, then writes the new key table with the same keys under the same root. Until that is whole
//! the old one counts and the next start begins again; from then on the old one is a leftover.

use std::{fs, path::PathBuf};

use palmgate_protocol::MemberId;
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
    table::{KeyFiles, take, take_count},
};

const MAGIC: &[u8; 14] = b"palmgate keys\n";
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + 8;
const FIRST: u16 = 1;
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
        let rows = fs::metadata(self.records.path().join("db")).map_or(0, |found| found.len());
        space::check(&self.disk, &self.directory, rows + space::needed(&self.table))?;
        // An older program must not take what is half done for its own.
        self.write_format()?;
        self.disk.remove(&self.tidy_mark())?;
        self.disk.sync_directory(&self.directory)?;
        let people: Vec<_> = change.people.iter().collect();
        for some in people.chunks(PEOPLE_AT_ONCE) {
            let mut moved = Vec::new();
            for (member, person) in some {
                let Some(person) = person else { continue };
                let places = person.seed.hashing();
                let cipher = PersonCipher::new(&self.tenant, member, &person.seed);
                for column in Column::all() {
                    let place = places.hash(&column.bit().to_be_bytes());
                    if let Some(sealed) = self.records.get(Shelf::People, &place)? {
                        moved.push((cipher.place(column), sealed.to_vec()));
                    }
                }
            }
            self.records.put(Shelf::People, &moved)?;
        }
        self.records.sync()?;
        self.rewrite(change)
    }
}

#[cfg(test)]
pub(crate) mod first {
    //! Writes what a vault of the first format had.

    use super::*;

    /// Takes an open vault's directory back to the first format.
    pub(crate) fn take_back(inner: &Inner) {
        let files = inner.key_files();
        let mut plain = Vec::new();
        let table = &inner.table;
        for seed in [&table.state, &table.outbox, &table.marking] {
            plain.extend_from_slice(seed.expose());
        }
        plain.extend_from_slice(&table.tombstones.count.to_be_bytes());
        plain.extend_from_slice(&table.tombstones.chain);
        plain.extend_from_slice(&(table.terminals.len() as u32).to_be_bytes());
        for (name, seed) in &table.terminals {
            plain.push(name.as_str().len() as u8);
            plain.extend_from_slice(name.as_str().as_bytes());
            plain.extend_from_slice(seed.expose());
        }
        plain.extend_from_slice(&(table.people.len() as u32).to_be_bytes());
        for (member, person) in &table.people {
            plain.extend_from_slice(member.as_bytes());
            plain.extend_from_slice(&person.columns.to_be_bytes());
            plain.extend_from_slice(person.seed.expose());
            let places = person.seed.hashing();
            let cipher = PersonCipher::new(&inner.tenant, member, &person.seed);
            for column in Column::all() {
                let at = cipher.place(column);
                let Some(sealed) = inner.records.get(Shelf::People, &at).unwrap() else { continue };
                let place = places.hash(&column.bit().to_be_bytes());
                inner.records.put(Shelf::People, &[(place, sealed.to_vec())]).unwrap();
                inner.records.remove(Shelf::People, &[at]).unwrap();
            }
        }
        inner.records.sync().unwrap();
        let generation = inner.root.generation().to_be_bytes();
        let sealed = inner.root.seed.sealing().seal(&aad(&files, &generation, "keys"), &plain);
        let file =
            [&MAGIC[..], &FIRST.to_be_bytes(), &generation, &inner.root.seed.check(), &sealed]
                .concat();
        let path = files.directory.join(inner.root.generation().to_string());
        inner.disk.replace(&path, &file).unwrap();
        let sealed = table
            .marking
            .sealing()
            .seal(&aad(&files, b"", "erasures"), &erasures::encode(&table.begun));
        inner.disk.replace(&files.directory.join("erasures"), &sealed).unwrap();
        inner.disk.remove(&files.path()).unwrap();
        let line = format!("palmgate vault 1\ntenant {}\n", inner.tenant);
        inner.disk.replace(&inner.directory.join("format"), line.as_bytes()).unwrap();
    }
}
