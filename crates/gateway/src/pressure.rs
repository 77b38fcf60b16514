//! Whether people wait for the workers. While they do, every terminal is held to what hands can do,
//! so that one that sends more keeps nobody else waiting; otherwise it may have what is to spare.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Messages of one terminal in a second, sustained, while others wait: two people a second and what
/// a network makes a terminal say twice.
pub(crate) const PER_SECOND: u32 = 4;
/// The same, at once.
pub(crate) const AT_ONCE: u32 = 4;
/// How long it lasts after somebody waited last: without, a flood would come through in bursts.
const LASTS: Duration = Duration::from_secs(2);

/// Shared by who notices it and who holds terminals back.
#[derive(Clone, Debug)]
pub(crate) struct Pressure {
    begun: Instant,
    /// Milliseconds after `begun`, at which somebody waited last; 0 for never.
    last: Arc<AtomicU64>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { begun: Instant::now(), last: Arc::default() }
    }
}

impl Pressure {
    /// Somebody waits.
    pub(crate) fn raise(&self, now: Instant) {
        self.last.store(self.millis(now).max(1), Relaxed);
    }

    /// Whether somebody has waited lately.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        let last = self.last.load(Relaxed);
        let lasts = u64::try_from(LASTS.as_millis()).unwrap_or(u64::MAX);
        last != 0 && self.millis(now).saturating_sub(last) < lasts
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_for_a_while_after_somebody_waited() {
        let (pressure, now) = (Pressure::default(), Instant::now() + LASTS);
        assert!(!pressure.is_on(now));
        pressure.clone().raise(now);
        assert!(pressure.is_on(now) && pressure.is_on(now + LASTS / 2));
        assert!(!pressure.is_on(now + LASTS));
        pressure.raise(now + LASTS);
        assert!(pressure.is_on(now + LASTS + LASTS / 2));
    }
}
