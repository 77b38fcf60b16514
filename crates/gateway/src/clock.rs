//! The system's clock, and what of it is believed for certificates.

use palmgate_policy::TimeSeen;
use palmgate_protocol::Timestamp;
use palmgate_seal::pki::TimeProvider;
use rustls::pki_types::UnixTime;
use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The system's clock; a clock before 1970 counts as 1970.
pub(crate) fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
}

/// The system's clock, or the last change of `file` where that is later: a store whose clock is at
/// 1970 must not be refused for a day in its configuration that seems to lie ahead.
pub(crate) fn now_or_changed(file: &Path) -> Timestamp {
    let changed = fs::metadata(file).and_then(|file| file.modified()).ok();
    let changed = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    now().max(Timestamp::from_millis(i64::try_from(changed.as_millis()).unwrap_or(0)))
}

/// The time that certificates are issued, renewed and judged by.
///
/// It never runs behind the latest time that the policy saw, this start or before: a clock at 1970
/// brings no ended certificate back, and issues none that ends in 1971. While the policy doubts a
/// jump forward, the time before the jump counts, plus what has passed since: no certificate ends by
/// a jump alone. A removed terminal depends on none of this, since revocation lists have no date
/// that is looked at.
#[derive(Debug)]
pub(crate) struct Believed {
    seen: Mutex<Seen>,
    /// How far the clock may be ahead of the last time seen before the policy has judged it.
    jump: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    time: TimeSeen,
    at: Instant,
    /// When the present doubt was first heard of.
    doubted: Instant,
}

impl Believed {
    /// With what an earlier run saw, and the jump forward that the law pack lets pass.
    pub(crate) fn new(time: TimeSeen, jump: Duration) -> Self {
        let now = Instant::now();
        Self { seen: Mutex::new(Seen { time, at: now, doubted: now }), jump }
    }

    /// Takes over what the policy has seen by now.
    pub(crate) fn observe(&self, time: TimeSeen) {
        self.observe_at(time, Instant::now());
    }

    /// The time to go by.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(now(), Instant::now())
    }

    fn observe_at(&self, time: TimeSeen, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = |time: &TimeSeen| time.doubt.map(|doubt| doubt.before);
        if before(&time) != before(&seen.time) {
            seen.doubted = now;
        }
        (seen.time, seen.at) = (time, now);
    }

    fn at(&self, system: Timestamp, now: Instant) -> Timestamp {
        let Seen { time, at, doubted } = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(doubt) = time.doubt {
            let passed = now.saturating_duration_since(doubted);
            return Timestamp::from_millis(doubt.before).after(passed);
        }
        if time.latest == 0 {
            return system;
        }
        let latest = Timestamp::from_millis(time.latest);
        let passed = now.saturating_duration_since(at);
        system.clamp(latest, latest.after(passed + self.jump))
    }
}

impl TimeProvider for Believed {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().as_millis() / 1000).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_policy::Doubt;
    use palmgate_protocol::DAY;

    const JUMP: Duration = Duration::from_hours(30);
    const SEEN: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn seen(doubt: Option<Doubt>) -> TimeSeen {
        TimeSeen { latest: SEEN.as_millis(), doubt }
    }

    #[test]
    fn a_clock_at_1970_stands_still_at_the_latest_time_seen() {
        let (believed, now) = (Believed::new(seen(None), JUMP), Instant::now());
        assert_eq!(believed.at(Timestamp::from_millis(0), now), SEEN);
        assert_eq!(believed.at(SEEN.after(DAY), now), SEEN.after(DAY), "a day without power");
    }

    #[test]
    fn a_jump_forward_is_held_until_it_is_confirmed() {
        let (believed, now) = (Believed::new(seen(None), JUMP), Instant::now());
        let jumped = SEEN.after(DAY * 365 * 60);
        assert_eq!(believed.at(jumped, now), SEEN.after(JUMP), "before the policy has looked");
        let doubt = Doubt { before: SEEN.as_millis(), left: 0 };
        let doubtful = TimeSeen { latest: jumped.as_millis(), doubt: Some(doubt) };
        believed.observe_at(doubtful, now);
        assert_eq!(believed.at(jumped, now), SEEN);
        let later = now + DAY;
        believed.observe_at(doubtful, later);
        assert_eq!(believed.at(jumped, later), SEEN.after(DAY), "time goes on all the same");
        assert_eq!(believed.at(Timestamp::from_millis(0), later), SEEN.after(DAY));
        let confirmed = TimeSeen { latest: SEEN.after(2 * DAY).as_millis(), doubt: None };
        believed.observe_at(confirmed, later);
        assert_eq!(believed.at(SEEN.after(2 * DAY), later), SEEN.after(2 * DAY));
    }

    #[test]
    fn a_clock_behind_the_configuration_counts_from_its_last_change() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ahead = SystemTime::now() + DAY * 1000;
        file.as_file().set_modified(ahead).unwrap();
        let wanted = ahead.duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(now_or_changed(file.path()).as_millis(), i64::try_from(wanted).unwrap());
        file.as_file().set_modified(UNIX_EPOCH).unwrap();
        assert!(now_or_changed(file.path()) > Timestamp::from_millis(1_700_000_000_000));
    }

    #[test]
    fn a_first_start_has_only_the_system_to_go_by() {
        let believed = Believed::new(TimeSeen::default(), JUMP);
        assert_eq!(believed.at(SEEN, Instant::now()), SEEN);
    }
}
