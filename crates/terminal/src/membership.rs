use std::time::{Duration, Instant};

/// Asking to join comes at most this often, whatever arrives: hints to rejoin are unauthenticated.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// First wait for a Welcome; doubles while none comes.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a Welcome.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// Whether the terminal is in the gateway's group, and when it may ask to be. Holds no keys and
/// reads no clock.
pub(crate) struct Membership {
    standing: Standing,
    asked_at: Option<Instant>,
    wait: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Out,
    Asked { until: Instant },
    In,
}

impl Membership {
    pub(crate) const fn new(member: bool) -> Self {
        let standing = if member { Standing::In } else { Standing::Out };
        Self { standing, asked_at: None, wait: FIRST_WAIT }
    }

    pub(crate) fn is_in(&self) -> bool {
        self.standing == Standing::In
    }

    /// Something says that the two sides no longer share a group, or that asking anew may help.
    /// Returns whether the terminal is out now. Says no shortly after asking: what comes then is
    /// about the time before, and if it is not, the next message brings it up again.
    pub(crate) fn doubt(&mut self, now: Instant) -> bool {
        let believe = now >= self.may_ask_at(now);
        if believe {
            self.standing = Standing::Out;
        }
        believe
    }

    /// There certainly is no group: removed, or a Welcome that cannot be used.
    pub(crate) fn out(&mut self) {
        self.standing = Standing::Out;
    }

    /// The connection is gone and with it any Welcome on its way.
    pub(crate) fn disconnected(&mut self) {
        if !self.is_in() {
            self.standing = Standing::Out;
        }
        self.wait = FIRST_WAIT;
    }

    /// Whether to ask now; if so, the wait for the Welcome begins.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        let ask = self.ask_at(now).is_some_and(|at| now >= at);
        if ask {
            self.asked_at = Some(now);
            self.standing = Standing::Asked { until: now + self.wait };
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
        ask
    }

    /// The Welcome came and was good.
    pub(crate) fn joined(&mut self) {
        self.standing = Standing::In;
        self.wait = FIRST_WAIT;
    }

    /// When to ask next; `None` for a member.
    pub(crate) fn ask_at(&self, now: Instant) -> Option<Instant> {
        match self.standing {
            Standing::In => None,
            Standing::Out => Some(self.may_ask_at(now)),
            Standing::Asked { until } => Some(until),
        }
    }

    fn may_ask_at(&self, now: Instant) -> Instant {
        self.asked_at.map_or(now, |at| at + MIN_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_newcomer_asks_at_once_and_again_with_growing_waits() {
        let start = Instant::now();
        let (mut membership, mut now, mut asked) = (Membership::new(false), start, Vec::new());
        while asked.len() < 5 {
            now = membership.ask_at(now).unwrap();
            assert!(membership.ask(now));
            assert!(!membership.ask(now), "once");
            asked.push((now - start).as_secs());
        }
        assert_eq!(asked, [0, 3, 9, 21, 33]);
    }

    #[test]
    fn a_flood_of_hints_causes_one_rejoin_in_two_seconds() {
        let start = Instant::now();
        let mut membership = Membership::new(true);
        let mut joins = 0;
        for milliseconds in 0..10_000 {
            let now = start + Duration::from_millis(milliseconds);
            membership.doubt(now);
            if membership.ask(now) {
                joins += 1;
                membership.joined();
            }
        }
        assert_eq!(joins, 5);
    }

    #[test]
    fn a_hint_while_the_welcome_is_late_asks_anew() {
        let start = Instant::now();
        let mut membership = Membership::new(false);
        for wait in [0, 3, 9] {
            assert!(membership.ask(start + wait * SECOND));
        }
        assert!(!membership.ask(start + 12 * SECOND), "it would wait until 21");
        assert!(membership.doubt(start + 12 * SECOND));
        assert!(membership.ask(start + 12 * SECOND));
    }

    #[test]
    fn a_lost_connection_ends_the_wait_but_not_the_membership() {
        let start = Instant::now();
        let mut member = Membership::new(true);
        member.disconnected();
        assert!(member.is_in());
        let mut waiting = Membership::new(false);
        assert!(waiting.ask(start));
        waiting.disconnected();
        assert!(!waiting.ask(start + SECOND), "two seconds hold across connections");
        assert!(waiting.ask(start + 2 * SECOND));
    }
}
