//! Comparisons to figures.

use crate::{
    Dataset, OpenSet, OperatingPoint, Rates, Subgroup,
    comparisons::{Compared, Pair},
    extraction::Captured,
    report::Pairs,
    statistics::{Scores, bounds, equal_error, trade_off},
};
use data_encoding::HEXLOWER;
use palmgate_palm::{Calibration, Extractor, Steps};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The false match rates that are reported.
const RATES: [(&str, f64); 5] =
    [("1e-2", 1e-2), ("1e-3", 1e-3), ("1e-4", 1e-4), ("1e-5", 1e-5), ("1e-6", 1e-6)];
/// The false positive identification rates that are reported.
const SEARCH_RATES: [f64; 2] = [1e-2, 1e-1];
/// The false match rate at which groups are compared.
const GROUP_RATE: f64 = 1e-3;
/// One in so many references is on the shortlist.
const SHORTLISTED: usize = 100;

/// Hash over all models, and each one's.
pub(crate) fn models(extractor: &Extractor) -> (String, BTreeMap<&'static str, String>) {
    let each = extractor.models().map(|(name, hash)| (name, HEXLOWER.encode(&hash)));
    (HEXLOWER.encode(&extractor.models_hash()), each.into())
}

pub(crate) fn rates(
    dataset: &Dataset,
    compared: &Compared,
    counts: impl Fn(&Pair) -> bool,
) -> Rates {
    let mated: Vec<Pair> = compared.mated.iter().filter(|pair| counts(pair)).copied().collect();
    let non_mated = compared.non_mated.iter().filter(|pair| counts(pair));
    let genuine = Scores::new(mated.iter().map(|pair| pair.score));
    let impostor = Scores::new(non_mated.map(|pair| pair.score));
    let point = |target: f64, threshold: f32| OperatingPoint {
        target,
        threshold,
        fmr: impostor.at_or_above(threshold),
        fnmr: genuine.below(threshold),
        fnmr_bounds: bounds(&by_identity(dataset, &mated, threshold)),
    };
    let at = |rate: f64| impostor.threshold(rate);
    let (rank1, shortlist) = closed_set(dataset, compared, &counts);
    Rates {
        pairs: Pairs { genuine: genuine.len(), impostor: impostor.len() },
        eer: equal_error(&genuine, &impostor),
        fnmr_at_fmr: RATES
            .into_iter()
            .map(|(name, rate)| (name, at(rate).map(|threshold| genuine.below(threshold))))
            .collect(),
        fnmr_without_false_match: genuine.below(impostor.above_all()),
        rank1,
        shortlist,
        operating_points: RATES
            .into_iter()
            .filter_map(|(_, rate)| Some(point(rate, at(rate)?)))
            .collect(),
        as_calibrated: Calibration::built_in()
            .points()
            .iter()
            .map(|built_in| point(built_in.target, built_in.threshold))
            .collect(),
        trade_off: trade_off(&genuine, &impostor),
    }
}

/// Failures and comparisons of each identity.
fn by_identity(dataset: &Dataset, mated: &[Pair], threshold: f32) -> Vec<(usize, usize)> {
    let mut counts: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for pair in mated {
        let count = counts.entry(dataset.samples[pair.probe as usize].identity).or_default();
        *count = (count.0 + usize::from(pair.score < threshold), count.1 + 1);
    }
    counts.into_values().collect()
}

/// A gallery with the first reference of every identity.
fn gallery(compared: &Compared) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    let numbered = (0u32..).zip(&compared.references);
    numbered
        .filter(|(_, reference)| seen.insert(reference.identity))
        .map(|(number, _)| number)
        .collect()
}

/// What one probe met in the gallery.
#[derive(Clone, Copy, Default)]
struct Search {
    own: Option<(f32, f32)>,
    best_other: f32,
    /// Other references with a better embedding than the own.
    nearer: usize,
}

fn searches(
    compared: &Compared,
    gallery: &BTreeSet<u32>,
    counts: &impl Fn(&Pair) -> bool,
) -> BTreeMap<u32, Search> {
    let mut searches: BTreeMap<u32, Search> = BTreeMap::new();
    let inside = |pair: &&Pair| gallery.contains(&pair.reference);
    for pair in compared.mated.iter().filter(inside).filter(|pair| counts(pair)) {
        searches.entry(pair.probe).or_default().own = Some((pair.score, pair.cosine));
    }
    for pair in compared.non_mated.iter().filter(inside) {
        let Some(search) = searches.get_mut(&pair.probe) else { continue };
        search.best_other = search.best_other.max(pair.score);
        search.nearer += usize::from(search.own.is_some_and(|(_, own)| pair.cosine > own));
    }
    searches
}

