//! One terminal's side of the fabric: join, open, answer. State is durable before anything that
//! depends on it leaves the box.

use super::{Inbound, Outbound, Sent};
use crate::{metrics::Metrics, terminals::Terminals};
use palmgate_protocol::{
    CaptureId, Name, Secret, decode, encode_for_sealing,
    limits::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES},
    terminal::{Answer, AnswerBody, Refusal, Request, RequestHead},
    topic::{Channel, topic},
};
use palmgate_seal::mls::{self, Opened, Session};
use palmgate_vault::Vault;
use rumqttc::{AsyncClient, QoS};
use rustls::pki_types::CertificateDer;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Answers that are kept to be repeated when a terminal asks again.
const REMEMBERED_ANSWERS: usize = 32;
/// For how long: a terminal asks again within seconds, and an answer has a person's data.
const ANSWERS_KEPT: Duration = Duration::from_mins(2);
/// Key packages that were used already and are refused.
const REMEMBERED_JOINS: usize = 64;
/// The least time between two hints to join again.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// What a conversation is told.
pub(super) enum Heard {
    /// A payload on `join`.
    Join(Vec<u8>),
    /// A payload on `up`.
    Up(Vec<u8>, Instant),
    /// An answer for the terminal.
    Answer(Outbound),
    /// The terminal was removed.
    Removed,
}

/// Everything that conversations share.
pub(super) struct Shared {
    pub(super) terminals: Arc<Terminals>,
    pub(super) authority_der: CertificateDer<'static>,
    pub(super) vault: Arc<Vault>,
    pub(super) client: AsyncClient,
    pub(super) requests: mpsc::Sender<Inbound>,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Conversation {
    shared: Arc<Shared>,
    terminal: Name,
    session: Option<Session>,
    remembered: VecDeque<(CaptureId, Option<Remembered>)>,
    joins: VecDeque<[u8; 32]>,
    hinted: Option<Instant>,
}

/// An answer, and when it was given.
struct Remembered {
    answer: Secret<Vec<u8>>,
    at: Instant,
}

impl Conversation {
    /// Picks up where the terminal's durable state left off.
    pub(super) fn restore(shared: Arc<Shared>, terminal: Name) -> Self {
        let state = shared.vault.terminal_state(&terminal).unwrap_or_else(|error| {
            tracing::error!(%terminal, %error, "the terminal's session state cannot be read; it will join again");
            None
        });
        let session = state.and_then(|state| {
            Session::restore(state.expose(), &shared.terminals.own())
                .inspect_err(|error| {
                    tracing::warn!(%terminal, %error, "the terminal's session state is unusable; it will join again");
                })
                .ok()
        });
        let (remembered, joins) = (VecDeque::new(), VecDeque::new());
        Self { shared, terminal, session, remembered, joins, hinted: None }
    }

    /// Serves the terminal until it is removed or the gateway stops.
    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        loop {
            let next = tokio::time::timeout(ANSWERS_KEPT, heard.recv()).await;
            self.forget_answers(Instant::now());
            let Ok(next) = next else { continue };
            let Some(next) = next else { return };
            match next {
                Heard::Join(package) => self.join(&package).await,
                Heard::Up(payload, arrived) => self.up(&payload, arrived).await,
                Heard::Answer(outbound) => self.answer(outbound).await,
                Heard::Removed => return self.remove().await,
            }
        }
    }

    /// Wipes answers that nobody asks for again; that their captures were decided stays known.
    fn forget_answers(&mut self, now: Instant) {
        for (_, answer) in &mut self.remembered {
            let old = |one: &mut Remembered| now.saturating_duration_since(one.at) >= ANSWERS_KEPT;
            let _ = answer.take_if(old);
        }
    }

    async fn join(&mut self, package: &[u8]) {
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
        if self.joins.contains(&admitted.reference) {
            return self.fault("join-replayed");
        }
        if self.joins.len() == REMEMBERED_JOINS {
            self.joins.pop_front();
        }
        self.joins.push_back(admitted.reference);
        self.session = Some(admitted.session);
        if self.persist().await {
            self.publish(Channel::Welcome, admitted.welcome).await;
            tracing::info!(terminal = %self.terminal, "joined");
        }
    }

