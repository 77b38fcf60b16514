//! Exact identification and verification over protected templates.
//!
//! A [`Gallery`] holds one compartment for each purpose that palms are matched for; a search never
//! leaves its compartment. Rows are numbers: who they stand for is known elsewhere. Every search is
//! exhaustive, so the answer does not depend on an index, and takes the same work for everybody.

mod compartment;
mod kernel;
mod rank;

use compartment::Compartment;
use kernel::{Level, equal::ProbeCodes};
use palmgate_protocol::{Probe, Purpose, Template};
use rank::{Best, Ranked};

/// Candidates that [`Gallery::identify`] returns at most.
pub const MAX_CANDIDATES: usize = 8;
/// Rows in one compartment at most: 1 GiB of templates.
pub const MAX_ROWS: usize = 1 << 20;

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
    /// The compartment has a template under this number: remove it first.
    #[error("row {} is in the {purpose} compartment already: remove it first", row.0)]
    DuplicateRow {
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
    /// The purpose is consented to but no palm is matched for it.
    #[error("no palm is matched for the purpose {purpose}, so it has no compartment")]
    NotMatched {
        /// The purpose.
        purpose: Purpose,
    },
}

/// Templates in memory, searched in full. Rows are wiped when removed and when the gallery drops.
#[derive(Default)]
pub struct Gallery {
    compartments: [Compartment; Purpose::MATCHED.len()],
}

impl Gallery {
    /// An empty gallery; memory is taken as rows come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a copy of `template`. The same row may stand in several compartments.
    ///
    /// # Errors
    /// [`GalleryError`]; nothing changed then.
    pub fn insert(
        &mut self,
        row: RowId,
        purpose: Purpose,
        template: &Template,
    ) -> Result<(), GalleryError> {
        let compartment =
            self.compartment_mut(purpose).ok_or(GalleryError::NotMatched { purpose })?;
        if compartment.contains(row) {
            return Err(GalleryError::DuplicateRow { row, purpose });
        }
        if compartment.len() == MAX_ROWS {
            return Err(GalleryError::Full { purpose });
        }
        compartment.push(row, template);
        Ok(())
    }

    /// Removes the row from every compartment and wipes its bytes; `false` when there was none.
    pub fn remove(&mut self, row: RowId) -> bool {
        // Not `any`, which would stop at the first compartment.
        self.compartments.iter_mut().fold(false, |found, each| each.remove(row) | found)
    }

    /// Rows in the compartment of `purpose`.
    pub fn len(&self, purpose: Purpose) -> usize {
        self.compartment(purpose).map_or(0, Compartment::len)
    }

    /// Whether no compartment has a row.
    pub fn is_empty(&self) -> bool {
        self.compartments.iter().all(|compartment| compartment.len() == 0)
    }

    /// Compares the probe with every row of the compartment (1:N): embeddings first, then the codes
    /// of the [`Fusion::shortlist`] nearest. Best first, equal scores by row number, at most
    /// [`MAX_CANDIDATES`], one entry a row. Whether a candidate is good enough is not decided here.
    pub fn identify(&self, purpose: Purpose, probe: &Probe, fusion: &Fusion) -> Vec<Candidate> {
        let Some(compartment) = self.compartment(purpose) else { return Vec::new() };
        let probe_norm = kernel::dot::inverse_norm(&probe.embedding);
        let (level, codes) = (Level::best(), ProbeCodes::new(&probe.codes));
        let mut fused = Best::of(MAX_CANDIDATES);
        for near in compartment.nearest(&probe.embedding, fusion.shortlist) {
            let share = codes.best_share(level, compartment.codes(near.position));
            fused.offer(Ranked { score: fusion.score(near.score * probe_norm, share), ..near });
        }
        let candidate = |ranked: Ranked| Candidate { row: ranked.row, score: ranked.score };
        fused.into_sorted().map(candidate).collect()
    }

    fn compartment(&self, purpose: Purpose) -> Option<&Compartment> {
        slot(purpose).map(|slot| &self.compartments[slot])
    }

    fn compartment_mut(&mut self, purpose: Purpose) -> Option<&mut Compartment> {
        slot(purpose).map(|slot| &mut self.compartments[slot])
    }
}

fn slot(purpose: Purpose) -> Option<usize> {
    Purpose::MATCHED.iter().position(|matched| *matched == purpose)
}

/// Compares one probe with one template (1:1). The score is the one that [`Gallery::identify`]
/// gives a row with this template.
pub fn verify(probe: &Probe, template: &Template, fusion: &Fusion) -> f32 {
    let dot = kernel::dot::one(&probe.embedding, &template.embedding);
    let cosine = dot as f32
        * kernel::dot::inverse_norm(&template.embedding)
        * kernel::dot::inverse_norm(&probe.embedding);
    let share = ProbeCodes::new(&probe.codes).best_share(Level::best(), &template.codes);
    fusion.score(cosine, share)
}
