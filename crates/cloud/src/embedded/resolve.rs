//! Misses: a person asked to be looked up in a store that does not know them. The cloud looks at
//! the one person whose claim was shown, never at others.

use super::{Embedded, rows::GatewayKeys, state::Person};
use crate::{embedded::disk::Changes, problem::Problem};
use palmgate_protocol::{
    ClaimHandle, Custody, Name, Secret, Timestamp,
    cloud::{ClaimQuery, MemberRecord, ProbeQuery, Resolution},
    decode,
};

/// The keys of the store that asks, and the record if it may have it.
type Claimed = (GatewayKeys, Option<Secret<Vec<u8>>>);

impl Embedded {
    /// `operator` custody. A hit makes the store a holder before the record leaves.
    pub(crate) fn resolve_probe(
        &self,
        store: &Name,
        query: &ProbeQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        let probe = self.tenant.open_probe(query)?;
        let (keys, found) = self.claimed(store, &query.claim, Custody::Operator, now)?;
        let Some(bytes) = found else { return Ok(Resolution::NotFound) };
        let record: MemberRecord = decode(bytes.expose()).map_err(Problem::internal)?;
        if !self.tenant.is_of(&record, query.purpose, &probe, now)
            || !self.becomes_holder(store, &query.claim, now)?
        {
            return Ok(Resolution::NotFound);
        }
        self.tenant.seal_to(keys.seal, &Resolution::binding(&query.claim), &bytes)
    }

    /// `split` custody: the sealed record as it was registered.
    pub(crate) fn resolve_claim(
        &self,
        store: &Name,
        query: &ClaimQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        let (_, found) = self.claimed(store, &query.claim, Custody::Split, now)?;
        match found {
            Some(sealed) if self.becomes_holder(store, &query.claim, now)? => {
                Ok(Resolution::Found { sealed: sealed.expose().clone() })
            }
            _ => Ok(Resolution::NotFound),
        }
    }

    /// The record of the claimed person, when this store may be given it.
    fn claimed(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Claimed, Problem> {
        let state = self.read()?;
        let keys = state.holders.get(store).ok_or(Problem::HelloFirst)?.keys()?;
        let person = state
            .claimed(claim)
            .filter(|person| person.row.custody == custody && may_be_given(person, store, now));
        Ok((keys, person.map(|person| state.record(person)).transpose()?))
    }

    /// Notes, durably, that the store has the person; `false` when they were forgotten or
    /// withdrew meanwhile.
    fn becomes_holder(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let mut state = self.write()?;
        let Some(person) = state.claimed(claim) else { return Ok(false) };
        if !may_be_given(person, store, now) {
            return Ok(false);
        }
        if person.row.is_held_by(store) {
            return Ok(true);
        }
        let member = person.row.id;
        let mut changes = Changes::default();
        state.hold(&member, store, &mut changes);
        state.commit(changes)?;
        Ok(true)
    }
}

/// The home store gets its own back after it lost its disk; any other store needs the person's
/// live consent to roaming.
fn may_be_given(person: &Person, store: &Name, now: Timestamp) -> bool {
    let row = &person.row;
    now < row.expires_at && (row.home == *store || row.roams(now))
}
