//! The one thread that writes: people, erasures, history and the ledger, in the order decided.
//! What is reported as done is durable.

use crate::{
    clock, cloud::Outgoing, decision_log::DecisionLog, held::Held, receipts::Receipts,
    records::Columns,
};
use palmgate_ledger::{Entry, EntryKind, NOBODY};
use palmgate_policy::{Decision, DecisionKind, Profile, Rule, Ticket, office::Hold};
use palmgate_protocol::{
    ClaimHandle, MemberId, Secret, Timestamp,
    cloud::{Erasure, ErasureState, ShardApplied},
    decode, encode, encode_for_sealing,
    limits::MAX_HISTORY_ENTRIES,
    terminal::{AnswerBody, Use},
};
use palmgate_vault::{Column, ErasureRequest, NewPerson, Vault};
use std::{
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
/// The vault's root changes at least this often, so that what was removed without an erasure does
/// not stay readable for longer.
const RENEWAL: Duration = Duration::from_hours(24);

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
        relay: bool,
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
    /// The cloud's word on an erasure.
    Acknowledged { commitment: [u8; 32], state: ErasureState },
    /// The cloud knows of every erasure: what named them in the outbox may go for good.
    Renew,
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
    ShardAdopted(u64),
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
    /// Starts the thread. The queue is bounded by what feeds it: requests in work, one shard at a
    /// time, one tick a second.
    pub(crate) fn start(
        vault: Arc<Vault>,
        log: DecisionLog,
        receipts: Receipts,
        history: Duration,
        pack: [u8; 32],
        done: impl Fn(Done) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (deeds, mut queue) = mpsc::unbounded_channel();
        let entries = Arc::new(AtomicU64::new(log.len()));
        let counted = Arc::clone(&entries);
        let done = Box::new(done);
        let (uses, held) = (Vec::new(), Held::default());
        let (writable, renewed) = (true, Instant::now());
        let mut writer =
            Writer { vault, log, writable, renewed, receipts, history, pack, uses, held, done };
        let _ = report("interrupted erasure", writer.finish_erasures());
        thread::Builder::new().name("scribe".into()).spawn(move || {
            while let Some(deed) = queue.blocking_recv() {
                if let Deed::Finish(finished) = deed {
                    writer.flush();
                    writer.keep_checkpoint();
                    let _ = finished.send(());
                    return;
                }
                writer.write(deed);
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
                    (self.done)(Done::ShardAdopted(version));
                    (self.done)(Done::Told);
                }
            }
            Deed::Update(member, profile) => {
                let _ = report("profile", self.update(member, &profile));
            }
            Deed::Withdraw { member, gone, changed, registration } => {
                let _ = report("withdrawal", self.withdraw(member, gone, changed, registration));
            }
            Deed::Erase { member, claim, salt, rule, ticket, relay } => {
                let result = report("erasure", self.erase(member, claim, salt, rule, relay));
                (self.done)(Done::Erased { member, ticket, result });
                (self.done)(Done::Told);
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
            Deed::Pack(pack) => self.pack = pack,
            Deed::Holds(holds) => {
                self.held.put(holds);
                let _ = report("held uses", self.held.release(&self.vault));
            }
            Deed::Log { decision, at } => {
                let entry = self.entry(&decision, at);
                let appended = self.log.log(entry).map_err(Failure::from);
                let _ = report("ledger entry", appended);
            }
            Deed::Acknowledged { commitment, state } => {
                let ledger = self.log.ledger();
                let updated = self.receipts.acknowledged(ledger, &commitment, &state);
                let _ = report("receipt", updated.map_err(Failure::from));
            }
            Deed::Renew => self.renew(),
            Deed::Flush => self.flush(),
            Deed::Finish(_) => {}
        }
    }

    fn insert(
        &mut self,
        people: Vec<(MemberId, ClaimHandle, Columns)>,
        registration: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut new = Vec::with_capacity(people.len());
        let mut changed = Vec::new();
        for (member, claim, columns) in people {
            if self.vault.contains(&member) {
                changed.extend(columns.into_iter().map(|(column, value)| (member, column, value)));
            } else {
                new.push(NewPerson { member, claim, columns });
            }
        }
        if !changed.is_empty() {
            self.vault.write_many(&changed)?;
        }
        if !new.is_empty() {
            self.vault.insert(new)?;
        }
        if let Some(registration) = registration {
            self.vault.outbox_push(&registration)?;
            (self.done)(Done::Told);
        }
        Ok(())
    }

    fn adopt_shard(
        &mut self,
        version: u64,
        manifest_hash: [u8; 32],
        lease_until: Timestamp,
        people: Vec<(MemberId, ClaimHandle, Columns)>,
    ) -> Result<(), Failure> {
        self.insert(people, None)?;
        let held = crate::cloud::ShardHeld { version, manifest_hash, lease_until };
        self.vault.put_state("shard", &encode(&held))?;
        self.vault.outbox_push(&encode(&Outgoing::Applied(ShardApplied { version })))?;
        Ok(())
    }

    fn update(&self, member: MemberId, profile: &Profile) -> Result<(), Failure> {
        let profile = encode_for_sealing(profile);
        Ok(self.vault.write(&member, Column::Profile, profile.expose())?)
    }

    /// The person gets a new key: what belonged to the purposes stays behind under the old one.
    fn withdraw(
        &mut self,
        member: MemberId,
        gone: Vec<Column>,
        changed: Columns,
        registration: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let changed: Vec<_> =
            changed.into_iter().map(|(column, value)| (member, column, value)).collect();
        self.vault.write_many(&changed)?;
        self.vault.forget_columns(&[(member, gone)])?;
        if let Some(registration) = registration {
            self.vault.outbox_push(&registration)?;
            (self.done)(Done::Told);
        }
        Ok(())
    }

    fn erase(
        &mut self,
        member: MemberId,
        claim: ClaimHandle,
        salt: [u8; 32],
        rule: Rule,
        relay: bool,
    ) -> Result<String, Failure> {
        let at = clock::now();
        let decision = Decision {
            kind: DecisionKind::Erasure,
            terminal: None,
            purpose: None,
            outcome: "erased",
            rules: vec![rule],
            subject: Some((member, salt)),
        };
        let entry = self.entry(&decision, at);
        let commitment = entry.commitment;
        let again = self.vault.unfinished_erasures().contains(&commitment);
        if !again {
            // The cloud's message first: if the power fails now, the cloud forgets the person and
            // its next shard makes this store forget them, too.
            if relay {
                let erasure = Erasure { member, claim, commitment };
                self.vault.outbox_push(&encode(&Outgoing::Erase(erasure)))?;
            }
            self.write_uses_of(member);
            let kept = self.read_history(member).and_then(|uses| self.held.keep(&self.vault, uses));
            report("held uses", kept).map_err(|()| "what a legal hold covers could not be kept")?;
            self.vault.erase(&[ErasureRequest { member, claim, commitment }])?;
        }
        self.record_erasure(&entry, relay, again)
    }

    fn record_erasure(
        &mut self,
        entry: &Entry,
        relay: bool,
        again: bool,
    ) -> Result<String, Failure> {
        let index = self.log.log_erasure(entry, again)?;
        let ledger = self.log.ledger();
        let generation = self.vault.root_generation();
        let (commitment, at) = (&entry.commitment, entry.at);
        let receipt = self.receipts.write(ledger, index, generation, commitment, at, relay)?;
        self.vault.finish_erasure(commitment)?;
        Ok(receipt)
    }

    /// Erasures that a crash cut between the keys and the ledger.
    fn finish_erasures(&mut self) -> Result<(), Failure> {
        for commitment in self.vault.unfinished_erasures() {
            let decision = Decision {
                kind: DecisionKind::Erasure,
                terminal: None,
                purpose: None,
                outcome: "erased",
                rules: vec![Rule::ERASURE],
                subject: None,
            };
            let mut entry = self.entry(&decision, clock::now());
            entry.commitment = commitment;
            self.record_erasure(&entry, true, true)?;
        }
        Ok(())
    }

    /// Histories are written once a second: no scan waits for them.
    fn write_uses(&mut self) {
        for (member, used) in std::mem::take(&mut self.uses) {
            let _ = report("history", self.note_use(member, used));
        }
    }

    /// Only what a hold covers has to be there before an erasure.
    fn write_uses_of(&mut self, member: MemberId) {
        let own = self.uses.extract_if(.., |(of, _)| *of == member).collect::<Vec<_>>();
        for (member, used) in own.into_iter().filter(|_| self.held.any()) {
            let _ = report("history", self.note_use(member, used));
        }
    }

    fn note_use(&self, member: MemberId, used: Use) -> Result<(), Failure> {
        let mut uses = self.read_history(member)?;
        let (oldest, mut room) = (used.at, MAX_HISTORY_ENTRIES - 1);
        uses.retain(|earlier| {
            let fits = oldest.since(earlier.at) < self.history && room > 0;
            room -= usize::from(fits);
            fits || self.held.covers(earlier)
        });
        uses.insert(0, used);
        if self.vault.contains(&member) {
            self.vault.write(&member, Column::History, encode_for_sealing(&uses).expose())?;
        }
        Ok(())
    }

    fn read_history(&self, member: MemberId) -> Result<Vec<Use>, Failure> {
        let sealed = self.vault.read(&member, Column::History)?;
        Ok(sealed.map(|uses| decode(uses.expose())).transpose()?.unwrap_or_default())
    }

    fn entry(&self, decision: &Decision, at: Timestamp) -> Entry {
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

    fn flush(&mut self) {
        self.write_uses();
        let flushed = self.log.flush().map_err(Failure::from);
        let _ = report("ledger", flushed);
        if self.renewed.elapsed() > RENEWAL {
            self.renew();
        }
    }

    /// The vault keeps the ledger's checkpoint: who puts back an older ledger is found out.
    fn keep_checkpoint(&self) {
        let note = self.log.ledger().checkpoint().as_bytes();
        let kept = self.vault.put_state(CHECKPOINT, note).map_err(Failure::from);
        let _ = report("checkpoint", kept);
    }

    fn renew(&mut self) {
        self.renewed = Instant::now();
        self.keep_checkpoint();
        let _ = report("key renewal", self.vault.renew().map_err(Failure::from));
    }

    fn tell_whether_writable(&mut self) {
        let writable = self.log.is_writable();
        if writable != self.writable {
            self.writable = writable;
            (self.done)(Done::LogWritable(writable));
        }
    }
}

/// Says what could not be written, never about whom.
fn report<T>(what: &'static str, result: Result<T, Failure>) -> Result<T, ()> {
    result.map_err(|error| tracing::error!(what, %error, "could not be made durable"))
}
