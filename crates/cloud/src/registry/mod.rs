//! The registry of one tenant: who is registered, which store was given whom, who was forgotten.
//! Blocking; every call takes the time from its caller. An answer is given only after what it
//! says is durable.

mod erase;
mod register;
mod resolve;
mod rows;
mod shards;
mod state;
#[cfg(test)]
mod tests;
mod tombstones;

use crate::{
    config::{Limits, Settings},
    disk::{Changes, Disk, DiskError},
    keys::{KeyError, KeyTable},
    layout::{Layout, LayoutError},
    problem::Problem,
};
use palmgate_protocol::{
    Custody, Name, Timestamp,
    cloud::{Directory, Hello, Issuer},
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey, SealingKey},
    sign::SigningKey,
};
use rows::GatewayKeys;
use state::State;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) struct Registry {
    settings: Settings,
    publisher: SigningKey,
    matcher: OpeningKey,
    state: RwLock<State>,
}

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory lacks something or cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The key table cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The database cannot be used; often another process has it open.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The rows do not open or make no sense; the log says which.
    #[error("the registry is damaged: restore the whole state directory")]
    Damaged,
}

/// What may be told to everybody who watches the service: counts, no people.
pub(crate) struct Counts {
    pub(crate) members: [(Custody, usize); 2],
    pub(crate) stores: usize,
    pub(crate) unconfirmed_removals: usize,
    pub(crate) unfinished_erasures: usize,
    pub(crate) tombstones: usize,
}

impl Registry {
    /// Opens the registry and finishes the erasures that a crash interrupted.
    pub(crate) fn open(layout: &Layout, now: Timestamp) -> Result<Self, OpenError> {
        let settings = layout.settings()?;
        let keys = KeyTable::open(&layout.keys(), &settings.tenant)?;
        let disk = Disk::open(&layout.database())?;
        let state = State::load(disk, keys, &settings.tenant).map_err(|_| OpenError::Damaged)?;
        let registry = Self {
            publisher: layout.publisher()?,
            matcher: layout.matcher()?,
            settings,
            state: RwLock::new(state),
        };
        registry.sweep(now).map_err(|_| OpenError::Damaged)?;
        Ok(registry)
    }

    /// Takes the keys of a store's gateway, if something can be sealed to them: the first ones
    /// stay, until the operator resets the store. `resets` is how often that was done.
    pub(crate) fn hello(&self, store: &Name, hello: &Hello, resets: u32) -> Result<(), Problem> {
        let (to, tenant) = (SealingKey(hello.seal_key), &self.settings.tenant);
        envelope::seal(&to, Label::Shard, tenant, b"", b"").map_err(|_| Problem::Malformed)?;
        let keys = GatewayKeys { seal: hello.seal_key, verify: hello.verify_key };
        let mut state = self.write()?;
        let mut row = state.holders.get(store).map(|held| held.row.clone()).unwrap_or_default();
        match row.keys {
            Some(known) if known == keys && row.resets == resets => return Ok(()),
            Some(known) if known != keys && row.resets >= resets => {
                return Err(Problem::KeysChanged);
            }
            _ => {}
        }
        if row.resets < resets {
            // Another box: it holds nothing yet.
            row.last = None;
        }
        (row.keys, row.resets) = (Some(keys), resets);
        let mut changes = Changes::default();
        state.write_holder(store, &row, &mut changes);
        state.holders.entry(store.clone()).or_default().row = row;
        state.commit(changes)
    }

    /// The stores whose claims count, among those that `is_listed` knows.
    pub(crate) fn directory(
        &self,
        is_listed: impl Fn(&Name) -> bool,
    ) -> Result<Directory, Problem> {
        let state = self.read()?;
        let issuer = |(store, verify_key)| Issuer { store, verify_key };
        let known = state.holders.iter().filter(|(store, _)| is_listed(store));
        let keys = known.filter_map(|(store, held)| Some((store.clone(), held.row.keys?.verify)));
        Ok(Directory { issuers: keys.map(issuer).collect() })
    }

    /// Forgets whoever is due, withdraws whose roaming ended, destroys keys nobody needs, and
    /// finishes interrupted erasures. Cheap when there is nothing to do.
    pub(crate) fn sweep(&self, now: Timestamp) -> Result<(), Problem> {
        let due = |state: &State| {
            !state.due(now).is_empty()
                || state.has_dead_keys()
                || state.erasures.values().any(|erasure| erasure.erased_at.is_none())
        };
        if !due(&*self.read()?) {
            return Ok(());
        }
        let mut state = self.write()?;
        let mut changes = Changes::default();
        for member in state.due(now) {
            let Some(person) = state.person(&member) else { continue };
            let (expires, home) = (person.row.expires_at, person.row.home.clone());
            let roaming_ended = person.row.roaming_until;
            if expires <= now {
                state.forget(&member, &mut changes);
            } else if let Some(ended) = roaming_ended {
                state.release(&member, |store| *store != home, &mut changes);
                state.settle(&member, ended);
            }
        }
        state.commit(changes)?;
        erase::finish(&mut state, now)
    }

    pub(crate) const fn limits(&self) -> Limits {
        self.settings.limits
    }

    /// Whether a write failed: the process must start anew before it can promise anything.
    pub(crate) fn is_broken(&self) -> bool {
        self.read().is_err()
    }

    pub(crate) fn counts(&self) -> Result<Counts, Problem> {
        let state = self.read()?;
        let of = |custody| state.people().filter(|person| person.row.custody == custody).count();
        let unfinished = state.erasures.values().filter(|row| row.erased_at.is_none()).count();
        Ok(Counts {
            members: [Custody::Operator, Custody::Split].map(|custody| (custody, of(custody))),
            stores: state.holders.values().filter(|held| held.row.keys.is_some()).count(),
            unconfirmed_removals: state.holders.values().map(|held| held.removals.len()).sum(),
            unfinished_erasures: unfinished,
            tombstones: state.tombstones.len(),
        })
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, State>, Problem> {
        let state = self.state.read().map_err(|_| Problem::Internal)?;
        if state.is_broken() { Err(Problem::Internal) } else { Ok(state) }
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, State>, Problem> {
        let state = self.state.write().map_err(|_| Problem::Internal)?;
        if state.is_broken() { Err(Problem::Internal) } else { Ok(state) }
    }
}
