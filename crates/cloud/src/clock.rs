//! The only place that asks what time it is.

use palmgate_protocol::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of the machine, which the operator keeps right.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
