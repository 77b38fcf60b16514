//! Witnessing: somebody else remembers the last checkpoint of a log and cosigns the next one only
//! if it continues it (C2SP tlog-cosignature). Two histories of one log then cannot both be
//! cosigned, so who asks for the cosignature sees what everybody sees.

use crate::{
    Checkpoint, CheckpointError, ConsistencyProof, ProofError,
    note::{Algorithm, Note, NoteError, Signer},
};
use palmgate_protocol::Timestamp;
use palmgate_seal::sign::{SigningKey, VerifyingKey};

/// The witness does not cosign, or the note is not cosigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The checkpoint that is held from before. The witness's own memory is damaged.
    #[error("the checkpoint held from before: {0}")]
    Held(CheckpointError),
    /// The checkpoint to cosign.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log shows another history than before: it was forked, rolled back or rewritten. Keep
    /// both notes, they are the proof.
    #[error("the log does not continue what was cosigned before (a fork, or a wrong proof): {0}")]
    Fork(ProofError),
    /// The witness's name or signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Before 1970.
    #[error("the clock stands before 1970")]
    Clock,
}

/// Appends the cosignature of the witness to `new`, a checkpoint of the log with the key `log`, if
/// `proof` shows that it continues `held`, the checkpoint cosigned last. `held` is `None` for a log
/// never seen. The caller stores the result before it answers, and serialises calls for one log.
///
/// # Errors
/// [`WitnessError`]; nothing is signed then.
pub fn cosign(
    held: Option<&str>,
    new: &str,
    proof: &ConsistencyProof,
    log: &VerifyingKey,
    name: &str,
    key: &SigningKey,
    at: Timestamp,
) -> Result<String, WitnessError> {
    let checkpoint = Checkpoint::verify(new, log)?;
    if let Some(held) = held {
        let held = Checkpoint::verify(held, log).map_err(WitnessError::Held)?;
        Checkpoint::verify_of(&held.origin, new, log)?;
        proof
            .verify((held.size, &held.root), (checkpoint.size, &checkpoint.root))
            .map_err(WitnessError::Fork)?;
    }
    let seconds = u64::try_from(at.as_millis()).map_err(|_| WitnessError::Clock)? / 1000;
    let witness = Signer::new(name, Algorithm::Cosignature, key.public())?;
    let signature = key.sign_exact(&message(Note::parse(new)?.text(), seconds));
    Ok(format!("{new}{}", witness.line(&[&seconds.to_be_bytes()[..], &signature].concat())))
}

/// Checks the signatures of the log and of the witness; returns the checkpoint and when it was
/// cosigned.
///
/// # Errors
/// [`WitnessError`] when either is absent or wrong.
pub fn verify(
    note: &str,
    log: &VerifyingKey,
    name: &str,
    key: &VerifyingKey,
) -> Result<(Checkpoint, Timestamp), WitnessError> {
    let checkpoint = Checkpoint::verify(note, log)?;
    let witness = Signer::new(name, Algorithm::Cosignature, *key)?;
    let note = Note::parse(note)?;
    let bytes = note.signature_of(&witness)?;
    let Some((seconds, signature)) = bytes.split_first_chunk() else {
        return Err(NoteError::BadSignature(witness).into());
    };
    let seconds = u64::from_be_bytes(*seconds);
    key.verify_exact(&message(note.text(), seconds), signature)
        .map_err(|_| NoteError::BadSignature(witness))?;
    let millis = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    Ok((checkpoint, Timestamp::from_millis(millis)))
}

fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}
