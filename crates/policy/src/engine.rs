use crate::{
    Command, Decision, DecisionKind, Doubt, Event, Law, Origin, Pack, Profile, Rule, Settings,
    Spent, TerminalFacts, Ticket, TimeSeen, Visitor, enrolment::EnrolmentWork, rules,
    scan::ScanWork, tries::Tries,
};
use palmgate_protocol::{
    ClaimHandle, Custody, MemberId, Name, Timestamp,
    limits::FRAMES_LIFETIME,
    terminal::{AnswerBody, Refusal},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Work may take this long before its frames and secrets are wiped and the terminal is told.
const WORK_LIFETIME: Duration = FRAMES_LIFETIME;

/// The state that decisions depend on, and the decisions.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) law: Law,
    pub(crate) people: BTreeMap<MemberId, Profile>,
    pub(crate) claims: BTreeMap<ClaimHandle, MemberId>,
    pub(crate) terminals: BTreeMap<Name, Terminal>,
    pub(crate) work: BTreeMap<Ticket, (Timestamp, Work)>,
    pub(crate) tries: BTreeMap<ClaimHandle, Tries>,
    /// Of readers before a restart, until they are known again.
    pub(crate) reader_tries: BTreeMap<Name, Tries>,
    pub(crate) erasing: BTreeMap<MemberId, Erasing>,
    pub(crate) lease_until: Option<Timestamp>,
    /// Without a ledger entry there is no decision: scans and enrolments wait, rights do not.
    pub(crate) log_writable: bool,
    /// Payments of people whose records stay in their tokens.
    pub(crate) visitors: BTreeMap<MemberId, Visitor>,
    /// A jump of the clock that no signed time has confirmed.
    pub(crate) doubt: Option<Doubt>,
    /// Enrolments that correct another one which is not erased yet.
    pub(crate) replacing: BTreeMap<MemberId, MemberId>,
    latest: Timestamp,
}

pub(crate) struct Terminal {
    pub(crate) facts: TerminalFacts,
    pub(crate) tries: Tries,
}

/// An erasure that was decided and is not yet durable.
pub(crate) struct Erasing {
    pub(crate) claim: ClaimHandle,
    pub(crate) salt: [u8; 32],
    pub(crate) rule: Rule,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) relay: bool,
    pub(crate) exported: bool,
    pub(crate) failed: bool,
}

pub(crate) enum Work {
    Scan(Box<ScanWork>),
    Enrolment(Box<EnrolmentWork>),
}

/// What can be told in public about a store: the counter on the door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// People enrolled, by [`Custody`] in wire order.
    pub people: [usize; 3],
    /// People given by the cloud.
    pub from_cloud: usize,
    /// The oldest enrolment.
    pub oldest: Option<Timestamp>,
    /// When the first enrolment must be erased.
    pub soonest_expiry: Option<Timestamp>,
    /// Erasures decided and not yet durable.
    pub erasing: usize,
    /// Requests in work.
    pub in_work: usize,
    /// When the shard locks itself.
    pub lease_until: Option<Timestamp>,
    /// The clock jumped, and no signed time has confirmed it.
    pub clock_doubted: bool,
}

impl Engine {
    /// An engine that knows nobody, under the pack that is built in.
    pub fn new(settings: Settings) -> Self {
        Self::with_pack(settings, Pack::embedded())
    }

    /// An engine that knows nobody, under this pack.
    pub fn with_pack(settings: Settings, pack: Arc<Pack>) -> Self {
        Self {
            law: Law::new(pack, &settings.store_facts()),
            settings,
            people: BTreeMap::new(),
            claims: BTreeMap::new(),
            terminals: BTreeMap::new(),
            work: BTreeMap::new(),
            tries: BTreeMap::new(),
            reader_tries: BTreeMap::new(),
            erasing: BTreeMap::new(),
            lease_until: None,
            log_writable: true,
            visitors: BTreeMap::new(),
            doubt: None,
            replacing: BTreeMap::new(),
            latest: Timestamp::from_millis(0),
        }
    }

    /// The pack in force.
    pub const fn pack(&self) -> &Arc<Pack> {
        self.law.pack()
    }

