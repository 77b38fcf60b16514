use crate::{
    Checkpoint, EntryError, Hash,
    files::{FileError, Layout, io},
    lines::{Line, Lines, Location},
    pruned::{leaf_in, leaf_of},
    tree::Tree,
};
use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::PathBuf,
};

/// The files are not the history that was signed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line was edited, inserted, removed or moved.
    #[error("{}, line {line}: not what was logged here; the history no longer has the root that was signed for {size} entries", file.display())]
    Altered {
        /// The segment.
        file: PathBuf,
        /// The first line that differs.
        line: u64,
        /// Entries of the checkpoint that does not fit.
        size: u64,
    },
    /// The log ends or breaks before its checkpoint.
    #[error("{}, line {line}: entries are missing from here on; {size} were signed", file.display())]
    Missing {
        /// The segment.
        file: PathBuf,
        /// The first line that is missing.
        line: u64,
        /// Entries of the checkpoint.
        size: u64,
    },
    /// The entries were changed, and the hashes that would show where along with them.
    #[error("{}: the entries do not have the root that was signed for {size} entries, and the hash file does not tell where they differ", dir.display())]
    Root {
        /// The ledger.
        dir: PathBuf,
        /// Entries of the checkpoint.
        size: u64,
    },
    /// The ledger is older than a checkpoint that was seen of it.
    #[error(
        "the ledger was signed for {found} entries, fewer than the {held} it had before: it was rolled back"
    )]
    RolledBack {
        /// Entries in the checkpoint seen before.
        held: u64,
        /// Entries in the ledger's checkpoint.
        found: u64,
    },
    /// Something else than consecutive segments.
    #[error("{}: expected {} here", found.display(), expected.display())]
    Files {
        /// The segment that should come next.
        expected: PathBuf,
        /// What is there.
        found: PathBuf,
    },
    /// A signed line is no entry.
    #[error("{}, line {line}: {source}", file.display())]
    Entry {
        /// The segment.
        file: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The files cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl HistoryError {
    pub(crate) fn altered(at: Location, size: u64) -> Self {
        Self::Altered { file: at.file, line: at.line, size }
    }

    pub(crate) fn missing(at: Location, size: u64) -> Self {
        Self::Missing { file: at.file, line: at.line, size }
    }

    pub(crate) fn entry(at: Location, source: EntryError) -> Self {
        Self::Entry { file: at.file, line: at.line, source }
    }
}

/// The hash file, which repeats what the entries hash to: it tells where they were altered, and
/// spares proofs the reading of entries. The checkpoint alone says what is right.
pub(crate) struct KnownHashes {
    reader: Option<BufReader<File>>,
    read: u64,
    /// First entry whose known hash is absent or different.
    pub(crate) damaged_from: Option<u64>,
}

impl KnownHashes {
    pub(crate) fn open(layout: &Layout) -> Result<Self, FileError> {
        let path = layout.hashes();
        let reader = match File::open(&path) {
            Ok(file) => Some(BufReader::with_capacity(1 << 16, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(io("open", &path)(error)),
        };
        Ok(Self { reader, read: 0, damaged_from: None })
    }

    /// Compares with the next known hash; `false` when that is another one.
    pub(crate) fn agrees(&mut self, leaf: &Hash) -> bool {
        let mut known = Hash::default();
        let present = match &mut self.reader {
            Some(reader) => reader.read_exact(&mut known).is_ok(),
            None => false,
        };
        if !present {
            self.reader = None;
        }
        if (!present || known != *leaf) && self.damaged_from.is_none() {
            self.damaged_from = Some(self.read);
        }
        self.read += 1;
        !present || known == *leaf
    }
}

/// Reads as many entries as the last of `marks` has, and checks that the tree has the root of each
/// mark when it has its size. `marks` grow; `check` sees every line that is not pruned.
pub(crate) fn replay(
    layout: &Layout,
    lines: &mut Lines,
    known: &mut KnownHashes,
    marks: &[&Checkpoint],
    check: &mut dyn FnMut(&[u8]) -> Result<(), EntryError>,
) -> Result<Tree, HistoryError> {
    let mut tree = Tree::default();
    let mut altered = None;
    for mark in marks {
        let size = mark.size;
        while tree.size() < size {
            let Some(Line::Whole(line)) = lines.next()? else {
                let missing = HistoryError::missing(lines.location(), size);
                return Err(altered.map_or(missing, |at| HistoryError::altered(at, size)));
            };
            let leaf = leaf_of(line);
            let checked = if leaf_in(line).is_some() { Ok(()) } else { check(line) };
            if !known.agrees(&leaf) && altered.is_none() {
                altered = Some(lines.location());
            }
            if let Err(source) = checked {
                let malformed = HistoryError::entry(lines.location(), source);
                return Err(altered.map_or(malformed, |at| HistoryError::altered(at, size)));
            }
            tree.push(leaf);
        }
        if tree.root() != mark.root {
            let unknown = HistoryError::Root { dir: layout.dir().into(), size };
            return Err(altered.map_or(unknown, |at| HistoryError::altered(at, size)));
        }
        altered = None;
    }
    Ok(tree)
}
