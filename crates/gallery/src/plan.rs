/// Signs that one half of a code may differ in, and both halves together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cuts {
    pub(crate) first: u32,
    pub(crate) both: u32,
    /// Rows whose second half is looked at in every search: seldom do more come through.
    pub(crate) quota: usize,
    /// Rows that may get that far before the exhaustive scan is the cheaper way.
    pub(crate) limit: usize,
}

/// How to find the rows whose cosine with a probe is at least some threshold, with a computed
/// probability to miss one. Made by [`crate::Shard::plan`].
///
/// Two vectors at an angle θ differ in each sign with probability θ/π when both were turned by the
/// same random orthonormal transform, so in at most so many of them as a binomial distribution
/// says. The cuts are where its upper tail falls below the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub(crate) threshold: f32,
    pub(crate) cuts: Option<Cuts>,
    miss_bound: f64,
}

/// No plan can be made from these numbers.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A cosine outside 0 to 1, or not a number.
    #[error("a threshold of {0} is no cosine from 0 to 1: take it from the calibration")]
    Threshold(f32),
    /// A probability outside 0 to 1, or not a number.
    #[error("a miss budget of {0} is no probability above 0 and below 1")]
    Budget(f64),
}

/// How far rounding to 8 bits moves a cosine at most: four standard deviations for vectors of a
/// random direction.
const ROUNDING: f64 = 0.002;
/// What a look at a scattered row costs beside its bytes, in bytes streamed.
const SCATTERED: f64 = 128.0;

impl Plan {
    pub(crate) fn new(
        dimension: usize,
        rows: usize,
        threshold: f32,
        budget: f64,
    ) -> Result<Self, PlanError> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(PlanError::Threshold(threshold));
        }
        if !(budget > 0.0 && budget < 1.0) {
            return Err(PlanError::Budget(budget));
        }
        let differ = (f64::from(threshold) - ROUNDING).acos() / std::f64::consts::PI;
        // The second cut keeps strangers out even when it is wide, so the first gets the budget.
        let first = Binomial::new(dimension / 2, differ).cut(budget * 0.9);
        let both = Binomial::new(dimension, differ).cut(budget * 0.1);
        let strangers = Binomial::new(dimension / 2, 0.5).at_most(first.0);
        let rescored = Binomial::new(dimension, 0.5).at_most(both.0);
        let components = dimension as f64;
        let bytes = components / 16.0 + (strangers + rescored) * SCATTERED + rescored * components;
        if bytes > components / 2.0 {
            return Ok(Self { threshold, cuts: None, miss_bound: 0.0 });
        }
        let expected = rows as f64 * strangers;
        let cuts = Cuts {
            first: first.0,
            both: both.0,
            quota: (expected + 3.0 * expected.sqrt()) as usize + 16,
            limit: (2.0 * expected) as usize + 1024,
        };
        Ok(Self { threshold, cuts: Some(cuts), miss_bound: first.1 + both.1 })
    }

    /// The probability at most that a row at the threshold is not found; less for a row above it,
    /// 0 for the exhaustive scan.
    pub const fn miss_bound(&self) -> f64 {
        self.miss_bound
    }

    /// Whether no cut meets the budget more cheaply than a scan of every row.
    pub const fn is_exhaustive(&self) -> bool {
        self.cuts.is_none()
    }

    /// The cuts: signs that may differ in the first half of the code, and in the whole of it.
    pub fn cuts(&self) -> Option<(u32, u32)> {
        self.cuts.map(|cuts| (cuts.first, cuts.both))
    }
}

/// Probabilities of 0 to n successes.
struct Binomial(Vec<f64>);

impl Binomial {
    fn new(n: usize, p: f64) -> Self {
        let mut choose = 0.0;
        let probability = |k: usize| {
            let term = choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln();
            choose += ((n - k) as f64 / (k + 1) as f64).ln();
            term.exp()
        };
        Self((0..=n).map(probability).collect())
    }

    fn at_most(&self, k: u32) -> f64 {
        self.0[..=k as usize].iter().sum()
    }

    /// The least count that is exceeded with probability `budget` at most, and that probability.
    fn cut(&self, budget: f64) -> (u32, f64) {
        let mut tail = 0.0;
        for (k, probability) in self.0.iter().enumerate().rev() {
            if tail + probability > budget {
                return (k as u32, tail);
            }
            tail += probability;
        }
        (0, tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_is_that_of_the_tables() {
        let fair = Binomial::new(10, 0.5);
        assert!((fair.at_most(2) - 56.0 / 1024.0).abs() < 1e-12);
        assert_eq!(fair.cut(11.5 / 1024.0).0, 8);
        assert!((fair.cut(11.5 / 1024.0).1 - 11.0 / 1024.0).abs() < 1e-12);
        let long = Binomial::new(1024, 0.3);
        assert!((long.at_most(1024) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_plan_keeps_its_budget_or_scans_everything() {
        for dimension in [256, 512, 1024] {
            let mut last = 0;
            for hundredths in (0..=100).rev().step_by(if cfg!(miri) { 25 } else { 1 }) {
                let threshold = hundredths as f32 / 100.0;
                let plan = Plan::new(dimension, 100_000, threshold, 1e-6).unwrap();
                assert!(plan.miss_bound() <= 1e-6);
                if let Some((first, both)) = plan.cuts() {
                    assert!(first >= last && both > first, "a lower threshold lets more through");
                    last = first;
                }
            }
            assert!(Plan::new(dimension, 100_000, 0.2, 1e-6).unwrap().is_exhaustive());
            assert!(!Plan::new(dimension, 100_000, 0.8, 1e-6).unwrap().is_exhaustive());
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        for threshold in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            let refused = Plan::new(512, 10, threshold, 1e-6);
            assert!(matches!(refused, Err(PlanError::Threshold(_))));
        }
        for budget in [f64::NAN, 0.0, -1.0, 1.0, f64::INFINITY] {
            assert!(matches!(Plan::new(512, 10, 0.6, budget), Err(PlanError::Budget(_))));
        }
    }
}
