use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use palmgate_protocol::{MemberId, Name, Secret};

use crate::{
    backup,
    disk::Disk,
    erasures::Erasure,
    error::VaultError,
    inner::Inner,
    keys::Change,
    opening::lock_directory,
    people::{Batch, Column, ErasureRequest, NewPerson},
    reading::PersonColumns,
    root::{Promise, RootKeeper},
    space, store,
};

/// People that one vault holds.
pub const MAX_PEOPLE: usize = 1_000_000;
/// Entries that wait in the outbox.
pub const MAX_OUTBOX_ENTRIES: usize = 100_000;
/// Bytes of one column, of one outbox entry, and of one named state.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// An entry of the outbox: its number and what was pushed.
pub type OutboxEntry = (u64, Secret<Vec<u8>>);

/// The sealed store of one box. Every call blocks for as long as the disk takes; calls from several
/// threads wait for each other. See the [crate's documentation](crate) for what lies where, and
/// for what a crash can do.
pub struct Vault(pub(crate) Mutex<Inner>);

impl Vault {
    /// Opens the vault in `directory`, or creates it where neither data nor a root is; finishes
    /// what a crash interrupted. An erasure whose intent was durable is carried out here.
    ///
    /// # Errors
    /// Something is missing, damaged, of another box, tenant, time or version; each error names the
    /// file and the remedy. Data without its root, or a root without its data, is never taken for
    /// a new box.
    pub fn open(
        directory: &Path,
        tenant: &Name,
        keeper: Box<dyn RootKeeper>,
    ) -> Result<Self, VaultError> {
        Self::open_on(directory, tenant, keeper, Disk::default())
    }

    /// Saves the sealed rows of people and of the store into a directory that is empty or new. No
    /// key and no state of a terminal is among them: only this vault's own key table opens them,
    /// without those who were erased meanwhile. Everybody else waits as long as it takes.
    ///
    /// # Errors
    /// The disk.
    pub fn backup(&self, to: &Path) -> Result<(), VaultError> {
        let inner = self.lock()?;
        inner.records.sync()?;
        backup::save(&inner.disk, inner.records.path(), to)
    }

    /// Puts rows that [`backup`](Self::backup) saved in the place of those in `directory`, while no
    /// vault is open there. What was written since is reported as damaged, person by person, to be
    /// fetched from the cloud; who was erased since stays erased, and who was inserted since has to
    /// be fetched or to enrol anew. The store's state and outbox come back only from a backup made
    /// under the present root, so make one after every [`renew`](Self::renew).
    ///
    /// # Errors
    /// The vault is open, `backup` is none, or the disk.
    pub fn restore(directory: &Path, backup: &Path) -> Result<(), VaultError> {
        let _lock = lock_directory(directory)?;
        backup::put_back(&Disk::default(), directory, backup)
    }

    pub(crate) fn open_on(
        directory: &Path,
        tenant: &Name,
        keeper: Box<dyn RootKeeper>,
        disk: Disk,
    ) -> Result<Self, VaultError> {
        Ok(Self(Mutex::new(Inner::open(directory, tenant, keeper, disk)?)))
    }

    /// Stores people, all of them or none. Durable. The key table is written once, so a thousand
    /// people cost little more than one.
    ///
    /// # Errors
    /// [`Tombstoned`](VaultError::Tombstoned) if a member or claim was erased,
    /// [`AlreadyStored`](VaultError::AlreadyStored) if a member is there; a bound; the disk.
    pub fn insert(&self, people: Vec<NewPerson>) -> Result<(), VaultError> {
        self.commit(&Batch { insert: people, ..Batch::default() })
    }

    /// Replaces one column of a person. Durable. The value before stays readable with the person's
    /// key, to somebody who has the disk, until that key goes: see
    /// [`forget_columns`](Self::forget_columns).
    ///
    /// # Errors
    /// [`UnknownMember`](VaultError::UnknownMember); a bound; the disk.
    pub fn write(&self, member: &MemberId, column: Column, value: &[u8]) -> Result<(), VaultError> {
        self.write_many(vec![(*member, column, Secret::new(value.to_vec()))])
    }

    /// Replaces columns of people, for the price of one sync; otherwise like
    /// [`write`](Self::write). Durable. A crash may leave some of them written.
    ///
    /// # Errors
    /// As for [`write`](Self::write); nothing is written if somebody is unknown.
    pub fn write_many(
        &self,
        values: Vec<(MemberId, Column, Secret<Vec<u8>>)>,
    ) -> Result<(), VaultError> {
        self.commit(&Batch { write: values, ..Batch::default() })
    }

    /// Stores, replaces and erases, for little more than the price of the dearest among it. Durable.
    /// A crash leaves all of the insertions and erasures done, or none; of the columns that are
    /// replaced it may leave some.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), [`write`](Self::write) and [`erase`](Self::erase). Columns may
    /// be written; nobody came, and nobody went unless the next start reports it.
    pub fn commit(&self, batch: &Batch) -> Result<(), VaultError> {
        self.lock()?.commit(batch)
    }

