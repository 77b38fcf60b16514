//! Erasure receipts: signed JSON that shows, offline and years later, that a person was forgotten,
//! without saying who.

mod recipient;

pub use recipient::{
    BROKER, CLOUD, EXPORTS, Kind, MAX_OUTSTANDING, REMOVED_TERMINALS, Reason, Recipient,
    RecipientState, TERMINALS,
};

use crate::{
    Entry, EntryKind, Evidence, EvidenceError, Hash,
    text::{hex, moment, word},
};
use data_encoding::BASE64;
use palmgate_protocol::{Name, Timestamp, cloud::ErasureState};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version that this code writes; it reads all since 1.
pub const VERSION: u16 = 2;
/// Bytes of a receipt at most.
pub const MAX_RECEIPT_BYTES: usize = 64 * 1024;
/// Recipients in a receipt at most.
pub const MAX_RECIPIENTS: usize = 128;

const LABEL: &str = "erasure receipt";
const SIGNATURE_FIELD: &str = ",\"signature\":\"";

/// Whether anybody is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The store has erased; a recipient is pending.
    Partial,
    /// The store has erased, and no recipient is pending.
    Complete,
}

/// The statement that a person was forgotten. Built from the ledger entry of the erasure, so that
/// it cannot say anything else than the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureReceipt {
    tenant: Name,
    store: Name,
    root_generation: u64,
    recipients: Vec<Recipient>,
    entry: Entry,
    evidence: Evidence,
}

/// A receipt that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose store.
    pub tenant: Name,
    /// Which store.
    pub store: Name,
    /// The person, for who still has their salt.
    pub commitment: Hash,
    /// When the erasure was durable.
    pub erased_at: Timestamp,
    /// The rules that asked for it.
    pub rules: Vec<String>,
    /// Generation of the root key that no longer opens anything of the person.
    pub root_generation: u64,
    /// Whom the person's data was disclosed to.
    pub recipients: Vec<Recipient>,
    /// Whether all of them confirmed.
    pub status: Status,
    /// Index of the entry in the ledger.
    pub index: u64,
    /// The key that signed the receipt and the checkpoint.
    pub key: VerifyingKey,
    /// Whether the caller named that key as trusted. If not, the receipt is whole, but anybody may
    /// have written it: compare `key` with the one that the store publishes.
    pub trusted: bool,
}

/// The receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt.
    #[error("{0} bytes are too many for an erasure receipt")]
    TooLong(usize),
    /// Not a receipt, or not as receipts are written.
    #[error("not an erasure receipt: {0}")]
    Malformed(String),
    /// A receipt of another version.
    #[error("a receipt of version {0}; this program reads 1 to {VERSION}")]
    Version(u16),
    /// Signed by a key that the caller does not trust.
    #[error("the receipt is signed with another key than the trusted one")]
    Untrusted,
    /// The statement was changed after it was signed.
    #[error("the signature does not fit the receipt: it was changed")]
    Signature,
    /// The log does not show the entry.
    #[error("the ledger does not show the erasure: {0}")]
    Ledger(#[from] EvidenceError),
    /// The entry is about something else.
    #[error("the logged entry is no erasure")]
    NotAnErasure,
    /// The commitment of the receipt is not that of the entry.
    #[error("the receipt and the logged entry have different commitments")]
    Commitment,
    /// The time of the receipt is not that of the entry.
    #[error("the receipt and the logged entry have different times")]
    Time,
    /// The rules of the receipt are not those of the entry.
    #[error("the receipt and the logged entry cite different rules")]
    Rules,
    /// The status contradicts the recipients.
    #[error("the status of the receipt contradicts the states of its recipients")]
    Status,
    /// More recipients than fit.
    #[error("the receipt has {0} recipients; {MAX_RECIPIENTS} fit")]
    TooManyRecipients(usize),
    /// A recipient stands twice.
    #[error("the recipient {0} stands in the receipt twice")]
    Repeated(Name),
    /// What is said of a recipient does not go together.
    #[error("what the receipt says of the recipient {0} does not go together")]
    Contradiction(Name),
    /// A recipient that has not confirmed has a signature.
    #[error("the recipient {0} is pending and yet has signed")]
    PendingSigned(Name),
    /// A recipient's time has no text form.
    #[error("the time of the recipient {0} is outside the years 0 to 9999")]
    RecipientTime(Name),
    /// No such recipient, or no signature of it.
    #[error("the recipient {0} has not signed")]
    NotSigned(Name),
    /// The recipient's signature does not hold.
    #[error("the acknowledgement of {0} is not signed with the key of {0}")]
    Acknowledgement(Name),
}

