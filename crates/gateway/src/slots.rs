//! When an answer leaves, where the time that it took would tell members from strangers.

use palmgate_protocol::{Custody, terminal::AnswerBody};
use std::time::{Duration, Instant};

/// In `operator` custody, scans are answered at multiples of a slot after they came: what the box
/// did in between, for whom it read a card's token and whom it only passed over, does not show.
#[derive(Clone, Copy, Default)]
pub(crate) struct Slots(Option<Duration>);

impl Slots {
    /// Those of a store: a claim says itself whom to compare with, so only a search needs them.
    pub(crate) fn of(custody: Custody, slot: Duration) -> Self {
        Self((custody == Custody::Operator && !slot.is_zero()).then_some(slot))
    }

    /// When the answer to a scan leaves that came at `arrived`; `None` is at once. That the store
    /// is overloaded says nothing about anybody.
    pub(crate) fn next(
        self,
        arrived: Instant,
        now: Instant,
        answer: &AnswerBody,
    ) -> Option<Instant> {
        let slot = self.0.filter(|_| !matches!(answer, AnswerBody::Busy))?;
        let passed = now.saturating_duration_since(arrived).as_nanos() / slot.as_nanos();
        Some(arrived + slot * u32::try_from(passed + 1).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::terminal::Refusal;

    const SLOT: Duration = Duration::from_millis(100);

    /// Nanoseconds by an xorshift.
    fn times(seed: u64, below: Duration) -> impl Iterator<Item = Duration> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Duration::from_nanos(state % below.as_nanos() as u64)
        })
    }

    #[test]
    fn answers_leave_at_multiples_of_the_slot_and_never_early() {
        let slots = Slots::of(Custody::Operator, SLOT);
        let arrived = Instant::now();
        for took in times(7, SLOT * 5).take(10_000) {
            let leaves = slots.next(arrived, arrived + took, &AnswerBody::NotRecognised).unwrap();
            let after = leaves - arrived;
            assert_eq!(after.as_nanos() % SLOT.as_nanos(), 0, "{took:?}");
            assert!(after > took && after <= took + SLOT, "{took:?}: {after:?}");
        }
    }

    /// Members take longer than strangers, by a card's token that is read: 3 ms of 50 to 80. Welch's
    /// t over when answers leave is beyond all doubt without slots and nothing with them.
    #[test]
    fn members_and_strangers_leave_alike() {
        const PROBES: usize = 10_000;
        let base = Duration::from_millis(50);
        let of = |seed, more: Duration| -> Vec<Duration> {
            let natural = times(seed, Duration::from_millis(30)).take(PROBES);
            natural.map(|chance| base + more + chance).collect()
        };
        let (members, strangers) = (of(11, Duration::from_millis(3)), of(13, Duration::ZERO));
        assert!(welch(&members, &strangers).abs() > 4.5, "the control");
        let arrived = Instant::now();
        let slots = Slots::of(Custody::Operator, SLOT);
        let leave = |took: &[Duration], answer: &AnswerBody| -> Vec<Duration> {
            let leaves = |took| slots.next(arrived, arrived + took, answer).unwrap() - arrived;
            took.iter().copied().map(leaves).collect()
        };
        let refused = AnswerBody::Refused { reason: Refusal::StepUp };
        let told = (leave(&members, &refused), leave(&strangers, &AnswerBody::NotRecognised));
        assert!(welch(&told.0, &told.1).abs() < 4.5);
        assert_eq!(told.0, told.1, "all in the first slot");
    }

    /// Welch's t, 0 where nothing varies.
    fn welch(a: &[Duration], b: &[Duration]) -> f64 {
        let of = |times: &[Duration]| {
            let count = times.len() as f64;
            let mean = times.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
            let squares = times.iter().map(|time| (time.as_secs_f64() - mean).powi(2));
            (mean, squares.sum::<f64>() / (count - 1.0) / count)
        };
        let ((mean_a, spread_a), (mean_b, spread_b)) = (of(a), of(b));
        let spread = (spread_a + spread_b).sqrt();
        if spread < 1e-12 { (mean_a - mean_b) * 1e12 } else { (mean_a - mean_b) / spread }
    }

    #[test]
    fn busy_and_other_custodies_wait_for_no_slot() {
        let now = Instant::now();
        let operator = Slots::of(Custody::Operator, SLOT);
        assert!(operator.next(now, now, &AnswerBody::Busy).is_none());
        for none in [Slots::of(Custody::Split, SLOT), Slots::of(Custody::Operator, Duration::ZERO)]
        {
            assert!(none.next(now, now, &AnswerBody::NotRecognised).is_none());
        }
    }
}
