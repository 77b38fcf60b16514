//! The one thread that writes: people, erasures, history and the ledger, in the order decided.
//! What is reported as done is durable.

mod erasing;
mod failures;
mod history;
mod log;
mod people;
#[cfg(test)]
mod tests;

use crate::{
    clock,
    decision_log::DecisionLog,
    held::Held,
    in_use,
    receipts::{Holders, Receipts},
    records::Columns,
    way_back,
    witness::Asked,
};
use failures::report;
use palmgate_policy::{Decision, Profile, Rule, Ticket, office::Hold};
use palmgate_protocol::{
    ClaimHandle, MemberId, Name, Secret, Timestamp,
    cloud::ErasureState,
    terminal::{AnswerBody, Use},
};
use palmgate_vault::{Column, Vault, WayBack};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// The name of the ledger's last kept checkpoint among the vault's state.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// What waits in the queue is looked through so far for erasures to carry out together.
const MAX_TOGETHER: usize = 1_024;

/// Makes an answer of a person's uses.
pub(crate) type Tell = Box<dyn FnOnce(Vec<Use>) -> AnswerBody + Send>;

/// Something to write.
pub(crate) enum Deed {
    /// A new person; the registration goes to the cloud.
    Insert {
        ticket: Ticket,
        member: MemberId,
        claim: ClaimHandle,
        columns: Columns,
        registration: Option<Vec<u8>>,
        /// Whose history goes on in this enrolment, which corrects theirs.
        history_of: Option<MemberId>,
    },
    /// People given by the cloud.
    Adopt { people: Vec<(MemberId, ClaimHandle, Columns)> },
    /// A whole shard or delta.
    AdoptShard {
        version: u64,
        manifest_hash: [u8; 32],
        lease_until: Timestamp,
        people: Vec<(MemberId, ClaimHandle, Columns)>,
    },
    /// A changed profile.
    Update(MemberId, Profile),
    /// Purposes withdrawn: what belongs to them is destroyed.
    Withdraw {
        member: MemberId,
        gone: Vec<Column>,
        changed: Columns,
        registration: Option<Vec<u8>>,
    },
    /// A person forgotten.
    Erase {
        member: MemberId,
        claim: ClaimHandle,
        salt: [u8; 32],
        rule: Rule,
        ticket: Option<Ticket>,
        holders: Holders,
    },
    /// A use, for the person's own history.
    Use(MemberId, Use),
    /// An answer that needs the person's history.
    WithHistory { ticket: Ticket, member: MemberId, answer: Tell },
    /// A state of the store; `kept` hears whether it is durable.
    Keep { name: &'static str, value: Secret<Vec<u8>>, kept: Option<oneshot::Sender<bool>> },
    /// Entries are made under this pack from now on.
    Pack([u8; 32]),
    /// The legal holds in force.
    Holds(Vec<Hold>),
    /// A decision.
    Log { decision: Decision, at: Timestamp },
    /// The hash of the roster in force from this time on.
    Roster([u8; 32], Timestamp),
    /// The cloud's word on an erasure.
    Acknowledged { commitment: [u8; 32], state: ErasureState },
    /// A terminal began a session at this time.
    Joined(Name, Timestamp),
    /// A terminal was removed at this time.
    Removed(Name, Timestamp),
    /// A checkpoint for the witness, who cosigned this many entries last; nothing if that is all.
    Checkpoint { from: u64, asked: oneshot::Sender<Result<Option<Asked>, ()>> },
    /// The cloud knows of every erasure: what named them in the outbox may go for good.
    Renew,
    /// The state's way back to the format before is given up; what it was.
    Commit(oneshot::Sender<Result<Option<WayBack>, ()>>),
    /// Make the ledger durable.
    Flush,
    /// Make everything durable and end.
    Finish(oneshot::Sender<()>),
}

/// What was written.
pub(crate) enum Done {
    Stored {
        member: MemberId,
        ticket: Ticket,
        result: Result<(), ()>,
    },
    Erased {
        member: MemberId,
        ticket: Option<Ticket>,
        result: Result<String, ()>,
    },
    /// Something new waits for the cloud.
    Told,
    /// Whether decisions can be logged has changed.
    LogWritable(bool),
    Answer(Ticket, AnswerBody),
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Scribe {
    deeds: mpsc::UnboundedSender<Deed>,
    entries: Arc<AtomicU64>,
}

impl Scribe {
    /// Starts the thread; `paired` are the store's terminals, `cloud` says whether there is one. The
    /// queue is bounded by what feeds it:
    /// requests in work, one shard at a time, one tick a second.
    pub(crate) fn start(
        vault: Arc<Vault>,
        log: DecisionLog,
        mut receipts: Receipts,
        (paired, cloud): (Vec<Name>, bool),
        (history, pack): (Duration, [u8; 32]),
        done: impl Fn(Done) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (deeds, mut queue) = mpsc::unbounded_channel();
        let entries = Arc::new(AtomicU64::new(log.len()));
        let counted = Arc::clone(&entries);
        let done = Box::new(done);
        let (uses, held) = (Vec::new(), Held::default());
        let (writable, renewed) = (true, Instant::now());
        receipts.waits_only_for(&paired, clock::now());
        let mut writer = Writer {
            vault,
            log,
            writable,
            renewed,
            receipts,
            history,
            pack,
            uses,
            held,
            cloud,
            done,
        };
        let _ = report("interrupted erasure", writer.finish_erasures(paired));
        thread::Builder::new().name("scribe".into()).spawn(move || {
            let mut waiting = VecDeque::new();
            while let Some(deed) = waiting.pop_front().or_else(|| queue.blocking_recv()) {
                match deed {
                    Deed::Finish(finished) => {
                        writer.flush();
                        writer.keep_checkpoint();
                        let _ = finished.send(());
                        return;
                    }
                    Deed::Erase { .. } => {
                        waiting.push_front(deed);
                        while waiting.len() < MAX_TOGETHER
                            && let Ok(more) = queue.try_recv()
                        {
                            waiting.push_back(more);
                        }
                        writer.erase_waiting(&mut waiting);
                    }
                    deed => writer.write(deed),
                }
                writer.tell_whether_writable();
                counted.store(writer.log.len(), Ordering::Relaxed);
            }
        })?;
        Ok(Self { deeds, entries })
    }

