//! Whether people wait for the workers. While they do, every terminal is held to what hands can do,
//! so that one that sends more keeps nobody else waiting; otherwise it may have what is to spare. And
//! which terminals sent more while people waited.

use palmgate_protocol::Name;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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
/// How long a terminal that sent too much is known for it: longer than what it sent may be under way
/// and on the way again, since all that flood tend to come again at once.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Terminals are looked through for those that stopped from this number on.
const MANY: usize = 64;

/// Shared by who notices it and who holds terminals back.
#[derive(Clone, Debug)]
pub(crate) struct Pressure {
    begun: Instant,
    /// Milliseconds after `begun`, at which somebody waited last; 0 for never.
    last: Arc<AtomicU64>,
    /// When each terminal sent too much last.
    floods: Arc<Mutex<HashMap<Name, Instant>>>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { begun: Instant::now(), last: Arc::default(), floods: Arc::default() }
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

    /// A terminal sends more than hands can do while people wait: it goes on for as long as it tries.
    pub(crate) fn flooded(&self, terminal: &Name, now: Instant) {
        self.raise(now);
        let mut floods = self.lock();
        if floods.len() >= MANY {
            floods.retain(|_, last| now.saturating_duration_since(*last) < REMEMBERED);
        }
        floods.insert(terminal.clone(), now);
    }

    /// Whether it did so lately.
    pub(crate) fn floods(&self, terminal: &Name, now: Instant) -> bool {
        let last = self.lock().get(terminal).copied();
        last.is_some_and(|last| now.saturating_duration_since(last) < REMEMBERED)
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Instant>> {
        self.floods.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn who_sent_too_much_is_known_for_a_while() {
        let (pressure, now) = (Pressure::default(), Instant::now());
        let name = |number: usize| format!("till-{number}").parse::<Name>().unwrap();
        pressure.clone().flooded(&name(0), now);
        assert!(pressure.is_on(now) && pressure.floods(&name(0), now));
        assert!(!pressure.floods(&name(1), now));
        let later = now + REMEMBERED;
        assert!(!pressure.floods(&name(0), later));
        (1..=MANY).for_each(|number| pressure.flooded(&name(number), later));
        assert_eq!(pressure.lock().len(), MANY, "the one that stopped is forgotten");
    }
}
