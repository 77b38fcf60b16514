//! The one thread that writes: people, erasures, history and the ledger, in the order decided.
//! What is reported as done is durable.

use crate::{
    clock, cloud::Outgoing, decision_log::DecisionLog, held::Held, in_use, receipts::Receipts,
    records::Columns, witness::Asked,
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
/// The vault's root changes at least this often, so that what was removed without an erasure does
/// not stay readable for longer.
const RENEWAL: Duration = Duration::from_hours(24);

/// How long the technical log is kept (RET-07: six to twelve months).
const LOG_KEPT: Duration = Duration::from_hours(365 * 24);
/// How long it is kept that consent was given, and that somebody was erased (RET-11, RET-12).
const EVIDENCE_KEPT: Duration = Duration::from_hours(5 * 365 * 24);
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
    /// A checkpoint for the witness, who cosigned this many entries last; nothing if that is all.
    Checkpoint { from: u64, asked: oneshot::Sender<Result<Option<Asked>, ()>> },
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
    done: Box<dyn Fn(Done) + Send>,
}

type Failure = Box<dyn std::error::Error>;

/// Somebody who is forgotten.
struct Leaver {
    member: MemberId,
    claim: ClaimHandle,
    entry: Entry,
    ticket: Option<Ticket>,
    relay: bool,
}

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
            Deed::Acknowledged { commitment, state } => {
                let ledger = self.log.ledger();
                let updated = self.receipts.acknowledged(ledger, &commitment, &state);
                let _ = report("receipt", updated.map_err(Failure::from));
            }
            Deed::Checkpoint { from, asked } => {
                self.flush();
                let _ = asked.send(report("checkpoint", self.asked(from)));
            }
            Deed::Renew => self.renew(),
            Deed::Flush => self.flush(),
            Deed::Erase { .. } | Deed::Finish(_) => {}
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
            self.vault.write_many(changed)?;
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
        self.vault.write_many(changed)?;
        self.vault.forget_columns(&[(member, gone)])?;
        if let Some(registration) = registration {
            self.vault.outbox_push(&registration)?;
            (self.done)(Done::Told);
        }
        Ok(())
    }

    /// Carries out the erasures that wait, in one change of the root: nobody waits for another's. They
    /// go ahead of log entries between them, and not ahead of anything else.
    fn erase_waiting(&mut self, waiting: &mut VecDeque<Deed>) {
        let (mut leavers, mut passed) = (Vec::new(), VecDeque::new());
        while let Some(deed) = waiting.pop_front() {
            match deed {
                Deed::Erase { member, claim, salt, rule, ticket, relay } => {
                    let entry = self.erasure_entry(rule, Some((member, salt)));
                    leavers.push(Leaver { member, claim, entry, ticket, relay });
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
        let told = |one: &&&Leaver| one.relay;
        let messages: Vec<_> = new.iter().filter(told).map(|one| one.message()).collect();
        self.vault.outbox_push_erasures(&messages)?;
        for one in &new {
            self.write_uses_of(one.member);
            let kept =
                self.read_history(one.member).and_then(|uses| self.held.keep(&self.vault, uses));
            report("held uses", kept).map_err(|()| "what a legal hold covers could not be kept")?;
        }
        let requests: Vec<_> = new.iter().map(|one| one.request()).collect();
        if !requests.is_empty() {
            self.vault.erase(&requests)?;
        }
        let entries: Vec<_> =
            leavers.iter().map(|one| (one.entry.clone(), one.relay, again(one))).collect();
        self.record_erasures(&entries)
    }

    /// Entries, whether the cloud is told, and whether a crash cut an earlier try; one sync of the
    /// ledger for all of them.
    fn record_erasures(&mut self, all: &[(Entry, bool, bool)]) -> Result<Vec<String>, Failure> {
        let entries: Vec<_> = all.iter().map(|(entry, _, again)| (entry, *again)).collect();
        let indices = self.log.log_erasures(&entries)?;
        let ledger = self.log.ledger();
        let generation = self.vault.root_generation();
        let mut receipts = Vec::with_capacity(all.len());
        for ((entry, relay, again), index) in all.iter().zip(indices) {
            let (commitment, at) = (&entry.commitment, entry.at);
            let earlier = if *again { self.receipts.existing(commitment) } else { None };
            receipts.push(match earlier {
                Some(receipt) => receipt,
                None => self.receipts.write(ledger, index, generation, commitment, at, *relay)?,
            });
        }
        let commitments: Vec<_> = all.iter().map(|(entry, ..)| entry.commitment).collect();
        self.vault.finish_erasures(&commitments)?;
        Ok(receipts)
    }

    /// Erasures that a crash cut between the keys and the ledger.
    fn finish_erasures(&mut self) -> Result<(), Failure> {
        let entry = |commitment| {
            let entry = self.erasure_entry(Rule::ERASURE, None);
            (Entry { commitment, ..entry }, true, true)
        };
        let all: Vec<_> = self.vault.unfinished_erasures().into_iter().map(entry).collect();
        if all.is_empty() { Ok(()) } else { self.record_erasures(&all).map(drop) }
    }

    /// Histories are written once a second: no scan waits for them.
    fn write_uses(&mut self) {
        let mut histories: Vec<(MemberId, Vec<Use>)> = Vec::new();
        for (member, used) in std::mem::take(&mut self.uses) {
            if let Some((_, uses)) = histories.iter_mut().find(|(of, _)| *of == member) {
                self.add_use(uses, used);
            } else if let Ok(mut uses) = report("history", self.read_history(member)) {
                self.add_use(&mut uses, used);
                histories.push((member, uses));
            }
        }
        let sealed = |(member, uses): (MemberId, Vec<Use>)| {
            self.vault
                .contains(&member)
                .then(|| (member, Column::History, encode_for_sealing(&uses)))
        };
        let values: Vec<_> = histories.into_iter().filter_map(sealed).collect();
        if !values.is_empty() {
            let _ = report("history", self.vault.write_many(values).map_err(Failure::from));
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
        self.add_use(&mut uses, used);
        if self.vault.contains(&member) {
            self.vault.write(&member, Column::History, encode_for_sealing(&uses).expose())?;
        }
        Ok(())
    }

    fn add_use(&self, uses: &mut Vec<Use>, used: Use) {
        let (oldest, mut room) = (used.at, MAX_HISTORY_ENTRIES - 1);
        uses.retain(|earlier| {
            let fits = oldest.since(earlier.at) < self.history && room > 0;
            room -= usize::from(fits);
            fits || self.held.covers(earlier)
        });
        uses.insert(0, used);
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

    fn asked(&self, from: u64) -> Result<Option<Asked>, Failure> {
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

    fn renew(&mut self) {
        self.renewed = Instant::now();
        self.prune();
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

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

/// Says what could not be written, never about whom.
fn report<T>(what: &'static str, result: Result<T, Failure>) -> Result<T, ()> {
    result.map_err(|error| tracing::error!(what, %error, "could not be made durable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_ledger::{Ledger, receipt};
    use palmgate_protocol::Name;
    use palmgate_seal::{random, sign::SigningKey};
    use palmgate_vault::MemoryRoot;
    use std::{path::Path, sync::mpsc::channel};

    const PEOPLE: u8 = 40;

    fn member(number: u8) -> MemberId {
        MemberId::from_random([number; 16])
    }

    fn vault(directory: &Path) -> Arc<Vault> {
        let tenant: Name = "chain".parse().unwrap();
        let root = Box::new(MemoryRoot::new());
        let vault = Vault::open(&directory.join("vault"), &tenant, root).unwrap();
        let person = |number| NewPerson {
            member: member(number),
            claim: ClaimHandle::from_random([number ^ 0x80; 16]),
            columns: vec![(Column::Profile, Secret::new(vec![number; 64]))],
        };
        vault.insert((0..PEOPLE).map(person).collect()).unwrap();
        Arc::new(vault)
    }

    #[test]
    fn erasures_that_wait_share_one_change_of_the_root_and_each_has_its_receipt() {
        let directory = tempfile::tempdir().unwrap();
        let vault = vault(directory.path());
        let pkcs8 = SigningKey::generate().pkcs8();
        let key = || SigningKey::from_pkcs8(pkcs8.expose()).unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger"), "palmgate/a/b", key());
        let (tenant, store) = ("a".parse().unwrap(), "b".parse().unwrap());
        let receipts =
            Receipts::open(directory.path().join("receipts"), tenant, store, key()).unwrap();
        let (done, answers) = channel();
        let report = move |one: Done| drop(done.send(one));
        let log = DecisionLog::new(ledger.unwrap());
        let (history, pack) = (Duration::from_hours(1), [1; 32]);
        // The vault is held while the queue fills.
        let before = vault.root_generation();
        let busy = Arc::clone(&vault);
        let scribe =
            Scribe::start(Arc::clone(&vault), log, receipts, history, pack, report).unwrap();
        let people = |numbers: std::ops::Range<u16>| {
            let person = |number: u16| {
                let columns = vec![(Column::Profile, Secret::new(vec![1; 4_000]))];
                let id: [u8; 16] = random::bytes();
                let _ = number;
                (MemberId::from_random(id), ClaimHandle::from_random(random::bytes()), columns)
            };
            numbers.map(person).collect()
        };
        scribe.submit(Deed::Adopt { people: people(0..2_000) });
        for number in 0..PEOPLE {
            scribe.submit(Deed::Erase {
                member: member(number),
                claim: ClaimHandle::from_random([number ^ 0x80; 16]),
                salt: [number; 32],
                rule: Rule::ERASURE,
                ticket: None,
                relay: number % 2 == 0,
            });
            let decision = Decision {
                kind: DecisionKind::Scan,
                terminal: None,
                purpose: None,
                outcome: "not-recognised",
                rules: vec![Rule::ERASURE],
                subject: None,
            };
            scribe.submit(Deed::Log { decision, at: clock::now() });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(scribe.finish());
        let mut commitments = std::collections::BTreeSet::new();
        for one in answers.try_iter() {
            if let Done::Erased { member: of, result, .. } = one {
                let verified = receipt::verify(&result.unwrap(), Some(&key().public())).unwrap();
                assert!(commitments.insert(verified.commitment) && !busy.contains(&of));
            }
        }
        assert_eq!(commitments.len(), usize::from(PEOPLE));
        assert!(busy.unfinished_erasures().is_empty());
        assert_eq!(busy.outbox_peek(100).unwrap().len(), usize::from(PEOPLE) / 2);
        let changes = busy.root_generation() - before;
        assert!(changes <= 3, "{changes} changes of the root for {PEOPLE} erasures");
        let ledger = directory.path().join("ledger");
        let verified = palmgate_ledger::verify::directory(&ledger, &key().public()).unwrap();
        assert_eq!((verified.size, verified.unsigned), (2 * u64::from(PEOPLE), 0));
    }
}
