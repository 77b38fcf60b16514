//! Misses: a person asked to be looked up in a store that does not know them. The cloud looks at the
//! one person whose claim was shown, never at others.

use crate::{problem::Problem, tenant::Tenant};
use palmgate_protocol::{
    ClaimHandle, Custody, Name, Secret, Timestamp,
    cloud::{ClaimQuery, MemberRecord, ProbeQuery, Resolution},
    decode,
};

/// The sealing key of the store that asks, and the record if it may have it.
pub(crate) type Claimed = ([u8; 32], Option<Secret<Vec<u8>>>);

/// What a registry looks up and writes down for a miss.
pub(crate) trait Claims {
    fn tenant_keys(&self) -> &Tenant;

    /// The record of the claimed person in `custody`, when this store may be given it.
    fn claimed(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Claimed, Problem>;

    /// Notes, durably, that the store has the person; `false` when they were forgotten or withdrew
    /// meanwhile.
    fn becomes_holder(
        &self,
        store: &Name,
        claim: &ClaimHandle,
        now: Timestamp,
    ) -> Result<bool, Problem>;
}

/// `operator` custody. A hit makes the store a holder before the record leaves.
pub(crate) fn probe(
    registry: &impl Claims,
    store: &Name,
    query: &ProbeQuery,
    now: Timestamp,
) -> Result<Resolution, Problem> {
    let tenant = registry.tenant_keys();
    let probe = tenant.open_probe(query)?;
    let (key, found) = registry.claimed(store, &query.claim, Custody::Operator, now)?;
    let Some(bytes) = found else { return Ok(Resolution::NotFound) };
    let record: MemberRecord = decode(bytes.expose()).map_err(Problem::internal)?;
    if !tenant.is_of(&record, query.purpose, &probe, now)
        || !registry.becomes_holder(store, &query.claim, now)?
    {
        return Ok(Resolution::NotFound);
    }
    tenant.seal_to(key, &Resolution::binding(&query.claim), &bytes)
}

/// `split` custody: the sealed record as it was registered.
pub(crate) fn claim(
    registry: &impl Claims,
    store: &Name,
    query: &ClaimQuery,
    now: Timestamp,
) -> Result<Resolution, Problem> {
    let (_, found) = registry.claimed(store, &query.claim, Custody::Split, now)?;
    match found {
        Some(sealed) if registry.becomes_holder(store, &query.claim, now)? => {
            Ok(Resolution::Found { sealed: sealed.expose().clone() })
        }
        _ => Ok(Resolution::NotFound),
    }
}
