use crate::{
    Hit, Shard,
    chunk::{self, Chunk},
    kernel::{self, Level, signs::Near},
    plan::{Cuts, Plan},
    rank::Best,
    shard::Locked,
    sync::{Arc, read},
    vector::Vector,
};
use bytemuck::Pod;

/// Rows that are worked on under one hold of a lock, for all probes: little enough to stay in the
/// second cache meanwhile.
const TILE: usize = if cfg!(any(loom, miri)) { 8 } else { 512 };
/// The same for signs.
const SIGNS_TILE: usize = if cfg!(any(loom, miri)) { 8 } else { 1024 };
/// Rows that are compared in full at a time. Every search fills its last group up, so that its
/// time does not tell how many came through the cuts.
const RESCORED: usize = 32;
/// Below every threshold.
const BEHIND_ALL: f32 = -2.0;

/// There was nothing to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The shard has no row, so that nobody was found says nothing about the probe.
    #[error("the gallery is empty: enrol somebody, or wait until it is loaded")]
    Empty,
}

impl<const D: usize, P: Pod> Shard<D, P> {
    /// The `limit` rows with the largest cosines for each of the probes, best first, equal ones by
    /// row number: every row is compared with every probe, in one pass over memory.
    ///
    /// # Errors
    /// [`SearchError::Empty`].
    pub fn nearest(
        &self,
        probes: &[&Vector<D>],
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>, SearchError> {
        let chunks = self.chunks_with_rows()?;
        let level = Level::best();
        let mut best: Vec<Best> = probes.iter().map(|_| Best::of(limit)).collect();
        let mut products = [0; TILE];
        for (number, chunk) in chunks.iter().enumerate() {
            for start in (0..chunk::ROWS).step_by(TILE) {
                let chunk = read(chunk);
                let rows = start..chunk.used().min(start + TILE);
                if rows.is_empty() {
                    break;
                }
                let (vectors, norms) =
                    (chunk.vectors(rows.clone()), chunk.inverse_norms(rows.clone()));
                for (probe, best) in probes.iter().zip(&mut best) {
                    kernel::dot::rows(level, &probe.components, vectors, &mut products);
                    let mut bar = best.bar();
                    for (place, (product, norm)) in rows.clone().zip(products.iter().zip(norms)) {
                        let cosine = *product as f32 * norm;
                        if cosine >= bar
                            && let Some(hit) = hit(&chunk, number, place, cosine)
                        {
                            best.offer(hit);
                            bar = best.bar();
                        }
                    }
                }
            }
        }
        Ok(probes.iter().zip(best).map(|(probe, best)| scaled(best, probe)).collect())
    }

    /// The rows whose cosine is at least the plan's threshold for each of the probes, best first
    /// and `limit` of them at most: the answer of [`Shard::nearest`] but for the plan's
    /// [`Plan::miss_bound`], in one pass over the signs of the components.
    ///
    /// # Errors
    /// [`SearchError::Empty`].
    pub fn above(
        &self,
        probes: &[&Vector<D>],
        plan: &Plan,
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>, SearchError> {
        let Some(cuts) = plan.cuts else { return self.all_above(probes, plan, limit) };
        let chunks = self.chunks_with_rows()?;
        let survivors = match D {
            256 => survivors::<D, P, 2>(&chunks, probes, &cuts),
            512 => survivors::<D, P, 4>(&chunks, probes, &cuts),
            _ => survivors::<D, P, 8>(&chunks, probes, &cuts),
        };
        let rescored = |(probe, rows): (&&Vector<D>, &Option<Vec<u32>>)| {
            let Some(rows) = rows else {
                return Ok(self.all_above(&[probe], plan, limit)?.remove(0));
            };
            Ok(above_threshold(scaled(rescore(&chunks, probe, rows, limit), probe), plan))
        };
        probes.iter().zip(&survivors).map(rescored).collect()
    }

    fn all_above(
        &self,
        probes: &[&Vector<D>],
        plan: &Plan,
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>, SearchError> {
        let found = self.nearest(probes, limit)?;
        Ok(found.into_iter().map(|hits| above_threshold(hits, plan)).collect())
    }

    fn chunks_with_rows(&self) -> Result<Vec<Arc<Locked<D, P>>>, SearchError> {
        let chunks = self.chunks();
        let empty = chunks.is_empty() || self.is_empty();
        if empty { Err(SearchError::Empty) } else { Ok(chunks) }
    }
}

/// For each probe the positions of the rows that differ in no more signs than the cuts allow;
/// `None` when so many rows were near that a scan of everything is cheaper.
fn survivors<const D: usize, P: Pod, const W: usize>(
    chunks: &[Arc<Locked<D, P>>],
    probes: &[&Vector<D>],
    cuts: &Cuts,
) -> Vec<Option<Vec<u32>>> {
    let level = Level::best();
    let mut survivors: Vec<Survivors> = probes.iter().map(|_| Survivors::new()).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        for start in (0..chunk::ROWS).step_by(SIGNS_TILE) {
            let chunk = read(chunk);
            let rows = start..chunk.used().min(start + SIGNS_TILE);
            if rows.is_empty() {
                break;
            }
            let firsts = chunk.firsts(rows);
            let (seconds, _) = chunk.seconds().as_chunks::<W>();
            for (probe, survivors) in probes.iter().zip(&mut survivors) {
                let near = &mut survivors.near;
                kernel::signs::near::<W>(
                    level,
                    half(probe, 0),
                    firsts,
                    cuts.first,
                    start as u32,
                    near,
                );
                kernel::signs::fetch(seconds, near);
                survivors.keep_fetched::<W>(level, half(probe, 1), seconds, cuts, number);
                std::mem::swap(&mut survivors.near, &mut survivors.fetched);
            }
        }
        let chunk = read(chunk);
        let (seconds, _) = chunk.seconds().as_chunks::<W>();
        for (probe, survivors) in probes.iter().zip(&mut survivors) {
            survivors.keep_fetched::<W>(level, half(probe, 1), seconds, cuts, number);
        }
    }
    let chunk = read(&chunks[0]);
    let (seconds, _) = chunk.seconds().as_chunks::<W>();
    for (probe, survivors) in probes.iter().zip(&mut survivors) {
        let missing = cuts.quota.saturating_sub(survivors.examined);
        // As scattered as rows that are near, because what stands together is read faster.
        let fillers = (0..chunk.used()).step_by(61).cycle().take(missing).map(Near::filler);
        survivors.fetched.extend(fillers);
        kernel::signs::fetch(seconds, &survivors.fetched);
        survivors.keep_fetched::<W>(level, half(probe, 1), seconds, cuts, 0);
    }
    let few = |each: Survivors| (each.examined <= cuts.limit).then_some(each.rows);
    survivors.into_iter().map(few).collect()
}

struct Survivors {
    near: Vec<Near>,
    /// What was near in the tile before: its second halves come from memory while this one is
    /// scanned.
    fetched: Vec<Near>,
    rows: Vec<u32>,
    /// Rows whose second half was looked at.
    examined: usize,
}

impl Survivors {
    /// Takes all memory at once, so that the time does not tell whether there was a row to keep.
    fn new() -> Self {
        Self {
            near: Vec::with_capacity(SIGNS_TILE + 16),
            fetched: Vec::with_capacity(SIGNS_TILE + 16),
            rows: Vec::with_capacity(RESCORED),
            examined: 0,
        }
    }

    fn keep_fetched<const W: usize>(
        &mut self,
        level: Level,
        probe: &[u64; W],
        seconds: &[[u64; W]],
        cuts: &Cuts,
        chunk: usize,
    ) {
        self.examined += self.fetched.len();
        if self.examined <= cuts.limit {
            kernel::signs::keep(level, probe, seconds, cuts.both, &mut self.fetched);
            let position = |near: &Near| (chunk * chunk::ROWS + near.row()) as u32;
            self.rows.extend(self.fetched.iter().map(position));
        }
        self.fetched.clear();
    }
}

fn half<const D: usize, const W: usize>(vector: &Vector<D>, half: usize) -> &[u64; W] {
    vector.signs[half].first_chunk().expect("no half is longer than the longest")
}

/// The best of some rows by all of their components.
fn rescore<const D: usize, P: Pod>(
    chunks: &[Arc<Locked<D, P>>],
    probe: &Vector<D>,
    positions: &[u32],
    limit: usize,
) -> Best {
    let level = Level::best();
    let mut best = Best::of(limit);
    // Fillers are one row, the first, or any for a probe without one, so that a match brings no
    // more rows from memory than a stranger does. They are ranked behind every row and fall off at
    // the threshold.
    let any = probe.signs[0][0] as usize % read(&chunks[0]).used();
    let filler = positions.first().copied().unwrap_or(any as u32);
    let fillers = positions.len().max(1).next_multiple_of(RESCORED) - positions.len();
    for (i, position) in positions.iter().chain(std::iter::repeat_n(&filler, fillers)).enumerate() {
        let (number, place) = (*position as usize / chunk::ROWS, *position as usize % chunk::ROWS);
        let chunk = read(&chunks[number]);
        let mut product = [0];
        let row = place..place + 1;
        kernel::dot::rows(level, &probe.components, chunk.vectors(row.clone()), &mut product);
        let cosine = product[0] as f32 * chunk.inverse_norms(row)[0];
        let cosine = if i < positions.len() { cosine } else { BEHIND_ALL };
        if let Some(hit) = hit(&chunk, number, place, cosine) {
            best.offer(hit);
        }
    }
    best
}

fn hit<const D: usize, P: Pod>(
    chunk: &Chunk<D, P>,
    number: usize,
    place: usize,
    cosine: f32,
) -> Option<Hit> {
    let (row, generation) = chunk.row(place)?;
    Some(Hit { row, cosine, position: (number * chunk::ROWS + place) as u32, generation })
}

/// Ranked by cosine times the probe's length, which orders alike; the length comes off here.
fn scaled<const D: usize>(best: Best, probe: &Vector<D>) -> Vec<Hit> {
    let mut hits = best.into_sorted();
    for hit in &mut hits {
        hit.cosine *= probe.inverse_norm;
    }
    hits
}

fn above_threshold(mut hits: Vec<Hit>, plan: &Plan) -> Vec<Hit> {
    hits.retain(|hit| hit.cosine >= plan.threshold);
    hits
}
