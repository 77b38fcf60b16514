//! The task that owns a terminal: carries messages between callers, the conversation, the disk and
//! the broker. Decides nothing.

use crate::{
    Connection, Paired, TerminalError, clock,
    conversation::{Action, Batch, Conversation, Standing, Store},
    error::Trouble,
    exchange::deadline_of,
    link::{Link, LinkEvent, Route},
    paired,
    renewal::Renewing,
    roster::{Rosters, Shown},
    session_file::SessionFile,
};
use palmgate_protocol::{
    CaptureId, Name, ScanChallenge,
    terminal::{Answer, Request, RequestBody},
    topic,
};
use palmgate_seal::{
    mls::Session,
    pki::{self, Identity},
    random,
};
use rumqttc::{AsyncClient, QoS};
use std::{collections::HashMap, fs::File, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

/// Nothing due: look again after this.
const IDLE: Duration = Duration::from_mins(1);

/// What the task can be asked.
pub(crate) enum Asked {
    Request(Box<Ask>),
    /// A challenge that is good for so long.
    Challenge(Duration, oneshot::Sender<Option<ScanChallenge>>),
}

/// A request and where its answer goes.
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) deadline: Duration,
    pub(crate) reply: oneshot::Sender<Result<Answer, TerminalError>>,
}

pub(crate) struct Driver {
    name: Name,
    conversation: Conversation,
    link: Link,
    client: Option<AsyncClient>,
    waiting: HashMap<CaptureId, oneshot::Sender<Result<Answer, TerminalError>>>,
    session_file: Arc<SessionFile>,
    directory: PathBuf,
    route: Route,
    renewing: Renewing,
    renewed: Option<oneshot::Receiver<Result<Answer, TerminalError>>>,
    trouble: Option<Trouble>,
    /// Released before `connection` tells that the task has ended.
    _lock: File,
    connection: watch::Sender<Connection>,
    roster: watch::Sender<Shown>,
}

impl Driver {
    /// Starts the connection of a paired terminal, with the session that the last run left.
    pub(crate) fn start(
        paired: Paired,
        connection: watch::Sender<Connection>,
        roster: watch::Sender<Shown>,
    ) -> Result<Self, TerminalError> {
        let Paired { settings, identity, session: session_file, lock, directory, .. } = paired;
        let session = session_file.load()?.and_then(|state| {
            Session::restore(state.expose(), &identity)
                .inspect_err(|error| tracing::warn!(%error, "joining anew"))
                .ok()
        });
        let rosters = Rosters::new(settings.store.clone(), paired::read_roster(&directory)?);
        let route = Route {
            terminal: settings.terminal.clone(),
            host: settings.broker_host,
            port: settings.broker_port,
            tls: tls(&identity)?,
        };
        let link = Link::start(route.clone());
        Ok(Self {
            name: settings.terminal,
            directory,
            route,
            renewing: Renewing::new(&identity),
            renewed: None,
            conversation: Conversation::new(identity, session).keeping(rosters),
            link,
            client: None,
            waiting: HashMap::new(),
            session_file: Arc::new(session_file),
            trouble: None,
            _lock: lock,
            connection,
            roster,
        })
    }

