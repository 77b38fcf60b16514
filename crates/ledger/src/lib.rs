//! Append-only Merkle log of decisions, its proofs, and erasure receipts.
//!
//! A [`Ledger`] keeps one [`Entry`] for each decision, hashes them into the tree of RFC 9162 and
//! signs its size and root as a C2SP checkpoint. Who holds a checkpoint can tell whether anything
//! before it was changed, removed or reordered: with the whole log ([`verify`]), or with a proof of
//! a few hundred bytes ([`Evidence`]). A [`witness`] makes two histories of one log impossible to
//! hide. Entries hold no identity: people appear as [`commitment`]s, which mean nothing once their
//! salt is destroyed.
//!
//! `docs/ledger.md` defines every byte.

mod checkpoint;
mod commitment;
mod entry;
mod evidence;
mod files;
mod history;
mod lines;
mod log;
pub mod merkle;
pub mod note;
mod places;
mod pruned;
pub mod receipt;
mod text;
mod tree;
pub mod verify;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, origin};
pub use commitment::{NOBODY, commitment};
pub use entry::{Entry, EntryError, EntryKind, MAX_ENTRY_BYTES};
pub use evidence::{Evidence, EvidenceError};
pub use files::FileError;
pub use history::HistoryError;
pub use lines::{Entries, SEGMENT_ENTRIES};
pub use log::{Ledger, LedgerError};
pub use merkle::{ConsistencyProof, Hash, InclusionProof, ProofError};
pub use receipt::ErasureReceipt;
