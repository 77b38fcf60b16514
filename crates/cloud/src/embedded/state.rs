//! The state in memory, loaded from and written through to disk. Methods change memory and note
//! the rows; [`State::commit`] makes both true at once, or marks the state as broken.

use super::{
    rows::{
        GatewayKeys, Held, HolderRow, Member, Removal, Revision, Rows, parse_removal_name,
        removal_name, split_key_id, with_key_id,
    },
    shards::Kept,
};
use crate::{
    config::Shards,
    embedded::disk::{Changes, Disk, Row, Table},
    embedded::keys::{KeyId, KeyTable},
    problem::Problem,
    registry::erasure::ErasureRow,
    tombstones::TombstoneSet,
};
use palmgate_protocol::{ClaimHandle, Custody, MemberId, Name, Secret, Timestamp};
use palmgate_seal::{aead, hidden_id::IdHasher};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(super) struct State {
    disk: Disk,
    pub(super) rows: Rows,
    pub(super) keys: KeyTable,
    index: IdHasher,
    pub(super) tombstone_hasher: IdHasher,
    revision: u64,
    people: HashMap<MemberId, Person>,
    claims: HashMap<ClaimHandle, MemberId>,
    /// When something about a person ends.
    due: BTreeSet<(Timestamp, MemberId)>,
    pub(super) holders: BTreeMap<Name, Holder>,
    pub(super) tombstones: TombstoneSet,
    pub(super) erasures: HashMap<[u8; 32], ErasureRow>,
    /// A write failed: memory and disk may disagree, and nothing is promised any more.
    broken: bool,
}

pub(super) struct Person {
    pub(super) row: Member,
    key: KeyId,
}

/// A store, its chain and what its shard holds.
#[derive(Default)]
pub(super) struct Holder {
    pub(super) row: HolderRow,
    /// `operator` members by the revision at which the store was given them.
    pub(super) members: BTreeMap<u64, MemberId>,
    /// Unconfirmed removals by revision.
    pub(super) removals: BTreeMap<u64, Removal>,
    pub(super) kept: Option<Kept>,
}

impl Holder {
    pub(super) fn keys(&self) -> Result<GatewayKeys, Problem> {
        self.row.keys.ok_or(Problem::HelloFirst)
    }

    /// What was sent but not confirmed shall not be sent again with an old record of the person.
    fn outdate(&mut self, member: &MemberId) {
        self.kept.take_if(|kept| kept.has(member));
    }
}

impl State {
    /// Reads everything but the records themselves.
    pub(super) fn load(disk: Disk, keys: KeyTable, tenant: &Name) -> Result<Self, Problem> {
        let mut state = Self {
            rows: Rows { tenant: tenant.clone() },
            index: IdHasher::new(&keys.fixed().index),
            tombstone_hasher: IdHasher::new(&keys.fixed().tombstone),
            revision: 0,
            people: HashMap::new(),
            claims: HashMap::new(),
            due: BTreeSet::new(),
            holders: BTreeMap::new(),
            tombstones: TombstoneSet::default(),
            erasures: HashMap::new(),
            broken: false,
            disk,
            keys,
        };
        state.load_fixed()?;
        state.load_people()?;
        Ok(state)
    }

    fn load_fixed(&mut self) -> Result<(), Problem> {
        for (_, Revision(revision)) in self.fixed_rows(Table::Revision)? {
            self.revision = revision;
        }
        for (name, row) in self.fixed_rows(Table::Holder)? {
            let store = std::str::from_utf8(&name).map_err(Problem::internal)?;
            let store = store.parse().map_err(Problem::internal)?;
            self.holders.insert(store, Holder { row, ..Holder::default() });
        }
        for (name, removal) in self.fixed_rows(Table::Removal)? {
            let (store, revision) = parse_removal_name(&name).ok_or(Problem::Internal)?;
            self.holders.entry(store).or_default().removals.insert(revision, removal);
        }
        for (hash, Revision(revision)) in self.fixed_rows(Table::Tombstone)? {
            let hash = hash.try_into().map_err(|_| Problem::Internal)?;
            self.tombstones.insert(hash, revision);
        }
        for (commitment, row) in self.fixed_rows(Table::Erasure)? {
            let commitment = commitment.try_into().map_err(|_| Problem::Internal)?;
            self.erasures.insert(commitment, row);
        }
        Ok(())
    }

