//! A tenant leaves: everybody is erased, every store is told, and one signed line for each of them
//! says so.

use crate::{
    layout::{Layout, LayoutError},
    postgres::{DatabaseError, Offboarding},
    tenant::Tenant,
};
use data_encoding::{BASE64, HEXLOWER};
use palmgate_protocol::Timestamp;
use std::{io::Write, path::Path};

/// Why a tenant was not, or not wholly, erased. Running it again goes on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum OffboardError {
    /// The state directory cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The tenant has its rows in the state directory.
    #[error("cloud.toml has no [database]: stop the service and destroy the state directory")]
    NoDatabase,
    /// The receipts cannot be written.
    #[error("the receipts: {0}")]
    Receipts(#[from] std::io::Error),
    /// The database refused.
    #[error("the database refused: {0}")]
    Refused(&'static str),
}

/// How many were erased, and how many stores have not confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offboarded {
    /// People whose keys were destroyed.
    pub erased: usize,
    /// Removals that stores have not confirmed: they are delivered as long as the service runs.
    pub unconfirmed: usize,
}

/// Erases everybody of the tenant and writes a receipt for each to `receipts`: one line of JSON with
/// the commitment, the time, the stores that are still to confirm, and the signature that a store
/// checks an erasure with. A commitment is the tombstone of the member: whoever knows the member's
/// id finds their line, and nobody else learns anything.
///
/// # Errors
/// [`OffboardError`].
pub fn remove(
    state: &Path,
    receipts: &mut dyn Write,
    now: Timestamp,
) -> Result<Offboarded, OffboardError> {
    let layout = Layout::new(state);
    let tenant = Tenant::read(&layout)?;
    let settings = tenant.settings.database.clone().ok_or(OffboardError::NoDatabase)?;
    let offboarding = Offboarding::open(&layout, &settings)?;
    let mut erased = 0;
    loop {
        let page =
            offboarding.erase_some(now).map_err(|error| OffboardError::Refused(error.name()))?;
        if page.is_empty() {
            break;
        }
        for (commitment, outstanding) in &page {
            let state = tenant.sign_erasure(commitment, now, outstanding.clone());
            let stores: Vec<&str> =
                outstanding.iter().map(palmgate_protocol::Name::as_str).collect();
            let line = serde_json::json!({
                "commitment": HEXLOWER.encode(commitment),
                "erased_at_ms": now.as_millis(),
                "outstanding": stores,
                "signature": BASE64.encode(&state.signature),
            });
            writeln!(receipts, "{line}")?;
        }
        receipts.flush()?;
        erased += page.len();
    }
    let unconfirmed =
        offboarding.unconfirmed().map_err(|error| OffboardError::Refused(error.name()))?;
    Ok(Offboarded { erased, unconfirmed })
}
