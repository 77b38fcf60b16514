//! Changes of the root: the only way anything is forgotten.
//!
//! One moment decides: the keeper's taking the new root. Everything before it can be cut off and
//! leaves the old state whole, everything after it is housekeeping.

use std::collections::{BTreeMap, BTreeSet};

use palmgate_protocol::{MemberId, Name};

use crate::{
    disk::FileSync,
    erasures::Erasure,
    error::VaultError,
    inner::Inner,
    keys::{Change, Person, Plan, Seed},
    people::{Batch, Column, ErasureRequest, Group, PersonCipher},
    records::Shelf,
    root::Root,
    space,
    store::StoreCipher,
    table::MAX_BEGUN,
    tombstones::{Mark, Tombstones},
};

/// More outbox entries than this are not sealed anew: somebody waits for the erasure.
const OUTBOX_AT_ONCE: usize = 1_000;

impl Inner {
    /// Erases people, and makes the batch's rows and the rest of `change` count with that.
    pub(crate) fn erase(
        &mut self,
        people: &[ErasureRequest],
        batch: &Batch,
        change: Change,
    ) -> Result<(), VaultError> {
        let mark = |id| self.tombstones.mark(id);
        let erasures: Vec<Erasure> = people
            .iter()
            .map(|one| Erasure {
                marks: [mark(one.member.as_bytes()), mark(one.claim.as_bytes())],
                commitment: one.commitment,
            })
            .collect();
        let mut begun: Vec<Erasure> = Vec::with_capacity(erasures.len());
        for one in &erasures {
            if !self.table.begun.contains(one) && !begun.contains(one) {
                begun.push(*one);
            }
        }
        if self.table.begun.len() + begun.len() > MAX_BEGUN {
            return Err(VaultError::TooLarge {
                what: "the number of erasures without a ledger entry",
                limit: MAX_BEGUN,
            });
        }
        self.make_room()?;
        // They stay begun whatever happens: an intent that may be durable is never taken back.
        self.table.begun.extend(begun);
        let members = people.iter().map(|one| one.member).collect();
        self.carry_out(&erasures, members, batch, change)
    }

    /// Carries out the intents that a crash left behind.
    pub(crate) fn roll_forward(&mut self) -> Result<(), VaultError> {
        let erasures = self.open_erasures();
        if erasures.is_empty() {
            return Ok(());
        }
        tracing::info!(count = erasures.len(), "carrying out erasures that were interrupted");
        let marks: BTreeSet<Mark> = erasures.iter().map(|one| one.marks[0]).collect();
        let named = |id: &&MemberId| marks.contains(&self.tombstones.mark(id.as_bytes()));
        let members = self.table.people.keys().filter(named).copied().collect();
        self.make_room()?;
        self.carry_out(&erasures, members, &Batch::default(), Change::default())
    }

    fn carry_out(
        &mut self,
        erasures: &[Erasure],
        members: Vec<MemberId>,
        batch: &Batch,
        mut change: Change,
    ) -> Result<(), VaultError> {
        let mut seen = BTreeSet::new();
        let tombstones: Vec<[Mark; 2]> = erasures
            .iter()
            .map(|one| one.marks)
            .filter(|marks| !self.tombstones.hold(marks) && seen.insert(*marks))
            .collect();
        let mut groups = Vec::new();
        let mut gone = false;
        for member in members {
            if let Some(person) = self.table.people.get(&member) {
                groups.push(person.seed.group());
                change.people.insert(member, None);
                gone = true;
            }
        }
        if tombstones.is_empty() && !gone {
            if !batch.insert.is_empty() || !batch.write.is_empty() {
                self.write_rows(batch, &change)?;
                self.records.sync()?;
            }
            return self.rewrite(change);
        }
        change.tombstones = Some(Tombstones::head_with(&self.table.tombstones, &tombstones));
        change.marks.clone_from(&tombstones);
        self.rotate(batch, change)?;
        self.tombstones.admit(&tombstones);
        self.sweep_people(groups);
        Ok(())
    }

