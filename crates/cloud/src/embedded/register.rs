//! Registrations: a store tells of an enrolment.

use super::{Embedded, rows::Member, state::State};
use crate::{embedded::disk::Changes, problem::Problem, tombstones::sha256};
use palmgate_protocol::{MemberId, Name, Timestamp, cloud::Registration, encode};

impl Embedded {
    pub(crate) fn register(
        &self,
        store: &Name,
        registration: &Registration,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let admitted = self.tenant.admit(registration, now)?;
        let digest = sha256(&[&encode(registration)]);
        let mut state = self.write()?;
        refuse_forgotten(&state, registration)?;
        let owner = state.claimed(&registration.claim).map(|person| person.row.id);
        if owner.is_some_and(|owner| owner != registration.member) {
            return Err(Problem::Conflict);
        }
        let holders = match state.person(&registration.member) {
            Some(person) if person.row.home != *store => return Err(Problem::Conflict),
            Some(person) if person.row.digest == digest => return Ok(()),
            Some(person) => person.row.holders.clone(),
            None if state.people().count() >= self.tenant.settings.limits.members => {
                return Err(Problem::Full);
            }
            None => Vec::new(),
        };
        let row = Member {
            id: registration.member,
            claim: registration.claim,
            custody: registration.custody,
            purposes: registration.purposes,
            expires_at: registration.expires_at,
            roaming_until: admitted.roaming_until,
            home: store.clone(),
            digest,
            holders,
        };
        let mut changes = Changes::default();
        let roams = row.roams(now);
        state.put(row, &admitted.record, &mut changes)?;
        if !roams {
            state.release(&registration.member, |other| other != store, now, &mut changes);
        }
        give(&mut state, &registration.member, store, &mut changes);
        state.commit(changes)
    }
}

fn refuse_forgotten(state: &State, registration: &Registration) -> Result<(), Problem> {
    let hasher = &state.tombstone_hasher;
    let hashes = [hasher.member(&registration.member), hasher.claim(&registration.claim)];
    if hashes.iter().any(|hash| state.tombstones.contains(hash)) {
        return Err(Problem::Forgotten);
    }
    Ok(())
}

/// The home store has the person at once, and stores that hold an earlier record get the new one.
fn give(state: &mut State, member: &MemberId, home: &Name, changes: &mut Changes) {
    state.hold(member, home, changes);
    let holders = state.person(member).map(|person| person.row.holders.iter());
    let visited = holders.into_iter().flatten().map(|held| held.store.clone());
    for store in visited.filter(|store| store != home).collect::<Vec<_>>() {
        state.hold(member, &store, changes);
    }
}