    async fn up(&mut self, payload: &[u8], arrived: Instant) {
        let Some(session) = &mut self.session else { return self.hint().await };
        let begun = Instant::now();
        let message = match session.open(payload) {
            Ok(Opened::Message(message)) => message,
            Ok(Opened::Changed) => {
                self.persist().await;
                return;
            }
            Ok(Opened::Removed) => {
                self.session = None;
                return;
            }
            Err(error) => {
                tracing::warn!(terminal = %self.terminal, %error, "a message could not be opened");
                self.fault("unopened");
                return self.hint().await;
            }
        };
        let open = begun.elapsed();
        let request = match decode::<Request>(message.expose()) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(terminal = %self.terminal, %error, "a request is malformed");
                self.fault("malformed");
                if let Ok(RequestHead { capture }) = decode(message.expose()) {
                    let body = AnswerBody::Refused { reason: Refusal::NotUnderstood };
                    self.send(encode_for_sealing(&Answer { capture, body })).await;
                }
                return;
            }
        };
        drop(message);
        self.take(request, arrived, open).await;
        self.persist().await;
    }

    /// At most one decision for each capture: a repeated request gets the first one's answer.
    async fn take(&mut self, request: Request, arrived: Instant, open: Duration) {
        let capture = request.capture;
        if let Some((_, answer)) = self.remembered.iter().find(|(known, _)| *known == capture) {
            let again = answer.as_ref().map(|kept| Secret::new(kept.answer.expose().clone()));
            if let Some(answer) = again {
                self.send(answer).await;
            }
            return;
        }
        if self.remembered.len() == REMEMBERED_ANSWERS {
            self.remembered.pop_front();
        }
        self.remembered.push_back((capture, None));
        let inbound = Inbound { terminal: self.terminal.clone(), request, arrived, open };
        if self.shared.requests.try_send(inbound).is_err() {
            self.shared.metrics.shed("requests");
            let busy = Answer { capture, body: AnswerBody::Busy };
            self.send(encode_for_sealing(&busy)).await;
            self.remembered.retain(|(known, _)| *known != capture);
        }
    }

    async fn answer(&mut self, outbound: Outbound) {
        let Outbound { answer, sent } = outbound;
        let mut bytes = encode_for_sealing(&answer);
        if bytes.expose().len() > MAX_MESSAGE_BYTES {
            let body = AnswerBody::Refused { reason: Refusal::Internal };
            bytes = encode_for_sealing(&Answer { capture: answer.capture, body });
        }
        let kept = Secret::new(bytes.expose().clone());
        let entry = self.remembered.iter_mut().find(|(known, _)| *known == answer.capture);
        if let Some((_, slot)) = entry {
            *slot = Some(Remembered { answer: kept, at: Instant::now() });
        }
        if let Some(times) = self.send(bytes).await {
            let _ = sent.send(times);
        }
    }

    /// Seals, makes the session's state durable, publishes: in this order, so that a crash can never
    /// use a key twice.
    async fn send(&mut self, bytes: Secret<Vec<u8>>) -> Option<Sent> {
        let session = self.session.as_mut()?;
        let begun = Instant::now();
        let sealed = session.seal(bytes.expose());
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
        let durable = self.persist().await;
        let persist = begun.elapsed();
        if !durable {
            return None;
        }
        let begun = Instant::now();
        self.publish(Channel::Down, sealed).await;
        Some(Sent { seal, persist, publish: begun.elapsed() })
    }

    async fn persist(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        let (state, vault) = (session.state(), Arc::clone(&self.shared.vault));
        let terminal = self.terminal.clone();
        let written = tokio::task::spawn_blocking(move || {
            vault.put_terminal_state(&terminal, state.expose())
        });
        match written.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(terminal = %self.terminal, %error, "session state is not durable; nothing is sent");
                self.session = None;
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
        let farewell = self.session.as_mut().and_then(|session| session.remove_peer().ok());
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
