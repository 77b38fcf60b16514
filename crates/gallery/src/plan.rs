use crate::{
    kernel::signs::{GROUP, MAX_COMPONENTS, MAX_CUT, Picks},
    vector::Vector,
};
use std::sync::Arc;

/// How to find the rows whose cosine with a probe is at least some threshold, with a computed
/// probability to miss one. Made by [`crate::Shard::plan`].
///
/// A row is looked at in full when it differs in few enough signs from the probe in those of the
/// probe's components that are largest. How few is computed for each probe; `docs/search.md` has
/// the arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) threshold: f32,
    pub(crate) screen: Option<Arc<Screen>>,
}

/// The first step: which rows are looked at in full.
#[derive(Debug, PartialEq)]
pub(crate) struct Screen {
    /// Components of the probe that are compared by their signs.
    components: usize,
    /// The probability at most that the sign of a row at the threshold differs, by the size of the
    /// probe's component in steps of [`STEPS`] to the root of the mean square.
    differ: Vec<f64>,
    /// Signs that may differ, by the mean probability that one does, in steps of [`MEANS`] to 1.
    cuts: Vec<u32>,
    /// The largest of these that pays.
    largest_cut: u32,
    miss_bound: f64,
    /// Rows that every search looks at in full: seldom are there more to look at.
    pub(crate) quota: usize,
    /// Rows to look at from which on the exhaustive scan is the cheaper way.
    pub(crate) limit: usize,
}

/// What a probe is screened by.
pub(crate) struct Question {
    pub(crate) picks: Picks,
    pub(crate) cut: u32,
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

/// How many times likelier a point of the sphere can be where a normal one is with some
/// probability: 1 over the probability that a normal vector of 255 dimensions, or more, is longer
/// than the root of one more.
const NORMAL: f64 = 1.0 / 0.47;
/// How far rounding to 8 bits may move a cosine: 0.002 was exceeded by 9 of 5,000,000 pairs of 256
/// dimensions.
const ROUNDING: f64 = 0.003;
/// Steps to the root of the mean square, in which components are told apart.
const STEPS: usize = 32;
/// Components above eight times the root of the mean square are taken as that large.
const LARGEST: usize = 8 * STEPS;
/// Steps to 1, in which mean probabilities are told apart.
const MEANS: usize = 512;
/// What a look at a scattered row costs beside its bytes, in bytes streamed.
const SCATTERED: f64 = 4096.0;

/// Where more rows have to be looked at in full, the exhaustive scan is the cheaper way.
const MOST_STRANGERS: f64 = 0.125;

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
        let screen = Screen::cheapest(dimension, rows, f64::from(threshold) - ROUNDING, budget);
        Ok(Self { threshold, screen: screen.map(Arc::new) })
    }

    /// The cosine from which rows are found.
    pub const fn threshold(&self) -> f32 {
        self.threshold
    }

    /// The probability at most that a row at the threshold is not found; less for a row above it,
    /// 0 for the exhaustive scan.
    pub fn miss_bound(&self) -> f64 {
        self.screen.as_ref().map_or(0.0, |screen| screen.miss_bound)
    }

    /// Whether no screening meets the budget more cheaply than a scan of every row.
    pub const fn is_exhaustive(&self) -> bool {
        self.screen.is_none()
    }

    /// The components of a probe that rows are screened by.
    pub fn components(&self) -> Option<usize> {
        self.screen.as_ref().map(|screen| screen.components)
    }

    /// For a probe of any direction: signs that may differ, and the share of strangers that differ
    /// in no more.
    pub fn typical_cut<const D: usize>(&self) -> Option<(u32, f64)> {
        let screen = self.screen.as_ref()?;
        let cut = screen.cut(mean(&of_largest(&screen.differ, D)[..screen.components]));
        Some((cut, Binomial::new(screen.components, 0.5).at_most(cut)))
    }
}

