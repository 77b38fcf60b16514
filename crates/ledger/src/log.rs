use crate::{
    Checkpoint, CheckpointError, ConsistencyProof, Entries, Entry, EntryError, EntryKind, Evidence,
    FileError, Hash, HistoryError, InclusionProof, ProofError,
    entry::USUAL_ENTRY_BYTES,
    files::{Layout, io, parent, read, replace, sync_dir},
    history::{KnownHashes, replay},
    lines::{Line, Lines, SEGMENT_ENTRIES},
    merkle::leaf_hash,
    note::{MAX_NOTE_BYTES, NoteError},
    places::{Places, place_of},
    pruned::{leaf_in, leaf_of, line_of, replace_segment},
    tree::{TILE, Tile, Tree},
};
use palmgate_protocol::Timestamp;
use palmgate_seal::sign::SigningKey;
use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const HASH_BYTES: u64 = size_of::<Hash>() as u64;

/// An append-only log in a directory of its own, open for one process.
///
/// [`append`](Self::append) hands an entry to the operating system; [`sync`](Self::sync) makes
/// everything appended durable and signs it; [`flush`](Self::flush) also puts the signed checkpoint
/// on the disk. Whatever must not be lost is synced before it is acknowledged.
pub struct Ledger {
    layout: Layout,
    key: SigningKey,
    tree: Tree,
    segment: Option<Segment>,
    hashes: File,
    checkpoint: Checkpoint,
    note: String,
    /// Entries under the checkpoint on disk.
    stored: u64,
    places: RefCell<Places>,
    recovered: u64,
    /// Set when the state of a file on disk became unknown.
    failed: Option<PathBuf>,
    /// Held: the lock goes with it.
    lock: File,
}

struct Segment {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// The ledger cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process works with the ledger.
    #[error("{}: another process has the ledger open", dir.display())]
    Locked {
        /// The ledger.
        dir: PathBuf,
    },
    /// The origin cannot stand in a checkpoint.
    #[error("the origin of a ledger: {0}")]
    Origin(NoteError),
    /// The signed checkpoint is damaged, forged, or of another ledger or key.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// There are entries, and nothing that signs them.
    #[error("{}: the signed checkpoint is missing although there are entries; restore it, or keep the directory as evidence and start a new ledger", path.display())]
    NoCheckpoint {
        /// Where it should be.
        path: PathBuf,
    },
    /// The entries are not the signed ones.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The entry may not be logged: the caller's mistake.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// There is no such entry, or it is not under a checkpoint yet.
    #[error("entry {index} is not among the {size} entries of the checkpoint: flush first")]
    OutOfRange {
        /// The index, or the size asked for.
        index: u64,
        /// Entries there are.
        size: u64,
    },
    /// Only the hash of the entry is left.
    #[error("the time of entry {index} was up: only its hash is left")]
    Pruned {
        /// The index.
        index: u64,
    },
    /// The hash file was changed while the ledger was open.
    #[error("{}: changed by another hand since the ledger was opened: restart to check the entries", path.display())]
    Hashes {
        /// The hash file.
        path: PathBuf,
    },
    /// The checkpoint kept elsewhere is not one of this ledger.
    #[error("the checkpoint kept elsewhere: {0}")]
    Earlier(CheckpointError),
    /// The ledger has another history than the one kept elsewhere.
    #[error("the ledger does not continue the checkpoint kept elsewhere: {0}")]
    Fork(ProofError),
    /// An earlier failure left the ledger in an unknown state.
    #[error("{}: an earlier write failed, so that its state on disk is unknown: recover the ledger, or open it anew", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

impl Ledger {
    /// Opens the ledger in `dir`, or begins one if the directory is absent or empty.
    ///
    /// Checks every entry against the last checkpoint, then takes over whole entries that a crash
    /// left behind it, cuts off what is no entry, and signs the result.
    ///
    /// # Errors
    /// [`LedgerError`]; history that was signed and does not verify is never repaired.
    pub fn open(dir: &Path, origin: &str, key: SigningKey) -> Result<Self, LedgerError> {
        let layout = Layout::new(dir);
        let lock = prepare(&layout)?;
        Self::load(layout, origin, key, lock)
    }

