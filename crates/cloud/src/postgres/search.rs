//! Search among everybody who agreed to be recognised in other stores: the index of each partition,
//! kept in step with the database, and the decision about the nearest.

use super::{
    Postgres,
    database::{Done, Failed},
    people::{EMBEDDING_ENTRY, Person, hash, name_of},
    rows::Column,
};
use crate::{
    problem::Problem,
    registry::resolve::Claims,
    search::{Entry, Index, Near, PartitionIndex},
};
use palmgate_protocol::{
    Custody, Name, Probe, Purpose, Secret, Timestamp,
    cloud::{MemberRecord, Resolution, SearchAnswer, SearchOutcome, SearchQuery},
    decode,
};
use postgres::Transaction;
use std::sync::Arc;

/// Members read at once while an index is built.
const PAGE: i64 = 16_384;
/// Changes read at once.
const CHANGES: i64 = 4096;
/// How long changes are kept for indexes that lag behind; one that missed more is built anew.
const CHANGE_LIFETIME_MS: i64 = 60 * 60 * 1000;

/// A person whose palm is like the probe.
struct Alike {
    person: Person,
    record: Secret<Vec<u8>>,
}

impl Postgres {
    pub(super) fn search(
        &self,
        store: &Name,
        query: &SearchQuery,
        now: Timestamp,
    ) -> Result<SearchAnswer, Problem> {
        let settings = self.tenant.settings.search.ok_or(Problem::SearchRefused)?;
        let binding = SearchQuery::binding(query.purpose);
        let probe = self.tenant.open_sealed_probe(&binding, &query.sealed)?;
        let (key, partitions) =
            self.database.run(|tx| Ok((self.sealing_key(tx, store)?, self.partitions(tx)?)))?;
        let (mut searched, mut missing, mut near) = (Vec::new(), Vec::new(), Vec::new());
        for partition in partitions {
            let embedding = &probe.embedding;
            match self.index.nearest(&partition, query.purpose, embedding, settings.shortlist) {
                Some(found) => {
                    near.extend(found);
                    searched.push(partition);
                }
                None => missing.push(partition),
            }
        }
        near.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
        near.truncate(settings.shortlist);
        let alike = self.database.run(|tx| self.alike(tx, &near, query.purpose, &probe, now))?;
        let outcome = match <[Alike; 1]>::try_from(alike) {
            Ok([one]) => self.found(store, key, query, one, now)?,
            Err(none) if none.is_empty() && !missing.is_empty() => SearchOutcome::Unknown,
            // Two people are nobody.
            Err(_) => SearchOutcome::NotFound,
        };
        Ok(SearchAnswer { outcome, searched, missing })
    }

    fn found(
        &self,
        store: &Name,
        key: [u8; 32],
        query: &SearchQuery,
        one: Alike,
        now: Timestamp,
    ) -> Result<SearchOutcome, Problem> {
        if !self.becomes_holder(store, &one.person.row.claim, now)? {
            return Ok(SearchOutcome::NotFound);
        }
        match self.tenant.seal_to(key, &SearchAnswer::binding(query), &one.record)? {
            Resolution::Found { sealed } => Ok(SearchOutcome::Found { sealed }),
            Resolution::NotFound => Ok(SearchOutcome::NotFound),
        }
    }

    /// Those of the nearest who are there now and fit by all that decides.
    fn alike(
        &self,
        tx: &mut Transaction<'_>,
        near: &[Near],
        purpose: Purpose,
        probe: &Probe,
        now: Timestamp,
    ) -> Done<Vec<Alike>> {
        let mut partitions: Vec<&Name> = near.iter().map(|near| &near.partition).collect();
        partitions.sort();
        partitions.dedup();
        let mut alike = Vec::new();
        for partition in partitions {
            let near = near.iter().filter(|near| near.partition == *partition);
            for (person, bytes) in self.candidates(tx, partition, near)? {
                let fits = person.row.custody == Custody::Operator
                    && person.row.roams(now)
                    && now < person.row.expires_at;
                let record: MemberRecord = decode(bytes.expose()).map_err(Problem::internal)?;
                if fits && self.is_found_in(&record, purpose, probe, now) {
                    alike.push(Alike { person, record: bytes });
                }
            }
        }
        Ok(alike)
    }

    fn is_found_in(
        &self,
        record: &MemberRecord,
        purpose: Purpose,
        probe: &Probe,
        now: Timestamp,
    ) -> bool {
        let threshold = self.tenant.settings.search.map_or(f32::INFINITY, |it| it.threshold);
        let score = self.tenant.score(record, purpose, probe, now);
        score.is_some_and(|score| score >= threshold)
    }

