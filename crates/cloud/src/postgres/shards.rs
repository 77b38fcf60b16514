//! Shards: what each store may match against, as a chain of signed versions.
//!
//! No version is ever made twice with different content. A difference follows the last version that
//! was sent; when its answer got lost and the store asks the same process again, it is sent again,
//! byte by byte, as long as it is still true; in every other case the store gets a whole shard.
//! Shards are never written down here: they could not be unwritten when somebody in them is
//! forgotten.

use super::{
    Postgres,
    database::{Done, Failed},
    people::{hash, name},
    rows::{Column, Held},
    tombstones::TombstoneRoot,
};
use crate::{
    problem::Problem,
    registry::chain::{self, ATTEMPTS, MAX_KEPT_BYTES, ROWS_PER_CHUNK},
};
use axum::body::Bytes;
use palmgate_protocol::{
    MemberId, Name, Timestamp,
    cloud::{MemberRecord, ShardChunk},
    decode, encode,
};
use palmgate_seal::{envelope::SealingKey, shard};
use postgres::{Row, Transaction};
use ring::digest::{SHA256, digest};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// People read from the database at once.
const ROWS_PER_READ: usize = 2048;
/// Differences kept at once; beyond that, a lost answer costs a whole shard.
const MAX_KEPT: usize = 64;

/// A difference that was sent and not yet confirmed.
#[derive(Clone)]
struct Kept {
    version: i64,
    /// The last revision that is in it.
    up_to: i64,
    /// Whom it gives to the store.
    handles: Vec<Vec<u8>>,
    bytes: Bytes,
}

/// The last answers, by store.
#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<Name, Kept>>);

impl Answers {
    fn keep(&self, store: &Name, kept: Option<Kept>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.remove(store);
        if let Some(kept) = kept.filter(|_| answers.len() < MAX_KEPT) {
            answers.insert(store.clone(), kept);
        }
    }

    fn kept(&self, store: &Name, version: i64) -> Option<Kept> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(store).filter(|kept| kept.version == version).cloned()
    }
}

/// A store's row.
struct Chain {
    seal_key: [u8; 32],
    revision: i64,
    rows: i64,
    last_version: i64,
    last_hash: [u8; 32],
    /// The last revision and the lease in the last version; `None` when the store certainly holds
    /// nothing.
    last: Option<(i64, Timestamp)>,
}

enum Next {
    Nothing,
    Again(Bytes),
    Build(Plan),
}

struct Plan {
    to: SealingKey,
    version: i64,
    base: i64,
    previous: [u8; 32],
    up_to: i64,
    lease_until: Timestamp,
    rows: i64,
    remove: Vec<MemberId>,
    add: Vec<MemberId>,
}

impl Postgres {
    pub(super) fn shard(
        &self,
        store: &Name,
        held: u64,
        now: Timestamp,
    ) -> Result<Option<Bytes>, Problem> {
        let held = i64::try_from(held).map_err(|_| Problem::Malformed)?;
        self.sweep(now)?;
        for _ in 0..ATTEMPTS {
            let plan = match self.database.run(|tx| self.next(tx, store, held, now))? {
                Next::Nothing => return Ok(None),
                Next::Again(bytes) => return Ok(Some(bytes)),
                Next::Build(plan) => plan,
            };
            let root = self.tombstone_root()?;
            let Some(chunks) = self.chunks(&plan)? else { continue };
            let draft = self.draft(store, &plan, &root);
            let shard = shard::publish(&self.tenant.publisher, &plan.to, &draft, &chunks)
                .map_err(Problem::internal)?;
            let manifest_hash = digest(&SHA256, &shard.manifest);
            let bytes = Bytes::from(encode(&shard));
            let issued =
                self.database.run(|tx| self.issue(tx, store, &plan, manifest_hash.as_ref()));
            if issued? {
                let keep = plan.base != 0 && bytes.len() <= MAX_KEPT_BYTES;
                let handles = || plan.add.iter().map(|member| self.fixed.handle(store, member));
                let kept = keep.then(|| Kept {
                    version: plan.version,
                    up_to: plan.up_to,
                    handles: handles().collect(),
                    bytes: bytes.clone(),
                });
                self.answers.keep(store, kept);
                return Ok(Some(bytes));
            }
        }
        Err(Problem::Busy)
    }

    pub(super) fn applied(&self, store: &Name, version: u64) -> Result<(), Problem> {
        let version = i64::try_from(version).map_err(|_| Problem::Malformed)?;
        self.database.run(|tx| {
            let chain = self.chain(tx, store)?;
            match chain.last {
                Some((up_to, _)) if chain.last_version == version => self.confirm(tx, store, up_to),
                // A late word about a version that was superseded: it confirms nothing new.
                Some(_) if version < chain.last_version => Ok(()),
                _ => Err(Problem::Conflict.into()),
            }
        })
    }

