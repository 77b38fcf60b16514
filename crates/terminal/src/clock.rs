use crate::conversation::Now;
use palmgate_protocol::Timestamp;
use palmgate_seal::pki::TimeProvider;
use rustls::pki_types::UnixTime;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The present; the only place of this crate that reads a clock for a decision.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Now { instant: Instant::now(), wall }
}

/// The time that the gateway's certificate is judged by: never before the terminal's own
/// certificate began, so that a clock that was set back brings no ended certificate back.
#[derive(Debug)]
pub(crate) struct NotBefore(pub(crate) Timestamp);

impl TimeProvider for NotBefore {
    fn current_time(&self) -> Option<UnixTime> {
        let now = now().wall.max(self.0).as_millis() / 1000;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_own_certificate_counts_from_its_beginning() {
        let future = Timestamp::from_millis(i64::MAX / 2);
        let time = NotBefore(future).current_time().unwrap().as_secs();
        assert_eq!(time, (future.as_millis() / 1000) as u64);
        let now = NotBefore(Timestamp::from_millis(0)).current_time().unwrap();
        assert!(now.as_secs() > 1_700_000_000);
    }
}
