//! Offline verification of a whole ledger: needs the directory and the log's public key, writes
//! nothing, and asks nobody.

use crate::{
    Checkpoint, CheckpointError, Entry, FileError, Hash, HistoryError,
    files::{Layout, read},
    history::{KnownHashes, replay},
    lines::{Line, Lines},
    note::MAX_NOTE_BYTES,
};
use palmgate_seal::sign::VerifyingKey;
use std::path::{Path, PathBuf};

/// What a ledger that verifies contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log's name.
    pub origin: String,
    /// Entries under the signed checkpoint. All of them are well-formed and unchanged.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
    /// Entries behind the checkpoint. Nothing vouches for these yet.
    pub unsigned: u64,
    /// Whether bytes that are no entry follow: an interrupted write, until the next start.
    pub torn: bool,
}

/// The ledger does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory has no checkpoint.
    #[error("{}: no signed checkpoint here; without it nothing can be verified", path.display())]
    NoCheckpoint {
        /// Where it should be.
        path: PathBuf,
    },
    /// The checkpoint is damaged, forged, or of another log or key.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// The checkpoint seen before, with which the ledger was to be compared.
    #[error("the earlier checkpoint: {0}")]
    Earlier(CheckpointError),
    /// The entries are not the signed ones.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Verifies the ledger in `dir`: every entry, its place, and the signature over them.
///
/// This shows that the directory is whole. Only [`directory_since`] shows that it is not an older
/// or another version of itself.
///
/// # Errors
/// [`VerifyError`] names the file and, where it can be told, the line.
pub fn directory(dir: &Path, key: &VerifyingKey) -> Result<Verified, VerifyError> {
    verify(dir, key, None)
}

/// Like [`directory`], and verifies that the ledger continues the one that `earlier`, a checkpoint
/// seen before, was signed for.
///
/// # Errors
/// [`VerifyError`]; also when the ledger was rolled back or replaced since.
pub fn directory_since(
    dir: &Path,
    key: &VerifyingKey,
    earlier: &str,
) -> Result<Verified, VerifyError> {
    let earlier = Checkpoint::verify(earlier, key).map_err(VerifyError::Earlier)?;
    verify(dir, key, Some(&earlier))
}

fn verify(
    dir: &Path,
    key: &VerifyingKey,
    earlier: Option<&Checkpoint>,
) -> Result<Verified, VerifyError> {
    let layout = Layout::new(dir);
    let path = layout.checkpoint();
    let Some(note) = read(&path, MAX_NOTE_BYTES as u64 + 1)? else {
        return Err(VerifyError::NoCheckpoint { path });
    };
    let checkpoint = match earlier {
        Some(earlier) => Checkpoint::verify_of(&earlier.origin, &note, key),
        None => Checkpoint::verify(&note, key),
    };
    let checkpoint = checkpoint.map_err(|source| VerifyError::Checkpoint { path, source })?;
    let marks: Vec<_> = earlier.into_iter().chain([&checkpoint]).collect();
    if marks[0].size > checkpoint.size {
        let (held, found) = (marks[0].size, checkpoint.size);
        return Err(HistoryError::RolledBack { held, found }.into());
    }
    let mut lines = Lines::open(&layout)?;
    let mut known = KnownHashes::open(&layout)?;
    let well_formed = &mut |line: &[u8]| Entry::parse(line).map(drop);
    replay(&layout, &mut lines, &mut known, &marks, well_formed)?;
    let (unsigned, torn) = rest(&mut lines)?;
    let Checkpoint { origin, size, root } = checkpoint;
    Ok(Verified { origin, size, root, unsigned, torn })
}

fn rest(lines: &mut Lines) -> Result<(u64, bool), HistoryError> {
    let mut unsigned = 0;
    loop {
        match lines.next()? {
            Some(Line::Whole(line)) if Entry::parse(line).is_ok() => unsigned += 1,
            Some(_) => return Ok((unsigned, true)),
            None => return Ok((unsigned, false)),
        }
    }
}
