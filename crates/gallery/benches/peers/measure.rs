//! Our side of the comparison.

use crate::Result;
use memmap2::{Advice, MmapMut};
use palmgate_gallery::{Plan, RowId, Shard, Vector};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use std::{
    fs::File,
    hint::black_box,
    io::{BufReader, Read},
    path::Path,
    time::Instant,
};

pub(crate) const DIMENSIONS: usize = 512;
/// Probes of enrolled people; as many of strangers follow.
pub(crate) const PROBES: usize = 256;
/// More than any last-level cache that this is likely to run on.
const EVICTED: usize = 96 << 20;
/// Rows that are taken in together, as a decrypted chunk brings them.
const CHUNK: usize = 256;

pub(crate) struct Ours {
    pub(crate) shard: Shard<DIMENSIONS>,
    /// Milliseconds to take in all rows from quantised components: process CPU time, wall clock.
    pub(crate) load_ms: [f64; 2],
    /// Resident bytes that the rows took.
    pub(crate) bytes_a_row: f64,
    /// Huge pages that stand, and out of how many.
    pub(crate) huge_pages: (usize, usize),
    probes: Vec<Vector<DIMENSIONS>>,
    /// As many bytes as the quantised components, to measure the memory with.
    memory: MmapMut,
}

/// The probes, enrolled or not, beside a search of floats.
pub(crate) struct Checked {
    /// Those of which the best row is at or above the threshold.
    pub(crate) above: usize,
    /// Those answered by another row, or by one where there is none, or by none.
    pub(crate) differing: usize,
    /// Those of which the two best rows changed places, no further apart than rounding moves them.
    pub(crate) swapped: usize,
}

/// Rounding to 8 bits moves a cosine by less than this.
const ROUNDING: f32 = 0.003;

#[derive(Deserialize)]
struct Truth {
    rows: Vec<u64>,
    cosines: Vec<f32>,
}

impl Ours {
    pub(crate) fn load(folder: &Path, n: usize) -> Result<Self> {
        let mut rows: Vec<[i8; DIMENSIONS]> = Vec::with_capacity(n);
        let quantised = |vector: &[f32]| {
            let largest = vector.iter().fold(0_f32, |largest, each| largest.max(each.abs()));
            std::array::from_fn(|i| (vector[i] / largest * 127.0).round() as i8)
        };
        each_vector(&folder.join("rows.f32"), |vector| rows.push(quantised(vector)))?;
        let mut probes = Vec::new();
        each_vector(&folder.join("probes.f32"), |vector| {
            probes.extend(Vector::from_floats(vector).ok());
        })?;
        let before = resident()?;
        let (cpu, wall) = (cpu_ms(), Instant::now());
        let shard = Shard::new(n);
        for (number, chunk) in (0..).zip(rows.chunks(CHUNK)) {
            let vectors = chunk.iter().map(Vector::from_components);
            let vectors = vectors.collect::<std::result::Result<Vec<_>, _>>()?;
            let numbers = (number * CHUNK as u64..).map(RowId);
            let rows: Vec<_> = numbers.zip(&vectors).map(|(row, each)| (row, each, &())).collect();
            shard.insert_all(&rows)?;
        }
        let load_ms = [cpu_ms() - cpu, wall.elapsed().as_secs_f64() * 1e3];
        let bytes_a_row = (resident()? - before) / n as f64;
        drop(rows);
        let huge_pages = shard.collapse_pages();
        Ok(Self {
            shard,
            load_ms,
            bytes_a_row,
            huge_pages,
            probes,
            memory: memory(n * DIMENSIONS)?,
        })
    }

    pub(crate) fn above(&self, first: usize, batch: usize, plan: &Plan) {
        let _ = black_box(self.shard.above(&self.some(first, batch), plan, 2));
    }

    pub(crate) fn nearest(&self, first: usize, batch: usize) {
        let _ = black_box(self.shard.nearest(&self.some(first, batch), 2));
    }

    fn some(&self, first: usize, batch: usize) -> Vec<&Vector<DIMENSIONS>> {
        self.probes[first..first + batch].iter().collect()
    }

