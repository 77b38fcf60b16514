//! Pages of tombstones for the stores.

use super::Embedded;
use crate::problem::Problem;
use palmgate_protocol::cloud::Tombstones;

/// Hashes in one page.
const PAGE: usize = 4096;

impl Embedded {
    /// What was forgotten after the point that an earlier page named; 0 for the first page.
    pub(crate) fn tombstones(&self, after: u64) -> Result<Tombstones, Problem> {
        let state = self.read()?;
        let set = &state.tombstones;
        let mut later = set.after(after);
        let page: Vec<_> = later.by_ref().take(PAGE).collect();
        Ok(Tombstones {
            key: state.keys.fixed().tombstone,
            up_to: page.last().map_or(after, |(revision, _)| **revision),
            hashes: page.into_iter().map(|(_, hash)| (*hash).into()).collect(),
            more: later.next().is_some(),
        })
    }
}
