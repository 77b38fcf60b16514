//! What is logged of failures to write: an erasure alone is tried four times a second while a disk
//! refuses.

use super::Failure;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The same failure is logged once in this time.
const INTERVAL: Duration = Duration::from_mins(1);

thread_local! {
    static LOGGED: RefCell<Logged> = RefCell::default();
}

/// Logs what could not be written, never about whom; `repeats` counts how often it failed the same
/// way since the line before.
pub(super) fn report<T>(what: &'static str, result: Result<T, Failure>) -> Result<T, ()> {
    result.map_err(|error| {
        let error = error.to_string();
        let repeats = LOGGED.with_borrow_mut(|logged| logged.due(what, &error, Instant::now()));
        if let Some(repeats) = repeats {
            tracing::error!(what, %error, repeats, "could not be made durable");
        }
    })
}

/// The last line about each thing.
#[derive(Default)]
struct Logged(BTreeMap<&'static str, Line>);

struct Line {
    error: String,
    at: Instant,
    /// Failures since that were alike and were not logged.
    repeats: u64,
}

impl Logged {
    /// How often the failure was left out since its last line, if it is to be logged now.
    fn due(&mut self, what: &'static str, error: &str, now: Instant) -> Option<u64> {
        let line = self.0.get_mut(what).filter(|line| line.error == error);
        let repeats = match line {
            Some(line) if now.duration_since(line.at) < INTERVAL => {
                line.repeats += 1;
                return None;
            }
            Some(line) => line.repeats,
            None => 0,
        };
        self.0.insert(what, Line { error: error.to_owned(), at: now, repeats: 0 });
        Some(repeats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_is_logged_once_a_minute_and_another_one_at_once() {
        let mut logged = Logged::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(logged.due("erasure", "read-only", begun), Some(0));
        assert_eq!(logged.due("erasure", "read-only", after(1)), None);
        assert_eq!(logged.due("erasure", "read-only", after(59)), None);
        assert_eq!(logged.due("receipts", "read-only", after(59)), Some(0));
        assert_eq!(logged.due("erasure", "read-only", after(60)), Some(2));
        assert_eq!(logged.due("erasure", "read-only", after(61)), None);
        assert_eq!(
            logged.due("erasure", "no space", after(62)),
            Some(0),
            "not what the other left"
        );
        assert_eq!(logged.due("erasure", "read-only", after(63)), Some(0));
    }
}
