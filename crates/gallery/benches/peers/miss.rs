//! How often the cascade misses a row at the threshold, beside the computed bound.

use crate::{BATCH, Result};
use palmgate_gallery::{Hit, Plan, RowId, Shard, Vector};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::Serialize;
use serde_json::{Value, json};

const ROWS: usize = 4096;
/// Rounding to 8 bits moves a cosine by less than this, so that the row is at the threshold.
const ROUNDING: f32 = 0.003;

#[derive(Serialize)]
pub(crate) struct Misses {
    pub(crate) dimensions: usize,
    pub(crate) threshold: f32,
    pub(crate) bound: f64,
    pub(crate) probes: usize,
    pub(crate) seen: usize,
}

/// Two dimensions, at a threshold and budgets; the first is what the others are compared for.
pub(crate) fn all(threshold: f32) -> Result<Vec<Misses>> {
    Ok(vec![
        count::<512>(threshold, 1e-6, 5_000_000)?,
        count::<512>(threshold, 1e-3, 200_000)?,
        count::<512>(threshold, 1e-2, 200_000)?,
        count::<256>(0.7, 1e-6, 5_000_000)?,
        count::<256>(0.7, 1e-3, 200_000)?,
        count::<256>(0.7, 1e-2, 200_000)?,
    ])
}

/// Probes that are all just at the threshold, which is where misses are likeliest. Of two threads,
/// to be done in half the time.
fn count<const D: usize>(threshold: f32, budget: f64, probes: usize) -> Result<Misses> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let rows: Vec<[f32; D]> = (0..ROWS).map(|_| direction(&mut random)).collect();
    let shard = Shard::<D>::new(ROWS);
    for (row, vector) in (0..).zip(&rows) {
        shard.insert(RowId(row), &Vector::from_floats(vector)?, &())?;
    }
    let plan = shard.plan(threshold, budget)?;
    let missed = |seed: u64| -> usize {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let batch = |first: usize| missed(&shard, &rows, &plan, first, &mut random);
        (0..probes / 2).step_by(BATCH).map(batch).sum()
    };
    let seen = std::thread::scope(|scope| {
        let other = scope.spawn(|| missed(2));
        missed(3) + other.join().unwrap_or(probes)
    });
    Ok(Misses { dimensions: D, threshold, bound: plan.miss_bound(), probes, seen })
}

/// How many of a batch of probes, made from the rows from `first` on, do not find their row.
fn missed<const D: usize>(
    shard: &Shard<D>,
    rows: &[[f32; D]],
    plan: &Plan,
    first: usize,
    random: &mut ChaCha8Rng,
) -> usize {
    let of = |i: usize| &rows[(first + i) % ROWS];
    let mut probe =
        |i: usize| Vector::from_floats(&mate(of(i), plan.threshold() + ROUNDING, random));
    let probes: Vec<Vector<D>> = (0..BATCH).filter_map(|i| probe(i).ok()).collect();
    let found = shard.above(&probes.iter().collect::<Vec<_>>(), plan, 1).unwrap_or_default();
    let is_found = |(hits, i): &(&Vec<Hit>, usize)| {
        hits.first().is_some_and(|hit| hit.row.0 == (i % ROWS) as u64)
    };
    BATCH - found.iter().zip(first..).filter(is_found).count()
}

/// What the plans of other thresholds let through, and what they miss at most.
pub(crate) fn plans(budget: f64) -> Result<Vec<Value>> {
    fn of<const D: usize>(budget: f64) -> Result<Vec<Value>> {
        let shard = Shard::<D>::new(1);
        let mut plans = Vec::new();
        for hundredths in 20..=95 {
            let threshold = hundredths as f32 / 100.0;
            let plan = shard.plan(threshold, budget)?;
            let typical = plan.components().zip(plan.typical_cut::<D>());
            plans.extend(typical.map(|(components, (cut, strangers))| {
                json!({
                    "dimensions": D,
                    "threshold": threshold,
                    "components": components,
                    "cut": cut,
                    "strangers": strangers,
                    "miss_bound": plan.miss_bound(),
                })
            }));
        }
        Ok(plans)
    }
    Ok([of::<256>(budget)?, of::<512>(budget)?, of::<1024>(budget)?].concat())
}

fn direction<const D: usize>(random: &mut ChaCha8Rng) -> [f32; D] {
    let vector: [f32; D] = std::array::from_fn(|_| normal(random));
    let length = vector.iter().map(|each| each * each).sum::<f32>().sqrt();
    vector.map(|each| each / length)
}

/// A direction at exactly `cosine` from another.
fn mate<const D: usize>(of: &[f32; D], cosine: f32, random: &mut ChaCha8Rng) -> [f32; D] {
    let away: [f32; D] = std::array::from_fn(|_| normal(random));
    let along: f32 = of.iter().zip(&away).map(|(of, away)| of * away).sum();
    let away: [f32; D] = std::array::from_fn(|i| away[i] - along * of[i]);
    let length = away.iter().map(|each| each * each).sum::<f32>().sqrt();
    let aside = (1.0 - cosine * cosine).sqrt() / length;
    std::array::from_fn(|i| cosine * of[i] + aside * away[i])
}

/// Of about a normal distribution: the direction of many such is that of a sphere.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let bits = random.next_u64();
    (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as f32 / 65_536.0 - 0.5).sum()
}
