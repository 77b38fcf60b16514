use palmgate_protocol::{
    CaptureId, ScanChallenge, Secret, encode_for_sealing, limits,
    terminal::{Request, RequestBody, Scan},
};
use std::time::{Duration, Instant};

/// First pause before the same request is sent again; doubles each time.
const RESEND_AFTER: Duration = Duration::from_secs(1);
/// The pauses grow to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long a scan waits for a challenge before it goes without one; the refusal brings some.
const CHALLENGE_WAIT: Duration = Duration::from_millis(500);
/// How often a scan is given another challenge.
const CHALLENGES: u8 = 3;
/// How long somebody waits in front of a till.
const SCAN_DEADLINE: Duration = limits::FRAMES_LIFETIME;
/// How long somebody waits for an enrolment or for one of their rights to be carried out.
const LONG_DEADLINE: Duration = Duration::from_secs(15);

/// How long to wait for the answer to a request.
pub(crate) fn deadline_of(body: &RequestBody) -> Duration {
    match body {
        RequestBody::Scan(Scan { intent, .. }) if intent.purpose().is_none() => LONG_DEADLINE,
        RequestBody::Scan(_) | RequestBody::Ping => SCAN_DEADLINE,
        RequestBody::Enrol(_) | RequestBody::Renew(_) => LONG_DEADLINE,
    }
}

/// One request on its way to one answer: when to send it, when to send it again, when to wipe it
/// and when to give up. Holds no socket and reads no clock.
///
/// Sending again is safe: the gateway decides once for each capture id and repeats its answer.
pub(crate) struct Exchange {
    capture: CaptureId,
    request: Option<Request>,
    asked_at: Instant,
    deadline: Duration,
    send_at: Instant,
    pause: Duration,
    /// The capture is about its challenge, so that no other takes its place.
    bound: bool,
    /// It has left the terminal.
    left: bool,
    waited: bool,
    refused: u8,
}

impl Exchange {
    pub(crate) fn new(request: Request, deadline: Duration, now: Instant) -> Self {
        Self {
            capture: request.capture,
            bound: request.challenge.is_some(),
            request: Some(request),
            asked_at: now,
            deadline,
            send_at: now,
            pause: RESEND_AFTER,
            left: false,
            waited: false,
            refused: 0,
        }
    }

