//! Misses of people who showed a claim.

use super::{Postgres, database::Done, people::Person};
use crate::{
    problem::Problem,
    registry::{
        member::Visit,
        resolve::{Claimed, Claims},
    },
    tenant::Tenant,
};
use palmgate_protocol::{ClaimHandle, Custody, Name, Timestamp};
use postgres::Transaction;

impl Claims for Postgres {
    fn tenant_keys(&self) -> &Tenant {
        &self.tenant
    }

    fn claimed(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Claimed, Problem> {
        self.database.run(|tx| {
            let key = self.sealing_key(tx, store)?;
            let person = self.person_of(tx, claim, false)?;
            let person = person.filter(|person| person.row.answers(custody, store, now));
            let record = person.map(|person| self.record(tx, &person)).transpose()?;
            Ok((key, record))
        })
    }

    fn becomes_holder(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        self.database.run(|tx| {
            let person = self.person_of(tx, claim, true)?;
            self.give_visited(tx, person, store, now)
        })
    }
}

impl Postgres {
    /// Gives a locked person to a store that they visit.
    fn give_visited(
        &self,
        tx: &mut Transaction<'_>,
        person: Option<Person>,
        store: &Name,
        now: Timestamp,
    ) -> Done<bool> {
        let Some(mut person) = person else { return Ok(false) };
        match person.row.visit(store, now) {
            Visit::Refused => return Ok(false),
            Visit::Known => {}
            Visit::First => {
                self.hold(tx, &mut person, store, now)?;
                self.write_member(tx, &person)?;
            }
        }
        Ok(true)
    }
}
