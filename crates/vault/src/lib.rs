//! Sealed records under per-person keys, and the one way to forget them.
//!
//! # What lies where
//!
//! ```text
//! root                 (outside, by a RootKeeper) generation, 256-bit key
//! DIR/format           two lines: "palmgate vault 1", "tenant NAME"; written last at set-up
//! DIR/lock             held by the process that has the vault open
//! DIR/tidy             there after a clean stop: the next start need not sweep
//! DIR/reserve          empty space, given up when the disk is full and somebody is erased
//! DIR/keys/GENERATION  the key table, sealed under the root of that generation
//! DIR/keys/tombstones  32 bytes for each erasure: keyed hashes of member and claim
//! DIR/keys/erasures    erasures begun and not yet in the ledger, sealed; absent if there never was one
//! DIR/records/         sled: columns of people, store-level state, outbox; all values sealed, all
//!                      keys hashes
//! DIR/terminals/NAME   two slots of 64 KiB, written in turn: the terminal's session, sealed
//! ```
//!
//! The key table is `palmgate keys`, newline, format (2 bytes), generation (8), a check of the root
//! (8), then nonce, ciphertext and tag of AES-256-GCM, bound to tenant and generation. Inside: the
//! seeds of the state, of the outbox and of marking (32 each), count (8) and hash chain (32) of the
//! tombstones, the terminals (number, then length, name, seed each), the people (number, then member
//! 16, columns 2, seed 32 each). Numbers are big endian. A seed is random; the keys that seal and
//! those that hash are derived from it by HMAC-SHA-256 with a label, never a seed from another seed.
//!
//! # Forgetting
//!
//! A person's seed stands in the key table and nowhere else. To erase somebody, the table is
//! written without them, under a new root; the keeper takes the new root and destroys the old one.
//! Every older table, in sled's log, in a backup or in a flash block thought overwritten, is then
//! noise, and so is all it had keys for. Removing rows afterwards only frees space: sled keeps old
//! bytes. State and outbox get new seeds with every root, so that no entry replaced or removed before
//! an erasure can name the erased after it. (An outbox with more than 1,000 entries keeps its seed
//! until it is shorter.) Only the marking seed stays: it hashes tombstones and seals lists of such
//! hashes.
//!
//! # Crashes
//!
//! [`Vault::erase`] makes its intent durable, appends tombstones behind the counted ones, writes
//! table `g + 1` beside table `g`, and has the keeper replace root `g`. The keeper's change is the
//! only moment that counts.
//!
//! | cut off | on disk | the next start |
//! |---|---|---|
//! | before the intent is durable | as before | nothing was asked |
//! | after it | root `g`, table `g`, maybe tombstones behind the count and a table `g + 1` that no root opens | opens `g`, removes `g + 1`, carries out the intent |
//! | after the root changed | root `g + 1`, tables `g + 1` and maybe `g`, intent | opens `g + 1`, removes `g`, sweeps rows, reports the erasure as unfinished |
//! | after the caller's ledger entry, before [`Vault::finish_erasure`] | the intent | reports it again; the ledger knows the commitment |
//!
//! An insertion writes rows, syncs them, and then the table, under the same root: without the table
//! the rows are noise, and the next start sweeps them. A table is only ever replaced as a whole. If
//! the keeper fails, nobody knows which root it has: the vault then answers
//! [`VaultError::Stopped`] until it is opened again.
//!
//! # What is not promised
//!
//! What the keeper cannot destroy is not erased: a TPM destroys (`TpmRoot`, feature `tpm`), a
//! [`FileRoot`] overwrites; [`Vault::keeper`] says which [`Promise`] holds. Memory is wiped where this crate
//! holds keys, not where an allocator, a register or swap has held them. A value that
//! [`Vault::write`] replaced, a session that [`Vault::put_terminal_state`] replaced and flash kept,
//! and a state or outbox entry that was removed can be opened by whoever has disk and root until
//! [`Vault::forget_columns`], [`Vault::renew`] or, for the last two, any erasure. The size and number
//! of rows, terminals and tombstones are plain to see. A copy of the whole directory made under the
//! present root can be put back without notice: the root tells generations apart, not moments.
//!
//! sled drops what follows a damaged byte of its log. A person's column that vanished so is reported
//! as damage, if a key table was written since it was first stored; state and outbox entries are not.

mod backup;
mod disk;
mod erasures;
mod error;
mod inner;
mod keys;
mod memory;
mod migration;
mod opening;
mod people;
mod records;
mod root;
mod rotation;
mod slots;
mod space;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod tombstones;
#[cfg(feature = "tpm")]
mod tpm;
mod vault;

pub use error::{RootError, VaultError};
pub use memory::{Protected, protect_memory};
pub use people::{Batch, Column, ErasureRequest, NewPerson};
pub use root::{FileRoot, MemoryRoot, Promise, Root, RootKeeper};
#[cfg(feature = "tpm")]
pub use tpm::TpmRoot;
pub use vault::{MAX_OUTBOX_ENTRIES, MAX_PEOPLE, MAX_VALUE_BYTES, OutboxEntry, Vault};
