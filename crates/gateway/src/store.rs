//! The one task that owns the store's state: facts come in as inputs, the policy decides, commands
//! are carried out. Nothing here decides about people.

use crate::{
    clock,
    cloud::{CloudHandle, Fetched, ShardReceived},
    extraction::{Job, Worked, Workers},
    fabric::{Fabric, Inbound, Outbound, Sent},
    forgotten::Forgotten,
    metrics::{Counts, Metrics},
    records,
    references::References,
    scribe::{Deed, Done, Scribe},
    work::{Asker, InWork, NewPerson, Sensitive, StepTimes},
};
use palmgate_policy::{
    ClaimFacts, ClaimPresented, Command, Decision, Engine, EnrolmentFacts, Event, FreshIds, Match,
    Resolved, ScanFacts, Source, Ticket,
};
use palmgate_protocol::{
    ClaimHandle, MemberId, Name, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::MemberRecord,
    terminal::{Accepted, Answer, AnswerBody, Enrolment, IssuedClaim, Payment, RequestBody, Scan},
};
use palmgate_seal::{
    claim::{self, Claim},
    random,
    sign::{SigningKey, VerifyingKey},
};
use palmgate_vault::{Column, Vault};
use std::{
    collections::HashMap,
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
    /// A fact about terminals from the control interface.
    Fact(Event),
    /// The last steps of an answer.
    Sent(StepTimes, Instant, Sent),
    /// Somebody asks for the standing.
    Standing(oneshot::Sender<palmgate_policy::Standing>),
}

/// Fixed at start.
pub(crate) struct Surroundings {
    pub(crate) tenant: Name,
    pub(crate) store: Name,
    pub(crate) signing_key: SigningKey,
    pub(crate) record_key: palmgate_seal::aead::Key,
    pub(crate) issuers: Arc<RwLock<Vec<VerifyingKey>>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) references: Arc<References>,
    pub(crate) workers: Workers,
    pub(crate) scribe: Scribe,
    pub(crate) cloud: Option<CloudHandle>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
}

pub(crate) struct Store {
    engine: Engine,
    work: InWork,
    around: Surroundings,
    shards: HashMap<u64, ShardReceived>,
}