/// The JSON of a receipt, in the order of its fields, without the signature.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: u16,
    #[serde(with = "word")]
    tenant: Name,
    #[serde(with = "word")]
    store: Name,
    #[serde(with = "hex")]
    commitment: Hash,
    #[serde(with = "moment")]
    erased_at: Timestamp,
    rules: Vec<String>,
    root_generation: u64,
    recipients: Vec<Recipient>,
    status: Status,
    ledger: Evidence,
    #[serde(with = "hex")]
    key: Hash,
}

impl ErasureReceipt {
    /// The receipt for the erasure that `evidence` shows in the ledger: [`crate::Ledger::evidence`]
    /// of an entry of the kind [`EntryKind::Erasure`]. Commitment, time and rules are the entry's.
    ///
    /// # Errors
    /// [`ReceiptError`] when the entry is none, or the recipients contradict themselves.
    pub fn new(
        tenant: Name,
        store: Name,
        root_generation: u64,
        recipients: Vec<Recipient>,
        evidence: Evidence,
    ) -> Result<Self, ReceiptError> {
        let entry = Entry::parse(evidence.entry.as_bytes()).map_err(EvidenceError::Entry)?;
        if entry.kind != EntryKind::Erasure {
            return Err(ReceiptError::NotAnErasure);
        }
        check(&recipients, VERSION)?;
        Ok(Self { tenant, store, root_generation, recipients, entry, evidence })
    }

    /// Whom the person's data was disclosed to, and where it may have been left.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// What the receipt will say of its recipients together.
    pub fn status(&self) -> Status {
        status(&self.recipients)
    }

    /// The receipt, signed. `key` must be the ledger's: the verifier checks both with one key.
    pub fn sign(&self, key: &SigningKey) -> String {
        let body = Body {
            version: VERSION,
            tenant: self.tenant.clone(),
            store: self.store.clone(),
            commitment: self.entry.commitment,
            erased_at: self.entry.at,
            rules: self.entry.rules.clone(),
            root_generation: self.root_generation,
            recipients: self.recipients.clone(),
            status: self.status(),
            ledger: self.evidence.clone(),
            key: key.public().0,
        };
        let mut text = body.canonical();
        let signature = BASE64.encode(&key.sign(LABEL, text.as_bytes()));
        text.pop();
        format!("{text}{SIGNATURE_FIELD}{signature}\"}}")
    }
}

impl Body {
    fn canonical(&self) -> String {
        serde_json::to_string(self).expect("times were checked, and all else has a JSON form")
    }

    fn check(&self) -> Result<(), ReceiptError> {
        if !(1..=VERSION).contains(&self.version) {
            return Err(ReceiptError::Version(self.version));
        }
        check(&self.recipients, self.version)?;
        if self.status != status(&self.recipients) {
            return Err(ReceiptError::Status);
        }
        let (entry, _) = self.ledger.verify(&VerifyingKey(self.key))?;
        if entry.kind != EntryKind::Erasure {
            return Err(ReceiptError::NotAnErasure);
        }
        if entry.commitment != self.commitment {
            return Err(ReceiptError::Commitment);
        }
        if entry.at != self.erased_at {
            return Err(ReceiptError::Time);
        }
        if entry.rules == self.rules { Ok(()) } else { Err(ReceiptError::Rules) }
    }
}

fn status(recipients: &[Recipient]) -> Status {
    let settled = recipients.iter().all(Recipient::is_settled);
    if settled { Status::Complete } else { Status::Partial }
}

