//! The registry of one tenant: who is registered, which store was given whom, who was forgotten.
//! Blocking; every call takes the time from its caller. An answer is given only after what it
//! says is durable.

use crate::{
    embedded::{DiskError, KeyError},
    layout::{LayoutError, StoreEntry},
    postgres::DatabaseError,
    problem::Problem,
};
use axum::body::Bytes;
use palmgate_protocol::{
    Custody, DAY, Name, Timestamp,
    cloud::{
        ClaimQuery, Directory, Erasure, ErasureState, Hello, ProbeQuery, Registration, Resolution,
        SearchAnswer, SearchQuery, Tombstones,
    },
};
use std::time::Duration;

pub(crate) mod chain;
pub(crate) mod erasure;
pub(crate) mod member;
pub(crate) mod resolve;
#[cfg(test)]
mod tests;

/// How long a store may take to confirm that somebody is gone before it is an alarm.
pub(crate) const REMOVAL_DEADLINE: Duration = DAY;

/// The storage seam: [`crate::embedded::Embedded`] in one process, or
/// [`crate::postgres::Postgres`] in any number of them.
pub(crate) trait Registry: Send + Sync {
    /// The operator's entry of a store; `None` when there is no such store.
    fn store(&self, store: &Name) -> Result<Option<StoreEntry>, Problem>;

    /// Takes the keys of a store's gateway, if something can be sealed to them: the first ones
    /// stay, until the operator resets the store. `resets` is how often that was done.
    fn hello(&self, store: &Name, hello: &Hello, resets: u32) -> Result<(), Problem>;

    /// The stores whose claims count: those that the operator lists and that said hello.
    fn directory(&self) -> Result<Directory, Problem>;

    /// Keeps an enrolment; durable when this returns. A repetition changes nothing; the home
    /// store may replace what it registered.
    fn register(
        &self,
        store: &Name,
        registration: &Registration,
        now: Timestamp,
    ) -> Result<(), Problem>;

    /// The encoded shard that follows version `held` (0: none), or `None` when nothing changed
    /// and the lease is not past half. Asking for what follows a version confirms it.
    fn shard(&self, store: &Name, held: u64, now: Timestamp) -> Result<Option<Bytes>, Problem>;

    /// The store says that a version is in force, and with it every removal up to it.
    fn applied(&self, store: &Name, version: u64) -> Result<(), Problem>;

    /// `operator` custody: the claimed person, if the probe is theirs. A hit makes the store a
    /// holder before the record leaves.
    fn resolve_probe(
        &self,
        store: &Name,
        query: &ProbeQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem>;

    /// `operator` custody: the one person among all who roam that the probe is of.
    fn search(
        &self,
        store: &Name,
        query: &SearchQuery,
        now: Timestamp,
    ) -> Result<SearchAnswer, Problem>;

    /// Replaces the checkpoint that was cosigned last for a log by what `next` makes of it, before
    /// anybody else can.
    fn witness(
        &self,
        origin: &str,
        next: &dyn Fn(Option<&str>) -> Result<String, Problem>,
    ) -> Result<String, Problem>;

    /// The checkpoints that were cosigned last, by the names of their logs.
    fn heads(&self) -> Result<Vec<String>, Problem>;

    /// `split` custody: the sealed record as it was registered.
    fn resolve_claim(
        &self,
        store: &Name,
        query: &ClaimQuery,
        now: Timestamp,
    ) -> Result<Resolution, Problem>;

    /// Forgets a person, registered or not. Whoever names both ids was given them, so any store
    /// of the tenant may ask.
    fn erase(
        &self,
        store: &Name,
        erasure: &Erasure,
        now: Timestamp,
    ) -> Result<ErasureState, Problem>;

    /// How far an erasure is that this store asked for.
    fn erasure(&self, store: &Name, commitment: &[u8; 32]) -> Result<ErasureState, Problem>;

    /// What was forgotten after the point that an earlier page named; 0 for the first page.
    fn tombstones(&self, after: u64) -> Result<Tombstones, Problem>;

    /// Forgets whoever is due, withdraws whose roaming ended, destroys keys nobody needs, and
    /// finishes interrupted erasures. Cheap when there is nothing to do.
    fn sweep(&self, now: Timestamp) -> Result<(), Problem>;

    /// What may be told to everybody who watches the service.
    fn counts(&self, now: Timestamp) -> Result<Counts, Problem>;

    /// Whether requests can be served at all.
    fn health(&self) -> Health;
}

/// Whether a registry can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It can.
    Ready,
    /// Something that it needs is away; it serves again once that is back.
    Waiting,
    /// A write failed so that nothing more can be promised before a new start.
    Broken,
}

/// Counts, no people.
pub(crate) struct Counts {
    pub(crate) members: [(Custody, usize); 2],
    pub(crate) stores: usize,
    pub(crate) unconfirmed_removals: usize,
    /// Removals that a store has not confirmed within 24 hours.
    pub(crate) overdue_removals: usize,
    pub(crate) unfinished_erasures: usize,
    pub(crate) tombstones: usize,
    /// Embeddings that this process searches.
    pub(crate) indexed: usize,
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
    /// The database in the state directory cannot be used; often another process has it open.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The PostgreSQL database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The rows do not open or make no sense; the log says which.
    #[error("the registry is damaged: restore the whole state directory")]
    Damaged,
}
