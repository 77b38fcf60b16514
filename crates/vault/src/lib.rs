//! Sealed records under per-person keys, and the one way to forget them.
//!
//! # What lies where
//!
//! ```text
//! root                 (outside, by a RootKeeper) generation, 256-bit key
//! DIR/format           two lines: "palmgate vault 2", "tenant NAME"; written last at set-up
//! DIR/way-back         "palmgate vault 1" until a migration from that format is committed
//! DIR/lock             held by the process that has the vault open
//! DIR/tidy             there after a clean stop: the next start need not sweep
//! DIR/reserve          empty space, given up when the disk is full and somebody is erased
//! DIR/keys/table       the key table: its top, sealed under the root, and pages sealed under it
//! DIR/keys/tombstones  32 bytes for each erasure: keyed hashes of member and claim; zeros behind
//! DIR/records/         sled: columns of people, store-level state, outbox; all values sealed, all
//!                      keys hashes
//! DIR/terminals/NAME   two slots of 64 KiB, written in turn: the terminal's state, sealed
//! ```
//!
//! The key table is written in place. At 0 and at 1 MiB is room for a top, at 2 MiB for intents, from
//! 2.375 MiB on are pages of 4 KiB. A top is `palmgate keys`, newline, format (2 bytes), generation
//! (8), a check of the root (8), length (4), then nonce, ciphertext and tag of AES-256-GCM, bound to
//! tenant and generation. Inside: how often the table was written (8), the seeds of the state, of the
//! outbox and of marking (32 each), count (8) and hash chain (32) of the tombstones, the terminals
//! (number, then length, name, seed each), the erasures that the ledger has not (number, then 64 each),
//! the pages (number, then slot 4, seed 32 each). A page is a length (4) and, sealed under its own seed
//! and bound to its slot, up to 81 people (member 16, columns 2, seed 32 each). A change writes the
//! pages that it touches to free slots and the top to the place not in use, with one sync; the head of
//! the top before is then taken away. Numbers are big endian. A seed is random; the keys that seal and
//! those that hash are derived from it by HMAC-SHA-256 with a label, never a seed from another seed.
//!
//! A vault of format 1, which had one table file a generation and a file of begun erasures, is taken
//! over at the next start: rows are copied to their new places, then the new table is written under
//! the same root. Cut off anywhere, the next start begins again; an older program is refused from the
//! first step on. A backup from before shows nobody afterwards: make one after it. Until
//! [`Vault::commit_format`], [`Vault::roll_back`] writes the vault as it is then in format 1, with the
//! same keys under the same root: nothing of before the migration is kept, so who was forgotten since
//! stays so.
//!
//! # Forgetting
//!
//! A person's seed stands on a page of the key table and nowhere else. To erase somebody, their page
//! is written without them under a new key, and the top with that key under a new root; the keeper
//! takes the new root and destroys the old one. Every older top with all its pages, in sled's log, in a backup or in a flash block thought overwritten, is then
//! noise, and so is all it had keys for. Removing rows afterwards only frees space: sled keeps old
//! bytes. State and outbox get new seeds with every root, so that no entry replaced or removed before
//! an erasure can name the erased after it. (An outbox with more than 1,000 entries keeps its seed
//! until it is shorter.) Only the marking seed stays: it hashes tombstones and seals lists of such
//! hashes.
//!
//! # Crashes
//!
//! [`Vault::erase`] makes durable, in any order: its intent, tombstones behind the counted ones, pages
//! and top under root `g + 1`, rows that are to count with it, and, where the keeper can, root `g + 1`
//! itself without its counting. Then the keeper destroys root `g`, the only moment that counts.
//!
//! | cut off | on disk | the next start |
//! |---|---|---|
//! | before the intent is durable | root `g`, its table, what no root opens | nothing was asked |
//! | after it | the same, and the intent | opens `g`, carries out the intent |
//! | after the root changed | root `g + 1`, its table with the erasure as begun | opens `g + 1`, sweeps rows, reports the erasure as unfinished |
//! | after the caller's ledger entry | the same until the next change of the table | reports it again; the ledger knows the commitment |
//!
//! An insertion writes rows, syncs them, and then the table, under the same root: without the table
//! the rows are noise, and the next start sweeps them. If the keeper fails, nobody knows which root it
//! has: the vault then answers [`VaultError::Stopped`] until it is opened again.
//!
//! # What is not promised
//!
//! What the keeper cannot destroy is not erased: a TPM destroys (`TpmRoot`, feature `tpm`), a
//! [`FileRoot`] overwrites; [`Vault::keeper`] says which [`Promise`] holds. Memory is wiped where this crate
//! holds keys, not where an allocator, a register or swap has held them. A value that
//! [`Vault::write`] replaced, a terminal's state that [`Vault::put_terminal_state`] replaced and flash kept,
//! and a state or outbox entry that was removed can be opened by whoever has disk and root until
//! [`Vault::forget_columns`], [`Vault::renew`] or, for the last two, any erasure. The size and number
//! of rows, terminals and tombstones are plain to see. A copy of the whole directory made under the
//! present root can be put back without notice: the root tells generations apart, not moments.
//!
//! sled drops what follows a damaged byte of its log. A person's column that vanished so is reported
//! as damage, if the person's page was written since it was first stored, at the latest by
//! [`Vault::renew`]; state and outbox entries are not. Which rows belong to one person is plain to
//! see, as they lie side by side; whose they are is not.

mod backup;
mod disk;
mod erasures;
mod error;
mod inner;
mod keys;
mod memory;
mod migration;
mod opening;
mod page_entries;
mod people;
mod reading;
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
mod way_back;
mod worker;

pub use error::{RootError, VaultError};
pub use keys::FORMAT;
pub use memory::{Protected, protect_memory};
pub use people::{Batch, Column, ErasureRequest, NewPerson};
pub use reading::PersonColumns;
pub use root::{FileRoot, MemoryRoot, Promise, Root, RootKeeper};
#[cfg(feature = "tpm")]
pub use tpm::TpmRoot;
pub use vault::{MAX_OUTBOX_ENTRIES, MAX_PEOPLE, MAX_VALUE_BYTES, OutboxEntry, Vault};
pub use way_back::{RolledBack, WayBack};
