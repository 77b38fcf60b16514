#![allow(clippy::print_stderr, reason = "a command that reports to a terminal")]
//! Measures the matcher and writes `src/calibrated.rs`.
//!
//! `cargo run --release -p palmgate-palm --example calibrate -- HELD_OUT FILE`, where `HELD_OUT` is
//! what `training/held_out.py` wrote: people whom the network has not seen. The real hands come
//! from `data/hands`; their second captures are simulated.

use palmgate_palm::{Capture, Extractor, Transform, parts, simulate};
use palmgate_protocol::terminal::{Band, Frame};
use palmgate_protocol::{Probe, Purpose, Secret, Template};
use std::{env, error::Error, fmt::Write as _, fs, path::Path, process::ExitCode};

const RATES: [f64; 5] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
const ENROLMENT: u64 = 3;
const PROBES: u64 = 2;
/// Embeddings that go on to the comparison of codes: at 12 µs each this stays at a few milliseconds.
const SHORTLIST: usize = 256;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [held_out, file] => run(Path::new(held_out), Path::new(file)),
        _ => Err("usage: calibrate HELD_OUT FILE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(held_out: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let extractor = Extractor::load()?;
    let transform = Transform::derive(&Secret::new([7; 32]), &"calibration".parse()?, Purpose::Pay);
    let real = real_hands(&extractor, &transform)?;
    let synthetic = synthetic_palms(&extractor, &transform, held_out)?;
    let sets = [
        ("207 real hands of strangers, every capture simulated from one photograph a hand", real),
        ("synthetic people whom the network never saw, synthetic captures", synthetic),
    ];
    fs::write(file, report(&sets))?;
    Ok(())
}

/// Cosine and share of equal hashes of one comparison.
type Pair = (f32, f32);

#[derive(Default)]
struct Scores {
    people: usize,
    refused: usize,
    mated: Vec<Pair>,
    other: Vec<Pair>,
    /// The comparisons within each enrolment, one capture with one.
    enrolments: Vec<Vec<Pair>>,
}

/// A person's reference and probes.
struct Subject {
    template: Template,
    probes: Vec<Probe>,
    enrolment: Vec<Pair>,
}

fn real_hands(extractor: &Extractor, transform: &Transform) -> Result<Scores, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hands");
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    let mut refused = 0;
    let mut subjects = Vec::new();
    for path in files {
        let picture = fs::read(&path)?;
        let capture = |seed: u64| {
            let picture = simulate::second_capture(&picture, seed);
            extractor.capture(&[Frame { band: Band::Visible, picture, region_of: None }])
        };
        let captures: Vec<_> =
            (1..=ENROLMENT + PROBES).filter_map(|seed| capture(seed).ok()).collect();
        match subject(transform, &captures) {
            Some(subject) => subjects.push(subject),
            None => refused += 1,
        }
    }
    Ok(Scores { refused, ..compare(&subjects) })
}

fn synthetic_palms(
    extractor: &Extractor,
    transform: &Transform,
    file: &Path,
) -> Result<Scores, Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let (head, pixels) = bytes.split_at_checked(8).ok_or("the held-out file is cut off")?;
    let captures = u32::from_le_bytes(head[4..].try_into()?) as usize;
    let (regions, _) = pixels.as_chunks::<6400>();
    let mut refused = 0;
    let mut subjects = Vec::new();
    for person in regions.chunks_exact(captures) {
        let captures: Vec<_> =
            person.iter().filter_map(|region| extractor.capture_region(region).ok()).collect();
        match subject(transform, &captures) {
            Some(subject) => subjects.push(subject),
            None => refused += 1,
        }
    }
    Ok(Scores { refused, ..compare(&subjects) })
}

