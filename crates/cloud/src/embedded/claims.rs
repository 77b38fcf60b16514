//! Misses of people who showed a claim.

use super::{Embedded, state::Person};
use crate::{
    embedded::disk::Changes,
    problem::Problem,
    registry::{
        member::Visit,
        resolve::{Claimed, Claims},
    },
    tenant::Tenant,
};
use palmgate_protocol::{ClaimHandle, Custody, Name, Timestamp};

impl Claims for Embedded {
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
        let state = self.read()?;
        let keys = state.holders.get(store).ok_or(Problem::HelloFirst)?.keys()?;
        let answers = |person: &&Person| person.row.answers(custody, store, now);
        let person = state.claimed(claim).filter(answers);
        Ok((keys.seal, person.map(|person| state.record(person)).transpose()?))
    }

    fn becomes_holder(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let mut state = self.write()?;
        let Some(person) = state.claimed(claim) else { return Ok(false) };
        let (visit, member) = (person.row.visit(store, now), person.row.id);
        if visit == Visit::First {
            let mut changes = Changes::default();
            state.hold(&member, store, &self.tenant.settings.shards, now, &mut changes);
            state.commit(changes)?;
        }
        Ok(visit != Visit::Refused)
    }
}
