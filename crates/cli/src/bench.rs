//! `palmgate bench`: one scan, step by step, against many people.

use crate::{
    control::block_on,
    format::{heading, millis, percentile, say},
    hands,
    stage::{Gateway, Shape, WITHOUT_SLOTS},
};
use anyhow::{Result, bail};
use palmgate_gateway::control::ScanSteps;
use palmgate_protocol::{
    Hand, Name, Purpose,
    terminal::{Age, AnswerBody, Enrolment, Intent},
};
use palmgate_terminal::{Presentation, simulated};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

/// The step times of one scan.
pub(crate) type Scan = ScanSteps;

/// The neural networks' steps: everything else is ours.
const NETS: [&str; 3] = ["detect", "landmarks", "embed"];

/// How to measure.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// People in the shard: random protected templates.
    #[arg(long, default_value_t = 10_000)]
    people: usize,
    /// Scans that are measured.
    #[arg(long, default_value_t = 300)]
    scans: usize,
    /// Pictures of hands, instead of the ones that come with this program.
    #[arg(long)]
    pictures: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    block_on(async {
        let directory = tempfile::Builder::new().prefix("palmgate-bench-").tempdir()?;
        let (tenant, store): (Name, Name) = ("bench".parse()?, "store".parse()?);
        let shape = Shape {
            strangers: arguments.people,
            more: WITHOUT_SLOTS,
            ..Shape::new(&tenant, &store)
        };
        let mut gateway = Gateway::start(directory.path(), &shape).await?;
        let kiosk = gateway.terminal("kiosk-1", &["entry"], true).await?;
        let mut enrolled = Vec::new();
        for picture in hands::load(arguments.pictures.as_deref())? {
            if enrolled.len() == 20 {
                break;
            }
            let consent = simulated::consent(Purpose::Entry, palmgate_gateway::NOTICE, "fr");
            let enrolment = Enrolment {
                captures: picture.captures(Hand::Right),
                consents: vec![consent],
                age: Age::Adult,
                card_token: None,
                phone: None,
                authorisation: None,
                release: None,
                replaces: None,
                possession: None,
                verdict: None,
            };
            if let AnswerBody::Enrolled { .. } = kiosk.enrol(enrolment).await?.body {
                enrolled.push(picture);
            }
        }
        if enrolled.is_empty() {
            bail!("no picture could be enrolled");
        }
        let mut empty = Vec::new();
        for _ in 0..50 {
            // Above 50 messages a second the broker would hold the terminal back.
            tokio::time::sleep(Duration::from_millis(40)).await;
            empty.push(kiosk.ping().await?);
        }
        empty.sort_unstable();
        let _ = gateway.control.steps().await?;
        let (mut latencies, mut accepted) = (Vec::new(), 0);
        for number in 0..arguments.scans {
            let picture = &enrolled[number % enrolled.len()];
            let frames = picture.other_frames(1_000 + number as u64);
            let hand = Presentation { frames, ..Presentation::default() };
            let begun = Instant::now();
            let answer = kiosk.scan(Intent::Entry, hand).await?;
            latencies.push(begun.elapsed());
            accepted += usize::from(matches!(answer.body, AnswerBody::Accepted(_)));
        }
        latencies.sort_unstable();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let steps = gateway.control.steps().await?;
        let people = arguments.people;
        heading(&format!(
            "{} scans one after another, {people} people and {} hands",
            arguments.scans,
            enrolled.len()
        ));
        print_table(&latencies, &steps);
        say(&format!(
            "an empty request and its answer: p50 {} ms, p99 {} ms",
            millis(percentile(&empty, 50.0)),
            millis(percentile(&empty, 99.0))
        ));
        say(&format!("accepted {accepted} of {}", arguments.scans));
        if let Some(memory) = gateway.process.memory_mib() {
            say(&format!("memory   {memory:.0} MiB resident in the gateway"));
        }
        gateway.process.stop()?;
        Ok(ExitCode::SUCCESS)
    })
}

/// A table by step, from the gateway's own clock, and the time seen at the terminal.
pub(crate) fn print_table(latencies: &[Duration], scans: &[Scan]) {
    let mut order: Vec<String> = Vec::new();
    let mut steps: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for scan in scans {
        for (step, micros) in scan {
            if !order.contains(step) {
                order.push(step.clone());
            }
            steps.entry(step.clone()).or_default().push(Duration::from_micros(*micros));
        }
    }
    say(&format!("{:<28} {:>10} {:>10}", "step", "p50 ms", "p99 ms"));
    let (mut sum, mut nets) = (Duration::ZERO, Duration::ZERO);
    for step in order.iter().filter(|step| *step != "total") {
        let Some(times) = steps.get_mut(step) else { continue };
        times.sort_unstable();
        let half = percentile(times, 50.0);
        row(step, half, percentile(times, 99.0));
        sum += half;
        if NETS.contains(&step.as_str()) {
            nets += half;
        }
    }
    let terminal = percentile(latencies, 50.0);
    row("at the terminal", terminal, percentile(latencies, 99.0));
    let ratio = terminal.as_secs_f64() / sum.as_secs_f64().max(f64::EPSILON);
    say(&format!(
        "sum of the steps' p50 {} ms; at the terminal {ratio:.2} times that",
        millis(sum)
    ));
    say(&format!(
        "everything but the networks: {} ms in the gateway, {} ms with the terminal and the way",
        millis(sum.saturating_sub(nets)),
        millis(terminal.saturating_sub(nets))
    ));
}

fn row(name: &str, half: Duration, most: Duration) {
    say(&format!("{name:<28} {:>10} {:>10}", millis(half), millis(most)));
}
