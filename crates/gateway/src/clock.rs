use palmgate_protocol::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock; a clock before 1970 counts as 1970.
pub(crate) fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
}
