//! Erasure receipts: signed JSON, one file each, renewed when recipients confirm. They name nobody.

use data_encoding::HEXLOWER;
use palmgate_ledger::{
    ErasureReceipt, Ledger,
    receipt::{self, Kind, Recipient, Status},
};
use palmgate_protocol::{Name, Timestamp, cloud::ErasureState};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Commitments whose receipt waits for the cloud or another store.
pub(crate) type Waiting = Arc<Mutex<BTreeSet<[u8; 32]>>>;

/// Receipts that are renewed for terminals in one go.
const SETTLED_AT_ONCE: usize = 32;

/// Since when each receipt waits: recipients have a day (rule G-19).
#[derive(Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<BTreeMap<[u8; 32], Timestamp>>>);

impl Pending {
    /// When the oldest erasure was made that somebody has not confirmed.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }

    fn note(&self, commitment: [u8; 32], status: Status, erased_at: Timestamp) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Status::Partial => drop(pending.entry(commitment).or_insert(erased_at)),
            Status::Complete => drop(pending.remove(&commitment)),
        }
    }
}

/// Who could have something of a person at the moment of their erasure.
#[derive(Clone, Default)]
pub(crate) struct Holders {
    /// The cloud, and through it other stores.
    pub(crate) cloud: bool,
    /// Paired terminals.
    pub(crate) terminals: Vec<Name>,
    /// The person, who was handed a copy.
    pub(crate) exported: bool,
}

/// The receipts' directory and what signs them.
pub(crate) struct Receipts {
    directory: PathBuf,
    tenant: Name,
    store: Name,
    key: SigningKey,
    waiting: Waiting,
    pending: Pending,
    /// Terminals that receipts wait for, and since when.
    outstanding: BTreeMap<[u8; 32], (Timestamp, BTreeSet<Name>)>,
    /// What was heard of terminals and is not in the receipts yet.
    heard: BTreeMap<Name, Heard>,
}

/// What was heard of a terminal.
#[derive(Clone, Copy)]
enum Heard {
    /// It began a session at this time.
    Joined(Timestamp),
    /// It was removed at this time.
    Removed(Timestamp),
}

impl Heard {
    /// Whether an erasure at `erased_at` need not wait for the terminal any longer.
    fn settles(self, erased_at: Timestamp) -> bool {
        match self {
            Self::Joined(at) => at > erased_at,
            Self::Removed(_) => true,
        }
    }

    const fn at(self) -> Timestamp {
        match self {
            Self::Joined(at) | Self::Removed(at) => at,
        }
    }
}