/// The first captures enrol, the others are probes; `None` when there are too few good ones.
fn subject(transform: &Transform, captures: &[Capture]) -> Option<Subject> {
    let (enrolment, probes) = captures.split_at_checked(ENROLMENT as usize)?;
    let reference = |captures: &[&Capture]| transform.unchecked_template(captures);
    let template = reference(&enrolment.iter().collect::<Vec<_>>())?;
    let mut pairs = Vec::new();
    for (index, capture) in enrolment.iter().enumerate() {
        for earlier in &enrolment[..index] {
            pairs.push(parts(&transform.probe(capture), &reference(&[earlier])?));
        }
    }
    let probes: Vec<_> = probes.iter().map(|capture| transform.probe(capture)).collect();
    (!probes.is_empty()).then_some(Subject { template, probes, enrolment: pairs })
}

fn compare(subjects: &[Subject]) -> Scores {
    let mut scores = Scores { people: subjects.len(), ..Scores::default() };
    for (i, person) in subjects.iter().enumerate() {
        scores.enrolments.push(person.enrolment.clone());
        for (j, reference) in subjects.iter().enumerate() {
            for probe in person.probes.iter().take(if i == j { usize::MAX } else { 1 }) {
                let pair = parts(probe, &reference.template);
                if i == j { scores.mated.push(pair) } else { scores.other.push(pair) }
            }
        }
    }
    scores
}

/// The weight at which the embedding moves the scores of strangers half as much as the code does.
/// Simulated captures and synthetic people, which the network was trained on, would ask for more:
/// on second sessions of real hands its errors are several times those of the code.
fn weight(sets: &[(&str, Scores)]) -> f32 {
    let deviation = |pairs: &[Pair], pick: fn(&Pair) -> f32| {
        let mean = pairs.iter().map(pick).sum::<f32>() / pairs.len() as f32;
        let squares = pairs.iter().map(|pair| (pick(pair) - mean).powi(2)).sum::<f32>();
        (squares / pairs.len() as f32).sqrt()
    };
    let ratios = sets.iter().map(|(_, scores)| {
        0.5 * deviation(&scores.other, |pair| pair.1) / deviation(&scores.other, |pair| pair.0)
    });
    (ratios.fold(f32::MAX, f32::min) * 100.0).round() / 100.0
}

fn fused(pairs: &[Pair], weight: f32) -> Vec<f64> {
    sorted(pairs.iter().map(|(cosine, hashes)| f64::from(weight * cosine + hashes)))
}

fn misses(mated: &[f64], threshold: f64) -> f64 {
    mated.partition_point(|&score| score < threshold) as f64 / mated.len() as f64
}

/// The score that non-mated comparisons exceed at `rate`: measured where there are enough of them,
/// beyond that the tail of a generalised Pareto distribution fitted to the top hundredth by
/// probability-weighted moments (Hosking and Wallis 1987).
fn threshold(sorted: &[f64], rate: f64) -> f64 {
    let count = sorted.len();
    let tail = count / 100;
    let start = sorted[count - tail - 1];
    let excess: Vec<f64> = sorted[count - tail..].iter().map(|score| score - start).collect();
    let n = excess.len() as f64;
    let mean = excess.iter().sum::<f64>() / n;
    let weighted = excess
        .iter()
        .enumerate()
        .map(|(i, value)| value * (1.0 - (i as f64 + 0.65) / n))
        .sum::<f64>()
        / n;
    // A bounded tail is not believed: beyond the measured pairs it would promise too much.
    let shape = (2.0 - mean / (mean - 2.0 * weighted)).max(0.0);
    let scale = mean * (1.0 - shape);
    let share = rate / 0.01;
    let reach = if shape < 1e-6 { -share.ln() } else { (share.powf(-shape) - 1.0) / shape };
    start + scale * reach
}