    pub(crate) const fn capture(&self) -> CaptureId {
        self.capture
    }

    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
    }

    /// Whether the caller has waited long enough.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.asked_at + self.deadline
    }

    /// Wipes the request when its frames have lived long enough: from then on the answer is only
    /// waited for.
    pub(crate) fn wipe_if_old(&mut self, now: Instant) {
        if now >= self.wipe_at() {
            self.request = None;
        }
    }

    /// Whether to send it now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.request.is_some() && now >= self.send_at
    }

    /// The encoded request with the sequence of the terminal's roster, until it is wiped.
    pub(crate) fn request(&mut self, roster: u64) -> Option<Secret<Vec<u8>>> {
        let request = self.request.as_mut()?;
        request.roster = Some(roster);
        Some(encode_for_sealing(request))
    }

    /// Whether it has pictures that have not been wiped.
    pub(crate) fn has_pictures(&self) -> bool {
        let pictures = |body: &RequestBody| match body {
            RequestBody::Scan(_) | RequestBody::Enrol(_) => true,
            RequestBody::Ping | RequestBody::Renew(_) => false,
        };
        self.request.as_ref().is_some_and(|request| pictures(&request.body))
    }

    /// Whether it has left the terminal.
    pub(crate) const fn has_left(&self) -> bool {
        self.left
    }

    /// Whether it is a scan that names no challenge yet.
    pub(crate) fn lacks_challenge(&self) -> bool {
        let scan = |request: &Request| matches!(request.body, RequestBody::Scan(_));
        self.request.as_ref().is_some_and(|asked| asked.challenge.is_none() && scan(asked))
    }

    /// Names a challenge.
    pub(crate) fn challenge(&mut self, challenge: ScanChallenge) {
        if let Some(request) = &mut self.request {
            request.challenge = Some(challenge);
        }
    }

    /// Waits for a challenge, once and not for long. Returns whether it does.
    pub(crate) fn wait_for_challenge(&mut self, now: Instant) -> bool {
        let first = !self.waited;
        if first {
            self.waited = true;
            self.send_at = now + CHALLENGE_WAIT;
        }
        first
    }

    /// Challenges came: what waited for one goes now. What has left without one is answered that it
    /// needs one; were it sent again with every answer to something else, a busy terminal would
    /// flood.
    pub(crate) fn challenges_came(&mut self, now: Instant) {
        if self.waited && !self.left && self.lacks_challenge() {
            self.send_at = now;
        }
    }

    /// The gateway wants another challenge. Returns whether the scan is sent again with one: not
    /// when its capture is about the one it named, nor for ever.
    pub(crate) fn challenge_again(&mut self, now: Instant) -> bool {
        if self.bound || self.request.is_none() || self.refused >= CHALLENGES {
            return false;
        }
        self.refused += 1;
        self.drop_challenge();
        self.send_again(now);
        true
    }

    /// The session is another: what its gateway gave before is worth nothing.
    pub(crate) fn drop_challenge(&mut self) {
        if let Some(request) = self.request.as_mut().filter(|_| !self.bound) {
            request.challenge = None;
        }
    }

    /// Notes that it was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.left = true;
        self.send_at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The way to the gateway is new, so whatever was sent may be lost: send at once.
    pub(crate) fn send_again(&mut self, now: Instant) {
        self.send_at = now;
        self.pause = RESEND_AFTER;
    }

    /// When to look at it again. `can_send` says whether there is a way to the gateway.
    pub(crate) fn wake_at(&self, can_send: bool) -> Instant {
        let end = self.asked_at + self.deadline;
        match &self.request {
            None => end,
            Some(_) if can_send => end.min(self.wipe_at()).min(self.send_at),
            Some(_) => end.min(self.wipe_at()),
        }
    }

    fn wipe_at(&self) -> Instant {
        self.asked_at + limits::FRAMES_LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::{Timestamp, terminal::Intent};

    const MILLI: Duration = Duration::from_millis(1);

    fn exchange(deadline: Duration, now: Instant) -> Exchange {
        Exchange::new(request(RequestBody::Ping), deadline, now)
    }

    fn request(body: RequestBody) -> Request {
        let (capture, at) = (CaptureId::from_random([7; 16]), Timestamp::from_millis(0));
        Request::new(capture, at, body)
    }

    fn scan() -> Request {
        request(RequestBody::Scan(Scan::new(Intent::Entry, Vec::new())))
    }

    #[test]
    fn a_scan_waits_for_a_challenge_once_and_is_given_others_three_times() {
        let (start, challenge) = (Instant::now(), ScanChallenge::from_random([1; 16]));
        assert!(!exchange(SCAN_DEADLINE, start).lacks_challenge(), "a ping needs none");
        let mut scan = Exchange::new(scan(), SCAN_DEADLINE, start);
        assert!(scan.lacks_challenge() && scan.wait_for_challenge(start) && !scan.is_due(start));
        assert!(scan.is_due(start + CHALLENGE_WAIT) && !scan.wait_for_challenge(start));
        scan.challenges_came(start);
        assert!(scan.is_due(start));
        for _ in 0..3 {
            scan.challenge(challenge);
            assert!(!scan.lacks_challenge() && scan.challenge_again(start));
            assert!(scan.lacks_challenge());
        }
        assert!(!scan.challenge_again(start));
    }

    #[test]
    fn a_capture_that_is_about_its_challenge_names_no_other() {
        let (start, challenge) = (Instant::now(), Some(ScanChallenge::from_random([1; 16])));
        let mut scan = Exchange::new(Request { challenge, ..scan() }, SCAN_DEADLINE, start);
        scan.drop_challenge();
        assert!(!scan.lacks_challenge() && !scan.challenge_again(start));
    }

    /// The times, in milliseconds after the start, at which an unanswered request is sent when it
    /// is looked at exactly when it asks to be.
    fn sending_times(deadline: Duration) -> Vec<u128> {
        let start = Instant::now();
        let (mut exchange, mut now, mut times) = (exchange(deadline, start), start, Vec::new());
        loop {
            if exchange.is_over(now) {
                return times;
            }
            exchange.wipe_if_old(now);
            if exchange.is_due(now) {
                times.push((now - start).as_millis());
                exchange.sent(now);
            }
            now = exchange.wake_at(true);
        }
    }

    #[test]
    fn an_unanswered_request_is_sent_again_with_growing_pauses_until_its_frames_are_wiped() {
        assert_eq!(sending_times(SCAN_DEADLINE), [0, 1000, 3000]);
        assert_eq!(sending_times(LONG_DEADLINE), [0, 1000, 3000], "nothing is left to send");
    }

    #[test]
    fn what_left_without_a_challenge_is_not_sent_again_with_every_answer() {
        let start = Instant::now();
        let scan = scan();
        let mut exchange = Exchange::new(scan, LONG_DEADLINE, start);
        assert!(exchange.wait_for_challenge(start));
        exchange.challenges_came(start);
        assert!(exchange.is_due(start), "what waited for one goes at once");
        exchange.sent(start);
        for _ in 0..200 {
            exchange.challenges_came(start);
            assert!(!exchange.is_due(start));
        }
        let mut now = start;
        for _ in 0..200 {
            exchange.sent(now);
            now = exchange.send_at;
        }
    }

    #[test]
    fn a_long_wait_outlives_the_frames() {
        let start = Instant::now();
        let mut exchange = exchange(LONG_DEADLINE, start);
        exchange.wipe_if_old(start + Duration::from_millis(4_999));
        assert!(exchange.request(0).is_some());
        exchange.wipe_if_old(start + limits::FRAMES_LIFETIME);
        assert!(exchange.request(0).is_none() && !exchange.is_due(start + LONG_DEADLINE));
        assert_eq!(exchange.wake_at(true), start + LONG_DEADLINE);
        assert!(!exchange.is_over(start + Duration::from_millis(14_999)));
        assert!(exchange.is_over(start + LONG_DEADLINE));
    }

    #[test]
    fn a_new_way_to_the_gateway_sends_at_once() {
        let start = Instant::now();
        let mut exchange = exchange(SCAN_DEADLINE, start);
        exchange.sent(start);
        let later = start + 10 * MILLI;
        assert!(!exchange.is_due(later));
        exchange.send_again(later);
        assert!(exchange.is_due(later));
        exchange.sent(later);
        assert_eq!(exchange.wake_at(true), later + RESEND_AFTER);
    }

    #[test]
    fn without_a_way_to_the_gateway_nobody_is_woken_to_send() {
        let start = Instant::now();
        let exchange = exchange(SCAN_DEADLINE, start);
        assert_eq!(exchange.wake_at(false), start + SCAN_DEADLINE);
        assert_eq!(exchange.wake_at(true), start);
    }
}
