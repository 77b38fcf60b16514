//! The registry of any number of processes over one PostgreSQL database, or an engine that speaks
//! its language. A process keeps nothing that another one needs: it may be killed and started at any
//! time. See `docs/scale.md` for how the rows are spread.
//!
//! What is about people is sealed before it leaves the process, and ids are keyed hashes: the
//! database, its log, its replicas and its backups hold ciphertext. The keys are people's own, sealed
//! under a root that is no row.

mod claims;
mod database;
mod erase;
mod keyring;
mod migrate;
mod offboard;
mod people;
mod provision;
mod register;
mod roots;
mod rows;
mod search;
mod shards;
pub mod synthetic;
#[cfg(test)]
mod tests;
mod tombstones;

pub use database::DatabaseError;
pub(crate) use database::DatabaseSettings;
pub(crate) use migrate::migrate;
pub(crate) use offboard::Offboarding;
pub(crate) use provision::{Stores, create_keys};

use crate::{
    check::{Finding, Verdict},
    layout::{Layout, StoreEntry},
    problem::Problem,
    registry::{Counts, Health, OpenError, Registry, resolve},
    search::Index,
    tenant::Tenant,
    tombstones::TombstoneSet,
};
use axum::body::Bytes;
use database::{Database, Done};
use keyring::Keyrings;
use palmgate_protocol::{
    Custody, Name, Timestamp,
    cloud::{
        ClaimQuery, Directory, Erasure, ErasureState, Hello, Issuer, ProbeQuery, Registration,
        Resolution, SearchAnswer, SearchQuery, Tombstones,
    },
};
use people::{hash, name_of};
use postgres::Transaction;
use roots::Roots;
use rows::FixedKeys;
use shards::Answers;
use std::{
    sync::{Arc, Mutex},
    thread,
};

/// The registry of one tenant in a database that others share.
pub(crate) struct Postgres {
    tenant: Tenant,
    database: Database,
    fixed: FixedKeys,
    keyrings: Keyrings,
    answers: Answers,
    tombstones: Mutex<TombstoneSet>,
    index: Index,
    matcher: Option<Name>,
}

impl Postgres {
    /// Opens the registry; refuses a schema that it does not know and a region that is not its own.
    pub(crate) fn open(
        layout: &Layout,
        settings: &DatabaseSettings,
        matcher: Option<Name>,
    ) -> Result<Arc<Self>, OpenError> {
        let tenant = Tenant::read(layout)?;
        let database = Database::open(settings, tenant.name(), layout.root())?;
        let this = Self {
            fixed: FixedKeys::read(&layout.fixed_keys())?,
            keyrings: Keyrings::new(tenant.name(), Roots::new(&layout.roots())),
            answers: Answers::default(),
            tombstones: Mutex::default(),
            index: Index::default(),
            matcher,
            tenant,
            database,
        };
        this.check_region()?;
        let this = Arc::new(this);
        regularly(&this, Self::forget_in_time);
        regularly(&this, |this| {
            // Reported where it matters: the partition does not count as searched.
            let _ = this.keep_index();
        });
        Ok(this)
    }

