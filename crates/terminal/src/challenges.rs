use palmgate_protocol::{Challenges, ScanChallenge, limits::MAX_CHALLENGES};
use std::time::{Duration, Instant};

/// A challenge that would end on its way to the gateway is none.
const MARGIN: Duration = Duration::from_secs(1);

/// The gateway's challenges that no scan has named yet. Reads no clock.
#[derive(Default)]
pub(crate) struct AtHand {
    /// Each with its end, the newest last.
    good: Vec<(ScanChallenge, Instant)>,
    /// Whether the last answer brought none: the gateway is of before.
    unknown_there: bool,
}

impl AtHand {
    /// Takes in what came with an answer.
    pub(crate) fn add(&mut self, came: Option<&Challenges>, now: Instant) {
        self.unknown_there = came.is_none();
        let Some(came) = came else { return };
        let ends = now + came.lifetime();
        for challenge in came.given.iter().take(MAX_CHALLENGES) {
            if self.good.len() == MAX_CHALLENGES {
                self.good.remove(0);
            }
            self.good.push((*challenge, ends));
        }
    }

    /// One that is good for `left` from now on.
    pub(crate) fn take(&mut self, left: Duration, now: Instant) -> Option<ScanChallenge> {
        self.good.retain(|(_, ends)| now + MARGIN < *ends);
        let (_, ends) = self.good.last()?;
        if now + left < *ends { self.good.pop().map(|(challenge, _)| challenge) } else { None }
    }

    /// Whether waiting for an answer may bring some.
    pub(crate) const fn may_come(&self) -> bool {
        !self.unknown_there
    }

    /// The session is another: so are its challenges.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(lifetime_ms: u32, numbers: std::ops::Range<u8>) -> Challenges {
        let given = numbers.map(|number| ScanChallenge::from_random([number; 16])).collect();
        Challenges { lifetime_ms, given }
    }

    #[test]
    fn each_is_taken_once_the_newest_first_and_none_that_ends() {
        let (mut at_hand, now) = (AtHand::default(), Instant::now());
        assert!(at_hand.may_come() && at_hand.take(Duration::ZERO, now).is_none());
        at_hand.add(Some(&given(10_000, 0..2)), now);
        at_hand.add(Some(&given(30_000, 2..3)), now);
        let later = now + Duration::from_secs(9);
        assert_eq!(at_hand.take(Duration::from_secs(25), later), None, "it is good for 21 s");
        let newest = at_hand.take(Duration::from_secs(20), later);
        assert_eq!(newest, Some(ScanChallenge::from_random([2; 16])));
        assert_eq!(at_hand.take(Duration::ZERO, later), None, "a second is too short");
    }

    #[test]
    fn they_are_bounded_and_a_gateway_of_before_is_noticed() {
        let (mut at_hand, now) = (AtHand::default(), Instant::now());
        at_hand.add(Some(&given(60_000, 0..200)), now);
        at_hand.add(Some(&given(60_000, 200..202)), now);
        let taken = std::iter::from_fn(|| at_hand.take(Duration::ZERO, now)).count();
        assert_eq!(taken, MAX_CHALLENGES);
        at_hand.add(None, now);
        assert!(!at_hand.may_come());
        at_hand.clear();
        assert!(at_hand.may_come());
    }
}
