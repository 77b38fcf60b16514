use super::*;
use proptest::prelude::*;

fn set(name: &str) -> DataSet {
    DataSet {
        name: name.into(),
        description: "numbers".into(),
        origin: Origin::Taken,
        identities: 200,
        genuine: 0,
        impostor: 0,
    }
}

/// Impostor scores that are spread evenly up to one half, genuine ones above it.
fn scored(impostors: usize) -> Scored {
    Scored {
        set: set("even"),
        genuine: (0..400).map(|i| 0.5 + i as f32 / 1_000.0).collect(),
        impostor: (0..impostors).map(|i| 0.1 + 0.4 * i as f32 / impostors as f32).collect(),
    }
}

fn made() -> Calibration {
    Calibration::of(vec![scored(40_000)], 0.01).unwrap()
}

fn file() -> serde_json::Value {
    serde_json::to_value(made()).unwrap()
}

#[track_caller]
fn refused(file: &serde_json::Value, word: &str) {
    let error = Calibration::parse(file.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains(word), "{error}");
}

#[test]
fn the_built_in_calibration_holds_together_and_says_that_it_is_simulated() {
    let built_in = Calibration::built_in();
    assert!(!built_in.is_taken());
    assert_eq!(built_in.threshold(1e-3), Some(built_in.points()[1].threshold));
    assert_eq!(built_in.threshold(1e-12), None);
    assert!(built_in.points().iter().all(|point| point.largest_gallery < 1_000));
}

#[test]
fn what_is_written_is_read_and_vouches_for_what_was_seen_only() {
    let made = made();
    assert_eq!(Calibration::parse(made.to_json().unwrap().as_bytes()).unwrap(), made);
    let strictest = made.point(1e-6).unwrap();
    assert_eq!(strictest.false_matches, [0]);
    // Three in 40,000 at most, so that a stranger finds somebody among 133 in one case of a hundred.
    assert!((strictest.fmr_upper * 40_000.0 - 2.9957).abs() < 1e-3, "{}", strictest.fmr_upper);
    assert_eq!(strictest.largest_gallery, 133);
    assert!(
        made.points().iter().all(|point| point.fmr <= point.target && point.fmr < point.fmr_upper)
    );
}

#[test]
fn of_several_sets_the_worst_counts() {
    let mut other = scored(20_000);
    other.impostor.iter_mut().for_each(|score| *score += 0.05);
    let both = Calibration::of(vec![scored(40_000), other], 0.01).unwrap();
    for (one, both) in made().points().iter().zip(both.points()) {
        assert!(both.threshold > one.threshold && both.fmr_upper > one.fmr_upper);
        assert!(both.largest_gallery <= one.largest_gallery);
    }
}

#[test]
fn too_few_comparisons_and_rates_that_are_none_are_refused() {
    let few = Calibration::of(vec![scored(9_999)], 0.01).unwrap_err();
    assert!(matches!(few, CalibrationError::TooFew(9_999)), "{few}");
    for rate in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            Calibration::of(vec![scored(10_000)], rate),
            Err(CalibrationError::Rate(_))
        ));
    }
    assert!(Calibration::of(Vec::new(), 0.01).is_err());
    let mut lonely = scored(10_000);
    lonely.genuine.clear();
    assert!(Calibration::of(vec![lonely], 0.01).is_err());
}

#[test]
fn a_file_that_is_none_is_refused() {
    let whole = made().to_json().unwrap();
    for wrong in ["", "{}", "[]", "null", "\0", "threshold = 1", &whole[..whole.len() / 2]] {
        let error = Calibration::parse(wrong.as_bytes()).unwrap_err();
        assert!(matches!(error, CalibrationError::Malformed(_)), "{error}");
    }
    let huge = vec![b' '; MAX_CALIBRATION_BYTES as usize + 1];
    assert!(matches!(Calibration::parse(&huge), Err(CalibrationError::TooLong)));
    for number in ["NaN", "Infinity", "1e999", "null", "\"1\""] {
        let threshold = format!("\"target\": {number}");
        let wrong = whole.replacen("\"target\": 0.01", &threshold, 1);
        assert!(wrong != whole && Calibration::parse(wrong.as_bytes()).is_err(), "{number}");
    }
}

#[test]
fn a_calibration_of_other_models_or_another_scoring_is_refused() {
    let mut other = file();
    other["models"] = "0".repeat(64).into();
    refused(&other, "of other models");
    let mut other = file();
    other["scoring"]["embedding_weight"] = 0.2.into();
    refused(&other, "of other models");
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    for (place, value, word) in [
        ("/format", 2.into(), "format"),
        ("/confidence", 0.5.into(), "confidence"),
        ("/false_positive_identification_rate", 2.0.into(), "identifications"),
        ("/false_positive_identification_rate", 0.1.into(), "not that of its comparisons"),
        ("/sets", serde_json::json!([]), "no set"),
        ("/sets/0/name", " ".into(), "no name"),
        ("/sets/0/impostor", 100.into(), "too few"),
        ("/sets/0/impostor", 4_000_000.into(), "not that of its comparisons"),
        ("/points", serde_json::json!([]), "rates"),
        ("/points/4/target", 1e-7.into(), "rates"),
        ("/points/4/threshold", 0.2.into(), "stricter threshold"),
        ("/points/4/threshold", 7.0.into(), "no score"),
        ("/points/4/threshold", 0.0.into(), "no score"),
        ("/points/4/false_matches", serde_json::json!([1]), "more through than its rate"),
        ("/points/4/false_matches", serde_json::json!([0, 0]), "more comparisons failed"),
        ("/points/0/false_non_matches", serde_json::json!([401]), "more comparisons failed"),
        ("/points/4/largest_gallery", 100_000.into(), "not that of its comparisons"),
        ("/points/4/fmr_upper", 1e-9.into(), "not that of its comparisons"),
    ] {
        let mut wrong = file();
        *wrong.pointer_mut(place).unwrap() = value;
        refused(&wrong, word);
    }
}

#[test]
fn bounds_are_those_of_the_tables_and_meet_where_the_approximation_begins() {
    for (seen, bound) in [(0, 2.9957), (1, 4.7439), (5, 10.513), (10, 16.962), (50, 63.287)] {
        assert!((upper_bound(seen) - bound).abs() < 1e-2, "{seen}: {}", upper_bound(seen));
    }
    let step = upper_bound(101) - upper_bound(100);
    assert!((0.9..1.2).contains(&step), "{step}");
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused_but_never_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut file = made().to_json().unwrap().into_bytes();
        let at = at.index(file.len());
        file[at] = byte;
        let _ = Calibration::parse(&file);
    }
}
