//! The one task that owns the store's state: facts come in as inputs, the policy decides, commands
//! are carried out. Nothing here decides about people.

mod commands;
mod office;
mod rights;

pub(crate) use office::Desk;

use crate::{
    clock::{self, Believed},
    cloud::{CloudHandle, Fetched, ShardReceived},
    extraction::{Worked, Workers, facts},
    fabric::{Fabric, Inbound, Sent},
    forgotten::Forgotten,
    law::InForce,
    metrics::{Certificate, Counts, Metrics},
    receipts::Pending,
    records,
    references::References,
    scribe::{Deed, Done, Scribe},
    slots::Slots,
    terminals::Terminals,
    work::{Asker, InWork, NewPerson, Sensitive, StepTimes},
};
use palmgate_matcher::Timed;
use palmgate_policy::{
    ClaimFacts, ClaimPresented, Engine, EnrolmentFacts, Event, FreshIds, Proof, ReleaseFacts,
    Resolved, Rule, ScanFacts, Sensor, Ticket,
};
use palmgate_protocol::{
    Biometric, ClaimHandle, MemberId, Name, Pseudonym, Purpose, ScanChallenge, Timestamp,
    cloud::MemberRecord,
    terminal::{AnswerBody, Enrolment, Frame, Renewal, RequestBody, Scan},
};
use palmgate_seal::{
    claim::{self, Claim},
    possession::Challenge,
    random,
    sensor::{About, PictureHash, Verdict},
    sign::{SigningKey, VerifyingKey},
};
use palmgate_vault::Vault;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// A stopping gateway waits this long for another request.
const QUIET: Duration = Duration::from_millis(400);
/// And ends after this long in any case.
const DRAIN: Duration = Duration::from_secs(5);

/// What the task can be told.
pub(crate) enum Input {
    /// A terminal's request.
    Request(Inbound),
    /// A worker is done.
    Worked(Worked),
    /// A search or comparison is done.
    Searched(Ticket, Vec<(Purpose, palmgate_protocol::Probe)>, Event, Duration),
    /// The disk is done.
    Done(Done),
    /// The cloud answered an escalation.
    Fetched(Ticket, Fetched),
    /// The cloud published a shard, and it verified.
    Shard(ShardReceived),
    /// A terminal began a session.
    Joined(Name, Timestamp),
    /// Another roster is in force: its hash.
    Roster([u8; 32]),
    /// A fact about terminals from the control interface.
    Fact(Event),
    /// The slot of an answer came.
    Due(Ticket, AnswerBody),
    /// The last steps of an answer.
    Sent(StepTimes, Instant, Sent),
    /// Somebody asks for the standing.
    Standing(oneshot::Sender<palmgate_policy::Standing>),
    /// The office, at the control interface.
    Office(Desk),
}

/// Fixed at start.
pub(crate) struct Surroundings {
    pub(crate) tenant: Name,
    pub(crate) store: Name,
    pub(crate) law: InForce,
    pub(crate) language: String,
    pub(crate) pending: Pending,
    pub(crate) signing_key: SigningKey,
    pub(crate) record_key: palmgate_seal::aead::Key,
    pub(crate) issuers: Arc<RwLock<Vec<VerifyingKey>>>,
    pub(crate) clock: Arc<Believed>,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) references: Arc<References>,
    pub(crate) workers: Workers,
    pub(crate) scribe: Scribe,
    pub(crate) cloud: Option<CloudHandle>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) slots: Slots,
}

/// What a request says beside its body.
struct Said {
    at: Timestamp,
    /// Only one that was good.
    challenge: Option<ScanChallenge>,
}

pub(crate) struct Store {
    engine: Engine,
    work: InWork,
    around: Surroundings,
    /// The shard that is being decided about.
    offered: Option<ShardReceived>,
    desk: palmgate_policy::office::Desk,
    /// When the time was last kept, and whether it was doubted.
    time_kept: Option<(Instant, bool)>,
    looked: Option<Instant>,
    /// Rules behind the alarms that are shown.
    alarmed: Vec<Rule>,
}

