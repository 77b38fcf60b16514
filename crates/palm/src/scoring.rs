use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TURN, Code, Embedding, Probe, QUADRANT_BYTES, QUADRANTS, SHIFTS, Template,
};

/// How scores are made, fixed at release together with the models. Which score is a match is said by
/// a [`crate::Calibration`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// Weight of the embeddings' cosine in a fused score.
    pub embedding_weight: f32,
    /// Weight of the share of equal hashes, the best over a template's codes and a probe's
    /// alignments.
    pub code_weight: f32,
    /// How many best embeddings of a purpose are compared by code: at 12 µs each this stays at a few
    /// milliseconds.
    pub shortlist: usize,
    /// The score that two captures of one enrolment must reach.
    pub consistency: f32,
}

/// The scoring of the models in this build.
pub const fn scoring() -> &'static Scoring {
    &SCORING
}

/// Found by `examples/calibrate.rs`.
static SCORING: Scoring =
    Scoring { embedding_weight: 0.12, code_weight: 1.0, shortlist: 256, consistency: 0.4741 };

impl Scoring {
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
