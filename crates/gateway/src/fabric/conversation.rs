//! One terminal's side of the fabric: join, open, answer.
//!
//! The session lives in memory only. A restart ends it, and the terminal joins anew by itself: so no
//! message key can be used twice, nothing recorded opens after a restart or a restored backup, and
//! no disk ever holds what would open recorded traffic.

use super::{
    Admission, Freshness, Inbound, Outbound, Sent,
    challenges::Outstanding,
    joins::{Joins, NotAgain},
};
use crate::{
    broker::Pace,
    metrics::Metrics,
    pressure::{self, Pressure},
    store::Input,
};
use palmgate_protocol::{
    CaptureId, MemberId, Name, ScanChallenge, Secret, decode, encode, encode_for_sealing,
    limits::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, MAX_ROSTER_BYTES},
    terminal::{Answer, AnswerBody, Refusal, Request, RequestBody, RequestHead, Scan},
    topic::{Channel, topic},
};
use palmgate_seal::mls::{self, MlsError, Opened, Session};
use palmgate_vault::Vault;
use rumqttc::{AsyncClient, QoS};
use rustls::pki_types::CertificateDer;
use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Answers that are kept to be repeated when a terminal asks again, and messages that are known
/// when they come twice.
const REMEMBERED_ANSWERS: usize = 32;
/// For how long: a terminal asks again within seconds, and an answer has a person's data.
const ANSWERS_KEPT: Duration = Duration::from_mins(2);
/// The least time between two hints to join again.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// After this long a quiet terminal is asked to join again, which gives both sides new keys: a copy
/// of the old ones is worth nothing from then on.
const RENEWED_AFTER: Duration = Duration::from_hours(1);
/// Without new keys for this long the session ends.
const SESSION_LIFETIME: Duration = Duration::from_hours(24);
/// A terminal is quiet when nothing came from it for so long.
const QUIET: Duration = Duration::from_mins(1);
/// How often the terminal's certificate is looked at again.
const CHECKED_EVERY: Duration = Duration::from_mins(1);
/// Scans and enrolments of one terminal that may be in work: it must not fill the store's queue.
const MOST_IN_WORK: usize = 8;
/// Room for the challenges that come with an answer.
const CHALLENGES_BYTES: usize = 256;
/// Nothing is in work for longer.
const LONGEST_WORK: Duration = Duration::from_secs(20);
/// After an erasure a terminal begins a new session, but not more often than this: with many erasures
/// it would do little else.
const ANEW_AFTER: Duration = Duration::from_secs(30);
/// Between two terminals that are asked to: a store full of terminals that join at once would keep
/// people waiting.
const ANEW_SPACING: Duration = Duration::from_secs(1);
/// How often it is looked whether it can be asked to.
const ANEW_PAUSE: Duration = Duration::from_secs(3);

/// An answer that nobody asked for names no act.
const NO_ACT: CaptureId = CaptureId::from_random([0; 16]);

/// What a conversation is told.
pub(super) enum Heard {
    /// A payload on `join`.
    Join(Vec<u8>),
    /// A payload on `up`.
    Up(Vec<u8>, Instant),
    /// An answer for the terminal.
    Answer(Outbound),
    /// The person was erased: no answer of theirs is repeated.
    Forget(MemberId),
    /// Somebody was erased: the keys of this session have opened what there was of them.
    BeginAnew,
    /// Another roster is in force.
    Roster,
    /// The terminal was removed.
    Removed,
}

/// Everything that conversations share.
pub(super) struct Shared {
    pub(super) terminals: Arc<dyn Admission>,
    pub(super) authority_der: CertificateDer<'static>,
    pub(super) vault: Arc<Vault>,
    pub(super) client: AsyncClient,
    pub(super) requests: mpsc::Sender<Inbound>,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) freshness: Freshness,
    pub(super) pressure: Pressure,
    /// When a terminal was asked last to begin a new session.
    pub(super) anew: Mutex<Option<Instant>>,
}

