//! The office and the law, in the store's task.

use super::{Input, Store};
use crate::{
    clock, kept,
    law::{InForce, LawError},
    office::{ClockView, Done, Draft, Order, Refused, View},
    scribe::Deed,
};
use palmgate_law as papers;
use palmgate_policy::{
    Citation, Decision, DecisionKind, Event, Rule,
    office::{Acted, Denied, OfficeAct, Outside, Request, Urgency},
};
use palmgate_protocol::Timestamp;
use palmgate_vault::WayBack;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A signed time confirms a clock that is at most this far from it.
const CLOSE: std::time::Duration = std::time::Duration::from_mins(10);

/// What the control interface asks of the office.
pub(crate) enum Desk {
    Order(Order, oneshot::Sender<Result<Done, Refused>>),
    View(oneshot::Sender<View>),
    Draft(u64, Option<String>, oneshot::Sender<Result<Draft, Refused>>),
    Clock(oneshot::Sender<ClockView>),
    Confirm(String, oneshot::Sender<Result<(), Refused>>),
    Reload(oneshot::Sender<Result<String, Refused>>),
    Reloaded(Box<Result<InForce, LawError>>, oneshot::Sender<Result<String, Refused>>),
    Decommission(oneshot::Sender<usize>),
    Commit(oneshot::Sender<Result<Option<WayBack>, ()>>),
}

impl Store {
    pub(super) fn office(&mut self, asked: Desk) {
        match asked {
            Desk::Order(order, reply) => self.order(order, reply),
            Desk::View(reply) => {
                let (alarms, now) = (self.alarms(), clock::now());
                let _ = reply.send(View::of(&self.desk, self.engine.law(), &alarms, now));
            }
            Desk::Draft(id, language, reply) => {
                let _ = reply.send(self.draft(id, language));
            }
            Desk::Clock(reply) => {
                let seen = self.engine.time_seen();
                let view = ClockView {
                    clock_ms: clock::now().as_millis(),
                    latest_ms: seen.latest,
                    before_jump_ms: seen.doubt.map(|doubt| doubt.before),
                };
                let _ = reply.send(view);
            }
            Desk::Confirm(note, reply) => {
                let _ = reply.send(self.confirm(&note));
            }
            Desk::Reload(reply) => self.reload(reply),
            Desk::Reloaded(read, reply) => {
                let _ = reply.send(self.reloaded(*read));
            }
            Desk::Decommission(reply) => {
                let people: usize = self.engine.standing().people.iter().sum();
                self.decide(Event::Decommissioned);
                let _ = reply.send(people);
            }
            Desk::Commit(reply) => self.around.scribe.submit(Deed::Commit(reply)),
        }
    }

    fn order(&mut self, order: Order, reply: oneshot::Sender<Result<Done, Refused>>) {
        let now = clock::now();
        let act = order.act.clone();
        match self.desk.act(self.engine.law(), order.act, now) {
            Err(denied) => {
                if let Denied::Law(citations) = &denied {
                    let rules = citations.iter().map(|citation| citation.rule).collect();
                    self.note("office-denied", rules);
                }
                let _ = reply.send(Err(denied.into()));
            }
            Ok(acted) => {
                let language = order.language.unwrap_or_else(|| self.around.language.clone());
                let done = self.done_order(&act, &acted, &language);
                self.note(acted.word, acted.rules);
                let (kept, durable) = oneshot::channel();
                self.around.scribe.submit(kept::desk(&self.desk, Some(kept)));
                self.tell_holds();
                tokio::spawn(async move {
                    let durable = durable.await.unwrap_or(false);
                    let _ = reply.send(if durable { Ok(done) } else { Err(Refused::Disk) });
                });
                self.show_office();
            }
        }
    }

    /// What goes back to the office: the next deadline, and the letter.
    fn done_order(&self, act: &OfficeAct, acted: &Acted, language: &str) -> Done {
        let (house, pack) = (&self.around.law.house, self.engine.pack());
        let request = self.desk.requests().find(|(id, _)| *id == acted.id).map(|(_, one)| one);
        let breach = self.desk.breaches().find(|(id, _)| *id == acted.id).map(|(_, one)| one);
        let letter = |request: &Request| match act {
            OfficeAct::OpenRequest { .. } => {
                Some(papers::receipt_of_request(house, pack, request, language))
            }
            OfficeAct::ExtendRequest { reasons, .. } => {
                Some(papers::extension(house, pack, request, reasons, language))
            }
            OfficeAct::RefuseRequest { reasons, .. } => {
                Some(papers::refusal(house, pack, request, reasons, language))
            }
            OfficeAct::AskIdentity { doubt, .. } => {
                Some(papers::identity(house, pack, request, doubt, language))
            }
            _ => None,
        };
        let due = request.filter(|request| request.closed().is_none()).map(|one| one.due(pack));
        let due = due.or_else(|| breach.filter(|one| one.reported.is_none())?.due(pack));
        Done {
            id: acted.id,
            rules: acted.rules.iter().map(ToString::to_string).collect(),
            due_ms: due.map(Timestamp::as_millis),
            letter: request.and_then(letter).map(|paper| paper.markdown()),
        }
    }

