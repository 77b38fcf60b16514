//! Which score decides at which false match rate, as an evaluation found it.

use crate::{calibration, models_hash};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Bytes of a file of thresholds at most.
pub const MAX_THRESHOLDS_BYTES: u64 = 64 * 1024;
/// Points of a file at most.
const MAX_POINTS: usize = 64;
/// A rate is extrapolated to a hundredth of one in the number of pairs, and no further.
const REACH: f64 = 0.01;

/// Thresholds with the measurement behind them: what `palmgate evaluate --thresholds` writes and
/// `[palm] thresholds` reads. Scores belong to the models and to the sensor they were measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    format: u32,
    /// SHA-256 over names and hashes of the models, in hexadecimal.
    models: String,
    /// What was compared, in words.
    data: String,
    /// Hands.
    hands: usize,
    /// Comparisons of the same hand.
    genuine: usize,
    /// Comparisons of different hands.
    impostor: usize,
    /// Laxest first.
    points: Vec<Point>,
}

/// A false match rate and the score that keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// False matches of so many comparisons of one probe with one reference.
    pub false_match_rate: f64,
    /// The score. Of an evaluation it is the upper end of its 95 % interval.
    pub score: f32,
}

/// A file of thresholds that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdsError {
    /// It is none.
    #[error("is no file of thresholds ({0}): write it by `palmgate evaluate --thresholds`")]
    Malformed(String),
    /// It was measured with other models.
    #[error(
        "was measured with the models {found}, and this program has {wanted}: evaluate again with this program"
    )]
    OtherModels {
        /// In the file.
        found: String,
        /// In the program.
        wanted: String,
    },
    /// Its numbers contradict each other.
    #[error("is not what an evaluation writes: {0}; evaluate again")]
    Implausible(&'static str),
}

impl Thresholds {
    /// From an evaluation with the models of this program; points laxest first.
    pub fn of_evaluation(
        data: String,
        (hands, genuine, impostor): (usize, usize, usize),
        points: Vec<Point>,
    ) -> Self {
        Self { format: 1, models: models(), data, hands, genuine, impostor, points }
    }

    /// Those that come with the models: from captures that were simulated, and so good for trying.
    pub fn built_in() -> Self {
        let calibration = calibration();
        let sum = |of: fn(&crate::Measurement) -> usize| calibration.measured.iter().map(of).sum();
        let data = calibration.measured.iter().map(|one| one.data).collect::<Vec<_>>().join("; ");
        let point = |&(false_match_rate, score): &(f64, f32)| Point { false_match_rate, score };
        Self {
            format: 1,
            models: models(),
            data,
            hands: sum(|one| one.people),
            genuine: sum(|one| one.mated),
            impostor: sum(|one| one.non_mated),
            points: calibration.thresholds.iter().map(point).collect(),
        }
    }

    /// Reads what an evaluation wrote.
    ///
    /// # Errors
    /// [`ThresholdsError`], also where models or numbers are not as they should be.
    pub fn read(file: &[u8]) -> Result<Self, ThresholdsError> {
        let read: Self = serde_json::from_slice(file)
            .map_err(|error| ThresholdsError::Malformed(error.to_string()))?;
        if read.models != models() {
            return Err(ThresholdsError::OtherModels { found: read.models, wanted: models() });
        }
        read.check().map_err(ThresholdsError::Implausible)?;
        Ok(read)
    }

    fn check(&self) -> Result<(), &'static str> {
        let rate = |point: &Point| point.false_match_rate;
        let sane = |point: &Point| {
            (0.0..1.0).contains(&rate(point)) && rate(point) > 0.0 && point.score.is_finite()
        };
        if self.format != 1 {
            return Err("it has another format");
        }
        if self.points.is_empty() || self.points.len() > MAX_POINTS || !self.points.iter().all(sane)
        {
            return Err("a rate is not between 0 and 1, or a score is no number");
        }
        let falling = |pair: &[Point]| rate(&pair[0]) > rate(&pair[1]);
        if !self.points.windows(2).all(|pair| falling(pair) && pair[0].score <= pair[1].score) {
            return Err("a stricter rate has a lower score");
        }
        if self.hands < 2 || self.genuine == 0 || self.impostor == 0 {
            return Err("nothing was compared");
        }
        let strictest = Self::strictest_of(self.impostor);
        if self.points.iter().any(|point| rate(point) < strictest) {
            return Err("so few comparisons cannot tell of so low a rate");
        }
        Ok(())
    }

    /// The strictest rate that so many comparisons of different hands may speak of.
    pub fn strictest_of(impostor: usize) -> f64 {
        REACH / impostor.max(1) as f64 * (1.0 - 1e-9)
    }

    /// The score that keeps false matches at or below `rate`; `None` when that is stricter than
    /// anything measured.
    pub fn threshold(&self, rate: f64) -> Option<f32> {
        let rate = rate * (1.0 + 1e-9);
        self.points.iter().find(|point| point.false_match_rate <= rate).map(|point| point.score)
    }

    /// The strictest rate there is a score for.
    pub fn strictest(&self) -> f64 {
        self.points.last().map_or(1.0, |point| point.false_match_rate)
    }

    /// What was compared, in words.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Hands, comparisons of the same hand, comparisons of different hands.
    pub const fn counts(&self) -> (usize, usize, usize) {
        (self.hands, self.genuine, self.impostor)
    }
}

