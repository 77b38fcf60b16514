//! The ledger's witness (C2SP tlog-witness): the cloud cosigns each new checkpoint only if it continues
//! the one before, so that this box cannot show two histories. What it cosigned lies beside the ledger.

use data_encoding::BASE64;
use palmgate_ledger::{
    Checkpoint, ConsistencyProof, note,
    witness::{self, WitnessError},
};
use palmgate_protocol::Name;
use palmgate_seal::sign::VerifyingKey;
use std::path::PathBuf;

/// Where the vault keeps the size of the checkpoint that was cosigned last.
pub(crate) const STATE: &str = "witnessed";
/// The content type of a witness that knows another size.
pub(crate) const SIZE: &str = "text/x.tlog.size";

/// A checkpoint, and the proof that it continues the one cosigned before.
pub(crate) struct Asked {
    pub(crate) note: String,
    pub(crate) proof: ConsistencyProof,
}

/// Whom the gateway asks, and where the answer is kept.
#[derive(Clone)]
pub(crate) struct Witness {
    /// The key of this store's ledger.
    pub(crate) log: VerifyingKey,
    pub(crate) name: String,
    /// From the store's bundle; without it a cosignature is kept and cannot be checked here.
    pub(crate) key: Option<VerifyingKey>,
    pub(crate) file: PathBuf,
}

/// What the witness is called.
pub(crate) fn name(tenant: &Name) -> String {
    format!("palmgate-witness/{tenant}")
}

impl Asked {
    /// The body of `add-checkpoint`.
    pub(crate) fn body(&self) -> String {
        let path = self.proof.path.iter().map(|hash| format!("{}\n", BASE64.encode(hash)));
        let path: String = path.collect();
        format!("old {}\n{path}\n{}", self.proof.from, self.note)
    }
}

impl Witness {
    /// The checkpoint with the witness's line, if that is one.
    pub(crate) fn cosigned(&self, asked: &Asked, line: &str) -> Result<String, WitnessError> {
        let cosigned = format!("{}{}\n", asked.note, line.trim_end_matches('\n'));
        if let Some(key) = &self.key {
            drop(witness::verify(&cosigned, &self.log, &self.name, key)?);
        } else {
            Checkpoint::verify(&cosigned, &self.log)?;
            if !line.starts_with(&format!("\u{2014} {} ", self.name)) {
                return Err(note::NoteError::Malformed("it is not by the witness").into());
            }
        }
        Ok(cosigned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_ledger::{Entry, EntryKind, Ledger, NOBODY};
    use palmgate_protocol::Timestamp;
    use palmgate_seal::sign::SigningKey;
    use std::path::Path;

    const NOW: Timestamp = Timestamp::from_millis(1_785_576_600_000);

    fn ledger(directory: &Path, key: &SigningKey, outcome: &str, size: u64) -> Ledger {
        let key = SigningKey::from_pkcs8(key.pkcs8().expose()).unwrap();
        let mut ledger = Ledger::open(directory, "palmgate/a/b", key).unwrap();
        for number in ledger.len()..size {
            let entry = Entry {
                at: NOW.after(std::time::Duration::from_secs(number)),
                kind: EntryKind::Scan,
                terminal: None,
                purpose: None,
                outcome: outcome.into(),
                rules: vec![],
                pack: [1; 32],
                commitment: NOBODY,
            };
            ledger.append(&entry).unwrap();
        }
        ledger.flush().unwrap();
        ledger
    }

    fn asked(ledger: &Ledger, from: u64) -> Asked {
        let proof = ledger.consistency(from, ledger.signed_len()).unwrap();
        Asked { note: ledger.checkpoint().into(), proof }
    }

    /// The other side: reads the body as C2SP says, and cosigns.
    fn answer(
        held: Option<&str>,
        body: &str,
        log: &VerifyingKey,
        key: &SigningKey,
    ) -> Option<String> {
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let from = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let hash = |line: &str| BASE64.decode(line.as_bytes()).unwrap().try_into().unwrap();
        let to = Checkpoint::verify(note, log).unwrap().size;
        let proof = ConsistencyProof { from, to, path: lines.map(hash).collect() };
        let name = "palmgate-witness/a";
        let cosigned = witness::cosign(held, note, &proof, log, name, key, NOW).ok()?;
        Some(cosigned.lines().last().unwrap().to_owned())
    }

    #[test]
    fn growth_is_cosigned_and_a_fork_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (key, cosigner) = (SigningKey::generate(), SigningKey::generate());
        let log = key.public();
        let key_of = Some(cosigner.public());
        let name = name(&"a".parse().unwrap());
        let this = Witness { log, name, key: key_of, file: PathBuf::new() };
        let first = asked(&ledger(&directory.path().join("one"), &key, "accepted", 300), 0);
        let line = answer(None, &first.body(), &log, &cosigner).unwrap();
        let held = this.cosigned(&first, &line).unwrap();
        let later = asked(&ledger(&directory.path().join("one"), &key, "accepted", 700), 300);
        let line = answer(Some(&held), &later.body(), &log, &cosigner).unwrap();
        assert!(this.cosigned(&later, &line).unwrap().contains("palmgate-witness/a"));
        assert!(this.cosigned(&first, &line).is_err(), "a line for another checkpoint");
        let forged = answer(Some(&held), &later.body(), &log, &SigningKey::generate()).unwrap();
        assert!(this.cosigned(&later, &forged).is_err(), "another key");
        let unknown = Witness { key: None, ..this.clone() };
        assert!(unknown.cosigned(&later, &line).is_ok());
        assert!(unknown.cosigned(&later, "\u{2014} somebody aGk=").is_err());

        let fork = asked(&ledger(&directory.path().join("two"), &key, "rejected", 700), 300);
        assert!(answer(Some(&held), &fork.body(), &log, &cosigner).is_none());
    }
}
