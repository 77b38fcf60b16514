//! When a terminal tells the certificate that it uses, and when it asks for the next one. Holds no
//! socket and reads no clock.

use crate::{TerminalError, conversation::Now};
use palmgate_protocol::{
    Name,
    terminal::{Answer, AnswerBody, Renewal},
};
use palmgate_seal::pki::{self, Identity, PendingIdentity, Validity};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, Instant};

/// Time between two requests, where certificates last long enough.
const PAUSE: Duration = Duration::from_hours(1);

/// The terminal's own certificate, and what is under way for the next one.
pub(crate) struct Renewing {
    using: Vec<u8>,
    validity: Validity,
    /// Whether the gateway knows which certificate is in use.
    told: bool,
    asked_at: Option<Instant>,
    pending: Option<PendingIdentity>,
}

impl Renewing {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self {
            using: identity.serial().to_vec(),
            validity: identity.validity(),
            told: false,
            asked_at: None,
            pending: None,
        }
    }

    /// What to ask the gateway now, if anything. A certificate that is due is asked for at once and
    /// then every hour; which one is in use is told once for each start.
    pub(crate) fn ask(&mut self, now: Now) -> Option<Renewal> {
        let due = self.validity.is_due(now.wall);
        let waited = self.asked_at.is_none_or(|at| now.instant >= at + self.pause());
        if !waited || (self.told && !due) {
            return None;
        }
        self.asked_at = Some(now.instant);
        self.pending = due.then(Identity::generate);
        let csr_der = self.pending.as_ref().map(|pending| pending.csr_der().into());
        Some(Renewal { using: self.using.clone(), csr_der })
    }

    /// When to look again; an answer or its absence changes nothing before.
    pub(crate) fn wake_at(&self, now: Now) -> Instant {
        let pause = self.asked_at.map(|at| at + self.pause());
        pause.unwrap_or(now.instant).max(now.instant + self.pause() / 2)
    }

    /// Takes the answer; gives the new identity, checked against the one before.
    pub(crate) fn answered(
        &mut self,
        answer: Answer,
        name: &Name,
        authority: &CertificateDer<'_>,
        now: Now,
    ) -> Result<Option<Identity>, TerminalError> {
        let pending = self.pending.take();
        let incompatible = |why: String| TerminalError::Incompatible(why);
        match (answer.body, pending) {
            (AnswerBody::Done, _) => {
                self.told = true;
                Ok(None)
            }
            (AnswerBody::Renewed { chain_der }, Some(pending)) => {
                self.told = true;
                let chain = chain_der.into_iter().map(|der| Vec::from(der).into()).collect();
                let identity =
                    pending.certified(chain).map_err(|error| incompatible(error.to_string()))?;
                let at = now.wall.max(identity.validity().from);
                let named = pki::verify(identity.certificate_der(), authority, at)
                    .map_err(|error| incompatible(error.to_string()))?;
                if named != *name || identity.authority_der() != authority {
                    return Err(incompatible("it gave a certificate of somebody else".into()));
                }
                Ok(Some(identity))
            }
            (AnswerBody::Refused { .. }, _) => {
                Err(incompatible("it gives no new certificate".into()))
            }
            _ => Err(incompatible("it answers something else than was asked".into())),
        }
    }

    /// An hour, or a small part of the certificate's life.
    fn pause(&self) -> Duration {
        PAUSE.min(self.validity.until.since(self.validity.from) / 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::{CaptureId, DAY, Timestamp};
    use palmgate_seal::pki::{Authority, Role};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn at(wall: Timestamp) -> Now {
        Now { instant: Instant::now(), wall }
    }

    fn chain(authority: &Authority, csr: &[u8], name: &str) -> Vec<Vec<u8>> {
        let name = name.parse().unwrap();
        let leaf = authority.issue(csr, &name, Role::Client, NOW, 30 * DAY).unwrap();
        vec![leaf.der.to_vec(), authority.certificate_der().to_vec()]
    }

    fn identity(authority: &Authority) -> Identity {
        let pending = Identity::generate();
        let chain = chain(authority, &pending.csr_der(), "till-1");
        pending.certified(chain.into_iter().map(Into::into).collect()).unwrap()
    }

    fn renewed(chain: Vec<Vec<u8>>) -> Answer {
        let chain_der = chain.into_iter().map(Into::into).collect();
        let capture = CaptureId::from_random([1; 16]);
        Answer::new(capture, AnswerBody::Renewed { chain_der })
    }

    #[test]
    fn a_terminal_tells_its_certificate_once_and_asks_for_another_in_the_last_third() {
        let ours = Authority::generate("store", NOW).unwrap();
        let own = identity(&ours);
        let mut renewing = Renewing::new(&own);
        let mut now = at(NOW.after(DAY));
        let told = renewing.ask(now).unwrap();
        assert_eq!((told.using.as_slice(), told.csr_der), (own.serial(), None));
        assert!(renewing.ask(now).is_none(), "not twice at once");
        let done = Answer::new(CaptureId::from_random([1; 16]), AnswerBody::Done);
        let name = own.name();
        let quiet = renewing.answered(done, &name, ours.certificate_der(), now).unwrap();
        assert!(quiet.is_none());
        now.instant += DAY;
        assert!(renewing.ask(now).is_none(), "told, and not due");

        now.wall = NOW.after(21 * DAY);
        let csr = renewing.ask(now).unwrap().csr_der.unwrap();
        assert!(renewing.ask(now).is_none());
        let answer = renewed(chain(&ours, &csr, "till-1"));
        let new = renewing.answered(answer, &name, ours.certificate_der(), now).unwrap().unwrap();
        assert!(new.verifying_key() != own.verifying_key(), "with a key of its own");
        now.instant += PAUSE;
        let again = renewing.ask(now);
        assert!(again.is_some_and(|again| again.csr_der.is_some()), "as long as it is not taken");
    }

    #[test]
    fn a_clock_at_1970_or_far_ahead_asks_now_and_then_and_does_no_more() {
        let ours = Authority::generate("store", NOW).unwrap();
        for wall in [Timestamp::from_millis(0), NOW.after(DAY * 365 * 60)] {
            let mut renewing = Renewing::new(&identity(&ours));
            let mut now = at(wall);
            let mut asked = 0;
            for _ in 0..24 * 60 {
                asked += usize::from(renewing.ask(now).is_some());
                now.instant += Duration::from_mins(1);
            }
            assert_eq!(asked, 24, "once an hour");
        }
    }

    #[test]
    fn a_certificate_for_another_name_key_or_authority_is_not_taken() {
        let [ours, theirs] = ["store", "other"].map(|name| Authority::generate(name, NOW).unwrap());
        let own = identity(&ours);
        let now = at(NOW.after(21 * DAY));
        let refused = |of: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
            let mut renewing = Renewing::new(&own);
            let csr = renewing.ask(now).unwrap().csr_der.unwrap();
            let answer = renewed(of(&csr));
            renewing.answered(answer, &own.name(), ours.certificate_der(), now).is_err()
        };
        assert!(refused(&|csr| chain(&ours, csr, "till-2")));
        assert!(refused(&|csr| chain(&theirs, csr, "till-1")));
        assert!(refused(&|_| chain(&ours, &Identity::generate().csr_der(), "till-1")));
        assert!(refused(&|_| Vec::new()));
        assert!(!refused(&|csr| chain(&ours, csr, "till-1")), "the control");
    }
}