    fn load(
        layout: Layout,
        origin: &str,
        key: SigningKey,
        lock: File,
    ) -> Result<Self, LedgerError> {
        let (checkpoint, note) = load_checkpoint(&layout, origin, &key)?;
        let mut lines = Lines::open(&layout)?;
        let mut known = KnownHashes::open(&layout)?;
        let mut tree = replay(&layout, &mut lines, &mut known, &[&checkpoint], &mut |_| Ok(()))?;
        let bytes = adopt(&layout, &mut lines, &mut known, &mut tree)?;
        drop(lines);
        let hashes = hash_file(&layout, &tree, &known)?;
        let segment = current_segment(&layout, tree.size(), bytes)?;
        let recovered = tree.size() - checkpoint.size;
        let stored = checkpoint.size;
        let mut ledger = Self {
            layout,
            key,
            tree,
            segment,
            hashes,
            checkpoint,
            note,
            stored,
            places: RefCell::default(),
            recovered,
            failed: None,
            lock,
        };
        ledger.flush()?;
        Ok(ledger)
    }

    /// Adds an entry and returns its index. It is not durable before [`Ledger::sync`]; only every
    /// [`SEGMENT_ENTRIES`]th call waits for the disk.
    ///
    /// # Errors
    /// [`LedgerError`]; the entry is not in the ledger then.
    pub fn append(&mut self, entry: &Entry) -> Result<u64, LedgerError> {
        self.append_all(std::slice::from_ref(entry))
    }

    /// Adds entries, as [`append`](Self::append) does one, and returns the index of the first.
    ///
    /// # Errors
    /// [`LedgerError`]; [`len`](Self::len) says how many of them are in the ledger. None is if one may
    /// not be logged.
    pub fn append_all(&mut self, entries: &[Entry]) -> Result<u64, LedgerError> {
        self.usable()?;
        let mut text = Vec::with_capacity(entries.len() * USUAL_ENTRY_BYTES);
        let mut ends = Vec::with_capacity(entries.len());
        for entry in entries {
            entry.write_line(&mut text)?;
            text.push(b'\n');
            ends.push(text.len());
        }
        let first = self.tree.size();
        let (mut begin, mut left) = (0, ends.as_slice());
        while !left.is_empty() {
            let index = self.tree.size();
            if index.is_multiple_of(SEGMENT_ENTRIES) {
                self.begin_segment(index / SEGMENT_ENTRIES)?;
            }
            let room = SEGMENT_ENTRIES - index % SEGMENT_ENTRIES;
            let (some, rest) = left.split_at(left.len().min(room as usize));
            self.write(&text[begin..some.last().copied().unwrap_or(begin)])?;
            let mut leaves = self.tree.tail().to_vec();
            let place = index - leaves.len() as u64;
            for end in some {
                let leaf = leaf_hash(&text[begin..end - 1]);
                self.tree.push(leaf);
                leaves.push(leaf);
                begin = *end;
            }
            let complete = leaves.len() - leaves.len() % TILE as usize;
            self.write_hashes(place, &leaves[..complete])?;
            left = rest;
        }
        Ok(first)
    }

    /// Makes every entry durable and signs a checkpoint over all of them, which is on the disk with
    /// the next [`flush`](Self::flush): one sync. Until then, the next start takes the entries over
    /// and signs them anew; whoever could change files meanwhile could change these.
    ///
    /// # Errors
    /// [`LedgerError`]; whether the entries are durable is unknown then, and the ledger must be
    /// opened anew.
    pub fn sync(&mut self) -> Result<(), LedgerError> {
        self.usable()?;
        if self.tree.size() == self.checkpoint.size {
            return Ok(());
        }
        self.sync_segment()?;
        let origin = self.checkpoint.origin.clone();
        let checkpoint = Checkpoint { origin, size: self.tree.size(), root: self.tree.root() };
        let note = checkpoint.sign(&self.key).map_err(LedgerError::Origin)?;
        (self.checkpoint, self.note) = (checkpoint, note);
        Ok(())
    }

