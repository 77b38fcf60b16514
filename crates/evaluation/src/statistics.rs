//! Rates and their bounds.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// Resamplings behind a bound.
const RESAMPLINGS: usize = 1_000;

/// Scores in ascending order.
pub(crate) struct Scores(Vec<f32>);

impl Scores {
    pub(crate) fn new(scores: impl Iterator<Item = f32>) -> Self {
        let mut scores: Vec<f32> = scores.collect();
        scores.sort_unstable_by(f32::total_cmp);
        Self(scores)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The share of scores at or above `threshold`; of nothing, 0.
    pub(crate) fn at_or_above(&self, threshold: f32) -> f64 {
        let below = self.0.partition_point(|score| *score < threshold);
        share(self.0.len() - below, self.0.len())
    }

    /// The share of scores below `threshold`.
    pub(crate) fn below(&self, threshold: f32) -> f64 {
        share(self.0.partition_point(|score| *score < threshold), self.0.len())
    }

    /// The lowest threshold that at most `rate` of the scores reach; `None` where so few scores
    /// cannot tell that rate from none.
    pub(crate) fn threshold(&self, rate: f64) -> Option<f32> {
        let allowed = (rate * self.0.len() as f64 * (1.0 + 1e-12)).floor() as usize;
        if allowed == 0 {
            return None;
        }
        let place = self.0.len().checked_sub(allowed + 1)?;
        Some(self.0[place].next_up())
    }

    /// Above all scores.
    pub(crate) fn above_all(&self) -> f32 {
        self.0.last().map_or(0.0, |greatest| greatest.next_up())
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The rate at which as many mated comparisons fail as non-mated ones succeed: the mean of both at
/// the threshold where they are closest.
pub(crate) fn equal_error(mated: &Scores, non_mated: &Scores) -> f64 {
    let closest = mated
        .0
        .iter()
        .chain(&non_mated.0)
        .map(|threshold| (mated.below(*threshold), non_mated.at_or_above(*threshold)))
        .min_by(|a, b| (a.0 - a.1).abs().total_cmp(&(b.0 - b.1).abs()));
    closest.map_or(0.0, |(fnmr, fmr)| f64::midpoint(fnmr, fmr))
}

/// Points of the detection error trade-off: false match rate, false non-match rate.
pub(crate) fn trade_off(mated: &Scores, non_mated: &Scores) -> Vec<(f64, f64)> {
    let count = non_mated.len();
    let mut allowed = count / 2;
    let mut points = Vec::new();
    while allowed > 0 {
        let rate = allowed as f64 / count as f64;
        if let Some(threshold) = non_mated.threshold(rate) {
            points.push((non_mated.at_or_above(threshold), mated.below(threshold)));
        }
        allowed = allowed * 4 / 5;
    }
    points
}

/// 95 % bounds of a rate of failures, from resampling identities with their comparisons: those of
/// one hand are not independent. `by_identity` holds failures and comparisons. Where all or none
/// failed, which resampling cannot show, the bounds are Wilson's over the identities.
pub(crate) fn bounds(by_identity: &[(usize, usize)]) -> (f64, f64) {
    let sum = |pick: fn(&(usize, usize)) -> usize| by_identity.iter().map(pick).sum::<usize>();
    let (failed, all) = (sum(|one| one.0), sum(|one| one.1));
    if failed == 0 || failed == all {
        return wilson(failed.min(by_identity.len()), by_identity.len());
    }
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    let mut rates: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| {
            let mut drawn = (0, 0);
            for _ in by_identity {
                let (failed, all) = by_identity[dice.next_u64() as usize % by_identity.len()];
                drawn = (drawn.0 + failed, drawn.1 + all);
            }
            share(drawn.0, drawn.1)
        })
        .collect();
    rates.sort_unstable_by(f64::total_cmp);
    (rates[RESAMPLINGS / 40], rates[RESAMPLINGS - 1 - RESAMPLINGS / 40])
}

/// Wilson's score interval, 95 %.
fn wilson(failed: usize, all: usize) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (all as f64, failed as f64 / all as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    (((centre - spread) / whole).max(0.0), ((centre + spread) / whole).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32]) -> Scores {
        Scores::new(values.iter().copied())
    }

    #[test]
    fn a_threshold_lets_no_more_through_than_the_rate_says() {
        let non_mated = Scores::new((0..1000).map(|i| i as f32));
        let threshold = non_mated.threshold(1e-2).unwrap();
        assert!((non_mated.at_or_above(threshold) - 0.01).abs() < 1e-9);
        assert!(threshold > 989.0 && threshold < 990.0);
        assert!(non_mated.threshold(1e-3).is_some() && non_mated.threshold(9e-4).is_none());
        let ties = scores(&[1.0, 5.0, 5.0, 5.0]);
        assert!(ties.at_or_above(ties.threshold(0.5).unwrap()) <= 0.5, "ties stay outside");
    }

    #[test]
    fn the_equal_error_rate_of_separate_and_of_mixed_scores() {
        assert!(equal_error(&scores(&[3.0, 4.0]), &scores(&[1.0, 2.0])) < 1e-9);
        let mixed = equal_error(&scores(&[1.0, 3.0, 5.0, 7.0]), &scores(&[0.0, 2.0, 4.0, 1.5]));
        assert!((mixed - 0.25).abs() < 1e-9, "{mixed}");
    }

    #[test]
    fn bounds_hold_the_rate_and_grow_when_failures_are_one_persons() {
        let spread: Vec<_> = (0..100).map(|i| (usize::from(i % 10 == 0), 6)).collect();
        let lumped: Vec<_> = (0..100).map(|i| (if i < 2 { 5 } else { 0 }, 6)).collect();
        let (low, high) = bounds(&spread);
        assert!(low < 10.0 / 600.0 && 10.0 / 600.0 < high);
        let (_, lumped_high) = bounds(&lumped);
        assert!(lumped_high > high, "{lumped_high} {high}");
        let (low, high) = bounds(&vec![(0, 6); 100]);
        assert!(low.abs() < 1e-9 && (high - 0.037).abs() < 0.001, "{high}");
    }
}