    /// One column of a person; `None` where the person or the column is not there.
    ///
    /// # Errors
    /// The stored value is damaged, or is missing although it was written.
    pub fn read(
        &self,
        member: &MemberId,
        column: Column,
    ) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        self.lock()?.read(member, column)
    }

    /// What `read` makes of each person's columns, in the order of `members`; who is not stored is
    /// passed over. Every processor reads, and everybody else waits meanwhile: for a start, some
    /// thousand at a time.
    ///
    /// # Errors
    /// The vault was stopped, or the error of a person for whom `read` fails.
    pub fn read_people<T: Send, E: Send + From<VaultError>>(
        &self,
        members: &[MemberId],
        read: impl Fn(&PersonColumns<'_>) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        self.lock()?.read_people(members, read)
    }

    /// Everybody who is stored, in the order in which their rows lie: who reads one after the other
    /// reads every page of the record store once, and not once for each row. Nothing else can be
    /// told from that order.
    pub fn members(&self) -> Vec<MemberId> {
        self.look().members()
    }

    /// Whether somebody is stored.
    pub fn contains(&self, member: &MemberId) -> bool {
        self.look().table.people.contains_key(member)
    }

    /// Erases people, in one change of the root. When it returns, nothing of them can be opened
    /// with any key that still exists, they and their claims are refused from then on, and that
    /// survives every crash. Members who are not stored are only refused. Update first what names
    /// them in [`put_state`](Self::put_state).
    ///
    /// # Errors
    /// The disk or the keeper failed. The intent may be durable: then the next start erases.
    pub fn erase(&self, people: &[ErasureRequest]) -> Result<(), VaultError> {
        self.lock()?.erase(people, &Batch::default(), Change::default())
    }

    /// Removes columns of people beyond recovery, with all earlier values of the columns that
    /// stay: each person gets a new key, in one change of the root. For a withdrawn purpose, and
    /// for history past its time; with no column named, only earlier values go. Durable.
    ///
    /// # Errors
    /// [`UnknownMember`](VaultError::UnknownMember); the disk or the keeper failed.
    pub fn forget_columns(&self, people: &[(MemberId, Vec<Column>)]) -> Result<(), VaultError> {
        self.lock()?.forget_columns(people)
    }

    /// New keys for all terminals, the store's state and the outbox, in one change of the root: what
    /// was overwritten or removed there before cannot be opened from then on. Call it once a day;
    /// it takes one sync a terminal. Durable.
    ///
    /// # Errors
    /// The disk or the keeper failed.
    pub fn renew(&self) -> Result<(), VaultError> {
        self.lock()?.renew()
    }

    /// Who keeps the root, for messages, and what that keeper promises of roots that were replaced.
    pub fn keeper(&self) -> (&'static str, Promise) {
        let inner = self.look();
        (inner.keeper.describe(), inner.keeper.promise())
    }

    /// How often the root has changed: what a receipt names as the root that opens nothing of the
    /// person any more.
    pub fn root_generation(&self) -> u64 {
        self.look().root.generation()
    }

    /// Commitments of erasures that are done and whose ledger entry the caller has not confirmed.
    pub fn unfinished_erasures(&self) -> Vec<[u8; 32]> {
        let inner = self.look();
        let done = |one: &&Erasure| inner.tombstones.hold(&one.marks);
        let begun = inner.table.begun.iter();
        begun.filter(done).map(|erasure| erasure.commitment).collect()
    }

    /// The ledger has the entry of this erasure. Durable with the next change of the key table or a
    /// clean stop; a crash before that has the erasure reported again.
    ///
    /// # Errors
    /// The vault has stopped.
    pub fn finish_erasure(&self, commitment: &[u8; 32]) -> Result<(), VaultError> {
        self.finish_erasures(&[*commitment])
    }

    /// As [`finish_erasure`](Self::finish_erasure), of many.
    ///
    /// # Errors
    /// The vault has stopped.
    pub fn finish_erasures(&self, commitments: &[[u8; 32]]) -> Result<(), VaultError> {
        self.lock()?.finish_erasures(commitments);
        Ok(())
    }

    /// Whether these are the bytes of a member or claim that was erased.
    pub fn is_tombstoned(&self, id: &[u8; 16]) -> bool {
        let inner = self.look();
        inner.tombstones.contains(&inner.tombstones.mark(id))
    }

    /// Whether a write failed so that this vault can go on with little more than erasures, while the
    /// disk takes writes again: opening it anew, in a new process, would heal it. Tries the disk, so
    /// it blocks.
    pub fn should_be_reopened(&self) -> bool {
        let (disk, probe, needed) = {
            let inner = self.look();
            if !inner.stopped && !inner.records.has_failed() {
                return false;
            }
            (inner.disk.clone(), inner.directory.join("probe"), space::needed(&inner.table))
        };
        let directory = probe.parent().unwrap_or(Path::new("."));
        let tried = space::check(&disk, directory, needed)
            .and_then(|()| disk.replace(&probe, &[0; 4_096]))
            .and_then(|()| disk.remove(&probe));
        tried.is_ok()
    }

    /// Keeps a named value for the store. Durable.
    ///
    /// # Errors
    /// A bound; the disk.
    pub fn put_state(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        let inner = self.lock()?;
        inner.check_write(value)?;
        inner.state().put(&inner.state_entry(name), value)?;
        inner.records.sync()
    }

    /// A named value.
    ///
    /// # Errors
    /// It is damaged.
    pub fn state(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        let inner = self.lock()?;
        inner.state().get(&inner.state_entry(name))
    }

    /// Removes a named value. Durable; unreadable on the disk after the next change of the root.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_state(&self, name: &str) -> Result<(), VaultError> {
        let inner = self.lock()?;
        inner.state().remove(&inner.state_entry(name))?;
        inner.records.sync()
    }

    /// Keeps what the gateway remembers of a terminal, in place of the one before. Durable, at the price
    /// of one sync; a terminal's first state also writes the key table.
    ///
    /// # Errors
    /// A bound; the disk.
    pub fn put_terminal_state(&self, terminal: &Name, value: &[u8]) -> Result<(), VaultError> {
        self.lock()?.put_terminal_state(terminal, value)
    }

    /// What the gateway remembers of a terminal.
    ///
    /// # Errors
    /// It is damaged.
    pub fn terminal_state(&self, terminal: &Name) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        self.lock()?.terminal_state(terminal)
    }

    /// The terminals that have a state.
    pub fn terminals(&self) -> Vec<Name> {
        self.look().table.terminals.keys().cloned().collect()
    }

    /// Destroys the key and the state of a terminal, with a change of the root. Durable.
    ///
    /// # Errors
    /// The disk or the keeper failed.
    pub fn remove_terminal(&self, terminal: &Name) -> Result<(), VaultError> {
        self.lock()?.remove_terminal(terminal)
    }

    /// Puts an entry at the end of the outbox and gives its number. Durable.
    ///
    /// # Errors
    /// [`OutboxFull`](VaultError::OutboxFull); a bound; the disk.
    pub fn outbox_push(&self, value: &[u8]) -> Result<u64, VaultError> {
        let numbers = self.outbox_push_all(&[value])?;
        Ok(numbers[0])
    }

    /// Puts entries at the end of the outbox, for the price of one, and gives their numbers. Durable.
    ///
    /// # Errors
    /// As for [`outbox_push`](Self::outbox_push); a crash may leave some of them there.
    pub fn outbox_push_all<V: AsRef<[u8]>>(&self, values: &[V]) -> Result<Vec<u64>, VaultError> {
        let mut inner = self.lock()?;
        values.iter().try_for_each(|value| inner.check_write(value.as_ref()))?;
        push(&mut inner, values)
    }

    /// As [`outbox_push_all`](Self::outbox_push_all), of letters that an erasure must not go without:
    /// they may take the space that is kept for erasures.
    ///
    /// # Errors
    /// As for [`outbox_push_all`](Self::outbox_push_all), but for a full disk that still has it.
    pub fn outbox_push_erasures<V: AsRef<[u8]>>(
        &self,
        values: &[V],
    ) -> Result<Vec<u64>, VaultError> {
        let mut inner = self.lock()?;
        inner.make_room()?;
        push(&mut inner, values)
    }

    /// The first entries of the outbox with their numbers, oldest first.
    ///
    /// # Errors
    /// One is damaged.
    pub fn outbox_peek(&self, limit: usize) -> Result<Vec<OutboxEntry>, VaultError> {
        let inner = self.lock()?;
        let outbox = inner.outbox();
        let mut entries = Vec::new();
        for number in outbox.numbers().take(limit) {
            let number = number?;
            if let Some(value) = outbox.get(&store::number(number))? {
                entries.push((number, value));
            }
        }
        Ok(entries)
    }

    /// Takes an entry out of the outbox. Not synced: after a crash it may be there again, so the
    /// cloud must bear to see it twice.
    ///
    /// # Errors
    /// The disk.
    pub fn outbox_done(&self, number: u64) -> Result<(), VaultError> {
        let mut inner = self.lock()?;
        let entry = store::number(number);
        if inner.outbox().contains(&entry)? {
            inner.outbox().remove(&entry)?;
            inner.outbox_entries -= 1;
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Inner>, VaultError> {
        let inner = self.0.lock().map_err(|_| VaultError::Stopped)?;
        if inner.stopped { Err(VaultError::Stopped) } else { Ok(inner) }
    }

    /// For questions about memory, which stay answerable after a stop.
    fn look(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<V: AsRef<[u8]>>(inner: &mut Inner, values: &[V]) -> Result<Vec<u64>, VaultError> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    if inner.outbox_entries + values.len() > MAX_OUTBOX_ENTRIES {
        return Err(VaultError::OutboxFull { limit: MAX_OUTBOX_ENTRIES });
    }
    let mut numbers = Vec::with_capacity(values.len());
    for value in values {
        let number = inner.records.next_number()?;
        inner.outbox().put(&store::number(number), value.as_ref())?;
        inner.outbox_entries += 1;
        numbers.push(number);
    }
    inner.records.sync()?;
    Ok(numbers)
}
