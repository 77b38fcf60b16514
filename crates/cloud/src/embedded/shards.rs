//! Shards: what each store may match against, as a chain of signed versions.
//!
//! No version is ever made twice with different content. A difference follows the last version
//! that was sent; when its answer got lost it is sent again, byte by byte, as long as nobody had
//! to leave meanwhile; in every other case the store gets a whole shard. Shards are never written
//! to disk here: they could not be unwritten when a person in them is forgotten.

use super::{
    Embedded,
    rows::{HolderRow, Link, removal_name},
    state::{Holder, State},
};
use crate::{
    embedded::disk::{Changes, Table},
    problem::Problem,
    registry::chain::{self, ATTEMPTS, MAX_KEPT_BYTES, ROWS_PER_CHUNK},
    tombstones::sha256,
};
use axum::body::Bytes;
use palmgate_protocol::{MemberId, Name, Timestamp, cloud::ShardChunk, decode, encode};
use palmgate_seal::{envelope::SealingKey, shard};
use std::collections::HashSet;

/// A difference that was sent and not yet confirmed.
pub(super) struct Kept {
    bytes: Bytes,
    people: HashSet<MemberId>,
}

impl Kept {
    pub(super) fn has(&self, member: &MemberId) -> bool {
        self.people.contains(member)
    }
}

enum Next {
    Nothing,
    Again(Bytes),
    Build(Plan),
}

struct Plan {
    to: SealingKey,
    version: u64,
    base: u64,
    previous: [u8; 32],
    up_to: u64,
    lease_until: Timestamp,
    rows: u64,
    tombstone_root: [u8; 32],
    remove: Vec<MemberId>,
    add: Vec<MemberId>,
}