/// The score that a share of the highest scores exceeds, `tail` being those highest scores in any
/// order above `start`, and `share` a share of them: by the generalised Pareto distribution that
/// fits them by probability-weighted moments (Hosking and Wallis 1987). A bounded tail is not
/// believed: beyond the measured pairs it would promise too much.
pub fn tail_threshold(start: f64, tail: &mut [f64], share: f64) -> f64 {
    tail.sort_unstable_by(f64::total_cmp);
    let n = tail.len().max(1) as f64;
    let excess = |score: &f64| score - start;
    let mean = tail.iter().map(excess).sum::<f64>() / n;
    let weighted = tail
        .iter()
        .enumerate()
        .map(|(i, score)| excess(score) * (1.0 - (i as f64 + 0.65) / n))
        .sum::<f64>()
        / n;
    let shape = (2.0 - mean / (mean - 2.0 * weighted)).max(0.0);
    let shape = if shape.is_finite() { shape } else { 0.0 };
    let scale = mean * (1.0 - shape);
    let reach = if shape < 1e-6 { -share.ln() } else { (share.powf(-shape) - 1.0) / shape };
    start + scale * reach
}

fn models() -> String {
    HEXLOWER.encode(&models_hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Thresholds {
        let points = [(1e-2, 0.5), (1e-4, 0.6), (1e-6, 0.7)];
        let points = points.map(|(false_match_rate, score)| Point { false_match_rate, score });
        Thresholds::of_evaluation("a set".into(), (100, 600, 59_400), points.to_vec())
    }

    fn json(of: &Thresholds) -> serde_json::Value {
        serde_json::to_value(of).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_decides() {
        let read = Thresholds::read(json(&measured()).to_string().as_bytes()).unwrap();
        assert_eq!(read, measured());
        assert_eq!(read.threshold(1e-2), Some(0.5));
        assert_eq!(read.threshold(1e-3), Some(0.6));
        assert_eq!(read.threshold(1e-6), Some(0.7));
        assert_eq!(read.threshold(9e-7), None, "nobody vouches for that");
        assert_eq!((read.strictest(), read.counts()), (1e-6, (100, 600, 59_400)));
        let built_in = Thresholds::built_in();
        assert_eq!(built_in.threshold(1e-4), calibration().threshold(1e-4));
        assert_eq!(built_in.check(), Ok(()));
    }

    #[test]
    fn files_that_no_evaluation_wrote_are_refused() {
        for wrong in ["", "{", "[]", "{}", &"[".repeat(100_000)] {
            let error = Thresholds::read(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, ThresholdsError::Malformed(_)), "{error}");
        }
        let change = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json = json(&measured());
            change(&mut json);
            Thresholds::read(json.to_string().as_bytes()).unwrap_err()
        };
        let error = change(&|json| json["models"] = "00".into());
        assert!(matches!(error, ThresholdsError::OtherModels { .. }), "{error}");
        let error = change(&|json| json["more"] = 1.into());
        assert!(matches!(error, ThresholdsError::Malformed(_)), "{error}");
        let implausible: [&dyn Fn(&mut serde_json::Value); 8] = [
            &|json| json["format"] = 2.into(),
            &|json| json["points"] = serde_json::json!([]),
            &|json| json["points"][0]["false_match_rate"] = 0.0.into(),
            &|json| json["points"][0]["false_match_rate"] = 1.5.into(),
            &|json| json["points"][2]["score"] = 0.1.into(),
            &|json| json["points"][2]["false_match_rate"] = 1e-7.into(),
            &|json| json["impostor"] = 0.into(),
            &|json| json["hands"] = 1.into(),
        ];
        for each in implausible {
            let error = change(each);
            assert!(matches!(error, ThresholdsError::Implausible(_)), "{error}");
        }
    }

    #[test]
    fn the_tail_of_an_exponential_is_found_again() {
        let mut tail: Vec<f64> = (0..1000).map(|i| -((f64::from(i) + 0.5) / 1000.0).ln()).collect();
        let found = tail_threshold(0.0, &mut tail, 1e-3);
        assert!((found - 1e3_f64.ln()).abs() < 0.4, "{found}");
    }
}
