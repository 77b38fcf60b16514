//! Erasures: together where they wait together, finished where a crash cut them.

use super::{Deed, Done, Failure, Writer, report};
use crate::{clock, cloud::Outgoing, receipts::Holders};
use minicbor::{Decode, Encode};
use palmgate_ledger::Entry;
use palmgate_policy::{Decision, DecisionKind, Rule, Ticket};
use palmgate_protocol::{ClaimHandle, MemberId, Name, cloud::Erasure, decode, encode};
use palmgate_vault::ErasureRequest;
use std::collections::VecDeque;

/// Somebody who is forgotten.
struct Leaver {
    member: MemberId,
    claim: ClaimHandle,
    entry: Entry,
    ticket: Option<Ticket>,
    holders: Holders,
}

/// An erasure under way, as the vault keeps it where a crash would forget what differs from the rule:
/// that the cloud is told if there is one, and that no copy was handed out.
#[derive(Encode, Decode)]
pub(super) struct Leaving {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) commitment: [u8; 32],
    #[n(1)]
    pub(super) cloud: bool,
    #[n(2)]
    pub(super) exported: bool,
}

pub(super) const LEAVING: &str = "leaving";

impl Leaver {
    const fn request(&self) -> ErasureRequest {
        let Self { member, claim, entry, .. } = self;
        ErasureRequest { member: *member, claim: *claim, commitment: entry.commitment }
    }

    fn message(&self) -> Vec<u8> {
        let Self { member, claim, entry, .. } = self;
        let erasure = Erasure { member: *member, claim: *claim, commitment: entry.commitment };
        encode(&Outgoing::Erase(erasure))
    }
}

impl Writer {
    /// Carries out the erasures that wait, in one change of the root: nobody waits for another's. They
    /// go ahead of log entries between them, and not ahead of anything else.
    pub(super) fn erase_waiting(&mut self, waiting: &mut VecDeque<Deed>) {
        let (mut leavers, mut passed) = (Vec::new(), VecDeque::new());
        while let Some(deed) = waiting.pop_front() {
            match deed {
                Deed::Erase { member, claim, salt, rule, ticket, holders } => {
                    let entry = self.erasure_entry(rule, Some((member, salt)));
                    leavers.push(Leaver { member, claim, entry, ticket, holders });
                }
                Deed::Use(member, used) => self.uses.push((member, used)),
                Deed::Log { .. } | Deed::Flush | Deed::Acknowledged { .. } => {
                    passed.push_back(deed);
                }
                other => {
                    waiting.push_front(other);
                    break;
                }
            }
        }
        while let Some(deed) = passed.pop_back() {
            waiting.push_front(deed);
        }
        let receipts = report("erasure", self.erase(&leavers));
        let mut receipts = receipts.map(Vec::into_iter);
        for Leaver { member, ticket, .. } in leavers {
            let result = match &mut receipts {
                Ok(receipts) => receipts.next().ok_or(()),
                Err(()) => Err(()),
            };
            (self.done)(Done::Erased { member, ticket, result });
        }
        (self.done)(Done::Told);
    }

    fn erasure_entry(&self, rule: Rule, subject: Option<(MemberId, [u8; 32])>) -> Entry {
        let decision = Decision {
            kind: DecisionKind::Erasure,
            terminal: None,
            purpose: None,
            outcome: "erased",
            rules: vec![rule],
            subject,
        };
        self.entry(&decision, clock::now())
    }