impl Store {
    pub(crate) fn new(engine: Engine, around: Surroundings) -> Self {
        Self { engine, work: InWork::default(), around, shards: HashMap::new() }
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
            Input::Fact(event) => self.decide(event),
            Input::Sent(mut steps, arrived, sent) => {
                steps.add("seal", sent.seal);
                steps.add("persist", sent.persist);
                steps.add("publish", sent.publish);
                steps.add("total", arrived.elapsed());
                self.around.metrics.scanned(steps);
            }
            Input::Standing(reply) => {
                let _ = reply.send(self.engine.standing());
            }
        }
    }

    fn tick(&mut self) {
        self.decide(Event::Tick);
        self.around.scribe.submit(Deed::Flush);
        let counts = Counts {
            rows: self.around.references.len(),
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
        let asker = Asker { terminal: terminal.clone(), capture: request.capture, arrived, steps };
        match request.body {
            RequestBody::Ping => {
                let ticket = self.work.open(asker, Sensitive::default());
                self.work.wipe(ticket);
                self.reply(ticket, AnswerBody::Done);
            }
            RequestBody::Scan(scan) => self.scan(asker, request.at, scan),
            RequestBody::Enrol(enrolment) => self.enrol(asker, request.at, enrolment),
        }
    }

    fn scan(&mut self, asker: Asker, at: Timestamp, scan: Scan) {
        let (presented, claim) =
            self.read_claim(scan.claim.as_ref().map(palmgate_protocol::Biometric::expose));
        let facts = ScanFacts {
            terminal: asker.terminal.clone(),
            at,
            intent: scan.intent,
            claim: presented,
            ask_cloud: scan.ask_cloud,
            frames: scan.frames.len(),
            authenticated: scan.authenticated,
        };
        let sensitive = Sensitive { frames: scan.frames, claim, ..Sensitive::default() };
        let ticket = self.work.open(asker, sensitive);
        self.decide(Event::Scan(ticket, facts));
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

    fn enrol(&mut self, asker: Asker, at: Timestamp, enrolment: Enrolment) {
        let ids = FreshIds {
            member: MemberId::from_random(random::bytes()),
            claim: ClaimHandle::from_random(random::bytes()),
            pseudonyms: std::array::from_fn(|_| Pseudonym::from_random(random::bytes())),
            salt: random::bytes(),
        };
        let facts = EnrolmentFacts {
            terminal: asker.terminal.clone(),
            at,
            captures: enrolment.captures.iter().map(|capture| capture.hand).collect(),
            frames: enrolment.captures.iter().map(|capture| capture.frames.len()).sum(),
            card_number: records::holds_card_number(&enrolment),
            card_token: enrolment.card_token.is_some(),
            consents: enrolment.consents,
            age: enrolment.age,
            authorisation: enrolment.authorisation,
            ids: ids.clone(),
        };
        let person = NewPerson::new(ids, enrolment.card_token, enrolment.phone);
        let sensitive = Sensitive {
            captures: enrolment.captures,
            enrolment: Some(person),
            ..Sensitive::default()
        };
        let ticket = self.work.open(asker, sensitive);
        self.decide(Event::Enrol(ticket, Box::new(facts)));
    }

    fn worked(&mut self, worked: Worked) {
        match worked {
            Worked::Scan(ticket, Ok(worked)) => {
                let steps = worked.steps;
                self.step(ticket, "wait", worked.waited);
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
                self.step(ticket, "protect", worked.protect);
                if let Some(sensitive) = self.work.sensitive(ticket) {
                    sensitive.probes = worked.probes;
                }
                self.decide(Event::Extracted(ticket, Ok(worked.facts)));
            }
            Worked::Scan(ticket, Err(problem)) => {
                self.decide(Event::Extracted(ticket, Err(problem)));
            }
            Worked::Enrolment(ticket, Ok(worked)) => {
                if let Some(sensitive) = self.work.sensitive(ticket) {
                    sensitive.templates = worked.templates;
                    sensitive.probes = worked.probes;
                }
                self.decide(Event::EnrolmentExtracted(ticket, Ok(worked.facts)));
            }
            Worked::Enrolment(ticket, Err(problem)) => {
                self.decide(Event::EnrolmentExtracted(ticket, Err(problem)));
            }
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
                });
                self.decide(Event::Erased(member, result));
            }
            Done::ShardAdopted(version) => {
                self.shards.remove(&version);
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
            Done::History(ticket, uses, consents) => {
                self.reply(ticket, AnswerBody::History { uses, consents });
            }
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
        self.shards.insert(shard.version, shard);
        self.decide(event);
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Extract(ticket, purposes) => self.extract(ticket, purposes),
            Command::ExtractEnrolment(ticket, purposes) => self.extract_enrolment(ticket, purposes),
            Command::Identify(ticket, purposes) => self.identify(ticket, purposes),
            Command::Compare(ticket, purposes, source) => self.compare(ticket, purposes, source),
            Command::OpenCarried(ticket) => self.open_carried(ticket),
            Command::EscalateProbe(ticket, purpose, claim) => {
                self.escalate(ticket, purpose, claim);
            }
            Command::FetchRecord(ticket, claim) => match &self.around.cloud {
                Some(cloud) => cloud.fetch(ticket, claim),
                None => self.fetched(ticket, Fetched::Unreachable),
            },
            Command::Accept { ticket, member, purpose, pseudonym, payment } => {
                self.accept(ticket, member, purpose, pseudonym, payment);
            }
            Command::Reply(ticket, body) => self.reply(ticket, body),
            Command::ReplyHistory(ticket, member, consents) => {
                self.around.scribe.submit(Deed::ReadHistory { ticket, member, consents });
            }
            Command::ReplyEnrolled(ticket) => {
                let claims = self.issue_claims(ticket);
                self.reply(ticket, AnswerBody::Enrolled { claims });
            }
            Command::Store(ticket, member, profile) => self.store(ticket, member, *profile),
            Command::Adopt(ticket, member, profile) => self.adopt(ticket, member, *profile),
            Command::AdoptShard(version, people) => self.adopt_shard(version, people),
            Command::Update(member, profile) => {
                self.around.scribe.submit(Deed::Update(member, *profile));
            }
            Command::RemovePurposes(ticket, member, purposes, profile) => {
                self.remove_purposes(ticket, member, purposes, &profile);
            }
            Command::Erase { member, claim, salt, rule, ticket, relay } => {
                self.around.references.remove(member);
                self.around.metrics.erased(rule.id());
                self.around.scribe.submit(Deed::Erase {
                    member,
                    claim,
                    salt,
                    rule,
                    ticket,
                    relay: relay && self.around.cloud.is_some(),
                });
            }
            Command::Wipe(ticket) => self.work.wipe(ticket),
            Command::Log(decision) => self.log(decision),
        }
    }

    fn log(&self, decision: Decision) {
        self.around.metrics.decided(&decision);
        self.around.scribe.submit(Deed::Log { decision, at: clock::now() });
    }

    fn extract(&mut self, ticket: Ticket, purposes: PurposeSet) {
        let Some(sensitive) = self.work.sensitive(ticket) else { return };
        let frames = std::mem::take(&mut sensitive.frames);
        self.submit(ticket, Job::Scan { ticket, frames, purposes, queued: Instant::now() });
    }

    fn extract_enrolment(&mut self, ticket: Ticket, purposes: PurposeSet) {
        let Some(sensitive) = self.work.sensitive(ticket) else { return };
        let captures = std::mem::take(&mut sensitive.captures);
        self.submit(ticket, Job::Enrolment { ticket, captures, purposes });
    }

    fn submit(&mut self, ticket: Ticket, job: Job) {
        if self.around.workers.submit(job).is_err() {
            self.around.metrics.shed("extraction");
            self.decide(Event::Overloaded(ticket));
        }
    }

    fn identify(&mut self, ticket: Ticket, purposes: PurposeSet) {
        let Some(sensitive) = self.work.sensitive(ticket) else { return };
        let mut probes = std::mem::take(&mut sensitive.probes);
        let (references, inputs) =
            (Arc::clone(&self.around.references), self.around.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            probes.retain(|(purpose, _)| purposes.contains(*purpose));
            let matches: Vec<Match> = references.identify(&probes);
            let event = Event::Identified(ticket, matches);
            let _ = inputs.send(Input::Searched(ticket, probes, event, begun.elapsed()));
        });
    }

    fn compare(&mut self, ticket: Ticket, purposes: PurposeSet, source: Source) {
        let begun = Instant::now();
        let scores = self.scores(ticket, purposes, source).unwrap_or_default();
        self.step(ticket, "compare", begun.elapsed());
        self.decide(Event::Compared(ticket, scores));
    }

    fn scores(
        &mut self,
        ticket: Ticket,
        purposes: PurposeSet,
        source: Source,
    ) -> Option<Vec<(Purpose, f32)>> {
        let around = &self.around;
        let sensitive = self.work.sensitive(ticket)?;
        let claim = sensitive.claim.as_ref();
        let opened = match source {
            Source::Fetched => None,
            Source::Carried => {
                let claim = claim?;
                let sealed = claim.sealed_record.as_deref()?;
                let (key, tenant) = (&around.record_key, &around.tenant);
                Some(records::open_sealed(key, tenant, claim.handle, sealed)?.templates)
            }
            Source::Held(member) => {
                Some(records::held(&around.vault, &around.tenant, member, claim, purposes)?)
            }
        };
        let templates = match &opened {
            Some(templates) => templates,
            None => &sensitive.fetched.as_ref()?.templates,
        };
        Some(records::compare(&sensitive.probes, templates, purposes, around.references.fusion()))
    }

    fn open_carried(&mut self, ticket: Ticket) {
        let around = &self.around;
        let claim = self.work.sensitive(ticket).and_then(|kept| kept.claim.as_ref());
        let record = claim.and_then(|claim| {
            let sealed = claim.sealed_record.as_deref()?;
            records::open_sealed(&around.record_key, &around.tenant, claim.handle, sealed)
        });
        let resolved = match record {
            Some(record) => self.keep_fetched(ticket, record, None),
            None => Resolved::NotFound,
        };
        self.decide(Event::Resolved(ticket, resolved));
    }

    fn escalate(&mut self, ticket: Ticket, purpose: Purpose, claim: ClaimHandle) {
        let query = self.around.cloud.as_ref().and_then(|cloud| {
            let probes = &self.work.sensitive(ticket)?.probes;
            let (_, probe) = probes.iter().find(|(of, _)| *of == purpose)?;
            Some((cloud.clone(), cloud.seal_probe(probe, purpose, claim)?))
        });
        match query {
            Some((cloud, query)) => cloud.resolve(ticket, query),
            None => self.fetched(ticket, Fetched::Unreachable),
        }
    }

    fn accept(
        &mut self,
        ticket: Ticket,
        member: Option<MemberId>,
        purpose: Purpose,
        pseudonym: Pseudonym,
        payment: Option<Payment>,
    ) {
        let now = clock::now();
        let around = &self.around;
        let terminal = self.work.asker(ticket).map(|asker| asker.terminal.clone());
        let card_token = payment.as_ref().and_then(|_| {
            let fetched = self.work.sensitive(ticket).and_then(|kept| kept.fetched.as_ref());
            if let Some(record) = fetched {
                return record.card_token.as_ref().map(|token| token.expose().clone());
            }
            let read = around.vault.read(&member?, Column::CardToken);
            read.ok().flatten().map(|token| token.expose().clone())
        });
        let assertion =
            payment.map(|payment| records::assertion(payment, pseudonym, now, &around.signing_key));
        if let (Some(member), Some(terminal)) = (member, terminal) {
            let at_terminal = terminal.as_str().to_owned();
            let used = palmgate_protocol::terminal::Use { at: now, terminal: at_terminal, purpose };
            around.scribe.submit(Deed::Use(member, used));
        }
        let accepted = Accepted {
            pseudonym: palmgate_protocol::terminal::PseudonymText(pseudonym),
            card_token: card_token.and_then(records::card_token),
            assertion,
        };
        self.reply(ticket, AnswerBody::Accepted(accepted));
    }

    fn issue_claims(&mut self, ticket: Ticket) -> Vec<IssuedClaim> {
        let around = &self.around;
        let person = self.work.sensitive(ticket).and_then(|kept| kept.enrolment.as_mut());
        let now = clock::now();
        person.map_or_else(Vec::new, |person| {
            records::issue_claims(person, &around.tenant, &around.store, now, &around.signing_key)
        })
    }

    fn store(&mut self, ticket: Ticket, member: MemberId, profile: palmgate_policy::Profile) {
        let Some(sensitive) = self.work.sensitive(ticket) else { return };
        let around = &self.around;
        let Some(prepared) = records::prepare(sensitive, &profile, around) else { return };
        for (purpose, hand, template) in prepared.open {
            if let Err(error) = around.references.put(member, purpose, hand, &template) {
                tracing::error!(%error, "the enrolment is refused");
                around.references.remove(member);
                return self.decide(Event::Stored(ticket, Err(())));
            }
        }
        let (columns, registration) = (prepared.columns, prepared.registration);
        let claim = profile.claim;
        self.around.scribe.submit(Deed::Insert { ticket, member, claim, columns, registration });
    }

    fn adopt(&mut self, ticket: Ticket, member: MemberId, profile: palmgate_policy::Profile) {
        let Some(sensitive) = self.work.sensitive(ticket) else { return };
        let Some(record) = &sensitive.fetched else { return };
        let sealed = sensitive.fetched_sealed.as_deref();
        let columns = records::columns_of(record, &profile, sealed);
        if sealed.is_none() {
            records::put_open(&self.around.references, member, record);
        }
        self.around.scribe.submit(Deed::Adopt { people: vec![(member, profile.claim, columns)] });
    }

    fn adopt_shard(&mut self, version: u64, people: Vec<(MemberId, palmgate_policy::Profile)>) {
        let Some(shard) = self.shards.get(&version) else { return };
        let records: HashMap<MemberId, &MemberRecord> =
            shard.people.iter().map(|record| (record.member, record)).collect();
        let mut adopted = Vec::with_capacity(people.len());
        for (member, profile) in people {
            let Some(record) = records.get(&member) else { continue };
            records::put_open(&self.around.references, member, record);
            adopted.push((member, profile.claim, records::columns_of(record, &profile, None)));
        }
        let (manifest_hash, lease_until) = (shard.manifest_hash, shard.lease_until);
        let deed = Deed::AdoptShard { version, manifest_hash, lease_until, people: adopted };
        self.around.scribe.submit(deed);
    }

    fn remove_purposes(
        &mut self,
        ticket: Ticket,
        member: MemberId,
        purposes: PurposeSet,
        profile: &palmgate_policy::Profile,
    ) {
        self.around.references.remove_purposes(member, purposes);
        let around = &self.around;
        let claim = self.work.sensitive(ticket).and_then(|kept| kept.claim.as_ref());
        let (gone, changed, registration) =
            records::without_purposes(around, member, purposes, profile, claim);
        let deed = Deed::Withdraw { member, gone, changed, registration };
        self.around.scribe.submit(deed);
    }

    fn reply(&mut self, ticket: Ticket, body: AnswerBody) {
        let Some(asker) = self.work.answered(ticket) else { return };
        let (sent, times) = oneshot::channel();
        let answer = Answer { capture: asker.capture, body };
        self.around.fabric.answer(&asker.terminal, Outbound { answer, sent });
        let (inputs, steps, arrived) = (self.around.inputs.clone(), asker.steps, asker.arrived);
        tokio::spawn(async move {
            if let Ok(times) = times.await {
                let _ = inputs.send(Input::Sent(steps, arrived, times));
            }
        });
    }
}