    fn check_region(&self) -> Result<(), OpenError> {
        let found = self.database.run(|tx| {
            let row =
                tx.query_opt("SELECT region FROM tenant WHERE tenant = $1", &[&self.tenant()])?;
            Ok(row.map(|row| row.get::<_, String>(0)))
        });
        let configured = &self.tenant.settings.region;
        match found.map_err(|_| OpenError::Damaged)? {
            None => Err(DatabaseError::NoTenant(self.name().clone()).into()),
            Some(found) if found != configured.as_str() => {
                Err(DatabaseError::Region { found, configured: configured.clone() }.into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Where the database is, for people.
    pub(crate) fn address(&self) -> &str {
        self.database.place()
    }

    /// Whether the database holds this tenant's role to this tenant's rows.
    pub(crate) fn policy_finding(&self) -> Finding {
        let bypassing = self.database.run(|tx| {
            let row = tx.query_one(
                "SELECT (SELECT rolsuper OR rolbypassrls FROM pg_roles \
                 WHERE rolname = current_user) OR EXISTS (SELECT 1 FROM pg_class \
                 WHERE relnamespace = 'palmgate'::regnamespace AND relkind = 'r' \
                 AND relname <> 'schema_version' AND NOT relforcerowsecurity)",
                &[],
            )?;
            Ok(row.get(0))
        });
        let (subject, verdict, words) = match bypassing {
            Ok(false) => (
                "separation",
                Verdict::Good,
                "row-level security holds the role to its tenant".into(),
            ),
            Ok(true) => (
                "separation",
                Verdict::Failed,
                "the role or a table is exempt from row-level security: take SUPERUSER and \
                 BYPASSRLS from it and run `palmgate-cloud migrate`"
                    .into(),
            ),
            Err(problem) => ("separation", Verdict::Failed, problem.name().into()),
        };
        Finding { subject, verdict, words }
    }

    fn name(&self) -> &Name {
        self.tenant.name()
    }

    /// The first part of every primary key.
    fn tenant(&self) -> &str {
        self.tenant.name().as_str()
    }

    /// Drops what is not current any more; everything, if the database cannot be asked.
    fn forget_in_time(&self) {
        if self.database.run(|tx| self.keyrings.forget_outdated(tx)).is_err() {
            self.keyrings.forget_all();
        }
    }

    fn hello_in(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        hello: &Hello,
        resets: u32,
    ) -> Done<()> {
        let resets = i32::try_from(resets).map_err(Problem::internal)?;
        let row = tx.query_opt(
            "SELECT seal_key, verify_key, keys_resets FROM store \
             WHERE tenant = $1 AND store = $2 FOR UPDATE",
            &[&self.tenant(), &store.as_str()],
        )?;
        let row = row.ok_or(Problem::CertificateNotCurrent)?;
        let known: (Option<&[u8]>, Option<&[u8]>, i32) = (row.get(0), row.get(1), row.get(2));
        let keys = (Some(hello.seal_key.as_slice()), Some(hello.verify_key.as_slice()));
        let (same, taken) = ((known.0, known.1) == keys, known.0.is_some());
        if same && known.2 == resets {
            return Ok(());
        }
        if taken && !same && known.2 >= resets {
            return Err(Problem::KeysChanged.into());
        }
        // Another box holds nothing yet.
        let another = known.2 < resets;
        tx.execute(
            "UPDATE store SET seal_key = $3, verify_key = $4, keys_resets = $5, \
             up_to = CASE WHEN $6 THEN NULL ELSE up_to END WHERE tenant = $1 AND store = $2",
            &[&self.tenant(), &store.as_str(), &keys.0, &keys.1, &resets, &another],
        )?;
        Ok(())
    }

    fn counts_in(&self, tx: &mut Transaction<'_>, now: Timestamp) -> Done<Counts> {
        let row = tx.query_one(
            "SELECT coalesce(sum(operator_members), 0)::bigint, \
             coalesce(sum(split_members), 0)::bigint, \
             (SELECT count(*) FROM store WHERE tenant = $1 AND seal_key IS NOT NULL), \
             (SELECT count(*) FROM removal WHERE tenant = $1), \
             (SELECT count(*) FROM erasure WHERE tenant = $1 AND erased_at IS NULL), \
             (SELECT tombstone_revision FROM tenant WHERE tenant = $1) \
             FROM partition WHERE tenant = $1",
            &[&self.tenant()],
        )?;
        let count = |column: usize| usize::try_from(row.get::<_, i64>(column)).unwrap_or(0);
        let overdue = self.overdue_removals(tx, now)?;
        Ok(Counts {
            members: [(Custody::Operator, count(0)), (Custody::Split, count(1))],
            stores: count(2),
            unconfirmed_removals: count(3),
            overdue_removals: usize::try_from(overdue).unwrap_or(0),
            unfinished_erasures: count(4),
            tombstones: count(5),
            indexed: self.index.rows(),
        })
    }
}

/// Does `work` several times within [`erase::STALENESS`], as long as somebody has the registry.
fn regularly(registry: &Arc<Postgres>, work: impl Fn(&Postgres) + Send + 'static) {
    let registry = Arc::downgrade(registry);
    thread::spawn(move || {
        while let Some(registry) = registry.upgrade() {
            work(&registry);
            drop(registry);
            thread::sleep(erase::STALENESS / 4);
        }
    });
}

impl Registry for Postgres {
    fn store(&self, store: &Name) -> Result<Option<StoreEntry>, Problem> {
        self.database.run(|tx| {
            let row = tx.query_opt(
                "SELECT s.certificates, s.resets, p.region FROM store s JOIN partition p \
                 USING (tenant, partition) WHERE s.tenant = $1 AND s.store = $2",
                &[&self.tenant(), &store.as_str()],
            )?;
            let Some(row) = row else { return Ok(None) };
            if row.get::<_, &str>(2) != self.tenant.settings.region.as_str() {
                return Err(Problem::OutsideRegion.into());
            }
            let resets = u32::try_from(row.get::<_, i32>(1)).map_err(Problem::internal)?;
            Ok(Some(StoreEntry { certificates: row.get(0), resets }))
        })
    }

    fn hello(&self, store: &Name, hello: &Hello, resets: u32) -> Result<(), Problem> {
        self.tenant.check_sealing_key(&hello.seal_key)?;
        self.database.run(|tx| self.hello_in(tx, store, hello, resets))
    }

    fn directory(&self) -> Result<Directory, Problem> {
        let rows = self.database.run(|tx| {
            Ok(tx.query(
                "SELECT store, verify_key FROM store WHERE tenant = $1 \
                 AND verify_key IS NOT NULL ORDER BY store",
                &[&self.tenant()],
            )?)
        })?;
        let issuer = |row: &postgres::Row| {
            Ok(Issuer { store: name_of(row, 0)?, verify_key: hash(row.get(1))? })
        };
        Ok(Directory { issuers: rows.iter().map(issuer).collect::<Result<_, Problem>>()? })
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

    fn search(
        &self,
        store: &Name,
        query: &SearchQuery,
        now: Timestamp,
    ) -> Result<SearchAnswer, Problem> {
        self.search(store, query, now)
    }

    fn witness(
        &self,
        origin: &str,
        next: &dyn Fn(Option<&str>) -> Result<String, Problem>,
    ) -> Result<String, Problem> {
        self.database.run(|tx| {
            tx.execute(
                "INSERT INTO witnessed (tenant, origin, checkpoint) VALUES ($1, $2, '') \
                 ON CONFLICT (tenant, origin) DO NOTHING",
                &[&self.tenant(), &origin],
            )?;
            let row = tx.query_one(
                "SELECT checkpoint FROM witnessed WHERE tenant = $1 AND origin = $2 FOR UPDATE",
                &[&self.tenant(), &origin],
            )?;
            let held: &str = row.get(0);
            let checkpoint = next((!held.is_empty()).then_some(held))?;
            tx.execute(
                "UPDATE witnessed SET checkpoint = $3 WHERE tenant = $1 AND origin = $2",
                &[&self.tenant(), &origin, &checkpoint],
            )?;
            Ok(checkpoint)
        })
    }

    fn heads(&self) -> Result<Vec<String>, Problem> {
        self.database.run(|tx| {
            let rows = tx.query(
                "SELECT checkpoint FROM witnessed WHERE tenant = $1 ORDER BY origin",
                &[&self.tenant()],
            )?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
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
        self.database.run(|tx| self.counts_in(tx, now))
    }

    fn health(&self) -> Health {
        if self.database.answers() { Health::Ready } else { Health::Waiting }
    }
}
