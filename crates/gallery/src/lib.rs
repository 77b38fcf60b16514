//! Exact identification and verification over protected templates.
//!
//! A [`Gallery`] holds one compartment for each purpose that palms are matched for; a search never
//! leaves its compartment, and a custody has a gallery of its own. Rows are numbers: who they stand
//! for is known elsewhere. Each compartment is a [`Shard`], which compares a probe with every row,
//! or with those that a [`Plan`] lets through; `docs/search.md` has the arithmetic.

mod chunk;
mod kernel;
mod plan;
mod rank;
mod search;
mod shard;
mod sync;
mod vector;

#[doc(hidden)]
pub use kernel::without_avx512;
pub use plan::{Plan, PlanError};
pub use rank::Hit;
pub use search::SearchError;
pub use shard::{Shard, ShardError};
pub use vector::{Vector, VectorError};

use kernel::{Level, equal::ProbeCodes};
use palmgate_protocol::{
    CODES_PER_TEMPLATE, Code, EMBEDDING_DIMENSIONS, Embedding, Probe, Purpose, Template,
};
use rank::Best;
use std::array::from_fn;
use sync::{Arc, RwLock, read, write};

/// Candidates that [`Gallery::identify`] returns at most.
pub const MAX_CANDIDATES: usize = 8;
/// Rows in one compartment at most: 1 GiB of templates.
pub const MAX_ROWS: usize = 1 << 20;
/// How often a search is made again when a writer changed what it found: each time takes another
/// writer at just that moment.
const MAX_TRIES: usize = 8;
/// Rows that [`Gallery::swap`] takes in together.
const ROWS_TOGETHER: usize = 256;

/// A row of the gallery: one hand of one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u64);

/// How the similarity of embeddings and of codes becomes one score, and how many rows get as far as
/// their codes. The values come from the calibration of the models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fusion {
    /// Weight of the cosine of the embeddings, which is −1 to 1.
    pub embedding_weight: f32,
    /// Weight of the share of equal hashes, which is 0 to 1, ¼ by chance.
    pub code_weight: f32,
    /// Rows whose codes are compared: those with the largest cosines. 0 finds nobody.
    pub shortlist: usize,
}

impl Fusion {
    fn score(&self, cosine: f32, share: f32) -> f32 {
        self.embedding_weight * cosine + self.code_weight * share
    }
}

/// A row that may be the person. Not printable: scores belong in no log.
#[derive(Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The row.
    pub row: RowId,
    /// The fused score; larger is more alike.
    pub score: f32,
}

/// A row was not taken in; the gallery is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GalleryError {
    /// The compartment has a template under this number.
    #[error("row {} is in the {purpose} compartment already: replace it, or remove it first", row.0)]
    DuplicateRow {
        /// The number.
        row: RowId,
        /// The compartment.
        purpose: Purpose,
    },
    /// The template to be replaced is not there.
    #[error("row {} is not in the {purpose} compartment: insert it", row.0)]
    UnknownRow {
        /// The number.
        row: RowId,
        /// The compartment.
        purpose: Purpose,
    },
    /// [`MAX_ROWS`] is reached.
    #[error("the {purpose} compartment is full at {MAX_ROWS} rows: serve fewer people per store")]
    Full {
        /// The compartment.
        purpose: Purpose,
    },
    /// The system gave no memory.
    #[error("no memory for more rows: give the machine more, or serve fewer people per store")]
    NoMemory,
    /// The purpose is consented to but no palm is matched for it.
    #[error("no palm is matched for the purpose {purpose}, so it has no compartment")]
    NotMatched {
        /// The purpose.
        purpose: Purpose,
    },
    /// The template's embedding is no direction.
    #[error(transparent)]
    Embedding(#[from] VectorError),
}

impl GalleryError {
    const fn of(error: ShardError, purpose: Purpose) -> Self {
        match error {
            ShardError::Duplicate(row) => Self::DuplicateRow { row, purpose },
            ShardError::Unknown(row) => Self::UnknownRow { row, purpose },
            ShardError::Full(_) => Self::Full { purpose },
            ShardError::NoMemory | ShardError::Retired => Self::NoMemory,
        }
    }
}

/// The templates of one purpose.
type Compartment = Shard<EMBEDDING_DIMENSIONS, [Code; CODES_PER_TEMPLATE]>;

/// Templates in memory, searched in full, by any number of threads while rows come and go: no
/// search waits for a writer longer than it takes to write a row. Rows are wiped when removed and
/// when the gallery drops.
pub struct Gallery {
    compartments: [RwLock<Arc<Compartment>>; Purpose::MATCHED.len()],
}

impl Default for Gallery {
    fn default() -> Self {
        Self::new()
    }
}