    pub(crate) fn submit(&self, deed: Deed) {
        if self.deeds.send(deed).is_err() {
            tracing::error!("the writing thread is gone: nothing can be made durable");
        }
    }

    /// Waits until everything submitted is durable, and ends the thread.
    pub(crate) async fn finish(&self) {
        let (finished, waits) = oneshot::channel();
        self.submit(Deed::Finish(finished));
        let _ = waits.await;
    }

    /// Entries in the ledger.
    pub(crate) fn entries(&self) -> usize {
        usize::try_from(self.entries.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

struct Writer {
    vault: Arc<Vault>,
    log: DecisionLog,
    writable: bool,
    renewed: Instant,
    receipts: Receipts,
    history: Duration,
    pack: [u8; 32],
    uses: Vec<(MemberId, Use)>,
    held: Held,
    cloud: bool,
    done: Box<dyn Fn(Done) + Send>,
}

type Failure = Box<dyn std::error::Error>;

impl Writer {
    fn write(&mut self, deed: Deed) {
        match deed {
            Deed::Insert { ticket, member, claim, mut columns, registration, history_of } => {
                if let Some(old) = history_of {
                    self.write_uses();
                    let read = self.vault.read(&old, Column::History).map_err(Failure::from);
                    let history = report("history", read).ok().flatten();
                    columns.extend(history.map(|history| (Column::History, history)));
                }
                let result =
                    report("enrolment", self.insert(vec![(member, claim, columns)], registration));
                (self.done)(Done::Stored { member, ticket, result });
            }
            Deed::Adopt { people } => {
                let _ = report("given person", self.insert(people, None));
            }
            Deed::AdoptShard { version, manifest_hash, lease_until, people } => {
                let adopted = self.adopt_shard(version, manifest_hash, lease_until, people);
                if report("shard", adopted).is_ok() {
                    (self.done)(Done::Told);
                }
            }
            Deed::Update(member, profile) => {
                let _ = report("profile", self.update(member, &profile));
            }
            Deed::Withdraw { member, gone, changed, registration } => {
                let _ = report("withdrawal", self.withdraw(member, gone, changed, registration));
            }
            Deed::Use(member, used) => self.uses.push((member, used)),
            Deed::WithHistory { ticket, member, answer } => {
                self.write_uses();
                let uses = report("history", self.read_history(member)).unwrap_or_default();
                (self.done)(Done::Answer(ticket, answer(uses)));
            }
            Deed::Keep { name, value, kept } => {
                let result = self.vault.put_state(name, value.expose()).map_err(Failure::from);
                let durable = report(name, result).is_ok();
                if let Some(kept) = kept {
                    let _ = kept.send(durable);
                }
            }
            Deed::Pack(pack) => {
                self.pack = pack;
                let _ = report(
                    "pack in use",
                    in_use::keep_pack(&self.vault, pack).map_err(Failure::from),
                );
            }
            Deed::Holds(holds) => {
                self.held.put(holds);
                let _ = report("held uses", self.held.release(&self.vault));
            }
            Deed::Log { decision, at } => {
                let entry = self.entry(&decision, at);
                let appended = self.log.log(entry).map_err(Failure::from);
                let _ = report("ledger entry", appended);
            }
            Deed::Roster(hash, at) => self.log_roster(hash, at),
            Deed::Acknowledged { commitment, state } => {
                let ledger = self.log.ledger();
                let updated = self.receipts.acknowledged(ledger, &commitment, &state);
                let _ = report("receipt", updated.map_err(Failure::from));
            }
            Deed::Joined(terminal, at) => self.receipts.joined(terminal, at),
            Deed::Removed(terminal, at) => self.receipts.removed(terminal, at),
            Deed::Checkpoint { from, asked } => {
                self.flush();
                let _ = asked.send(report("checkpoint", self.asked(from)));
            }
            Deed::Commit(given_up) => {
                let log = (&mut self.log, self.pack);
                let done = way_back::commit(&self.vault, log);
                let _ = given_up.send(report("commit of the state", done.map_err(Failure::from)));
            }
            Deed::Renew => self.renew(),
            Deed::Flush => self.flush(),
            Deed::Erase { .. } | Deed::Finish(_) => {}
        }
    }
}
