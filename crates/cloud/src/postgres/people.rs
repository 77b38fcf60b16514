//! People's rows: written, read, given to stores, taken from them, forgotten.

use super::{
    Postgres,
    database::{Done, Failed},
    rows::{Column, Held, Member, due_at},
};
use crate::problem::Problem;
use palmgate_protocol::{
    ClaimHandle, Custody, EMBEDDING_DIMENSIONS, MemberId, Name, Secret, Template, Timestamp,
    cloud::MemberRecord, decode,
};
use palmgate_seal::aead;
use postgres::{Row, Transaction};

/// A person as found in the database.
pub(super) struct Person {
    pub(super) partition: Name,
    pub(super) hash: [u8; 32],
    pub(super) row: Member,
    pub(super) key: aead::Key,
}

/// Bytes of one entry of a sealed list of embeddings: purpose, hand, components.
pub(super) const EMBEDDING_ENTRY: usize = 2 + EMBEDDING_DIMENSIONS;

impl Postgres {
    /// The partition's row, locked until the transaction ends: it orders the partition's changes.
    pub(super) fn lock_partition(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<()> {
        let locked = tx.query_opt(
            "SELECT 1 FROM partition WHERE tenant = $1 AND partition = $2 FOR UPDATE",
            &[&self.tenant(), &partition.as_str()],
        )?;
        locked.map(drop).ok_or(Failed::Problem(Problem::Internal))
    }

    /// Where an id's person is, and the name of their rows.
    pub(super) fn place(
        &self,
        tx: &mut Transaction<'_>,
        id_hash: &[u8; 32],
    ) -> Done<Option<(Name, [u8; 32])>> {
        let row = tx.query_opt(
            "SELECT partition, member_hash FROM place WHERE tenant = $1 AND id_hash = $2",
            &[&self.tenant(), &id_hash.as_slice()],
        )?;
        row.map(|row| Ok((name(row.get(0))?, hash(row.get(1))?))).transpose()
    }

    pub(super) fn person_of(
        &self,
        tx: &mut Transaction<'_>,
        claim: &ClaimHandle,
        lock: bool,
    ) -> Done<Option<Person>> {
        let Some((partition, hash)) = self.place(tx, &self.fixed.claim(claim))? else {
            return Ok(None);
        };
        self.person(tx, partition, hash, lock)
    }

    /// The person under a name; locked, so that nobody else changes them, when asked for.
    pub(super) fn person(
        &self,
        tx: &mut Transaction<'_>,
        partition: Name,
        hash: [u8; 32],
        lock: bool,
    ) -> Done<Option<Person>> {
        let lock = if lock { "FOR UPDATE OF m" } else { "" };
        let ring = self.keyrings.ring(tx, &partition)?;
        let row = tx.query_opt(
            &format!(
                "SELECT m.sealed, k.key_group, k.sealed FROM member m JOIN person_key k USING \
                 (tenant, partition, member_hash) WHERE m.tenant = $1 AND m.partition = $2 \
                 AND m.member_hash = $3 {lock}"
            ),
            &[&self.tenant(), &partition.as_str(), &hash.as_slice()],
        )?;
        let Some(row) = row else { return Ok(None) };
        let key = self.keyrings.open(&ring, &hash, row.get(1), row.get(2))?;
        let member = Column::Member.open(self.name(), &key, &hash, row.get(0))?;
        Ok(Some(Person { partition, hash, row: member, key }))
    }

    /// The record that was registered.
    pub(super) fn record(
        &self,
        tx: &mut Transaction<'_>,
        person: &Person,
    ) -> Done<Secret<Vec<u8>>> {
        let row = tx.query_opt(
            "SELECT sealed FROM record WHERE tenant = $1 AND partition = $2 AND member_hash = $3",
            &[&self.tenant(), &person.partition.as_str(), &person.hash.as_slice()],
        )?;
        let sealed: Vec<u8> = row.ok_or(Failed::Again)?.get(0);
        Column::Record
            .open_bytes(self.name(), &person.key, &person.hash, &sealed)
            .map_err(|_| Failed::Again)
    }

    /// Writes everything about a person that changed with a registration.
    pub(super) fn write_person(
        &self,
        tx: &mut Transaction<'_>,
        person: &Person,
        record: &Secret<Vec<u8>>,
    ) -> Done<()> {
        let (partition, hash) = (person.partition.as_str(), person.hash.as_slice());
        for id_hash in [self.fixed.member(&person.row.id), self.fixed.claim(&person.row.claim)] {
            tx.execute(
                "INSERT INTO place (tenant, id_hash, partition, member_hash) \
                 VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, id_hash) DO NOTHING",
                &[&self.tenant(), &id_hash.as_slice(), &partition, &hash],
            )?;
        }
        self.write_member(tx, person)?;
        let sealed = Column::Record.seal_bytes(self.name(), &person.key, hash, record);
        tx.execute(
            "INSERT INTO record (tenant, partition, member_hash, sealed) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant, partition, member_hash) DO UPDATE SET sealed = excluded.sealed",
            &[&self.tenant(), &partition, &hash, &sealed],
        )?;
        self.write_embeddings(tx, person, record)
    }

    /// Only who agreed to be recognised elsewhere is ever searched for.
    fn write_embeddings(
        &self,
        tx: &mut Transaction<'_>,
        person: &Person,
        record: &Secret<Vec<u8>>,
    ) -> Done<()> {
        let (partition, hash) = (person.partition.as_str(), person.hash.as_slice());
        if person.row.custody != Custody::Operator || person.row.roaming_until.is_none() {
            tx.execute(
                "DELETE FROM embedding WHERE tenant = $1 AND partition = $2 AND member_hash = $3",
                &[&self.tenant(), &partition, &hash],
            )?;
            return Ok(());
        }
        let embeddings = embeddings(record)?;
        let sealed = Column::Embedding.seal_bytes(self.name(), &person.key, hash, &embeddings);
        tx.execute(
            "INSERT INTO embedding (tenant, partition, member_hash, sealed) \
             VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant, partition, member_hash) DO UPDATE SET sealed = excluded.sealed",
            &[&self.tenant(), &partition, &hash, &sealed],
        )?;
        Ok(())
    }

    pub(super) fn write_member(&self, tx: &mut Transaction<'_>, person: &Person) -> Done<()> {
        self.write_member_due(tx, person, due_at(&person.row))
    }

    /// With a time of its own at which the person is looked at next.
    pub(super) fn write_member_due(
        &self,
        tx: &mut Transaction<'_>,
        person: &Person,
        due_at: i64,
    ) -> Done<()> {
        let hash = person.hash.as_slice();
        let sealed = Column::Member.seal(self.name(), &person.key, hash, &person.row);
        tx.execute(
            "INSERT INTO member (tenant, partition, member_hash, due_at, sealed) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, partition, member_hash) \
             DO UPDATE SET due_at = excluded.due_at, sealed = excluded.sealed",
            &[&self.tenant(), &person.partition.as_str(), &hash, &due_at, &sealed],
        )?;
        Ok(())
    }

    /// Notes for the search indexes that a person changed or left. The partition's row is locked.
    pub(super) fn note_change(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        hash: &[u8; 32],
        now: Timestamp,
    ) -> Done<()> {
        let revision: i64 = tx
            .query_one(
                "UPDATE partition SET revision = revision + 1 \
                 WHERE tenant = $1 AND partition = $2 RETURNING revision",
                &[&self.tenant(), &partition.as_str()],
            )?
            .get(0);
        tx.execute(
            "INSERT INTO change (tenant, partition, revision, member_hash, changed_at) \
             VALUES ($1, $2, $3, $4, $5)",
            &[&self.tenant(), &partition.as_str(), &revision, &hash.as_slice(), &now.as_millis()],
        )?;
        Ok(())
    }

    /// The next revision of a store; its row is locked until the transaction ends, so that
    /// revisions become visible in order.
    fn next_store_revision(&self, tx: &mut Transaction<'_>, store: &Name) -> Done<Option<i64>> {
        let row = tx.query_opt(
            "UPDATE store SET revision = revision + 1 WHERE tenant = $1 AND store = $2 \
             RETURNING revision",
            &[&self.tenant(), &store.as_str()],
        )?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Gives a person to a store, or gives them anew; its next shard has them. The person is
    /// locked; the caller writes their row afterwards.
    pub(super) fn hold(
        &self,
        tx: &mut Transaction<'_>,
        person: &mut Person,
        store: &Name,
        now: Timestamp,
    ) -> Done<()> {
        if !person.row.is_held_by(store) {
            person.row.holders.push(store.clone());
        }
        if person.row.custody != Custody::Operator {
            return Ok(());
        }
        let Some(since) = self.next_store_revision(tx, store)? else { return Ok(()) };
        let handle = self.fixed.handle(store, &person.row.id);
        let is_home = person.row.home == *store;
        let visit = now.after(self.tenant.settings.shards.visit()).as_millis();
        let visit_until = (!is_home).then_some(visit);
        let held = Held { member: person.row.id };
        let sealed = Column::Holding.seal(self.name(), self.fixed.state(), &handle, &held);
        let fresh: bool = tx
            .query_one(
                "INSERT INTO holding (tenant, store, handle, since, visit_until, sealed) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, store, handle) DO UPDATE \
                 SET since = excluded.since, visit_until = excluded.visit_until \
                 RETURNING xmax = 0",
                &[&self.tenant(), &store.as_str(), &handle, &since, &visit_until, &sealed],
            )?
            .get(0);
        if fresh && self.count_rows(tx, store, 1)? > self.tenant.settings.shards.cap() {
            self.make_room(tx, store, &handle, now)?;
        }
        Ok(())
    }

    fn count_rows(&self, tx: &mut Transaction<'_>, store: &Name, difference: i64) -> Done<i64> {
        let row = tx.query_one(
            "UPDATE store SET rows = rows + $3 WHERE tenant = $1 AND store = $2 RETURNING rows",
            &[&self.tenant(), &store.as_str(), &difference],
        )?;
        Ok(row.get(0))
    }

    /// Takes somebody else from a shard that is as large as its false positive budget allows:
    /// visitors before people of the house, who came first before who came last. They are found by
    /// their claim, and come back with their next visit.
    fn make_room(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        newest: &[u8],
        now: Timestamp,
    ) -> Done<()> {
        let leaving = tx.query_opt(
            "SELECT handle, sealed FROM holding WHERE tenant = $1 AND store = $2 AND handle <> $3 \
             ORDER BY visit_until IS NULL, since LIMIT 1",
            &[&self.tenant(), &store.as_str(), &newest],
        )?;
        let Some(row) = leaving else { return Ok(()) };
        let held: Held =
            Column::Holding.open(self.name(), self.fixed.state(), row.get(0), row.get(1))?;
        self.end_visit(tx, &held.member, store, now)
    }

    /// The person must leave every store that `which` names; its next shard says so. The person is
    /// locked; the caller writes their row afterwards.
    pub(super) fn release(
        &self,
        tx: &mut Transaction<'_>,
        person: &mut Person,
        which: impl Fn(&Member, &Name) -> bool,
        now: Timestamp,
    ) -> Done<()> {
        // In one order, so that two of these do not wait for each other.
        person.row.holders.sort();
        let holders = std::mem::take(&mut person.row.holders);
        let (gone, kept): (Vec<_>, Vec<_>) =
            holders.into_iter().partition(|store| which(&person.row, store));
        person.row.holders = kept;
        for store in gone {
            self.take_from(tx, &person.row.id, &store, now)?;
        }
        Ok(())
    }

    /// Takes a visitor from one store.
    pub(super) fn end_visit(
        &self,
        tx: &mut Transaction<'_>,
        member: &MemberId,
        store: &Name,
        now: Timestamp,
    ) -> Done<()> {
        let Some((partition, hash)) = self.place(tx, &self.fixed.member(member))? else {
            return Ok(());
        };
        let Some(mut person) = self.person(tx, partition, hash, true)? else { return Ok(()) };
        self.release(tx, &mut person, |_, held| held == store, now)?;
        self.write_member(tx, &person)
    }

    fn take_from(
        &self,
        tx: &mut Transaction<'_>,
        member: &MemberId,
        store: &Name,
        now: Timestamp,
    ) -> Done<()> {
        let Some(revision) = self.next_store_revision(tx, store)? else { return Ok(()) };
        let deleted = tx.execute(
            "DELETE FROM holding WHERE tenant = $1 AND store = $2 AND handle = $3",
            &[&self.tenant(), &store.as_str(), &self.fixed.handle(store, member)],
        )?;
        if deleted > 0 {
            self.count_rows(tx, store, -1)?;
        }
        let tombstone = self.fixed.tombstones.member(member);
        let name = removal_name(store, revision);
        let held = Held { member: *member };
        let sealed = Column::Removal.seal(self.name(), self.fixed.state(), &name, &held);
        tx.execute(
            "INSERT INTO removal (tenant, store, revision, tombstone, asked_at, sealed) \
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &self.tenant(),
                &store.as_str(),
                &revision,
                &tombstone.as_slice(),
                &now.as_millis(),
                &sealed,
            ],
        )?;
        Ok(())
    }

    /// Forgets a person: tombstones, removals for every holder, rows deleted. Their key is
    /// destroyed by the rotation after the commit. Tenant and partition are locked.
    pub(super) fn forget(
        &self,
        tx: &mut Transaction<'_>,
        person: &mut Person,
        now: Timestamp,
    ) -> Done<()> {
        self.release(tx, person, |_, _| true, now)?;
        let (partition, hash) = (person.partition.clone(), person.hash);
        for table in ["member", "record", "embedding"] {
            tx.execute(
                &format!(
                    "DELETE FROM {table} WHERE tenant = $1 AND partition = $2 AND member_hash = $3"
                ),
                &[&self.tenant(), &partition.as_str(), &hash.as_slice()],
            )?;
        }
        let claim = self.fixed.claim(&person.row.claim);
        for id_hash in [hash, claim] {
            self.forget_place(tx, &id_hash)?;
        }
        self.keyrings.remove(tx, &partition, &hash)?;
        self.count_member(tx, &partition, person.row.custody, -1)?;
        self.note_change(tx, &partition, &hash, now)?;
        self.bury(tx, &self.fixed.tombstones.member(&person.row.id))?;
        self.bury(tx, &self.fixed.tombstones.claim(&person.row.claim))
    }

    pub(super) fn forget_place(&self, tx: &mut Transaction<'_>, id_hash: &[u8; 32]) -> Done<()> {
        tx.execute(
            "DELETE FROM place WHERE tenant = $1 AND id_hash = $2",
            &[&self.tenant(), &id_hash.as_slice()],
        )?;
        Ok(())
    }

    pub(super) fn count_member(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        custody: Custody,
        difference: i64,
    ) -> Done<()> {
        let column = match custody {
            Custody::Operator => "operator_members",
            _ => "split_members",
        };
        tx.execute(
            &format!(
                "UPDATE partition SET {column} = {column} + $3 WHERE tenant = $1 AND partition = $2"
            ),
            &[&self.tenant(), &partition.as_str(), &difference],
        )?;
        Ok(())
    }

    /// Locks the tenant's row, which orders tombstones.
    pub(super) fn lock_tenant(&self, tx: &mut Transaction<'_>) -> Done<()> {
        tx.query_one("SELECT 1 FROM tenant WHERE tenant = $1 FOR UPDATE", &[&self.tenant()])?;
        Ok(())
    }

    /// Notes a tombstone, unless it is there. The tenant's row is locked.
    pub(super) fn bury(&self, tx: &mut Transaction<'_>, hash: &[u8; 32]) -> Done<()> {
        let known = tx.query_opt(
            "SELECT 1 FROM tombstone WHERE tenant = $1 AND hash = $2",
            &[&self.tenant(), &hash.as_slice()],
        )?;
        if known.is_some() {
            return Ok(());
        }
        let revision: i64 = tx
            .query_one(
                "UPDATE tenant SET tombstone_revision = tombstone_revision + 1 \
                 WHERE tenant = $1 RETURNING tombstone_revision",
                &[&self.tenant()],
            )?
            .get(0);
        tx.execute(
            "INSERT INTO tombstone (tenant, hash, revision) VALUES ($1, $2, $3)",
            &[&self.tenant(), &hash.as_slice(), &revision],
        )?;
        Ok(())
    }
}

/// The entries of an index row: each template's purpose, hand and embedding.
fn embeddings(record: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, Problem> {
    let record: MemberRecord = decode(record.expose()).map_err(Problem::internal)?;
    let mut bytes = Secret::new(Vec::with_capacity(record.templates.len() * EMBEDDING_ENTRY));
    for sealed in &record.templates {
        let template =
            Template::from_bytes(sealed.template.expose()).map_err(|_| Problem::RecordRefused)?;
        bytes.expose_mut().extend([sealed.purpose as u8, sealed.hand as u8]);
        bytes.expose_mut().extend(template.embedding.iter().map(|each| each.cast_unsigned()));
    }
    Ok(bytes)
}

pub(super) fn removal_name(store: &Name, revision: i64) -> Vec<u8> {
    [store.as_str().as_bytes(), &[0], &revision.to_be_bytes()].concat()
}

pub(super) fn name(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(Problem::internal)
}

pub(super) fn hash(bytes: &[u8]) -> Result<[u8; 32], Problem> {
    bytes.try_into().map_err(Problem::internal)
}

/// A column that is a name.
pub(super) fn name_of(row: &Row, column: usize) -> Result<Name, Problem> {
    name(row.get(column))
}
