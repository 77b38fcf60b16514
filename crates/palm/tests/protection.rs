//! Recognition and unlinkability of protected templates, on real hands with simulated captures.
#![allow(clippy::print_stdout, reason = "a measurement for the documentation")]

use palmgate_palm::{Calibration, Capture, Extractor, Transform, parts, scoring, simulate};
use palmgate_protocol::terminal::{Band, CaptureProblem, Frame};
use palmgate_protocol::{Biometric, Purpose, Secret, Template};
use std::{fs, path::Path, sync::LazyLock};

static EXTRACTOR: LazyLock<Extractor> =
    LazyLock::new(|| Extractor::load().expect("the models are in the program"));

/// Every eighth hand: the picture and four simulated captures of it.
static PEOPLE: LazyLock<Vec<Vec<Capture>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hands");
    let files = fs::read_dir(folder).expect("the hands are in the tree");
    let mut files: Vec<_> = files.map(|file| file.expect("a listed file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    let people = files.iter().step_by(8).map(|path| {
        let picture = fs::read(path).expect("a listed file");
        (101..=104)
            .filter_map(|seed| {
                let picture = simulate::second_capture(&picture, seed);
                EXTRACTOR.capture(&[Frame { band: Band::Visible, picture, region_of: None }]).ok()
            })
            .collect::<Vec<_>>()
    });
    people.filter(|captures| captures.len() == 4).collect()
});

fn transform(key: u8, purpose: Purpose) -> Transform {
    Transform::derive(&Secret::new([key; 32]), &"chain".parse().expect("a name"), purpose)
}

fn enrol(transform: &Transform, captures: &[Capture]) -> Template {
    transform.template(&captures.iter().take(3).collect::<Vec<_>>()).expect("one hand")
}

#[test]
fn most_hands_can_be_captured_four_times() {
    assert!(PEOPLE.len() >= 24, "{}", PEOPLE.len());
}

#[test]
fn enrolled_hands_are_accepted_and_strangers_are_not_at_one_in_ten_thousand() {
    let transform = transform(1, Purpose::Pay);
    let limit = Calibration::built_in().threshold(1e-4).unwrap();
    let templates: Vec<_> = PEOPLE.iter().map(|captures| enrol(&transform, captures)).collect();
    let (mut accepted, mut confused) = (0, 0);
    for (i, captures) in PEOPLE.iter().enumerate() {
        let probe = transform.probe(&captures[3]);
        for (j, template) in templates.iter().enumerate() {
            let yes = scoring().score(&probe, template) >= limit;
            if i == j { accepted += usize::from(yes) } else { confused += usize::from(yes) }
        }
    }
    assert!(accepted * 100 >= PEOPLE.len() * 96, "{accepted} of {}", PEOPLE.len());
    assert_eq!(confused, 0);
}

#[test]
fn templates_of_one_hand_under_two_keys_or_purposes_are_as_unlike_as_of_two_people() {
    let own = transform(1, Purpose::Pay);
    for other in [transform(2, Purpose::Pay), transform(1, Purpose::Entry)] {
        let (mut mated, mut stranger) = (Vec::new(), Vec::new());
        for (i, captures) in PEOPLE.iter().enumerate() {
            let reference = enrol(&own, captures);
            for (j, captures) in PEOPLE.iter().enumerate() {
                let score = scoring().score(&other.probe(&captures[3]), &reference);
                if i == j { mated.push(score) } else { stranger.push(score) }
            }
        }
        let mean = |scores: &[f32]| scores.iter().sum::<f32>() / scores.len() as f32;
        let middle = mean(&stranger);
        let spread = (stranger.iter().map(|score| (score - middle).powi(2)).sum::<f32>()
            / stranger.len() as f32)
            .sqrt();
        let standard_error = spread / (mated.len() as f32).sqrt();
        assert!((mean(&mated) - middle).abs() < 3.0 * standard_error, "{} {middle}", mean(&mated));
    }
}

/// Pairs of keys that unlinkability is measured under.
const KEY_PAIRS: u8 = 32;
/// Scores are sorted into so many intervals, each with as many scores of strangers.
const INTERVALS: usize = 8;