impl Embedded {
    /// The encoded shard that follows version `held` (0: none), or `None` when nothing changed
    /// and the lease is not past half. Asking for what follows a version confirms it.
    pub(crate) fn shard(
        &self,
        store: &Name,
        held: u64,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Problem> {
        self.sweep(now)?;
        for _ in 0..ATTEMPTS {
            let plan = match self.next(store, held, now)? {
                Next::Nothing => return Ok(None),
                Next::Again(bytes) => return Ok(Some(bytes)),
                Next::Build(plan) => plan,
            };
            let chunks = self.chunks(&plan)?;
            let shard = shard::publish(
                &self.tenant.publisher,
                &plan.to,
                &self.draft(store, &plan),
                &chunks,
            )
            .map_err(Problem::internal)?;
            let (hash, bytes) = (sha256(&[&shard.manifest]), Bytes::from(encode(&shard)));
            if self.issue(store, plan, hash, &bytes)? {
                return Ok(Some(bytes));
            }
        }
        Err(Problem::Busy)
    }

    /// The store says that a version is in force, and with it every removal up to it.
    pub(crate) fn applied(&self, store: &Name, version: u64) -> Result<(), Problem> {
        let mut state = self.write()?;
        let last = state.holders.get(store).and_then(|holder| holder.row.last);
        match last {
            Some(last) if last.version == version => confirm(&mut state, store, last),
            // A late word about a version that was superseded: it confirms nothing new.
            Some(last) if version < last.version => Ok(()),
            _ => Err(Problem::Conflict),
        }
    }

    fn next(&self, store: &Name, held: u64, now: Timestamp) -> Result<Next, Problem> {
        let mut state = self.write()?;
        let row = state.holders.get(store).ok_or(Problem::HelloFirst)?.row.clone();
        let to = SealingKey(row.keys.ok_or(Problem::HelloFirst)?.seal);
        let current = row.last.filter(|last| last.version == held);
        if let Some(last) = current {
            confirm(&mut state, store, last)?;
        }
        let holder = state.holders.get(store).ok_or(Problem::HelloFirst)?;
        if let Some(bytes) = again(holder, held, now) {
            return Ok(Next::Again(bytes));
        }
        let since = current.map_or(0, |last| last.up_to);
        let add: Vec<_> = holder.members.range(since + 1..).map(|(_, member)| *member).collect();
        let remove: Vec<_> = match current {
            Some(_) => holder.removals.values().map(|removal| removal.member).collect(),
            None => Vec::new(),
        };
        let lease = self.tenant.settings.lease();
        if let Some(last) = current
            && add.is_empty()
            && remove.is_empty()
            && !chain::is_prolonged(last.lease_until, lease, now)
        {
            return Ok(Next::Nothing);
        }
        Ok(Next::Build(Plan {
            to,
            version: row.last_version + 1,
            base: current.map_or(0, |last| last.version),
            previous: row.last_hash,
            up_to: state.revision(),
            lease_until: now.after(lease),
            rows: holder.members.len() as u64,
            tombstone_root: state.tombstones.root(),
            remove,
            add,
        }))
    }

    fn draft<'a>(&'a self, store: &'a Name, plan: &Plan) -> shard::Draft<'a> {
        shard::Draft {
            tenant: self.tenant.name(),
            store,
            version: plan.version,
            base: plan.base,
            previous: plan.previous,
            lease_until: plan.lease_until,
            rows: plan.rows,
            tombstone_root: plan.tombstone_root,
        }
    }

    fn chunks(&self, plan: &Plan) -> Result<Vec<ShardChunk>, Problem> {
        let mut chunks = chain::removals(&plan.remove);
        for members in plan.add.chunks(ROWS_PER_CHUNK) {
            // The lock is taken for one chunk at a time; whoever is forgotten in between is
            // noticed by `issue`.
            let state = self.read()?;
            let people = members.iter().filter_map(|member| state.person(member));
            let add = people
                .map(|person| decode(state.record(person)?.expose()).map_err(Problem::internal))
                .collect::<Result<_, _>>()?;
            chunks.push(ShardChunk { add, remove: Vec::new() });
        }
        Ok(chunks)
    }

    /// Notes the shard as the store's last; `false` when somebody left the store, or another
    /// shard was issued to it, while this one was built.
    fn issue(
        &self,
        store: &Name,
        plan: Plan,
        hash: [u8; 32],
        bytes: &Bytes,
    ) -> Result<bool, Problem> {
        let mut state = self.write()?;
        let holder = state.holders.get_mut(store).ok_or(Problem::HelloFirst)?;
        let left = holder.removals.range(plan.up_to + 1..).next().is_some();
        if left || holder.row.last_version + 1 != plan.version {
            return Ok(false);
        }
        let (version, up_to, lease_until) = (plan.version, plan.up_to, plan.lease_until);
        holder.row = HolderRow {
            last_version: version,
            last_hash: hash,
            last: Some(Link { version, up_to, lease_until }),
            ..holder.row.clone()
        };
        let keep = plan.base != 0 && bytes.len() <= MAX_KEPT_BYTES;
        holder.kept =
            keep.then(|| Kept { bytes: bytes.clone(), people: plan.add.into_iter().collect() });
        let row = holder.row.clone();
        let mut changes = Changes::default();
        state.write_holder(store, &row, &mut changes);
        state.commit(changes)?;
        Ok(true)
    }
}

/// The difference that the store did not receive, when it is still true and still leased.
fn again(holder: &Holder, held: u64, now: Timestamp) -> Option<Bytes> {
    let last = holder.row.last?;
    let follows = held != 0 && last.version == held + 1 && now < last.lease_until;
    let is_true = holder.removals.range(last.up_to + 1..).next().is_none();
    holder.kept.as_ref().filter(|_| follows && is_true).map(|kept| kept.bytes.clone())
}

/// Everything up to this version is in force in the store.
fn confirm(state: &mut State, store: &Name, last: Link) -> Result<(), Problem> {
    let Some(holder) = state.holders.get_mut(store) else { return Ok(()) };
    holder.kept = None;
    let later = holder.removals.split_off(&(last.up_to + 1));
    let confirmed = std::mem::replace(&mut holder.removals, later);
    if confirmed.is_empty() {
        return Ok(());
    }
    let mut changes = Changes::default();
    for revision in confirmed.into_keys() {
        changes.delete(Table::Removal, &removal_name(store, revision));
    }
    state.commit(changes)
}
