//! Commands of the policy, carried out.

use super::{Input, Store};
use crate::{
    clock, cloud::Fetched, extraction::Job, fabric::Outbound, receipts::Holders, records,
    scribe::Deed,
};
use palmgate_policy::{Command, Decision, DecisionKind, Event, Resolved, Source, Ticket};
use palmgate_protocol::{
    ClaimHandle, MemberId, Pseudonym, Purpose, PurposeSet,
    cloud::MemberRecord,
    terminal::{Accepted, Answer, AnswerBody, IssuedClaim, Payment},
};
use palmgate_vault::Column;
use std::{collections::HashMap, sync::Arc, time::Instant};
use tokio::sync::oneshot;

impl Store {
    pub(super) fn execute(&mut self, command: Command) {
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
            Command::Accept { ticket, member, purpose, pseudonym, payment, objected } => {
                self.accept(ticket, member, purpose, pseudonym, payment, objected);
            }
            Command::Reply(ticket, body) => self.reply(ticket, body),
            Command::ReplyHistory(ticket, member, consents) => {
                self.concerns(ticket, member);
                let answer = Box::new(move |uses| AnswerBody::History { uses, consents });
                self.around.scribe.submit(Deed::WithHistory { ticket, member, answer });
            }
            Command::ReplyExport(ticket, member, profile, key) => {
                self.concerns(ticket, member);
                self.export(ticket, member, *profile, key);
            }
            Command::TellRecipients(ticket, member, profile) => {
                self.tell_recipients(ticket, member, &profile);
            }
            Command::KeepVisitors(visitors) => {
                self.around.scribe.submit(crate::kept::visitors(&visitors));
            }
            Command::KeepTries(tries) => self.around.scribe.submit(crate::kept::tries(&tries)),
            Command::ReplyEnrolled(ticket) => {
                let person = self.work.sensitive(ticket).and_then(|kept| kept.enrolment.as_ref());
                if let Some(member) = person.map(|person| person.ids.member) {
                    self.concerns(ticket, member);
                }
                let receipts = self.consent_receipts(ticket);
                let claims = self.issue_claims(ticket);
                self.reply(ticket, AnswerBody::Enrolled { claims, receipts });
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
            Command::Erase { member, claim, salt, rule, ticket, relay, exported } => {
                self.around.references.remove(member);
                self.around.fabric.forget(member);
                self.around.metrics.erased(rule.id());
                self.around.scribe.submit(Deed::Erase {
                    member,
                    claim,
                    salt,
                    rule,
                    ticket,
                    holders: self.holders(relay, exported),
                });
            }
            Command::Wipe(ticket) => self.work.wipe(ticket),
            Command::Log(decision) => self.log(decision),
        }
    }

    /// Who could have something of a person now.
    fn holders(&self, relay: bool, exported: bool) -> Holders {
        let terminals = self.around.terminals.list().into_iter().map(|one| one.name).collect();
        Holders { cloud: relay && self.around.cloud.is_some(), terminals, exported }
    }

    pub(super) fn log(&self, decision: Decision) {
        if decision.kind == DecisionKind::Shard && decision.outcome == "too-large" {
            tracing::error!(
                "the shard has more references than the calibration can vouch for: the one before goes \
                 on serving; give [palm] calibration one of more comparisons, or split the store"
            );
        }
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
        let right = self.work.sensitive(ticket).is_some_and(|sensitive| sensitive.right);
        let Some(asker) = self.work.asker(ticket) else { return };
        let terminal = asker.terminal.clone();
        if let Err(shed) = self.around.workers.submit(job, terminal, right) {
            self.around.metrics.shed("extraction");
            self.decide(Event::Overloaded(shed.ticket()));
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
            let event = match references.identify(&probes) {
                Ok(matches) => Event::Identified(ticket, matches),
                Err(error) => {
                    tracing::warn!(%error, "nobody was searched for");
                    Event::Overloaded(ticket)
                }
            };
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
        objected: bool,
    ) {
        let fetched = self.work.sensitive(ticket).and_then(|kept| kept.fetched.as_ref());
        if let Some(member) = member.or_else(|| fetched.map(|record| record.member)) {
            self.concerns(ticket, member);
        }
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
            objected,
        };
        self.reply(ticket, AnswerBody::Accepted(accepted));
    }

    /// The answer says something of this person.
    fn concerns(&mut self, ticket: Ticket, member: MemberId) {
        if let Some(asker) = self.work.asker(ticket) {
            asker.about = Some(member);
        }
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
        let (claim, history_of) = (profile.claim, profile.replaces);
        self.around.scribe.submit(Deed::Insert {
            ticket,
            member,
            claim,
            columns,
            registration,
            history_of,
        });
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
        let offered = self.offered.take_if(|shard| shard.version == version);
        let Some(shard) = offered else { return };
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

    /// Answers, at once or when the answer's slot comes.
    pub(super) fn reply(&mut self, ticket: Ticket, body: AnswerBody) {
        let Some(asker) = self.work.asker(ticket) else { return };
        let now = Instant::now();
        let Some(due) = asker.slots.next(asker.arrived, now, &body) else {
            return self.answer(ticket, body);
        };
        asker.steps.add("slot", due.saturating_duration_since(now));
        let inputs = self.around.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let _ = inputs.send(Input::Due(ticket, body));
        });
    }

    pub(super) fn answer(&mut self, ticket: Ticket, body: AnswerBody) {
        let Some(asker) = self.work.answered(ticket) else { return };
        let (sent, times) = oneshot::channel();
        let answer = Answer::new(asker.capture, body);
        self.around.fabric.answer(&asker.terminal, Outbound { answer, about: asker.about, sent });
        let (inputs, steps, arrived) = (self.around.inputs.clone(), asker.steps, asker.arrived);
        tokio::spawn(async move {
            if let Ok(times) = times.await {
                let _ = inputs.send(Input::Sent(steps, arrived, times));
            }
        });
    }
}