/// The global measure of linkability of Gomez-Barrero et al. (2018): 0 when scores of one hand under
/// two keys are spread like those of two hands, 1 when they are apart; both as likely beforehand.
fn linkability(mated: &[f32], mut strangers: Vec<f32>) -> f64 {
    strangers.sort_unstable_by(f32::total_cmp);
    let limits: Vec<f32> =
        (1..INTERVALS).map(|i| strangers[i * strangers.len() / INTERVALS]).collect();
    let shares = |scores: &[f32]| {
        let mut shares = [0.0; INTERVALS];
        for score in scores {
            shares[limits.partition_point(|limit| limit <= score)] += 1.0 / scores.len() as f64;
        }
        shares
    };
    let local = |(mated, stranger): (f64, f64)| {
        let ratio = mated / stranger.max(f64::MIN_POSITIVE);
        if ratio > 1.0 { mated * (2.0 * ratio / (1.0 + ratio) - 1.0) } else { 0.0 }
    };
    shares(mated).into_iter().zip(shares(&strangers)).map(local).sum()
}

#[test]
fn templates_under_different_keys_cannot_be_linked() {
    // Cosine of the embeddings, share of equal hashes, and what decides.
    let (mut mated, mut strangers) = ([(); 3].map(|()| Vec::new()), [(); 3].map(|()| Vec::new()));
    for key in 0..KEY_PAIRS {
        let [own, other] = [key, key + 100].map(|key| transform(key, Purpose::Pay));
        let references: Vec<_> =
            PEOPLE.iter().map(|captures| own.template(&[&captures[0]]).expect("one")).collect();
        for (i, captures) in PEOPLE.iter().enumerate() {
            let probe = other.probe(&captures[3]);
            for (j, reference) in references.iter().enumerate() {
                let (cosine, share) = parts(&probe, reference);
                let scores = [cosine, share, scoring().score(&probe, reference)];
                let to = if i == j { &mut mated } else { &mut strangers };
                to.iter_mut().zip(scores).for_each(|(list, score)| list.push(score));
            }
        }
    }
    let (of_one, of_two) = (mated[0].len(), strangers[0].len());
    let [embedding, code, score] =
        std::array::from_fn(|part| linkability(&mated[part], std::mem::take(&mut strangers[part])));
    // The figures of docs/recognition.md.
    println!(
        "{embedding:.3} for the embedding, {code:.3} for the code, {score:.3} for the score: {} hands \
         under {KEY_PAIRS} pairs of keys, {of_one} mated and {of_two} non-mated comparisons",
        PEOPLE.len()
    );
    for linked in [embedding, code, score] {
        assert!(linked <= 0.05, "{linked}");
    }
}

#[test]
fn linkability_is_none_of_equal_scores_and_whole_of_scores_apart() {
    let scores: Vec<f32> = (0..800).map(|i| (i * 37 % 800) as f32).collect();
    assert!(linkability(&scores, scores.clone()) < 1e-6);
    assert!(linkability(&[900.0; 50], scores.clone()) > 0.7);
    let shifted: Vec<f32> = scores.iter().map(|score| score + 200.0).collect();
    assert!(linkability(&shifted, scores) > 0.1);
}

#[test]
fn captures_of_two_people_are_noticed_in_spite_of_a_lax_limit() {
    // Palms of 41 pixels are more alike than a terminal's, for which the limit is meant too.
    let transform = transform(1, Purpose::Loyalty);
    let refused = |pair: &&[Vec<Capture>]| {
        let mixed = [&pair[0][0], &pair[0][1], &pair[1][0]];
        transform.template(&mixed).err() == Some(CaptureProblem::Inconsistent)
    };
    let all = PEOPLE.len() - 1;
    let noticed = PEOPLE.windows(2).filter(refused).count();
    assert!(noticed * 3 >= all, "{noticed} of {all}");
    assert_eq!(transform.template(&[]).err(), Some(CaptureProblem::NoHand));
}

#[test]
fn the_same_frames_and_key_give_the_same_bytes() {
    let picture =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hands/IMG_4322.JPG")).unwrap();
    let probe = || {
        let frame = Frame {
            band: Band::Visible,
            picture: Biometric::new(picture.clone()),
            region_of: None,
        };
        transform(9, Purpose::Staff).probe(&EXTRACTOR.capture(&[frame]).unwrap())
    };
    assert!(probe().to_bytes().expose() == probe().to_bytes().expose());
}