    fn candidates<'a>(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        near: impl Iterator<Item = &'a Near>,
    ) -> Done<Vec<(Person, Secret<Vec<u8>>)>> {
        let (mut first, mut after) = (Vec::new(), Vec::new());
        for near in near {
            let (from, to) = near.range();
            if !first.contains(&from) {
                first.push(from);
                after.push(to);
            }
        }
        let ring = self.keyrings.ring(tx, partition)?;
        let rows = tx.query(
            // Row by row: a join on ranges would read whole tables.
            "SELECT m.member_hash, m.sealed, r.sealed, k.key_group, k.sealed \
             FROM unnest($3::bytea[], $4::bytea[]) AS near (first, after) \
             CROSS JOIN LATERAL (SELECT member_hash, sealed FROM member \
                 WHERE tenant = $1 AND partition = $2 AND member_hash >= near.first \
                 AND member_hash < near.after ORDER BY member_hash LIMIT 4) m \
             CROSS JOIN LATERAL (SELECT sealed FROM record WHERE tenant = $1 AND partition = $2 \
                 AND member_hash = m.member_hash LIMIT 1) r \
             CROSS JOIN LATERAL (SELECT key_group, sealed FROM person_key WHERE tenant = $1 \
                 AND partition = $2 AND member_hash = m.member_hash LIMIT 1) k",
            &[&self.tenant(), &partition.as_str(), &first, &after],
        )?;
        let opened = |row: &postgres::Row| {
            let hash = hash(row.get(0))?;
            let key = self.keyrings.open(&ring, &hash, row.get(3), row.get(4))?;
            let opened = Column::Record.open_bytes(self.name(), &key, &hash, row.get(2));
            let record = opened.map_err(|_| Failed::Again)?;
            let row = Column::Member.open(self.name(), &key, &hash, row.get(1))?;
            Ok((Person { partition: partition.clone(), hash, row, key }, record))
        };
        rows.iter().map(opened).collect()
    }

    /// The tenant's partitions in this region.
    fn partitions(&self, tx: &mut Transaction<'_>) -> Done<Vec<Name>> {
        let rows = tx.query(
            "SELECT partition FROM partition WHERE tenant = $1 AND region = $2 ORDER BY partition",
            &[&self.tenant(), &self.tenant.settings.region.as_str()],
        )?;
        Ok(rows.iter().map(|row| name_of(row, 0)).collect::<Result<_, _>>()?)
    }

    /// The partitions that the operator's plan gives this process: all of them without a plan.
    fn planned(&self, tx: &mut Transaction<'_>) -> Done<Vec<Name>> {
        let all = self.partitions(tx)?;
        let Some(matcher) = &self.matcher else { return Ok(all) };
        let rows = tx.query(
            "SELECT partition FROM matcher WHERE tenant = $1 AND matcher = $2",
            &[&self.tenant(), &matcher.as_str()],
        )?;
        let planned: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        Ok(all.into_iter().filter(|each| planned.contains(&each.as_str())).collect())
    }

    /// Brings the indexes in step with the database: builds what is new in the plan, applies what
    /// changed.
    pub(super) fn keep_index(&self) -> Result<(), Problem> {
        if self.tenant.settings.search.is_none() {
            return Ok(());
        }
        let planned = self.database.run(|tx| self.planned(tx))?;
        self.index.retain(&planned);
        for partition in planned {
            let index = match self.index.partition(&partition) {
                Some(index) => index,
                None => self.build(&partition)?,
            };
            while !self.apply_changes(&partition, &index)? {}
            self.index.publish(&partition, index);
        }
        Ok(())
    }

    /// Reads everybody who may be searched for, in pages; what changes meanwhile is applied
    /// afterwards.
    fn build(&self, partition: &Name) -> Result<Arc<PartitionIndex>, Problem> {
        let revision = self.database.run(|tx| self.revision(tx, partition))?;
        let index = Index::empty(revision);
        let mut after = Vec::new();
        loop {
            let page = self.database.run(|tx| self.embeddings(tx, partition, &after, PAGE))?;
            for (hash, entries) in &page {
                index.set(hash, entries).map_err(Problem::internal)?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE as usize => after = last.to_vec(),
                _ => return Ok(index),
            }
        }
    }

    fn revision(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<i64> {
        let row = tx.query_one(
            "SELECT revision FROM partition WHERE tenant = $1 AND partition = $2",
            &[&self.tenant(), &partition.as_str()],
        )?;
        Ok(row.get(0))
    }

    fn embeddings(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        after: &[u8],
        limit: i64,
    ) -> Done<Vec<([u8; 32], Vec<Entry>)>> {
        let rows = tx.query(
            "SELECT e.member_hash, e.sealed, k.key_group, k.sealed FROM embedding e \
             JOIN person_key k USING (tenant, partition, member_hash) \
             WHERE e.tenant = $1 AND e.partition = $2 AND e.member_hash > $3 \
             ORDER BY e.member_hash LIMIT $4",
            &[&self.tenant(), &partition.as_str(), &after, &limit],
        )?;
        self.opened(tx, partition, &rows)
    }

    fn opened(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        rows: &[postgres::Row],
    ) -> Done<Vec<([u8; 32], Vec<Entry>)>> {
        let ring = self.keyrings.ring(tx, partition)?;
        let opened = |row: &postgres::Row| {
            let hash = hash(row.get(0))?;
            let key = self.keyrings.open(&ring, &hash, row.get(2), row.get(3))?;
            let opened = Column::Embedding.open_bytes(self.name(), &key, &hash, row.get(1));
            let bytes = opened.map_err(|_| Failed::Again)?;
            Ok((hash, entries(bytes.expose())?))
        };
        rows.iter().map(opened).collect()
    }

    /// Applies one page of changes; whether that was the last. An index that missed changes that
    /// are no longer kept is dropped, to be built anew.
    fn apply_changes(&self, partition: &Name, index: &PartitionIndex) -> Result<bool, Problem> {
        let known = index.revision();
        let (changed, found, revision) = self.database.run(|tx| {
            let rows = tx.query(
                "SELECT revision, member_hash FROM change WHERE tenant = $1 AND partition = $2 \
                 AND revision > $3 ORDER BY revision LIMIT $4",
                &[&self.tenant(), &partition.as_str(), &known, &CHANGES],
            )?;
            let Some(first) = rows.first() else { return Ok((Vec::new(), Vec::new(), known)) };
            if first.get::<_, i64>(0) != known + 1 {
                self.index.forget(partition);
                return Err(Failed::Problem(Problem::Busy));
            }
            let changed: Vec<Vec<u8>> = rows.iter().map(|row| row.get(1)).collect();
            let current = tx.query(
                "SELECT e.member_hash, e.sealed, k.key_group, k.sealed FROM embedding e \
                 JOIN person_key k USING (tenant, partition, member_hash) \
                 WHERE e.tenant = $1 AND e.partition = $2 AND e.member_hash = ANY($3)",
                &[&self.tenant(), &partition.as_str(), &changed],
            )?;
            let last = rows.last().map_or(known, |row| row.get(0));
            Ok((changed, self.opened(tx, partition, &current)?, last))
        })?;
        for changed in &changed {
            let changed = hash(changed)?;
            let entries = found.iter().find(|(found, _)| *found == changed);
            let entries = entries.map_or(&[][..], |(_, entries)| entries);
            index.set(&changed, entries).map_err(Problem::internal)?;
        }
        index.is_at(revision);
        Ok(changed.len() < CHANGES as usize)
    }

    pub(super) fn drop_old_changes(&self, now: Timestamp) -> Result<(), Problem> {
        self.database.run(|tx| {
            tx.execute(
                "DELETE FROM change WHERE tenant = $1 AND changed_at < $2",
                &[&self.tenant(), &(now.as_millis() - CHANGE_LIFETIME_MS)],
            )?;
            Ok(())
        })
    }
}

/// Reads what [`super::people`] wrote.
fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Problem> {
    let (entries, []) = bytes.as_chunks::<EMBEDDING_ENTRY>() else {
        return Err(Problem::Internal);
    };
    let entry = |entry: &[u8; EMBEDDING_ENTRY]| {
        let (&[purpose, hand], components) = entry.split_first_chunk()?;
        let purpose = Purpose::ALL.into_iter().find(|each| *each as u8 == purpose)?;
        let components: &[u8] = components;
        let components: [u8; EMBEDDING_ENTRY - 2] = components.try_into().ok()?;
        Some(Entry { purpose, hand, embedding: components.map(u8::cast_signed) })
    };
    entries.iter().map(|each| entry(each).ok_or(Problem::Internal)).collect()
}
