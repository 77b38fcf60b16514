//! Misses: a person asked to be looked up in a store that does not know them. The cloud looks at
//! the one person whose claim was shown, never at others.

use super::{Registry, rows::GatewayKeys, state::Person};
use crate::{disk::Changes, problem::Problem};
use palmgate_protocol::{
    ClaimHandle, Custody, Name, Probe, Purpose, Secret, Template, Timestamp,
    cloud::{ClaimQuery, MemberRecord, ProbeQuery, Resolution},
    decode,
};
use palmgate_seal::envelope::{self, Label, SealingKey};

/// The keys of the store that asks, and the record if it may have it.
type Claimed = (GatewayKeys, Option<Secret<Vec<u8>>>);

impl Registry {
    /// `operator` custody. A hit makes the store a holder before the record leaves.
    pub(crate) fn resolve_probe(
        &self,
        store: &Name,
        query: &ProbeQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        let probe = self.open_probe(query)?;
        let (keys, found) = self.claimed(store, &query.claim, Custody::Operator, now)?;
        let Some(bytes) = found else { return Ok(Resolution::NotFound) };
        let record: MemberRecord = decode(bytes.expose()).map_err(Problem::internal)?;
        if !self.is_of(&record, query.purpose, &probe, now)
            || !self.becomes_holder(store, &query.claim, now)?
        {
            return Ok(Resolution::NotFound);
        }
        let sealed = envelope::seal(
            &SealingKey(keys.seal),
            Label::Resolution,
            &self.settings.tenant,
            &Resolution::binding(&query.claim),
            bytes.expose(),
        );
        Ok(Resolution::Found { sealed: sealed.map_err(Problem::internal)? })
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

    fn open_probe(&self, query: &ProbeQuery) -> Result<Probe, Problem> {
        let tenant = &self.settings.tenant;
        let padded =
            envelope::open(&self.matcher, Label::Probe, tenant, &query.binding(), &query.sealed)
                .map_err(|_| Problem::RecordRefused)?;
        let bytes = envelope::unpad(padded.expose()).map_err(|_| Problem::RecordRefused)?;
        Probe::from_bytes(bytes).map_err(|_| Problem::RecordRefused)
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

    fn is_of(
        &self,
        record: &MemberRecord,
        purpose: Purpose,
        probe: &Probe,
        now: Timestamp,
    ) -> bool {
        let live = |consent: &palmgate_protocol::cloud::Consent| {
            consent.purpose == purpose && now < consent.expires_at
        };
        let matching = &self.settings.matching;
        let score =
            |template: Template| palmgate_gallery::verify(probe, &template, &matching.fusion());
        record.consents.iter().any(live)
            && record
                .templates
                .iter()
                .filter(|sealed| sealed.purpose == purpose)
                .filter_map(|sealed| Template::from_bytes(sealed.template.expose()).ok())
                .any(|template| score(template) >= matching.threshold)
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