    /// Works until the last handle of the terminal is dropped.
    pub(crate) async fn run(mut self, mut asks: mpsc::Receiver<Asked>) {
        loop {
            let now = Instant::now();
            let wake = self.conversation.wake_at(now.into_std());
            let wake = wake.map_or(now + IDLE, Instant::from_std);
            let wake = wake.min(Instant::from_std(self.renewing.wake_at(clock::now())));
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Asked::Request(ask)) => self.ask(*ask),
                    Some(Asked::Challenge(left, reply)) => {
                        let _ = reply.send(self.conversation.take_challenge(left, clock::now()));
                    }
                    None => return,
                },
                event = self.link.next() => self.link_event(event),
                answer = answer(&mut self.renewed) => self.take_certificate(answer),
                () = sleep_until(wake) => {}
            }
            self.forget_callers_who_left();
            self.look_at_certificate();
            self.conversation.tick(clock::now());
            let batch = self.conversation.take_batch();
            self.carry_out(batch).await;
            self.report();
        }
    }

    /// Asks for the next certificate when the present one is due, and tells which one is in use.
    fn look_at_certificate(&mut self) {
        if self.conversation.standing() != Standing::Ready || self.renewed.is_some() {
            return;
        }
        let now = clock::now();
        let Some(renewal) = self.renewing.ask(now) else { return };
        let body = RequestBody::Renew(renewal);
        let deadline = deadline_of(&body);
        let capture = CaptureId::from_random(random::bytes());
        let (reply, answer) = oneshot::channel();
        self.renewed = Some(answer);
        self.ask(Ask { request: Request::new(capture, now.wall, body), deadline, reply });
    }

    /// Keeps a new certificate and goes on under it. What fails is tried again in an hour.
    fn take_certificate(&mut self, answer: Result<Answer, TerminalError>) {
        let authority = self.conversation.identity().authority_der().clone();
        let taken = answer.and_then(|answer| {
            let now = clock::now();
            let Some(identity) = self.renewing.answered(answer, &self.name, &authority, now)?
            else {
                return Ok(());
            };
            let tls = tls(&identity)?;
            paired::keep_identity(&self.directory, &identity)?;
            tracing::info!(terminal = %self.name, "has a new certificate");
            self.renewing = Renewing::new(&identity);
            self.conversation.change_identity(identity);
            self.route.tls = tls;
            self.link = Link::start(self.route.clone());
            self.client = None;
            self.conversation.disconnected();
            Ok(())
        });
        if let Err(error) = taken {
            tracing::warn!(terminal = %self.name, %error, "the certificate was not renewed");
        }
    }

    fn ask(&mut self, ask: Ask) {
        let Ask { request, deadline, reply } = ask;
        let capture = request.capture;
        match self.conversation.ask(request, deadline, clock::now()) {
            Ok(()) => drop(self.waiting.insert(capture, reply)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(client) => {
                tracing::info!(terminal = %self.name, "connected to the broker");
                self.client = Some(client);
                self.trouble = None;
                self.conversation.connected(clock::now());
            }
            LinkEvent::Down(trouble) => {
                tracing::warn!(terminal = %self.name, %trouble, "not connected");
                self.client = None;
                self.trouble = Some(trouble);
                self.conversation.disconnected();
            }
            LinkEvent::Message(topic::Channel::Welcome, payload) => {
                self.conversation.welcome(&payload, clock::now());
            }
            LinkEvent::Message(_, payload) => self.conversation.down(&payload, clock::now()),
        }
    }

    fn forget_callers_who_left(&mut self) {
        self.waiting.retain(|_, reply| !reply.is_closed());
        let waiting = &self.waiting;
        self.conversation.forget(|capture| !waiting.contains_key(&capture));
    }

    /// Answers go first: the person waits, and a message that is opened again after a crash answers a
    /// capture that nobody waits for any more. What is sent waits for the disk, so that no key is
    /// ever used twice.
    async fn carry_out(&mut self, batch: Batch) {
        let mut rest = Vec::with_capacity(batch.actions.len());
        for action in batch.actions {
            match action {
                Action::Deliver(answer) => {
                    if let Some(reply) = self.waiting.remove(&answer.capture) {
                        drop(reply.send(Ok(answer)));
                    }
                }
                other => rest.push(other),
            }
        }
        let mut stored = self.store(batch.store).await;
        if let Some(kept) = batch.roster {
            let directory = self.directory.clone();
            let keeping = spawn_blocking(move || paired::keep_roster(&directory, kept)).await;
            stored = stored.and(keeping.unwrap_or(Err(TerminalError::Closed)));
        }
        if let Err(error) = stored {
            tracing::error!(%error, "nothing was sent");
            return self.fail_everybody(error);
        }
        for action in rest {
            match action {
                Action::Publish(channel, message) => self.publish(channel, message),
                Action::Deliver(_) => {}
                Action::Misunderstand(capture) => {
                    if let Some(reply) = self.waiting.remove(&capture) {
                        let why = "it answered what this version does not know".into();
                        drop(reply.send(Err(TerminalError::Incompatible(why))));
                    }
                }
                Action::Distrust(capture) => {
                    let why = self.conversation.distrust();
                    if let Some(reply) = self.waiting.remove(&capture) {
                        drop(reply.send(Err(why.unwrap_or(TerminalError::Closed))));
                    }
                }
                Action::GiveUp { capture, waited, standing } => {
                    if let Some(reply) = self.waiting.remove(&capture) {
                        drop(reply.send(Err(self.why_late(standing, waited))));
                    }
                }
            }
        }
    }

    async fn store(&self, store: Store) -> Result<(), TerminalError> {
        let file = Arc::clone(&self.session_file);
        let stored = match store {
            Store::Keep => return Ok(()),
            Store::Replace(state) => spawn_blocking(move || file.save(&state)).await,
            Store::Delete => spawn_blocking(move || file.delete()).await,
        };
        stored.unwrap_or(Err(TerminalError::Closed))
    }

    /// Without a durable state nothing may leave the terminal, and no answer counts.
    fn fail_everybody(&mut self, error: TerminalError) {
        let TerminalError::File { doing, path, source } = error else { return };
        for (_, reply) in self.waiting.drain() {
            let source = io::Error::new(source.kind(), source.to_string());
            drop(reply.send(Err(TerminalError::File { doing, path: path.clone(), source })));
        }
    }

    fn publish(&self, channel: topic::Channel, message: Vec<u8>) {
        let topic = topic::topic(&self.name, channel);
        let sent = self
            .client
            .as_ref()
            .map(|client| client.try_publish(topic, QoS::AtLeastOnce, false, message));
        // Not fatal: what needs an answer is sent again until it has one.
        if !matches!(sent, Some(Ok(()))) {
            tracing::debug!(terminal = %self.name, "a message could not be queued");
        }
    }

    fn why_late(&self, standing: Standing, waited: Duration) -> TerminalError {
        match (standing, &self.trouble) {
            (Standing::Offline, Some(trouble)) => trouble.clone().into(),
            (Standing::Joining, _) => TerminalError::NotAdmitted(waited),
            _ => TerminalError::TooLate(waited),
        }
    }

    fn report(&self) {
        let connection = match (self.conversation.standing(), &self.trouble) {
            (Standing::Offline, None) => Connection::Connecting,
            (Standing::Offline, Some(trouble)) => Connection::Offline(trouble.clone()),
            (Standing::Joining, _) => Connection::Joining,
            (Standing::Ready, _) => Connection::Ready,
        };
        self.connection.send_if_modified(|shown| changed(shown, connection));
        self.roster.send_if_modified(|shown| changed(shown, self.conversation.roster()));
    }
}