    /// The pack in force, bound to the store.
    pub const fn law(&self) -> &Law {
        &self.law
    }

    /// What has to be known of time after a restart.
    pub const fn time_seen(&self) -> TimeSeen {
        TimeSeen { latest: self.latest.as_millis(), doubt: self.doubt }
    }

    /// Decides. `now` is the gateway's clock; a clock that runs backwards is held at the latest time
    /// seen, so that nothing expired comes back to life.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Command> {
        if let Event::TimeSeen(seen) = &event {
            // Before the clock of this start counts: it may have jumped while nobody looked.
            self.latest = self.latest.max(Timestamp::from_millis(seen.latest));
            self.doubt = self.doubt.or(seen.doubt);
        }
        let now = self.ratchet(now);
        match event {
            Event::TimeSeen(_) => (),
            Event::TimeConfirmed(at) => return self.confirm_time(at),
            Event::Authenticated(member) => return self.authenticated(member),
            Event::VisitorsLoaded(visitors) => {
                self.visitors = visitors.into_iter().map(|one| (one.member, one)).collect();
            }
            Event::TriesLoaded(tries) => self.load_tries(tries),
            Event::Decommissioned => return self.decommission(),
            Event::PackChanged(pack) => {
                self.law = Law::new(pack, &self.settings.store_facts());
                let rules = vec![rules::G_05_2];
                let decision = Decision::new(DecisionKind::Pack, "in-force", rules);
                return vec![Command::Log(decision)];
            }
            Event::Loaded(member, profile) => self.load(member, *profile),
            Event::LeaseLoaded(until) => self.lease_until = Some(until),
            Event::TerminalKnown(facts) => {
                self.know_terminal(facts);
            }
            Event::TerminalRemoved(name) => return self.remove_terminal(&name),
            Event::Scan(ticket, facts)
                if !self.log_writable && facts.intent.purpose().is_some() =>
            {
                return busy(ticket);
            }
            Event::Enrol(ticket, _) if !self.log_writable => return busy(ticket),
            Event::Scan(ticket, facts) => return self.scan(ticket, facts, now),
            Event::Enrol(ticket, facts) => return self.enrol(ticket, *facts, now),
            Event::Extracted(ticket, result) => return self.extracted(ticket, result),
            Event::EnrolmentExtracted(ticket, result) => {
                return self.enrolment_extracted(ticket, result);
            }
            Event::Identified(ticket, matches) => return self.identified(ticket, &matches, now),
            Event::Compared(ticket, scores) => return self.compared(ticket, &scores, now),
            Event::Resolved(ticket, resolved) => return self.resolved(ticket, resolved, now),
            Event::Overloaded(ticket) => return self.overloaded(ticket),
            Event::Stored(ticket, result) => return self.stored(ticket, result),
            Event::Erased(member, result) => return self.erased(member, result),
            Event::ShardOffered { version, lease_until, whole, people, removed } => {
                return self.shard_offered(version, lease_until, whole, people, &removed, now);
            }
            Event::LogWritable(writable) => return self.set_log_writable(writable),
            Event::Tick => return self.tick(now),
        }
        Vec::new()
    }

    /// Time never runs backwards here. A jump forward counts for refusing at once, and for erasing
    /// many people only once it is confirmed.
    fn ratchet(&mut self, now: Timestamp) -> Timestamp {
        if self.latest.as_millis() > 0 && now.since(self.latest) > self.pack().clock_jump() {
            let before = self.latest.as_millis();
            let left = self.pack().number("unconfirmed_erasures");
            let left = left.map_or(0, |number| number.value as u64);
            self.doubt.get_or_insert(Doubt { before, left });
        }
        self.latest = self.latest.max(now);
        self.latest
    }

    /// A signed time says what the clock should have said. It cannot lead back beyond the time
    /// before the jump, so that an old one brings nothing expired back to life.
    fn confirm_time(&mut self, at: Timestamp) -> Vec<Command> {
        let Some(doubt) = self.doubt else { return Vec::new() };
        if at.as_millis() < doubt.before {
            return Vec::new();
        }
        self.doubt = None;
        self.latest = at;
        let decision = Decision::new(DecisionKind::Office, "time-confirmed", vec![rules::G_05_E]);
        vec![Command::Log(decision)]
    }

    fn authenticated(&mut self, member: MemberId) -> Vec<Command> {
        if self.visitors.remove(&member).is_some() {
            return vec![self.keep_visitors()];
        }
        let Some(person) = self.people.get_mut(&member) else { return Vec::new() };
        if std::mem::take(&mut person.spent) == Spent::default() {
            return Vec::new();
        }
        vec![Command::Update(member, Box::new(person.clone()))]
    }

    pub(crate) fn keep_visitors(&self) -> Command {
        Command::KeepVisitors(self.visitors.values().copied().collect())
    }

    /// Forgets everybody (CNIL 2019-001: on unauthorised access, and at the end of the box's life).
    fn decommission(&mut self) -> Vec<Command> {
        let members: Vec<MemberId> = self.people.keys().copied().collect();
        let rules = vec![rules::C_RT_10E];
        let decision = Decision::new(DecisionKind::Office, "decommissioned", rules);
        let mut commands = vec![Command::Log(decision)];
        for member in members {
            commands.extend(self.erase(member, rules::C_RT_10E, None, true));
        }
        self.visitors.clear();
        commands.push(self.keep_visitors());
        commands
    }

    /// Figures for metrics and the public counter.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing {
            erasing: self.erasing.len(),
            in_work: self.work.len(),
            lease_until: self.lease_until,
            oldest: self.people.values().map(|person| person.enrolled_at).min(),
            clock_doubted: self.doubt.is_some(),
            soonest_expiry: self.people.values().map(|person| person.expires_at).min(),
            ..Standing::default()
        };
        for person in self.people.values() {
            standing.people[person.custody as usize] += 1;
            standing.from_cloud += usize::from(person.origin == Origin::Cloud);
        }
        standing
    }

    /// Whether a reader for payments is blocked by failed tries.
    pub fn under_attack(&self, now: Timestamp) -> bool {
        let most = self.settings.tries.saturating_mul(4);
        self.terminals.values().any(|terminal| self.recent(terminal.tries, now) >= most)
    }

    /// Whether a person is enrolled and not being erased.
    pub fn knows(&self, member: &MemberId) -> bool {
        self.people.contains_key(member)
    }

    pub(crate) fn load(&mut self, member: MemberId, profile: Profile) {
        self.claims.insert(profile.claim, member);
        if let Some(old) = profile.replaces {
            self.replacing.insert(member, old);
        }
        self.people.insert(member, profile);
    }

    /// Finishes corrections: the old enrolment goes, then the new one forgets that there was one.
    fn finish_replacing(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (member, old) in self.replacing.clone() {
            if self.people.contains_key(&old) {
                commands.extend(self.erase(old, rules::G_16, None, true));
            } else if !self.erasing.contains_key(&old) {
                self.replacing.remove(&member);
                if let Some(person) = self.people.get_mut(&member) {
                    person.replaces = None;
                    commands.push(Command::Update(member, Box::new(person.clone())));
                }
            }
        }
        commands
    }

    /// Starts the erasure of a person: from here on nobody matches them.
    pub(crate) fn erase(
        &mut self,
        member: MemberId,
        rule: Rule,
        ticket: Option<Ticket>,
        relay: bool,
    ) -> Vec<Command> {
        let Some(profile) = self.people.remove(&member) else { return Vec::new() };
        self.claims.remove(&profile.claim);
        let tries = self.forget_tries(&profile.claim);
        self.replacing.remove(&member);
        let (claim, salt, exported) = (profile.claim, profile.salt, profile.exported);
        let erasing = Erasing { claim, salt, rule, ticket, relay, exported, failed: false };
        self.erasing.insert(member, erasing);
        let erase = Command::Erase { member, claim, salt, rule, ticket, relay, exported };
        [erase].into_iter().chain(tries).collect()
    }

    fn erased(&mut self, member: MemberId, result: Result<(), ()>) -> Vec<Command> {
        if result.is_ok() {
            self.erasing.remove(&member);
            return self.finish_replacing();
        }
        let Some(erasing) = self.erasing.get_mut(&member) else { return Vec::new() };
        erasing.failed = true;
        let refused = AnswerBody::Refused { reason: Refusal::Internal };
        erasing.ticket.take().map(|ticket| Command::Reply(ticket, refused)).into_iter().collect()
    }

    fn remove_terminal(&mut self, name: &Name) -> Vec<Command> {
        self.terminals.remove(name);
        let of_terminal = |work: &Work| match work {
            Work::Scan(scan) => &scan.terminal == name,
            Work::Enrolment(enrolment) => &enrolment.facts.terminal == name,
        };
        let ended = self.work.extract_if(.., |_, (_, work)| of_terminal(work));
        ended.map(|(ticket, _)| Command::Wipe(ticket)).collect()
    }

    /// What is in work when the ledger fails ends without a decision.
    fn set_log_writable(&mut self, writable: bool) -> Vec<Command> {
        self.log_writable = writable;
        if writable {
            return Vec::new();
        }
        let ended = self.work.extract_if(.., |_, (_, work)| match work {
            Work::Scan(scan) => scan.intent.purpose().is_some(),
            Work::Enrolment(_) => !work.is_being_stored(),
        });
        ended.flat_map(|(ticket, _)| busy(ticket)).collect()
    }

    fn overloaded(&mut self, ticket: Ticket) -> Vec<Command> {
        let Some((_, work)) = self.work.remove(&ticket) else { return Vec::new() };
        let decision = work.decision("busy", vec![rules::C_RT_10G]);
        vec![
            Command::Wipe(ticket),
            Command::Reply(ticket, AnswerBody::Busy),
            Command::Log(decision),
        ]
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Command> {
        let mut commands = self.retry_erasures();
        commands.extend(self.finish_replacing());
        commands.extend(self.sweep(now));
        let late = self.work.extract_if(.., |_, (begun, work)| {
            now.since(*begun) > WORK_LIFETIME && !work.is_being_stored()
        });
        for (ticket, (_, work)) in late {
            commands.push(Command::Wipe(ticket));
            commands.push(Command::Reply(ticket, AnswerBody::Busy));
            commands.push(Command::Log(work.decision("late", vec![rules::RET_01])));
        }
        commands
    }

    fn retry_erasures(&mut self) -> Vec<Command> {
        let failed = self.erasing.iter_mut().filter(|(_, erasing)| erasing.failed);
        failed
            .map(|(member, erasing)| {
                erasing.failed = false;
                let Erasing { claim, salt, rule, ticket, relay, exported, .. } = *erasing;
                Command::Erase { member: *member, claim, salt, rule, ticket, relay, exported }
            })
            .collect()
    }

    /// Refuses a request: nothing of it is kept.
    pub(crate) fn refuse(ticket: Ticket, reason: Refusal, decision: Decision) -> Vec<Command> {
        let refused = AnswerBody::Refused { reason };
        vec![Command::Wipe(ticket), Command::Reply(ticket, refused), Command::Log(decision)]
    }

    /// The rule that lets this custody hold or open references.
    pub(crate) const fn custody_rule(custody: Custody) -> Rule {
        match custody {
            Custody::Subject => rules::C_RT_07A,
            Custody::Split => rules::C_RT_07B,
            Custody::Operator => rules::C_RT_07C,
        }
    }
}

/// No decision: the terminal may ask again, or offer another way.
fn busy(ticket: Ticket) -> Vec<Command> {
    vec![Command::Wipe(ticket), Command::Reply(ticket, AnswerBody::Busy)]
}

impl Work {
    /// Nothing may be answered until the disk has said whether the person is stored.
    fn is_being_stored(&self) -> bool {
        matches!(self, Self::Enrolment(enrolment) if enrolment.stored.is_some())
    }

    pub(crate) fn decision(&self, outcome: &'static str, rules: Vec<Rule>) -> Decision {
        match self {
            Self::Scan(scan) => scan.decision(outcome, rules),
            Self::Enrolment(enrolment) => enrolment.decision(outcome, rules),
        }
    }
}

impl Decision {
    pub(crate) fn new(kind: DecisionKind, outcome: &'static str, rules: Vec<Rule>) -> Self {
        Self { kind, terminal: None, purpose: None, outcome, rules, subject: None }
    }
}