    fn fixed_rows<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        table: Table,
    ) -> Result<Vec<(Vec<u8>, T)>, Problem> {
        let key = &self.keys.fixed().state;
        let open = |(name, sealed): Row| {
            let row = self.rows.open(key, table, &name, &sealed)?;
            Ok((name, row))
        };
        self.disk.rows(table).map_err(Problem::internal)?.into_iter().map(open).collect()
    }

    pub(super) fn witnessed(&self, origin: &str) -> Result<Option<String>, Problem> {
        let (key, name) = (&self.keys.fixed().state, origin.as_bytes());
        let sealed = self.disk.get(Table::Witnessed, name).map_err(Problem::internal)?;
        sealed.map(|sealed| self.rows.open(key, Table::Witnessed, name, &sealed)).transpose()
    }

    pub(super) fn all_witnessed(&self) -> Result<Vec<String>, Problem> {
        let rows = self.fixed_rows(Table::Witnessed)?;
        Ok(rows.into_iter().map(|(_, checkpoint)| checkpoint).collect())
    }

    /// A row whose key is gone is what an interrupted erasure left: it is nobody any more.
    fn load_people(&mut self) -> Result<(), Problem> {
        for (name, bytes) in self.disk.rows(Table::Member).map_err(Problem::internal)? {
            let (key, sealed) = split_key_id(&bytes).ok_or(Problem::Internal)?;
            let Some(opening) = self.keys.key(key) else { continue };
            let row: Member = self.rows.open(opening, Table::Member, &name, sealed)?;
            self.link(Person { row, key });
        }
        Ok(())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn person(&self, member: &MemberId) -> Option<&Person> {
        self.people.get(member)
    }

    pub(super) fn claimed(&self, claim: &ClaimHandle) -> Option<&Person> {
        self.people.get(self.claims.get(claim)?)
    }

    pub(super) fn people(&self) -> impl Iterator<Item = &Person> {
        self.people.values()
    }

    /// The record that was registered: opened with the person's key.
    pub(super) fn record(&self, person: &Person) -> Result<Secret<Vec<u8>>, Problem> {
        let name = self.index.member(&person.row.id);
        let bytes = self.disk.get(Table::Record, &name).map_err(Problem::internal)?;
        let bytes = bytes.ok_or(Problem::Internal)?;
        let (key, sealed) = split_key_id(&bytes).ok_or(Problem::Internal)?;
        let key = self.keys.key(key).ok_or(Problem::Internal)?;
        let aad = record_place(&self.rows.tenant, &name);
        key.open(&aad, sealed).map_err(Problem::internal)
    }

    pub(super) fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Adds a person, or replaces them with a new key; the old key goes with the next rotation.
    pub(super) fn put(
        &mut self,
        row: Member,
        record: &Secret<Vec<u8>>,
        changes: &mut Changes,
    ) -> Result<(), Problem> {
        let key = self.keys.add().map_err(|error| self.fail(error))?;
        let name = self.index.member(&row.id);
        let place = record_place(&self.rows.tenant, &name);
        let sealing = self.keys.key(key).ok_or(Problem::Internal)?;
        changes.put(Table::Record, &name, with_key_id(key, sealing.seal(&place, record.expose())));
        self.unlink(&row.id);
        let member = row.id;
        self.link(Person { row, key });
        self.write_member(&member, changes);
        Ok(())
    }

    /// The person is given to a store, or given anew; the next shard has them.
    pub(super) fn hold(
        &mut self,
        member: &MemberId,
        store: &Name,
        shards: &Shards,
        now: Timestamp,
        changes: &mut Changes,
    ) {
        let since = self.next_revision();
        let Some(person) = self.people.get_mut(member) else { return };
        let holder = self.holders.entry(store.clone()).or_default();
        let visits = person.row.custody == Custody::Operator && person.row.home != *store;
        let visit_until = visits.then(|| now.after(shards.visit()));
        self.due.extend(visit_until.map(|end| (end, *member)));
        let given = Held { store: store.clone(), since, visit_until };
        if let Some(held) = person.row.holders.iter_mut().find(|held| held.store == *store) {
            holder.members.remove(&held.since);
            *held = given;
            holder.outdate(member);
        } else {
            person.row.holders.push(given);
        }
        if person.row.custody == Custody::Operator {
            holder.members.insert(since, *member);
        }
        self.write_member(member, changes);
        self.make_room(store, shards, now, changes);
    }

    /// Takes people from a shard that has more than its false positive budget allows: visitors
    /// before people of the house, who came first before who came last. They are found by their
    /// claim, and come back with their next visit.
    fn make_room(&mut self, store: &Name, shards: &Shards, now: Timestamp, changes: &mut Changes) {
        while let Some(holder) = self.holders.get(store)
            && i64::try_from(holder.members.len()).is_ok_and(|people| people > shards.cap())
        {
            let visits = |member: &&MemberId| {
                self.people.get(member).is_some_and(|person| person.row.home != *store)
            };
            // Whoever came last is who room is made for.
            let mut others = holder.members.values().rev().skip(1).rev();
            let leaving = others.clone().find(visits).or_else(|| others.next()).copied();
            let Some(leaving) = leaving else { return };
            self.release(&leaving, |_, held| held.store == *store, now, changes);
        }
    }

    /// The person must leave every store that `which` names; its next shard says so.
    pub(super) fn release(
        &mut self,
        member: &MemberId,
        which: impl Fn(&Member, &Held) -> bool,
        now: Timestamp,
        changes: &mut Changes,
    ) {
        let Some(person) = self.people.get_mut(member) else { return };
        let holders = std::mem::take(&mut person.row.holders);
        let (gone, kept) = holders.into_iter().partition(|held| which(&person.row, held));
        person.row.holders = kept;
        let hash = self.tombstone_hasher.member(member);
        let removal = Removal { member: *member, hash, asked_at: Some(now) };
        let gone: Vec<Held> = gone;
        for held in gone {
            let revision = self.next_revision();
            let holder = self.holders.entry(held.store.clone()).or_default();
            holder.members.remove(&held.since);
            holder.removals.insert(revision, removal);
            self.write_fixed(
                Table::Removal,
                &removal_name(&held.store, revision),
                &removal,
                changes,
            );
        }
        self.write_member(member, changes);
    }

    /// Forgets people: tombstones, removals for every holder, rows deleted. Their keys are
    /// destroyed by [`State::rotate`] after the commit.
    pub(super) fn forget(&mut self, member: &MemberId, now: Timestamp, changes: &mut Changes) {
        self.release(member, |_, _| true, now, changes);
        let Some(row) = self.unlink(member) else { return };
        let name = self.index.member(member);
        changes.delete(Table::Member, &name);
        changes.delete(Table::Record, &name);
        self.bury(self.tombstone_hasher.member(member), changes);
        self.bury(self.tombstone_hasher.claim(&row.claim), changes);
    }

    pub(super) fn bury(&mut self, hash: [u8; 32], changes: &mut Changes) {
        let revision = self.next_revision();
        if self.tombstones.insert(hash, revision) {
            self.write_fixed(Table::Tombstone, &hash, &Revision(revision), changes);
        }
    }

    /// People of whom something ended at or before `now`.
    pub(super) fn due(&self, now: Timestamp) -> Vec<MemberId> {
        let until = self.due.iter().take_while(|(time, _)| *time <= now);
        until.map(|(_, member)| *member).collect::<HashSet<_>>().into_iter().collect()
    }

    /// Forgets what ended until now, once it was acted upon.
    pub(super) fn settle(&mut self, now: Timestamp) {
        while self.due.first().is_some_and(|(time, _)| *time <= now) {
            self.due.pop_first();
        }
    }

    /// Whether keys exist that nobody's rows need.
    pub(super) fn has_dead_keys(&self) -> bool {
        self.keys.len() > self.people.len()
    }

    /// Destroys the keys of everybody who is not a member any more.
    pub(super) fn rotate(&mut self) -> Result<(), Problem> {
        let live = self.people.values().map(|person| person.key).collect();
        self.keys.keep_only(&live).map_err(|error| self.fail(error))
    }

    pub(super) fn write_holder(&self, store: &Name, row: &HolderRow, changes: &mut Changes) {
        self.write_fixed(Table::Holder, store.as_str().as_bytes(), row, changes);
    }

    pub(super) fn write_fixed<T: minicbor::Encode<()>>(
        &self,
        table: Table,
        name: &[u8],
        row: &T,
        changes: &mut Changes,
    ) {
        let key: &aead::Key = &self.keys.fixed().state;
        changes.put(table, name, self.rows.seal(key, table, name, row));
    }

    /// Makes the changes durable.
    pub(super) fn commit(&mut self, mut changes: Changes) -> Result<(), Problem> {
        self.write_fixed(Table::Revision, b"", &Revision(self.revision), &mut changes);
        self.disk.commit(changes).map_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: impl std::error::Error) -> Problem {
        self.broken = true;
        Problem::internal(error)
    }

    fn write_member(&self, member: &MemberId, changes: &mut Changes) {
        let Some(person) = self.people.get(member) else { return };
        let Some(key) = self.keys.key(person.key) else { return };
        let name = self.index.member(member);
        let sealed = self.rows.seal(key, Table::Member, &name, &person.row);
        changes.put(Table::Member, &name, with_key_id(person.key, sealed));
    }

    fn link(&mut self, person: Person) {
        let row = &person.row;
        self.claims.insert(row.claim, row.id);
        self.due.extend(ends(row).map(|end| (end, row.id)));
        for held in &row.holders {
            let holder = self.holders.entry(held.store.clone()).or_default();
            if row.custody == Custody::Operator {
                holder.members.insert(held.since, row.id);
            }
        }
        self.people.insert(row.id, person);
    }

    fn unlink(&mut self, member: &MemberId) -> Option<Member> {
        let row = self.people.remove(member)?.row;
        self.claims.remove(&row.claim);
        for end in ends(&row) {
            self.due.remove(&(end, row.id));
        }
        for held in &row.holders {
            if let Some(holder) = self.holders.get_mut(&held.store) {
                holder.members.remove(&held.since);
            }
        }
        Some(row)
    }
}

fn ends(row: &Member) -> impl Iterator<Item = Timestamp> + '_ {
    let visits = row.holders.iter().filter_map(|held| held.visit_until);
    [Some(row.expires_at), row.roaming_until].into_iter().flatten().chain(visits)
}

fn record_place(tenant: &Name, name: &[u8]) -> Vec<u8> {
    let column = Table::Record.column();
    aead::Place { tenant, purpose: None, record: name, column, version: 1 }.aad()
}
