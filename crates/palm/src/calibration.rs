use crate::{Scoring, models_hash, scoring};
use data_encoding::HEXLOWER;
use std::sync::LazyLock;

/// A calibration file has no more bytes.
pub const MAX_CALIBRATION_BYTES: u64 = 64 * 1024;

/// False match rates that a calibration has a threshold for.
const RATES: [f64; 5] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// Confidence of the upper bounds.
const CONFIDENCE: f64 = 0.95;
/// The quantile of the normal distribution that belongs to it.
const QUANTILE: f64 = 1.644_854;
/// A tail is fitted to the top hundredth of the comparisons: to a hundred at least.
const FEWEST_IMPOSTORS: usize = 10_000;
const FORMAT: u32 = 1;
/// Sets of comparisons, and letters of their names and descriptions.
const MOST_SETS: usize = 16;
const LONGEST_TEXT: usize = 1_000;

/// Which score is a match, and on what comparisons that was measured (ISO/IEC 19795-1). The
/// thresholds in use come from one of these and from nowhere else.
///
/// [`Calibration::of`] and [`Calibration::parse`] are the ways to one; what they give holds
/// together.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    format: u32,
    models: String,
    scoring: Scoring,
    confidence: f64,
    false_positive_identification_rate: f64,
    sets: Vec<DataSet>,
    points: Vec<OperatingPoint>,
}

/// Comparisons that were measured.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// What the set is called.
    pub name: String,
    /// Whose hands, by which camera, how often.
    pub description: String,
    /// Whether a camera took the captures.
    pub origin: Origin,
    /// Hands with a reference.
    pub identities: usize,
    /// Comparisons of the same hand.
    pub genuine: usize,
    /// Comparisons of different hands.
    pub impostor: usize,
}

/// Where captures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Every capture was taken by a camera.
    Taken,
    /// Captures, or even people, were computed.
    Simulated,
}

/// A threshold and what it does.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// The false match rate that the threshold is to keep.
    pub target: f64,
    /// The lowest score that is a match.
    pub threshold: f32,
    /// Impostor comparisons at or above it, for each set.
    pub false_matches: Vec<usize>,
    /// Genuine comparisons below it, for each set.
    pub false_non_matches: Vec<usize>,
    /// False match rate seen, the worst of the sets.
    pub fmr: f64,
    /// Its upper bound at the calibration's confidence, comparisons taken as independent.
    pub fmr_upper: f64,
    /// False non-match rate seen, the worst of the sets.
    pub fnmr: f64,
    /// References among which a stranger finds one at the wanted rate at most: that rate over
    /// [`OperatingPoint::fmr_upper`].
    pub largest_gallery: usize,
}

/// A set with its scores.
pub struct Scored {
    /// What the set is; its counts are set from the scores.
    pub set: DataSet,
    /// Scores of comparisons of the same hand.
    pub genuine: Vec<f32>,
    /// Scores of comparisons of different hands.
    pub impostor: Vec<f32>,
}

/// Something that is no calibration for this program.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// Another kind of file, a cut one, or a number that is none.
    #[error("no calibration: {0}")]
    Malformed(#[from] serde_json::Error),
    /// More bytes than any calibration has.
    #[error("no calibration: more than {MAX_CALIBRATION_BYTES} bytes")]
    TooLong,
    /// Measured with other models or another weighing of their answers.
    #[error(
        "the calibration is of other models ({found:.16}) than those in use ({own:.16}): make one with palmgate evaluate, and with --models where [palm] models names some"
    )]
    OtherModels {
        /// Hash of the models that were measured.
        found: String,
        /// Hash of the models here.
        own: String,
    },
    /// Its numbers contradict each other.
    #[error("the calibration does not hold together: {0}")]
    Contradictory(&'static str),
    /// Too few comparisons to say anything.
    #[error(
        "{0} comparisons of different hands are too few for a calibration: {FEWEST_IMPOSTORS} are needed"
    )]
    TooFew(usize),
    /// A stranger would find somebody this often: no rate.
    #[error("{0} is no rate of false positive identifications: between 0 and 1")]
    Rate(f64),
}

