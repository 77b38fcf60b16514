//! The operator's commands on a tenant in a database.

use super::{
    database::{Database, DatabaseError, DatabaseSettings},
    rows::FixedKeys,
};
use crate::{
    files::{self, FileError},
    layout::{Layout, StoreEntry},
    problem::Problem,
};
use palmgate_protocol::Name;

/// Makes the keys of a new tenant, beside its certificates.
pub(crate) fn create_keys(layout: &Layout) -> Result<(), FileError> {
    files::create_directory(&layout.roots())?;
    FixedKeys::create(&layout.fixed_keys())
}

/// A partition as the operator sees it.
pub(crate) struct PartitionEntry {
    pub(crate) partition: String,
    pub(crate) region: String,
    pub(crate) members: i64,
    pub(crate) matchers: Vec<String>,
}

/// The stores that the operator admitted.
pub(crate) struct Stores {
    tenant: Name,
    region: Name,
    database: Database,
}

impl Stores {
    pub(crate) fn open(
        layout: &Layout,
        settings: &DatabaseSettings,
        tenant: &Name,
        region: &Name,
    ) -> Result<Self, DatabaseError> {
        let database = Database::open(settings, tenant, layout.root())?;
        Ok(Self { tenant: tenant.clone(), region: region.clone(), database })
    }

    /// The entry of one store.
    pub(crate) fn get(&self, store: &Name) -> Result<Option<StoreEntry>, DatabaseError> {
        Ok(self.list()?.into_iter().find(|(name, _)| name == store).map(|(_, entry)| entry))
    }

    /// Every store, by name.
    pub(crate) fn list(&self) -> Result<Vec<(Name, StoreEntry)>, DatabaseError> {
        self.done(self.database.run(|tx| {
            let rows = tx.query(
                "SELECT store, certificates, resets FROM store WHERE tenant = $1 ORDER BY store",
                &[&self.tenant.as_str()],
            )?;
            let entry = |row: &postgres::Row| {
                let resets = u32::try_from(row.get::<_, i32>(2)).map_err(Problem::internal)?;
                let entry = StoreEntry { certificates: row.get(1), resets };
                Ok((super::people::name_of(row, 0)?, entry))
            };
            Ok(rows.iter().map(entry).collect::<Result<_, Problem>>()?)
        }))
    }

    /// Writes an entry; a new store's people are in `partition`.
    pub(crate) fn put(
        &self,
        store: &Name,
        entry: &StoreEntry,
        partition: &Name,
    ) -> Result<(), DatabaseError> {
        let resets = i32::try_from(entry.resets).unwrap_or(i32::MAX);
        self.done(self.database.run(|tx| {
            let changed = tx.execute(
                "UPDATE store SET certificates = $3, resets = $4 WHERE tenant = $1 AND store = $2",
                &[&self.tenant.as_str(), &store.as_str(), &entry.certificates, &resets],
            )?;
            if changed > 0 {
                return Ok(());
            }
            tx.execute(
                "INSERT INTO partition (tenant, partition, region) VALUES ($1, $2, $3) \
                 ON CONFLICT (tenant, partition) DO NOTHING",
                &[&self.tenant.as_str(), &partition.as_str(), &self.region.as_str()],
            )?;
            tx.execute(
                "INSERT INTO store (tenant, store, partition, certificates, resets, last_hash) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    &self.tenant.as_str(),
                    &store.as_str(),
                    &partition.as_str(),
                    &entry.certificates,
                    &resets,
                    &[0_u8; 32].as_slice(),
                ],
            )?;
            Ok(())
        }))
    }

    /// Gives partitions to a matcher, in place of those that it had.
    pub(crate) fn assign(&self, matcher: &Name, partitions: &[Name]) -> Result<(), DatabaseError> {
        self.done(self.database.run(|tx| {
            tx.execute(
                "DELETE FROM matcher WHERE tenant = $1 AND matcher = $2",
                &[&self.tenant.as_str(), &matcher.as_str()],
            )?;
            for partition in partitions {
                tx.execute(
                    "INSERT INTO matcher (tenant, matcher, partition) VALUES ($1, $2, $3) \
                     ON CONFLICT DO NOTHING",
                    &[&self.tenant.as_str(), &matcher.as_str(), &partition.as_str()],
                )?;
            }
            Ok(())
        }))
    }

    /// What every partition has, and who searches it.
    pub(crate) fn partitions(&self) -> Result<Vec<PartitionEntry>, DatabaseError> {
        self.done(self.database.run(|tx| {
            let rows = tx.query(
                "SELECT p.partition, p.region, p.operator_members + p.split_members, \
                 (SELECT coalesce(array_agg(m.matcher ORDER BY m.matcher), '{}') FROM matcher m \
                  WHERE m.tenant = p.tenant AND m.partition = p.partition) \
                 FROM partition p WHERE p.tenant = $1 ORDER BY p.partition",
                &[&self.tenant.as_str()],
            )?;
            let entry = |row: &postgres::Row| PartitionEntry {
                partition: row.get(0),
                region: row.get(1),
                members: row.get(2),
                matchers: row.get(3),
            };
            Ok(rows.iter().map(entry).collect())
        }))
    }

    fn done<T>(&self, done: Result<T, Problem>) -> Result<T, DatabaseError> {
        done.map_err(|problem| {
            self.database
                .unreachable(std::io::Error::other(format!("it refused: {}", problem.name())))
        })
    }
}