impl Shared {
    /// Whether it is somebody's turn to begin a new session.
    pub(super) fn takes_turn(&self, now: Instant) -> bool {
        let mut last = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = last.is_none_or(|at| now.saturating_duration_since(at) >= ANEW_SPACING);
        if turn {
            *last = Some(now);
        }
        turn
    }
}

pub(super) struct Conversation {
    pub(super) shared: Arc<Shared>,
    terminal: Name,
    pub(super) session: Option<Live>,
    remembered: VecDeque<(CaptureId, Option<Remembered>)>,
    joins: Joins,
    hinted: Option<Instant>,
    /// A new session is wanted.
    anew: bool,
    asked_anew: Option<Instant>,
    pace: Pace,
    in_work: Vec<(CaptureId, Instant)>,
    /// Digests of the last messages, under a key that nobody knows.
    heard: VecDeque<u64>,
    hasher: RandomState,
}

/// A session and its times.
pub(super) struct Live {
    pub(super) session: Session,
    challenges: Outstanding,
    /// The sequence of the roster that the terminal has; `None` until it wants one.
    roster: Option<u64>,
    pub(super) joined: Instant,
    checked: Instant,
}

impl Live {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.joined)
    }
}

/// An answer, whom it says something of, and when it was given.
struct Remembered {
    answer: Secret<Vec<u8>>,
    about: Option<MemberId>,
    at: Instant,
}

impl Conversation {
    /// Begins without a session: the terminal joins when it hears that.
    pub(super) fn begin(shared: Arc<Shared>, terminal: Name) -> Self {
        let kept = shared.vault.terminal_state(&terminal).unwrap_or_else(|error| {
            tracing::error!(%terminal, %error, "the terminal's used key packages cannot be read");
            None
        });
        let joins = kept.and_then(|kept| decode(kept.expose()).ok()).unwrap_or_default();
        let pace = Pace::new(pressure::PER_SECOND, pressure::AT_ONCE, Instant::now());
        Self {
            shared,
            terminal,
            session: None,
            remembered: VecDeque::new(),
            joins,
            hinted: None,
            anew: false,
            asked_anew: None,
            pace,
            in_work: Vec::new(),
            heard: VecDeque::new(),
            hasher: RandomState::new(),
        }
    }

