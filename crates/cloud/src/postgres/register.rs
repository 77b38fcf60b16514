//! Registrations: a store tells of an enrolment.

use super::{
    Postgres,
    database::{Done, Failed},
    people::Person,
    rows::Member,
};
use crate::{
    problem::Problem,
    registry::member::{Registering, registering},
    tenant::Admitted,
};
use palmgate_protocol::{Name, Timestamp, cloud::Registration, encode};
use palmgate_seal::aead;
use postgres::Transaction;
use ring::digest::{SHA256, digest};

impl Postgres {
    pub(super) fn register(
        &self,
        store: &Name,
        registration: &Registration,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let admitted = self.tenant.admit(registration, now)?;
        let digest = digest(&SHA256, &encode(registration));
        let digest = digest.as_ref().try_into().map_err(Problem::internal)?;
        self.database.run(|tx| self.register_in(tx, store, registration, (&admitted, digest), now))
    }

    fn register_in(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        registration: &Registration,
        (admitted, digest): (&Admitted, [u8; 32]),
        now: Timestamp,
    ) -> Done<()> {
        self.refuse_forgotten(tx, registration)?;
        let partition = self.partition_of(tx, store)?;
        let hash = self.fixed.member(&registration.member);
        let claim = self.fixed.claim(&registration.claim);
        let owner = self.place(tx, &claim)?;
        if owner.is_some_and(|(_, owner)| owner != hash) {
            return Err(Problem::Conflict.into());
        }
        self.lock_partition(tx, &partition)?;
        let known = match self.place(tx, &hash)? {
            Some((elsewhere, _)) if elsewhere != partition => {
                return Err(Problem::Conflict.into());
            }
            Some(_) => Some(self.person(tx, partition.clone(), hash, true)?.ok_or(Failed::Again)?),
            None => None,
        };
        let before = known.as_ref().map(|person| &person.row);
        if registering(before, store, &digest)? == Registering::Repeats {
            return Ok(());
        }
        self.replace_counts(tx, &partition, known.as_ref(), registration, &claim)?;
        let row = Member::registered(registration, admitted, (store, digest), before);
        let key: aead::Key = self.keyrings.add(tx, &partition, &hash)?;
        let mut person = Person { partition, hash, row, key };
        if let Some(before) = before {
            self.release(
                tx,
                &mut person,
                |row, store| row.leaves(before.custody, store, now),
                now,
            )?;
        }
        self.give(tx, &mut person, store, now)?;
        self.note_change(tx, &person.partition, &hash, now)?;
        self.write_person(tx, &person, &admitted.record)
    }

    /// Nobody is tombstoned while this transaction lasts.
    fn refuse_forgotten(&self, tx: &mut Transaction<'_>, registration: &Registration) -> Done<()> {
        tx.query_one("SELECT 1 FROM tenant WHERE tenant = $1 FOR SHARE", &[&self.tenant()])?;
        let hasher = &self.fixed.tombstones;
        let hashes = [hasher.member(&registration.member), hasher.claim(&registration.claim)];
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        let forgotten = tx.query_opt(
            "SELECT 1 FROM tombstone WHERE tenant = $1 AND hash = ANY($2) LIMIT 1",
            &[&self.tenant(), &hashes],
        )?;
        if forgotten.is_some() { Err(Problem::Forgotten.into()) } else { Ok(()) }
    }

    fn replace_counts(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        known: Option<&Person>,
        registration: &Registration,
        claim: &[u8; 32],
    ) -> Done<()> {
        if let Some(person) = known {
            self.count_member(tx, partition, person.row.custody, -1)?;
            let before = self.fixed.claim(&person.row.claim);
            if before != *claim {
                self.forget_place(tx, &before)?;
            }
        } else if self.members(tx)? >= self.tenant.settings.limits.members {
            return Err(Problem::Full.into());
        }
        self.count_member(tx, partition, registration.custody, 1)
    }

    fn members(&self, tx: &mut Transaction<'_>) -> Done<usize> {
        let row = tx.query_one(
            "SELECT coalesce(sum(operator_members + split_members), 0)::bigint FROM partition \
             WHERE tenant = $1",
            &[&self.tenant()],
        )?;
        Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// The home store has the person at once, and stores that hold an earlier record get the new
    /// one.
    fn give(
        &self,
        tx: &mut Transaction<'_>,
        person: &mut Person,
        home: &Name,
        now: Timestamp,
    ) -> Done<()> {
        let mut holders = person.row.holders.clone();
        holders.push(home.clone());
        holders.sort();
        holders.dedup();
        holders.iter().try_for_each(|store| self.hold(tx, person, store, now))
    }
}