impl Calibration {
    /// The one that is built in: from simulated captures.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: LazyLock<Calibration> = LazyLock::new(|| {
            Calibration::parse(include_bytes!("../data/calibration.json")).expect("it is tested")
        });
        &BUILT_IN
    }

    /// Calibrates: the threshold of each rate is the strictest that a set asks for. Where a set has
    /// too few comparisons to show a rate, a generalised Pareto tail is laid through its top
    /// hundredth; bounds are of what was seen, never of the tail. `wanted` is the rate at which a
    /// stranger may find somebody in a gallery.
    ///
    /// # Errors
    /// [`CalibrationError::TooFew`], [`CalibrationError::Rate`], or a set without scores.
    pub fn of(sets: Vec<Scored>, wanted: f64) -> Result<Self, CalibrationError> {
        Self::of_models(&models_hash(), sets, wanted)
    }

    /// The same from scores that other models than the built-in ones gave: those with this hash, as of
    /// [`Extractor::models_hash`](crate::Extractor::models_hash).
    ///
    /// # Errors
    /// As [`Calibration::of`].
    pub fn of_models(
        models: &[u8; 32],
        sets: Vec<Scored>,
        wanted: f64,
    ) -> Result<Self, CalibrationError> {
        if !(wanted > 0.0 && wanted < 1.0) {
            return Err(CalibrationError::Rate(wanted));
        }
        let mut sets = sets;
        for scored in &mut sets {
            if scored.impostor.len() < FEWEST_IMPOSTORS {
                return Err(CalibrationError::TooFew(scored.impostor.len()));
            }
            scored.genuine.sort_unstable_by(f32::total_cmp);
            scored.impostor.sort_unstable_by(f32::total_cmp);
            (scored.set.genuine, scored.set.impostor) =
                (scored.genuine.len(), scored.impostor.len());
        }
        let mut points: Vec<OperatingPoint> = Vec::new();
        for target in RATES {
            let asked = sets.iter().map(|scored| threshold(&scored.impostor, target));
            let strictest =
                asked.chain(points.last().map(|p| p.threshold)).fold(f32::MIN, f32::max);
            let below = |scores: &[f32]| scores.partition_point(|score| *score < strictest);
            points.push(OperatingPoint {
                target,
                threshold: strictest,
                false_matches: sets.iter().map(|s| s.impostor.len() - below(&s.impostor)).collect(),
                false_non_matches: sets.iter().map(|s| below(&s.genuine)).collect(),
                fmr: 0.0,
                fmr_upper: 0.0,
                fnmr: 0.0,
                largest_gallery: 0,
            });
        }
        let mut calibration = Self {
            format: FORMAT,
            models: HEXLOWER.encode(models),
            scoring: *scoring(),
            confidence: CONFIDENCE,
            false_positive_identification_rate: wanted,
            sets: sets.into_iter().map(|scored| scored.set).collect(),
            points,
        };
        for point in &mut calibration.points {
            *point = derived(point, &calibration.sets, wanted);
        }
        calibration.check(models)?;
        Ok(calibration)
    }

    /// Reads a calibration file and computes again what it says.
    ///
    /// # Errors
    /// [`CalibrationError`] says what is wrong with it.
    pub fn parse(file: &[u8]) -> Result<Self, CalibrationError> {
        Self::parse_of_models(&models_hash(), file)
    }

    /// The same for the models with this hash.
    ///
    /// # Errors
    /// As [`Calibration::parse`].
    pub fn parse_of_models(models: &[u8; 32], file: &[u8]) -> Result<Self, CalibrationError> {
        if file.len() as u64 > MAX_CALIBRATION_BYTES {
            return Err(CalibrationError::TooLong);
        }
        let calibration: Self = serde_json::from_slice(file)?;
        calibration.check(models)?;
        Ok(calibration)
    }

    /// Whether it was measured with the models with this hash.
    pub fn is_of(&self, models: &[u8; 32]) -> bool {
        self.models == HEXLOWER.encode(models)
    }

    fn check(&self, models: &[u8; 32]) -> Result<(), CalibrationError> {
        let own = HEXLOWER.encode(models);
        if self.models != own || self.scoring != *scoring() {
            return Err(CalibrationError::OtherModels { found: self.models.clone(), own });
        }
        let holds = |holds: bool, what| {
            if holds { Ok(()) } else { Err(CalibrationError::Contradictory(what)) }
        };
        holds(self.format == FORMAT, "its format is another one")?;
        holds(same(self.confidence, CONFIDENCE), "its confidence is not 0.95")?;
        let wanted = self.false_positive_identification_rate;
        holds(wanted > 0.0 && wanted < 1.0, "its rate of false positive identifications is none")?;
        holds((1..=MOST_SETS).contains(&self.sets.len()), "it has no set of comparisons")?;
        for set in &self.sets {
            let named = |text: &str| (1..=LONGEST_TEXT).contains(&text.trim().len());
            holds(named(&set.name) && named(&set.description), "a set has no name")?;
            let enough = set.identities > 1 && set.genuine > 0 && set.impostor >= FEWEST_IMPOSTORS;
            holds(enough, "a set has too few comparisons")?;
        }
        let targets = self.points.iter().map(|point| point.target);
        holds(targets.eq(RATES), "its rates are not 1e-2 to 1e-6")?;
        for point in &self.points {
            self.check_point(point)?;
        }
        for pair in self.points.windows(2) {
            let falls = |of: fn(&OperatingPoint) -> &[usize], a: usize, b: usize| {
                of(&pair[a]).iter().zip(of(&pair[b])).all(|(lax, strict)| lax >= strict)
            };
            let ordered = pair[0].threshold <= pair[1].threshold
                && falls(|point| &point.false_matches, 0, 1)
                && falls(|point| &point.false_non_matches, 1, 0);
            holds(ordered, "a stricter threshold lets more through")?;
        }
        Ok(())
    }

    fn check_point(&self, point: &OperatingPoint) -> Result<(), CalibrationError> {
        let highest = self.scoring.embedding_weight + self.scoring.code_weight;
        let counted = |counts: &[usize], of: fn(&DataSet) -> usize| {
            counts.len() == self.sets.len()
                && counts.iter().zip(&self.sets).all(|(count, set)| *count <= of(set))
        };
        let kept = |(count, set): (&usize, &DataSet)| {
            *count as f64 <= point.target * set.impostor as f64 * (1.0 + 1e-9)
        };
        let again = || derived(point, &self.sets, self.false_positive_identification_rate);
        let what = if !(point.threshold > 0.0 && point.threshold <= highest) {
            "a threshold is no score"
        } else if !counted(&point.false_matches, |set| set.impostor)
            || !counted(&point.false_non_matches, |set| set.genuine)
        {
            "more comparisons failed than there were"
        } else if !point.false_matches.iter().zip(&self.sets).all(kept) {
            "a threshold lets more through than its rate"
        } else if !again().agrees(point) {
            "a rate or a bound is not that of its comparisons"
        } else {
            return Ok(());
        };
        Err(CalibrationError::Contradictory(what))
    }

    /// The point that keeps the false match rate at or below `rate`.
    pub fn point(&self, rate: f64) -> Option<&OperatingPoint> {
        self.points.iter().find(|point| point.target <= rate)
    }

    /// The score that keeps the false match rate at or below `rate`; `None` when that is stricter
    /// than anything calibrated.
    pub fn threshold(&self, rate: f64) -> Option<f32> {
        self.point(rate).map(|point| point.threshold)
    }

    /// Every point, the laxest first.
    pub fn points(&self) -> &[OperatingPoint] {
        &self.points
    }

    /// What was measured.
    pub fn sets(&self) -> &[DataSet] {
        &self.sets
    }

    /// The rate at which a stranger may find somebody in the largest gallery.
    pub const fn false_positive_identification_rate(&self) -> f64 {
        self.false_positive_identification_rate
    }

    /// Whether a camera took every capture.
    pub fn is_taken(&self) -> bool {
        self.sets.iter().all(|set| set.origin == Origin::Taken)
    }

    /// The file.
    ///
    /// # Errors
    /// None is known for these types.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