fn check(recipients: &[Recipient], version: u16) -> Result<(), ReceiptError> {
    if recipients.len() > MAX_RECIPIENTS {
        return Err(ReceiptError::TooManyRecipients(recipients.len()));
    }
    let mut names = BTreeSet::new();
    for recipient in recipients {
        if !names.insert((recipient.kind, &recipient.name)) {
            return Err(ReceiptError::Repeated(recipient.name.clone()));
        }
        recipient.check(version)?;
    }
    Ok(())
}

/// Checks everything that a receipt says, offline: its signature, the ledger's signature, the place
/// of the erasure in the ledger, and that its parts do not contradict each other. `trusted` is the
/// store's public key, from another source than the receipt.
///
/// # Errors
/// [`ReceiptError`] names the first thing that does not hold.
pub fn verify(text: &str, trusted: Option<&VerifyingKey>) -> Result<Verified, ReceiptError> {
    if text.len() > MAX_RECEIPT_BYTES {
        return Err(ReceiptError::TooLong(text.len()));
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (signed, signature) = take_apart(text)
        .ok_or_else(|| ReceiptError::Malformed("it does not end with a signature".into()))?;
    let body: Body = serde_json::from_str(&signed)
        .map_err(|error| ReceiptError::Malformed(error.to_string()))?;
    let key = VerifyingKey(body.key);
    if trusted.is_some_and(|trusted| *trusted != key) {
        return Err(ReceiptError::Untrusted);
    }
    key.verify(LABEL, signed.as_bytes(), &signature).map_err(|_| ReceiptError::Signature)?;
    if body.canonical() != signed {
        return Err(ReceiptError::Malformed("its JSON is not in canonical form".into()));
    }
    body.check()?;
    Ok(Verified {
        tenant: body.tenant,
        store: body.store,
        commitment: body.commitment,
        erased_at: body.erased_at,
        rules: body.rules,
        root_generation: body.root_generation,
        recipients: body.recipients,
        status: body.status,
        index: body.ledger.proof.index,
        key,
        trusted: trusted.is_some(),
    })
}

/// The bytes that were signed, and the signature over them.
fn take_apart(text: &str) -> Option<(String, Vec<u8>)> {
    let (body, signature) = text.strip_suffix("\"}")?.rsplit_once(SIGNATURE_FIELD)?;
    Some((format!("{body}}}"), BASE64.decode(signature.as_bytes()).ok()?))
}

impl Verified {
    /// Checks the signature of one recipient, whose key the receipt does not vouch for: the one in
    /// its [`ErasureState`], where exactly the pending recipients of this receipt are outstanding,
    /// and perhaps this store, whose own confirmation may have come later.
    ///
    /// # Errors
    /// [`ReceiptError::NotSigned`] or [`ReceiptError::Acknowledgement`].
    pub fn check_acknowledgement(
        &self,
        name: &Name,
        key: &VerifyingKey,
    ) -> Result<(), ReceiptError> {
        let beyond = || self.recipients.iter().filter(|other| other.is_beyond_the_store());
        let recipient = beyond().find(|recipient| recipient.name == *name);
        let (at, signature) = recipient
            .and_then(|recipient| Some((recipient.at, recipient.signature?)))
            .ok_or_else(|| ReceiptError::NotSigned(name.clone()))?;
        let pending = beyond().filter(|other| !other.is_settled());
        let mut names: BTreeSet<Name> = pending.map(|other| other.name.clone()).collect();
        let signed = |names: &BTreeSet<Name>| {
            let outstanding = names.iter().cloned().collect();
            let state = ErasureState { erased_at: at, outstanding, signature: Vec::new() };
            let bytes = state.signed_bytes(&self.commitment);
            key.verify(ErasureState::LABEL, &bytes, &signature).is_ok()
        };
        if signed(&names) || (names.insert(self.store.clone()) && signed(&names)) {
            return Ok(());
        }
        Err(ReceiptError::Acknowledgement(name.clone()))
    }
}
