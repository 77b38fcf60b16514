use crate::{
    CaptureFacts, ClaimFacts, ClaimPresented, Command, Decision, DecisionKind, Engine, Match,
    RecordFacts, Resolved, Rule, ScanFacts, Source, Ticket,
    engine::Work,
    gates::{Plan, Route, Shut},
    rules,
};
use palmgate_protocol::{
    Custody, MemberId, Name, Purpose, PurposeSet, Timestamp,
    terminal::{AnswerBody, CaptureProblem, Intent},
};

/// A scan between its gates and its answer.
pub(crate) struct ScanWork {
    pub(crate) terminal: Name,
    pub(crate) intent: Intent,
    pub(crate) claim: Option<ClaimFacts>,
    pub(crate) purposes: PurposeSet,
    pub(crate) route: Route,
    fetched: Option<RecordFacts>,
}

/// Somebody was found; what the decision needs to know of them.
struct Found {
    /// `None` when the record stays with the ticket.
    member: Option<MemberId>,
    purpose: Purpose,
}

impl ScanWork {
    pub(crate) fn decision(&self, outcome: &'static str, rules: Vec<Rule>) -> Decision {
        let kind = match self.intent.purpose() {
            Some(_) => DecisionKind::Scan,
            None => DecisionKind::Right,
        };
        Decision {
            terminal: Some(self.terminal.clone()),
            purpose: self.intent.purpose(),
            ..Decision::new(kind, outcome, rules)
        }
    }
}

impl Engine {
    pub(crate) fn scan(
        &mut self,
        ticket: Ticket,
        facts: ScanFacts,
        now: Timestamp,
    ) -> Vec<Command> {
        let plan = self.scan_gates(&facts, now);
        let ScanFacts { terminal, intent, claim, .. } = facts;
        let claim = match claim {
            ClaimPresented::Valid(claim) => Some(claim),
            _ => None,
        };
        let (plan, shut) = match plan {
            Ok(plan) => (plan, None),
            Err(shut) => {
                (Plan { purposes: PurposeSet::default(), route: Route::Nowhere }, Some(shut))
            }
        };
        let Plan { purposes, route } = plan;
        let work = ScanWork { terminal, intent, claim, purposes, route, fetched: None };
        if let Some(Shut { reason, outcome, rules }) = shut {
            return Self::refuse(ticket, reason, work.decision(outcome, rules));
        }
        if route == Route::Nowhere {
            return Self::miss(ticket, &work, vec![rules::E_79]);
        }
        if self.work.len() >= self.settings.pending_limit {
            return vec![Command::Wipe(ticket), Command::Reply(ticket, AnswerBody::Busy)];
        }
        self.work.insert(ticket, (now, Work::Scan(Box::new(work))));
        vec![Command::Extract(ticket, purposes)]
    }

    pub(crate) fn extracted(
        &mut self,
        ticket: Ticket,
        result: Result<CaptureFacts, CaptureProblem>,
    ) -> Vec<Command> {
        let Some((_, Work::Scan(work))) = self.work.get(&ticket) else { return Vec::new() };
        let strictest = |set: PurposeSet| {
            set.iter().map(|purpose| self.settings.least_liveness(purpose)).fold(0.0, f32::max)
        };
        let result = result.and_then(|facts| {
            let live = facts.liveness >= strictest(work.purposes);
            if live { Ok(()) } else { Err(CaptureProblem::NotLive) }
        });
        if let Err(problem) = result {
            let decision = work.decision(problem.as_str(), vec![rules::C_RT_10F, rules::RET_01]);
            self.work.remove(&ticket);
            let retry = AnswerBody::Retry { problem, index: 0 };
            return vec![
                Command::Wipe(ticket),
                Command::Reply(ticket, retry),
                Command::Log(decision),
            ];
        }
        match work.route {
            Route::Search => vec![Command::Identify(ticket, work.purposes)],
            Route::One(source) => vec![Command::Compare(ticket, work.purposes, source)],
            Route::Cloud(claim, Custody::Operator) => match work.purposes.iter().next() {
                Some(purpose) => vec![Command::EscalateProbe(ticket, purpose, claim)],
                None => self.missed(ticket, vec![rules::E_79]),
            },
            Route::Carried => vec![Command::OpenCarried(ticket)],
            Route::Cloud(claim, _) => vec![Command::FetchRecord(ticket, claim)],
            Route::Nowhere => self.missed(ticket, vec![rules::E_79]),
        }
    }

