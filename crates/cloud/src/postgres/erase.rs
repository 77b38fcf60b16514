//! Erasures: tombstones first, so that nothing brings the person back; then the key, so that
//! nothing that was ever written can be read; then the moment in which every process drops what it
//! still has in memory; then the answer. A crash in between is finished by any process.

use super::{
    Postgres,
    database::Done,
    people::{hash, name, name_of},
    rows::Column,
};
use crate::{
    problem::Problem,
    registry::{REMOVAL_DEADLINE, erasure::ErasureRow},
};
use palmgate_protocol::{
    Name, Timestamp,
    cloud::{Erasure, ErasureState, Tombstones},
};
use postgres::Transaction;
use std::time::Duration;

/// No process keeps a replaced key ring, or somebody who left in its search index, for longer: it
/// looks twice in this time, and drops everything when it cannot look.
pub(super) const STALENESS: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// Hashes in one page.
const PAGE: i64 = 4096;
/// People whose time is over forgotten in one transaction.
const SWEPT: i64 = 64;

/// What was asked for, in which partition, and when it was done.
type KnownErasure = (ErasureRow, Option<Name>, Option<i64>);

impl Postgres {
    pub(super) fn erase(
        &self,
        store: &Name,
        erasure: &Erasure,
        now: Timestamp,
    ) -> Result<ErasureState, Problem> {
        let row = ErasureRow::asked(erasure, store, &self.fixed.tombstones);
        let partition = self.database.run(|tx| self.begin_erasure(tx, erasure, &row, now))?;
        if let Some(partition) = partition {
            self.finish_partition(&partition, now)?;
        }
        self.database.run(|tx| {
            let state = self.erasure_state(tx, &erasure.commitment, None)?;
            state.ok_or_else(|| Problem::Busy.into())
        })
    }

    pub(super) fn erasure(
        &self,
        store: &Name,
        commitment: &[u8; 32],
    ) -> Result<ErasureState, Problem> {
        let state = self.database.run(|tx| self.erasure_state(tx, commitment, Some(store)))?;
        state.ok_or(Problem::NotFound)
    }