impl OperatingPoint {
    fn agrees(&self, other: &Self) -> bool {
        same(self.fmr, other.fmr)
            && same(self.fmr_upper, other.fmr_upper)
            && same(self.fnmr, other.fnmr)
            && self.largest_gallery == other.largest_gallery
    }
}

/// Rates and the gallery, from the counts.
fn derived(point: &OperatingPoint, sets: &[DataSet], wanted: f64) -> OperatingPoint {
    let worst = |counts: &[usize], rate: &dyn Fn(usize, &DataSet) -> f64| {
        counts.iter().zip(sets).map(|(count, set)| rate(*count, set)).fold(0.0, f64::max)
    };
    let share = |count: usize, all: usize| count as f64 / all as f64;
    let fmr_upper =
        worst(&point.false_matches, &|count, set| upper_bound(count) / set.impostor as f64)
            .min(1.0);
    OperatingPoint {
        fmr: worst(&point.false_matches, &|count, set| share(count, set.impostor)),
        fnmr: worst(&point.false_non_matches, &|count, set| share(count, set.genuine)),
        largest_gallery: (wanted / fmr_upper).floor() as usize,
        fmr_upper,
        ..point.clone()
    }
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// The mean that a Poisson count of `seen` or less has a chance of one in twenty at (Garwood 1936):
/// three for nothing seen. Above a hundred, Wilson and Hilferty's approximation of the same.
fn upper_bound(seen: usize) -> f64 {
    let next = seen as f64 + 1.0;
    if seen > 100 {
        return next * (1.0 - 1.0 / (9.0 * next) + QUANTILE / (3.0 * next.sqrt())).powi(3);
    }
    let chance = |mean: f64| {
        let terms = (1..=seen).scan(1.0, |term, i| {
            *term *= mean / i as f64;
            Some(*term)
        });
        (1.0 + terms.sum::<f64>()) * (-mean).exp()
    };
    let (mut low, mut high) = (seen as f64, 2.0 * next + 5.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if chance(middle) > 1.0 - CONFIDENCE { low = middle } else { high = middle }
    }
    high
}

/// The score that impostors reach at `rate` at most, rounded up to four decimals: the stricter of
/// what was seen and of a generalised Pareto tail, fitted to the top hundredth by
/// probability-weighted moments (Hosking and Wallis 1987).
fn threshold(sorted: &[f32], rate: f64) -> f32 {
    let count = sorted.len();
    let allowed = (rate * count as f64) as usize;
    let seen = f64::from(sorted[count - allowed - 1].next_up());
    let tail = count / 100;
    let start = f64::from(sorted[count - tail - 1]);
    let excess: Vec<f64> =
        sorted[count - tail..].iter().map(|score| f64::from(*score) - start).collect();
    let n = excess.len() as f64;
    let mean = excess.iter().sum::<f64>() / n;
    let weighted = excess.iter().enumerate();
    let weighted =
        weighted.map(|(i, value)| value * (1.0 - (i as f64 + 0.65) / n)).sum::<f64>() / n;
    // A bounded tail is not believed: beyond the measured pairs it would promise too much.
    let shape = (2.0 - mean / (mean - 2.0 * weighted)).max(0.0);
    let scale = mean * (1.0 - shape);
    let share = rate / 0.01;
    let reach = if shape < 1e-6 { -share.ln() } else { (share.powf(-shape) - 1.0) / shape };
    let fitted = start + scale * reach;
    let strictest = if fitted.is_finite() { seen.max(fitted) } else { seen };
    ((strictest * 1e4).ceil() / 1e4) as f32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
