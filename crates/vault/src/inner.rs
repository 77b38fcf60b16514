//! What is behind the vault's lock, and everything that leaves the root as it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    path::PathBuf,
};

use palmgate_protocol::{MemberId, Name, Secret};

use crate::{
    disk::Disk,
    erasures::Erasure,
    error::VaultError,
    keys::{Change, KeyTable, Person, Seed},
    people::{Batch, Column, ErasureRequest, Group, NewPerson, PersonCipher},
    records::{Records, Shelf},
    root::{Root, RootKeeper},
    slots::{MAX_STATE_BYTES, Slots},
    space,
    store::StoreCipher,
    table::KeyFiles,
    tombstones::Tombstones,
    vault::{MAX_PEOPLE, MAX_VALUE_BYTES},
    worker::Worker,
};

/// People, or single rows, that are written in one go.
const ROWS_AT_ONCE: usize = 256;

/// Everything behind the lock.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, one of them of the tests")]
pub(crate) struct Inner {
    pub(crate) directory: PathBuf,
    pub(crate) keys: PathBuf,
    pub(crate) tenant: Name,
    pub(crate) disk: Disk,
    pub(crate) keeper: Box<dyn RootKeeper>,
    pub(crate) root: Root,
    pub(crate) table: KeyTable,
    /// Makes the table durable beside what has to be durable with it.
    pub(crate) table_worker: Worker,
    pub(crate) tombstones: Tombstones,
    pub(crate) records: Records,
    pub(crate) slots: BTreeMap<Name, Slots>,
    pub(crate) outbox_entries: usize,
    /// Finished erasures are still in the table on disk: at worst they are reported again.
    pub(crate) unsaved: bool,
    /// The root changed, or not: only a restart can tell.
    pub(crate) stopped: bool,
    /// Rows may be left that no key opens; the next start sweeps.
    pub(crate) untidy: bool,
    /// The control of the forensic tests: the root keeps its key.
    #[cfg(test)]
    pub(crate) rotation_off: bool,
    pub(crate) _lock: File,
}