    /// The store's row, locked: its revisions are complete up to the one in it.
    fn chain(&self, tx: &mut Transaction<'_>, store: &Name) -> Done<Chain> {
        let row = tx.query_opt(
            "SELECT seal_key, revision, rows, last_version, last_hash, up_to, lease_until \
             FROM store WHERE tenant = $1 AND store = $2 FOR UPDATE",
            &[&self.tenant(), &store.as_str()],
        )?;
        let row = row.ok_or(Problem::HelloFirst)?;
        let seal_key: Option<&[u8]> = row.get(0);
        let (up_to, lease): (Option<i64>, Option<i64>) = (row.get(5), row.get(6));
        Ok(Chain {
            seal_key: hash(seal_key.ok_or(Problem::HelloFirst)?)?,
            revision: row.get(1),
            rows: row.get(2),
            last_version: row.get(3),
            last_hash: hash(row.get(4))?,
            last: up_to.zip(lease.map(Timestamp::from_millis)),
        })
    }

    fn next(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        held: i64,
        now: Timestamp,
    ) -> Done<Next> {
        let chain = self.chain(tx, store)?;
        let current = chain.last.filter(|_| held != 0 && chain.last_version == held);
        if let Some((up_to, _)) = current {
            self.confirm(tx, store, up_to)?;
        }
        let follows = held != 0 && chain.last_version == held + 1;
        if let Some((_, lease)) = chain.last
            && follows
            && now < lease
            && let Some(kept) = self.answers.kept(store, chain.last_version)
            && self.is_still_true(tx, store, &kept)?
        {
            return Ok(Next::Again(kept.bytes));
        }
        let lease = self.tenant.settings.lease();
        if let Some((up_to, lease_until)) = current
            && up_to == chain.revision
            && !chain::is_prolonged(lease_until, lease, now)
        {
            return Ok(Next::Nothing);
        }
        let since = current.map_or(0, |(up_to, _)| up_to);
        Ok(Next::Build(Plan {
            to: SealingKey(chain.seal_key),
            version: chain.last_version + 1,
            base: if current.is_some() { held } else { 0 },
            previous: chain.last_hash,
            up_to: chain.revision,
            lease_until: now.after(lease),
            rows: chain.rows,
            remove: if current.is_some() { self.removals(tx, store)? } else { Vec::new() },
            add: self.holdings(tx, store, since)?,
        }))
    }

    /// Whether nobody left since, and nobody in it has another record by now.
    fn is_still_true(&self, tx: &mut Transaction<'_>, store: &Name, kept: &Kept) -> Done<bool> {
        let outdated = tx.query_opt(
            "SELECT 1 FROM removal WHERE tenant = $1 AND store = $2 AND revision > $3 \
             UNION ALL SELECT 1 FROM holding WHERE tenant = $1 AND store = $2 AND since > $3 \
             AND handle = ANY($4) LIMIT 1",
            &[&self.tenant(), &store.as_str(), &kept.up_to, &kept.handles],
        )?;
        Ok(outdated.is_none())
    }

    fn holdings(&self, tx: &mut Transaction<'_>, store: &Name, since: i64) -> Done<Vec<MemberId>> {
        let rows = tx.query(
            "SELECT handle, sealed FROM holding WHERE tenant = $1 AND store = $2 AND since > $3 \
             ORDER BY since",
            &[&self.tenant(), &store.as_str(), &since],
        )?;
        rows.iter().map(|row| self.held(row, row.get(0), Column::Holding)).collect()
    }

    fn removals(&self, tx: &mut Transaction<'_>, store: &Name) -> Done<Vec<MemberId>> {
        let rows = tx.query(
            "SELECT revision, sealed FROM removal WHERE tenant = $1 AND store = $2 \
             ORDER BY revision",
            &[&self.tenant(), &store.as_str()],
        )?;
        let name = |row: &Row| super::people::removal_name(store, row.get(0));
        rows.iter().map(|row| self.held(row, &name(row), Column::Removal)).collect()
    }

    fn held(&self, row: &Row, name: &[u8], column: Column) -> Done<MemberId> {
        let held: Held = column.open(self.name(), self.fixed.state(), name, row.get(1))?;
        Ok(held.member)
    }

