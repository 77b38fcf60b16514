//! A ready region to a template, and each network, beside onnxruntime with the same models in one run,
//! both with one thread, in turns. Of a turn the fastest run counts, of the turns the median: what
//! else the machine does slows long runs more than short ones.
//!
//! ```sh
//! python3 -m venv /tmp/onnxruntime && /tmp/onnxruntime/bin/pip install onnxruntime
//! PALMGATE_PYTHON=/tmp/onnxruntime/bin/python cargo bench -p palmgate-palm --bench beside
//! ```
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a command that reports to a terminal and is told where Python is"
)]

mod hand;

use criterion::Criterion;
use palmgate_palm::{Extractor, Transform};
use palmgate_protocol::terminal::{Band, Frame};
use palmgate_protocol::{Biometric, Purpose, Secret};
use std::{
    env,
    error::Error,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// Turns of both sides, and runs in each.
const TURNS: usize = 21;
const RUNS: usize = 10;
/// The networks, and how often a capture of a whole picture runs each.
const MODELS: [(&str, u32); 3] =
    [("palm_detection_lite.onnx", 1), ("hand_landmark_lite.onnx", 2), ("palm_embedding.onnx", 1)];

struct Ready {
    extractor: Extractor,
    transform: Transform,
    picture: [Frame; 1],
    region: [Frame; 1],
}

impl Ready {
    fn new() -> Self {
        let extractor = Extractor::load().expect("the models are in the program");
        let (key, tenant) = (Secret::new([1; 32]), "chain".parse().expect("a name"));
        let transform = Transform::derive(&key, &tenant, Purpose::Pay);
        let picture = Biometric::new(hand::large());
        let picture = Frame { band: Band::Visible, picture, region_of: None };
        let region = extractor.cut(&picture).expect("a good picture");
        Self { extractor, transform, picture: [picture], region: [region] }
    }

    fn template(&self) {
        let capture = self.extractor.capture(black_box(&self.region)).expect("a good region");
        black_box(self.transform.template(&[&capture]).expect("one capture agrees with itself"));
    }

    /// One run of each network, with what it is given and answers brought into form.
    fn networks(&self) -> [Duration; 3] {
        let capture = self.extractor.capture(&self.picture).expect("a good picture");
        let steps = capture.steps;
        let each = [steps.detect, steps.landmarks, steps.embed];
        std::array::from_fn(|model| each[model] / MODELS[model].1)
    }
}

/// onnxruntime in a process of its own.
struct Other {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

impl Other {
    fn start(python: &str) -> Result<Self, Box<dyn Error>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut process = Command::new(python)
            .arg(root.join("benches/beside.py"))
            .args(MODELS.map(|(file, _)| root.join("models").join(file)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = process.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut other = Self { process, ask, answers, version: String::new() };
        let mut line = String::new();
        other.answers.read_line(&mut line)?;
        let said: serde_json::Value = serde_json::from_str(&line)?;
        said["version"].as_str().unwrap_or_default().clone_into(&mut other.version);
        Ok(other)
    }

    /// Microseconds of each network.
    fn networks(&mut self) -> Result<[f64; 3], Box<dyn Error>> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn compare(ready: &Ready, python: &str) -> Result<(), Box<dyn Error>> {
    let mut other = Other::start(python)?;
    let mut ours: [Vec<f64>; 4] = Default::default();
    let mut theirs: [Vec<f64>; 3] = Default::default();
    for _ in 0..TURNS {
        let mut fastest = [Duration::MAX; 4];
        for _ in 0..RUNS {
            let begun = Instant::now();
            ready.template();
            fastest[3] = fastest[3].min(begun.elapsed());
        }
        for _ in 0..RUNS {
            let took = ready.networks();
            fastest.iter_mut().zip(took).for_each(|(fastest, took)| *fastest = took.min(*fastest));
        }
        ours.iter_mut().zip(fastest).for_each(|(each, took)| each.push(micros(took)));
        for (each, took) in theirs.iter_mut().zip(other.networks()?) {
            each.push(took);
        }
    }
    let (ours, theirs) = (ours.map(median), theirs.map(median));
    println!("one thread, microseconds; onnxruntime {}", other.version);
    for (model, (file, _)) in MODELS.iter().enumerate() {
        let (own, beside) = (ours[model], theirs[model]);
        println!("{file:<26} {own:>8.0}, onnxruntime {beside:>8.0}: {:.2} times", own / beside);
    }
    let (own, beside) = (ours[3], theirs[2]);
    println!(
        "ready region to template   {own:>8.0}, its network in onnxruntime {beside:>8.0}: {:.2} times",
        own / beside
    );
    Ok(())
}

fn main() {
    let ready = Ready::new();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    criterion.bench_function("ready region to template", |bencher| {
        bencher.iter(|| ready.template());
    });
    criterion.final_summary();
    let Ok(python) = env::var("PALMGATE_PYTHON") else {
        println!("PALMGATE_PYTHON names no Python with onnxruntime: nothing to compare with");
        return;
    };
    if let Err(error) = compare(&ready, &python) {
        println!("{python} cannot be compared with: {error}");
        std::process::exit(1);
    }
}
