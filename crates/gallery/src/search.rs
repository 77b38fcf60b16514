use crate::{
    Hit, Shard,
    chunk::{self, Chunk},
    kernel::{
        self, Level,
        signs::{Plane, SPAN, WORDS},
    },
    plan::{Plan, Question, Screen},
    rank::Best,
    shard::Locked,
    sync::{Arc, read},
    vector::Vector,
};
use bytemuck::Pod;

/// Rows that are worked on under one hold of a lock, for all probes: little enough to stay in the
/// second cache meanwhile.
const TILE: usize = if cfg!(any(loom, miri)) { 8 } else { 512 };
/// Spans of signs that are worked on under one hold of a lock, for all probes.
const SPANS: usize = 4;
/// Rows whose components are asked for before the first of them is compared.
const AHEAD: usize = 16;
/// Hits that are ranked in a time that does not depend on how many they are.
const FEW: usize = 8;

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
        let Some(screen) = &plan.screen else { return self.all_above(probes, plan, limit) };
        let chunks = self.chunks_with_rows()?;
        let questions: Vec<_> = probes.iter().map(|probe| screen.question(probe)).collect();
        let found = screened(&chunks, &questions);
        let answer = |(probe, found): (&&Vector<D>, Found)| match found.rows(&chunks, screen, probe)
        {
            Some(rows) => {
                let (hits, len) = rescore(&chunks, probe, plan, &rows);
                Ok(best_of(hits, len, limit))
            }
            None => Ok(self.all_above(&[probe], plan, limit)?.remove(0)),
        };
        probes.iter().zip(found).map(answer).collect()
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

/// For each question the rows that differ in no more signs than it allows.
fn screened<const D: usize, P: Pod>(
    chunks: &[Arc<Locked<D, P>>],
    questions: &[Option<Question>],
) -> Vec<Found> {
    let level = Level::best();
    let mut found: Vec<Found> = questions.iter().map(|each| Found::to(each.as_ref())).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        for first in (0..chunk::ROWS / SPAN).step_by(SPANS) {
            let chunk = read(chunk);
            let spans = first..chunk.used().div_ceil(SPAN).min(first + SPANS);
            if spans.is_empty() {
                break;
            }
            for span in spans {
                let (planes, stands) = chunk.span(span);
                let first = number * chunk::ROWS + span * SPAN;
                for (question, found) in questions.iter().zip(&mut found) {
                    let Some(question) = question else { continue };
                    let near = kernel::signs::near(level, planes, &question.picks, question.cut);
                    found.add(first, &near, stands);
                }
            }
        }
    }
    found
}

/// Rows to look at in full, 64 to a word. What fills it up takes the time that rows would take.
struct Found {
    words: Vec<Word>,
    len: usize,
    is_asked: bool,
}

#[derive(Clone, Copy, Default)]
struct Word {
    /// Position of the row that the lowest bit stands for.
    first: u32,
    rows: u64,
}

/// Where a row to look at stands, and whether it was found or only fills up.
#[derive(Clone, Copy)]
struct Place {
    position: u32,
    is_found: bool,
}

impl Found {
    fn to(question: Option<&Question>) -> Self {
        Self { words: vec![Word::default(); 4 * WORDS], len: 0, is_asked: question.is_some() }
    }

    fn add(&mut self, first: usize, near: &Plane, stands: &Plane) {
        if self.words.len() < self.len + WORDS {
            self.words.resize(2 * self.words.len(), Word::default());
        }
        for (number, (near, stands)) in near.iter().zip(stands).enumerate() {
            // Without a branch, which would tell that there is something in the word.
            let rows = near & stands;
            self.words[self.len] = Word { first: (first + number * 64) as u32, rows };
            self.len += usize::from(rows != 0);
        }
    }

