//! Thresholds that the pictures can vouch for.

use crate::{
    Dataset,
    comparisons::{Compared, Pair},
    statistics::draw,
};
use palmgate_palm::{Point, Thresholds, tail_threshold};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// The false match rates that thresholds are sought for.
const RATES: [f64; 9] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10];
/// The share of the highest scores of different hands that a tail is fitted to.
const TAIL: f64 = 0.01;
/// Scores that a tail has at least.
const LEAST: usize = 50;
const RESAMPLINGS: usize = 200;
/// Of so many resamplings, a threshold is high enough.
const CONFIDENCE: f64 = 0.95;

/// A comparison of two hands.
#[derive(Clone, Copy)]
struct Impostor {
    score: f32,
    hands: [u32; 2],
}

/// For each rate the upper end of the 95 % interval of the score that keeps it, from resampling
/// identities: pairs of one hand with many are not independent. `None` when the hands are too few
/// for a tail. Comparisons of different sessions count where there are any.
pub(crate) fn thresholds(dataset: &Dataset, compared: &Compared, data: &str) -> Option<Thresholds> {
    let session = |pair: &Pair| {
        let reference = &compared.references[pair.reference as usize];
        dataset.samples[pair.probe as usize].session != reference.session
    };
    let sessions = compared.mated.iter().any(session);
    let counts = |pair: &&Pair| !sessions || session(pair);
    let hand = |pair: &Pair| {
        let reference = compared.references[pair.reference as usize].identity;
        [dataset.samples[pair.probe as usize].identity, reference].map(|hand| hand as u32)
    };
    let of = |pair: &Pair| Impostor { score: pair.score, hands: hand(pair) };
    let mut impostors: Vec<Impostor> = compared.non_mated.iter().filter(counts).map(of).collect();
    impostors.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let genuine = compared.mated.iter().filter(counts).count();
    let strictest = Thresholds::strictest_of(impostors.len());
    let rates: Vec<f64> = RATES.into_iter().filter(|rate| *rate >= strictest).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(95);
    let hands = dataset.identities.len();
    let resampled: Option<Vec<Vec<f64>>> =
        (0..RESAMPLINGS).map(|_| resampled(&impostors, &draw(&mut rng, hands), &rates)).collect();
    let resampled = resampled?;
    let mut least = f32::MIN;
    let points = rates.iter().enumerate().map(|(at, rate)| {
        let mut scores: Vec<f64> = resampled.iter().map(|scores| scores[at]).collect();
        scores.sort_unstable_by(f64::total_cmp);
        let place = (CONFIDENCE * scores.len() as f64) as usize;
        least = least.max((scores[place.min(scores.len() - 1)] as f32).next_up());
        Point { false_match_rate: *rate, score: least }
    });
    let counts = (hands, genuine, impostors.len());
    Some(Thresholds::of_evaluation(data.to_owned(), counts, points.collect()))
}

/// The scores that keep the rates when each hand counts as often as it was drawn.
fn resampled(impostors: &[Impostor], drawn: &[u32], rates: &[f64]) -> Option<Vec<f64>> {
    let times = |pair: &Impostor| {
        pair.hands.iter().map(|hand| drawn[*hand as usize] as usize).product::<usize>()
    };
    let all: usize = impostors.iter().map(times).sum();
    let most = (all as f64 * TAIL) as usize;
    if most < LEAST {
        return None;
    }
    let scores =
        impostors.iter().flat_map(|pair| std::iter::repeat_n(f64::from(pair.score), times(pair)));
    let mut highest: Vec<f64> = scores.take(most + 1).collect();
    let start = highest.pop()?;
    Some(
        rates
            .iter()
            .map(|rate| match rate / TAIL {
                share if share >= 1.0 => start,
                share => tail_threshold(start, &mut highest, share),
            })
            .collect(),
    )
}
