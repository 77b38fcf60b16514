//! Terminal state: one file for each terminal, with two slots that are written in turn.
//!
//! MLS session state changes with every message, and an old state can open old messages. So it
//! never goes to the log-structured record store. A write goes to the slot not in use, is synced,
//! and then the first bytes of the other slot are wiped: there stand the length and the nonce,
//! without which the rest cannot be opened even with its key. Blocks are overwritten where they
//! lie; what a flash controller keeps of them is ended by the next renewal of the terminal's key.

use std::path::PathBuf;

use palmgate_protocol::{Name, Secret};
use palmgate_seal::aead::{Key, Place};

use crate::{
    disk::{Disk, read},
    error::VaultError,
    keys::ROW_FORMAT,
};

const SLOT_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 4 + 12;
/// Bytes of one terminal's state: a slot less its length, counter, nonce and tag.
pub(crate) const MAX_STATE_BYTES: usize = SLOT_BYTES - HEAD_BYTES - 16 - 8;

/// The file of one terminal.
pub(crate) struct Slots {
    path: PathBuf,
    disk: Disk,
    aad: Vec<u8>,
    /// The slot in use and its counter.
    current: Option<(usize, u64)>,
}

impl Slots {
    /// Finds the slot in use: of those that open, the one with the higher counter.
    pub(crate) fn open(
        path: PathBuf,
        disk: Disk,
        tenant: &Name,
        terminal: &Name,
        key: &Key,
    ) -> Result<Self, VaultError> {
        let record = terminal.as_str().as_bytes();
        let aad =
            Place { tenant, purpose: None, record, column: "session", version: ROW_FORMAT }.aad();
        let mut slots = Self { path, disk, aad, current: None };
        let file = read(&slots.path)?;
        for slot in [0, 1] {
            let Some((counter, _)) = file.as_ref().and_then(|f| slots.slot(f.expose(), slot, key))
            else {
                continue;
            };
            if slots.current.is_none_or(|(_, highest)| counter > highest) {
                slots.current = Some((slot, counter));
            }
        }
        Ok(slots)
    }

    /// The state last written.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        let Some((slot, _)) = self.current else { return Ok(None) };
        let file = read(&self.path)?;
        let found = file.as_ref().and_then(|file| self.slot(file.expose(), slot, key));
        let (_, mut plain) = found.ok_or_else(|| VaultError::Damaged {
            path: self.path.clone(),
            what: "the session no longer opens",
            remedy: "remove the file; the terminal joins again by itself",
        })?;
        plain.expose_mut().drain(..8);
        Ok(Some(plain))
    }

    /// Writes the state durably into the other slot and wipes the one that was in use.
    pub(crate) fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), VaultError> {
        let old = self.current;
        self.prepare(key, value)?;
        match old {
            Some((slot, _)) => self.wipe(slot),
            None => Ok(()),
        }
    }

    /// Writes the state durably into the other slot and leaves the one in use as it was, for a
    /// change of keys: which of the two counts is decided by the key that the table has.
    pub(crate) fn prepare(&mut self, key: &Key, value: &[u8]) -> Result<(), VaultError> {
        if !self.path.exists() {
            self.disk.replace(&self.path, &vec![0; 2 * SLOT_BYTES])?;
        }
        let (slot, counter) = self.current.map_or((0, 1), |(slot, at)| (1 - slot, at + 1));
        let mut plain = Secret::new(Vec::with_capacity(8 + value.len()));
        plain.expose_mut().extend_from_slice(&counter.to_be_bytes());
        plain.expose_mut().extend_from_slice(value);
        let sealed = key.seal(&self.aad, plain.expose());
        let bytes = [&(sealed.len() as u32).to_be_bytes(), sealed.as_slice()].concat();
        self.disk.write_at(&self.path, (slot * SLOT_BYTES) as u64, &bytes)?;
        self.disk.sync(&self.path)?;
        self.current = Some((slot, counter));
        Ok(())
    }

    /// Goes back to the slot before a [`prepare`](Self::prepare) that did not come to count.
    pub(crate) fn abandon(&mut self) {
        self.current = self.current.map(|(slot, counter)| (1 - slot, counter - 1));
    }

    /// Wipes the slot before a [`prepare`](Self::prepare) that counts now.
    pub(crate) fn settle(&self) -> Result<(), VaultError> {
        self.current.map_or(Ok(()), |(slot, _)| self.wipe(1 - slot))
    }

    /// Not synced: the page cache writes it within seconds, the next state's sync at the latest.
    fn wipe(&self, slot: usize) -> Result<(), VaultError> {
        self.disk.write_at(&self.path, (slot * SLOT_BYTES) as u64, &[0; HEAD_BYTES])
    }

    fn slot(&self, file: &[u8], slot: usize, key: &Key) -> Option<(u64, Secret<Vec<u8>>)> {
        let (length, rest) = file.get(slot * SLOT_BYTES..)?.split_first_chunk()?;
        let sealed = rest.get(..u32::from_be_bytes(*length) as usize)?;
        let plain = key.open(&self.aad, sealed).ok()?;
        let counter = u64::from_be_bytes(*plain.expose().first_chunk()?);
        Some((counter, plain))
    }
}
