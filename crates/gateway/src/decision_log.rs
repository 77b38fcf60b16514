//! The ledger as the gateway writes it: what could not be written waits here, in order, and goes in
//! when the disk takes it again.

use palmgate_ledger::{Entry, EntryKind, Ledger, LedgerError};
use palmgate_protocol::Timestamp;
use std::collections::VecDeque;

/// Entries that wait at once. The policy refuses scans while the log cannot be written, so only
/// rights, which are never refused, can add to them; beyond this the oldest is given up.
const MAX_WAITING: usize = 65_536;

/// The ledger and the entries that are not under its durable checkpoint yet.
pub(crate) struct DecisionLog {
    ledger: Ledger,
    /// Whether a write failed, so that the ledger has to recover first.
    failed: bool,
    /// Entries behind the checkpoint: the first `appended` of them are in the ledger's files.
    unsigned: VecDeque<Entry>,
    appended: usize,
    /// Entries under the last durable checkpoint.
    signed: u64,
}

impl DecisionLog {
    pub(crate) fn new(ledger: Ledger) -> Self {
        let signed = ledger.len();
        if ledger.recovered() > 0 {
            tracing::info!(
                entries = ledger.recovered(),
                "entries behind the checkpoint were taken over"
            );
        }
        Self { ledger, failed: false, unsigned: VecDeque::new(), appended: 0, signed }
    }

    /// Entries written or waiting.
    pub(crate) fn len(&self) -> u64 {
        self.signed + self.unsigned.len() as u64
    }

    /// Whether everything given so far is in the ledger's files.
    pub(crate) fn is_writable(&self) -> bool {
        !self.failed && self.appended == self.unsigned.len()
    }

    /// The ledger, for proofs over what is durable.
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes an entry. After an error it waits for the next [`DecisionLog::flush`].
    pub(crate) fn log(&mut self, entry: Entry) -> Result<(), LedgerError> {
        if self.unsigned.len() == MAX_WAITING {
            tracing::error!("a waiting ledger entry was given up: free the ledger's disk");
            self.unsigned.pop_front();
            self.appended = self.appended.saturating_sub(1);
        }
        self.unsigned.push_back(entry);
        self.append_waiting()
    }

    /// Makes everything taken durable. Recovers the ledger first if an earlier write failed.
    pub(crate) fn flush(&mut self) -> Result<(), LedgerError> {
        if self.failed {
            self.recover()?;
        }
        self.append_waiting()?;
        self.ledger.flush().inspect_err(|_| self.failed = true)?;
        self.settled();
        Ok(())
    }

    /// Makes everything taken durable without a checkpoint on the disk: that follows with the next
    /// [`DecisionLog::flush`].
    fn sync(&mut self) -> Result<(), LedgerError> {
        if self.failed {
            return self.flush();
        }
        self.append_waiting()?;
        self.ledger.sync().inspect_err(|_| self.failed = true)?;
        self.settled();
        Ok(())
    }

    /// Prunes old entries; see [`Ledger::prune`].
    pub(crate) fn prune(
        &mut self,
        before: impl Fn(EntryKind) -> Timestamp,
    ) -> Result<u64, LedgerError> {
        self.flush()?;
        self.ledger.prune(before).inspect_err(|_| self.failed = true)
    }

    fn settled(&mut self) {
        self.signed = self.ledger.signed_len();
        self.unsigned.clear();
        self.appended = 0;
    }

    /// The indices of erasures' durable entries: logs each unless an interrupted attempt already has,
    /// which the second of a pair says is possible.
    pub(crate) fn log_erasures(
        &mut self,
        entries: &[(&Entry, bool)],
    ) -> Result<Vec<u64>, LedgerError> {
        let mut indices = Vec::with_capacity(entries.len());
        for (entry, again) in entries {
            let index = if let Some(index) = self.logged(entry, *again)? {
                index
            } else {
                let index = self.len();
                self.log((*entry).clone())?;
                index
            };
            indices.push(index);
        }
        self.sync()?;
        Ok(indices)
    }

