use crate::{
    Paired, TerminalError, Trouble, clock,
    conversation::MAX_WAITING,
    driver::{Ask, Asked, Driver},
    exchange::deadline_of,
    roster::{Shown, StoreRoster},
};
use palmgate_protocol::{
    Biometric, CaptureId, Name, PurposeSet, ScanChallenge, limits,
    terminal::{
        Answer, AnswerBody, Enrolment, Frame, Intent, Possession, Replaces, Request, RequestBody,
        Scan,
    },
};
use palmgate_seal::{possession::Challenge, random};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// How far the way to the gateway is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The first connection to the broker is being made.
    Connecting,
    /// No connection to the broker; the terminal keeps trying.
    Offline(Trouble),
    /// Connected to the broker; the gateway has not answered on this connection yet.
    Joining,
    /// The gateway answers.
    Ready,
}

/// A hand that was presented, and what its owner showed with it.
#[derive(Default)]
pub struct Presentation {
    /// Pictures of the hand; [`MAX_FRAMES_PER_CAPTURE`](limits::MAX_FRAMES_PER_CAPTURE) at most.
    pub frames: Vec<Frame>,
    /// The claim token that was tapped or read from a code, if any.
    pub claim: Option<Biometric<Vec<u8>>>,
    /// Whether the person asked to be looked up beyond this store.
    pub ask_cloud: bool,
    /// Whether the person has just proved who they are by chip and PIN, or as strongly: what the
    /// gateway asks for with `step-up` after some payments by palm alone.
    pub authenticated: bool,
    /// Has the phone or card that holds the claim sign the act, if it can: with the palm as strong
    /// as chip and PIN.
    pub possession: Option<Prover>,
    /// The challenge of [`Terminal::challenge`] that the capture is about: the sensor signed it, or
    /// it was shown before the hand. Without one the terminal names a challenge by itself.
    pub challenge: Option<ScanChallenge>,
    /// What the sensor signed about the frames and that challenge
    /// ([`Verdict`](palmgate_seal::sensor::Verdict)), if it can.
    pub verdict: Option<Biometric<Vec<u8>>>,
}

/// How long a capture may take that is about a challenge.
const CAPTURE_TAKES: Duration = Duration::from_secs(30);

/// Asks a phone or card to sign the challenge of an act with the key that its claim names.
pub type Prover = Box<dyn FnOnce(&Challenge) -> Possession + Send>;

/// A connected terminal. Copies share one connection; it ends when the last is dropped.
///
/// The connection is kept, and the MLS group joined and rejoined, without the caller's doing. A
/// request is sent again until it is answered, always with the same capture id, for which the
/// gateway decides once. Its frames are wiped when it is answered, when the caller stops waiting,
/// and after [`FRAMES_LIFETIME`](limits::FRAMES_LIFETIME) at the latest.
#[derive(Clone)]
pub struct Terminal {
    name: Name,
    asks: mpsc::Sender<Asked>,
    connection: watch::Receiver<Connection>,
    roster: watch::Receiver<Shown>,
}