    fn erase(&mut self, leavers: &[Leaver]) -> Result<Vec<String>, Failure> {
        let begun = self.vault.unfinished_erasures();
        let again = |one: &Leaver| begun.contains(&one.entry.commitment);
        let new: Vec<&Leaver> = leavers.iter().filter(|one| !again(one)).collect();
        // The cloud's message first: if the power fails now, the cloud forgets the person and its
        // next shard makes this store forget them, too.
        let told = |one: &&&Leaver| one.holders.cloud;
        let messages: Vec<_> = new.iter().filter(told).map(|one| one.message()).collect();
        self.vault.outbox_push_erasures(&messages)?;
        for one in &new {
            self.write_uses_of(one.member);
            let kept =
                self.read_history(one.member).and_then(|uses| self.held.keep(&self.vault, uses));
            report("held uses", kept).map_err(|()| "what a legal hold covers could not be kept")?;
        }
        let stashed = self.stash(leavers);
        let requests: Vec<_> = new.iter().map(|one| one.request()).collect();
        if !requests.is_empty() {
            self.vault.erase(&requests)?;
        }
        let entries: Vec<_> =
            leavers.iter().map(|one| (one.entry.clone(), &one.holders, again(one))).collect();
        let receipts = self.record_erasures(&entries)?;
        if stashed {
            let removed = self.vault.remove_state(LEAVING).map_err(Failure::from);
            let _ = report("erasure's recipients", removed);
        }
        Ok(receipts)
    }

    /// Keeps what the receipts will say if a crash cuts in before they are written. An erasure does
    /// not fail for it.
    fn stash(&self, leavers: &[Leaver]) -> bool {
        let differs = |one: &&Leaver| one.holders.cloud != self.cloud || one.holders.exported;
        let leaving = |one: &Leaver| Leaving {
            commitment: one.entry.commitment,
            cloud: one.holders.cloud,
            exported: one.holders.exported,
        };
        let leaving: Vec<Leaving> = leavers.iter().filter(differs).map(leaving).collect();
        if leaving.is_empty() {
            return false;
        }
        let kept = self.vault.put_state(LEAVING, &encode(&leaving)).map_err(Failure::from);
        report("erasure's recipients", kept).is_ok()
    }

    /// Entries, who could have something, and whether a crash cut an earlier try; one sync of the
    /// ledger for all of them.
    fn record_erasures(&mut self, all: &[(Entry, &Holders, bool)]) -> Result<Vec<String>, Failure> {
        let entries: Vec<_> = all.iter().map(|(entry, _, again)| (entry, *again)).collect();
        let indices = self.log.log_erasures(&entries)?;
        let ledger = self.log.ledger();
        let generation = self.vault.root_generation();
        let mut receipts = Vec::with_capacity(all.len());
        for ((entry, holders, again), index) in all.iter().zip(indices) {
            let (commitment, at) = (&entry.commitment, entry.at);
            let earlier = if *again { self.receipts.existing(commitment) } else { None };
            let place = (index, generation);
            receipts.push(match earlier {
                Some(receipt) => receipt,
                None => self.receipts.write(ledger, place, commitment, at, holders)?,
            });
        }
        let commitments: Vec<_> = all.iter().map(|(entry, ..)| entry.commitment).collect();
        self.vault.finish_erasures(&commitments)?;
        Ok(receipts)
    }

    /// Erasures that a crash cut between the keys and the ledger.
    pub(super) fn finish_erasures(&mut self, paired: Vec<Name>) -> Result<(), Failure> {
        let begun = self.vault.unfinished_erasures();
        if begun.is_empty() {
            return Ok(());
        }
        let stashed = self.vault.state(LEAVING)?;
        let stashed = stashed.map(|kept| decode::<Vec<Leaving>>(kept.expose())).transpose()?;
        let stashed = stashed.unwrap_or_default();
        let rule = Holders { cloud: self.cloud, terminals: paired, exported: false };
        let holders: Vec<_> = begun
            .iter()
            .map(|commitment| {
                let known = stashed.iter().find(|one| one.commitment == *commitment);
                known.map_or_else(
                    || rule.clone(),
                    |one| Holders { cloud: one.cloud, exported: one.exported, ..rule.clone() },
                )
            })
            .collect();
        let entry = |commitment| Entry { commitment, ..self.erasure_entry(Rule::ERASURE, None) };
        let all: Vec<_> = begun
            .into_iter()
            .zip(&holders)
            .map(|(commitment, holders)| (entry(commitment), holders, true))
            .collect();
        self.record_erasures(&all)?;
        Ok(self.vault.remove_state(LEAVING)?)
    }
}