    fn logged(&mut self, entry: &Entry, again: bool) -> Result<Option<u64>, LedgerError> {
        let same = |one: &Entry| one.commitment == entry.commitment && is_erasure(one);
        if let Some(position) = self.unsigned.iter().position(same) {
            return Ok(Some(self.signed + position as u64));
        }
        if !again {
            return Ok(None);
        }
        self.flush()?;
        let found = self.ledger.find(EntryKind::Erasure, &entry.commitment)?;
        Ok(found.map(|(index, _)| index))
    }

    fn append_waiting(&mut self) -> Result<(), LedgerError> {
        while !self.failed
            && let Some(entry) = self.unsigned.get(self.appended)
        {
            match self.ledger.append(entry) {
                Ok(_) => self.appended += 1,
                // Our own mistake: it would fail again for ever.
                Err(error @ LedgerError::Entry(_)) => {
                    self.unsigned.remove(self.appended);
                    return Err(error);
                }
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What a failed flush left in the files is counted, not written twice.
    fn recover(&mut self) -> Result<(), LedgerError> {
        self.ledger.recover()?;
        let kept = usize::try_from(self.ledger.len().saturating_sub(self.signed));
        self.unsigned.drain(..kept.unwrap_or(usize::MAX).min(self.unsigned.len()));
        self.appended = 0;
        self.signed = self.ledger.len();
        self.failed = false;
        tracing::info!(entries = self.len(), "the ledger can be written again");
        Ok(())
    }
}

fn is_erasure(entry: &Entry) -> bool {
    entry.kind == EntryKind::Erasure
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_ledger::NOBODY;
    use palmgate_seal::sign::SigningKey;
    use std::{fs, path::Path};

    fn entry(kind: EntryKind, number: u8) -> Entry {
        Entry {
            at: Timestamp::from_millis(1_700_000_000_000 + i64::from(number)),
            kind,
            terminal: None,
            purpose: None,
            outcome: "accepted".into(),
            rules: vec!["G-09".into()],
            pack: [1; 32],
            commitment: if kind == EntryKind::Erasure { [number; 32] } else { NOBODY },
        }
    }

    fn open(directory: &Path) -> DecisionLog {
        let key = SigningKey::generate();
        DecisionLog::new(Ledger::open(directory, "palmgate.test/store", key).unwrap())
    }

    fn outcome(log: &DecisionLog) -> Vec<i64> {
        let ledger = log.ledger();
        let entries = ledger.entries(0..ledger.signed_len()).unwrap();
        entries.map(|entry| entry.unwrap().1.at.as_millis() - 1_700_000_000_000).collect()
    }

    #[test]
    fn what_a_failing_disk_refused_is_written_once_when_it_is_back() {
        let root = tempfile::tempdir().unwrap();
        let (directory, away) = (root.path().join("ledger"), root.path().join("away"));
        let mut log = open(&directory);
        log.log(entry(EntryKind::Scan, 0)).unwrap();
        log.flush().unwrap();
        log.log(entry(EntryKind::Scan, 1)).unwrap();
        // The checkpoint cannot be replaced: whether entry 1 is durable is unknown.
        fs::rename(&directory, &away).unwrap();
        assert!(log.flush().is_err() && !log.is_writable());
        let _ = log.log(entry(EntryKind::Right, 2));
        assert!(log.flush().is_err() && !directory.exists(), "no history is begun in its place");
        fs::rename(&away, &directory).unwrap();
        log.flush().unwrap();
        assert!(log.is_writable());
        assert_eq!((log.len(), outcome(&log)), (3, vec![0, 1, 2]));
    }

    #[test]
    fn an_erasure_that_was_cut_off_is_logged_once() {
        let root = tempfile::tempdir().unwrap();
        let mut log = open(root.path());
        let erasure = entry(EntryKind::Erasure, 7);
        assert_eq!(log.log_erasures(&[(&erasure, false)]).unwrap(), [0]);
        log.log(entry(EntryKind::Scan, 1)).unwrap();
        assert_eq!(log.log_erasures(&[(&erasure, true)]).unwrap(), [0]);
        let both = [(&entry(EntryKind::Erasure, 8), true), (&erasure, true)];
        assert_eq!(log.log_erasures(&both).unwrap(), [2, 0]);
        assert_eq!(log.len(), 3);
    }
}
