use crate::{
    Dataset, EvaluationError, Kind,
    comparisons::{Compared, Pair},
    extraction::Captured,
    figures,
};
use palmgate_palm::{Calibration, Extractor, Quality};
use std::collections::BTreeMap;

/// What an evaluation found. Serialises to the JSON report.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// SHA-256 over names and hashes of all models, in hexadecimal: what was measured.
    pub model: String,
    /// SHA-256 of each model.
    pub models: BTreeMap<&'static str, String>,
    /// What the pictures show.
    pub kind: Kind,
    /// Pictures found.
    pub pictures: usize,
    /// Identities found: hands.
    pub identities: usize,
    /// References made: one for each identity and session.
    pub references: usize,
    /// The share of pictures that gave no features (failure to acquire).
    pub failure_to_acquire: f64,
    /// The share of identities and sessions that gave no reference (failure to enrol).
    pub failure_to_enrol: f64,
    /// Captures that an enrolment would have asked for again, being unlike the ones before.
    pub inconsistent_captures: usize,
    /// Pictures that failed, by name, with the reason.
    pub failures: Vec<Failure>,
    /// Files that are no pictures of this layout.
    pub ignored: Vec<String>,
    /// All comparisons.
    #[serde(flatten)]
    pub all: Rates,
    /// Comparisons of captures from different sessions only; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_session: Option<Rates>,
    /// Searches for people who are not in the gallery.
    pub open_set: Vec<OpenSet>,
    /// Groups that the manifest names, at the threshold of a false match rate of 1e-3 over all.
    pub subgroups: Vec<Subgroup>,
    /// The error rate of mated comparisons by the quality of the probe, worst quarter first.
    pub quality: Vec<f64>,
    /// Median of each step of a capture, in milliseconds.
    pub steps_ms: BTreeMap<&'static str, f64>,
    /// Thresholds from these pictures, if they were asked for; a file of its own.
    #[serde(skip)]
    pub calibration: Option<Calibration>,
}

/// A picture that could not be used.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    /// Its name.
    pub picture: String,
    /// Why.
    pub reason: String,
}

/// Numbers of comparisons.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Pairs {
    /// Of the same hand.
    pub genuine: usize,
    /// Of different hands.
    pub impostor: usize,
}

/// Error rates of a set of comparisons.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Rates {
    /// How many there are.
    pub pairs: Pairs,
    /// Equal error rate.
    pub eer: f64,
    /// False non-match rate at the threshold that keeps each false match rate; `null` where so few
    /// pairs cannot tell.
    pub fnmr_at_fmr: BTreeMap<&'static str, Option<f64>>,
    /// False non-match rate above every impostor score.
    pub fnmr_without_false_match: f64,
    /// The share of probes whose best reference is their own, one reference an identity.
    pub rank1: f64,
    /// The share of probes whose own reference is among the 1 % with the best embeddings, at least
    /// one.
    pub shortlist: f64,
    /// The same with thresholds and bounds.
    pub operating_points: Vec<OperatingPoint>,
    /// What the thresholds that this program decides by give on these pictures.
    pub as_calibrated: Vec<OperatingPoint>,
    /// Points of the detection error trade-off: false match rate, false non-match rate.
    pub trade_off: Vec<(f64, f64)>,
}

/// A threshold and its errors.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct OperatingPoint {
    /// The false match rate that was asked for.
    pub target: f64,
    /// The score that decides.
    pub threshold: f32,
    /// The false match rate seen.
    pub fmr: f64,
    /// The false non-match rate seen.
    pub fnmr: f64,
    /// Its 95 % bounds, from resampling identities.
    pub fnmr_bounds: (f64, f64),
}

/// An open-set search at one rate of false positive identifications.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct OpenSet {
    /// References in the gallery.
    pub gallery: usize,
    /// The false positive identification rate.
    pub fpir: f64,
    /// The false negative identification rate.
    pub fnir: f64,
}

/// A group of identities.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Subgroup {
    /// Its name in the manifest.
    pub name: String,
    /// Comparisons whose probe is of the group; impostors within the group only.
    pub pairs: Pairs,
    /// False non-match rate.
    pub fnmr: f64,
    /// False match rate.
    pub fmr: f64,
}

pub(crate) fn report(
    extractor: &Extractor,
    dataset: &Dataset,
    captured: &Captured,
    compared: &Compared,
) -> Result<Report, EvaluationError> {
    let good = captured.good().count();
    let pictures = dataset.samples.len();
    if compared.mated.is_empty() {
        return Err(EvaluationError::NoPairs { good, all: pictures });
    }
    let crosses = |pair: &Pair| compared.crosses(dataset, pair);
    let all = figures::rates(dataset, compared, |_| true);
    let cross_session =
        compared.mated.iter().any(crosses).then(|| figures::rates(dataset, compared, crosses));
    let failures = dataset.samples.iter().zip(&captured.captures);
    let (model, models) = figures::models(extractor);
    let sessions = compared.references.len() + compared.not_enrolled;
    Ok(Report {
        model,
        models,
        kind: captured.kind,
        pictures,
        identities: dataset.identities.len(),
        references: compared.references.len(),
        failure_to_acquire: (pictures - good) as f64 / pictures as f64,
        failure_to_enrol: compared.not_enrolled as f64 / sessions.max(1) as f64,
        inconsistent_captures: compared.inconsistent,
        failures: failures
            .filter_map(|(sample, capture)| {
                let reason = capture.as_ref().err()?.clone();
                Some(Failure { picture: sample.name.clone(), reason })
            })
            .collect(),
        ignored: dataset.ignored.clone(),
        cross_session,
        open_set: figures::open_set(dataset, compared),
        subgroups: figures::subgroups(dataset, compared, &all),
        quality: figures::by_quality(compared, &all, |sample| {
            captured.captures[sample].as_ref().map_or(0.0, |capture| order(&capture.quality))
        }),
        steps_ms: figures::steps(captured),
        calibration: None,
        all,
    })
}

/// One number to order captures by: their sharpness, which predicts best of what quality holds.
const fn order(quality: &Quality) -> f32 {
    quality.sharpness
}
