//! Offline verification of a whole ledger: needs the directory and the log's public key, writes
//! nothing, and asks nobody.

use crate::{
    Checkpoint, CheckpointError, ConsistencyProof, Entry, Evidence, FileError, Hash, HistoryError,
    ProofError,
    files::{Layout, read},
    history::{KnownHashes, replay},
    lines::{Line, Lines},
    note::MAX_NOTE_BYTES,
    pruned::{leaf_in, leaf_of},
    tree::{Tile, Tree},
};
use palmgate_seal::sign::VerifyingKey;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

/// What a ledger that verifies contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log's name.
    pub origin: String,
    /// Entries under the signed checkpoint. All of them are well-formed and unchanged.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
    /// Entries among them of which only the hash is left, because their time was up.
    pub pruned: u64,
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
    /// The note that the log should have grown to.
    #[error("the later checkpoint: {0}")]
    Later(CheckpointError),
    /// The proof between two notes.
    #[error("the log did not grow from the one to the other: {0}")]
    Proof(ProofError),
    /// There is no such entry.
    #[error("there is no entry {index}: the checkpoint is over {size}, counted from 0")]
    OutOfRange {
        /// The index asked for.
        index: u64,
        /// Entries there are.
        size: u64,
    },
    /// Only the hash of the entry is left.
    #[error("the time of entry {index} was up: only its hash is left")]
    Pruned {
        /// The index asked for.
        index: u64,
    },
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

/// Makes the proof for one entry from an exported directory, without the log's private key.
///
/// # Errors
/// [`VerifyError`]; the directory is verified whole first.
pub fn prove(dir: &Path, key: &VerifyingKey, index: u64) -> Result<Evidence, VerifyError> {
    let exported = Exported::read(dir, key)?;
    let size = exported.checkpoint.size;
    if index >= size {
        return Err(VerifyError::OutOfRange { index, size });
    }
    let Ok((_, proof)) = exported.tree.inclusion(index, size, &mut exported.tiles());
    let mut lines = Lines::open(&Layout::new(dir))?;
    lines.skip_to(index)?;
    let entry = match lines.next()? {
        Some(Line::Whole(line)) if leaf_in(line).is_some() => {
            return Err(VerifyError::Pruned { index });
        }
        Some(Line::Whole(line)) => String::from_utf8_lossy(line).into_owned(),
        _ => return Err(HistoryError::missing(lines.location(), size).into()),
    };
    Ok(Evidence { entry, proof, checkpoint: exported.note })
}

/// Makes the proof that an exported directory continues `earlier`, a checkpoint of it seen before:
/// for whoever has both notes and not the entries.
///
/// # Errors
/// [`VerifyError`]; also when the directory does not continue it.
pub fn continuation(
    dir: &Path,
    key: &VerifyingKey,
    earlier: &str,
) -> Result<ConsistencyProof, VerifyError> {
    directory_since(dir, key, earlier)?;
    let earlier = Checkpoint::verify(earlier, key).map_err(VerifyError::Earlier)?;
    let exported = Exported::read(dir, key)?;
    let to = exported.checkpoint.size;
    let Ok(proof) = exported.tree.consistency(earlier.size, to, &mut exported.tiles());
    Ok(proof)
}

/// Checks a proof that the log with this key grew from one signed note to another.
///
/// # Errors
/// [`VerifyError::Earlier`], [`VerifyError::Later`] or [`VerifyError::Proof`] names what does not
/// hold.
pub fn grew(
    earlier: &str,
    later: &str,
    proof: &ConsistencyProof,
    key: &VerifyingKey,
) -> Result<(Checkpoint, Checkpoint), VerifyError> {
    let earlier = Checkpoint::verify(earlier, key).map_err(VerifyError::Earlier)?;
    let later = Checkpoint::verify_of(&earlier.origin, later, key).map_err(VerifyError::Later)?;
    proof
        .verify((earlier.size, &earlier.root), (later.size, &later.root))
        .map_err(VerifyError::Proof)?;
    Ok((earlier, later))
}

/// A directory that verified, with everything that proofs are made of.
struct Exported {
    checkpoint: Checkpoint,
    note: String,
    tree: Tree,
    leaves: Vec<Hash>,
}

impl Exported {
    fn read(dir: &Path, key: &VerifyingKey) -> Result<Self, VerifyError> {
        let layout = Layout::new(dir);
        let path = layout.checkpoint();
        let note = read(&path, MAX_NOTE_BYTES as u64 + 1)?
            .ok_or_else(|| VerifyError::NoCheckpoint { path: path.clone() })?;
        let checkpoint = Checkpoint::verify(&note, key)
            .map_err(|source| VerifyError::Checkpoint { path, source })?;
        let (mut lines, mut known) = (Lines::open(&layout)?, KnownHashes::open(&layout)?);
        let mut leaves = Vec::new();
        let check = &mut |line: &[u8]| Entry::parse(line).map(drop);
        let tree = replay(&layout, &mut lines, &mut known, &[&checkpoint], check)?;
        let mut lines = Lines::open(&layout)?;
        while (leaves.len() as u64) < checkpoint.size
            && let Some(Line::Whole(line)) = lines.next()?
        {
            leaves.push(leaf_of(line));
        }
        Ok(Self { checkpoint, note, tree, leaves })
    }

    fn tiles(&self) -> impl FnMut(u64) -> Result<Tile, Infallible> {
        |number| Ok(Tile::new(&self.leaves.as_chunks().0[number as usize]))
    }
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
    let mut whole = 0;
    let well_formed = &mut |line: &[u8]| {
        whole += 1;
        Entry::parse(line).map(drop)
    };
    replay(&layout, &mut lines, &mut known, &marks, well_formed)?;
    let (unsigned, torn) = rest(&mut lines)?;
    let Checkpoint { origin, size, root } = checkpoint;
    Ok(Verified { origin, size, root, pruned: size - whole, unsigned, torn })
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
