//! Registrations: a store tells of an enrolment.

use super::{
    Embedded,
    rows::{Held, Member},
    state::State,
};
use crate::{
    embedded::disk::Changes,
    problem::Problem,
    registry::member::{Registering, registering},
    tombstones::sha256,
};
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
        let before = state.person(&registration.member).map(|person| &person.row);
        let custody = before.map(|before| before.custody);
        match registering(before, store, &digest)? {
            Registering::Repeats => return Ok(()),
            Registering::New if state.people().count() >= self.tenant.settings.limits.members => {
                return Err(Problem::Full);
            }
            Registering::New | Registering::Replaces => {}
        }
        let row = Member::registered(registration, &admitted, (store, digest), before);
        let mut changes = Changes::default();
        state.put(row, &admitted.record, &mut changes)?;
        if let Some(custody) = custody {
            let leaves = |row: &Member, held: &Held| row.leaves(custody, &held.store, now);
            state.release(&registration.member, leaves, now, &mut changes);
        }
        let shards = &self.tenant.settings.shards;
        for store in holders(&state, &registration.member, store) {
            state.hold(&registration.member, &store, shards, now, &mut changes);
        }
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
fn holders(state: &State, member: &MemberId, home: &Name) -> Vec<Name> {
    let held = state.person(member).map(|person| person.row.holders.iter());
    let visited = held.into_iter().flatten().map(|held| held.store.clone());
    [home.clone()].into_iter().chain(visited.filter(|store| store != home)).collect()
}
