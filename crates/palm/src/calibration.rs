use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TURN, Code, Embedding, Probe, QUADRANT_BYTES, QUADRANTS, SHIFTS, Template,
};

/// How scores are made and what they mean, fixed at release together with the models. The numbers
/// are written by `examples/calibrate.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// Weight of the embeddings' cosine in a fused score.
    pub embedding_weight: f32,
    /// Weight of the share of equal hashes, the best over a template's codes and a probe's
    /// alignments.
    pub code_weight: f32,
    /// How many best embeddings of a purpose are compared by code.
    pub shortlist: usize,
    /// False match rate of a comparison of one probe with one template, and the fused score that
    /// keeps it; laxest first. Rates below one in the number of measured pairs are extrapolated.
    pub thresholds: &'static [(f64, f32)],
    /// The score that two captures of one enrolment must reach.
    pub consistency: f32,
    /// What the numbers were measured on.
    pub measured: &'static [Measurement],
}

/// One measurement behind a [`Calibration`].
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// What was compared, in words: real, simulated or synthetic.
    pub data: &'static str,
    /// Hands with a reference, of three captures each.
    pub people: usize,
    /// Hands of which too few captures were good enough for a reference and a probe.
    pub not_enrolled: usize,
    /// Of `people`, those whose enrolment a check of consistency would have refused.
    pub inconsistent: usize,
    /// Comparisons of the same hand.
    pub mated: usize,
    /// Comparisons of different hands.
    pub non_mated: usize,
    /// Share of mated comparisons below the threshold, for each of [`Calibration::thresholds`].
    pub false_non_match: &'static [f64],
    /// Share of non-mated comparisons at or above it.
    pub false_match: &'static [f64],
    /// Equal error rate of the embeddings alone.
    pub embedding_equal_error: f64,
    /// Equal error rate of the codes alone.
    pub code_equal_error: f64,
    /// Equal error rate of the fused score.
    pub fused_equal_error: f64,
    /// Share of mates whose embedding would be on the shortlist of a gallery of ten thousand.
    pub shortlisted_of_10_000: f64,
    /// The same of a hundred thousand.
    pub shortlisted_of_100_000: f64,
}

impl Calibration {
    /// The score that keeps the false match rate at or below `rate`; `None` when that is stricter
    /// than anything calibrated.
    pub fn threshold(&self, rate: f64) -> Option<f32> {
        self.thresholds.iter().find(|(known, _)| *known <= rate).map(|(_, score)| *score)
    }

    /// The fused score of a probe and a template of the same transform.
    pub fn score(&self, probe: &Probe, template: &Template) -> f32 {
        self.embedding_weight * cosine(&probe.embedding, &template.embedding)
            + self.code_weight * alike(&probe.codes, &template.codes)
    }
}

/// The two parts of a fused score: cosine and share of equal hashes. For calibration only.
#[doc(hidden)]
pub fn parts(probe: &Probe, template: &Template) -> (f32, f32) {
    (cosine(&probe.embedding, &template.embedding), alike(&probe.codes, &template.codes))
}

/// Cosine of two quantised unit vectors.
pub(crate) fn cosine(a: &Embedding, b: &Embedding) -> f32 {
    let dot: i32 = a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
    dot as f32 / (127.0 * 127.0 * 8.0)
}

/// The greatest share of equal hashes between any turn of a probe and any code of a template: the
/// whole palm at its best shift, each quadrant then at the best of the nine around it; a shift costs
/// one hash for each square cell. What `palmgate-gallery` does for a whole shortlist, kept plain
/// here.
pub(crate) fn alike(probe: &[Code], template: &[Code]) -> f32 {
    let hashes = (CODE_BYTES * 4) as u32;
    let turns = probe.as_chunks::<CODES_PER_TURN>().0;
    let fewest = |code: &Code| turns.iter().map(|turn| fewest_different(turn, code)).min();
    let least = template.iter().filter_map(fewest).min().unwrap_or(hashes);
    1.0 - least.min(hashes) as f32 / hashes as f32
}

/// Hashes of `code` that differ from those of the turn at its best shifts.
fn fewest_different(turn: &[Code; CODES_PER_TURN], code: &Code) -> u32 {
    let counts = turn.each_ref().map(|other| different(other, code));
    let inside = |shift: usize| (1..SHIFTS - 1).contains(&shift);
    let square = |place: usize| place.abs_diff(SHIFTS / 2).pow(2) as u32;
    let cost = |shift: usize| square(shift / SHIFTS) + square(shift % SHIFTS);
    let whole = |shift: &usize| counts[*shift].iter().sum::<u32>() + cost(*shift);
    let inner = (0..CODES_PER_TURN).filter(|at| inside(at / SHIFTS) && inside(at % SHIFTS));
    let best = inner.min_by_key(whole).unwrap_or(CODES_PER_TURN / 2);
    let rows = [best - SHIFTS, best, best + SHIFTS];
    let around = |quadrant: usize| {
        let near = rows.into_iter().flat_map(|middle| middle - 1..=middle + 1);
        near.map(|shift| counts[shift][quadrant]).min().unwrap_or_default()
    };
    (0..QUADRANTS).map(around).sum::<u32>() + cost(best)
}

/// Hashes that differ, for each quadrant.
fn different(a: &Code, b: &Code) -> [u32; QUADRANTS] {
    let (a, b) = (a.as_chunks::<QUADRANT_BYTES>().0, b.as_chunks::<QUADRANT_BYTES>().0);
    std::array::from_fn(|quadrant| {
        let (a, b) = (a[quadrant].as_chunks::<8>().0, b[quadrant].as_chunks::<8>().0);
        let pairs = a.iter().zip(b).map(|(x, y)| u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y));
        pairs.map(|bits| ((bits | bits >> 1) & 0x5555_5555_5555_5555).count_ones()).sum()
    })
}

/// The calibration of the models in this build.
pub fn calibration() -> &'static Calibration {
    &crate::calibrated::CURRENT
}
