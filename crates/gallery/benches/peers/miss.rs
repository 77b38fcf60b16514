//! How often the cascade misses a row at the threshold, beside the computed bound.

use crate::{BATCH, Result, measure::DIMENSIONS};
use palmgate_gallery::{RowId, Shard, Vector};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::Serialize;
use serde_json::{Value, json};

const ROWS: usize = 4096;
/// Rounding to 8 bits moves a cosine by less than this, so that the row is at the threshold.
const ROUNDING: f32 = 0.002;

#[derive(Serialize)]
pub(crate) struct Misses {
    pub(crate) bound: f64,
    pub(crate) seen: usize,
    pub(crate) probes: usize,
}

/// Probes that are all just at the threshold, which is where misses are likeliest.
pub(crate) fn count(threshold: f32, budget: f64, probes: usize) -> Result<Misses> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let rows: Vec<[f32; DIMENSIONS]> = (0..ROWS).map(|_| direction(&mut random)).collect();
    let shard = Shard::new(ROWS);
    for (row, vector) in (0..).zip(&rows) {
        shard.insert(RowId(row), &Vector::from_floats(vector)?, &())?;
    }
    let plan = shard.plan(threshold, budget)?;
    let mut seen = 0;
    for first in (0..probes).step_by(BATCH) {
        let mates = |i: usize| mate(&rows[(first + i) % ROWS], threshold + ROUNDING, &mut random);
        let probes: Vec<[f32; DIMENSIONS]> = (0..BATCH).map(mates).collect();
        let probes: Vec<Vector<DIMENSIONS>> = probes
            .iter()
            .map(|probe| Vector::from_floats(probe))
            .collect::<std::result::Result<_, _>>()?;
        let found = shard.above(&probes.iter().collect::<Vec<_>>(), &plan, 1)?;
        for (hits, i) in found.iter().zip(first..) {
            seen += usize::from(hits.first().is_none_or(|hit| hit.row.0 != (i % ROWS) as u64));
        }
    }
    Ok(Misses { bound: plan.miss_bound(), seen, probes })
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

fn direction(random: &mut ChaCha8Rng) -> [f32; DIMENSIONS] {
    let vector: [f32; DIMENSIONS] = std::array::from_fn(|_| normal(random));
    let length = vector.iter().map(|each| each * each).sum::<f32>().sqrt();
    vector.map(|each| each / length)
}

/// A direction at exactly `cosine` from another.
fn mate(of: &[f32; DIMENSIONS], cosine: f32, random: &mut ChaCha8Rng) -> [f32; DIMENSIONS] {
    let away: [f32; DIMENSIONS] = std::array::from_fn(|_| normal(random));
    let along: f32 = of.iter().zip(&away).map(|(of, away)| of * away).sum();
    let away: [f32; DIMENSIONS] = std::array::from_fn(|i| away[i] - along * of[i]);
    let length = away.iter().map(|each| each * each).sum::<f32>().sqrt();
    let aside = (1.0 - cosine * cosine).sqrt() / length;
    std::array::from_fn(|i| cosine * of[i] + aside * away[i])
}

/// Of about a normal distribution: the direction of many such is that of a sphere.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let bits = random.next_u64();
    (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as f32 / 65_536.0 - 0.5).sum()
}