    pub(crate) fn forget_columns(
        &mut self,
        people: &[(MemberId, Vec<Column>)],
    ) -> Result<(), VaultError> {
        let mut forgotten: BTreeMap<MemberId, Vec<Column>> = BTreeMap::new();
        let mut groups = Vec::new();
        for (member, columns) in people {
            let person = self.table.people.get(member).ok_or(VaultError::UnknownMember)?;
            groups.push(person.seed.group());
            forgotten.entry(*member).or_default().extend(columns);
        }
        self.make_room()?;
        let change = self.rekey(&forgotten).inspect_err(|_| self.untidy = true)?;
        self.rotate(&Batch::default(), change)?;
        self.sweep_people(groups);
        Ok(())
    }

    /// Copies what people keep to places under new keys, where nothing counts yet.
    fn rekey(&self, people: &BTreeMap<MemberId, Vec<Column>>) -> Result<Change, VaultError> {
        let mut change = Change::default();
        for (member, forgotten) in people {
            let mut person = Person::new(Seed::generate(), 0);
            let mut rows = Vec::new();
            let cipher = PersonCipher::new(&self.tenant, member, &person.seed);
            for column in Column::all().filter(|column| !forgotten.contains(column)) {
                match self.read(member, column) {
                    Ok(None) => continue,
                    Ok(Some(value)) => rows.push(cipher.seal(column, value.expose())),
                    // It stays damaged, but nobody has to keep a purpose because of it.
                    Err(VaultError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
                person.columns |= column.bit();
            }
            self.records.add(Shelf::People, &rows)?;
            change.people.insert(*member, Some(person));
        }
        Ok(change)
    }

    pub(crate) fn renew(&mut self) -> Result<(), VaultError> {
        self.make_room()?;
        let mut prepared = Vec::new();
        let change = self
            .prepare_terminals(&mut prepared)
            .map(|change| Change { all_pages: true, ..change });
        let outcome = change.and_then(|change| self.rotate(&Batch::default(), change));
        for terminal in prepared {
            let slots = self.slots_of(&terminal)?;
            if outcome.is_err() {
                slots.abandon();
            } else if let Err(error) = slots.settle() {
                tracing::warn!(%error, "wiping a session under an old key failed");
            }
        }
        outcome
    }

    /// Writes every session once more, under a new key that does not count yet.
    fn prepare_terminals(&mut self, prepared: &mut Vec<Name>) -> Result<Change, VaultError> {
        let mut change = Change::default();
        let terminals: Vec<Name> = self.table.terminals.keys().cloned().collect();
        for terminal in terminals {
            let seed = Seed::generate();
            // A session that no longer opens is no reason to keep old keys: its terminal joins anew.
            if let Ok(Some(state)) = self.terminal_state(&terminal) {
                self.slots_of(&terminal)?.prepare(&seed.sealing(), state.expose())?;
                prepared.push(terminal.clone());
            }
            change.terminals.insert(terminal, Some(seed));
        }
        Ok(change)
    }

    pub(crate) fn remove_terminal(&mut self, terminal: &Name) -> Result<(), VaultError> {
        if !self.table.terminals.contains_key(terminal) {
            return Ok(());
        }
        self.make_room()?;
        let mut change = Change::default();
        change.terminals.insert(terminal.clone(), None);
        self.rotate(&Batch::default(), change)?;
        self.slots.remove(terminal);
        if let Err(error) = self.disk.destroy(&self.terminals_directory().join(terminal.as_str())) {
            tracing::warn!(%error, "removing a session without a key failed");
        }
        Ok(())
    }

    /// Writes the changed table under a new root, has the keeper take that root and destroy the
    /// one before, and cleans up. Until the keeper answers, nothing has happened; if it answers
    /// with an error nobody knows, so the vault stops.
    fn rotate(&mut self, batch: &Batch, mut change: Change) -> Result<(), VaultError> {
        let was_untidy = self.untidy;
        self.untidy = true;
        change.state = self.reseal(&self.state());
        if self.outbox_entries <= OUTBOX_AT_ONCE {
            change.outbox = self.reseal(&self.outbox());
        }
        let root = self.next_root();
        let plan = self.stage(batch, &mut change, &root)?;
        self.keeper.replace(&root).map_err(|source| {
            self.stopped = true;
            VaultError::Keeper { keeper: self.keeper.describe(), source }
        })?;
        self.root = root;
        let replaced = self.table.apply(change, plan);
        self.settle_table();
        match self.clear(&replaced) {
            Ok(()) => self.untidy = was_untidy,
            Err(error) => tracing::warn!(%error, "cleaning up after a change of the root failed"),
        }
        space::keep(&self.disk, &self.directory, space::needed(&self.table));
        Ok(())
    }

    /// Makes everything durable that counts once the keeper has the new root: tombstones, table,
    /// intents, the new root itself, and the batch's rows, which are written while the disk is busy with
    /// the others: its waits are most of what an erasure takes.
    fn stage(
        &mut self,
        batch: &Batch,
        change: &mut Change,
        root: &Root,
    ) -> Result<Plan, VaultError> {
        let intents = self.open_erasures();
        let marks = self.tombstones.stage(&self.table.tombstones, &change.marks);
        let files = self.key_files();
        let worker = Some(&self.table_worker);
        let table = self.table.stage(change, &intents, &files, root, worker);
        let written = self.write_rows(batch, change);
        let rows = self.records.begin_sync();
        let staged = self.keeper.stage(root);
        let describe = self.keeper.describe();
        // All of them are waited for: whatever is tried next must not meet one of these.
        let marked = marks.and_then(FileSync::finish);
        let plan = table.and_then(|(plan, syncing)| syncing.finish().map(|()| plan));
        let synced = rows.and_then(|syncing| self.records.finish_sync(syncing));
        marked?;
        let mut plan = plan?;
        staged.map_err(|source| VaultError::Keeper { keeper: describe, source })?;
        written?;
        if let Err(error) = synced {
            // New people, new copies and replaced columns need their rows. Only forgetting goes on
            // without them.
            if !batch.write.is_empty() || change.people.values().any(Option::is_some) {
                return Err(error);
            }
            if change.state.take().is_some() | change.outbox.take().is_some() {
                tracing::warn!(%error, "state or outbox keep their key until the next change");
                plan = self.table.write(change, &intents, &self.key_files(), root)?;
            }
        }
        Ok(plan)
    }

    fn next_root(&self) -> Root {
        #[cfg(test)]
        if self.rotation_off {
            return self.root.numbered(self.root.generation() + 1);
        }
        self.root.successor()
    }

    /// Copies state or outbox under a new key. A record store that fails must not stop an erasure,
    /// which is about other keys: then these entries keep theirs until the next change.
    fn reseal(&self, current: &StoreCipher<'_>) -> Option<Seed> {
        let seed = Seed::generate();
        let next = StoreCipher::new(&self.tenant, &self.records, &seed);
        match current.copy_to(&next) {
            Ok(()) => Some(seed),
            Err(error) => {
                tracing::warn!(%error, "state or outbox keep their key until the next change");
                None
            }
        }
    }

    fn clear(&self, replaced: &[Seed]) -> Result<(), VaultError> {
        let cipher = |seed| StoreCipher::new(&self.tenant, &self.records, seed);
        replaced.iter().try_for_each(|seed| cipher(seed).clear())
    }

    /// Rows whose key is gone take up space and nothing else: nobody waits for their removal.
    fn sweep_people(&mut self, groups: Vec<Group>) {
        if let Err(error) = self.records.begin_removal(Shelf::People, groups) {
            tracing::warn!(%error, "removing unreadable rows failed");
            self.untidy = true;
        }
    }

    pub(crate) fn make_room(&self) -> Result<(), VaultError> {
        space::make_room(&self.disk, &self.directory, space::needed(&self.table))
    }
}
