use crate::{
    Command, Decision, DecisionKind, Event, Law, Origin, Pack, Profile, Rule, Settings,
    TerminalFacts, Ticket, enrolment::EnrolmentWork, rules, scan::ScanWork,
};
use palmgate_protocol::{
    ClaimHandle, Custody, MemberId, Name, Purpose, Timestamp,
    limits::FRAMES_LIFETIME,
    terminal::{AnswerBody, Refusal},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Work may take this long before its frames and secrets are wiped and the terminal is told.
const WORK_LIFETIME: Duration = FRAMES_LIFETIME;
/// Claims whose failed tries are remembered at once; the oldest gives way.
const MAX_TRIED_CLAIMS: usize = 4_096;

/// The state that decisions depend on, and the decisions.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) law: Law,
    pub(crate) people: BTreeMap<MemberId, Profile>,
    pub(crate) claims: BTreeMap<ClaimHandle, MemberId>,
    pub(crate) terminals: BTreeMap<Name, Terminal>,
    pub(crate) work: BTreeMap<Ticket, (Timestamp, Work)>,
    pub(crate) tries: BTreeMap<ClaimHandle, Tries>,
    pub(crate) erasing: BTreeMap<MemberId, Erasing>,
    pub(crate) lease_until: Option<Timestamp>,
    /// Without a ledger entry there is no decision: scans and enrolments wait, rights do not.
    pub(crate) log_writable: bool,
    pub(crate) spent: BTreeMap<MemberId, Spent>,
    /// People whom the sweep may still erase before a jump of the clock is confirmed.
    pub(crate) unconfirmed: Option<usize>,
    latest: Timestamp,
}

/// Paid by palm alone since the last strong authentication (RTS on SCA Art. 11).
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) total: u64,
    pub(crate) count: u64,
}

pub(crate) struct Terminal {
    pub(crate) facts: TerminalFacts,
    pub(crate) tries: Tries,
}

/// Failed tries in a row (RTS on SCA Art. 4(3)(b)).
#[derive(Clone, Copy, Default)]
pub(crate) struct Tries {
    pub(crate) failed: u8,
    pub(crate) last: Option<Timestamp>,
}

/// An erasure that was decided and is not yet durable.
pub(crate) struct Erasing {
    pub(crate) claim: ClaimHandle,
    pub(crate) salt: [u8; 32],
    pub(crate) rule: Rule,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) relay: bool,
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
            erasing: BTreeMap::new(),
            lease_until: None,
            log_writable: true,
            spent: BTreeMap::new(),
            unconfirmed: None,
            latest: Timestamp::from_millis(0),
        }
    }

    /// The pack in force.
    pub const fn pack(&self) -> &Arc<Pack> {
        self.law.pack()
    }

    /// Decides. `now` is the gateway's clock; a clock that runs backwards is held at the latest time
    /// seen, so that nothing expired comes back to life.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Command> {
        let now = self.ratchet(now);
        match event {
            Event::TimeSeen(at) => self.latest = self.latest.max(at),
            Event::TimeConfirmed => self.unconfirmed = None,
            Event::Authenticated(member) => drop(self.spent.remove(&member)),
            Event::Loaded(member, profile) => self.load(member, *profile),
            Event::LeaseLoaded(until) => self.lease_until = Some(until),
            Event::TerminalKnown(facts) => {
                let name = facts.name.clone();
                self.terminals.insert(name, Terminal { facts, tries: Tries::default() });
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
        let number = |name| self.pack().number(name).map_or(0, |number| number.value as u64);
        let longest = Duration::from_hours(number("clock_jump_hours"));
        if self.latest.as_millis() > 0 && now.since(self.latest) > longest {
            self.unconfirmed = Some(number("unconfirmed_erasures") as usize);
        }
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Figures for metrics and the public counter.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing {
            erasing: self.erasing.len(),
            in_work: self.work.len(),
            lease_until: self.lease_until,
            oldest: self.people.values().map(|person| person.enrolled_at).min(),
            soonest_expiry: self.people.values().map(|person| person.expires_at).min(),
            ..Standing::default()
        };
        for person in self.people.values() {
            standing.people[person.custody as usize] += 1;
            standing.from_cloud += usize::from(person.origin == Origin::Cloud);
        }
        standing
    }

    /// Whether a person is enrolled and not being erased.
    pub fn knows(&self, member: &MemberId) -> bool {
        self.people.contains_key(member)
    }

    pub(crate) fn load(&mut self, member: MemberId, profile: Profile) {
        self.claims.insert(profile.claim, member);
        self.people.insert(member, profile);
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
        self.tries.remove(&profile.claim);
        self.spent.remove(&member);
        let (claim, salt) = (profile.claim, profile.salt);
        let erasing = Erasing { claim, salt, rule, ticket, relay, failed: false };
        self.erasing.insert(member, erasing);
        vec![Command::Erase { member, claim, salt, rule, ticket, relay }]
    }

    fn erased(&mut self, member: MemberId, result: Result<(), ()>) -> Vec<Command> {
        if result.is_ok() {
            self.erasing.remove(&member);
            return Vec::new();
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
                let Erasing { claim, salt, rule, ticket, relay, .. } = *erasing;
                Command::Erase { member: *member, claim, salt, rule, ticket, relay }
            })
            .collect()
    }

    /// Refuses a request: nothing of it is kept.
    pub(crate) fn refuse(ticket: Ticket, reason: Refusal, decision: Decision) -> Vec<Command> {
        let refused = AnswerBody::Refused { reason };
        vec![Command::Wipe(ticket), Command::Reply(ticket, refused), Command::Log(decision)]
    }

    /// Failed tries in a row that still count.
    pub(crate) fn recent(&self, tries: Tries, now: Timestamp) -> u8 {
        let recent = tries.last.is_some_and(|last| now.since(last) < self.settings.block);
        if recent { tries.failed } else { 0 }
    }

    /// Notes that a comparison failed: against the claim, and for payments against the reader.
    pub(crate) fn note_failure(&mut self, scan: &ScanWork, now: Timestamp) {
        let block = self.settings.block;
        let note = |tries: &mut Tries| {
            if tries.last.is_none_or(|last| now.since(last) >= block) {
                tries.failed = 0;
            }
            tries.failed = tries.failed.saturating_add(1);
            tries.last = Some(now);
        };
        if let Some(claim) = &scan.claim {
            if self.tries.len() >= MAX_TRIED_CLAIMS {
                let oldest = self.tries.iter().min_by_key(|(_, tries)| tries.last);
                if let Some(handle) = oldest.map(|(handle, _)| *handle) {
                    self.tries.remove(&handle);
                }
            }
            note(self.tries.entry(claim.handle).or_default());
        }
        if scan.intent.purpose() == Some(Purpose::Pay)
            && let Some(terminal) = self.terminals.get_mut(&scan.terminal)
        {
            note(&mut terminal.tries);
        }
    }

    pub(crate) fn note_success(&mut self, scan: &ScanWork) {
        if let Some(claim) = &scan.claim {
            self.tries.remove(&claim.handle);
        }
        if let Some(terminal) = self.terminals.get_mut(&scan.terminal) {
            terminal.tries = Tries::default();
        }
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