    fn erasure_state(
        &self,
        tx: &mut Transaction<'_>,
        commitment: &[u8; 32],
        asked_by: Option<&Name>,
    ) -> Done<Option<ErasureState>> {
        let Some((row, _, Some(erased_at))) = self.known_erasure(tx, commitment)? else {
            return Ok(None);
        };
        if asked_by.is_some_and(|store| *store != row.asked_by) {
            return Ok(None);
        }
        let waiting = tx.query(
            "SELECT DISTINCT store FROM removal WHERE tenant = $1 AND tombstone = $2 \
             ORDER BY store",
            &[&self.tenant(), &row.member_hash.as_slice()],
        )?;
        let outstanding =
            waiting.iter().map(|row| name_of(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let erased_at = Timestamp::from_millis(erased_at);
        Ok(Some(self.tenant.sign_erasure(commitment, erased_at, outstanding)))
    }

    /// An erasure that was begun, with its partition while it is not finished.
    fn known_erasure(
        &self,
        tx: &mut Transaction<'_>,
        commitment: &[u8; 32],
    ) -> Done<Option<KnownErasure>> {
        let known = tx.query_opt(
            "SELECT sealed, partition, erased_at FROM erasure \
             WHERE tenant = $1 AND commitment = $2",
            &[&self.tenant(), &commitment.as_slice()],
        )?;
        let Some(known) = known else { return Ok(None) };
        let row =
            Column::Erasure.open(self.name(), self.fixed.state(), commitment, known.get(0))?;
        let partition = known.get::<_, Option<&str>>(1).map(name).transpose()?;
        Ok(Some((row, partition, known.get(2))))
    }

    /// Makes it certain that the erasure will happen. The partition in which a key is still to be
    /// destroyed.
    pub(super) fn begin_erasure(
        &self,
        tx: &mut Transaction<'_>,
        erasure: &Erasure,
        row: &ErasureRow,
        now: Timestamp,
    ) -> Done<Option<Name>> {
        self.lock_tenant(tx)?;
        match self.known_erasure(tx, &erasure.commitment)? {
            Some((known, ..)) if !row.repeats(&known) => return Err(Problem::Conflict.into()),
            Some((_, _, Some(_))) => return Ok(None),
            Some((_, partition, None)) => return Ok(partition),
            None => {}
        }
        let member = self.fixed.member(&erasure.member);
        let claimed = self.place(tx, &self.fixed.claim(&erasure.claim))?;
        if claimed.is_some_and(|(_, owner)| owner != member) {
            return Err(Problem::Conflict.into());
        }
        let partition = self.place(tx, &member)?.map(|(partition, _)| partition);
        let mut generation = None;
        if let Some(partition) = &partition {
            self.lock_partition(tx, partition)?;
            generation = Some(self.keyrings.ring(tx, partition)?.generation);
            if let Some(mut person) = self.person(tx, partition.clone(), member, true)? {
                self.forget(tx, &mut person, now)?;
            }
        }
        self.bury(tx, &row.member_hash)?;
        self.bury(tx, &row.claim_hash)?;
        // Nothing is to be destroyed of somebody who was never registered.
        let erased_at = partition.is_none().then_some(now.as_millis());
        let commitment = erasure.commitment.as_slice();
        let sealed = Column::Erasure.seal(self.name(), self.fixed.state(), commitment, row);
        tx.execute(
            "INSERT INTO erasure (tenant, commitment, partition, generation, erased_at, sealed) \
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &self.tenant(),
                &commitment,
                &partition.as_ref().map(Name::as_str),
                &generation,
                &erased_at,
                &sealed,
            ],
        )?;
        Ok(partition)
    }

    /// Destroys the keys of everybody who left the partition, then notes that it is done.
    pub(super) fn finish_partition(&self, partition: &Name, now: Timestamp) -> Result<(), Problem> {
        self.database.run(|tx| {
            self.lock_partition(tx, partition)?;
            self.keyrings.rotate(tx, partition)
        })?;
        let generation = self.database.run(|tx| {
            self.lock_partition(tx, partition)?;
            self.keyrings.destroy_old_roots(tx, partition)?;
            Ok(self.keyrings.ring(tx, partition)?.generation)
        })?;
        let waits = self.database.run(|tx| {
            let waiting = tx.query_opt(
                "SELECT 1 FROM erasure WHERE tenant = $1 AND partition = $2 \
                 AND erased_at IS NULL AND generation < $3 LIMIT 1",
                &[&self.tenant(), &partition.as_str(), &generation],
            )?;
            Ok(waiting.is_some())
        })?;
        if !waits {
            return Ok(());
        }
        std::thread::sleep(STALENESS);
        self.database.run(|tx| {
            tx.execute(
                "UPDATE erasure SET erased_at = $4 WHERE tenant = $1 AND partition = $2 \
                 AND erased_at IS NULL AND generation < $3",
                &[&self.tenant(), &partition.as_str(), &generation, &now.as_millis()],
            )?;
            Ok(())
        })
    }

    pub(super) fn tombstones(&self, after: u64) -> Result<Tombstones, Problem> {
        let after = i64::try_from(after).map_err(|_| Problem::Malformed)?;
        let rows = self.database.run(|tx| {
            Ok(tx.query(
                "SELECT revision, hash FROM tombstone WHERE tenant = $1 AND revision > $2 \
                 ORDER BY revision LIMIT $3",
                &[&self.tenant(), &after, &(PAGE + 1)],
            )?)
        })?;
        let page = &rows[..rows.len().min(PAGE as usize)];
        let up_to = page.last().map_or(after, |row| row.get(0));
        let hashes = page.iter().map(|row| hash(row.get(1)).map(Into::into));
        Ok(Tombstones {
            key: self.fixed.tombstone_key,
            hashes: hashes.collect::<Result<_, _>>()?,
            up_to: up_to.cast_unsigned(),
            more: rows.len() > page.len(),
        })
    }

    /// Every process does this, once a second; what one has done the others find done.
    pub(super) fn sweep(&self, now: Timestamp) -> Result<(), Problem> {
        while self.database.run(|tx| self.sweep_due(tx, now))? == SWEPT as usize {}
        self.database.run(|tx| self.end_visits(tx, now))?;
        self.drop_old_changes(now)?;
        let partitions = self.database.run(|tx| {
            let rows = tx.query(
                "SELECT partition FROM key_group WHERE tenant = $1 AND dirty \
                 UNION SELECT partition FROM erasure WHERE tenant = $1 AND erased_at IS NULL",
                &[&self.tenant()],
            )?;
            Ok(rows.iter().map(|row| name_of(row, 0)).collect::<Result<Vec<_>, _>>()?)
        })?;
        partitions.iter().try_for_each(|partition| self.finish_partition(partition, now))
    }

    /// Forgets whoever is due and withdraws whose roaming ended; how many were looked at.
    fn sweep_due(&self, tx: &mut Transaction<'_>, now: Timestamp) -> Done<usize> {
        let due = tx.query(
            "SELECT partition, member_hash FROM member WHERE tenant = $1 AND due_at <= $2 \
             ORDER BY due_at LIMIT $3",
            &[&self.tenant(), &now.as_millis(), &SWEPT],
        )?;
        if !due.is_empty() {
            self.lock_tenant(tx)?;
        }
        for row in &due {
            let partition = name_of(row, 0)?;
            self.lock_partition(tx, &partition)?;
            // Another process may have been faster.
            let Some(mut person) = self.person(tx, partition, hash(row.get(1))?, true)? else {
                continue;
            };
            if person.row.expires_at <= now {
                self.forget(tx, &mut person, now)?;
            } else if !person.row.roams(now) {
                let custody = person.row.custody;
                self.release(tx, &mut person, |row, store| row.leaves(custody, store, now), now)?;
                self.stop_searching(tx, &person, now)?;
                let expires = person.row.expires_at.as_millis();
                self.write_member_due(tx, &person, expires)?;
            }
        }
        Ok(due.len())
    }

    fn stop_searching(
        &self,
        tx: &mut Transaction<'_>,
        person: &super::people::Person,
        now: Timestamp,
    ) -> Done<()> {
        tx.execute(
            "DELETE FROM embedding WHERE tenant = $1 AND partition = $2 AND member_hash = $3",
            &[&self.tenant(), &person.partition.as_str(), &person.hash.as_slice()],
        )?;
        self.note_change(tx, &person.partition, &person.hash, now)
    }

    /// Takes people from the shards of stores that they have not visited for long.
    fn end_visits(&self, tx: &mut Transaction<'_>, now: Timestamp) -> Done<()> {
        let ended = tx.query(
            "SELECT store, handle, sealed FROM holding WHERE tenant = $1 AND visit_until <= $2 \
             ORDER BY store, handle LIMIT $3",
            &[&self.tenant(), &now.as_millis(), &SWEPT],
        )?;
        for row in &ended {
            let store = name_of(row, 0)?;
            let held: super::rows::Held =
                Column::Holding.open(self.name(), self.fixed.state(), row.get(1), row.get(2))?;
            self.end_visit(tx, &held.member, &store, now)?;
        }
        Ok(())
    }

    /// Removals that are not confirmed after [`REMOVAL_DEADLINE`].
    pub(super) fn overdue_removals(&self, tx: &mut Transaction<'_>, now: Timestamp) -> Done<i64> {
        let deadline = i64::try_from(REMOVAL_DEADLINE.as_millis()).unwrap_or(i64::MAX);
        let row = tx.query_one(
            "SELECT count(*) FROM removal WHERE tenant = $1 AND asked_at < $2",
            &[&self.tenant(), &(now.as_millis() - deadline)],
        )?;
        Ok(row.get(0))
    }
}
