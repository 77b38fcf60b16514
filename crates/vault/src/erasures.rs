//! Erasures that were begun: the intent before, the unwritten ledger entry after.

use std::path::PathBuf;

use palmgate_protocol::Name;
use palmgate_seal::aead::{Key, Place};

use crate::{
    disk::{Disk, read},
    error::VaultError,
    keys::FORMAT,
    tombstones::Mark,
};

const BYTES: usize = 64;

/// One erasure, from its intent until its ledger entry is written. Names nobody: the marks are
/// keyed hashes, and the commitment's salt goes with the person's data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// Of the member and of the claim.
    pub(crate) marks: [Mark; 2],
    pub(crate) commitment: [u8; 32],
}

/// The file of begun erasures, and its mirror in memory.
pub(crate) struct Erasures {
    path: PathBuf,
    disk: Disk,
    key: Key,
    aad: Vec<u8>,
    begun: Vec<Erasure>,
}

impl Erasures {
    /// Reads the file; there is none while nothing is begun.
    pub(crate) fn open(
        path: PathBuf,
        disk: Disk,
        key: Key,
        tenant: &Name,
    ) -> Result<Self, VaultError> {
        let column = "erasures";
        let aad = Place { tenant, purpose: None, record: b"", column, version: FORMAT }.aad();
        let damaged = |what| VaultError::Damaged {
            path: path.clone(),
            what,
            remedy: "restore it; if that is impossible remove it, and check the ledger for \
                     erasures that were asked for and not acknowledged",
        };
        let begun = match read(&path)? {
            None => Vec::new(),
            Some(sealed) => {
                let plain = key
                    .open(&aad, sealed.expose())
                    .map_err(|_| damaged("it does not open under its key"))?;
                let (whole, cut) = plain.expose().as_chunks::<BYTES>();
                if !cut.is_empty() {
                    return Err(damaged("its last entry is cut off"));
                }
                whole.iter().map(decode).collect()
            }
        };
        Ok(Self { path, disk, key, aad, begun })
    }

    /// Adds intents, durably; one that is there already stays as it is.
    pub(crate) fn begin(&mut self, new: &[Erasure]) -> Result<(), VaultError> {
        let mut next = self.begun.clone();
        for erasure in new {
            if !next.contains(erasure) {
                next.push(*erasure);
            }
        }
        self.save(next)
    }

    /// Forgets erasures whose ledger entries are durable.
    pub(crate) fn finish(&mut self, commitments: &[[u8; 32]]) -> Result<(), VaultError> {
        let open = |one: &&Erasure| !commitments.contains(&one.commitment);
        self.save(self.begun.iter().filter(open).copied().collect())
    }

    /// All that are begun and not finished.
    pub(crate) fn begun(&self) -> &[Erasure] {
        &self.begun
    }

    fn save(&mut self, next: Vec<Erasure>) -> Result<(), VaultError> {
        if next != self.begun {
            let plain: Vec<u8> = next.iter().flat_map(encode).collect();
            self.disk.replace(&self.path, &self.key.seal(&self.aad, &plain))?;
            self.begun = next;
        }
        Ok(())
    }
}

fn encode(erasure: &Erasure) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..32].copy_from_slice(erasure.marks.as_flattened());
    bytes[32..].copy_from_slice(&erasure.commitment);
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Erasure {
    let (marks, commitment) = bytes.split_at(32);
    let (marks, _) = marks.as_chunks();
    let commitment = commitment.try_into().expect("32 of 64 bytes are left");
    Erasure { marks: [marks[0], marks[1]], commitment }
}
