//! The registry of one process that owns its state directory: sealed rows in sled, read into
//! memory at the start, and a key table in files. Enough for a chain of a few hundred thousand
//! people, and what the demonstration runs on.

mod claims;
mod disk;
mod erase;
mod keys;
mod register;
mod rows;
mod shards;
mod state;
mod tombstones;

use crate::{
    layout::{Layout, StoreEntry},
    problem::Problem,
    registry::{Counts, Health, OpenError, REMOVAL_DEADLINE, Registry, resolve},
    tenant::Tenant,
};
use axum::body::Bytes;
pub use disk::DiskError;
use disk::{Changes, Disk, Table};
pub use keys::KeyError;
pub(crate) use keys::KeyTable;
use palmgate_protocol::{
    Custody, Name, Timestamp,
    cloud::{
        ClaimQuery, Directory, Erasure, ErasureState, Hello, Issuer, ProbeQuery, Registration,
        Resolution, SearchAnswer, SearchQuery, Tombstones,
    },
};
use rows::GatewayKeys;
use state::State;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) struct Embedded {
    layout: Layout,
    tenant: Tenant,
    state: RwLock<State>,
}

impl Embedded {
    /// Opens the registry and finishes the erasures that a crash interrupted.
    pub(crate) fn open(layout: &Layout, now: Timestamp) -> Result<Self, OpenError> {
        let tenant = Tenant::read(layout)?;
        let keys = KeyTable::open(&layout.keys(), tenant.name())?;
        let disk = Disk::open(&layout.database())?;
        let state = State::load(disk, keys, tenant.name()).map_err(|_| OpenError::Damaged)?;
        let registry = Self { layout: layout.clone(), tenant, state: RwLock::new(state) };
        registry.sweep(now).map_err(|_| OpenError::Damaged)?;
        Ok(registry)
    }

    pub(crate) fn hello(&self, store: &Name, hello: &Hello, resets: u32) -> Result<(), Problem> {
        self.tenant.check_sealing_key(&hello.seal_key)?;
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

    fn directory(&self) -> Result<Directory, Problem> {
        let is_listed = |store: &Name| matches!(self.layout.store(store), Ok(Some(_)));
        let state = self.read()?;
        let issuer = |(store, verify_key)| Issuer { store, verify_key };
        let known = state.holders.iter().filter(|(store, _)| is_listed(store));
        let keys = known.filter_map(|(store, held)| Some((store.clone(), held.row.keys?.verify)));
        Ok(Directory { issuers: keys.map(issuer).collect() })
    }

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
            if person.row.expires_at <= now {
                state.forget(&member, now, &mut changes);
            } else {
                let ends = |row: &rows::Member, held: &rows::Held| {
                    row.leaves(row.custody, &held.store, now)
                        || held.visit_until.is_some_and(|end| end <= now)
                };
                state.release(&member, ends, now, &mut changes);
            }
        }
        state.settle(now);
        state.commit(changes)?;
        erase::finish(&mut state, now)
    }

    pub(crate) fn counts(&self, now: Timestamp) -> Result<Counts, Problem> {
        let state = self.read()?;
        let of = |custody| state.people().filter(|person| person.row.custody == custody).count();
        let unfinished = state.erasures.values().filter(|row| row.erased_at.is_none()).count();
        let removals = || state.holders.values().flat_map(|held| held.removals.values());
        let overdue = |removal: &&rows::Removal| {
            removal.asked_at.is_none_or(|asked| now.since(asked) > REMOVAL_DEADLINE)
        };
        Ok(Counts {
            members: [Custody::Operator, Custody::Split].map(|custody| (custody, of(custody))),
            stores: state.holders.values().filter(|held| held.row.keys.is_some()).count(),
            unconfirmed_removals: removals().count(),
            overdue_removals: removals().filter(overdue).count(),
            unfinished_erasures: unfinished,
            tombstones: state.tombstones.len(),
            indexed: 0,
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

impl Registry for Embedded {
    fn store(&self, store: &Name) -> Result<Option<StoreEntry>, Problem> {
        self.layout.store(store).map_err(Problem::internal)
    }

    fn hello(&self, store: &Name, hello: &Hello, resets: u32) -> Result<(), Problem> {
        self.hello(store, hello, resets)
    }

    fn directory(&self) -> Result<Directory, Problem> {
        self.directory()
    }

    fn register(&self, store: &Name, it: &Registration, now: Timestamp) -> Result<(), Problem> {
        self.register(store, it, now)
    }

    fn shard(&self, store: &Name, held: u64, now: Timestamp) -> Result<Option<Bytes>, Problem> {
        self.shard(store, held, now)
    }

    fn applied(&self, store: &Name, version: u64) -> Result<(), Problem> {
        self.applied(store, version)
    }

    fn resolve_probe(
        &self,
        store: &Name,
        query: &ProbeQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        resolve::probe(self, store, query, now)
    }

    /// A chain that is large enough to need this has a database.
    fn search(&self, _: &Name, _: &SearchQuery, _: Timestamp) -> Result<SearchAnswer, Problem> {
        Err(Problem::SearchRefused)
    }

    fn witness(
        &self,
        origin: &str,
        next: &dyn Fn(Option<&str>) -> Result<String, Problem>,
    ) -> Result<String, Problem> {
        let mut state = self.write()?;
        let held = state.witnessed(origin)?;
        let checkpoint = next(held.as_deref())?;
        let mut changes = Changes::default();
        state.write_fixed(Table::Witnessed, origin.as_bytes(), &checkpoint, &mut changes);
        state.commit(changes)?;
        Ok(checkpoint)
    }

    fn heads(&self) -> Result<Vec<String>, Problem> {
        self.read()?.all_witnessed()
    }

    fn resolve_claim(
        &self,
        store: &Name,
        query: &ClaimQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem> {
        resolve::claim(self, store, query, now)
    }

    fn erase(&self, store: &Name, it: &Erasure, now: Timestamp) -> Result<ErasureState, Problem> {
        self.erase(store, it, now)
    }

    fn erasure(&self, store: &Name, commitment: &[u8; 32]) -> Result<ErasureState, Problem> {
        self.erasure(store, commitment)
    }

    fn tombstones(&self, after: u64) -> Result<Tombstones, Problem> {
        self.tombstones(after)
    }

    fn sweep(&self, now: Timestamp) -> Result<(), Problem> {
        self.sweep(now)
    }

    fn counts(&self, now: Timestamp) -> Result<Counts, Problem> {
        self.counts(now)
    }

    fn health(&self) -> Health {
        if self.read().is_err() { Health::Broken } else { Health::Ready }
    }
}