/// The Rust source of the calibration.
fn report(sets: &[(&str, Scores)]) -> String {
    let weight = weight(sets);
    let strictest = |rate: f64| {
        let of = |scores: &Scores| threshold(&fused(&scores.other, weight), rate);
        sets.iter().map(|(_, scores)| of(scores)).fold(f64::MIN, f64::max)
    };
    let thresholds = RATES.map(|rate| (rate, strictest(rate)));
    let consistency = consistency(sets, weight);
    let mut text = format!(
        "//! Written by `examples/calibrate.rs`; not to be changed by hand.\n\n\
         use crate::calibration::{{Calibration, Measurement}};\n\n\
         pub(crate) static CURRENT: Calibration = Calibration {{\n    \
         embedding_weight: {weight:.2},\n    code_weight: 1.0,\n    shortlist: {SHORTLIST},\n    \
         thresholds: &[\n"
    );
    for (rate, limit) in thresholds {
        let _ = writeln!(text, "        ({rate:e}, {limit:.4}),");
    }
    let _ = writeln!(text, "    ],\n    consistency: {consistency:.4},\n    measured: &[");
    for (name, scores) in sets {
        text += &measurement(name, scores, weight, &thresholds, consistency);
    }
    text + "    ],\n};\n"
}

/// What one comparison in ten of two hands reaches, the mean over the sets: strangers' palms are more
/// alike the less a sensor shows of them. An enrolment is to notice a hand of somebody else, and not
/// to refuse a hand that was laid down in three ways.
fn consistency(sets: &[(&str, Scores)], weight: f32) -> f64 {
    let of = |scores: &Scores| {
        let other = fused(&scores.other, weight);
        other[other.len() * 9 / 10]
    };
    sets.iter().map(|(_, scores)| of(scores)).sum::<f64>() / sets.len() as f64
}

fn measurement(
    name: &str,
    scores: &Scores,
    weight: f32,
    thresholds: &[(f64, f64)],
    consistency: f64,
) -> String {
    let (mated, other) = (fused(&scores.mated, weight), fused(&scores.other, weight));
    let list = |of: &dyn Fn(f64) -> f64| {
        let values: Vec<_> =
            thresholds.iter().map(|(_, limit)| format!("{:.2e}", of(*limit))).collect();
        values.join(", ")
    };
    let embeddings: Vec<f64> = sorted(scores.other.iter().map(|pair| f64::from(pair.0)));
    let held = |people: f64| {
        let before = |cosine: f32| {
            let below = embeddings.partition_point(|&score| score <= f64::from(cosine));
            (1.0 - below as f64 / embeddings.len() as f64) * people
        };
        let kept = scores.mated.iter().filter(|pair| before(pair.0) < SHORTLIST as f64).count();
        kept as f64 / scores.mated.len() as f64
    };
    let same = |(cosine, hashes): &Pair| f64::from(weight * cosine + hashes) >= consistency;
    let inconsistent = scores.enrolments.iter().filter(|pairs| !pairs.iter().all(same)).count();
    format!(
        "        Measurement {{\n            data: \"{name}\",\n            people: {},\n            \
         not_enrolled: {},\n            inconsistent: {},\n            mated: {},\n            non_mated: {},\n            \
         false_non_match: &[{}],\n            false_match: &[{}],\n            \
         embedding_equal_error: {:.4},\n            code_equal_error: {:.4},\n            \
         fused_equal_error: {:.4},\n            shortlisted_of_10_000: {:.4},\n            \
         shortlisted_of_100_000: {:.4},\n        }},\n",
        scores.people,
        scores.refused,
        inconsistent,
        mated.len(),
        other.len(),
        list(&|limit| misses(&mated, limit)),
        list(&|limit| 1.0 - misses(&other, limit)),
        equal_error(scores, |pair| pair.0),
        equal_error(scores, |pair| pair.1),
        equal_error(scores, |pair| weight * pair.0 + pair.1),
        held(1e4),
        held(1e5),
    )
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The rate at which misses and false matches are equal.
fn equal_error(scores: &Scores, pick: impl Fn(&Pair) -> f32) -> f64 {
    let mated = sorted(scores.mated.iter().map(|pair| f64::from(pick(pair))));
    let other = sorted(scores.other.iter().map(|pair| f64::from(pick(pair))));
    let rates = other
        .iter()
        .enumerate()
        .map(|(i, &limit)| (misses(&mated, limit), 1.0 - i as f64 / other.len() as f64));
    rates
        .min_by(|a, b| (a.0 - a.1).abs().total_cmp(&(b.0 - b.1).abs()))
        .map_or(1.0, |(miss, false_match)| f64::midpoint(miss, false_match))
}
