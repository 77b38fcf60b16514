//! How every registry cuts shards and how long it keeps one that was sent.

use palmgate_protocol::{MemberId, Timestamp, cloud::ShardChunk};
use std::time::Duration;

/// People in one chunk.
pub(crate) const ROWS_PER_CHUNK: usize = 256;
/// Removals in one chunk: 17 bytes each.
const REMOVALS_PER_CHUNK: usize = 4096;
/// A difference up to this size is kept in memory until it is confirmed.
pub(crate) const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// How often a shard is begun anew because somebody in it was forgotten while it was built.
pub(crate) const ATTEMPTS: usize = 8;

/// The chunks with removals: the first of a shard, so that nobody who left can shadow somebody who
/// came.
pub(crate) fn removals(members: &[MemberId]) -> Vec<ShardChunk> {
    let chunk = |remove: &[MemberId]| ShardChunk { add: Vec::new(), remove: remove.to_vec() };
    members.chunks(REMOVALS_PER_CHUNK).map(chunk).collect()
}

/// Whether a store whose shard is as new as everything else gets one only to prolong its lease.
pub(crate) fn is_prolonged(lease_until: Timestamp, lease: Duration, now: Timestamp) -> bool {
    lease_until.since(now) <= lease / 2
}
