//! Token buckets, one for each key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Keys remembered at once; when there are more, the sender waits until old ones are forgotten.
const MAX_KEYS: usize = 65_536;

pub(crate) struct Limiter<K> {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Limiter<K> {
    /// `allowed` at once, and again in the course of each `period`.
    pub(crate) fn new(allowed: u32, period: Duration) -> Self {
        let burst = f64::from(allowed);
        let per_second = burst / period.as_secs_f64();
        Self { burst, per_second, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes a token, or says how long to wait for one.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_KEYS {
            buckets.retain(|_, bucket| self.refilled(bucket, now) < self.burst);
            if buckets.len() >= MAX_KEYS && !buckets.contains_key(&key) {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: self.burst, at: now });
        bucket.tokens = self.refilled(bucket, now);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let wait = (1.0 - bucket.tokens) / self.per_second;
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_for_each_share_of_the_period() {
        let limiter = Limiter::new(3, Duration::from_mins(1));
        let start = Instant::now();
        for _ in 0..3 {
            limiter.take("a", start).unwrap();
        }
        let wait = limiter.take("a", start).unwrap_err();
        assert!(wait <= Duration::from_secs(20) && wait > Duration::from_secs(19));
        limiter.take("b", start).unwrap();
        limiter.take("a", start + Duration::from_secs(20)).unwrap();
        limiter.take("a", start + Duration::from_secs(21)).unwrap_err();
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let limiter = Limiter::new(1, Duration::from_mins(1));
        let start = Instant::now();
        for key in 0..MAX_KEYS {
            limiter.take(key, start).unwrap();
        }
        limiter.take(MAX_KEYS, start).unwrap_err();
        limiter.take(MAX_KEYS, start + Duration::from_secs(61)).unwrap();
        assert_eq!(limiter.buckets.lock().unwrap().len(), 1);
    }
}
