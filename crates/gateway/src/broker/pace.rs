use std::time::{Duration, Instant};

/// A token bucket. Of what a client publishes to the embedded broker nothing is refused: it is
/// read later, and TCP slows the client down. What the gateway hears of a terminal over its pace is
/// answered `busy`.
pub(crate) struct Pace {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { per_second: f64::from(per_second.max(1)), burst, left: burst, at: now }
    }

    /// Takes `amount` out of the bucket; the answer is how long to wait before going on.
    pub(super) fn charge(&mut self, amount: usize, now: Instant) -> Duration {
        self.refill(now);
        self.left -= amount as f64;
        if self.left >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.left / self.per_second)
        }
    }

    /// Takes one out of the bucket if there is one.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        self.refill(now);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }

    fn refill(&mut self, now: Instant) {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.left = (self.left + refill).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, 3_000, start);
        assert_eq!(pace.charge(3_000, start), Duration::ZERO);
        assert_eq!(pace.charge(500, start), Duration::from_millis(500));
        let later = start + Duration::from_mins(1);
        assert_eq!(pace.charge(3_000, later), Duration::ZERO, "an idle minute fills the bucket");
        assert_eq!(pace.charge(1_000, later), Duration::from_secs(1), "but not beyond its size");
    }

    #[test]
    fn who_is_refused_does_not_pay() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 3, start);
        let allowed = (0..1_000).filter(|_| pace.allows(start)).count();
        assert_eq!(allowed, 3);
        assert!(pace.allows(start + Duration::from_millis(100)));
        assert!(!pace.allows(start + Duration::from_millis(100)));
    }
}