fn changed<T: PartialEq>(shown: &mut T, now: T) -> bool {
    let changed = *shown != now;
    *shown = now;
    changed
}

/// The answer to a question of the terminal's own; never, when none was asked.
async fn answer(
    asked: &mut Option<oneshot::Receiver<Result<Answer, TerminalError>>>,
) -> Result<Answer, TerminalError> {
    let Some(waiting) = asked else { return std::future::pending().await };
    let answer = waiting.await;
    *asked = None;
    answer.unwrap_or(Err(TerminalError::Closed))
}

fn tls(identity: &Identity) -> Result<Arc<rustls::ClientConfig>, TerminalError> {
    let presented = pki::Presented::new(identity).map(Arc::new);
    let time = Arc::new(clock::NotBefore(identity.validity().from));
    presented
        .and_then(|own| pki::client_config_at(Some(&own), identity.authority_der(), time))
        .map(Arc::new)
        .map_err(|error| TerminalError::Keys(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::Settings;
    use palmgate_protocol::{DAY, Secret, terminal::AnswerBody};
    use palmgate_seal::pki::{Authority, Identity, Role};
    use std::path::Path;

    fn driver(directory: &Path) -> Driver {
        let now = clock::now().wall;
        let authority = Authority::generate("store", now).unwrap();
        let (pending, terminal) = (Identity::generate(), "till-1".parse::<Name>().unwrap());
        let csr = pending.csr_der();
        let leaf = authority.issue(&csr, &terminal, Role::Client, now, DAY).unwrap();
        let chain = vec![leaf.der, authority.certificate_der().clone()];
        let settings = Settings {
            terminal,
            store: "lyon".parse().unwrap(),
            tenant: "grocer".parse().unwrap(),
            broker_host: "127.0.0.1".into(),
            broker_port: 1,
        };
        Paired::prepare(directory).unwrap();
        let identity = pending.certified(chain).unwrap();
        let paired = Paired::create(directory, &settings, &identity, Duration::ZERO).unwrap();
        let connection = watch::channel(Connection::Connecting).0;
        Driver::start(paired, connection, watch::channel(Ok(None)).0).unwrap()
    }

    fn answer(driver: &mut Driver) -> (Action, oneshot::Receiver<Result<Answer, TerminalError>>) {
        let (reply, answered) = oneshot::channel();
        let capture = CaptureId::from_random([1; 16]);
        driver.waiting.insert(capture, reply);
        (Action::Deliver(Answer::new(capture, AnswerBody::Done)), answered)
    }

    #[tokio::test]
    async fn an_answer_waits_for_no_disk_and_what_is_sent_does() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("till-1");
        let mut driver = driver(&directory);
        let replace = || Store::Replace(Secret::new(b"state".to_vec()));

        let (action, answered) = answer(&mut driver);
        driver.carry_out(Batch { store: replace(), roster: None, actions: vec![action] }).await;
        assert!(answered.await.unwrap().is_ok());
        let stored = driver.session_file.load().unwrap().unwrap();
        assert_eq!(stored.expose(), b"state");

        std::fs::remove_file(directory.join("session.sealed")).unwrap();
        std::fs::create_dir_all(directory.join("session.sealed/in-the-way")).unwrap();
        let (action, answered) = answer(&mut driver);
        let (reply, waiting) = oneshot::channel();
        driver.waiting.insert(CaptureId::from_random([2; 16]), reply);
        driver.carry_out(Batch { store: replace(), roster: None, actions: vec![action] }).await;
        assert!(answered.await.unwrap().is_ok());
        let refused = waiting.await.unwrap().err().unwrap();
        assert!(matches!(refused, TerminalError::File { doing: "write", .. }), "{refused}");
    }
}
