//! What the terminal says to the gateway and when, without sockets, files or clocks: the MLS
//! group of two, joining and rejoining it, and the requests under way.

use crate::{
    TerminalError,
    challenges::AtHand,
    exchange::Exchange,
    membership::Membership,
    roster::{Kept, Rosters, Shown},
};
use palmgate_protocol::{
    CaptureId, Challenges, ScanChallenge, Secret, SignedRoster, Timestamp, decode,
    encode_for_sealing, limits,
    terminal::{Answer, AnswerBody, Refusal, Request, RequestBody},
    topic::Channel,
};
use palmgate_seal::{
    mls::{self, Joining, MlsError, Opened, Session},
    pki::Identity,
    random,
};
use std::{
    mem,
    time::{Duration, Instant},
};

/// Requests that may wait for an answer at once.
pub(crate) const MAX_WAITING: usize = 32;
/// How long the gateway may take to prove, after a new connection, that it still knows the group.
const PROOF_DEADLINE: Duration = limits::FRAMES_LIFETIME;
/// How long challenges are asked for: scans wait for them no longer than that.
const CHALLENGES_DEADLINE: Duration = Duration::from_secs(1);

/// The present, on the clock that never jumps and on the one that certificates use.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: Timestamp,
}

/// What to do, in order, once the batch's state is durable.
pub(crate) enum Action {
    Publish(Channel, Vec<u8>),
    Deliver(Answer),
    /// An answer came that this version cannot read.
    Misunderstand(CaptureId),
    /// It was not sent: the store's roster does not hold.
    Distrust(CaptureId),
    GiveUp {
        capture: CaptureId,
        waited: Duration,
        standing: Standing,
    },
}

/// What to do with the stored session.
pub(crate) enum Store {
    Keep,
    Replace(Secret<Vec<u8>>),
    Delete,
}

/// Results of a step. The stored session must be changed durably before the first action is
/// carried out: a message key that was used must never be used again, not even after a power cut.
pub(crate) struct Batch {
    pub(crate) store: Store,
    /// The roster that came; durable before the actions, too.
    pub(crate) roster: Option<Kept>,
    pub(crate) actions: Vec<Action>,
}

/// How far the way to the gateway is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No broker.
    Offline,
    /// A broker, but no sign of life of the gateway on this connection.
    Joining,
    /// The gateway answered on this connection.
    Ready,
}

/// The part of an [`Answer`] that no version changes.
#[derive(minicbor::Decode)]
struct AnswerHead {
    #[n(0)]
    capture: CaptureId,
}

pub(crate) struct Conversation {
    identity: Identity,
    session: Option<Session>,
    joining: Option<Joining>,
    membership: Membership,
    exchanges: Vec<Exchange>,
    proof: Option<CaptureId>,
    challenges: AtHand,
    rosters: Rosters,
    /// The question that brings challenges.
    fetching: Option<CaptureId>,
    connected: bool,
    proven: bool,
    dirty: bool,
    actions: Vec<Action>,
}

impl Conversation {
    /// Starts with the session that an earlier run left, if any.
    pub(crate) fn new(identity: Identity, session: Option<Session>) -> Self {
        Self {
            membership: Membership::new(session.is_some()),
            identity,
            session,
            joining: None,
            exchanges: Vec::new(),
            proof: None,
            challenges: AtHand::default(),
            rosters: Rosters::default(),
            fetching: None,
            connected: false,
            proven: false,
            dirty: false,
            actions: Vec::new(),
        }
    }

    /// With what an earlier run kept of the store's roster.
    pub(crate) fn keeping(self, rosters: Rosters) -> Self {
        Self { rosters, ..self }
    }

    pub(crate) const fn standing(&self) -> Standing {
        match (self.connected, self.proven) {
            (false, _) => Standing::Offline,
            (true, false) => Standing::Joining,
            (true, true) => Standing::Ready,
        }
    }

    /// The broker took us and our subscriptions.
    pub(crate) fn connected(&mut self, now: Now) {
        self.connected = true;
        self.proven = false;
        self.exchanges.iter_mut().for_each(|exchange| exchange.send_again(now.instant));
        self.ask_for_proof(now);
        self.tick(now);
    }