/// Rank-1 rate and the share of mates on the shortlist.
fn closed_set(
    dataset: &Dataset,
    compared: &Compared,
    counts: &impl Fn(&Pair) -> bool,
) -> (f64, f64) {
    let gallery = gallery(compared);
    let searches = searches(compared, &gallery, counts);
    let length = (gallery.len() / SHORTLISTED).max(1);
    let (mut first, mut listed) = (0usize, 0usize);
    for search in searches.values() {
        let Some((own, _)) = search.own else { continue };
        first += usize::from(own > search.best_other);
        listed += usize::from(search.nearer < length);
    }
    debug_assert!(gallery.len() <= dataset.identities.len());
    let all = searches.len().max(1) as f64;
    (first as f64 / all, listed as f64 / all)
}

/// Every probe searches the gallery with and without its own reference in it.
pub(crate) fn open_set(dataset: &Dataset, compared: &Compared) -> Vec<OpenSet> {
    let gallery = gallery(compared);
    let crosses = |pair: &Pair| compared.crosses(dataset, pair);
    let sessions = compared.mated.iter().any(crosses);
    let searches = searches(compared, &gallery, &|pair| !sessions || crosses(pair));
    let strangers = Scores::new(searches.values().map(|search| search.best_other));
    let own = Scores::new(searches.values().filter_map(|search| Some(search.own?.0)));
    SEARCH_RATES
        .into_iter()
        .filter_map(|fpir| {
            let fnir = own.below(strangers.threshold(fpir)?);
            Some(OpenSet { gallery: gallery.len(), fpir, fnir })
        })
        .collect()
}

pub(crate) fn subgroups(dataset: &Dataset, compared: &Compared, all: &Rates) -> Vec<Subgroup> {
    let point = all.operating_points.iter().find(|point| point.target <= GROUP_RATE);
    let Some(threshold) = point.map(|point| point.threshold) else { return Vec::new() };
    let group = |sample: usize| dataset.samples[sample].subgroup.as_deref();
    let names: BTreeSet<&str> = (0..dataset.samples.len()).filter_map(group).collect();
    let of = |name: &str| {
        let probe = |pair: &&Pair| group(pair.probe as usize) == Some(name);
        let within = |pair: &&Pair| {
            let enrolled = &compared.references[pair.reference as usize].enrolled;
            enrolled.first().is_some_and(|sample| group(*sample) == Some(name))
        };
        let genuine = Scores::new(compared.mated.iter().filter(probe).map(|pair| pair.score));
        let impostor = compared.non_mated.iter().filter(probe).filter(within);
        let impostor = Scores::new(impostor.map(|pair| pair.score));
        Subgroup {
            name: name.to_owned(),
            pairs: Pairs { genuine: genuine.len(), impostor: impostor.len() },
            fnmr: genuine.below(threshold),
            fmr: impostor.at_or_above(threshold),
        }
    };
    names.into_iter().map(of).collect()
}

/// The false non-match rate of each quarter of the mated comparisons, worst quality first, at the
/// strictest threshold that the pairs can tell.
pub(crate) fn by_quality(
    compared: &Compared,
    all: &Rates,
    quality: impl Fn(usize) -> f32,
) -> Vec<f64> {
    let Some(point) = all.operating_points.last() else { return Vec::new() };
    let mut mated: Vec<(f32, f32)> =
        compared.mated.iter().map(|pair| (quality(pair.probe as usize), pair.score)).collect();
    mated.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let quarter = mated.len().div_ceil(4).max(1);
    let failed =
        |pairs: &[(f32, f32)]| Scores::new(pairs.iter().map(|pair| pair.1)).below(point.threshold);
    mated.chunks(quarter).map(failed).collect()
}

pub(crate) fn steps(captured: &Captured) -> BTreeMap<&'static str, f64> {
    type Part = (&'static str, fn(&Steps) -> Duration);
    const PARTS: [Part; 7] = [
        ("decode", |steps| steps.decode),
        ("detect", |steps| steps.detect),
        ("landmarks", |steps| steps.landmarks),
        ("region", |steps| steps.region),
        ("embed", |steps| steps.embed),
        ("code", |steps| steps.code),
        ("total", Steps::total),
    ];
    let median = |part: fn(&Steps) -> Duration| {
        let mut times: Vec<Duration> = captured.steps().map(part).collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    PARTS.into_iter().map(|(name, part)| (name, median(part))).collect()
}