impl Screen {
    fn cheapest(dimension: usize, rows: usize, cosine: f64, budget: f64) -> Option<Self> {
        if cosine <= 0.0 {
            return None;
        }
        let ratio = cosine / (1.0 - cosine * cosine).sqrt();
        let differ = tails(ratio);
        let typical = of_largest(&differ, dimension);
        let bytes = |components: usize| {
            let usual = usual(mean(&typical[..components])) as f64 / MEANS as f64;
            let cut = Binomial::new(components, usual).cut(budget).0;
            let strangers = Binomial::new(components, 0.5).at_most(cut);
            let look = if strangers > MOST_STRANGERS { f64::INFINITY } else { strangers };
            components as f64 / 8.0 + look * (dimension as f64 + SCATTERED)
        };
        let (components, cost) = (2 * GROUP..=MAX_COMPONENTS.min(dimension / 2))
            .step_by(2 * GROUP)
            .map(|components| (components, bytes(components)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        (cost < dimension as f64 / 2.0)
            .then(|| Self::of(components, differ, mean(&typical[..components]), rows, budget))
    }

    fn of(components: usize, differ: Vec<f64>, typical: f64, rows: usize, budget: f64) -> Self {
        let strangers = Binomial::new(components, 0.5);
        let pays = |cut: &u32| strangers.at_most(*cut) <= MOST_STRANGERS;
        let largest_cut = (0..=MAX_CUT).rev().find(pays).unwrap_or(0);
        let (cuts, tails): (Vec<u32>, Vec<f64>) = (0..=MEANS / 2)
            .map(|step| Binomial::new(components, step as f64 / MEANS as f64).cut(budget))
            .zip(0..)
            .map(|((cut, tail), step)| (cut.max((components * step).div_ceil(MEANS) as u32), tail))
            .take_while(|cut| cut.0 <= largest_cut)
            .unzip();
        let usual = cuts.get(usual(typical)).copied().unwrap_or(largest_cut);
        let expected = rows as f64 * strangers.at_most(usual);
        Self {
            components,
            differ,
            largest_cut,
            miss_bound: tails.into_iter().fold(0.0, f64::max),
            cuts,
            quota: (expected + 4.0 * expected.sqrt()) as usize + 8,
            limit: (rows as f64 * MOST_STRANGERS) as usize + 1024,
        }
    }

    /// Signs that may differ where one differs with this probability on average.
    fn cut(&self, mean: f64) -> u32 {
        let step = (mean * MEANS as f64).ceil() as usize;
        self.cuts.get(step).copied().unwrap_or(u32::MAX)
    }

    /// The probe's largest components, half of them positive and half negative, and how many signs
    /// of them may differ; `None` for a probe of which this tells too little.
    pub(crate) fn question<const D: usize>(&self, probe: &Vector<D>) -> Option<Question> {
        let half = self.components / 2;
        let mut counts = [0; 256];
        for component in &probe.components {
            counts[of_value(*component)] += 1;
        }
        // All beyond the least of their sign are picked, and of the least as many as are wanting.
        let (most, mut wanting) = outermost((of_value(1)..256).rev(), &counts, half)?;
        let (least, mut wanting_negative) = outermost(0..of_value(0), &counts, half)?;
        let mut picks = vec![0; self.components + 2];
        let (mut positive, mut negative) = (0, 0);
        for (component, value) in probe.components.iter().enumerate() {
            let value = of_value(*value);
            let is_most = usize::from(value == most) & usize::from(wanting > 0);
            let is_least = usize::from(value == least) & usize::from(wanting_negative > 0);
            wanting -= is_most;
            wanting_negative -= is_least;
            // Without a branch, which would be predicted badly. What is not picked is overwritten.
            picks[half + 1 + negative] = component as u16;
            negative += usize::from(value < least) | is_least;
            picks[positive] = component as u16;
            positive += usize::from(value > most) | is_most;
        }
        picks.remove(half);
        picks.truncate(self.components);
        let scale = probe.inverse_norm * (D as f32).sqrt() * STEPS as f32;
        let differs = |component: &u16| {
            let size = probe.components[usize::from(*component)].unsigned_abs();
            self.differ[((f32::from(size) * scale) as usize).min(LARGEST)]
        };
        let mean = picks.iter().map(differs).sum::<f64>() / self.components as f64;
        let cut = self.cut(mean);
        (cut <= self.largest_cut).then(|| Question { picks: Picks::new(D, picks, half), cut })
    }
}

/// From 0 for the least component to 255.
const fn of_value(component: i8) -> usize {
    (component as i16 + 128) as usize
}

/// The value to which the outermost `wanted` components reach, and how many of it are among them.
fn outermost(
    values: impl Iterator<Item = usize>,
    counts: &[usize; 256],
    mut wanted: usize,
) -> Option<(usize, usize)> {
    for value in values {
        if counts[value] >= wanted {
            return Some((value, wanted));
        }
        wanted -= counts[value];
    }
    None
}

/// The step of [`MEANS`] that few probes are above, where this is the mean of a typical one.
fn usual(typical: f64) -> usize {
    (typical * MEANS as f64).ceil() as usize + 2
}

/// The normal distribution's upper tail at `ratio` times each step of [`STEPS`] to 1.
fn tails(ratio: f64) -> Vec<f64> {
    const FINE: usize = 16;
    let density = |step: f64| {
        let at = ratio * step / STEPS as f64;
        ratio / STEPS as f64 * (-at * at / 2.0).exp() / std::f64::consts::TAU.sqrt()
    };
    let mut below = 0.0;
    (0..=LARGEST)
        .map(|step| {
            let tail = 0.5 - below;
            for fine in 0..FINE {
                let middle = step as f64 + (fine as f64 + 0.5) / FINE as f64;
                below += density(middle) / FINE as f64;
            }
            f64::max(tail, 0.0)
        })
        .collect()
}

/// What `differ` says of each of the largest of `dimension` normal components.
fn of_largest(differ: &[f64], dimension: usize) -> Vec<f64> {
    let sizes = tails(1.0);
    let of = |number: usize| {
        let share = (number as f64 + 0.5) / (2 * dimension) as f64;
        let step = sizes.iter().position(|tail| *tail <= share).unwrap_or(LARGEST);
        differ[step.saturating_sub(1)]
    };
    (0..MAX_COMPONENTS.min(dimension)).map(of).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Probabilities of 0 to n successes.
struct Binomial(Vec<f64>);

impl Binomial {
    fn new(n: usize, p: f64) -> Self {
        // 0 and 1 have no logarithm.
        let p = p.clamp(1e-300, 1.0 - f64::EPSILON);
        let mut choose = 0.0;
        let probability = |k: usize| {
            let term = choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln();
            choose += ((n - k) as f64 / (k + 1) as f64).ln();
            term.exp()
        };
        Self((0..=n).map(probability).collect())
    }

    fn at_most(&self, k: u32) -> f64 {
        self.0.iter().take(k as usize + 1).sum()
    }

    /// The least count that is exceeded with probability `budget` at most, and a bound on that
    /// probability, for a sum of chances that need be neither equal nor independent: negatively
    /// associated ones of the same sum are enough.
    fn cut(&self, budget: f64) -> (u32, f64) {
        let n = self.0.len() - 1;
        // What the count is expected to have above each number: the tail's sum of tails.
        let mut excess = vec![0.0; n + 1];
        let mut tail = 0.0;
        for a in (0..n).rev() {
            tail += self.0[a + 1];
            excess[a] = excess[a + 1] + tail;
        }
        let mut kept = (n as u32, 0.0);
        for k in (0..n).rev() {
            // Markov's inequality for what is above `a`, with the first `a` below that is no better.
            let of = |a: usize| excess[a] / (k + 1 - a) as f64;
            let best = (0..k).rev().find(|a| of(*a) >= of(a + 1)).map_or(0, |a| a + 1);
            let bound = NORMAL * of(best);
            if bound > budget {
                break;
            }
            kept = (k as u32, bound);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_is_that_of_the_tables() {
        let fair = Binomial::new(10, 0.5);
        assert!((fair.at_most(2) - 56.0 / 1024.0).abs() < 1e-12);
        // More than 8 are expected 10 + 2 · 1 times in 1,024, more than 7 45 + 2 · 10 + 3 · 1 times.
        let (cut, bound) = fair.cut(NORMAL * 12.5 / 1024.0);
        assert!(cut == 8 && (bound - NORMAL * 12.0 / 1024.0).abs() < 1e-12);
        assert_eq!(fair.cut(NORMAL * 67.5 / 1024.0).0, 8);
        assert_eq!(fair.cut(NORMAL * 68.5 / 1024.0).0, 7);
        assert_eq!(fair.cut(1e-9), (10, 0.0));
        let long = Binomial::new(1024, 0.3);
        assert!((long.at_most(1024) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn tails_are_those_of_the_tables() {
        let normal = tails(1.0);
        for (at, tail) in [(0, 0.5), (1, 0.158_655_25), (2, 0.022_750_13), (3, 0.001_349_9)] {
            assert!((normal[at * STEPS] - tail).abs() < 1e-5, "{at}: {}", normal[at * STEPS]);
        }
        assert!((tails(0.5)[2 * STEPS] - normal[STEPS]).abs() < 1e-5);
    }

    #[test]
    fn a_plan_keeps_its_budget_or_scans_everything() {
        for dimension in [256, 512, 1024] {
            for hundredths in (0..=100).step_by(if cfg!(miri) { 25 } else { 1 }) {
                let threshold = hundredths as f32 / 100.0;
                let plan = Plan::new(dimension, 100_000, threshold, 1e-6).unwrap();
                assert!(plan.miss_bound() <= 1e-6);
                let typical = match dimension {
                    256 => plan.typical_cut::<256>(),
                    512 => plan.typical_cut::<512>(),
                    _ => plan.typical_cut::<1024>(),
                };
                assert_eq!(typical.is_none(), plan.is_exhaustive());
                assert!(typical.is_none_or(|(_, strangers)| strangers <= MOST_STRANGERS));
            }
            assert!(Plan::new(dimension, 100_000, 0.2, 1e-6).unwrap().is_exhaustive());
            assert!(!Plan::new(dimension, 100_000, 0.8, 1e-6).unwrap().is_exhaustive());
        }
    }

    #[test]
    fn the_largest_components_are_picked_and_equal_ones_too_many_for_a_screening() {
        let plan = Plan::new(256, 1000, 0.7, 1e-6).unwrap();
        let screen = plan.screen.unwrap();
        let components: [i8; 256] =
            std::array::from_fn(|i| if i % 2 == 0 { i as i8 } else { -(i as i8) });
        let vector = Vector::from_components(&components).unwrap();
        let question = screen.question(&vector).unwrap();
        let size = |component: &u16| components[usize::from(*component)].unsigned_abs();
        for (picks, sign) in question.picks.components().into_iter().zip([1, -1]) {
            assert_eq!(picks.len(), screen.components / 2);
            assert!(picks.is_sorted_by(|a, b| a < b), "each once, forwards in memory");
            let has_sign = |each: &i8| each.signum() == sign;
            assert!(picks.iter().all(|each| has_sign(&components[usize::from(*each)])));
            let least = picks.iter().map(size).min().unwrap();
            let larger = components.iter().filter(|each| has_sign(each));
            let larger = larger.filter(|each| each.unsigned_abs() > least).count();
            assert!(larger < picks.len());
        }
        let flat: [i8; 256] = std::array::from_fn(|i| if i % 2 == 0 { 1 } else { -1 });
        let lowest = |at: u8| Plan::new(256, 1000, f32::from(at) / 100.0, 1e-6).unwrap().screen;
        let strict = (0..100).find_map(lowest).unwrap();
        for tells_little in [flat, [-1; 256], [1; 256]] {
            let vector = Vector::from_components(&tells_little).unwrap();
            assert!(strict.question(&vector).is_none());
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
