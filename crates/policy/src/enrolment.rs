use crate::{
    CaptureFacts, ClaimPresented, Command, Decision, DecisionKind, Engine, EnrolmentFacts, Match,
    Origin, Profile, Proof, Rule, ScanFacts, Source, Spent, Ticket,
    engine::Work,
    gates::{Plan, Route, Shut},
    pack::{Act, Action},
    rules,
    scan::ScanWork,
};
use palmgate_protocol::{
    Custody, Hand, MemberId, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{AnswerBody, CaptureProblem, Intent, Refusal},
};

/// An enrolment between its gates and its answer.
pub(crate) struct EnrolmentWork {
    pub(crate) facts: EnrolmentFacts,
    purposes: PurposeSet,
    cited: Vec<Rule>,
    /// Set when an enrolment is corrected: how its person is found.
    correcting: Option<ScanWork>,
    /// Whose enrolment this one corrects.
    replaces: Option<MemberId>,
    pub(crate) stored: Option<Profile>,
}

impl EnrolmentWork {
    pub(crate) fn decision(&self, outcome: &'static str, rules: Vec<Rule>) -> Decision {
        Decision {
            terminal: Some(self.facts.terminal.clone()),
            ..Decision::new(DecisionKind::Enrolment, outcome, rules)
        }
    }
}

impl Engine {
    pub(crate) fn enrol(
        &mut self,
        ticket: Ticket,
        facts: EnrolmentFacts,
        now: Timestamp,
    ) -> Vec<Command> {
        let gates = self.enrolment_gates(&facts, now);
        let gates = gates.and_then(|opened| Ok((opened, self.correction_gates(&facts, now)?)));
        let mut work = EnrolmentWork {
            facts,
            purposes: PurposeSet::default(),
            cited: Vec::new(),
            correcting: None,
            replaces: None,
            stored: None,
        };
        match gates {
            Err(Shut { reason, outcome, rules }) => {
                Self::refuse(ticket, reason, work.decision(outcome, rules))
            }
            Ok(_) if self.work.len() >= self.settings.pending_limit => {
                vec![Command::Wipe(ticket), Command::Reply(ticket, AnswerBody::Busy)]
            }
            Ok(((purposes, cited), correcting)) => {
                (work.purposes, work.cited, work.correcting) = (purposes, cited, correcting);
                self.work.insert(ticket, (now, Work::Enrolment(Box::new(work))));
                vec![Command::ExtractEnrolment(ticket, purposes.without(Purpose::Roaming))]
            }
        }
    }

    /// The gates of a right, for who corrects an enrolment.
    fn correction_gates(
        &self,
        facts: &EnrolmentFacts,
        now: Timestamp,
    ) -> Result<Option<ScanWork>, Shut> {
        let Some(claim) = &facts.replaces else { return Ok(None) };
        let scan = ScanFacts {
            terminal: facts.terminal.clone(),
            at: facts.at,
            intent: Intent::Export,
            claim: claim.clone(),
            ask_cloud: false,
            frames: 1,
            authenticated: false,
            card_number: facts.card_number,
            possession: Proof::None,
            sensor: facts.sensor,
        };
        let Plan { purposes, route, rules } = self.scan_gates(&scan, now)?;
        if !matches!(route, Route::Search | Route::One(_)) {
            let (reason, outcome) = (Refusal::ClaimInvalid, "not-recognised");
            return Err(Shut { reason, outcome, rules });
        }
        let claim = match scan.claim {
            ClaimPresented::Valid(claim) => Some(claim),
            _ => None,
        };
        let (terminal, intent) = (scan.terminal, scan.intent);
        Ok(Some(ScanWork {
            terminal,
            intent,
            claim,
            authenticated: false,
            sensor: scan.sensor,
            purposes,
            route,
            cited: rules,
            fetched: None,
        }))
    }