impl Terminal {
    /// Starts to connect and returns at once; [`Terminal::ready`] waits for the gateway.
    ///
    /// # Errors
    /// [`TerminalError::File`] or [`TerminalError::Keys`] when the state directory cannot be used.
    /// An unreachable gateway is no error here: the terminal keeps trying.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::{Paired, Terminal};
    /// use std::{path::Path, time::Duration};
    ///
    /// let terminal = Terminal::connect(Paired::open(Path::new("/var/lib/till/palmgate"))?)?;
    /// terminal.ready(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub fn connect(paired: Paired) -> Result<Self, TerminalError> {
        let name = paired.name().clone();
        let (asks, waiting_asks) = mpsc::channel(MAX_WAITING);
        let (shown, connection) = watch::channel(Connection::Connecting);
        let (shown_roster, roster) = watch::channel(Ok(None));
        tokio::spawn(Driver::start(paired, shown, shown_roster)?.run(waiting_asks));
        Ok(Self { name, asks, connection, roster })
    }

    /// Ends the connection and waits until the state directory is free again. When copies of this
    /// terminal are still in use, waits for the last of them.
    ///
    /// ```no_run
    /// # async fn example(terminal: palmgate_terminal::Terminal) {
    /// terminal.close().await;
    /// # }
    /// ```
    pub async fn close(self) {
        let mut connection = self.watch();
        drop(self);
        while connection.changed().await.is_ok() {}
    }

    /// The terminal's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The state of the connection now and as it changes, for a screen or a lamp.
    ///
    /// ```no_run
    /// # async fn example(terminal: palmgate_terminal::Terminal) {
    /// let mut connection = terminal.watch();
    /// while connection.changed().await.is_ok() {
    ///     println!("{:?}", *connection.borrow_and_update());
    /// }
    /// # }
    /// ```
    pub fn watch(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Who has sessions in the store, as the gateway signed it and this terminal checked it. Every
    /// terminal has the same, and `palmgate terminal list` shows its number and hash. `None` before
    /// the gateway has answered in this session, and where it is of a version before rosters.
    ///
    /// # Errors
    /// [`TerminalError::Roster`] when the last one does not hold; no picture is sent meanwhile.
    ///
    /// ```no_run
    /// # fn example(terminal: palmgate_terminal::Terminal)
    /// #     -> Result<(), palmgate_terminal::TerminalError> {
    /// if let Some(store) = terminal.roster()? {
    ///     println!("number {}, hash {}", store.roster.sequence, store.hash_text());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn roster(&self) -> Result<Option<Arc<StoreRoster>>, TerminalError> {
        self.roster.borrow().clone().map_err(TerminalError::Roster)
    }

    /// Waits until the gateway answers.
    ///
    /// # Errors
    /// After `limit`, why it does not: [`TerminalError::Offline`] or
    /// [`TerminalError::NotAdmitted`].
    ///
    /// ```no_run
    /// # async fn example(terminal: palmgate_terminal::Terminal) {
    /// if let Err(why) = terminal.ready(std::time::Duration::from_secs(10)).await {
    ///     println!("out of order: {why}");
    /// }
    /// # }
    /// ```
    pub async fn ready(&self, limit: Duration) -> Result<(), TerminalError> {
        let mut connection = self.watch();
        let reached = timeout(limit, connection.wait_for(|now| *now == Connection::Ready)).await;
        match reached.map(|reached| reached.is_ok()) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(TerminalError::Closed),
            Err(_) => {}
        }
        match self.connection.borrow().clone() {
            Connection::Offline(trouble) => Err(trouble.into()),
            _ => Err(TerminalError::NotAdmitted(limit)),
        }
    }

    /// Sends a request, again if need be, and waits for the answer: 5 s for a scan, 15 s for an
    /// enrolment or the exercise of a right. The other verbs are this one in short. Dropping the
    /// future withdraws what was not sent yet and wipes the frames.
    ///
    /// # Errors
    /// [`TerminalError::OverLimit`] or [`TerminalError::TooMany`] before anything is sent,
    /// [`TerminalError::Offline`], [`TerminalError::NotAdmitted`] or [`TerminalError::TooLate`]
    /// when time is up, [`TerminalError::Busy`] when the gateway says so, [`TerminalError::File`]
    /// when the terminal's disk fails, [`TerminalError::Roster`] when the store's list of terminals
    /// does not hold.
    ///
    /// ```no_run
    /// # async fn example(terminal: palmgate_terminal::Terminal)
    /// #     -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::{AnswerBody, RequestBody};
    ///
    /// let answer = terminal.request(RequestBody::Ping).await?;
    /// assert!(matches!(answer.body, AnswerBody::Done));
    /// # Ok(()) }
    /// ```
    pub async fn request(&self, body: RequestBody) -> Result<Answer, TerminalError> {
        let capture = CaptureId::from_random(random::bytes());
        self.ask(Request::new(capture, clock::now().wall, body)).await
    }

    async fn ask(&self, request: Request) -> Result<Answer, TerminalError> {
        check_limits(&request.body)?;
        let deadline = deadline_of(&request.body);
        let (reply, answer) = oneshot::channel();
        let ask = Ask { request, deadline, reply };
        self.tell(Asked::Request(Box::new(ask)))?;
        let answer = answer.await.unwrap_or(Err(TerminalError::Closed))?;
        match answer.body {
            AnswerBody::Busy => Err(TerminalError::Busy),
            _ => Ok(answer),
        }
    }

    fn tell(&self, asked: Asked) -> Result<(), TerminalError> {
        self.asks.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TerminalError::TooMany(MAX_WAITING),
            mpsc::error::TrySendError::Closed(_) => TerminalError::Closed,
        })
    }

    /// Random bytes of the gateway for a capture that is about to be taken, good for one scan: give
    /// them to the sensor, have it sign them with its verdict, and name them in
    /// [`Presentation::challenge`]. They hold for half a minute at least unless the gateway is
    /// configured otherwise; a scan that names ended ones is refused with
    /// [`ChallengeNeeded`](palmgate_protocol::terminal::Refusal::ChallengeNeeded), and a new capture
    /// about new ones is needed. Asks the gateway only when none is at hand.
    ///
    /// # Errors
    /// As [`Terminal::request`]; [`TerminalError::Incompatible`] when the gateway gives none.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     sensor: impl Fn(&[u8; 16]) -> Vec<palmgate_terminal::protocol::terminal::Frame>,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::{Presentation, protocol::terminal::Intent};
    ///
    /// let challenge = terminal.challenge().await?;
    /// let frames = sensor(challenge.as_bytes());
    /// let hand = Presentation { frames, challenge: Some(challenge), ..Default::default() };
    /// terminal.scan(Intent::Entry, hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn challenge(&self) -> Result<ScanChallenge, TerminalError> {
        if let Some(challenge) = self.challenge_at_hand(CAPTURE_TAKES).await? {
            return Ok(challenge);
        }
        self.ping().await?;
        let challenge = self.challenge_at_hand(Duration::ZERO).await?;
        challenge.ok_or_else(|| TerminalError::Incompatible("it gives no challenges".into()))
    }

    async fn challenge_at_hand(
        &self,
        left: Duration,
    ) -> Result<Option<ScanChallenge>, TerminalError> {
        let (reply, taken) = oneshot::channel();
        self.tell(Asked::Challenge(left, reply))?;
        taken.await.map_err(|_| TerminalError::Closed)
    }

    /// Asks to recognise a hand for what its owner came for.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::{AnswerBody, Intent};
    ///
    /// match terminal.scan(Intent::Entry, hand).await?.body {
    ///     AnswerBody::Accepted(_) => println!("welcome"),
    ///     AnswerBody::Retry { problem, .. } => println!("{}", problem.prompt()),
    ///     _ => println!("please use your code or ask our staff"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn scan(&self, intent: Intent, hand: Presentation) -> Result<Answer, TerminalError> {
        let Presentation {
            frames,
            claim,
            ask_cloud,
            authenticated,
            possession,
            challenge,
            verdict,
        } = hand;
        let (capture, at) = (CaptureId::from_random(random::bytes()), clock::now().wall);
        let possession = possession.map(|prove| prove(&Challenge::new(capture, at, &intent)));
        let scan = Scan { intent, frames, claim, ask_cloud, authenticated, possession, verdict };
        self.ask(Request { challenge, ..Request::new(capture, at, RequestBody::Scan(scan)) }).await
    }

    /// Asks to enrol a person who agreed, purpose by purpose, on this terminal's screen.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     enrolment: palmgate_terminal::protocol::terminal::Enrolment,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::AnswerBody;
    ///
    /// if let AnswerBody::Enrolled { claims, receipts } = terminal.enrol(enrolment).await?.body {
    ///     println!("{} codes and {} receipts to hand over", claims.len(), receipts.len());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Answer, TerminalError> {
        self.request(RequestBody::Enrol(enrolment)).await
    }

    /// As [`Terminal::enrol`], with a sensor's verdict in the enrolment: `challenge` is the one of
    /// [`Terminal::challenge`] that the sensor signed with it, when the last capture was taken. One that
    /// has ended does not make the enrolment fail; the verdict does not count then.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     enrolment: palmgate_terminal::protocol::terminal::Enrolment,
    /// #     sensor: impl Fn(&[u8; 16]) -> Vec<u8>,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::{Biometric, terminal::Enrolment};
    ///
    /// let challenge = terminal.challenge().await?;
    /// let verdict = Some(Biometric::new(sensor(challenge.as_bytes())));
    /// terminal.enrol_about(Enrolment { verdict, ..enrolment }, challenge).await?;
    /// # Ok(()) }
    /// ```
    pub async fn enrol_about(
        &self,
        enrolment: Enrolment,
        challenge: ScanChallenge,
    ) -> Result<Answer, TerminalError> {
        let (capture, at) = (CaptureId::from_random(random::bytes()), clock::now().wall);
        let request = Request::new(capture, at, RequestBody::Enrol(enrolment));
        self.ask(Request { challenge: Some(challenge), ..request }).await
    }

    /// Withdraws the person's consent for purposes (GDPR Art. 7(3)).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::{Purpose, PurposeSet};
    ///
    /// terminal.withdraw(PurposeSet::default().with(Purpose::Loyalty), hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn withdraw(
        &self,
        purposes: PurposeSet,
        hand: Presentation,
    ) -> Result<Answer, TerminalError> {
        self.scan(Intent::Withdraw { purposes }, hand).await
    }

    /// Has the person forgotten (GDPR Art. 17); the answer carries the receipt.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::AnswerBody;
    ///
    /// if let AnswerBody::Erased { receipt } = terminal.erase(hand).await?.body {
    ///     println!("{receipt}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn erase(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::Erase, hand).await
    }

    /// Shows the person their own uses and consents (GDPR Art. 15).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::AnswerBody;
    ///
    /// if let AnswerBody::History { uses, .. } = terminal.history(hand).await?.body {
    ///     uses.iter().for_each(|one| println!("{} at {}", one.purpose, one.terminal));
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn history(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::History, hand).await
    }

    /// Gives the person a copy of everything that the store holds about them, as JSON (GDPR Art. 15).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// use palmgate_terminal::protocol::terminal::AnswerBody;
    ///
    /// if let AnswerBody::Exported { document } = terminal.export(hand).await?.body {
    ///     println!("{}", document.0);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn export(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::Export, hand).await
    }

    /// Gives the person what they provided, and their templates sealed to their own X25519 key
    /// (GDPR Art. 20).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     key: [u8; 32],
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// terminal.take_along(key, hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn take_along(
        &self,
        key: [u8; 32],
        hand: Presentation,
    ) -> Result<Answer, TerminalError> {
        self.scan(Intent::Port { key }, hand).await
    }

    /// Notes that the person objects to advertising (GDPR Art. 21).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// terminal.object(hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn object(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::Object, hand).await
    }

    /// Corrects an enrolment (GDPR Art. 16): recognised by one of the new captures, and by `claim`
    /// where the store works with claims, the person gets the new enrolment in place of the old.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     enrolment: palmgate_terminal::protocol::terminal::Enrolment,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// terminal.rectify(enrolment, None).await?;
    /// # Ok(()) }
    /// ```
    pub async fn rectify(
        &self,
        enrolment: Enrolment,
        claim: Option<Biometric<Vec<u8>>>,
    ) -> Result<Answer, TerminalError> {
        self.enrol(Enrolment { replaces: Some(Replaces { claim }), ..enrolment }).await
    }

    /// Stops the person's recognition until [`Terminal::resume`] (GDPR Art. 18).
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// terminal.pause(hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn pause(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::Pause, hand).await
    }

    /// Ends the person's pause.
    ///
    /// # Errors
    /// As [`Terminal::request`].
    ///
    /// ```no_run
    /// # async fn example(
    /// #     terminal: palmgate_terminal::Terminal,
    /// #     hand: palmgate_terminal::Presentation,
    /// # ) -> Result<(), palmgate_terminal::TerminalError> {
    /// terminal.resume(hand).await?;
    /// # Ok(()) }
    /// ```
    pub async fn resume(&self, hand: Presentation) -> Result<Answer, TerminalError> {
        self.scan(Intent::Resume, hand).await
    }

    /// Measures the way to the gateway and back, through broker and seal.
    ///
    /// # Errors
    /// As [`Terminal::request`]; [`TerminalError::Incompatible`] for an answer that is none to
    /// this question.
    ///
    /// ```no_run
    /// # async fn example(terminal: palmgate_terminal::Terminal)
    /// #     -> Result<(), palmgate_terminal::TerminalError> {
    /// println!("{} µs", terminal.ping().await?.as_micros());
    /// # Ok(()) }
    /// ```
    pub async fn ping(&self) -> Result<Duration, TerminalError> {
        let start = Instant::now();
        match self.request(RequestBody::Ping).await?.body {
            AnswerBody::Done => Ok(start.elapsed()),
            _ => Err(TerminalError::Incompatible("it does not answer a ping".into())),
        }
    }
}

