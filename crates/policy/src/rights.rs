use crate::{
    Command, DecisionKind, Engine, Rule, Ticket,
    gates::Shut,
    pack::{Act, Action},
    rules,
    scan::ScanWork,
};
use palmgate_protocol::{
    MemberId, Purpose, PurposeSet, Timestamp,
    terminal::{AnswerBody, Intent},
};

impl Engine {
    /// A recognised person exercises a right. Somebody whose record this store does not hold is
    /// sent to the store that enrolled them.
    pub(crate) fn exercise(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: Option<MemberId>,
        now: Timestamp,
    ) -> Vec<Command> {
        let Some(member) = member.filter(|member| self.people.contains_key(member)) else {
            let decision = scan.decision("not-recognised", vec![rules::G_22]);
            return vec![Command::Reply(ticket, AnswerBody::NotRecognised), Command::Log(decision)];
        };
        let right = match &scan.intent {
            Intent::History => "history",
            Intent::Pause => "pause",
            Intent::Resume => "resume",
            Intent::Withdraw { .. } => "withdraw",
            Intent::Erase => "erase",
            Intent::Export => "export",
            Intent::Port { .. } => "port",
            Intent::Object => "object",
            Intent::Pay(_) | Intent::Loyalty | Intent::Entry | Intent::Staff { .. } => "none",
        };
        let verdict = self.law.decide(&Self::exercise_act(right));
        if !verdict.allowed {
            let Shut { reason, outcome, rules } = verdict.into();
            return vec![
                Command::Reply(ticket, AnswerBody::Refused { reason }),
                Command::Log(scan.decision(outcome, rules)),
            ];
        }
        let cited = verdict.rules;
        match &scan.intent {
            Intent::History => self.show_history(ticket, scan, member, cited, now),
            Intent::Pause => self.set_paused(ticket, scan, member, (true, cited)),
            Intent::Resume => self.set_paused(ticket, scan, member, (false, cited)),
            Intent::Withdraw { purposes } => self.withdraw(ticket, scan, member, *purposes),
            Intent::Erase => self.erase(member, rules::G_17, Some(ticket), true),
            Intent::Export => self.export(ticket, scan, member, None, cited),
            Intent::Port { key } => self.export(ticket, scan, member, Some(*key), cited),
            Intent::Object => self.object(ticket, scan, member, cited),
            Intent::Pay(_) | Intent::Loyalty | Intent::Entry | Intent::Staff { .. } => Vec::new(),
        }
    }

    fn show_history(
        &self,
        ticket: Ticket,
        scan: &ScanWork,
        member: MemberId,
        cited: Vec<Rule>,
        now: Timestamp,
    ) -> Vec<Command> {
        let person = self.people.get(&member);
        let purposes = person.map_or_else(PurposeSet::default, |person| person.purposes(now));
        let mut decision = scan.decision("history", cited);
        decision.subject = person.map(|person| (member, person.salt));
        vec![Command::ReplyHistory(ticket, member, purposes), Command::Log(decision)]
    }

    fn set_paused(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: MemberId,
        (paused, mut cited): (bool, Vec<Rule>),
    ) -> Vec<Command> {
        if !paused {
            // Who lifts it is the person, and so they know (Art. 18(3)).
            cited.extend(self.law.decide(&Act::new(Action::Lift).with("told", true)).rules);
        }
        let Some(person) = self.people.get_mut(&member) else { return Vec::new() };
        person.paused = paused;
        let outcome = if paused { "paused" } else { "resumed" };
        cited.push(rules::G_18);
        let roams = person.consents.iter().any(|consent| consent.purpose == Purpose::Roaming);
        if roams {
            cited.push(rules::G_19);
        }
        let mut decision = scan.decision(outcome, cited);
        decision.subject = Some((member, person.salt));
        let mut commands = vec![Command::Update(member, Box::new(person.clone()))];
        if roams {
            commands.push(Command::TellRecipients(ticket, member, Box::new(person.clone())));
        }
        commands.extend([Command::Reply(ticket, AnswerBody::Done), Command::Log(decision)]);
        commands
    }

    /// A copy for the person themselves; with a key, their templates sealed to it. That it was handed
    /// out stands in the receipt of a later erasure.
    fn export(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: MemberId,
        key: Option<[u8; 32]>,
        mut cited: Vec<Rule>,
    ) -> Vec<Command> {
        let mut items = vec!["consents", "use", "phone", "card-token"];
        if key.is_some() {
            items.push("template");
        }
        let verdict = self.law.decide(&Self::disclose_act(items, key.is_some()));
        if !verdict.allowed {
            let Shut { reason, outcome, rules } = verdict.into();
            return vec![
                Command::Reply(ticket, AnswerBody::Refused { reason }),
                Command::Log(scan.decision(outcome, rules)),
            ];
        }
        let Some(person) = self.people.get_mut(&member) else { return Vec::new() };
        let first = !std::mem::replace(&mut person.exported, true);
        cited.extend(verdict.rules);
        let mut decision = scan.decision(if key.is_some() { "ported" } else { "exported" }, cited);
        decision.subject = Some((member, person.salt));
        let update = first.then(|| Command::Update(member, Box::new(person.clone())));
        let reply = Command::ReplyExport(ticket, member, Box::new(person.clone()), key);
        update.into_iter().chain([reply, Command::Log(decision)]).collect()
    }

    /// From now on the answer to a loyalty scan says so.
    fn object(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: MemberId,
        cited: Vec<Rule>,
    ) -> Vec<Command> {
        let Some(person) = self.people.get_mut(&member) else { return Vec::new() };
        person.objected = true;
        let mut decision = scan.decision("objected", cited);
        decision.subject = Some((member, person.salt));
        vec![
            Command::Update(member, Box::new(person.clone())),
            Command::Reply(ticket, AnswerBody::Done),
            Command::Log(decision),
        ]
    }

    /// Withdrawing the last purpose leaves no reason to keep anything.
    fn withdraw(
        &mut self,
        ticket: Ticket,
        scan: &ScanWork,
        member: MemberId,
        purposes: PurposeSet,
    ) -> Vec<Command> {
        let Some(person) = self.people.get_mut(&member) else { return Vec::new() };
        person.consents.retain(|consent| !purposes.contains(consent.purpose));
        person.hands.retain(|(purpose, _)| !purposes.contains(*purpose));
        person.pseudonyms.retain(|(purpose, _)| !purposes.contains(*purpose));
        if purposes.contains(Purpose::Staff) {
            person.authorisation = None;
        }
        let mut decision =
            scan.decision("withdrawn", vec![rules::G_07_3, rules::G_17, rules::G_19]);
        decision.kind = DecisionKind::Right;
        decision.subject = Some((member, person.salt));
        if person.hands.is_empty() {
            let mut commands = vec![Command::Log(decision)];
            commands.extend(self.erase(member, rules::G_07_3, Some(ticket), true));
            return commands;
        }
        vec![
            Command::RemovePurposes(ticket, member, purposes, Box::new(person.clone())),
            Command::Reply(ticket, AnswerBody::Done),
            Command::Log(decision),
        ]
    }
}