    /// Milliseconds to read as many bytes as the quantised components.
    pub(crate) fn stream(&self, times: usize) -> f64 {
        hot(times, |_| {
            black_box(read(&self.memory));
        })
    }

    /// Every probe, enrolled or stranger, against the peers' float search.
    pub(crate) fn check(&self, folder: &Path, threshold: f32, budget: f64) -> Result<Checked> {
        let truth: Truth = serde_json::from_reader(File::open(folder.join("truth.json"))?)?;
        let plan = self.shard.plan(threshold, budget)?;
        let found = self.shard.above(&self.probes.iter().collect::<Vec<_>>(), &plan, 1)?;
        let mut checked = Checked { above: 0, differing: 0, swapped: 0 };
        for ((hits, row), cosine) in found.iter().zip(truth.rows).zip(truth.cosines) {
            let best = hits.first();
            if cosine >= threshold + ROUNDING {
                checked.above += 1;
                let near = best.is_some_and(|hit| (hit.cosine - cosine).abs() < 2.0 * ROUNDING);
                let same = best.is_some_and(|hit| hit.row == RowId(row));
                checked.swapped += usize::from(near && !same);
                checked.differing += usize::from(!near);
            } else if cosine < threshold - ROUNDING {
                checked.differing += usize::from(best.is_some());
            }
        }
        Ok(checked)
    }

    /// Searches a second of two threads over those of one: each thread makes searches of its own.
    pub(crate) fn two_threads(&self, plan: &Plan) -> f64 {
        let searches = (100_000_000 / self.shard.len()).max(40);
        two_over_one(&|| (0..searches).for_each(|i| self.above(i % PROBES, 1, plan)))
    }

    /// The same for a plain read of as many bytes as the quantised components.
    pub(crate) fn two_readers(&self) -> f64 {
        let times = (4 << 30) / self.memory.len().max(1 << 22);
        two_over_one(&|| (0..times).for_each(|_| _ = black_box(read(black_box(&self.memory)))))
    }
}

/// Work done a second by two threads over that of one, by the clock on the wall.
fn two_over_one(work: &(dyn Fn() + Sync)) -> f64 {
    let pair = || {
        let start = Instant::now();
        work();
        let one = start.elapsed();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        2.0 * one.as_secs_f64() / start.elapsed().as_secs_f64()
    };
    work();
    median(&(0..7).map(|_| pair()).collect::<Vec<_>>())
}

/// Milliseconds of process CPU time a search, after one that fills the caches.
pub(crate) fn hot(times: usize, search: impl Fn(usize)) -> f64 {
    search(0);
    let start = cpu_ms();
    (0..times).for_each(search);
    (cpu_ms() - start) / times as f64
}

/// The same with the caches full of something else.
pub(crate) fn cold(search: impl Fn()) -> f64 {
    static OTHER: std::sync::OnceLock<Option<MmapMut>> = std::sync::OnceLock::new();
    black_box(OTHER.get_or_init(|| memory(EVICTED).ok()).as_deref().map(read));
    let start = cpu_ms();
    search();
    cpu_ms() - start
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn milliseconds(value: f64) -> String {
    format!("{value:>10.4}")
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Resident bytes of this process.
fn resident() -> Result<f64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = pages.split_whitespace().nth(1).ok_or("statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64)
}

/// Written once, in huge pages where they are granted.
fn memory(len: usize) -> Result<MmapMut> {
    let mut memory = MmapMut::map_anon(len)?;
    memory.advise(Advice::HugePage)?;
    memory.fill(1);
    Ok(memory)
}

fn read(bytes: &[u8]) -> u64 {
    let (lines, _) = bytes.as_chunks::<64>();
    let mut sums = [0_u64; 8];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

fn each_vector(path: &Path, mut then: impl FnMut(&[f32])) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut bytes = [0; DIMENSIONS * 4];
    while file.read_exact(&mut bytes).is_ok() {
        let vector: [f32; DIMENSIONS] =
            std::array::from_fn(|i| f32::from_ne_bytes(bytes.as_chunks::<4>().0[i]));
        then(&vector);
    }
    Ok(())
}