/// Refuses here what the gateway would refuse, before it costs anybody's time.
fn check_limits(body: &RequestBody) -> Result<(), TerminalError> {
    match body {
        RequestBody::Scan(scan) => {
            check_frames(&scan.frames)?;
            check_verdict(scan.verdict.as_ref())?;
            let claim = scan.claim.as_ref().map_or(0, |claim| claim.expose().len());
            within("the claim token in bytes", claim, limits::MAX_CLAIM_BYTES)
        }
        RequestBody::Enrol(enrolment) => {
            let captures = enrolment.captures.len();
            within("the number of captures", captures, limits::MAX_CAPTURES_PER_ENROLMENT)?;
            let name = enrolment.release.as_ref().map_or(0, |release| release.name.expose().len());
            within("the name under the release in bytes", name, limits::MAX_TEXT_BYTES)?;
            check_verdict(enrolment.verdict.as_ref())?;
            enrolment.captures.iter().try_for_each(|capture| check_frames(&capture.frames))
        }
        RequestBody::Ping | RequestBody::Renew(_) => Ok(()),
    }
}

fn check_verdict(verdict: Option<&Biometric<Vec<u8>>>) -> Result<(), TerminalError> {
    let length = verdict.map_or(0, |verdict| verdict.expose().len());
    within("the sensor's verdict in bytes", length, limits::MAX_VERDICT_BYTES)
}

