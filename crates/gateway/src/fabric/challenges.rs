//! What a scan must name to be of now: random bytes that this session was given, each good once and
//! for seconds. They end by a clock that never jumps, and with the session.

use palmgate_protocol::{
    Challenges, PurposeSet, ScanChallenge,
    limits::{CHALLENGES_AT_HAND, MAX_CHALLENGES},
};
use palmgate_seal::random;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How fresh scans have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// How long a challenge is good.
    pub lifetime: Duration,
    /// Purposes for which a scan without a challenge is refused. Terminals of before name none.
    pub needed_for: PurposeSet,
}

/// The challenges of one session that are good.
pub(super) struct Outstanding {
    lifetime: Duration,
    /// Oldest first.
    good: VecDeque<(ScanChallenge, Instant)>,
}

impl Outstanding {
    /// Those that both sides derived when the session began.
    pub(super) fn begin(lifetime: Duration, exported: &[u8], now: Instant) -> Self {
        let good = ScanChallenge::first(exported).map(|challenge| (challenge, now)).collect();
        Self { lifetime, good }
    }

    /// Takes a challenge that a scan names; whether it was good.
    pub(super) fn redeem(&mut self, named: &ScanChallenge, now: Instant) -> bool {
        self.forget_ended(now);
        let found = self.good.iter().position(|(challenge, _)| challenge == named);
        found.is_some_and(|index| self.good.remove(index).is_some())
    }

    /// Draws some for the terminal's next scans: one at least, and as many as it lacks.
    pub(super) fn draw(&mut self, now: Instant) -> Challenges {
        self.forget_ended(now);
        let count = CHALLENGES_AT_HAND.saturating_sub(self.good.len()).max(1);
        let given: Vec<_> =
            (0..count).map(|_| ScanChallenge::from_random(random::bytes())).collect();
        self.good.extend(given.iter().map(|challenge| (*challenge, now)));
        self.good.drain(..self.good.len().saturating_sub(MAX_CHALLENGES));
        let lifetime_ms = u32::try_from(self.lifetime.as_millis()).unwrap_or(u32::MAX);
        Challenges { lifetime_ms, given }
    }

    fn forget_ended(&mut self, now: Instant) {
        let lifetime = self.lifetime;
        self.good.retain(|(_, drawn)| now.saturating_duration_since(*drawn) < lifetime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_mins(1);

    #[test]
    fn each_is_good_once_and_for_its_time() {
        let now = Instant::now();
        let mut outstanding = Outstanding::begin(LIFETIME, &[7; 16], now);
        let first = ScanChallenge::from_random([7; 16]);
        assert!(!outstanding.redeem(&ScanChallenge::from_random([8; 16]), now), "never given");
        assert!(outstanding.redeem(&first, now));
        assert!(!outstanding.redeem(&first, now), "used");
        let given = outstanding.draw(now).given;
        assert!(!outstanding.redeem(&given[0], now + LIFETIME), "ended");
        assert!(!outstanding.redeem(&given[1], now), "an ended one does not come back");
    }

    #[test]
    fn a_terminal_has_as_many_at_hand_as_scans_in_work_and_no_more_are_good() {
        let now = Instant::now();
        let mut outstanding = Outstanding::begin(LIFETIME, &[], now);
        let first = outstanding.draw(now).given;
        assert_eq!(first.len(), CHALLENGES_AT_HAND);
        for _ in 0..CHALLENGES_AT_HAND {
            assert_eq!(outstanding.draw(now).given.len(), 1);
        }
        assert_eq!(outstanding.good.len(), MAX_CHALLENGES);
        assert!(outstanding.redeem(&first[0], now));
        outstanding.draw(now);
        let newest = outstanding.draw(now).given[0];
        assert_eq!(outstanding.good.len(), MAX_CHALLENGES);
        assert!(!outstanding.redeem(&first[1], now), "the oldest gave way");
        assert!(outstanding.redeem(&newest, now));
        let later = now + LIFETIME;
        assert_eq!(outstanding.draw(later).given.len(), CHALLENGES_AT_HAND, "all had ended");
    }
}