impl Inner {
    /// Rows first, then the table: without the table the rows are noise. With an erasure among it, all
    /// of it waits for the root, and the rows are written while the table goes to the disk.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), VaultError> {
        self.check_new(&batch.insert, &batch.erase)?;
        self.check_values(&batch.write)?;
        if !batch.insert.is_empty() || !batch.write.is_empty() {
            self.check_space()?;
        }
        let change = new_people(&batch.insert);
        if batch.erase.is_empty() {
            self.write_rows(batch, &change)?;
            self.note_columns(&batch.write);
            let synced = self.records.sync();
            if batch.insert.is_empty() {
                return synced;
            }
            return synced.and_then(|()| self.rewrite(change)).inspect_err(|_| self.untidy = true);
        }
        self.erase(&batch.erase, batch, change)?;
        self.note_columns(&batch.write);
        Ok(())
    }

    /// The rows of newcomers, who have their keys in `change`, and the replaced columns. Not synced.
    pub(crate) fn write_rows(&mut self, batch: &Batch, change: &Change) -> Result<(), VaultError> {
        self.add_people(&batch.insert, change).inspect_err(|_| self.untidy = true)?;
        self.put_columns(&batch.write)
    }

    fn add_people(&self, people: &[NewPerson], change: &Change) -> Result<(), VaultError> {
        for some in people.chunks(ROWS_AT_ONCE) {
            let mut rows = Vec::new();
            for new in some {
                let person = change.people.get(&new.member).and_then(Option::as_ref);
                let person = person.expect("everybody new was given keys");
                let cipher = PersonCipher::new(&self.tenant, &new.member, &person.seed);
                let last = last_values(&new.columns);
                rows.extend(last.map(|(at, value)| cipher.seal(at, value.expose())));
            }
            self.records.add(Shelf::People, &rows)?;
        }
        Ok(())
    }

    fn check_new(&self, people: &[NewPerson], leave: &[ErasureRequest]) -> Result<(), VaultError> {
        if self.table.people.len() + people.len() > MAX_PEOPLE {
            return Err(VaultError::TooLarge { what: "the number of people", limit: MAX_PEOPLE });
        }
        let leaves = |new: &NewPerson| {
            leave.iter().any(|one| one.member == new.member || one.claim == new.claim)
        };
        let mut seen = HashSet::with_capacity(people.len());
        for new in people {
            for id in [new.member.as_bytes(), new.claim.as_bytes()] {
                if self.tombstones.contains(&self.tombstones.mark(id)) {
                    return Err(VaultError::Tombstoned);
                }
            }
            if leaves(new) {
                return Err(VaultError::Tombstoned);
            }
            if self.table.people.contains_key(&new.member) || !seen.insert(new.member) {
                return Err(VaultError::AlreadyStored);
            }
            new.columns.iter().try_for_each(|(_, value)| check_size(value.expose()))?;
        }
        Ok(())
    }

    fn check_values(
        &self,
        values: &[(MemberId, Column, Secret<Vec<u8>>)],
    ) -> Result<(), VaultError> {
        for (member, _, value) in values {
            check_size(value.expose())?;
            self.table.people.get(member).ok_or(VaultError::UnknownMember)?;
        }
        Ok(())
    }

    fn put_columns(
        &self,
        values: &[(MemberId, Column, Secret<Vec<u8>>)],
    ) -> Result<(), VaultError> {
        // The last value of a column counts; two in one batch could mix their pieces.
        let last: HashMap<_, _> =
            values.iter().map(|(who, at, value)| ((who, at), value)).collect();
        let last: Vec<_> = last.into_iter().collect();
        for some in last.chunks(ROWS_AT_ONCE) {
            let row = |((member, column), value): &((&MemberId, &Column), &Secret<Vec<u8>>)| {
                let seed = &self.table.people[*member].seed;
                PersonCipher::new(&self.tenant, member, seed).seal(**column, value.expose())
            };
            self.records.put(Shelf::People, &some.iter().map(row).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Notes that these columns are stored.
    fn note_columns(&mut self, values: &[(MemberId, Column, Secret<Vec<u8>>)]) {
        for (member, column, _) in values {
            self.table.note_column(member, column.bit());
        }
    }

    pub(crate) fn put_terminal_state(
        &mut self,
        terminal: &Name,
        value: &[u8],
    ) -> Result<(), VaultError> {
        if value.len() > MAX_STATE_BYTES {
            return Err(VaultError::TooLarge { what: "terminal state", limit: MAX_STATE_BYTES });
        }
        if !self.table.terminals.contains_key(terminal) {
            self.check_space()?;
            let mut change = Change::default();
            change.terminals.insert(terminal.clone(), Some(Seed::generate()));
            self.rewrite(change)?;
        }
        let key = self.table.terminals[terminal].sealing();
        self.slots_of(terminal)?.put(&key, value)
    }

    pub(crate) fn terminal_state(
        &mut self,
        terminal: &Name,
    ) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        let Some(seed) = self.table.terminals.get(terminal) else { return Ok(None) };
        let key = seed.sealing();
        self.slots_of(terminal)?.get(&key)
    }

    pub(crate) fn slots_of(&mut self, terminal: &Name) -> Result<&mut Slots, VaultError> {
        if !self.slots.contains_key(terminal) {
            let key = self.table.terminals[terminal].sealing();
            let path = self.terminals_directory().join(terminal.as_str());
            let slots = Slots::open(path, self.disk.clone(), &self.tenant, terminal, &key)?;
            self.slots.insert(terminal.clone(), slots);
        }
        Ok(self.slots.get_mut(terminal).expect("it was just put in"))
    }

    /// Writes the key table with a change that takes no key away, under the same root.
    pub(crate) fn rewrite(&mut self, change: Change) -> Result<(), VaultError> {
        let plan = self.table.write(&change, &[], &self.key_files(), &self.root)?;
        self.table.apply(change, plan);
        self.settle_table();
        Ok(())
    }

    /// What is begun and finished, on disk, too.
    pub(crate) fn save(&mut self) -> Result<(), VaultError> {
        if self.unsaved { self.rewrite(Change::default()) } else { Ok(()) }
    }

    pub(crate) fn settle_table(&mut self) {
        self.unsaved = false;
        if let Err(error) = self.table.settle(&self.key_files()) {
            tracing::warn!(%error, "the key table before this one could not be taken away");
        }
    }

    /// Begun erasures that no table has carried out.
    pub(crate) fn open_erasures(&self) -> Vec<Erasure> {
        let open = |one: &&Erasure| !self.tombstones.hold(&one.marks);
        self.table.begun.iter().filter(open).copied().collect()
    }

    pub(crate) fn finish_erasures(&mut self, commitments: &[[u8; 32]]) {
        let before = self.table.begun.len();
        self.table.begun.retain(|one| !commitments.contains(&one.commitment));
        self.unsaved |= self.table.begun.len() < before;
    }

    pub(crate) fn state(&self) -> StoreCipher<'_> {
        StoreCipher::new(&self.tenant, &self.records, &self.table.state)
    }

    pub(crate) fn outbox(&self) -> StoreCipher<'_> {
        StoreCipher::new(&self.tenant, &self.records, &self.table.outbox)
    }

    /// Removes state and outbox entries that no key opens.
    pub(crate) fn sweep_store(&self) -> Result<usize, VaultError> {
        let (state, outbox) = (self.state(), self.outbox());
        self.records.remove_all(Shelf::Store, b"", |key| !state.owns(key) && !outbox.owns(key))
    }

    /// Where named state lies; the same under every key, so that it can be sealed anew.
    pub(crate) fn state_entry(&self, name: &str) -> [u8; 16] {
        self.table.marking.hashing().hash(format!("state {name}").as_bytes())
    }

    pub(crate) fn check_write(&self, value: &[u8]) -> Result<(), VaultError> {
        check_size(value)?;
        self.check_space()
    }

    fn check_space(&self) -> Result<(), VaultError> {
        space::check(&self.disk, &self.directory, space::needed(&self.table))
    }

    pub(crate) fn key_files(&self) -> KeyFiles<'_> {
        KeyFiles { disk: &self.disk, directory: &self.keys, tenant: &self.tenant }
    }

    pub(crate) fn terminals_directory(&self) -> PathBuf {
        self.directory.join("terminals")
    }

    /// What the places of all rows that somebody's key opens begin with.
    pub(crate) fn wanted_groups(&self) -> HashSet<Group> {
        self.table.people.values().map(|person| person.seed.group()).collect()
    }
}

/// Keys for people who are new.
fn new_people(people: &[NewPerson]) -> Change {
    let mut change = Change::default();
    for new in people {
        let columns = new.columns.iter().fold(0, |bits, (column, _)| bits | column.bit());
        change.people.insert(new.member, Some(Person::new(Seed::generate(), columns)));
    }
    change
}

/// The value that counts of each column.
fn last_values(
    columns: &[(Column, Secret<Vec<u8>>)],
) -> impl Iterator<Item = (Column, &Secret<Vec<u8>>)> {
    let last: HashMap<_, _> = columns.iter().map(|(at, value)| (*at, value)).collect();
    last.into_iter()
}

fn check_size(value: &[u8]) -> Result<(), VaultError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(VaultError::TooLarge { what: "a value", limit: MAX_VALUE_BYTES });
    }
    Ok(())
}
