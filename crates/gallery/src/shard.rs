use crate::{
    Hit, RowId,
    chunk::{self, Chunk},
    plan::{Plan, PlanError},
    sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, RwLock, lock, read, write},
    vector::Vector,
};
use bytemuck::Pod;
use std::collections::{HashMap, hash_map::Entry};

/// A chunk and its lock. Searches hold it for a few microseconds at a time, writers for one row.
pub(crate) type Locked<const D: usize, P> = RwLock<Chunk<D, P>>;

/// Vectors of `D` dimensions, each with a row number and a payload of plain bytes, that can be
/// searched while rows come and go.
///
/// Rows never move: a removed one leaves a wiped place that the next new one fills, so no search
/// can miss a row because another moved. A search that begins after a removal, a replacement or a
/// swap has returned does not see what was there before; neither does one that was under way and
/// asks [`Shard::is_current`] at its end.
pub struct Shard<const D: usize, P = ()> {
    capacity: usize,
    chunks: RwLock<Vec<Arc<Locked<D, P>>>>,
    index: Mutex<Index>,
    /// As many as the index has: a search asks here, so as not to wait for a writer.
    rows: AtomicUsize,
    retired: AtomicBool,
}

/// What writers know, and searches do without.
#[derive(Default)]
struct Index {
    positions: HashMap<RowId, u32>,
    free: Vec<u32>,
    next: u32,
}

impl Index {
    /// Gives each row its place: those without a row, the last freed first, then those behind all.
    fn add(&mut self, rows: impl Iterator<Item = RowId> + Clone) -> Result<(), ShardError> {
        let free = self.free.iter().rev().copied();
        for (at, (row, position)) in rows.clone().zip(free.chain(self.next..)).enumerate() {
            if let Entry::Vacant(entry) = self.positions.entry(row) {
                entry.insert(position);
            } else {
                for row in rows.take(at) {
                    self.positions.remove(&row);
                }
                return Err(ShardError::Duplicate(row));
            }
        }
        Ok(())
    }
}

/// A row was not taken in; the shard is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The number is taken.
    #[error("row {} is there already: replace it, or remove it first", .0.0)]
    Duplicate(RowId),
    /// The row to be replaced is not there.
    #[error("row {} is not there: insert it", .0.0)]
    Unknown(RowId),
    /// The shard has as many rows as it was made for.
    #[error("full at {0} rows: serve fewer people per store")]
    Full(usize),
    /// The system gave no memory.
    #[error("no memory for more rows: give the machine more, or serve fewer people per store")]
    NoMemory,
    /// Another shard has taken this one's place.
    #[error("this shard was swapped for another one")]
    Retired,
}

