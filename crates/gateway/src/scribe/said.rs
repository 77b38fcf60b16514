//! Failures that come again and again: an erasure is tried four times a second while a disk refuses.

use super::Failure;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A failure that is known is said again so long after the last time.
const AGAIN: Duration = Duration::from_mins(1);

thread_local! {
    static SAID: RefCell<Said> = RefCell::default();
}

/// Says what could not be written, never about whom.
pub(super) fn report<T>(what: &'static str, result: Result<T, Failure>) -> Result<T, ()> {
    result.map_err(|error| {
        let error = error.to_string();
        let unsaid = SAID.with_borrow_mut(|said| said.again(what, &error, Instant::now()));
        if let Some(unsaid) = unsaid {
            tracing::error!(what, %error, unsaid, "could not be made durable");
        }
    })
}

/// The last failure of each thing, when it was said, and how often it came since.
#[derive(Default)]
struct Said(BTreeMap<&'static str, (String, Instant, u64)>);

impl Said {
    /// How often the failure came unsaid, if it is to be said now.
    fn again(&mut self, what: &'static str, error: &str, now: Instant) -> Option<u64> {
        match self.0.get_mut(what) {
            Some((last, at, unsaid)) if last == error && now.duration_since(*at) < AGAIN => {
                *unsaid += 1;
                None
            }
            before => {
                let unsaid = before.map_or(0, |(_, _, unsaid)| *unsaid);
                self.0.insert(what, (error.to_owned(), now, 0));
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_is_said_once_a_minute_and_another_one_at_once() {
        let mut said = Said::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(said.again("erasure", "read-only", begun), Some(0));
        assert_eq!(said.again("erasure", "read-only", after(1)), None);
        assert_eq!(said.again("erasure", "read-only", after(59)), None);
        assert_eq!(said.again("receipts", "read-only", after(59)), Some(0));
        assert_eq!(said.again("erasure", "read-only", after(60)), Some(2));
        assert_eq!(said.again("erasure", "no space", after(61)), Some(0));
        assert_eq!(said.again("erasure", "read-only", after(62)), Some(0));
    }
}
