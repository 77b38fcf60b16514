use crate::{
    CaptureFacts, ClaimFacts, ClaimPresented, Command, Decision, DecisionKind, Engine, Match,
    Proof, RecordFacts, Resolved, Rule, ScanFacts, Sensor, Source, Spent, Ticket, Visitor,
    engine::Work,
    facts::PersonFacts,
    gates::{Plan, Route, Shut},
    pack::Verdict,
    rules,
};
use palmgate_protocol::{
    Custody, MemberId, Name, Purpose, PurposeSet, Timestamp,
    terminal::{AnswerBody, CaptureProblem, Intent},
};

/// Visitors whose payments are counted at once; who ends first gives way.
const MAX_VISITORS: usize = 4_096;

/// A scan between its gates and its answer.
pub(crate) struct ScanWork {
    pub(crate) terminal: Name,
    pub(crate) intent: Intent,
    pub(crate) claim: Option<ClaimFacts>,
    pub(crate) authenticated: bool,
    pub(crate) sensor: Sensor,
    pub(crate) purposes: PurposeSet,
    pub(crate) route: Route,
    pub(crate) cited: Vec<Rule>,
    pub(crate) fetched: Option<RecordFacts>,
}

/// Somebody was found; what the decision needs to know of them.
struct Found {
    /// `None` when the record stays with the ticket.
    member: Option<MemberId>,
    purpose: Purpose,
    cited: Vec<Rule>,
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
        let ScanFacts { terminal, intent, claim, authenticated, possession, sensor, .. } = facts;
        // The palm is the other factor: without it nothing below is reached.
        let authenticated = authenticated || possession == Proof::Valid;
        let claim = match claim {
            ClaimPresented::Valid(claim) => Some(claim),
            _ => None,
        };
        let (plan, shut) = match plan {
            Ok(plan) => (plan, None),
            Err(shut) => {
                let purposes = PurposeSet::default();
                (Plan { purposes, route: Route::Nowhere, rules: Vec::new() }, Some(shut))
            }
        };
        let Plan { purposes, route, rules: cited } = plan;
        let fetched = None;
        let work = ScanWork {
            terminal,
            intent,
            claim,
            authenticated,
            sensor,
            purposes,
            route,
            cited,
            fetched,
        };
        if let Some(Shut { reason, outcome, rules }) = shut {
            return Self::refuse(ticket, reason, work.decision(outcome, rules));
        }
        if route == Route::Nowhere {
            let mut cited = work.cited.clone();
            cited.push(rules::E_79);
            return Self::miss(ticket, &work, cited);
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
        let mut cited = vec![rules::RET_01];
        let result = result.and_then(|facts| {
            let least = strictest(work.purposes);
            let purposes = work.intent.purpose().into_iter().collect();
            let act = Self::compare_act(facts, least, work.sensor, purposes);
            let verdict = self.law.decide(&act);
            cited.extend(verdict.rules);
            if verdict.allowed { Ok(()) } else { Err(CaptureProblem::NotLive) }
        });
        if let Err(problem) = result {
            let decision = work.decision(problem.as_str(), cited);
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
        let above = |found: &&Match| {
            found.score >= self.settings.threshold(found.purpose)
                && scan.purposes.contains(found.purpose)
        };
        let found = matches.iter().filter(above).filter_map(|found| {
            let person = self.people.get(&found.member)?;
            Some((found, self.person_facts(person, found.purpose)))
        });
        let found: Vec<(&Match, PersonFacts)> = found.collect();
        let decide = |found: &Match, person: &PersonFacts, rivals| {
            let spent = self.spent_by(scan, Some(found.member));
            let act = Self::recognise_act(scan, found.purpose, person, spent, rivals, now);
            self.law.decide(&act)
        };
        let mut verdicts = found.iter().map(|(f, person)| (*f, person, decide(f, person, 0)));
        let first_denied = verdicts.clone().next().map(|(_, _, verdict)| verdict);
        let Some((best, person, verdict)) = verdicts.find(|(_, _, verdict)| verdict.allowed) else {
            return self.denied(ticket, first_denied, now, vec![rules::E_79, rules::RET_02]);
        };
        let rival = |(f, _, verdict): &(&Match, &PersonFacts, Verdict)| {
            verdict.allowed && f.member != best.member
        };
        let rivals = verdicts.filter(rival).count();
        let verdict = if rivals > 0 { decide(best, person, rivals) } else { verdict };
        if !verdict.allowed {
            return self.denied(ticket, Some(verdict), now, vec![rules::RET_02]);
        }
        let (member, purpose) = (Some(best.member), best.purpose);
        self.found(ticket, Found { member, purpose, cited: verdict.rules }, now)
    }

    /// Amount and number of payments by palm alone; a strong authentication begins anew.
    fn spent_by(&self, scan: &ScanWork, member: Option<MemberId>) -> (u64, u64) {
        if scan.authenticated {
            return (0, 0);
        }
        let spent = member.and_then(|member| {
            let held = self.people.get(&member).map(|person| person.spent);
            held.or_else(|| self.visitors.get(&member).map(|visitor| visitor.spent))
        });
        let spent = spent.unwrap_or_default();
        (spent.total, spent.count)
    }

    /// Counts a payment: with the person, or beside a record that stays in its token.
    fn count_payment(
        &mut self,
        scan: &ScanWork,
        member: Option<MemberId>,
        minor_units: u64,
        now: Timestamp,
    ) -> Vec<Command> {
        if let Some((member, person)) =
            member.and_then(|member| Some((member, self.people.get_mut(&member)?)))
        {
            if scan.authenticated {
                person.spent = Spent::default();
            }
            person.spent.add(minor_units);
            return vec![Command::Update(member, Box::new(person.clone()))];
        }
        let Some(record) = &scan.fetched else { return Vec::new() };
        let (member, ends) = (record.member, record.expires_at);
        if self.visitors.len() >= MAX_VISITORS && !self.visitors.contains_key(&member) {
            let first = self.visitors.values().min_by_key(|visitor| visitor.ends);
            if let Some(first) = first.map(|visitor| visitor.member) {
                self.visitors.remove(&first);
            }
        }
        self.visitors.retain(|_, visitor| now < visitor.ends);
        let spent = Spent::default();
        let visitor = self.visitors.entry(member).or_insert(Visitor { member, spent, ends });
        if scan.authenticated {
            visitor.spent = Spent::default();
        }
        visitor.spent.add(minor_units);
        vec![self.keep_visitors()]
    }

    pub(crate) fn compared(
        &mut self,
        ticket: Ticket,
        scores: &[(Purpose, f32)],
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, work)) = self.work.get(&ticket) else { return Vec::new() };
        let scan = match work {
            Work::Scan(scan) => scan,
            Work::Enrolment(_) => return self.enrolment_compared(ticket, scores, now),
        };
        let member = match scan.route {
            Route::One(Source::Held(member)) => Some(member),
            Route::One(Source::Carried) => {
                scan.claim.as_ref().and_then(|claim| self.claims.get(&claim.handle)).copied()
            }
            _ => None,
        };
        let above = |(purpose, score): &&(Purpose, f32)| {
            *score >= self.settings.threshold(*purpose) && scan.purposes.contains(*purpose)
        };
        let facts = |purpose| match (member, &scan.fetched) {
            (Some(member), _) => Some(self.person_facts(self.people.get(&member)?, purpose)),
            (None, Some(record)) => Some(PersonFacts::of_record(record, purpose)),
            (None, None) => None,
        };
        let mut first_denied = None;
        let mut accepted = None;
        for (purpose, _) in scores.iter().filter(above) {
            let Some(person) = facts(*purpose) else { continue };
            let spent = self.spent_by(scan, member.or(scan.fetched.as_ref().map(|f| f.member)));
            let act = Self::recognise_act(scan, *purpose, &person, spent, 0, now);
            let verdict = self.law.decide(&act);
            if verdict.allowed {
                accepted = Some(Found { member, purpose: *purpose, cited: verdict.rules });
                break;
            }
            first_denied = first_denied.or(Some(verdict));
        }
        match accepted {
            Some(found) => self.found(ticket, found, now),
            None => self.denied(ticket, first_denied, now, vec![rules::C_RT_07B, rules::RET_02]),
        }
    }

    /// Nobody may be recognised. A denial is shown only where all who deny have a word for it.
    fn denied(
        &mut self,
        ticket: Ticket,
        verdict: Option<Verdict>,
        now: Timestamp,
        mut cited: Vec<Rule>,
    ) -> Vec<Command> {
        let Some(verdict) = verdict else { return self.failed(ticket, now, cited) };
        let Some(reason) = verdict.refusal.filter(|_| verdict.speakable) else {
            cited.extend(verdict.rules);
            return self.failed(ticket, now, cited);
        };
        let Some((_, Work::Scan(scan))) = self.work.remove(&ticket) else { return Vec::new() };
        let tries = self.note_success(&scan);
        let decision = scan.decision(reason.as_str(), verdict.rules);
        Self::refuse(ticket, reason, decision).into_iter().chain(tries).collect()
    }

    pub(crate) fn resolved(
        &mut self,
        ticket: Ticket,
        resolved: Resolved,
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, Work::Scan(scan))) = self.work.get(&ticket) else { return Vec::new() };
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
        let verdict = self.law.decide(&self.adopt_act(&facts, claimed, true, now));
        if !verdict.allowed || usable.is_empty() {
            let mut cited = verdict.rules;
            cited.push(rules::G_14);
            return self.missed(ticket, cited);
        }
        let Some((_, Work::Scan(scan))) = self.work.get_mut(&ticket) else { return Vec::new() };
        scan.cited.extend(verdict.rules);
        scan.purposes = usable;
        scan.fetched = Some(facts);
        vec![Command::Compare(ticket, usable, Source::Fetched)]
    }

    /// The person was recognised: do what they came for.
    fn found(&mut self, ticket: Ticket, found: Found, now: Timestamp) -> Vec<Command> {
        let Some((_, Work::Scan(mut scan))) = self.work.remove(&ticket) else { return Vec::new() };
        let tries = self.note_success(&scan);
        let mut commands = Vec::new();
        let mut member = found.member;
        // What a token carries stays in the token (CNIL type 1), and a full gallery takes in nobody.
        let stays = |facts: &RecordFacts| {
            facts.custody == Custody::Subject || self.outgrown_by(facts.custody, &facts.hands)
        };
        if let Some(facts) = scan.fetched.take_if(|facts| !stays(facts)) {
            let profile = self.profile_of(&facts, now);
            self.load(facts.member, profile.clone());
            commands.push(Command::Adopt(ticket, facts.member, Box::new(profile)));
            member = Some(facts.member);
        }
        if scan.intent.purpose().is_none() {
            commands.extend(self.exercise(ticket, &scan, member, now));
        } else {
            commands.extend(self.accept(ticket, &scan, Found { member, ..found }, now));
        }
        commands.push(Command::Wipe(ticket));
        commands.extend(tries);
        commands
    }

    fn accept(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        found: Found,
        now: Timestamp,
    ) -> Vec<Command> {
        let Found { member, purpose, cited: recognised } = found;
        let person = member.and_then(|member| self.people.get(&member));
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
        let objected = purpose == Purpose::Loyalty && person.is_some_and(|person| person.objected);
        let answer = self.law.decide(&Self::answer_act(purpose, payment.is_some(), objected));
        if !answer.allowed {
            return Self::miss(ticket, scan, answer.rules);
        }
        let mut cited = scan.cited.clone();
        cited.extend(recognised);
        cited.extend(answer.rules);
        cited.extend([Self::custody_rule(self.custody_of(member)), rules::RET_02]);
        let mut decision = scan.decision("accepted", cited);
        decision.subject = member.zip(salt);
        let paid = payment.as_ref().map(|payment| payment.minor_units);
        let mut commands = vec![
            Command::Accept { ticket, member, purpose, pseudonym, payment, objected },
            Command::Log(decision),
        ];
        if let Some(member) = member {
            commands.extend(self.prolong(member, now));
        }
        if let Some(minor_units) = paid {
            commands.extend(self.count_payment(scan, member, minor_units, now));
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
        let tries = self.note_failure(&scan, now);
        Self::miss(ticket, &scan, cited).into_iter().chain(tries).collect()
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
