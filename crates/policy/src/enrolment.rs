use crate::{
    CaptureFacts, Command, Decision, DecisionKind, Engine, EnrolmentFacts, Match, Origin, Profile,
    Rule, Ticket, engine::Work, gates::Shut, rules,
};
use palmgate_protocol::{
    Custody, Hand, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{AnswerBody, CaptureProblem, Refusal},
};

/// An enrolment between its gates and its answer.
pub(crate) struct EnrolmentWork {
    pub(crate) facts: EnrolmentFacts,
    purposes: PurposeSet,
    cited: Vec<Rule>,
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
        let mut work = EnrolmentWork {
            facts,
            purposes: PurposeSet::default(),
            cited: Vec::new(),
            stored: None,
        };
        match gates {
            Err(Shut { reason, outcome, rules }) => {
                Self::refuse(ticket, reason, work.decision(outcome, rules))
            }
            Ok(_) if self.work.len() >= self.settings.pending_limit => {
                vec![Command::Wipe(ticket), Command::Reply(ticket, AnswerBody::Busy)]
            }
            Ok((purposes, cited)) => {
                (work.purposes, work.cited) = (purposes, cited);
                self.work.insert(ticket, (now, Work::Enrolment(Box::new(work))));
                vec![Command::ExtractEnrolment(ticket, purposes.without(Purpose::Roaming))]
            }
        }
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
            let verdict = self.law.decide(&Self::compare_act(facts.liveness, least));
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
            // Only a box that can open its references can tell that a hand is enrolled already.
            Ok(()) if self.settings.custody == Custody::Operator => {
                vec![Command::Identify(ticket, matched)]
            }
            Ok(()) => Vec::from_iter(self.store_command(ticket)),
        }
    }

    pub(crate) fn enrolment_identified(
        &mut self,
        ticket: Ticket,
        matches: &[Match],
        now: Timestamp,
    ) -> Vec<Command> {
        let known = matches.iter().any(|found| {
            let enrolled = self.people.get(&found.member);
            found.score >= self.settings.threshold(found.purpose)
                && enrolled.is_some_and(|person| person.basis(found.purpose, now))
        });
        if !known {
            return Vec::from_iter(self.store_command(ticket));
        }
        let Some((_, Work::Enrolment(work))) = self.work.remove(&ticket) else { return Vec::new() };
        let verdict = self.law.decide(&self.enrol_act(&work.facts, true, now));
        let Shut { reason, outcome, rules } = verdict.into();
        Self::refuse(ticket, reason, work.decision(outcome, rules))
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
        };
        profile.expires_at = self.expiry(&profile, now);
        profile
    }

    pub(crate) fn stored(&mut self, ticket: Ticket, result: Result<(), ()>) -> Vec<Command> {
        let Some((_, Work::Enrolment(work))) = self.work.remove(&ticket) else { return Vec::new() };
        let Some(profile) = work.stored.as_ref().filter(|_| result.is_ok()) else {
            let decision = work.decision("internal", vec![rules::G_25_2]);
            return Self::refuse(ticket, Refusal::Internal, decision);
        };
        let mut rules = work.cited.clone();
        rules.push(rules::RET_03);
        let mut decision = work.decision("enrolled", rules);
        decision.subject = Some((work.facts.ids.member, profile.salt));
        self.load(work.facts.ids.member, profile.clone());
        vec![Command::ReplyEnrolled(ticket), Command::Wipe(ticket), Command::Log(decision)]
    }
}
