//! `palmgate evaluate`: recognition performance on anybody's own pictures.

use crate::format::{heading, say};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use palmgate_evaluation::{Kind, Options, Purported, Rates, Report, Stage};
use palmgate_ledger::note::Signer;
use palmgate_matcher::Models;
use palmgate_palm::{Calibration, Extractor, Origin};
use std::{fs, path::PathBuf, process::ExitCode, sync::Mutex};

/// What to evaluate.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Arguments {
    /// A folder of `IDENTITY/SESSION-SAMPLE.png` (or .jpg): one hand of one person each, the session
    /// before the first `-`.
    directory: PathBuf,
    /// Write the figures here, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report and its plots into this folder.
    #[arg(long, default_value = "evaluation")]
    out: PathBuf,
    /// The pictures are ready regions of interest, not whole hands (otherwise found out).
    #[arg(long, conflicts_with = "hands")]
    roi: bool,
    /// The pictures are whole hands (otherwise found out).
    #[arg(long)]
    hands: bool,
    /// The pictures were taken in near-infrared light.
    #[arg(long)]
    near_infrared: bool,
    /// A CSV file `file,hand,band,subgroup` about some or all pictures; the band is visible or nir.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Threads; all cores otherwise.
    #[arg(long)]
    threads: Option<usize>,
    /// Write a calibration here: what a store's `[palm] calibration` takes its thresholds from.
    #[arg(long, requires = "description")]
    calibration: Option<PathBuf>,
    /// Whose hands the pictures show, by which camera and how often: goes into the calibration.
    #[arg(long)]
    description: Option<String>,
    /// The captures were computed, not taken by a camera: the calibration says so.
    #[arg(long, requires = "calibration")]
    simulated: bool,
    /// The rate at which a stranger may find somebody in the largest gallery of the calibration.
    #[arg(long, default_value_t = 0.01, requires = "calibration")]
    fpir: f64,
    /// Models with a signed registry, in place of those that are built in: what `[palm] models` names.
    #[arg(long, requires = "signer")]
    models: Option<PathBuf>,
    /// A trusted signer's verifier key (C2SP) for the registry; at least twice.
    #[arg(long, requires = "models")]
    signer: Vec<Signer>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kind = match (arguments.roi, arguments.hands) {
        (true, _) => Some(Kind::Region),
        (_, true) => Some(Kind::Hand),
        _ => None,
    };
    let options = Options {
        kind,
        near_infrared: arguments.near_infrared,
        manifest: arguments.manifest.clone(),
        threads: arguments.threads,
        calibration: arguments.calibration.as_ref().map(|_| purported(arguments)),
    };
    let bar = Bar::default();
    let progress = |stage, done, all| bar.show(stage, done, all);
    let extractor = match &arguments.models {
        Some(models) => Models::read(models, &arguments.signer)?.extractor()?,
        None => Extractor::load()?,
    };
    let directory = &arguments.directory;
    let report = palmgate_evaluation::evaluate_with(&extractor, directory, &options, &progress)?;
    bar.finish();
    palmgate_evaluation::write(&report, &arguments.out)?;
    if let Some(path) = &arguments.json {
        let json = serde_json::to_vec_pretty(&report)?;
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    if let (Some(path), Some(calibration)) = (&arguments.calibration, &report.calibration) {
        let json = calibration.to_json()?;
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    summary(&report);
    if let Some(calibration) = &report.calibration {
        thresholds(calibration);
    }
    say(&format!("report     {}", arguments.out.join("report.md").display()));
    Ok(ExitCode::SUCCESS)
}

fn purported(arguments: &Arguments) -> Purported {
    let name = arguments.directory.file_name().unwrap_or_else(|| arguments.directory.as_os_str());
    Purported {
        name: name.to_string_lossy().into_owned(),
        description: arguments.description.clone().unwrap_or_default(),
        origin: if arguments.simulated { Origin::Simulated } else { Origin::Taken },
        false_positive_identification_rate: arguments.fpir,
    }
}

fn thresholds(calibration: &Calibration) {
    say("calibration");
    for point in calibration.points() {
        say(&format!(
            "           {:.4} for FMR {:e}: seen {:.1e}, at most {:.1e}; searches among {} references",
            point.threshold, point.target, point.fmr, point.fmr_upper, point.largest_gallery
        ));
    }
}

fn summary(report: &Report) {
    heading(&format!("{} pictures of {} hands", report.pictures, report.identities));
    say(&format!(
        "failed     {} of pictures, {} of enrolments",
        percent(report.failure_to_acquire),
        percent(report.failure_to_enrol)
    ));
    for failure in report.failures.iter().take(5) {
        say(&format!("           {}: {}", failure.picture, failure.reason));
    }
    if report.failures.len() > 5 {
        say(&format!("           and {} more, named in the report", report.failures.len() - 5));
    }
    rates("all", &report.all);
    if let Some(cross) = &report.cross_session {
        rates("sessions", cross);
    }
}

fn rates(name: &str, rates: &Rates) {
    say(&format!(
        "{name:<10} {} mated and {} non-mated comparisons: EER {}, rank 1 {}",
        rates.pairs.genuine,
        rates.pairs.impostor,
        percent(rates.eer),
        percent(rates.rank1)
    ));
    for point in &rates.operating_points {
        let (low, high) = point.fnmr_bounds;
        say(&format!(
            "           FNMR {} ({} to {}) at FMR {:e}",
            percent(point.fnmr),
            percent(low),
            percent(high),
            point.target
        ));
    }
}

fn percent(rate: f64) -> String {
    format!("{:.2} %", rate * 100.0)
}

/// One bar after the other.
#[derive(Default)]
struct Bar(Mutex<Option<(Stage, ProgressBar)>>);

impl Bar {
    fn show(&self, stage: Stage, done: usize, all: usize) {
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            let what = match stage {
                Stage::Pictures => "pictures",
                Stage::Comparisons => "comparisons",
            };
            let bar = ProgressBar::new(all as u64).with_message(what);
            if let Ok(style) =
                ProgressStyle::with_template("{msg:<12} {wide_bar} {pos}/{len} {eta}")
            {
                bar.set_style(style);
            }
            *current = Some((stage, bar));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(bar.position().max(done as u64));
        }
    }

    fn finish(&self) {
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, bar)) = current.take() {
            bar.finish_and_clear();
        }
    }
}