    /// Makes every entry durable and puts a signed checkpoint over all of them in place. Does
    /// nothing when nothing was appended.
    ///
    /// # Errors
    /// [`LedgerError`]; whether the entries are durable is unknown then, and the ledger must be
    /// opened anew.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        self.sync()?;
        if self.stored == self.checkpoint.size {
            return Ok(());
        }
        self.write_tail()?;
        let replaced = replace(&self.layout.checkpoint(), self.note.as_bytes());
        self.or_fail(replaced)?;
        self.stored = self.checkpoint.size;
        Ok(())
    }

    /// Opens the ledger anew, in place, if an earlier failure left it unusable; otherwise does
    /// nothing. Entries that were appended and not flushed are written once more: what the kernel
    /// still shows of them after a failed sync may not be on the disk.
    ///
    /// Returns how many entries are lost: those behind the first that can no longer be read.
    ///
    /// # Errors
    /// [`LedgerError`]; the disk still fails, and so does the ledger. Call it again later.
    pub fn recover(&mut self) -> Result<u64, LedgerError> {
        if self.failed.is_none() {
            return Ok(0);
        }
        let (origin, layout) = (self.checkpoint.origin.clone(), self.layout.clone());
        let (signed, _) = load_checkpoint(&layout, &origin, &self.key)?;
        let all = self.tree.size();
        let unsigned: Vec<Entry> = Entries::new(&layout, signed.size.min(all), all)?
            .map_while(|entry| entry.ok().map(|(_, entry)| entry))
            .collect();
        cut_behind(&layout, signed.size)?;
        let lock = self.lock.try_clone().map_err(io("keep the lock of", layout.dir()))?;
        let pkcs8 = self.key.pkcs8();
        let key = SigningKey::from_pkcs8(pkcs8.expose()).expect("it was a key before");
        *self = Self::load(layout, &origin, key, lock)?;
        for entry in &unsigned {
            self.append(entry)?;
        }
        self.flush()?;
        Ok(all.saturating_sub(self.tree.size()))
    }

    /// Takes away the text of every signed entry that is older than `before` says for its kind; its
    /// hash stays in its place, so that checkpoints and proofs hold as they did. Durable. Returns how
    /// many were pruned. What a flash controller keeps of the old file is pseudonymous, and nothing
    /// once the person's salt is gone.
    ///
    /// # Errors
    /// [`LedgerError`]; some segments may be done.
    pub fn prune(&mut self, before: impl Fn(EntryKind) -> Timestamp) -> Result<u64, LedgerError> {
        self.flush()?;
        let mut pruned = 0;
        for number in 0..self.checkpoint.size.div_ceil(SEGMENT_ENTRIES) {
            pruned += self.prune_segment(number, &before)?;
        }
        Ok(pruned)
    }

    fn prune_segment(
        &mut self,
        number: u64,
        before: &impl Fn(EntryKind) -> Timestamp,
    ) -> Result<u64, LedgerError> {
        let mut lines = Lines::open(&self.layout)?;
        lines.skip_to(number * SEGMENT_ENTRIES)?;
        let left = self.checkpoint.size - number * SEGMENT_ENTRIES;
        let (mut text, mut pruned) = (Vec::new(), 0);
        for _ in 0..left.min(SEGMENT_ENTRIES) {
            let Some(Line::Whole(line)) = lines.next()? else {
                let missing = HistoryError::missing(lines.location(), self.checkpoint.size);
                return Err(missing.into());
            };
            let old = |entry: Entry| entry.at < before(entry.kind);
            if leaf_in(line).is_none() && Entry::parse(line).is_ok_and(old) {
                text.push(line_of(&leaf_hash(line)));
                pruned += 1;
            } else {
                text.push(line.to_vec());
            }
        }
        if pruned == 0 {
            return Ok(0);
        }
        let replaced = replace_segment(&self.layout, number, &text);
        let bytes = self.or_fail(replaced)?;
        *self.places.borrow_mut() = Places::default();
        if number == (self.tree.size() - 1) / SEGMENT_ENTRIES {
            self.segment = current_segment(&self.layout, self.tree.size(), bytes)?;
        }
        Ok(pruned)
    }

