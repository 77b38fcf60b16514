//! Whether the time of a search tells if the probe's owner is enrolled. On a machine with nothing
//! else to do: `cargo test --release -p palmgate-gallery --test timing -- --ignored`.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use palmgate_gallery::{Hit, RowId, SearchError, Shard, Vector};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use std::{hint::black_box, time::Instant};

const ROWS: u64 = 20_000;
const PROBES: usize = 10_000;
const THRESHOLD: f32 = 0.6;

type Found = Result<Vec<Vec<Hit>>, SearchError>;

fn direction(random: &mut ChaCha8Rng) -> [f32; 512] {
    std::array::from_fn(|_| {
        let bits = random.next_u64();
        (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as f32 / 65_536.0 - 0.5).sum()
    })
}

fn vector(components: &[f32; 512]) -> Vector<512> {
    Vector::from_floats(components).expect("a direction")
}

/// Welch's t of the times of enrolled and of unknown probes, and the difference of their means as a
/// share. The slowest tenth are interruptions and left out.
fn welch(probes: &[(bool, Vector<512>)], search: impl Fn(&Vector<512>) -> Found) -> (f64, f64) {
    let time = |probe: &Vector<512>| {
        // The least of three: what the machine adds is left out.
        let once = || {
            let start = Instant::now();
            let _ = black_box(search(black_box(probe)));
            start.elapsed().as_nanos()
        };
        (0..3).map(|_| once()).min().expect("three") as f64
    };
    let times: Vec<(bool, f64)> =
        probes.iter().map(|(enrolled, probe)| (*enrolled, time(probe))).collect();
    let mut sorted: Vec<f64> = times.iter().map(|each| each.1).collect();
    sorted.sort_by(f64::total_cmp);
    let slowest = sorted[sorted.len() * 9 / 10];
    let of = |enrolled: bool| {
        let some: Vec<f64> = times
            .iter()
            .filter(|each| each.0 == enrolled && each.1 <= slowest)
            .map(|each| each.1)
            .collect();
        let n = some.len() as f64;
        let mean = some.iter().sum::<f64>() / n;
        let spread = some.iter().map(|each| (each - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, spread / n)
    };
    let ((inside, a), (outside, b)) = (of(true), of(false));
    ((inside - outside) / (a + b).sqrt(), (inside - outside) / outside)
}

#[test]
#[ignore = "needs a machine with nothing else to do"]
fn time_does_not_tell_who_is_enrolled() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let rows: Vec<[f32; 512]> = (0..ROWS).map(|_| direction(&mut random)).collect();
    let shard = Shard::new(rows.len());
    for (row, components) in (0..).zip(&rows) {
        shard.insert(RowId(row), &vector(components), &()).expect("room");
    }
    let probe = |i: usize| {
        // Which is which is not in any order that a clock or a cache could follow.
        let enrolled = random.next_u32() & 1 == 1;
        let (aside, stranger) = (direction(&mut random), direction(&mut random));
        // Captures of both are made alike.
        let person = if enrolled { &rows[i * 7 % rows.len()] } else { &stranger };
        let capture = std::array::from_fn(|i| aside[i] * 0.8 + person[i]);
        (enrolled, vector(&capture))
    };
    let probes: Vec<(bool, Vector<512>)> = (0..PROBES).map(probe).collect();
    let plan = shard.plan(THRESHOLD, 1e-6).expect("in range");
    let found = |probe| shard.above(&[probe], &plan, 1).expect("rows")[0].len();
    assert!(probes.iter().all(|(enrolled, probe)| found(probe) == usize::from(*enrolled)));
    let cascade = welch(&probes, |probe| shard.above(&[probe], &plan, 8));
    let exhaustive = welch(&probes, |probe| shard.nearest(&[probe], 8));
    println!("cascade: t {:.2}, {:+.2} %", cascade.0, 100.0 * cascade.1);
    println!("exhaustive scan: t {:.2}, {:+.2} %", exhaustive.0, 100.0 * exhaustive.1);
    assert!(exhaustive.0.abs() < 4.5 && cascade.0.abs() < 4.5);
}