    /// Serves the terminal until it is removed or the gateway stops.
    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        loop {
            let pause = if self.anew { ANEW_PAUSE } else { QUIET };
            let next = tokio::time::timeout(pause, heard.recv()).await;
            let now = Instant::now();
            self.forget_answers(now);
            match next {
                Err(_) if self.anew => {}
                Err(_) => self.renew(now).await,
                Ok(None) => return,
                Ok(Some(Heard::Join(package))) => self.join(&package).await,
                Ok(Some(Heard::Up(payload, arrived))) => self.up(&payload, arrived).await,
                Ok(Some(Heard::Answer(outbound))) => self.answer(outbound).await,
                Ok(Some(Heard::Forget(member))) => self.forget(&member),
                Ok(Some(Heard::BeginAnew)) => self.anew = true,
                Ok(Some(Heard::Roster)) => self.tell_roster().await,
                Ok(Some(Heard::Removed)) => return self.remove().await,
            }
            self.begin_anew(Instant::now()).await;
        }
    }

    /// Asks a quiet terminal to join again now and then.
    pub(super) async fn renew(&mut self, now: Instant) {
        if self.session.as_ref().is_some_and(|live| live.age(now) >= RENEWED_AFTER) {
            self.hint().await;
        }
    }

    /// Asks the terminal to join again, which ends the keys of both sides, as soon as nothing of it is
    /// in work; again now and then until it has.
    pub(super) async fn begin_anew(&mut self, now: Instant) {
        // Without a session the terminal joins anew in any case.
        self.anew &= self.session.is_some();
        let young = self.session.as_ref().is_some_and(|live| live.age(now) < ANEW_AFTER);
        self.in_work.retain(|(_, since)| now.saturating_duration_since(*since) < LONGEST_WORK);
        let asked = |at: Instant| now.saturating_duration_since(at) < ANEW_AFTER;
        let due = self.anew && !young && self.in_work.is_empty();
        if due && !self.asked_anew.is_some_and(asked) && self.shared.takes_turn(now) {
            self.asked_anew = Some(now);
            // While joins cannot be noted they are refused: the terminal keeps what it has until then.
            if self.keep_joins().await {
                self.hint().await;
            }
        }
    }

    /// A new session is wanted as soon as it can be had.
    #[cfg(test)]
    pub(super) const fn want_anew(&mut self) {
        self.anew = true;
    }

    /// Wipes what this person was answered.
    pub(super) fn forget(&mut self, member: &MemberId) {
        for (_, answer) in &mut self.remembered {
            let theirs = |one: &mut Remembered| one.about.as_ref() == Some(member);
            let _ = answer.take_if(theirs);
        }
    }

    /// Wipes answers that nobody asks for again; that their captures were decided stays known.
    fn forget_answers(&mut self, now: Instant) {
        for (_, answer) in &mut self.remembered {
            let old = |one: &mut Remembered| now.saturating_duration_since(one.at) >= ANSWERS_KEPT;
            let _ = answer.take_if(old);
        }
    }

    pub(super) async fn join(&mut self, package: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let admitted = mls::admit(
            &shared.terminals.own(),
            package,
            &shared.authority_der,
            crate::clock::now(),
        );
        let admitted = match admitted {
            Ok(admitted) if admitted.terminal == self.terminal => admitted,
            Ok(_) => return self.fault("join-for-another"),
            Err(error) => {
                tracing::warn!(terminal = %self.terminal, %error, "a join was refused");
                return self.fault("join-refused");
            }
        };
        if !shared.terminals.holds(&admitted.terminal, &admitted.serial) {
            return self.fault("join-revoked");
        }
        let (terminals, terminal) = (Arc::clone(&shared.terminals), self.terminal.clone());
        let (serial, certificate) = (admitted.serial, admitted.certificate);
        let learning = move || terminals.learn(&terminal, &serial, certificate);
        if tokio::task::spawn_blocking(learning).await.is_err() {
            return;
        }
        if let Err(NotAgain(fault)) = self.joins.note(&admitted.reference, crate::clock::now()) {
            return self.fault(fault);
        }
        if !self.keep_joins().await {
            return;
        }
        let exported = admitted.session.export(ScanChallenge::LABEL, ScanChallenge::FIRST_BYTES);
        let Ok(exported) = exported else { return self.fault("join-refused") };
        let now = Instant::now();
        let challenges = Outstanding::begin(shared.freshness.lifetime, exported.expose(), now);
        let session = admitted.session;
        let roster = None;
        self.session = Some(Live { session, challenges, roster, joined: now, checked: now });
        (self.anew, self.asked_anew) = (false, None);
        let joined = Input::Joined(self.terminal.clone(), crate::clock::now());
        let _ = shared.inputs.send(joined);
        self.publish(Channel::Welcome, admitted.welcome).await;
        tracing::info!(terminal = %self.terminal, "joined");
    }

    pub(super) async fn up(&mut self, payload: &[u8], arrived: Instant) {
        let begun = Instant::now();
        self.end_if_over(begun);
        let Some(live) = &mut self.session else { return self.hint().await };
        let digest = self.hasher.hash_one(payload);
        let message = match live.session.open(payload) {
            Ok(Opened::Message(message)) => message,
            Ok(Opened::Changed) => return,
            Ok(Opened::Removed) => {
                self.session = None;
                return;
            }
            // A network doubles messages; that says nothing about the session.
            Err(MlsError::Replayed) if self.heard.contains(&digest) => {
                return self.fault("replayed");
            }
            Err(error) => {
                tracing::warn!(terminal = %self.terminal, %error, "a message could not be opened");
                self.fault("unopened");
                return self.hint().await;
            }
        };
        let open = begun.elapsed();
        if self.heard.len() == REMEMBERED_ANSWERS {
            self.heard.pop_front();
        }
        self.heard.push_back(digest);
        let request = match decode::<Request>(message.expose()) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(terminal = %self.terminal, %error, "a request is malformed");
                self.fault("malformed");
                if let Ok(RequestHead { capture }) = decode(message.expose()) {
                    let body = AnswerBody::Refused { reason: Refusal::NotUnderstood };
                    self.say(Answer::new(capture, body)).await;
                }
                return;
            }
        };
        drop(message);
        self.take(request, arrived, open).await;
    }

    /// A session outlives the join, a certificate may not; and none lasts for ever.
    pub(super) fn end_if_over(&mut self, now: Instant) {
        let Some(live) = &mut self.session else { return };
        if live.age(now) >= SESSION_LIFETIME {
            self.session = None;
        } else if now.saturating_duration_since(live.checked) >= CHECKED_EVERY {
            live.checked = now;
            let certified =
                live.session.check_peer(&self.shared.authority_der, crate::clock::now());
            if let Err(error) = certified {
                tracing::warn!(terminal = %self.terminal, %error, "its session ends");
                self.session = None;
                self.fault("expired");
            }
        }
    }

    /// At most one decision for each capture: a repeated request gets the first one's answer.
    async fn take(&mut self, mut request: Request, arrived: Instant, open: Duration) {
        let capture = request.capture;
        if let (Some(live), Some(_)) = (&mut self.session, request.roster) {
            live.roster = request.roster;
        }
        if let Some((_, answer)) = self.remembered.iter().find(|(known, _)| *known == capture) {
            let again = answer.as_ref().and_then(|kept| decode(kept.answer.expose()).ok());
            if let Some(answer) = again {
                self.say(answer).await;
            }
            return;
        }
        let right = matches!(&request.body,
            RequestBody::Scan(Scan { intent, .. }) if intent.purpose().is_none());
        let now = Instant::now();
        self.in_work.retain(|(_, since)| now.saturating_duration_since(*since) < LONGEST_WORK);
        // While people wait, a terminal is held to what hands can do.
        let over = self.shared.pressure.is_on(now) && !right && !self.pace.allows(now);
        if over {
            self.shared.pressure.flooded(&self.terminal, now);
        }
        if over || (!right && self.in_work.len() >= MOST_IN_WORK) {
            self.fault("flooding");
            return self.say(Answer::new(capture, AnswerBody::Busy)).await.map_or((), drop);
        }
        if !self.is_fresh(&mut request, now) {
            self.fault("challenge");
            let body = AnswerBody::Refused { reason: Refusal::ChallengeNeeded };
            return self.say(Answer::new(capture, body)).await.map_or((), drop);
        }
        if self.remembered.len() == REMEMBERED_ANSWERS {
            self.remembered.pop_front();
        }
        self.remembered.push_back((capture, None));
        if !right {
            self.in_work.push((capture, now));
        }
        let inbound = Inbound { terminal: self.terminal.clone(), request, arrived, open };
        if self.shared.requests.try_send(inbound).is_err() {
            self.shared.metrics.shed("requests");
            self.say(Answer::new(capture, AnswerBody::Busy)).await;
            self.in_work.retain(|(known, _)| *known != capture);
            self.remembered.retain(|(known, _)| *known != capture);
        }
    }

    /// Whether a scan is of now: it names one of the session's challenges. Rights wait for none.
    /// Nothing is decided about a scan that is not, so that it may be asked again with another.
    /// Only a challenge that was good stays in the request: a sensor's verdict is about no other.
    fn is_fresh(&mut self, request: &mut Request, now: Instant) -> bool {
        let live = self.session.as_mut();
        let redeem = |named| live.is_some_and(|live| live.challenges.redeem(named, now));
        let named = request.challenge.as_ref().map(redeem);
        request.challenge.take_if(|_| named == Some(false));
        let RequestBody::Scan(scan) = &request.body else { return true };
        scan.intent.purpose().is_none_or(|purpose| {
            named.unwrap_or(!self.shared.freshness.needed_for.contains(purpose))
        })
    }

    pub(super) async fn answer(&mut self, outbound: Outbound) {
        let Outbound { mut answer, about, sent } = outbound;
        self.in_work.retain(|(known, _)| *known != answer.capture);
        let mut bytes = encode_for_sealing(&answer);
        if bytes.expose().len() > MAX_MESSAGE_BYTES - CHALLENGES_BYTES - MAX_ROSTER_BYTES {
            answer.body = AnswerBody::Refused { reason: Refusal::Internal };
            bytes = encode_for_sealing(&answer);
        }
        let entry = self.remembered.iter_mut().find(|(known, _)| *known == answer.capture);
        if let Some((_, slot)) = entry {
            *slot = Some(Remembered { answer: bytes, about, at: Instant::now() });
        }
        if let Some(times) = self.say(answer).await {
            let _ = sent.send(times);
        }
    }

    /// Sends an answer, and challenges for the next scans with it.
    async fn say(&mut self, mut answer: Answer) -> Option<Sent> {
        let live = self.session.as_mut()?;
        let begun = Instant::now();
        answer.challenges = Some(live.challenges.draw(begun));
        let roster = self.shared.terminals.roster();
        if let (Some(has), Some(current)) = (&mut live.roster, roster)
            && *has != current.sequence
        {
            *has = current.sequence;
            answer.roster = Some(current.signed.clone());
        }
        let bytes = encode_for_sealing(&answer);
        let sealed = live.session.seal(bytes.expose());
        let seal = begun.elapsed();
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(terminal = %self.terminal, %error, "an answer could not be sealed");
                self.session = None;
                return None;
            }
        };
        let begun = Instant::now();
        self.publish(Channel::Down, sealed).await;
        Some(Sent { seal, publish: begun.elapsed() })
    }

    /// Gives the terminal the roster in force, if it has another.
    async fn tell_roster(&mut self) {
        let current = self.shared.terminals.roster().map(|current| current.sequence);
        let has = self.session.as_ref().and_then(|live| live.roster);
        if has.is_some() && has != current {
            self.say(Answer::new(NO_ACT, AnswerBody::Done)).await;
        }
    }

    /// Used key packages are on disk before one is answered.
    async fn keep_joins(&self) -> bool {
        let (kept, vault) = (encode(&self.joins), Arc::clone(&self.shared.vault));
        let terminal = self.terminal.clone();
        let written =
            tokio::task::spawn_blocking(move || vault.put_terminal_state(&terminal, &kept)).await;
        match written {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(terminal = %self.terminal, %error, "a join cannot be noted; it is refused");
                false
            }
            Err(_) => false,
        }
    }

    async fn publish(&self, channel: Channel, payload: Vec<u8>) {
        debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
        let topic = topic(&self.terminal, channel);
        if self.shared.client.publish(topic, QoS::AtLeastOnce, false, payload).await.is_err() {
            tracing::warn!(terminal = %self.terminal, "the broker connection is closing");
        }
    }

    /// An empty welcome says "join again"; it is a hint only, and rare.
    async fn hint(&mut self) {
        if self.hinted.is_none_or(|last| last.elapsed() >= HINT_INTERVAL) {
            self.hinted = Some(Instant::now());
            self.publish(Channel::Welcome, Vec::new()).await;
        }
    }

    async fn remove(mut self) {
        let farewell = self.session.as_mut().and_then(|live| live.session.remove_peer().ok());
        if let Some(commit) = farewell {
            self.publish(Channel::Down, commit).await;
        }
        let (vault, terminal) = (Arc::clone(&self.shared.vault), self.terminal.clone());
        let removed = tokio::task::spawn_blocking(move || vault.remove_terminal(&terminal)).await;
        if let Ok(Err(error)) = removed {
            tracing::error!(terminal = %self.terminal, %error, "the removed terminal's keys remain on disk");
        }
    }

    fn fault(&self, fault: &'static str) {
        self.shared.metrics.terminal_fault(fault);
    }
}
