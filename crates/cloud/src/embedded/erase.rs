//! Erasures: tombstones first, so that nothing brings the person back; then the key, so that
//! nothing that was ever written can be read; then the answer. A crash in between is finished at
//! the next start, or by the store's repetition.

use super::{Embedded, state::State};
use crate::{
    embedded::disk::{Changes, Table},
    problem::Problem,
    registry::erasure::ErasureRow,
};
use palmgate_protocol::{
    Name, Timestamp,
    cloud::{Erasure, ErasureState},
};

impl Embedded {
    /// Forgets a person, registered or not. Whoever names both ids was given them, so any store
    /// of the tenant may ask.
    pub(crate) fn erase(
        &self,
        store: &Name,
        erasure: &Erasure,
        now: Timestamp,
    ) -> Result<ErasureState, Problem> {
        let mut state = self.write()?;
        let row = ErasureRow::asked(erasure, store, &state.tombstone_hasher);
        match state.erasures.get(&erasure.commitment) {
            Some(known) if !row.repeats(known) => return Err(Problem::Conflict),
            Some(_) => {}
            None => begin(&mut state, erasure, row, now)?,
        }
        finish(&mut state, now)?;
        self.state_of(&state, &erasure.commitment).ok_or(Problem::Internal)
    }

    /// How far an erasure is that this store asked for.
    pub(crate) fn erasure(
        &self,
        store: &Name,
        commitment: &[u8; 32],
    ) -> Result<ErasureState, Problem> {
        let state = self.read()?;
        let known = state.erasures.get(commitment).filter(|row| row.asked_by == *store);
        known.and_then(|_| self.state_of(&state, commitment)).ok_or(Problem::NotFound)
    }

    fn state_of(&self, state: &State, commitment: &[u8; 32]) -> Option<ErasureState> {
        let row = state.erasures.get(commitment)?;
        let waits_for = |removals: &std::collections::BTreeMap<u64, super::rows::Removal>| {
            removals.values().any(|removal| removal.hash == row.member_hash)
        };
        let holders = state.holders.iter().filter(|(_, holder)| waits_for(&holder.removals));
        let outstanding = holders.map(|(store, _)| store.clone()).collect();
        Some(self.tenant.sign_erasure(commitment, row.erased_at?, outstanding))
    }
}

/// Makes it certain that the erasure will happen.
fn begin(
    state: &mut State,
    erasure: &Erasure,
    row: ErasureRow,
    now: Timestamp,
) -> Result<(), Problem> {
    let owner = state.claimed(&erasure.claim).map(|person| person.row.id);
    if owner.is_some_and(|owner| owner != erasure.member) {
        return Err(Problem::Conflict);
    }
    let mut changes = Changes::default();
    state.forget(&erasure.member, now, &mut changes);
    state.bury(row.member_hash, &mut changes);
    state.bury(row.claim_hash, &mut changes);
    state.write_fixed(Table::Erasure, &erasure.commitment, &row, &mut changes);
    state.erasures.insert(erasure.commitment, row);
    state.commit(changes)
}

/// Destroys the keys of everybody forgotten, then notes that it is done.
pub(super) fn finish(state: &mut State, now: Timestamp) -> Result<(), Problem> {
    if state.has_dead_keys() {
        state.rotate()?;
    }
    let mut changes = Changes::default();
    let unfinished: Vec<_> =
        state.erasures.iter().filter(|(_, row)| row.erased_at.is_none()).collect();
    let finished: Vec<([u8; 32], ErasureRow)> = unfinished
        .into_iter()
        .map(|(commitment, row)| (*commitment, ErasureRow { erased_at: Some(now), ..row.clone() }))
        .collect();
    if finished.is_empty() {
        return Ok(());
    }
    for (commitment, row) in finished {
        state.write_fixed(Table::Erasure, &commitment, &row, &mut changes);
        state.erasures.insert(commitment, row);
    }
    state.commit(changes)
}

#[cfg(test)]
impl Embedded {
    /// What is durable when the process dies between the tombstone and the key.
    pub(crate) fn begin_erasure_only(&self, erasure: &Erasure, store: &Name) {
        let mut state = self.write().unwrap();
        let row = ErasureRow::asked(erasure, store, &state.tombstone_hasher);
        begin(&mut state, erasure, row, Timestamp::from_millis(0)).unwrap();
    }

    /// Whether keys exist that nobody's rows need.
    pub(crate) fn has_dead_keys(&self) -> bool {
        self.read().unwrap().has_dead_keys()
    }
}
