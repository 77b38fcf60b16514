//! The ledger: entries, checkpoints, what is pruned; and what happens once a day.

use super::{CHECKPOINT, Done, Failure, Writer, report};
use crate::{clock, witness::Asked};
use palmgate_ledger::{Entry, EntryKind, NOBODY};
use palmgate_policy::{Decision, DecisionKind};
use palmgate_protocol::{Secret, Timestamp};
use std::time::{Duration, Instant};

/// The vault's root changes at least this often, so that what was removed without an erasure does
/// not stay readable for longer.
const RENEWAL: Duration = Duration::from_hours(24);

/// How long the technical log is kept (RET-07: six to twelve months).
const LOG_KEPT: Duration = Duration::from_hours(365 * 24);
/// How long it is kept that consent was given, and that somebody was erased (RET-11, RET-12).
const EVIDENCE_KEPT: Duration = Duration::from_hours(5 * 365 * 24);

impl Writer {
    pub(super) fn entry(&self, decision: &Decision, at: Timestamp) -> Entry {
        let mut entry = Entry {
            at,
            kind: match decision.kind {
                DecisionKind::Scan => EntryKind::Scan,
                DecisionKind::Enrolment => EntryKind::Enrolment,
                DecisionKind::Right => EntryKind::Right,
                DecisionKind::Erasure => EntryKind::Erasure,
                DecisionKind::Shard => EntryKind::Shard,
                DecisionKind::Office => EntryKind::Operation,
                DecisionKind::Pack => EntryKind::Pack,
            },
            terminal: decision.terminal.clone(),
            purpose: decision.purpose,
            outcome: decision.outcome.to_owned(),
            rules: decision.rules.iter().map(|rule| rule.id().to_owned()).collect(),
            pack: self.pack,
            commitment: NOBODY,
        };
        if let Some((member, salt)) = &decision.subject {
            entry.commit(&Secret::new(*salt), member);
        }
        entry
    }

    /// Anybody may hold the roster of a terminal against the ledger.
    pub(super) fn log_roster(&mut self, hash: [u8; 32], at: Timestamp) {
        let entry = Entry {
            at,
            kind: EntryKind::Terminal,
            terminal: None,
            purpose: None,
            outcome: "roster".into(),
            rules: Vec::new(),
            pack: self.pack,
            commitment: hash,
        };
        let _ = report("ledger entry", self.log.log(entry).map_err(Failure::from));
    }

    pub(super) fn flush(&mut self) {
        self.write_uses();
        let flushed = self.log.flush().map_err(Failure::from);
        let _ = report("ledger", flushed);
        let settled = self.receipts.settle(self.log.ledger()).map_err(Failure::from);
        let _ = report("receipts", settled);
        if self.renewed.elapsed() > RENEWAL {
            self.renew();
        }
    }

    /// The vault keeps the ledger's checkpoint: who puts back an older ledger is found out.
    pub(super) fn keep_checkpoint(&self) {
        let note = self.log.ledger().checkpoint().as_bytes();
        let kept = self.vault.put_state(CHECKPOINT, note).map_err(Failure::from);
        let _ = report("checkpoint", kept);
    }

    pub(super) fn asked(&self, from: u64) -> Result<Option<Asked>, Failure> {
        let ledger = self.log.ledger();
        let to = ledger.signed_len();
        if to == from {
            return Ok(None);
        }
        // A witness that has seen more than there is has seen this ledger before it was rolled back.
        if to < from {
            return Err("the witness has cosigned more entries than the ledger has".into());
        }
        let (note, proof) = (ledger.checkpoint().to_owned(), ledger.consistency(from, to)?);
        Ok(Some(Asked { note, proof }))
    }

    /// Takes away entries whose time is up: of uses with the person's own history, of consents and
    /// erasures after five years, of everything else after one.
    fn prune(&mut self) {
        let now = clock::now();
        let ago = |time: Duration| Timestamp::from_millis(now.as_millis() - millis(time));
        let history = self.history;
        let before = |kind| match kind {
            EntryKind::Scan | EntryKind::Escalation => ago(history),
            EntryKind::Enrolment | EntryKind::Consent | EntryKind::Erasure => ago(EVIDENCE_KEPT),
            _ => ago(LOG_KEPT),
        };
        let pruned = report("pruned entries", self.log.prune(before).map_err(Failure::from));
        if pruned.is_ok_and(|pruned| pruned > 0) {
            let rules = ["RET-05", "RET-07", "RET-11"].map(str::to_owned).to_vec();
            let entry = Entry {
                at: now,
                kind: EntryKind::Retention,
                terminal: None,
                purpose: None,
                outcome: "ledger-pruned".into(),
                rules,
                pack: self.pack,
                commitment: NOBODY,
            };
            let _ = report("ledger entry", self.log.log(entry).map_err(Failure::from));
        }
    }

    pub(super) fn renew(&mut self) {
        self.renewed = Instant::now();
        self.prune();
        self.keep_checkpoint();
        let _ = report("key renewal", self.vault.renew().map_err(Failure::from));
    }

    pub(super) fn tell_whether_writable(&mut self) {
        let writable = self.log.is_writable();
        if writable != self.writable {
            self.writable = writable;
            (self.done)(Done::LogWritable(writable));
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}
