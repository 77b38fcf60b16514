use std::time::{Duration, Instant};

/// A token bucket over the bytes that one client publishes. A client over its pace is not
/// refused: its packets are read later, and TCP slows it down.
pub(super) struct Pace {
    bytes_per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(bytes_per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { bytes_per_second: f64::from(bytes_per_second.max(1)), burst, left: burst, at: now }
    }

    /// Takes `bytes` out of the bucket; the answer is how long to wait before going on.
    pub(super) fn charge(&mut self, bytes: usize, now: Instant) -> Duration {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * self.bytes_per_second;
        self.at = now;
        self.left = (self.left + refill).min(self.burst) - bytes as f64;
        if self.left >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.left / self.bytes_per_second)
        }
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
}
