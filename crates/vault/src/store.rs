//! What belongs to the store and to no single person: named state, and the outbox.
//!
//! Each is sealed under a key of its own that changes with the root: what was overwritten or removed
//! before a change is unreadable after it. All entries under one key share a prefix, so that entries
//! under the next key can stand beside them until the key table decides.

use palmgate_protocol::{Name, Secret};
use palmgate_seal::aead::{Key, Place};

use crate::{
    error::{START_ANEW, VaultError},
    keys::{ROW_FORMAT, Seed},
    records::{Records, Shelf},
};

const PREFIX_BYTES: usize = 8;
/// Entries that are sealed anew in one go.
const BATCH: usize = 256;

/// The entry of an outbox number.
pub(crate) fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Seals store entries under one key.
pub(crate) struct StoreCipher<'a> {
    tenant: &'a Name,
    records: &'a Records,
    prefix: [u8; PREFIX_BYTES],
    key: Key,
}

impl<'a> StoreCipher<'a> {
    pub(crate) fn new(tenant: &'a Name, records: &'a Records, seed: &Seed) -> Self {
        Self { tenant, records, prefix: prefix(seed), key: seed.sealing() }
    }

    /// Opens a row of the record store, if this seed sealed it.
    #[cfg(test)]
    pub(crate) fn open_row(
        tenant: &Name,
        seed: &Seed,
        key: &[u8],
        sealed: &[u8],
    ) -> Option<Secret<Vec<u8>>> {
        let entry = key.strip_prefix(&prefix(seed))?;
        seed.sealing().open(&aad(tenant, entry), sealed).ok()
    }

    pub(crate) fn put(&self, entry: &[u8], value: &[u8]) -> Result<(), VaultError> {
        self.records.put(Shelf::Store, &[self.sealed(entry, value)])
    }

    pub(crate) fn get(&self, entry: &[u8]) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        let Some(sealed) = self.records.get(Shelf::Store, &self.key_of(entry))? else {
            return Ok(None);
        };
        self.open(entry, &sealed).map(Some).ok_or_else(|| VaultError::Damaged {
            path: self.records.path().to_path_buf(),
            what: "an entry of the store's state or outbox does not open",
            remedy: START_ANEW,
        })
    }

    pub(crate) fn open(&self, entry: &[u8], sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        self.key.open(&self.aad(entry), sealed).ok()
    }

    pub(crate) fn contains(&self, entry: &[u8]) -> Result<bool, VaultError> {
        self.records.contains(Shelf::Store, &self.key_of(entry))
    }

    pub(crate) fn remove(&self, entry: &[u8]) -> Result<(), VaultError> {
        self.records.remove(Shelf::Store, &[self.key_of(entry)])
    }

    /// The outbox's numbers, lowest first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = Result<u64, VaultError>> + use<'a> {
        let number = |entry: Vec<u8>| {
            let bytes = entry.last_chunk().expect("an outbox entry ends with its number");
            u64::from_be_bytes(*bytes)
        };
        self.entries().map(move |entry| entry.map(number))
    }

    /// Seals every entry under another key, beside the old ones. Not synced.
    pub(crate) fn copy_to(&self, next: &Self) -> Result<(), VaultError> {
        let entries = self.entries().collect::<Result<Vec<_>, _>>()?;
        for some in entries.chunks(BATCH) {
            let mut values = Vec::with_capacity(some.len());
            for entry in some {
                if let Some(value) = self.get(entry)? {
                    values.push(next.sealed(entry, value.expose()));
                }
            }
            self.records.add(Shelf::Store, &values)?;
        }
        Ok(())
    }

    /// Removes every entry.
    pub(crate) fn clear(&self) -> Result<(), VaultError> {
        self.records.remove_all(Shelf::Store, &self.prefix, |_| true).map(|_| ())
    }

    /// Whether a key of the record store has this cipher's prefix.
    pub(crate) fn owns(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    fn entries(&self) -> impl Iterator<Item = Result<Vec<u8>, VaultError>> + use<'a> {
        let keys = self.records.keys(Shelf::Store, &self.prefix);
        keys.map(|key| key.map(|key| key[PREFIX_BYTES..].to_vec()))
    }

    fn sealed(&self, entry: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (self.key_of(entry), self.key.seal(&self.aad(entry), value))
    }

    fn key_of(&self, entry: &[u8]) -> Vec<u8> {
        [&self.prefix, entry].concat()
    }

    fn aad(&self, entry: &[u8]) -> Vec<u8> {
        aad(self.tenant, entry)
    }
}

fn aad(tenant: &Name, entry: &[u8]) -> Vec<u8> {
    Place { tenant, purpose: None, record: entry, column: "store", version: ROW_FORMAT }.aad()
}

fn prefix(seed: &Seed) -> [u8; PREFIX_BYTES] {
    *seed.hashing().hash(b"prefix").first_chunk().expect("a hash is longer")
}