    /// The places, at least as many as every search looks at; `None` when they are so many that a
    /// scan of everything is cheaper, or nothing was asked.
    fn rows<const D: usize, P: Pod>(
        mut self,
        chunks: &[Arc<Locked<D, P>>],
        screen: &Screen,
        probe: &Vector<D>,
    ) -> Option<Vec<Place>> {
        if !self.is_asked {
            return None;
        }
        let used = (chunks.len() - 1) * chunk::ROWS + read(&chunks[chunks.len() - 1]).used();
        // As scattered as rows that were found, and others for every probe.
        let mut random = probe.sign_words()[0] | 1;
        let mut filler = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            Word { first: (((random >> 32) * used as u64) >> 32) as u32, rows: 1 }
        };
        self.words.truncate(self.len);
        self.words.resize_with(self.len + screen.quota, &mut filler);
        // As many words as ever, so that the time does not tell how many rows were found.
        let counted = self.len.max(screen.quota);
        let rows: u32 = self.words[..counted].iter().map(|word| word.rows.count_ones()).sum();
        let found = rows as usize - (counted - self.len);
        if found > screen.limit {
            return None;
        }
        let mut at = 0;
        let next = |_| {
            let word = &mut self.words[at];
            let position = word.first + word.rows.trailing_zeros();
            let is_found = at < self.len;
            word.rows &= word.rows - 1;
            at += usize::from(word.rows == 0);
            Place { position, is_found }
        };
        Some((0..found.max(screen.quota)).map(next).collect())
    }
}

/// The rows at `places` whose cosine is at least the threshold, in no order, and how many they
/// are: at least [`FEW`] more stand behind them.
fn rescore<const D: usize, P: Pod>(
    chunks: &[Arc<Locked<D, P>>],
    probe: &Vector<D>,
    plan: &Plan,
    places: &[Place],
) -> (Vec<Hit>, usize) {
    let level = Level::best();
    let mut hits = vec![Hit::NONE; places.len() + FEW];
    let mut len = 0;
    for places in places.chunks(AHEAD) {
        for place in places {
            let (number, place) = split(place.position);
            kernel::prefetch(&read(&chunks[number]).vectors(place..place + 1)[0]);
        }
        for Place { position, is_found } in places {
            let (number, place) = split(*position);
            let chunk = read(&chunks[number]);
            let mut product = [0];
            let vectors = chunk.vectors(place..place + 1);
            kernel::dot::rows(level, &probe.components, vectors, &mut product);
            let cosine = product[0] as f32 * chunk.inverse_norms(place..place + 1)[0];
            let cosine = cosine * probe.inverse_norm;
            let (row, generation) = chunk.last_row(place);
            // Without a branch, which would tell that there is a hit.
            hits[len] = Hit { row, cosine, position: *position, generation };
            let stands = usize::from(*is_found) & generation as usize & 1;
            len += stands & usize::from(cosine >= plan.threshold);
        }
    }
    // What came last and was not kept.
    hits[len] = Hit::NONE;
    (hits, len)
}

/// Chunk and place in it.
const fn split(position: u32) -> (usize, usize) {
    (position as usize / chunk::ROWS, position as usize % chunk::ROWS)
}

/// The best of the first `len`, in order. Up to [`FEW`] take the time that none takes.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
fn best_of(mut hits: Vec<Hit>, len: usize, limit: usize) -> Vec<Hit> {
    if len > FEW {
        hits.truncate(len);
        hits.sort_unstable();
        hits.truncate(limit);
        return hits;
    }
    let hits: &[Hit; FEW] = hits.first_chunk().expect("so many stand behind them");
    let mut sorted = vec![Hit::NONE; FEW];
    for (number, hit) in hits.iter().enumerate() {
        let before = |(other, each): (usize, &Hit)| {
            let is_nearer = each.cosine > hit.cosine;
            let is_as_near = each.cosine.to_bits() == hit.cosine.to_bits();
            let comes_first = (each.row.0 < hit.row.0) | ((each.row == hit.row) & (other < number));
            usize::from(is_nearer | (is_as_near & comes_first))
        };
        sorted[hits.iter().enumerate().map(before).sum::<usize>()] = *hit;
    }
    sorted.truncate(len.min(limit));
    sorted
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