    /// The connection broke.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.proven = false;
        self.joining = None;
        self.membership.disconnected();
    }

    /// Takes a request in and sends it as soon as there is a way.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        deadline: Duration,
        now: Now,
    ) -> Result<(), TerminalError> {
        if self.exchanges.len() >= MAX_WAITING {
            return Err(TerminalError::TooMany(MAX_WAITING));
        }
        let (is, limit) = (encode_for_sealing(&request).expose().len(), limits::MAX_MESSAGE_BYTES);
        if is > limit {
            return Err(TerminalError::OverLimit { what: "the whole request in bytes", is, limit });
        }
        let exchange = Exchange::new(request, deadline, now.instant);
        if let Some(fault) = self.rosters.fault().filter(|_| exchange.has_pictures()) {
            return Err(fault);
        }
        self.exchanges.push(exchange);
        if !self.membership.is_in() {
            self.doubt(now);
        }
        self.tick(now);
        Ok(())
    }

    /// Nobody waits for this answer any more; its frames are wiped.
    pub(crate) fn forget(&mut self, nobody_waits: impl Fn(CaptureId) -> bool) {
        let own = [self.proof, self.fetching];
        self.exchanges.retain(|exchange| {
            own.contains(&Some(exchange.capture())) || !nobody_waits(exchange.capture())
        });
    }

    /// A message on the welcome channel: a Welcome, or, when empty, the hint to rejoin.
    pub(crate) fn welcome(&mut self, payload: &[u8], now: Now) {
        match self.joining.take() {
            Some(joining) if !payload.is_empty() => {
                match joining.accept(payload, self.identity.authority_der(), now.wall) {
                    Ok(session) => self.admitted(session, now),
                    Err(error) => {
                        tracing::warn!(%error, "the gateway's welcome cannot be used");
                        self.membership.out();
                    }
                }
            }
            // A hint, or a Welcome to a question that was not asked on this connection.
            joining => {
                self.joining = joining;
                self.doubt(now);
            }
        }
        self.tick(now);
    }

    fn admitted(&mut self, session: Session, now: Now) {
        self.challenges.clear();
        match session.export(ScanChallenge::LABEL, ScanChallenge::FIRST_BYTES) {
            Ok(bytes) => {
                self.challenges.add(Some(&Challenges::first(bytes.expose())), now.instant);
            }
            Err(error) => tracing::error!(%error, "the session derives no challenges"),
        }
        self.exchanges.iter_mut().for_each(Exchange::drop_challenge);
        self.session = Some(session);
        self.rosters.begin();
        self.dirty = true;
        self.proven = true;
        self.membership.joined();
        self.exchanges.iter_mut().for_each(|exchange| exchange.send_again(now.instant));
        // Pictures wait for the roster.
        self.ask_for_proof(now);
    }

    /// Looks at the roster that an answer brought, or that an answer to a question of the
    /// conversation's own did not bring.
    fn look_at_roster(&mut self, came: Option<&SignedRoster>, asked: bool, now: Now) {
        let Some(session) = &self.session else { return };
        match came {
            Some(signed) => self.rosters.came(signed, session, &self.identity),
            None if asked => {
                if self.rosters.none_came() {
                    self.proof = None;
                    self.ask_for_proof(now);
                }
            }
            None => return,
        }
        match self.rosters.allows() {
            Some(true) => {
                let held = |one: &&mut Exchange| one.has_pictures() && !one.has_left();
                let held = self.exchanges.iter_mut().filter(held);
                held.for_each(|exchange| exchange.send_again(now.instant));
            }
            Some(false) => {
                let held = |one: &mut Exchange| one.has_pictures() && !one.has_left();
                let held = self.exchanges.extract_if(.., held);
                self.actions.extend(held.map(|one| Action::Distrust(one.capture())));
            }
            None => {}
        }
    }

    /// A message on the down channel: an answer or a change of keys.
    pub(crate) fn down(&mut self, payload: &[u8], now: Now) {
        let Some(session) = &mut self.session else { return };
        match session.open(payload) {
            Ok(Opened::Message(message)) => {
                self.dirty = true;
                self.proven = true;
                self.answered(message.expose(), now);
            }
            Ok(Opened::Changed) => {
                self.dirty = true;
                // What was sealed before the change does not open any more.
                self.exchanges.iter_mut().for_each(|exchange| exchange.send_again(now.instant));
            }
            Ok(Opened::Removed) => {
                tracing::warn!("the gateway removed this terminal");
                self.leave();
                self.membership.out();
            }
            Err(MlsError::Replayed) => tracing::debug!("a message came twice"),
            Err(error) => {
                tracing::info!(%error, "a message of the gateway cannot be opened");
                self.doubt(now);
            }
        }
        self.tick(now);
    }

    fn answered(&mut self, message: &[u8], now: Now) {
        let (capture, action) = match decode::<Answer>(message) {
            Ok(answer) => {
                self.challenges.add(answer.challenges.as_ref(), now.instant);
                let asked = self.proof == Some(answer.capture);
                self.look_at_roster(answer.roster.as_ref(), asked, now);
                let came = |exchange: &mut Exchange| exchange.challenges_came(now.instant);
                self.exchanges.iter_mut().for_each(came);
                if self.is_challenged_again(&answer, now) {
                    return;
                }
                (answer.capture, Action::Deliver(answer))
            }
            Err(error) => {
                tracing::error!(%error, "the gateway says what this version does not know");
                let Ok(AnswerHead { capture }) = decode(message) else { return };
                (capture, Action::Misunderstand(capture))
            }
        };
        // A second answer to the same act is the gateway's repetition: the first one counted.
        if let Some(index) = self.exchanges.iter().position(|e| e.capture() == capture) {
            self.exchanges.remove(index);
            if !self.is_own(capture) {
                self.actions.push(action);
            }
        }
    }

    /// Whether the gateway decided nothing yet: it wants another challenge, and gets one.
    fn is_challenged_again(&mut self, answer: &Answer, now: Now) -> bool {
        let reason = Refusal::ChallengeNeeded;
        if !matches!(answer.body, AnswerBody::Refused { reason: why } if why == reason) {
            return false;
        }
        let mut exchanges = self.exchanges.iter_mut();
        let asked = exchanges.find(|exchange| exchange.capture() == answer.capture);
        asked.is_some_and(|exchange| exchange.challenge_again(now.instant))
    }

    /// Whether this ends a question of the conversation's own, that no caller waits for.
    fn is_own(&mut self, capture: CaptureId) -> bool {
        let own = |asked: &mut Option<CaptureId>| asked.take_if(|own| *own == capture).is_some();
        own(&mut self.proof) || own(&mut self.fetching)
    }

    /// A challenge that is good for `left` from now on, for a capture that is to be about it.
    pub(crate) fn take_challenge(&mut self, left: Duration, now: Now) -> Option<ScanChallenge> {
        self.challenges.take(left, now.instant)
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Now) {
        self.exchanges.iter_mut().for_each(|exchange| exchange.wipe_if_old(now.instant));
        self.give_up(now);
        if self.connected && self.membership.ask(now.instant) {
            self.request_to_join(now);
        }
        self.send(now);
    }

    fn give_up(&mut self, now: Now) {
        let standing = self.standing();
        let late: Vec<_> =
            self.exchanges.extract_if(.., |exchange| exchange.is_over(now.instant)).collect();
        for exchange in late {
            let (capture, waited) = (exchange.capture(), exchange.waited(now.instant));
            let proof = self.proof == Some(capture);
            if !self.is_own(capture) {
                self.actions.push(Action::GiveUp { capture, waited, standing });
                self.suspect_silence(now);
            } else if proof && self.connected && !self.proven {
                self.doubt(now);
            }
        }
    }

    /// The gateway left a request unanswered: is it still there?
    fn suspect_silence(&mut self, now: Now) {
        if self.connected && self.proof.is_none() {
            self.proven = false;
            self.ask_for_proof(now);
        }
    }

    fn request_to_join(&mut self, now: Now) {
        match mls::request_to_join(&self.identity, now.wall) {
            Ok((joining, key_package)) => {
                self.joining = Some(joining);
                self.actions.push(Action::Publish(Channel::Join, key_package));
            }
            Err(error) => tracing::error!(%error, "this terminal's keys make no key package"),
        }
    }

    fn send(&mut self, now: Now) {
        if self.send_what_is_due(now) && self.fetching.is_none() && self.proof.is_none() {
            self.fetching = Some(self.ask_for_life(CHALLENGES_DEADLINE, now));
            self.send_what_is_due(now);
        }
    }

    /// Returns whether scans wait for a challenge.
    fn send_what_is_due(&mut self, now: Now) -> bool {
        let Some(session) = self.session.as_mut().filter(|_| self.connected) else { return false };
        let (mut wanted, trusts) = (false, self.rosters.allows() == Some(true));
        for exchange in &mut self.exchanges {
            if !exchange.is_due(now.instant) || (exchange.has_pictures() && !trusts) {
                continue;
            }
            if exchange.lacks_challenge() {
                match self.challenges.take(Duration::ZERO, now.instant) {
                    Some(challenge) => exchange.challenge(challenge),
                    None if self.challenges.may_come()
                        && exchange.wait_for_challenge(now.instant) =>
                    {
                        wanted = true;
                        continue;
                    }
                    None => {}
                }
            }
            match exchange
                .request(self.rosters.sequence())
                .map(|request| session.seal(request.expose()))
            {
                Some(Ok(message)) => {
                    self.dirty = true;
                    self.actions.push(Action::Publish(Channel::Up, message));
                }
                Some(Err(error)) => tracing::error!(%error, "a request cannot be sealed"),
                None => {}
            }
            exchange.sent(now.instant);
        }
        wanted
    }

    /// Asks the gateway for a sign that it still shares the session, so that a rejoin, if one is
    /// needed, happens before somebody stands in front of the terminal.
    fn ask_for_proof(&mut self, now: Now) {
        let old = self.proof.take();
        self.exchanges.retain(|exchange| Some(exchange.capture()) != old);
        if self.session.is_some() {
            self.proof = Some(self.ask_for_life(PROOF_DEADLINE, now));
        }
    }

    /// A question of the conversation's own.
    fn ask_for_life(&mut self, deadline: Duration, now: Now) -> CaptureId {
        let capture = CaptureId::from_random(random::bytes());
        let ping = Request::new(capture, now.wall, RequestBody::Ping);
        self.exchanges.push(Exchange::new(ping, deadline, now.instant));
        capture
    }

    fn doubt(&mut self, now: Now) {
        if self.membership.doubt(now.instant) {
            self.leave();
        }
    }

    /// Wipes the group's keys; what waits for an answer keeps waiting.
    fn leave(&mut self) {
        self.rosters.begin();
        self.dirty |= self.session.take().is_some();
        self.challenges.clear();
        self.joining = None;
        self.proven = false;
    }

    /// Goes on under another certificate: its key is another, so the group is joined anew. What
    /// waits for an answer keeps waiting.
    pub(crate) fn change_identity(&mut self, identity: Identity) {
        self.identity = identity;
        self.leave();
        self.membership.out();
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the last steps asked for.
    pub(crate) fn take_batch(&mut self) -> Batch {
        let store = match (mem::take(&mut self.dirty), &self.session) {
            (false, _) => Store::Keep,
            (true, Some(session)) => Store::Replace(session.state()),
            (true, None) => Store::Delete,
        };
        let roster = self.rosters.take_unsaved();
        Batch { store, roster, actions: mem::take(&mut self.actions) }
    }

    /// The store's roster as this session's gateway gave it.
    pub(crate) fn roster(&self) -> Shown {
        self.rosters.shown()
    }

    /// Why no picture is sent, if none is.
    pub(crate) fn distrust(&self) -> Option<TerminalError> {
        self.rosters.fault()
    }

    /// When [`Conversation::tick`] has something to do next, if nothing else happens before.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let can_send = self.connected && self.session.is_some();
        let trusts = self.rosters.allows() == Some(true);
        let may = |exchange: &Exchange| can_send && (trusts || !exchange.has_pictures());
        let exchanges = self.exchanges.iter().map(|exchange| exchange.wake_at(may(exchange)));
        let joining = self.membership.ask_at(now).filter(|_| self.connected);
        exchanges.chain(joining).min()
    }
}

#[cfg(test)]
mod tests;
