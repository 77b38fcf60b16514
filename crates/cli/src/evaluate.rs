//! `palmgate evaluate`: recognition performance on anybody's own pictures.

use crate::format::{heading, say};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use palmgate_evaluation::{Kind, Options, Rates, Report, Stage};
use std::{fs, path::PathBuf, process::ExitCode, sync::Mutex};

/// What to evaluate.
#[derive(clap::Args, Clone, Debug)]
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
    };
    let bar = Bar::default();
    let progress = |stage, done, all| bar.show(stage, done, all);
    let report = palmgate_evaluation::evaluate(&arguments.directory, &options, &progress)?;
    bar.finish();
    palmgate_evaluation::write(&report, &arguments.out)?;
    if let Some(path) = &arguments.json {
        let json = serde_json::to_vec_pretty(&report)?;
        fs::write(path, json).with_context(|| path.display().to_string())?;
    }
    summary(&report);
    say(&format!("report     {}", arguments.out.join("report.md").display()));
    Ok(ExitCode::SUCCESS)
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