impl Gallery {
    /// An empty gallery; memory is taken as rows come.
    pub fn new() -> Self {
        Self { compartments: from_fn(|_| RwLock::new(Arc::new(Shard::new(MAX_ROWS)))) }
    }

    /// Takes in a copy of `template`. The same row may stand in several compartments.
    ///
    /// # Errors
    /// [`GalleryError`]; nothing changed then.
    pub fn insert(
        &self,
        row: RowId,
        purpose: Purpose,
        template: &Template,
    ) -> Result<(), GalleryError> {
        self.insert_all(purpose, &[(row, template)])
    }

    /// Takes in copies of all templates of one compartment, or of none: many together take less time
    /// than one by one.
    ///
    /// # Errors
    /// [`GalleryError`]; nothing changed then.
    pub fn insert_all(
        &self,
        purpose: Purpose,
        rows: &[(RowId, &Template)],
    ) -> Result<(), GalleryError> {
        let vectors = vectors(rows)?;
        let rows = with_vectors(rows, &vectors);
        self.write(purpose, |compartment| compartment.insert_all(&rows))
    }

    /// Overwrites the row's template in one compartment. A search sees the old or the new one.
    ///
    /// # Errors
    /// [`GalleryError`]; nothing changed then.
    pub fn replace(
        &self,
        row: RowId,
        purpose: Purpose,
        template: &Template,
    ) -> Result<(), GalleryError> {
        let vector = Vector::from_components(&template.embedding)?;
        self.write(purpose, |compartment| compartment.replace(row, &vector, &template.codes))
    }

    fn write(
        &self,
        purpose: Purpose,
        act: impl Fn(&Compartment) -> Result<(), ShardError>,
    ) -> Result<(), GalleryError> {
        loop {
            let compartment =
                self.compartment(purpose).ok_or(GalleryError::NotMatched { purpose })?;
            match act(&compartment) {
                // The rows go to the one that took its place.
                Err(ShardError::Retired) => {}
                done => return done.map_err(|error| GalleryError::of(error, purpose)),
            }
        }
    }

    /// Removes the row from every compartment and wipes its bytes; `false` when there was none. No
    /// search that begins afterwards finds the row, and none that is under way and has not yet
    /// looked once more at what it found.
    pub fn remove(&self, row: RowId) -> bool {
        let remove = |compartment: &RwLock<Arc<Compartment>>| {
            // The slot is held, or a swap could bring the row back behind this.
            read(compartment).remove(row)
        };
        // Not `any`, which would stop at the first compartment.
        self.compartments.iter().fold(false, |found, each| remove(each) | found)
    }

    /// Has `rows` take the place of all that is in the compartment, at once, and wipes what was.
    ///
    /// # Errors
    /// [`GalleryError`]; nothing changed then.
    pub fn swap<'a>(
        &self,
        purpose: Purpose,
        rows: impl IntoIterator<Item = (RowId, &'a Template)>,
    ) -> Result<(), GalleryError> {
        let slot = slot(purpose).ok_or(GalleryError::NotMatched { purpose })?;
        let next = Compartment::new(MAX_ROWS);
        let mut rows = rows.into_iter();
        loop {
            let some: Vec<_> = rows.by_ref().take(ROWS_TOGETHER).collect();
            if some.is_empty() {
                break;
            }
            let vectors = vectors(&some)?;
            next.insert_all(&with_vectors(&some, &vectors))
                .map_err(|error| GalleryError::of(error, purpose))?;
        }
        next.collapse_pages();
        let before = std::mem::replace(&mut *write(&self.compartments[slot]), Arc::new(next));
        before.retire();
        Ok(())
    }

    /// Rows in the compartment of `purpose`.
    pub fn len(&self, purpose: Purpose) -> usize {
        self.compartment(purpose).map_or(0, |compartment| compartment.len())
    }

    /// Whether no compartment has a row.
    pub fn is_empty(&self) -> bool {
        Purpose::MATCHED.into_iter().all(|purpose| self.len(purpose) == 0)
    }

    /// Compares the probe with every row of the compartment (1:N): embeddings first, then the codes
    /// of the [`Fusion::shortlist`] nearest. Best first, equal scores by row number, at most
    /// [`MAX_CANDIDATES`], one entry a row; nobody when the probe's embedding has no length.
    /// Whether a candidate is good enough is not decided here.
    pub fn identify(&self, purpose: Purpose, probe: &Probe, fusion: &Fusion) -> Vec<Candidate> {
        self.identify_all(purpose, &[probe], fusion).remove(0)
    }