    pub(crate) fn identified(
        &mut self,
        ticket: Ticket,
        matches: &[Match],
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, work)) = self.work.get(&ticket) else { return Vec::new() };
        let scan = match work {
            Work::Scan(scan) => scan,
            Work::Enrolment(_) => return self.enrolment_identified(ticket, matches, now),
        };
        let right = scan.intent.purpose().is_none();
        let usable = |found: &&Match| {
            let above = found.score >= self.settings.threshold(found.purpose);
            above
                && scan.purposes.contains(found.purpose)
                && self.usable(&found.member, found.purpose, right, now)
        };
        let mut found = matches.iter().filter(usable);
        let Some(best) = found.next() else {
            return self.failed(ticket, now, vec![rules::E_79, rules::RET_02]);
        };
        if found.any(|other| other.member != best.member) {
            return self.failed(ticket, now, vec![rules::I_1N, rules::RET_02]);
        }
        self.found(ticket, &Found { member: Some(best.member), purpose: best.purpose }, now)
    }

    /// A paused person can still exercise rights, above all to resume.
    fn usable(&self, member: &MemberId, purpose: Purpose, right: bool, now: Timestamp) -> bool {
        self.people.get(member).is_some_and(|person| {
            let allowed =
                if right { person.basis(purpose, now) } else { person.allows(purpose, now) };
            allowed && self.leased(person, now)
        })
    }

    pub(crate) fn compared(
        &mut self,
        ticket: Ticket,
        scores: &[(Purpose, f32)],
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, Work::Scan(scan))) = self.work.get(&ticket) else { return Vec::new() };
        let member = match scan.route {
            Route::One(Source::Held(member)) => Some(member),
            Route::One(Source::Carried) => {
                scan.claim.as_ref().and_then(|claim| self.claims.get(&claim.handle)).copied()
            }
            _ => None,
        };
        let right = scan.intent.purpose().is_none();
        let accepted = |(purpose, score): &&(Purpose, f32)| {
            *score >= self.settings.threshold(*purpose)
                && scan.purposes.contains(*purpose)
                && member.is_none_or(|member| self.usable(&member, *purpose, right, now))
        };
        match scores.iter().find(accepted) {
            Some(&(purpose, _)) => self.found(ticket, &Found { member, purpose }, now),
            None => self.failed(ticket, now, vec![rules::C_RT_07B, rules::RET_02]),
        }
    }

    pub(crate) fn resolved(
        &mut self,
        ticket: Ticket,
        resolved: Resolved,
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, Work::Scan(scan))) = self.work.get_mut(&ticket) else { return Vec::new() };
        let facts = match resolved {
            Resolved::NotFound => return self.missed(ticket, vec![rules::E_79]),
            Resolved::Unreachable => return self.missed(ticket, vec![rules::C_RT_10G]),
            Resolved::Found(facts) => *facts,
        };
        let live = |purpose: Purpose| {
            let mut consents = facts.consents.iter();
            consents.any(|consent| consent.purpose == purpose && now < consent.expires_at)
        };
        let claimed = scan.claim.as_ref().is_some_and(|claim| claim.handle == facts.claim);
        let usable: PurposeSet = scan.purposes.iter().filter(|purpose| live(*purpose)).collect();
        let covered = live(Purpose::Roaming) && !usable.is_empty();
        if !claimed
            || !covered
            || now >= facts.expires_at
            || self.erasing.contains_key(&facts.member)
        {
            return self.missed(ticket, vec![rules::G_09, rules::G_14]);
        }
        scan.purposes = usable;
        scan.fetched = Some(facts);
        vec![Command::Compare(ticket, usable, Source::Fetched)]
    }

    /// The person was recognised: do what they came for.
    fn found(&mut self, ticket: Ticket, found: &Found, now: Timestamp) -> Vec<Command> {
        let Some((_, Work::Scan(mut scan))) = self.work.remove(&ticket) else { return Vec::new() };
        self.note_success(&scan);
        let mut commands = Vec::new();
        let mut member = found.member;
        // What a token carries stays in the token (CNIL type 1).
        if let Some(facts) = scan.fetched.take_if(|facts| facts.custody != Custody::Subject) {
            let profile = self.profile_of(&facts, now);
            self.load(facts.member, profile.clone());
            commands.push(Command::Adopt(ticket, facts.member, Box::new(profile)));
            member = Some(facts.member);
        }
        if scan.intent.purpose().is_none() {
            commands.extend(self.exercise(ticket, &scan, member, now));
        } else {
            commands.extend(self.accept(ticket, &scan, member, found.purpose, now));
        }
        commands.push(Command::Wipe(ticket));
        commands
    }

    fn accept(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: Option<MemberId>,
        purpose: Purpose,
        now: Timestamp,
    ) -> Vec<Command> {
        let person = member.and_then(|member| self.people.get(&member));
        if let (Intent::Staff { zone }, Some(person)) = (&scan.intent, person)
            && person.authorisation.as_ref().is_none_or(|authorised| authorised.zone != *zone)
        {
            let reason = palmgate_protocol::terminal::Refusal::ZoneNotListed;
            let decision = scan.decision(reason.as_str(), vec![rules::C_RT_02]);
            return Self::refuse(ticket, reason, decision);
        }
        let carried = || {
            let mut pseudonyms = scan.fetched.as_ref()?.pseudonyms.iter();
            pseudonyms.find(|(of, _)| *of == purpose).map(|(_, pseudonym)| *pseudonym)
        };
        let pseudonym = person.and_then(|person| person.pseudonym(purpose)).or_else(carried);
        let Some(pseudonym) = pseudonym else {
            return Self::miss(ticket, scan, vec![rules::C_RT_07A]);
        };
        let salt = person.map(|person| person.salt);
        let payment = match &scan.intent {
            Intent::Pay(payment) => Some(payment.clone()),
            _ => None,
        };
        let mut cited =
            vec![rules::G_09, Self::custody_rule(self.custody_of(member)), rules::RET_02];
        if payment.is_some() {
            cited.extend([rules::P_SCA_5, rules::P_SCA_11]);
        }
        if purpose == Purpose::Staff {
            cited[0] = rules::F_44;
        }
        let mut decision = scan.decision("accepted", cited);
        decision.subject = member.zip(salt);
        let mut commands = vec![
            Command::Accept { ticket, member, purpose, pseudonym, payment },
            Command::Log(decision),
        ];
        if let Some(member) = member {
            commands.extend(self.prolong(member, now));
        }
        commands
    }

    fn custody_of(&self, member: Option<MemberId>) -> Custody {
        let person = member.and_then(|member| self.people.get(&member));
        person.map_or(self.settings.custody, |person| person.custody)
    }

    /// A comparison was made and failed.
    fn failed(&mut self, ticket: Ticket, now: Timestamp, cited: Vec<Rule>) -> Vec<Command> {
        let Some((_, Work::Scan(scan))) = self.work.remove(&ticket) else { return Vec::new() };
        self.note_failure(&scan, now);
        Self::miss(ticket, &scan, cited)
    }

    /// There was nobody to compare with.
    fn missed(&mut self, ticket: Ticket, cited: Vec<Rule>) -> Vec<Command> {
        let Some((_, Work::Scan(scan))) = self.work.remove(&ticket) else { return Vec::new() };
        Self::miss(ticket, &scan, cited)
    }

    /// Nobody: everything is wiped, the fallback is offered.
    fn miss(ticket: Ticket, scan: &ScanWork, mut cited: Vec<Rule>) -> Vec<Command> {
        cited.extend([rules::G_22, rules::C_RT_10G]);
        vec![
            Command::Wipe(ticket),
            Command::Reply(ticket, AnswerBody::NotRecognised),
            Command::Log(scan.decision("not-recognised", cited)),
        ]
    }
}