    /// The last entry of a kind with this commitment and its index: tells whether an erasure that a
    /// crash interrupted is logged already. Reads from the end.
    ///
    /// # Errors
    /// [`LedgerError`] when the files cannot be read.
    pub fn find(
        &self,
        kind: EntryKind,
        commitment: &Hash,
    ) -> Result<Option<(u64, Entry)>, LedgerError> {
        let mut end = self.tree.size();
        while end > 0 {
            let start = (end - 1) / SEGMENT_ENTRIES * SEGMENT_ENTRIES;
            let mut found = None;
            for entry in self.entries(start..end)? {
                let (index, entry) = entry?;
                if entry.kind == kind && entry.commitment == *commitment {
                    found = Some((index, entry));
                }
            }
            if found.is_some() {
                return Ok(found);
            }
            end = start;
        }
        Ok(None)
    }

    /// Checks that this ledger continues the one that `earlier`, a checkpoint kept elsewhere, was
    /// signed for: that its directory was not rolled back or exchanged since.
    ///
    /// # Errors
    /// [`LedgerError::Earlier`] when the note is not of this ledger, and [`LedgerError::History`]
    /// or [`LedgerError::Fork`] when it is and the ledger does not continue it.
    pub fn continues(&self, earlier: &str) -> Result<(), LedgerError> {
        let held = Checkpoint::verify_of(&self.checkpoint.origin, earlier, &self.key.public())
            .map_err(LedgerError::Earlier)?;
        let found = self.tree.size();
        if held.size > found {
            return Err(HistoryError::RolledBack { held: held.size, found }.into());
        }
        let proof = self.consistency(held.size, found)?;
        proof.verify((held.size, &held.root), (found, &self.tree.root())).map_err(LedgerError::Fork)
    }

    /// Entries, flushed or not.
    pub const fn len(&self) -> u64 {
        self.tree.size()
    }

    /// Whether nothing was ever appended.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries behind the last checkpoint that [`Ledger::open`] took over after a crash.
    pub const fn recovered(&self) -> u64 {
        self.recovered
    }

    /// The last checkpoint: a signed note over durable entries.
    pub fn checkpoint(&self) -> &str {
        &self.note
    }

    /// Entries under the last checkpoint.
    pub const fn signed_len(&self) -> u64 {
        self.checkpoint.size
    }

