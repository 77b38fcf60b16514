//! Erasing everybody of a tenant.

use super::{
    DatabaseError, DatabaseSettings, Postgres,
    people::{hash, name_of},
};
use crate::{layout::Layout, problem::Problem, registry::OpenError};
use palmgate_protocol::{Name, Timestamp};
use std::sync::Arc;

/// People erased in one transaction and with one new root key.
const PAGE: i64 = 256;

/// A tenant that leaves.
pub(crate) struct Offboarding(Arc<Postgres>);

/// The tombstone of somebody who was erased, and the stores that have not confirmed.
pub(crate) type Gone = ([u8; 32], Vec<Name>);

impl Offboarding {
    pub(crate) fn open(
        layout: &Layout,
        settings: &DatabaseSettings,
    ) -> Result<Self, DatabaseError> {
        match Postgres::open(layout, settings, None) {
            Ok(registry) => Ok(Self(registry)),
            Err(OpenError::Database(error)) => Err(error),
            Err(error) => Err(DatabaseError::Settings(error.to_string())),
        }
    }

    /// Erases some people; none when nobody is left. Their keys are destroyed when this returns.
    pub(crate) fn erase_some(&self, now: Timestamp) -> Result<Vec<Gone>, Problem> {
        let registry = &self.0;
        let (gone, partition) = registry.database.run(|tx| {
            registry.lock_tenant(tx)?;
            let rows = tx.query(
                "SELECT partition, member_hash FROM member WHERE tenant = $1 \
                 ORDER BY partition, member_hash LIMIT $2",
                &[&registry.tenant(), &PAGE],
            )?;
            let Some(first) = rows.first() else { return Ok((Vec::new(), None)) };
            let partition = name_of(first, 0)?;
            registry.lock_partition(tx, &partition)?;
            let mut gone = Vec::new();
            for row in rows.iter().filter(|row| row.get::<_, &str>(0) == partition.as_str()) {
                let member = registry.person(tx, partition.clone(), hash(row.get(1))?, true)?;
                let Some(mut person) = member else { continue };
                let holders = person.row.holders.clone();
                registry.forget(tx, &mut person, now)?;
                gone.push((registry.fixed.tombstones.member(&person.row.id), holders));
            }
            Ok((gone, Some(partition)))
        })?;
        if let Some(partition) = partition {
            registry.finish_partition(&partition, now)?;
        }
        Ok(gone)
    }

    pub(crate) fn unconfirmed(&self) -> Result<usize, Problem> {
        let registry = &self.0;
        registry.database.run(|tx| {
            let row = tx.query_one(
                "SELECT count(*) FROM removal WHERE tenant = $1",
                &[&registry.tenant()],
            )?;
            Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
        })
    }
}
