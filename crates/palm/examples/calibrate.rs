#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a command that reports to a terminal"
)]
//! Measures the matcher on simulated captures, writes the calibration that is built in, and prints
//! the scoring that both sets ask for, which belongs into `src/scoring.rs`.
//!
//! `cargo run --release -p palmgate-palm --example calibrate -- HELD_OUT FILE`, where `HELD_OUT` is
//! what `training/held_out.py` wrote: people whom the network has not seen. The real hands come
//! from `data/hands`; their second captures are simulated.

use palmgate_palm::{
    Calibration, Capture, DataSet, Extractor, Origin, Scored, Transform, parts, scoring, simulate,
};
use palmgate_protocol::terminal::{Band, Frame};
use palmgate_protocol::{Probe, Purpose, Secret, Template};
use std::{env, error::Error, fs, path::Path, process::ExitCode};

/// At which a stranger may find somebody in a gallery.
const WANTED: f64 = 1e-2;
const ENROLMENT: u64 = 3;
const PROBES: u64 = 2;

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
    let sets = [("photographed hands", real), ("synthetic people", synthetic)];
    println!(
        "the sets ask for an embedding weight of {:.2} and a consistency of {:.4}; in use are {:?}",
        weight(&sets),
        consistency(&sets, scoring().embedding_weight),
        scoring()
    );
    for (name, scores) in &sets {
        println!("{name}: {}", measurement(scores));
    }
    let descriptions = [
        "hands of strangers, every capture simulated from one photograph a hand",
        "people whom the network never saw, drawn with their captures",
    ];
    let scored = sets.iter().zip(descriptions).map(|((name, scores), description)| Scored {
        set: DataSet {
            name: (*name).to_owned(),
            description: description.to_owned(),
            origin: Origin::Simulated,
            identities: scores.people,
            genuine: 0,
            impostor: 0,
        },
        genuine: plain(&scores.mated),
        impostor: plain(&scores.other),
    });
    let calibration = Calibration::of(scored.collect(), WANTED)?;
    fs::write(file, calibration.to_json()?)?;
    Ok(())
}

/// Scores as the matcher makes them.
fn plain(pairs: &[Pair]) -> Vec<f32> {
    let scoring = scoring();
    pairs
        .iter()
        .map(|(cosine, hashes)| scoring.embedding_weight * cosine + scoring.code_weight * hashes)
        .collect()
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

/// How the parts of the score do on their own.
fn measurement(scores: &Scores) -> String {
    let weight = scoring().embedding_weight;
    let embeddings: Vec<f64> = sorted(scores.other.iter().map(|pair| f64::from(pair.0)));
    let held = |people: f64| {
        let before = |cosine: f32| {
            let below = embeddings.partition_point(|&score| score <= f64::from(cosine));
            (1.0 - below as f64 / embeddings.len() as f64) * people
        };
        let shortlist = scoring().shortlist as f64;
        let kept = scores.mated.iter().filter(|pair| before(pair.0) < shortlist).count();
        kept as f64 / scores.mated.len() as f64
    };
    let same = |(cosine, hashes): &Pair| weight * cosine + hashes >= scoring().consistency;
    let inconsistent = scores.enrolments.iter().filter(|pairs| !pairs.iter().all(same)).count();
    format!(
        "{} with a reference, {} not enrolled, {inconsistent} inconsistent; EER of embedding {:.4}, \
         code {:.4}, both {:.4}; mates on the shortlist of 10,000: {:.4}, of 100,000: {:.4}",
        scores.people,
        scores.refused,
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
