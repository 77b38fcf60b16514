//! Misses of people who showed a claim: the cloud looks at the one person whose it is.

use super::{Postgres, database::Done, people::Person};
use crate::problem::Problem;
use palmgate_protocol::{
    ClaimHandle, Custody, Name, Secret, Timestamp,
    cloud::{ClaimQuery, MemberRecord, ProbeQuery, Resolution},
    decode,
};
use postgres::Transaction;

/// The sealing key of the store that asks, and the record if it may have it.
type Claimed = ([u8; 32], Option<Secret<Vec<u8>>>);

impl Postgres {
    pub(super) fn resolve_probe(
        &self,
        store: &Name,
        query: &ProbeQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        let probe = self.tenant.open_probe(query)?;
        let (key, found) = self.claim_record(store, &query.claim, Custody::Operator, now)?;
        let Some(bytes) = found else { return Ok(Resolution::NotFound) };
        let record: MemberRecord = decode(bytes.expose()).map_err(Problem::internal)?;
        if !self.tenant.is_of(&record, query.purpose, &probe, now)
            || !self.becomes_holder(store, &query.claim, now)?
        {
            return Ok(Resolution::NotFound);
        }
        self.tenant.seal_to(key, &Resolution::binding(&query.claim), &bytes)
    }

    pub(super) fn resolve_claim(
        &self,
        store: &Name,
        query: &ClaimQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        let (_, found) = self.claim_record(store, &query.claim, Custody::Split, now)?;
        match found {
            Some(sealed) if self.becomes_holder(store, &query.claim, now)? => {
                Ok(Resolution::Found { sealed: sealed.expose().clone() })
            }
            _ => Ok(Resolution::NotFound),
        }
    }

    /// The record of the claimed person, when this store may be given it.
    fn claim_record(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Claimed, Problem> {
        self.database.run(|tx| {
            let key = self.sealing_key(tx, store)?;
            let person = self.claimed(tx, claim, false)?;
            let person = person.filter(|person| {
                person.row.custody == custody && person.row.may_be_given(store, now)
            });
            let record = person.map(|person| self.record(tx, &person)).transpose()?;
            Ok((key, record))
        })
    }

    /// Notes, durably, that the store has the person; `false` when they were forgotten or withdrew
    /// meanwhile.
    pub(super) fn becomes_holder(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        self.database.run(|tx| {
            let Some((partition, hash)) = self.place(tx, &self.fixed.claim(claim))? else {
                return Ok(false);
            };
            let person = self.person(tx, partition, hash, true)?;
            self.give_visited(tx, person, store, now)
        })
    }

    /// Gives a locked person to a store that they visit.
    pub(super) fn give_visited(
        &self,
        tx: &mut Transaction<'_>,
        person: Option<Person>,
        store: &Name,
        now: Timestamp,
    ) -> Done<bool> {
        let Some(mut person) = person else { return Ok(false) };
        if !person.row.may_be_given(store, now) {
            return Ok(false);
        }
        if person.row.holders.contains(store) {
            return Ok(true);
        }
        self.hold(tx, &mut person, store, now)?;
        self.write_member(tx, &person)?;
        Ok(true)
    }
}
