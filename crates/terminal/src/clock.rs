use crate::conversation::Now;
use palmgate_protocol::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The present; the only place of this crate that reads a clock for a decision.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Now { instant: Instant::now(), wall }
}