/// A receipt could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptsError {
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Receipt(#[from] receipt::ReceiptError),
    #[error(transparent)]
    Ledger(#[from] palmgate_ledger::LedgerError),
}

impl Receipts {
    /// Opens the directory and finds the receipts that still wait.
    pub(crate) fn open(
        directory: PathBuf,
        tenant: Name,
        store: Name,
        key: SigningKey,
    ) -> Result<Self, ReceiptsError> {
        let at = |cause| ReceiptsError::File { path: directory.clone(), cause };
        fs::create_dir_all(&directory).map_err(at)?;
        let own = key.public();
        let partial: Vec<_> = fs::read_dir(&directory)
            .map_err(at)?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|text| receipt::verify(&text, Some(&own)).ok())
            .filter(|verified| verified.status == Status::Partial)
            .collect();
        let (waiting, pending) = (Waiting::default(), Pending::default());
        let (outstanding, heard) = (BTreeMap::new(), BTreeMap::new());
        let mut receipts =
            Self { directory, tenant, store, key, waiting, pending, outstanding, heard };
        for one in partial {
            receipts.note(one.commitment, one.status, one.erased_at, &one.recipients);
        }
        Ok(receipts)
    }

    /// Since when receipts wait.
    pub(crate) fn pending(&self) -> Pending {
        self.pending.clone()
    }

    /// The commitments that still wait.
    pub(crate) fn waiting(&self) -> Waiting {
        Arc::clone(&self.waiting)
    }

    /// Writes the receipt of a new erasure.
    pub(crate) fn write(
        &mut self,
        ledger: &Ledger,
        (index, generation): (u64, u64),
        commitment: &[u8; 32],
        at: Timestamp,
        holders: &Holders,
    ) -> Result<String, ReceiptsError> {
        let cloud = cloud_name().filter(|_| holders.cloud);
        let cloud = cloud.map(|name| Recipient::pending(Kind::Cloud, name, at));
        let mut terminals = holders.terminals.clone();
        terminals.sort_unstable();
        terminals.dedup();
        let sessions = if terminals.is_empty() {
            Recipient::no_sessions(at)
        } else {
            Recipient::sessions(terminals, at)
        };
        let exports = Recipient::exports(holders.exported, at);
        let recipients = cloud.into_iter().chain(sessions).chain([exports]).collect();
        self.sign(ledger, (index, generation), recipients, commitment, at)
    }

    /// The receipt of an erasure, if one was written.
    pub(crate) fn existing(&self, commitment: &[u8; 32]) -> Option<String> {
        let text = fs::read_to_string(self.path(commitment)).ok()?;
        receipt::verify(&text, Some(&self.key.public())).ok().map(|_| text)
    }

    /// Renews a receipt with the cloud's word.
    pub(crate) fn acknowledged(
        &mut self,
        ledger: &Ledger,
        commitment: &[u8; 32],
        state: &ErasureState,
    ) -> Result<(), ReceiptsError> {
        let before = self.read(commitment)?;
        let at = state.erased_at;
        let signature = state.signature.as_slice().try_into().ok();
        let confirmed = |name| Recipient::acknowledged(Kind::Cloud, name, at, signature);
        let pending = |name| Recipient::pending(Kind::Store, name, at);
        let stores = state.outstanding.iter().filter(|store| **store != self.store).cloned();
        let beyond = cloud_name().map(confirmed).into_iter().chain(stores.map(pending));
        let here = before.recipients.into_iter().filter(|one| !one.is_beyond_the_store());
        let recipients = beyond.chain(here).collect();
        let place = (before.index, before.root_generation);
        self.sign(ledger, place, recipients, commitment, before.erased_at).map(drop)
    }

    /// A terminal has begun a session, and dropped the one before with its keys.
    pub(crate) fn joined(&mut self, terminal: Name, at: Timestamp) {
        self.hear(terminal, Heard::Joined(at));
    }

    /// A terminal was removed: it will not be heard of again.
    pub(crate) fn removed(&mut self, terminal: Name, at: Timestamp) {
        self.hear(terminal, Heard::Removed(at));
    }

    /// Only `paired` terminals can still confirm.
    pub(crate) fn waits_only_for(&mut self, paired: &[Name], at: Timestamp) {
        let all = self.outstanding.values().flat_map(|(_, terminals)| terminals);
        let gone: BTreeSet<Name> = all.filter(|name| !paired.contains(name)).cloned().collect();
        for terminal in gone {
            self.removed(terminal, at);
        }
    }

    fn hear(&mut self, terminal: Name, heard: Heard) {
        let waits = self.outstanding.values().any(|(_, terminals)| terminals.contains(&terminal));
        if waits {
            self.heard.insert(terminal, heard);
        }
    }

    /// Renews receipts with what was heard of terminals, so many at once that nothing waits for it.
    pub(crate) fn settle(&mut self, ledger: &Ledger) -> Result<(), ReceiptsError> {
        if self.heard.is_empty() {
            return Ok(());
        }
        let settles = |(_, (erased_at, terminals)): &(&[u8; 32], &(Timestamp, BTreeSet<Name>))| {
            self.heard
                .iter()
                .any(|(name, heard)| heard.settles(*erased_at) && terminals.contains(name))
        };
        let due: Vec<[u8; 32]> = self
            .outstanding
            .iter()
            .filter(settles)
            .map(|(commitment, _)| *commitment)
            .take(SETTLED_AT_ONCE + 1)
            .collect();
        for commitment in due.iter().take(SETTLED_AT_ONCE) {
            self.settle_one(ledger, commitment)?;
        }
        if due.len() <= SETTLED_AT_ONCE {
            self.heard.clear();
        }
        Ok(())
    }

    fn settle_one(&mut self, ledger: &Ledger, commitment: &[u8; 32]) -> Result<(), ReceiptsError> {
        let before = self.read(commitment)?;
        let (mut left, mut removed, mut last) = (Vec::new(), BTreeSet::new(), before.erased_at);
        for one in &before.recipients {
            match one.kind {
                Some(Kind::RemovedTerminals) => removed.extend(one.outstanding.iter().cloned()),
                Some(Kind::Terminals) => {
                    last = one.at;
                    left.clone_from(&one.outstanding);
                }
                _ => {}
            }
        }
        left.retain(|name| match self.heard.get(name) {
            Some(heard) if heard.settles(before.erased_at) => {
                last = last.max(heard.at());
                if matches!(heard, Heard::Removed(_)) {
                    removed.insert(name.clone());
                }
                false
            }
            _ => true,
        });
        let sessions = |one: &Recipient| {
            matches!(one.kind, Some(Kind::Terminals | Kind::RemovedTerminals | Kind::Broker))
        };
        let mut recipients: Vec<_> =
            before.recipients.into_iter().filter(|one| !sessions(one)).collect();
        recipients.extend(Recipient::sessions(left, last));
        if !removed.is_empty() {
            let removed = removed.into_iter().collect();
            recipients.push(Recipient::removed_terminals(removed, last));
        }
        let place = (before.index, before.root_generation);
        self.sign(ledger, place, recipients, commitment, before.erased_at).map(drop)
    }

    fn read(&self, commitment: &[u8; 32]) -> Result<receipt::Verified, ReceiptsError> {
        let path = self.path(commitment);
        let text = fs::read_to_string(&path)
            .map_err(|cause| ReceiptsError::File { path: path.clone(), cause })?;
        Ok(receipt::verify(&text, Some(&self.key.public()))?)
    }

    fn sign(
        &mut self,
        ledger: &Ledger,
        (index, generation): (u64, u64),
        recipients: Vec<Recipient>,
        commitment: &[u8; 32],
        erased_at: Timestamp,
    ) -> Result<String, ReceiptsError> {
        let evidence = ledger.evidence(index)?;
        let (tenant, store) = (self.tenant.clone(), self.store.clone());
        let receipt = ErasureReceipt::new(tenant, store, generation, recipients, evidence)?;
        let text = receipt.sign(&self.key);
        let path = self.path(commitment);
        replace(&path, text.as_bytes()).map_err(|cause| ReceiptsError::File { path, cause })?;
        self.note(*commitment, receipt.status(), erased_at, receipt.recipients());
        Ok(text)
    }

    /// Remembers whom a receipt waits for.
    fn note(
        &mut self,
        commitment: [u8; 32],
        status: Status,
        erased_at: Timestamp,
        recipients: &[Recipient],
    ) {
        self.pending.note(commitment, status, erased_at);
        let mut waits = recipients.iter().filter(|one| !one.is_settled());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.clone().any(Recipient::is_beyond_the_store) {
            waiting.insert(commitment);
        } else {
            waiting.remove(&commitment);
        }
        match waits.find(|one| one.kind == Some(Kind::Terminals)) {
            Some(one) => {
                let terminals = one.outstanding.iter().cloned().collect();
                self.outstanding.insert(commitment, (erased_at, terminals));
            }
            None => drop(self.outstanding.remove(&commitment)),
        }
    }

    fn path(&self, commitment: &[u8; 32]) -> PathBuf {
        self.directory.join(format!("{}.json", HEXLOWER.encode(commitment)))
    }
}

/// A public key that checks receipts or the ledger, beside them for who verifies offline.
pub(crate) fn publish_key(file: &Path, key: VerifyingKey) -> io::Result<()> {
    replace(file, format!("{}\n", HEXLOWER.encode(&key.0)).as_bytes())
}

fn cloud_name() -> Option<Name> {
    receipt::CLOUD.parse().ok()
}

/// Replaces a file so that a crash leaves the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(directory)?.sync_all()
}