    pub(crate) fn enrolment_extracted(
        &mut self,
        ticket: Ticket,
        result: Result<CaptureFacts, (CaptureProblem, u8)>,
    ) -> Vec<Command> {
        let Some((_, Work::Enrolment(work))) = self.work.get(&ticket) else { return Vec::new() };
        let matched = work.purposes.without(Purpose::Roaming);
        let least = matched.iter().map(|purpose| self.settings.least_liveness(purpose));
        let least = least.fold(0.0, f32::max);
        let mut cited = vec![rules::RET_01];
        let result = result.and_then(|facts| {
            let act = Self::compare_act(facts, least, work.facts.sensor, matched);
            let verdict = self.law.decide(&act);
            cited.extend(verdict.rules);
            if verdict.allowed { Ok(()) } else { Err((CaptureProblem::NotLive, 0)) }
        });
        match result {
            Err((problem, index)) => {
                let decision = work.decision(problem.as_str(), cited);
                self.work.remove(&ticket);
                let retry = AnswerBody::Retry { problem, index };
                vec![Command::Wipe(ticket), Command::Reply(ticket, retry), Command::Log(decision)]
            }
            Ok(()) => match work.correcting.as_ref().map(|correcting| correcting.route) {
                Some(Route::One(source)) => vec![Command::Compare(ticket, matched, source)],
                // Only a box that can open its references can tell that a hand is enrolled already.
                _ if self.settings.custody == Custody::Operator => {
                    vec![Command::Identify(ticket, matched)]
                }
                _ => Vec::from_iter(self.store_command(ticket)),
            },
        }
    }

    pub(crate) fn enrolment_identified(
        &mut self,
        ticket: Ticket,
        matches: &[Match],
        now: Timestamp,
    ) -> Vec<Command> {
        let mut known: Vec<&Match> = matches
            .iter()
            .filter(|found| {
                let enrolled = self.people.get(&found.member);
                found.score >= self.settings.threshold(found.purpose)
                    && enrolled.is_some_and(|person| person.basis(found.purpose, now))
            })
            .collect();
        let Some((_, Work::Enrolment(work))) = self.work.get(&ticket) else { return Vec::new() };
        if work.correcting.is_some() {
            known.dedup_by_key(|found| found.member);
            let others = known.iter().filter(|found| found.member != known[0].member).count();
            let best = known.first().map(|found| (found.member, found.purpose));
            return self.correct(ticket, best, others, now);
        }
        if known.is_empty() && !self.is_full_for(work) {
            return Vec::from_iter(self.store_command(ticket));
        }
        let full = known.is_empty();
        let Some((_, Work::Enrolment(work))) = self.work.remove(&ticket) else { return Vec::new() };
        if full {
            let decision = work.decision("too-large", vec![rules::I_1N, rules::RET_02]);
            return Self::refuse(ticket, Refusal::PurposeNotServed, decision);
        }
        let verdict = self.law.decide(&self.enrol_act(&work.facts, true, now));
        let Shut { reason, outcome, rules } = verdict.into();
        Self::refuse(ticket, reason, work.decision(outcome, rules))
    }