    fn draft(&self, id: u64, language: Option<String>) -> Result<Draft, Refused> {
        let found = self.desk.breaches().find(|(known, _)| *known == id);
        let (_, breach) = found.ok_or(Refused::NoBreach(id))?;
        let language = language.unwrap_or_else(|| self.around.language.clone());
        let (house, pack) = (&self.around.law.house, self.engine.pack());
        let paper = papers::breach_draft(house, pack, breach, clock::now(), &language);
        let missing = paper.missing.iter().map(|item| (*item).to_owned()).collect();
        Ok(Draft { text: paper.markdown(), missing })
    }

    fn confirm(&mut self, note: &str) -> Result<(), Refused> {
        let (tenant, store) = (&self.around.tenant, &self.around.store);
        let at = papers::verify_time(tenant, store, note, self.around.law.signers())?;
        let off = at.distance(clock::now());
        if off > CLOSE {
            return Err(Refused::ClockOff(off.as_secs()));
        }
        if self.engine.time_seen().doubt.is_none() {
            return Err(Refused::NoDoubt);
        }
        self.decide(Event::TimeConfirmed(at));
        self.keep_time();
        if self.engine.time_seen().doubt.is_some() {
            return Err(Refused::OldTime);
        }
        Ok(())
    }

    fn reload(&self, reply: oneshot::Sender<Result<String, Refused>>) {
        let (law, inputs) = (self.around.law.clone(), self.around.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let read = Box::new(law.again(clock::now()));
            let _ = inputs.send(Input::Office(Desk::Reloaded(read, reply)));
        });
    }

    fn reloaded(&mut self, read: Result<InForce, LawError>) -> Result<String, Refused> {
        let law = read?;
        let (top, pack) = (law.pack.top(), Arc::clone(&law.pack));
        let name = format!(
            "{} {} {}",
            top.name,
            top.version,
            data_encoding::HEXLOWER.encode(&law.pack.hash())
        );
        self.around.scribe.submit(Deed::Pack(pack.hash()));
        self.around.law = law;
        self.decide(Event::PackChanged(pack));
        Ok(name)
    }

    /// An act of the office, in the ledger.
    fn note(&self, word: &'static str, rules: Vec<Rule>) {
        let kind = DecisionKind::Office;
        self.log(Decision {
            kind,
            terminal: None,
            purpose: None,
            outcome: word,
            rules,
            subject: None,
        });
    }

    pub(super) fn keep_time(&mut self) {
        let seen = self.engine.time_seen();
        self.around.scribe.submit(kept::time(&seen));
        self.time_kept = Some((std::time::Instant::now(), seen.doubt.is_some()));
    }

    /// The latest time goes to disk once a minute, and at once when the clock jumped.
    pub(super) fn keep_time_now_and_then(&mut self) {
        let doubted = self.engine.time_seen().doubt.is_some();
        let due = self.time_kept.is_none_or(|(kept, before)| {
            kept.elapsed() > std::time::Duration::from_mins(1) || doubted != before
        });
        if due {
            self.keep_time();
        }
    }

    /// The daily look, taken every minute.
    pub(super) fn look_at_duties(&mut self) {
        let due = std::time::Duration::from_mins(1);
        if self.looked.is_some_and(|looked| looked.elapsed() < due) {
            return;
        }
        self.looked = Some(std::time::Instant::now());
        if self.desk.sweep(self.engine.law(), clock::now()) {
            self.around.scribe.submit(kept::desk(&self.desk, None));
            self.tell_holds();
        }
        self.show_office();
    }

    fn alarms(&self) -> Vec<Citation> {
        let now = clock::now();
        let outside = Outside {
            unconfirmed_since: self.around.pending.oldest(),
            // The root changes every day that the gateway runs.
            keys_changed: None,
            assessed: self.around.law.assessed,
            attack_burst: self.engine.under_attack(now),
        };
        let law = self.engine.law();
        law.alarms(&self.desk.review(law, &outside, now))
    }

    fn show_office(&mut self) {
        self.around.metrics.unconfirmed_since(self.around.pending.oldest());
        let (alarms, now) = (self.alarms(), clock::now());
        let pack = self.engine.pack();
        let count = |urgency: Urgency| {
            self.desk.requests().filter(|(_, one)| one.urgency(pack, now) == urgency).count()
        };
        let requests = Urgency::OPEN.map(|urgency| (urgency.as_str(), count(urgency)));
        let breaches = self.desk.breaches().filter(|(_, one)| one.reported.is_none()).count();
        for alarm in &alarms {
            if !self.alarmed.contains(&alarm.rule) {
                tracing::warn!(rule = %alarm.rule, "{alarm}");
            }
        }
        self.around.metrics.office(&requests, breaches, &alarms, &self.alarmed);
        self.alarmed = alarms.iter().map(|alarm| alarm.rule).collect();
    }

    pub(super) fn tell_holds(&self) {
        let holds = self.desk.holds().map(|(_, hold)| hold.clone()).collect();
        self.around.scribe.submit(Deed::Holds(holds));
    }
}
