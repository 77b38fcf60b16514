//! Recognition performance on a folder of pictures, reported as ISO/IEC 19795-1 asks: how many
//! comparisons of whom, which captures failed and why, error rates with their bounds.
//!
//! A folder holds `IDENTITY/SESSION-SAMPLE.png` (or `.jpg`, `.jpeg`): one hand of one person is one
//! identity, what stands before the first `-` of a file's name is the session. The reference of an
//! identity and session is made as an enrolment makes it, from the first captures of the session,
//! three at most; every capture that is in no reference of that session is a probe. So each figure
//! is one of the whole pipeline: picture to decision.
//!
//! Figures are of the pictures they were measured on. What so few pairs cannot show is left out,
//! not extrapolated.

#![allow(
    clippy::cast_possible_wrap,
    clippy::many_single_char_names,
    reason = "counts become rates, points go by their usual letters"
)]

mod comparisons;
mod dataset;
mod extraction;
mod figures;
mod markdown;
mod plots;
mod report;
mod statistics;

pub use dataset::{Dataset, DatasetError, Sample};
pub use extraction::Kind;
pub use report::{Failure, OpenSet, OperatingPoint, Rates, Report, Subgroup};

use palmgate_palm::{
    Calibration, CalibrationError, DataSet, Extractor, ModelError, Origin, Scored,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// How to evaluate.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the pictures show; found out from some of them when `None`.
    pub kind: Option<Kind>,
    /// Whether the pictures were taken in near-infrared light; a manifest has the last word.
    pub near_infrared: bool,
    /// `file,hand,band,subgroup`, for pictures that it names.
    pub manifest: Option<PathBuf>,
    /// Threads; all cores when `None`.
    pub threads: Option<usize>,
    /// What to calibrate for; no calibration is made when `None`.
    pub calibration: Option<Purported>,
}

/// What a calibration says of its pictures, and the gallery that it is for.
#[derive(Clone, Debug)]
pub struct Purported {
    /// What the set of pictures is called.
    pub name: String,
    /// Whose hands, by which camera, how often.
    pub description: String,
    /// Whether a camera took every capture.
    pub origin: Origin,
    /// The rate at which a stranger may find somebody in the largest gallery.
    pub false_positive_identification_rate: f64,
}

/// What is going on, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pictures become features.
    Pictures,
    /// Features are compared.
    Comparisons,
}

/// The evaluation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The folder is not as it should be.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The models do not run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Nothing can be compared.
    #[error(
        "{good} of {all} pictures were good, which gives no pair of one hand: at least two captures of one hand are needed"
    )]
    NoPairs {
        /// Pictures that gave features.
        good: usize,
        /// Pictures there are.
        all: usize,
    },
    /// The pictures give no calibration.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The report could not be written.
    #[error("{}: {cause}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A plot could not be drawn.
    #[error("a plot could not be drawn: {0}")]
    Plot(String),
}

/// Evaluates a folder. `progress` is told the stage, how much is done and how much there is; it is
/// called from several threads.
///
/// # Errors
/// [`EvaluationError`]. A picture that cannot be used is no error: the report names it.
pub fn evaluate(
    directory: &Path,
    options: &Options,
    progress: &(dyn Fn(Stage, usize, usize) + Sync),
) -> Result<Report, EvaluationError> {
    evaluate_with(&Extractor::load()?, directory, options, progress)
}

/// The same with models that are not built in.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(
    extractor: &Extractor,
    directory: &Path,
    options: &Options,
    progress: &(dyn Fn(Stage, usize, usize) + Sync),
) -> Result<Report, EvaluationError> {
    let dataset = Dataset::read(directory, options)?;
    let threads = options.threads.unwrap_or_else(cores).max(1);
    let captured = extraction::extract(extractor, &dataset, options.kind, threads, progress);
    let compared = comparisons::compare(&dataset, &captured, threads, progress);
    let mut report = report::report(extractor, &dataset, &captured, &compared)?;
    if let Some(purported) = &options.calibration {
        report.calibration = Some(calibrate(extractor, &dataset, &compared, purported)?);
    }
    Ok(report)
}

/// Thresholds from these comparisons; genuine ones across sessions only, where there are some.
fn calibrate(
    extractor: &Extractor,
    dataset: &Dataset,
    compared: &comparisons::Compared,
    purported: &Purported,
) -> Result<Calibration, CalibrationError> {
    let crosses = |pair: &&comparisons::Pair| compared.crosses(dataset, pair);
    let scores = |pairs: &mut dyn Iterator<Item = &comparisons::Pair>| {
        pairs.map(|pair| pair.score).collect::<Vec<f32>>()
    };
    let mut genuine = scores(&mut compared.mated.iter().filter(crosses));
    if genuine.is_empty() {
        genuine = scores(&mut compared.mated.iter());
    }
    let mut enrolled: Vec<usize> = compared.references.iter().map(|each| each.identity).collect();
    enrolled.dedup();
    let set = DataSet {
        name: purported.name.clone(),
        description: purported.description.clone(),
        origin: purported.origin,
        identities: enrolled.len(),
        genuine: 0,
        impostor: 0,
    };
    let impostor = scores(&mut compared.non_mated.iter());
    Calibration::of_models(
        &extractor.models_hash(),
        vec![Scored { set, genuine, impostor }],
        purported.false_positive_identification_rate,
    )
}

/// Writes the report into a folder: `report.md` with its plots beside it. The JSON goes where the
/// caller wants it: [`Report`] serialises.
///
/// # Errors
/// The folder cannot be written.
pub fn write(report: &Report, directory: &Path) -> Result<(), EvaluationError> {
    std::fs::create_dir_all(directory)
        .map_err(|cause| EvaluationError::Write { path: directory.to_owned(), cause })?;
    plots::draw(report, directory)?;
    let path = directory.join("report.md");
    std::fs::write(&path, markdown::text(report))
        .map_err(|cause| EvaluationError::Write { path, cause })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