fn check_frames(frames: &[Frame]) -> Result<(), TerminalError> {
    within("the number of frames", frames.len(), limits::MAX_FRAMES_PER_CAPTURE)?;
    frames.iter().try_for_each(|frame| {
        within("a picture in bytes", frame.picture.expose().len(), limits::MAX_FRAME_BYTES)
    })
}

fn within(what: &'static str, is: usize, limit: usize) -> Result<(), TerminalError> {
    if is <= limit { Ok(()) } else { Err(TerminalError::OverLimit { what, is, limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::terminal::Band;

    fn scan(sizes: &[usize]) -> RequestBody {
        let frame = |size: &usize| Frame {
            band: Band::Visible,
            picture: Biometric::new(vec![0; *size]),
            region_of: None,
        };
        RequestBody::Scan(Scan::new(Intent::Entry, sizes.iter().map(frame).collect()))
    }

    #[test]
    fn what_the_gateway_would_refuse_is_not_sent() {
        assert!(check_limits(&scan(&[limits::MAX_FRAME_BYTES; 4])).is_ok());
        let large = check_limits(&scan(&[limits::MAX_FRAME_BYTES + 1])).unwrap_err();
        assert_eq!(
            large.to_string(),
            "a picture in bytes is 196609, the limit is 196608: nothing was sent"
        );
        assert!(check_limits(&scan(&[1; 5])).is_err());
    }
}