    /// The captures were compared with the claimed enrolment that is to be corrected.
    pub(crate) fn enrolment_compared(
        &mut self,
        ticket: Ticket,
        scores: &[(Purpose, f32)],
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, Work::Enrolment(work))) = self.work.get(&ticket) else { return Vec::new() };
        let Some(correcting) = &work.correcting else { return Vec::new() };
        let member = if let Route::One(Source::Held(member)) = correcting.route {
            Some(member)
        } else {
            let claim = correcting.claim.as_ref();
            claim.and_then(|claim| self.claims.get(&claim.handle)).copied()
        };
        let above =
            scores.iter().find(|(purpose, score)| *score >= self.settings.threshold(*purpose));
        let best = member.zip(above.map(|(purpose, _)| *purpose));
        self.correct(ticket, best, 0, now)
    }

    /// Goes on with a correction once its person is recognised, and ends it otherwise.
    fn correct(
        &mut self,
        ticket: Ticket,
        best: Option<(MemberId, Purpose)>,
        rivals: usize,
        now: Timestamp,
    ) -> Vec<Command> {
        let Some((_, Work::Enrolment(work))) = self.work.get(&ticket) else { return Vec::new() };
        let Some(correcting) = &work.correcting else { return Vec::new() };
        let verdict = best.and_then(|(member, purpose)| {
            let person = self.person_facts(self.people.get(&member)?, purpose);
            let act = Self::recognise_act(correcting, purpose, &person, (0, 0), rivals, now);
            Some((member, self.law.decide(&act)))
        });
        let right = self.law.decide(&Self::exercise_act("rectify"));
        if let Some((member, recognised)) = verdict.filter(|(_, verdict)| verdict.allowed)
            && right.allowed
        {
            if let Some((_, Work::Enrolment(work))) = self.work.get_mut(&ticket) {
                work.replaces = Some(member);
                work.cited.extend(recognised.rules);
                work.cited.extend(right.rules);
            }
            return Vec::from_iter(self.store_command(ticket));
        }
        let Some((_, Work::Enrolment(mut work))) = self.work.remove(&ticket) else {
            return Vec::new();
        };
        let correcting = work.correcting.take();
        let tries = correcting.and_then(|correcting| self.note_failure(&correcting, now));
        let answer = [
            Command::Wipe(ticket),
            Command::Reply(ticket, AnswerBody::NotRecognised),
            Command::Log(work.decision("not-recognised", vec![rules::G_22, rules::E_79])),
        ];
        answer.into_iter().chain(tries).collect()
    }

    /// Whether a store with real people would outgrow its calibration by this enrolment.
    fn is_full_for(&self, work: &EnrolmentWork) -> bool {
        let profile = self.new_profile(work, work.facts.at);
        self.settings.production && self.outgrown_by(profile.custody, &profile.hands)
    }

    fn store_command(&mut self, ticket: Ticket) -> Option<Command> {
        let (begun, Work::Enrolment(work)) = self.work.get(&ticket)? else { return None };
        let (profile, member) = (self.new_profile(work, *begun), work.facts.ids.member);
        if let Some((_, Work::Enrolment(work))) = self.work.get_mut(&ticket) {
            work.stored = Some(profile.clone());
        }
        Some(Command::Store(ticket, member, Box::new(profile)))
    }

    fn new_profile(&self, work: &EnrolmentWork, now: Timestamp) -> Profile {
        let facts = &work.facts;
        let consent = |purpose: Purpose| {
            let given = facts.consents.iter().find(|consent| consent.purpose == purpose)?;
            Some(Consent {
                purpose,
                given_at: now,
                expires_at: now.after(self.settings.ceiling),
                notice: given.notice.clone(),
                language: given.language.clone(),
            })
        };
        let mut hands: Vec<Hand> = facts.captures.clone();
        hands.sort();
        hands.dedup();
        let matched = work.purposes.without(Purpose::Roaming);
        let mut profile = Profile {
            claim: facts.ids.claim,
            custody: self.settings.custody,
            origin: Origin::Store,
            consents: work.purposes.iter().filter_map(consent).collect(),
            hands: matched.iter().flat_map(|p| hands.iter().map(move |hand| (p, *hand))).collect(),
            pseudonyms: matched.iter().map(|p| (p, facts.ids.pseudonyms[p as usize])).collect(),
            paused: false,
            authorisation: facts.authorisation.clone(),
            enrolled_at: now,
            expires_at: now,
            salt: facts.ids.salt,
            spent: Spent::default(),
            objected: false,
            replaces: None,
            released_at: self.kept_release(facts, now),
            exported: false,
        };
        if let Some((member, old)) =
            work.replaces.and_then(|member| Some((member, self.people.get(&member)?)))
        {
            profile.replaces = Some(member);
            profile.spent = old.spent;
            profile.objected = old.objected;
            profile.paused = old.paused;
            // The same person to the same account.
            for (purpose, pseudonym) in &mut profile.pseudonyms {
                *pseudonym = old.pseudonym(*purpose).unwrap_or(*pseudonym);
            }
        }
        profile.expires_at = self.expiry(&profile, now);
        profile
    }

    /// A release is kept only where the pack has a term for it.
    fn kept_release(&self, facts: &EnrolmentFacts, now: Timestamp) -> Option<Timestamp> {
        let signed_at = facts.release?.signed_at;
        let act = Act::new(Action::Keep)
            .with("item", "written-release")
            .with("now", now.as_millis())
            .with("ends", now.after(self.settings.ceiling).as_millis())
            .with("basis", true);
        self.law.decide(&act).allowed.then_some(signed_at)
    }

    pub(crate) fn stored(&mut self, ticket: Ticket, result: Result<(), ()>) -> Vec<Command> {
        let Some((_, Work::Enrolment(work))) = self.work.remove(&ticket) else { return Vec::new() };
        let Some(profile) = work.stored.as_ref().filter(|_| result.is_ok()) else {
            let decision = work.decision("internal", vec![rules::G_25_2]);
            return Self::refuse(ticket, Refusal::Internal, decision);
        };
        let mut rules = work.cited.clone();
        rules.push(rules::RET_03);
        let outcome = if work.replaces.is_some() { "rectified" } else { "enrolled" };
        let mut decision = work.decision(outcome, rules);
        decision.subject = Some((work.facts.ids.member, profile.salt));
        self.load(work.facts.ids.member, profile.clone());
        let mut commands =
            vec![Command::ReplyEnrolled(ticket), Command::Wipe(ticket), Command::Log(decision)];
        if let Some(old) = work.replaces {
            commands.extend(self.erase(old, rules::G_16, None, true));
        }
        commands
    }
}