impl<const D: usize, P: Pod> Shard<D, P> {
    /// An empty shard for at most `capacity` rows; memory is taken as rows come.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            chunks: RwLock::new(Vec::new()),
            index: Mutex::new(Index::default()),
            rows: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Rows in the shard.
    pub fn len(&self) -> usize {
        self.rows.load(Ordering::SeqCst)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a copy of a row.
    ///
    /// # Errors
    /// [`ShardError`], before anything is touched.
    pub fn insert(&self, row: RowId, vector: &Vector<D>, payload: &P) -> Result<(), ShardError> {
        self.insert_all(&[(row, vector, payload)])
    }

    /// Takes in copies of all `rows` or of none; many together take less time than one by one.
    /// Searches go on meanwhile and find what is written so far; other writers wait.
    ///
    /// # Errors
    /// [`ShardError`], before anything is touched.
    pub fn insert_all(&self, rows: &[(RowId, &Vector<D>, &P)]) -> Result<(), ShardError> {
        let mut index = lock(&self.index);
        if self.is_retired() {
            return Err(ShardError::Retired);
        }
        index.add(rows.iter().map(|each| each.0))?;
        if let Err(error) = self.make_room(&index, rows.len()) {
            for (row, ..) in rows {
                index.positions.remove(row);
            }
            return Err(error);
        }
        let (into_free, mut behind) = rows.split_at(index.free.len().min(rows.len()));
        for row in into_free {
            let position = index.free.pop().expect("so many were free");
            self.put(position, std::slice::from_ref(row))?;
        }
        while !behind.is_empty() {
            let together = chunk::TOGETHER - index.next as usize % chunk::TOGETHER;
            let (rows, rest) = behind.split_at(together.min(behind.len()));
            self.put(index.next, rows)?;
            index.next += rows.len() as u32;
            behind = rest;
        }
        self.rows.store(index.positions.len(), Ordering::SeqCst);
        Ok(())
    }

    /// Overwrites a row.
    ///
    /// # Errors
    /// [`ShardError`], before anything is touched.
    pub fn replace(&self, row: RowId, vector: &Vector<D>, payload: &P) -> Result<(), ShardError> {
        let index = lock(&self.index);
        if self.is_retired() {
            return Err(ShardError::Retired);
        }
        let position = *index.positions.get(&row).ok_or(ShardError::Unknown(row))?;
        self.put(position, &[(row, vector, payload)])
    }

    /// Removes a row and wipes its bytes; `false` when there was none.
    pub fn remove(&self, row: RowId) -> bool {
        let mut index = lock(&self.index);
        let Some(position) = index.positions.remove(&row) else { return false };
        let chunk = self.chunk_for(position).expect("the chunk that the row is in");
        write(&chunk).wipe(position as usize % chunk::ROWS);
        index.free.push(position);
        self.rows.store(index.positions.len(), Ordering::SeqCst);
        true
    }

    /// Wipes every row and takes in no more.
    pub(crate) fn retire(&self) {
        let mut index = lock(&self.index);
        self.retired.store(true, Ordering::SeqCst);
        self.rows.store(0, Ordering::SeqCst);
        for chunk in self.chunks() {
            write(&chunk).wipe_all();
        }
        *index = Index::default();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Whether the row that was found still stands, as it was found.
    pub fn is_current(&self, hit: &Hit) -> bool {
        self.with_payload(hit, |_| ()).is_some()
    }

    /// The payload of the row that was found; `None` when the row is gone or was replaced.
    pub fn with_payload<T>(&self, hit: &Hit, then: impl FnOnce(&P) -> T) -> Option<T> {
        let chunk = read(&self.chunks).get(hit.position as usize / chunk::ROWS)?.clone();
        let chunk = read(&chunk);
        let place = hit.position as usize % chunk::ROWS;
        (chunk.row(place) == Some((hit.row, hit.generation))).then(|| then(chunk.payload(place)))
    }

    /// How to find every row whose cosine is at least `threshold`, with a probability to miss one
    /// of `budget` at most. It stays valid, if not the fastest, when rows come and go.
    ///
    /// # Errors
    /// [`PlanError`] when a number is out of its range.
    pub fn plan(&self, threshold: f32, budget: f64) -> Result<Plan, PlanError> {
        Plan::new(D, self.len(), threshold, budget)
    }

    /// Has the memory that a search streams put together in huge pages now; how many of them
    /// stand, and out of how many. Worth a call after a bulk load. Every search works without.
    pub fn collapse_pages(&self) -> (usize, usize) {
        self.chunks()
            .iter()
            .map(|chunk| read(chunk).collapse())
            .fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
    }

    pub(crate) fn chunks(&self) -> Vec<Arc<Locked<D, P>>> {
        read(&self.chunks).clone()
    }

    /// Makes the chunks that `rows` more rows need. The caller holds the index.
    fn make_room(&self, index: &Index, rows: usize) -> Result<(), ShardError> {
        let end = index.next as usize + rows.saturating_sub(index.free.len());
        if end > self.capacity {
            return Err(ShardError::Full(self.capacity));
        }
        for first in (index.next as usize..end).step_by(chunk::ROWS) {
            self.chunk_for(first as u32)?;
        }
        let last = (index.next as usize..end).last();
        last.map_or(Ok(()), |last| self.chunk_for(last as u32).map(|_| ()))
    }

    /// Writes rows from a position on, none of them in the next chunk. The caller holds the index.
    fn put(&self, position: u32, rows: &[(RowId, &Vector<D>, &P)]) -> Result<(), ShardError> {
        let chunk = self.chunk_for(position)?;
        write(&chunk).put(position as usize % chunk::ROWS, rows);
        Ok(())
    }

    /// The chunk of a position, made when it is the next one. The caller holds the index.
    fn chunk_for(&self, position: u32) -> Result<Arc<Locked<D, P>>, ShardError> {
        let number = position as usize / chunk::ROWS;
        if let Some(chunk) = read(&self.chunks).get(number) {
            return Ok(chunk.clone());
        }
        let chunk = Chunk::new().map_err(|_| ShardError::NoMemory)?;
        let chunk = Arc::new(RwLock::new(chunk));
        write(&self.chunks).push(chunk.clone());
        Ok(chunk)
    }
}
