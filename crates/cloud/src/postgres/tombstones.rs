//! The Merkle root of everybody who was forgotten, from a copy of the hashes that every process
//! brings up to date when it needs it.

use super::{Postgres, people::hash};
use crate::problem::Problem;
use std::sync::PoisonError;

/// Hashes read at once.
const PAGE: i64 = 65_536;

/// The root as it was at some moment after it was asked for.
pub(super) struct TombstoneRoot(pub(super) [u8; 32]);

impl Postgres {
    pub(super) fn tombstone_root(&self) -> Result<TombstoneRoot, Problem> {
        let mut set = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let after = i64::try_from(set.last_revision()).map_err(Problem::internal)?;
            let rows = self.database.run(|tx| {
                Ok(tx.query(
                    "SELECT revision, hash FROM tombstone WHERE tenant = $1 AND revision > $2 \
                     ORDER BY revision LIMIT $3",
                    &[&self.tenant(), &after, &PAGE],
                )?)
            })?;
            for row in &rows {
                set.insert(hash(row.get(1))?, row.get::<_, i64>(0).cast_unsigned());
            }
            if rows.len() < PAGE as usize {
                return Ok(TombstoneRoot(set.root()));
            }
        }
    }
}