    /// [`Gallery::identify`] for the probes of several terminals, with one pass over the rows.
    pub fn identify_all(
        &self,
        purpose: Purpose,
        probes: &[&Probe],
        fusion: &Fusion,
    ) -> Vec<Vec<Candidate>> {
        let mut found: Vec<_> = probes.iter().map(|_| Vec::new()).collect();
        let (asked, vectors): (Vec<usize>, Vec<Embedded>) = probes
            .iter()
            .enumerate()
            .filter_map(|(i, probe)| Some((i, Vector::from_components(&probe.embedding).ok()?)))
            .unzip();
        let vectors: Vec<&Embedded> = vectors.iter().collect();
        for _ in 0..MAX_TRIES {
            let Some(compartment) = self.compartment(purpose) else { break };
            let mut all_stood = true;
            // An empty compartment is a store that opens, or one that was swapped away meanwhile.
            let nearest = compartment.nearest(&vectors, fusion.shortlist).unwrap_or_default();
            for (i, hits) in asked.iter().zip(nearest) {
                let (candidates, stood) = fused(&compartment, probes[*i], hits, fusion);
                found[*i] = candidates;
                all_stood &= stood;
            }
            if all_stood && !compartment.is_retired() {
                break;
            }
        }
        found
    }

    fn compartment(&self, purpose: Purpose) -> Option<Arc<Compartment>> {
        slot(purpose).map(|slot| read(&self.compartments[slot]).clone())
    }
}

type Embedded = Vector<EMBEDDING_DIMENSIONS>;
type Codes = [Code; CODES_PER_TEMPLATE];

/// The best of the shortlist, and whether all of it still stands as it was found.
fn fused(
    compartment: &Compartment,
    probe: &Probe,
    hits: Vec<Hit>,
    fusion: &Fusion,
) -> (Vec<Candidate>, bool) {
    let (level, codes) = (Level::best(), ProbeCodes::new(&probe.codes));
    let mut best = Best::of(MAX_CANDIDATES);
    let mut stood = true;
    for hit in hits {
        match compartment.with_payload(&hit, |payload| codes.best_share(level, payload)) {
            Some(share) => best.offer(Hit { cosine: fusion.score(hit.cosine, share), ..hit }),
            None => stood = false,
        }
    }
    let mut hits = best.into_sorted();
    // Once more at the end: a removal may have come in between.
    let before = hits.len();
    hits.retain(|hit| compartment.is_current(hit));
    stood &= hits.len() == before;
    let candidates = hits.into_iter().map(|hit| Candidate { row: hit.row, score: hit.cosine });
    (candidates.collect(), stood)
}

fn vectors(rows: &[(RowId, &Template)]) -> Result<Vec<Embedded>, VectorError> {
    rows.iter().map(|(_, template)| Vector::from_components(&template.embedding)).collect()
}

fn with_vectors<'a>(
    rows: &[(RowId, &'a Template)],
    vectors: &'a [Embedded],
) -> Vec<(RowId, &'a Embedded, &'a Codes)> {
    let rows = rows.iter().zip(vectors);
    rows.map(|((row, template), vector)| (*row, vector, &template.codes)).collect()
}

fn slot(purpose: Purpose) -> Option<usize> {
    Purpose::MATCHED.iter().position(|matched| *matched == purpose)
}

/// Compares one probe with one template (1:1). The score is the one that [`Gallery::identify`]
/// gives a row with this template; an embedding without length is like nothing.
pub fn verify(probe: &Probe, template: &Template, fusion: &Fusion) -> f32 {
    Prepared::new(probe).verify(template, fusion)
}

/// A probe whose codes are laid out once for comparisons with many templates, each 1:1. Wiped on
/// drop.
pub struct Prepared<'a> {
    embedding: &'a Embedding,
    codes: ProbeCodes,
}

impl<'a> Prepared<'a> {
    /// Lays out the codes of `probe`.
    pub fn new(probe: &'a Probe) -> Self {
        Self { embedding: &probe.embedding, codes: ProbeCodes::new(&probe.codes) }
    }

    /// What [`verify`] says of the probe and this template.
    pub fn verify(&self, template: &Template, fusion: &Fusion) -> f32 {
        let share = self.codes.best_share(Level::best(), &template.codes);
        fusion.score(cosine(self.embedding, &template.embedding), share)
    }
}

/// Compares two references (1:1), which lie as they were enrolled: their codes cannot be shifted
/// against each other, so that a hand laid down differently goes unnoticed. The score is on the scale
/// of [`verify`].
pub fn resemblance(one: &Template, other: &Template, fusion: &Fusion) -> f32 {
    let cosine = cosine(&one.embedding, &other.embedding);
    fusion.score(cosine, kernel::equal::share_in_place(&one.codes, &other.codes))
}

fn cosine(one: &Embedding, other: &Embedding) -> f32 {
    let level = Level::best();
    let mut product = [0];
    kernel::dot::rows(level, one, &[*other], &mut product);
    product[0] as f32
        * kernel::dot::inverse_norm(level, other)
        * kernel::dot::inverse_norm(level, one)
}