impl Store {
    pub(crate) fn new(
        engine: Engine,
        around: Surroundings,
        mut desk: palmgate_policy::office::Desk,
    ) -> Self {
        desk.begin(clock::now());
        let (work, offered) = (InWork::default(), None);
        let (time_kept, looked, alarmed) = (None, None, Vec::new());
        let store = Self { engine, work, around, offered, desk, time_kept, looked, alarmed };
        store.tell_holds();
        store.around.scribe.submit(crate::kept::desk(&store.desk, None));
        store
    }

    /// Works until told to stop; then serves what still arrives until nobody has asked for a moment,
    /// five seconds at most.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Inbound>,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut stop: watch::Receiver<bool>,
        alive: watch::Sender<Instant>,
    ) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut stopping: Option<Instant> = None;
        let mut active = Instant::now();
        loop {
            let quiet = self.work.open_requests() == 0 && active.elapsed() > QUIET;
            if stopping.is_some_and(|since| quiet || since.elapsed() > DRAIN) {
                break;
            }
            tokio::select! {
                Some(input) = inputs.recv() => self.input(input),
                Some(inbound) = requests.recv() => {
                    active = Instant::now();
                    self.input(Input::Request(inbound));
                }
                _ = tick.tick() => {
                    self.tick();
                    let _ = alive.send(Instant::now());
                }
                _ = stop.changed(), if stopping.is_none() => {
                    active = Instant::now();
                    stopping = Some(active);
                }
                () = tokio::time::sleep(QUIET / 4), if stopping.is_some() => {}
            }
        }
        self.keep_time();
        self.around.scribe.finish().await;
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Request(inbound) => self.request(inbound),
            Input::Worked(worked) => self.worked(worked),
            Input::Searched(ticket, probes, event, took) => {
                if let Some(sensitive) = self.work.sensitive(ticket) {
                    sensitive.probes = probes;
                }
                self.step(ticket, "search", took);
                self.decide(event);
            }
            Input::Done(done) => self.done(done),
            Input::Fetched(ticket, fetched) => self.fetched(ticket, fetched),
            Input::Shard(shard) => self.shard(shard),
            Input::Joined(terminal, at) => {
                self.around.scribe.submit(Deed::Joined(terminal, at));
            }
            Input::Roster(hash) => {
                self.around.scribe.submit(Deed::Roster(hash, clock::now()));
                self.around.fabric.give_roster();
            }
            Input::Fact(event) => {
                if let Event::TerminalRemoved(terminal) = &event {
                    self.around.scribe.submit(Deed::Removed(terminal.clone(), clock::now()));
                }
                self.decide(event);
            }
            Input::Due(ticket, body) => self.answer(ticket, body),
            Input::Sent(mut steps, arrived, sent) => {
                steps.add("seal", sent.seal);
                steps.add("publish", sent.publish);
                steps.add("total", arrived.elapsed());
                self.around.metrics.scanned(steps);
            }
            Input::Standing(reply) => {
                let _ = reply.send(self.engine.standing());
            }
            Input::Office(asked) => self.office(asked),
        }
    }

    fn tick(&mut self) {
        self.decide(Event::Tick);
        self.around.clock.observe(self.engine.time_seen());
        self.keep_time_now_and_then();
        self.look_at_duties();
        self.around.scribe.submit(Deed::Flush);
        let counts = Counts {
            rows: self.around.references.len(),
            complete: self.around.references.are_complete(),
            terminals: self.around.fabric.terminals(),
            waiting: self.around.workers.waiting(),
            ledger: self.around.scribe.entries(),
            forgotten: self.around.forgotten.len(),
        };
        self.around.metrics.standing(&self.engine.standing(), &counts);
    }

    fn decide(&mut self, event: Event) {
        let begun = Instant::now();
        let ticket = match &event {
            Event::Identified(ticket, _) | Event::Compared(ticket, _) => Some(*ticket),
            _ => None,
        };
        let commands = self.engine.handle(event, clock::now());
        if let Some(ticket) = ticket {
            self.step(ticket, "decide", begun.elapsed());
        }
        for command in commands {
            self.execute(command);
        }
    }

    fn step(&mut self, ticket: Ticket, step: &'static str, took: Duration) {
        if let Some(asker) = self.work.asker(ticket) {
            asker.steps.add(step, took);
        }
    }

    fn request(&mut self, inbound: Inbound) {
        let Inbound { terminal, request, arrived, open } = inbound;
        let mut steps = StepTimes::default();
        steps.add("open", open);
        let slots = match request.body {
            RequestBody::Scan(_) => self.around.slots,
            _ => Slots::default(),
        };
        let (terminal, capture) = (terminal.clone(), request.capture);
        let asker = Asker { terminal, capture, arrived, about: None, steps, slots };
        let said = Said { at: request.at, challenge: request.challenge };
        match request.body {
            RequestBody::Ping => {
                let ticket = self.work.open(asker, Sensitive::default());
                self.work.wipe(ticket);
                self.reply(ticket, AnswerBody::Done);
            }
            RequestBody::Scan(scan) => self.scan(asker, &said, scan),
            RequestBody::Enrol(enrolment) => self.enrol(asker, &said, enrolment),
            RequestBody::Renew(renewal) => self.renew(asker, renewal),
        }
    }

    /// Certificates are no business of the policy's: a terminal that is paired stays so.
    fn renew(&mut self, asker: Asker, renewal: Renewal) {
        let name = asker.terminal.clone();
        let ticket = self.work.open(asker, Sensitive::default());
        self.work.wipe(ticket);
        let (terminals, inputs) = (Arc::clone(&self.around.terminals), self.around.inputs.clone());
        let metrics = Arc::clone(&self.around.metrics);
        tokio::task::spawn_blocking(move || {
            let body = match terminals.renew(&name, &renewal) {
                Ok(None) => AnswerBody::Done,
                Ok(Some(chain_der)) => {
                    metrics.renewed(Certificate::Terminal, true);
                    AnswerBody::Renewed { chain_der }
                }
                Err(error) => {
                    metrics.renewed(Certificate::Terminal, false);
                    tracing::warn!(terminal = %name, %error, "no new certificate");
                    AnswerBody::Refused { reason: error.refusal() }
                }
            };
            let _ = inputs.send(Input::Done(Done::Answer(ticket, body)));
        });
    }

    fn scan(&mut self, asker: Asker, said: &Said, scan: Scan) {
        let at = said.at;
        let sensor = self.sensor(&asker.terminal, said, scan.verdict.as_ref(), scan.frames.iter());
        let (presented, claim) = self.read_claim(scan.claim.as_ref().map(Biometric::expose));
        let card_number = records::scan_holds_card_number(&scan);
        let possession = match (&scan.possession, &claim) {
            (None, _) => Proof::None,
            (Some(proof), Some(Claim { possession: Some(key), .. })) => {
                let challenge = Challenge::new(asker.capture, at, &scan.intent);
                let proven = challenge.verify(key, proof).is_ok();
                if proven { Proof::Valid } else { Proof::Invalid }
            }
            (Some(_), _) => Proof::Invalid,
        };
        let facts = ScanFacts {
            terminal: asker.terminal.clone(),
            at,
            intent: scan.intent,
            claim: presented,
            ask_cloud: scan.ask_cloud,
            frames: scan.frames.len(),
            authenticated: scan.authenticated,
            card_number,
            possession,
            sensor,
        };
        let right = facts.intent.purpose().is_none();
        let sensitive = Sensitive { frames: scan.frames, claim, right, ..Sensitive::default() };
        let ticket = self.work.open(asker, sensitive);
        self.decide(Event::Scan(ticket, facts));
    }

    /// What a sensor of the terminal vouches for. Whatever is wrong with a verdict, it does not count,
    /// and nobody is told anything else for it.
    fn sensor<'a>(
        &self,
        terminal: &Name,
        said: &Said,
        verdict: Option<&Biometric<Vec<u8>>>,
        frames: impl Iterator<Item = &'a Frame>,
    ) -> Sensor {
        let Some(verdict) = verdict else { return Sensor::Silent };
        let sensors = self.around.terminals.sensors(terminal);
        // Where no sensor counts, nobody asks for the pictures.
        let frames = frames.filter(|_| !sensors.is_empty());
        let pictures: Vec<_> =
            frames.map(|frame| PictureHash::of(frame.picture.expose())).collect();
        let (challenge, now) = (said.challenge, self.around.clock.now());
        let about = About { challenge, pictures: &pictures, now };
        let (sensor, outcome) = match about.read(verdict.expose(), &sensors) {
            Ok(Verdict { living: true, .. }) => (Sensor::Living, "living"),
            Ok(Verdict { living: false, .. }) => (Sensor::Attack, "attack"),
            Err(error) => (Sensor::Silent, error.as_str()),
        };
        self.around.metrics.vouched(outcome);
        sensor
    }

    /// A claim that verifies and names nobody who was erased.
    fn read_claim(&self, token: Option<&Vec<u8>>) -> (ClaimPresented, Option<Claim>) {
        let Some(token) = token else { return (ClaimPresented::None, None) };
        let issuers = self.around.issuers.read().unwrap_or_else(PoisonError::into_inner);
        match claim::read(token, &issuers, &self.around.tenant) {
            Ok(claim) if !self.around.forgotten.claim(&claim.handle) => {
                let facts = ClaimFacts {
                    handle: claim.handle,
                    custody: claim.custody,
                    purposes: claim.purposes,
                    expires_at: claim.expires_at,
                };
                (ClaimPresented::Valid(facts), Some(claim))
            }
            _ => (ClaimPresented::Invalid, None),
        }
    }

    fn enrol(&mut self, asker: Asker, said: &Said, enrolment: Enrolment) {
        let at = said.at;
        let frames = enrolment.captures.iter().flat_map(|capture| &capture.frames);
        let sensor = self.sensor(&asker.terminal, said, enrolment.verdict.as_ref(), frames);
        let ids = FreshIds {
            member: MemberId::from_random(random::bytes()),
            claim: ClaimHandle::from_random(random::bytes()),
            pseudonyms: std::array::from_fn(|_| Pseudonym::from_random(random::bytes())),
            salt: random::bytes(),
        };
        let card_number = records::holds_card_number(&enrolment);
        let (replaces, claim) = match &enrolment.replaces {
            None => (None, None),
            Some(replaces) => {
                let token = replaces.claim.as_ref().map(Biometric::expose);
                let (presented, claim) = self.read_claim(token);
                (Some(presented), claim)
            }
        };
        let facts = EnrolmentFacts {
            terminal: asker.terminal.clone(),
            at,
            captures: enrolment.captures.iter().map(|capture| capture.hand).collect(),
            frames: enrolment.captures.iter().map(|capture| capture.frames.len()).sum(),
            card_number,
            card_token: enrolment.card_token.is_some(),
            consents: enrolment.consents,
            age: enrolment.age,
            authorisation: enrolment.authorisation,
            release: enrolment.release.as_ref().map(|release| ReleaseFacts {
                named: release.name.expose().iter().any(|byte| !byte.is_ascii_whitespace()),
                signed_at: release.signed_at,
                complete: release.purpose_stated && release.duration_stated,
            }),
            replaces,
            sensor,
            ids: ids.clone(),
        };
        let mut person = NewPerson::new(ids, enrolment.card_token, enrolment.phone);
        (person.release, person.possession) = (enrolment.release, enrolment.possession);
        let sensitive = Sensitive {
            captures: enrolment.captures,
            claim,
            enrolment: Some(person),
            ..Sensitive::default()
        };
        let ticket = self.work.open(asker, sensitive);
        self.decide(Event::Enrol(ticket, Box::new(facts)));
    }

    fn worked(&mut self, worked: Worked) {
        match worked {
            Worked::Scan(ticket, Ok((worked, waited))) => {
                let Timed { steps, protect } = worked.timed;
                self.step(ticket, "wait", waited);
                for (step, took) in [
                    ("decode", steps.decode),
                    ("detect", steps.detect),
                    ("landmarks", steps.landmarks),
                    ("region", steps.region),
                    ("embed", steps.embed),
                    ("code", steps.code),
                ] {
                    self.step(ticket, step, took);
                }
                self.step(ticket, "protect", protect);
                if let Some(sensitive) = self.work.sensitive(ticket) {
                    sensitive.probes = worked.probes;
                }
                self.decide(Event::Extracted(ticket, Ok(facts(worked.facts))));
            }
            Worked::Scan(ticket, Err(problem)) => {
                self.decide(Event::Extracted(ticket, Err(problem)));
            }
            Worked::Shed(ticket) => {
                self.around.metrics.shed("extraction");
                self.decide(Event::Overloaded(ticket));
            }
            Worked::Enrolment(ticket, Ok(worked)) => {
                if let Some(sensitive) = self.work.sensitive(ticket) {
                    sensitive.templates = worked.templates;
                    sensitive.probes = worked.probes;
                }
                self.decide(Event::EnrolmentExtracted(ticket, Ok(facts(worked.facts))));
            }
            Worked::Enrolment(ticket, Err(problem)) => {
                self.decide(Event::EnrolmentExtracted(ticket, Err(problem)));
            }
            Worked::Lost(ticket) => self.decide(Event::Overloaded(ticket)),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Stored { member, ticket, result } => {
                if result.is_err() {
                    self.around.references.remove(member);
                }
                self.decide(Event::Stored(ticket, result));
            }
            Done::Erased { member, ticket, result } => {
                let result = result.map(|receipt| {
                    if let Some(ticket) = ticket {
                        self.reply(ticket, AnswerBody::Erased { receipt });
                    }
                    // Whatever the person said and was told may lie at a terminal or on the way, and
                    // opens with the keys of the sessions until now.
                    self.around.fabric.begin_anew();
                });
                self.decide(Event::Erased(member, result));
            }
            Done::Told => {
                if let Some(cloud) = &self.around.cloud {
                    cloud.outbox_changed();
                }
            }
            Done::LogWritable(writable) => {
                self.around.metrics.log_writable(writable);
                self.decide(Event::LogWritable(writable));
            }
            Done::Answer(ticket, body) => self.reply(ticket, body),
        }
    }

    fn fetched(&mut self, ticket: Ticket, fetched: Fetched) {
        let resolved = match fetched {
            Fetched::NotFound => Resolved::NotFound,
            Fetched::Unreachable => Resolved::Unreachable,
            Fetched::Operator(record) => self.keep_fetched(ticket, record, None),
            Fetched::Sealed(sealed) => {
                let claim = self.work.sensitive(ticket).and_then(|kept| kept.claim.as_ref());
                let record = claim.and_then(|claim| {
                    let key = claim.key.as_ref()?;
                    records::open_sealed(key, &self.around.tenant, claim.handle, &sealed)
                });
                match record {
                    Some(record) => self.keep_fetched(ticket, record, Some(sealed)),
                    None => Resolved::NotFound,
                }
            }
        };
        self.decide(Event::Resolved(ticket, resolved));
    }

    fn keep_fetched(
        &mut self,
        ticket: Ticket,
        record: MemberRecord,
        sealed: Option<Vec<u8>>,
    ) -> Resolved {
        if self.around.forgotten.member(&record.member) {
            return Resolved::NotFound;
        }
        let Some(kept) = self.work.sensitive(ticket) else { return Resolved::NotFound };
        let custody = match (&kept.claim, &sealed) {
            (Some(claim), _) => claim.custody,
            (None, Some(_)) => palmgate_protocol::Custody::Split,
            (None, None) => palmgate_protocol::Custody::Operator,
        };
        let facts = records::facts(&record, custody);
        kept.fetched = Some(record);
        kept.fetched_sealed = sealed;
        Resolved::Found(Box::new(facts))
    }

    fn shard(&mut self, mut shard: ShardReceived) {
        let forgotten = &self.around.forgotten;
        shard.people.retain(|person| !forgotten.member(&person.member));
        let custody = palmgate_protocol::Custody::Operator;
        let event = Event::ShardOffered {
            version: shard.version,
            lease_until: shard.lease_until,
            whole: shard.whole,
            people: shard.people.iter().map(|person| records::facts(person, custody)).collect(),
            removed: shard.removed.clone(),
        };
        self.offered = Some(shard);
        self.decide(event);
        // Refused or taken over: the templates in it are not kept here.
        self.offered = None;
    }
}