    /// Shows that entry `index` stands in the tree of the first `size` entries.
    ///
    /// # Errors
    /// [`LedgerError`] when there are not so many entries, or the hash file is damaged.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<InclusionProof, LedgerError> {
        within(size, self.tree.size())?;
        within(index.saturating_add(1), size)?;
        Ok(self.tree.inclusion(index, size, &mut self.tiles())?.1)
    }

    /// Shows that the tree of the first `from` entries is the beginning of that of the first `to`.
    ///
    /// # Errors
    /// [`LedgerError`] when there are not so many entries, or the hash file is damaged.
    pub fn consistency(&self, from: u64, to: u64) -> Result<ConsistencyProof, LedgerError> {
        within(to, self.tree.size())?;
        within(from, to)?;
        self.tree.consistency(from, to, &mut self.tiles())
    }

    /// Entry `index` with everything needed to check it offline against the log's key.
    ///
    /// # Errors
    /// [`LedgerError`] when the entry is not under the checkpoint, or a file is damaged.
    pub fn evidence(&self, index: u64) -> Result<Evidence, LedgerError> {
        let size = self.checkpoint.size;
        within(index.saturating_add(1), size)?;
        let (leaf, proof) = self.tree.inclusion(index, size, &mut self.tiles())?;
        let line = self.places.borrow_mut().line(&self.layout, index, size)?;
        if leaf_in(&line).is_some() {
            return Err(LedgerError::Pruned { index });
        }
        // The proof is made of hashes that lead to the signed root, and so is this one.
        let altered = || HistoryError::altered(place_of(&self.layout, index), size);
        if leaf_hash(&line) != leaf {
            return Err(altered().into());
        }
        let entry = String::from_utf8(line).map_err(|_| altered())?;
        Ok(Evidence { entry, proof, checkpoint: self.note.clone() })
    }

    /// The entries of a range with their indices, flushed or not.
    ///
    /// # Errors
    /// [`LedgerError`] when there are not so many entries or the files cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Entries, LedgerError> {
        within(range.end, self.tree.size())?;
        Entries::new(&self.layout, range.start, range.end)
    }

    fn usable(&self) -> Result<(), LedgerError> {
        match &self.failed {
            None => Ok(()),
            Some(path) => Err(LedgerError::Failed { path: path.clone() }),
        }
    }

    /// Passes a result on; after an error here nobody knows what is on the disk, and the kernel
    /// may report a failed write only once.
    fn or_fail<T>(&mut self, result: Result<T, FileError>) -> Result<T, LedgerError> {
        Ok(result.inspect_err(|error| self.failed = Some(error.path.clone()))?)
    }

    fn sync_segment(&mut self) -> Result<(), LedgerError> {
        let Some(segment) = &self.segment else { return Ok(()) };
        let synced = segment.file.sync_data().map_err(io("make durable", &segment.path));
        self.or_fail(synced)
    }

    /// The full segment is made durable first, so that only the last one can be torn by a crash.
    fn begin_segment(&mut self, number: u64) -> Result<(), LedgerError> {
        self.sync_segment()?;
        let path = self.layout.segment(number);
        let mut options = OpenOptions::new();
        // What an append that failed left here was never acknowledged.
        let file = options.write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(io("create", &path))?;
        let synced = sync_dir(&self.layout.entries());
        self.or_fail(synced)?;
        self.segment = Some(Segment { path, file, bytes: 0 });
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> Result<(), LedgerError> {
        let segment = self.segment.as_mut().expect("the first append began a segment");
        if let Err(error) = segment.file.write_all_at(line, segment.bytes) {
            // Part of the line may be there; without it the next append would be torn.
            if segment.file.set_len(segment.bytes).is_err() {
                self.failed = Some(segment.path.clone());
            }
            return Err(io("write", &segment.path)(error).into());
        }
        segment.bytes += line.len() as u64;
        Ok(())
    }

    /// Never made durable: what a crash takes of the hash file is computed again.
    fn write_hashes(&mut self, index: u64, leaves: &[Hash]) -> Result<(), LedgerError> {
        let written = self.hashes.write_all_at(leaves.as_flattened(), index * HASH_BYTES);
        self.or_fail(written.map_err(|error| io("write", &self.layout.hashes())(error)))
    }

    fn write_tail(&mut self) -> Result<(), LedgerError> {
        let tail = self.tree.tail().to_vec();
        self.write_hashes(self.tree.size() - tail.len() as u64, &tail)
    }

    /// Reads complete tiles from the hash file, checked.
    fn tiles(&self) -> impl FnMut(u64) -> Result<Tile, LedgerError> {
        |number| {
            let mut leaves = [Hash::default(); TILE as usize];
            let place = number * TILE * HASH_BYTES;
            let read = self.hashes.read_exact_at(leaves.as_flattened_mut(), place);
            read.map_err(|error| io("read", &self.layout.hashes())(error))?;
            let tile = Tile::new(&leaves);
            if self.tree.tile_root(number) == Some(tile.root()) {
                return Ok(tile);
            }
            Err(LedgerError::Hashes { path: self.layout.hashes() })
        }
    }
}

const fn within(end: u64, size: u64) -> Result<(), LedgerError> {
    if end <= size {
        return Ok(());
    }
    Err(LedgerError::OutOfRange { index: end.saturating_sub(1), size })
}

/// Makes the directories and takes the lock.
fn prepare(layout: &Layout) -> Result<File, LedgerError> {
    let entries = layout.entries();
    fs::create_dir_all(&entries).map_err(io("create", &entries))?;
    let path = layout.lock();
    let lock = File::create(&path).map_err(io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { dir: layout.dir().into() }),
        Err(TryLockError::Error(error)) => Err(io("lock", &path)(error).into()),
    }
}

/// Removes everything behind the first `size` entries.
fn cut_behind(layout: &Layout, size: u64) -> Result<(), LedgerError> {
    let mut lines = Lines::open(layout)?;
    lines.skip_to(size)?;
    let (segment, whole) = (size / SEGMENT_ENTRIES, size.is_multiple_of(SEGMENT_ENTRIES));
    for later in segment + u64::from(!whole)..lines.segments() {
        let path = layout.segment(later);
        fs::remove_file(&path).map_err(io("remove", &path))?;
    }
    if !whole {
        let path = layout.segment(segment);
        let file = OpenOptions::new().write(true).open(&path);
        let cut = file.and_then(|file| file.set_len(lines.end()).and_then(|()| file.sync_all()));
        cut.map_err(io("cut off", &path))?;
    }
    Ok(sync_dir(&layout.entries())?)
}

