use crate::{
    Checkpoint, CheckpointError, Entry, EntryError, InclusionProof, ProofError, merkle::leaf_hash,
};
use palmgate_seal::sign::VerifyingKey;
use serde::{Deserialize, Serialize};

/// An entry, its place in the log and the log's signature: enough to check offline that it was
/// logged. As JSON it can be handed out, for it holds no identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The line of the log, as it was hashed.
    pub entry: String,
    /// That it stands in the tree.
    pub proof: InclusionProof,
    /// The signed note with the tree's root.
    pub checkpoint: String,
}

/// The evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The JSON.
    #[error("not ledger evidence: {0}")]
    Malformed(String),
    /// The entry.
    #[error("the logged entry: {0}")]
    Entry(#[from] EntryError),
    /// The checkpoint.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof.
    #[error("the inclusion proof: {0}")]
    Proof(#[from] ProofError),
}

impl Evidence {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`EvidenceError::Malformed`] says what is wrong; nothing is proven yet either way.
    pub fn parse(json: &str) -> Result<Self, EvidenceError> {
        serde_json::from_str(json).map_err(|error| EvidenceError::Malformed(error.to_string()))
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers have a JSON form")
    }

    /// Checks that the log with this key contains the entry; returns both.
    ///
    /// # Errors
    /// [`EvidenceError`] names the part that does not hold.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(Entry, Checkpoint), EvidenceError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, key)?;
        Ok((self.verify_under(&checkpoint)?, checkpoint))
    }

    /// As [`verify`](Self::verify), under a checkpoint whose signature was verified before: for who
    /// checks many entries under one. The note in this evidence is not looked at.
    ///
    /// # Errors
    /// [`EvidenceError`] names the part that does not hold.
    pub fn verify_under(&self, checkpoint: &Checkpoint) -> Result<Entry, EvidenceError> {
        let entry = Entry::parse(self.entry.as_bytes())?;
        let leaf = leaf_hash(self.entry.as_bytes());
        self.proof.verify(&leaf, checkpoint.size, &checkpoint.root)?;
        Ok(entry)
    }
}
