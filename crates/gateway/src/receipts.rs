//! Erasure receipts: signed JSON, one file each, renewed when recipients confirm. They name nobody.

use data_encoding::HEXLOWER;
use palmgate_ledger::{
    ErasureReceipt, Ledger,
    receipt::{self, Recipient, RecipientState, Status},
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

/// Commitments whose receipt waits for a recipient.
pub(crate) type Waiting = Arc<Mutex<BTreeSet<[u8; 32]>>>;

/// Since when each of them waits: recipients have a day (rule G-19).
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

/// The receipts' directory and what signs them.
pub(crate) struct Receipts {
    directory: PathBuf,
    tenant: Name,
    store: Name,
    key: SigningKey,
    waiting: Waiting,
    pending: Pending,
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
        let (own, pending) = (key.public(), Pending::default());
        let waiting = fs::read_dir(&directory)
            .map_err(at)?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|text| receipt::verify(&text, Some(&own)).ok())
            .filter(|verified| verified.status == Status::Partial)
            .inspect(|one| pending.note(one.commitment, one.status, one.erased_at))
            .map(|verified| verified.commitment)
            .collect();
        let waiting = Arc::new(Mutex::new(waiting));
        Ok(Self { directory, tenant, store, key, waiting, pending })
    }

    /// Since when receipts wait.
    pub(crate) fn pending(&self) -> Pending {
        self.pending.clone()
    }

    /// The commitments that still wait.
    pub(crate) fn waiting(&self) -> Waiting {
        Arc::clone(&self.waiting)
    }

    /// Writes the receipt of a new erasure; `relay` when the cloud must confirm.
    pub(crate) fn write(
        &self,
        ledger: &Ledger,
        index: u64,
        generation: u64,
        commitment: &[u8; 32],
        at: Timestamp,
        relay: bool,
    ) -> Result<String, ReceiptsError> {
        let pending =
            |name| Recipient { name, state: RecipientState::Pending, at, signature: None };
        let cloud = cloud_name().filter(|_| relay);
        let recipients: Vec<Recipient> = cloud.map(pending).into_iter().collect();
        self.sign(ledger, index, generation, recipients, commitment, at)
    }

    /// The receipt of an erasure, if one was written.
    pub(crate) fn existing(&self, commitment: &[u8; 32]) -> Option<String> {
        let text = fs::read_to_string(self.path(commitment)).ok()?;
        receipt::verify(&text, Some(&self.key.public())).ok().map(|_| text)
    }

    /// Renews a receipt with the cloud's word.
    pub(crate) fn acknowledged(
        &self,
        ledger: &Ledger,
        commitment: &[u8; 32],
        state: &ErasureState,
    ) -> Result<(), ReceiptsError> {
        let path = self.path(commitment);
        let text = fs::read_to_string(&path)
            .map_err(|cause| ReceiptsError::File { path: path.clone(), cause })?;
        let before = receipt::verify(&text, Some(&self.key.public()))?;
        let at = state.erased_at;
        let signature = state.signature.as_slice().try_into().ok();
        let confirmed =
            |name| Recipient { name, state: RecipientState::Acknowledged, at, signature };
        let pending =
            |name| Recipient { name, state: RecipientState::Pending, at, signature: None };
        let stores = state.outstanding.iter().filter(|store| **store != self.store).cloned();
        let recipients =
            cloud_name().map(confirmed).into_iter().chain(stores.map(pending)).collect();
        let (index, generation) = (before.index, before.root_generation);
        let erased_at = before.erased_at;
        self.sign(ledger, index, generation, recipients, commitment, erased_at).map(drop)
    }

    fn sign(
        &self,
        ledger: &Ledger,
        index: u64,
        generation: u64,
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
        self.pending.note(*commitment, receipt.status(), erased_at);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match receipt.status() {
            Status::Partial => waiting.insert(*commitment),
            Status::Complete => waiting.remove(commitment),
        };
        Ok(text)
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