    fn draft<'a>(
        &'a self,
        store: &'a Name,
        plan: &Plan,
        tombstone_root: &TombstoneRoot,
    ) -> shard::Draft<'a> {
        shard::Draft {
            tenant: self.name(),
            store,
            version: plan.version.cast_unsigned(),
            base: plan.base.cast_unsigned(),
            previous: plan.previous,
            lease_until: plan.lease_until,
            rows: plan.rows.cast_unsigned(),
            tombstone_root: tombstone_root.0,
        }
    }

    /// `None` when somebody left while this was read, which [`Postgres::issue`] would notice, too.
    fn chunks(&self, plan: &Plan) -> Result<Option<Vec<ShardChunk>>, Problem> {
        let mut chunks = chain::removals(&plan.remove);
        for members in plan.add.chunks(ROWS_PER_READ) {
            let mut records = self.database.run(|tx| self.records(tx, members))?;
            if records.len() < members.len() {
                return Ok(None);
            }
            while !records.is_empty() {
                let rest = records.split_off(records.len().min(ROWS_PER_CHUNK));
                chunks.push(ShardChunk { add: records, remove: Vec::new() });
                records = rest;
            }
        }
        Ok(Some(chunks))
    }

    /// The records of those who are still there.
    pub(super) fn records(
        &self,
        tx: &mut Transaction<'_>,
        members: &[MemberId],
    ) -> Done<Vec<MemberRecord>> {
        let hashes: Vec<[u8; 32]> =
            members.iter().map(|member| self.fixed.member(member)).collect();
        let slices: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        let places = tx.query(
            "SELECT partition, array_agg(member_hash) FROM place \
             WHERE tenant = $1 AND id_hash = ANY($2) GROUP BY partition",
            &[&self.tenant(), &slices],
        )?;
        let mut records = Vec::with_capacity(members.len());
        for place in &places {
            let partition = name(place.get(0))?;
            let found: Vec<&[u8]> = place.get(1);
            records.extend(self.records_in(tx, &partition, &found)?);
        }
        Ok(records)
    }

    fn records_in(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        hashes: &[&[u8]],
    ) -> Done<Vec<MemberRecord>> {
        let ring = self.keyrings.ring(tx, partition)?;
        let rows = tx.query(
            "SELECT r.member_hash, r.sealed, k.key_group, k.sealed FROM record r \
             JOIN person_key k USING (tenant, partition, member_hash) \
             WHERE r.tenant = $1 AND r.partition = $2 AND r.member_hash = ANY($3)",
            &[&self.tenant(), &partition.as_str(), &hashes],
        )?;
        let record = |row: &Row| {
            let member: &[u8] = row.get(0);
            let key = self.keyrings.open(&ring, member, row.get(2), row.get(3))?;
            let bytes = Column::Record.open_bytes(self.name(), &key, member, row.get(1));
            let bytes = bytes.map_err(|_| Failed::Again)?;
            Ok(decode(bytes.expose()).map_err(Problem::internal)?)
        };
        rows.iter().map(record).collect()
    }

    /// Notes the shard as the store's last; `false` when somebody left the store, or another shard
    /// was issued to it, while this one was built.
    fn issue(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        plan: &Plan,
        manifest_hash: &[u8],
    ) -> Done<bool> {
        let chain = self.chain(tx, store)?;
        let left = tx.query_opt(
            "SELECT 1 FROM removal WHERE tenant = $1 AND store = $2 AND revision > $3 LIMIT 1",
            &[&self.tenant(), &store.as_str(), &plan.up_to],
        )?;
        if left.is_some() || chain.last_version + 1 != plan.version {
            return Ok(false);
        }
        tx.execute(
            "UPDATE store SET last_version = $3, last_hash = $4, up_to = $5, lease_until = $6 \
             WHERE tenant = $1 AND store = $2",
            &[
                &self.tenant(),
                &store.as_str(),
                &plan.version,
                &manifest_hash,
                &plan.up_to,
                &plan.lease_until.as_millis(),
            ],
        )?;
        Ok(true)
    }

    /// Everything up to this revision is in force in the store.
    fn confirm(&self, tx: &mut Transaction<'_>, store: &Name, up_to: i64) -> Done<()> {
        tx.execute(
            "DELETE FROM removal WHERE tenant = $1 AND store = $2 AND revision <= $3",
            &[&self.tenant(), &store.as_str(), &up_to],
        )?;
        Ok(())
    }

    /// The key that shards and answers for a store are sealed to.
    pub(super) fn sealing_key(&self, tx: &mut Transaction<'_>, store: &Name) -> Done<[u8; 32]> {
        let row = tx.query_opt(
            "SELECT seal_key FROM store WHERE tenant = $1 AND store = $2",
            &[&self.tenant(), &store.as_str()],
        )?;
        let key = row.and_then(|row| row.get::<_, Option<Vec<u8>>>(0));
        Ok(hash(&key.ok_or(Problem::HelloFirst)?)?)
    }

    /// The partition that a store's people are in.
    pub(super) fn partition_of(&self, tx: &mut Transaction<'_>, store: &Name) -> Done<Name> {
        let row = tx.query_opt(
            "SELECT partition FROM store WHERE tenant = $1 AND store = $2",
            &[&self.tenant(), &store.as_str()],
        )?;
        let row = row.ok_or(Problem::CertificateNotCurrent)?;
        Ok(name(row.get(0))?)
    }
}