/// A new ledger gets its first checkpoint, over nothing, before its first entry: from then on, a
/// missing checkpoint is never an accident of a crash.
fn load_checkpoint(
    layout: &Layout,
    origin: &str,
    key: &SigningKey,
) -> Result<(Checkpoint, String), LedgerError> {
    let path = layout.checkpoint();
    if let Some(note) = read(&path, MAX_NOTE_BYTES as u64 + 1)? {
        return match Checkpoint::verify_of(origin, &note, &key.public()) {
            Ok(checkpoint) => Ok((checkpoint, note)),
            Err(source) => Err(LedgerError::Checkpoint { path, source }),
        };
    }
    if Lines::open(layout)?.segments() > 0 {
        return Err(LedgerError::NoCheckpoint { path });
    }
    let root = Tree::default().root();
    let checkpoint = Checkpoint { origin: origin.into(), size: 0, root };
    let note = checkpoint.sign(key).map_err(LedgerError::Origin)?;
    replace(&path, note.as_bytes())?;
    sync_dir(parent(layout.dir()))?;
    Ok((checkpoint, note))
}

/// Takes over the entries behind the checkpoint up to the first line that is none, and cuts off the
/// rest: it was never acknowledged. Returns the bytes of the last segment.
fn adopt(
    layout: &Layout,
    lines: &mut Lines,
    known: &mut KnownHashes,
    tree: &mut Tree,
) -> Result<u64, LedgerError> {
    loop {
        let leaf = match lines.next()? {
            Some(Line::Whole(line)) if Entry::parse(line).is_ok() => leaf_hash(line),
            Some(_) => break,
            None => return Ok(lines.end()),
        };
        known.agrees(&leaf);
        tree.push(leaf);
    }
    let (segment, bytes) = (lines.current_segment(), lines.start());
    for later in segment + 1..lines.segments() {
        let path = layout.segment(later);
        fs::remove_file(&path).map_err(io("remove", &path))?;
    }
    let path = layout.segment(segment);
    let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
        file.set_len(bytes)?;
        file.sync_all()
    });
    cut.map_err(io("cut off", &path))?;
    sync_dir(&layout.entries())?;
    Ok(bytes)
}

fn current_segment(layout: &Layout, size: u64, bytes: u64) -> Result<Option<Segment>, LedgerError> {
    if size == 0 {
        return Ok(None);
    }
    let path = layout.segment((size - 1) / SEGMENT_ENTRIES);
    let file = OpenOptions::new().write(true).open(&path).map_err(io("open", &path))?;
    Ok(Some(Segment { path, file, bytes }))
}

/// Opens the hash file, written anew from the entries when it lacks what proofs need.
fn hash_file(layout: &Layout, tree: &Tree, known: &KnownHashes) -> Result<File, LedgerError> {
    let path = layout.hashes();
    let complete = tree.size() - tree.size() % TILE;
    if known.damaged_from.is_some_and(|from| from < complete) {
        rewrite_hashes(layout, complete)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(io("open", &path))?;
    // Hashes of entries that a crash took away.
    file.set_len(tree.size() * HASH_BYTES).map_err(io("cut off", &path))?;
    Ok(file)
}

fn rewrite_hashes(layout: &Layout, count: u64) -> Result<(), LedgerError> {
    let (path, draft) = (layout.hashes(), layout.hashes().with_extension("new"));
    let mut file = BufWriter::new(File::create(&draft).map_err(io("create", &draft))?);
    let mut lines = Lines::open(layout)?;
    for _ in 0..count {
        let Some(Line::Whole(line)) = lines.next()? else { break };
        file.write_all(&leaf_of(line)).map_err(io("write", &draft))?;
    }
    let file = file.into_inner().map_err(|error| io("write", &draft)(error.into_error()))?;
    file.sync_all().map_err(io("make durable", &draft))?;
    fs::rename(&draft, &path).map_err(io("put in place", &path))?;
    Ok(sync_dir(layout.dir())?)
}
