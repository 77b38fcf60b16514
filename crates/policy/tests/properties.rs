//! What must hold for every act, whatever its facts: shown by trying every combination of the facts
//! that the rules can tell apart. Cedar compares times and numbers only with each other and with
//! the pack's numbers, so a value on each side of every comparison stands for all.

use palmgate_policy::{
    Law, Pack, Settings,
    pack::{Act, Action, Value, Verdict, embedded_layer},
};
use palmgate_protocol::{Custody, Purpose};
use std::sync::Arc;

const NOW: i64 = 1_800_000_000_000;
const PAST: i64 = NOW - 1;
const FUTURE: i64 = NOW + 1;

fn law(layers: &[&str], custody: Custody, production: bool) -> Law {
    let layers: Vec<_> = layers.iter().filter_map(|name| embedded_layer(name)).collect();
    let pack = Pack::load(&layers).expect("a valid pack");
    let settings = Settings {
        production,
        custody,
        escalation: true,
        purposes: Purpose::ALL.into_iter().collect(),
        zones: vec!["vault".into()],
        ..Settings::default()
    };
    Law::new(Arc::new(pack), &settings.store_facts())
}

/// Every combination of these values in the lawful act of a kind.
fn every(action: Action, facts: &[(&'static str, Vec<Value>)], mut see: impl FnMut(&Act)) -> usize {
    let combinations: usize = facts.iter().map(|(_, values)| values.len()).product();
    for number in 0..combinations {
        let (mut act, mut rest) = (Pack::lawful_act(action), number);
        for (name, values) in facts {
            let value = values[rest % values.len()].clone();
            rest /= values.len();
            act.facts.retain(|(known, _)| known != name);
            act.facts.push(((*name).into(), value));
        }
        see(&act);
    }
    combinations
}

fn values<T: Into<Value> + Copy>(values: &[T]) -> Vec<Value> {
    values.iter().map(|value| (*value).into()).collect()
}

fn whole(act: &Act, name: &str) -> i64 {
    act.facts
        .iter()
        .find_map(|(known, value)| match value {
            Value::Whole(value) if known == name => Some(*value),
            _ => None,
        })
        .unwrap_or(0)
}

fn is(act: &Act, name: &str, wanted: &Value) -> bool {
    act.facts.iter().any(|(known, value)| known == name && value == wanted)
}

fn recognitions() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("now", vec![NOW.into()]),
        ("purpose", values(&["pay", "loyalty", "entry", "staff", "roaming"])),
        ("right", values(&[false, true])),
        ("above_threshold", values(&[false, true])),
        ("rivals", values(&[0_i64, 1])),
        ("consent_ends", values(&[0, PAST, NOW, FUTURE])),
        ("authorisation_ends", values(&[0, PAST, NOW, FUTURE])),
        ("authorised_zone", values(&["", "vault"])),
        ("zone", values(&["", "vault"])),
        ("paused", values(&[false, true])),
        ("record_ends", values(&[PAST, FUTURE])),
        ("lease_ends", values(&[PAST, FUTURE])),
        ("spent_count", values(&[0_i64, 5])),
    ]
}

#[test]
fn nobody_is_recognised_without_live_consent_or_the_staff_basis() {
    let law = law(&["eu-gdpr", "fr-cnil"], Custody::Operator, false);
    let mut recognised = 0;
    every(Action::Recognise, &recognitions(), |act| {
        if !law.decide(act).allowed {
            return;
        }
        recognised += 1;
        let consent = NOW < whole(act, "consent_ends");
        let staff = NOW < whole(act, "authorisation_ends");
        assert!(is(act, "above_threshold", &true.into()) && whole(act, "rivals") == 0, "{act:?}");
        assert!(NOW < whole(act, "lease_ends"), "{act:?}");
        if is(act, "right", &true.into()) {
            assert!(consent || staff, "{act:?}");
        } else if is(act, "purpose", &"staff".into()) {
            assert!(staff && is(act, "zone", &"vault".into()), "{act:?}");
            assert!(is(act, "authorised_zone", &"vault".into()), "{act:?}");
        } else {
            assert!(consent && is(act, "paused", &false.into()), "{act:?}");
            assert!(NOW < whole(act, "record_ends"), "{act:?}");
        }
    });
    assert!(recognised > 0, "some are");
}

fn escalations() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("claim", values(&["none", "invalid", "valid"])),
        ("roaming", values(&[false, true])),
        ("asked", values(&[false, true])),
        ("region", values(&["eu", "fr", "us", ""])),
    ]
}

#[test]
fn nothing_is_escalated_without_claim_and_consent_to_roam() {
    for custody in [Custody::Subject, Custody::Split, Custody::Operator] {
        let law = law(&["eu-gdpr", "fr-cnil"], custody, false);
        let mut left = 0;
        every(Action::Escalate, &escalations(), |act| {
            if law.decide(act).allowed {
                left += 1;
                assert!(is(act, "claim", &"valid".into()), "{act:?}");
                assert!(
                    is(act, "roaming", &true.into()) && is(act, "asked", &true.into()),
                    "{act:?}"
                );
                assert!(!is(act, "region", &"us".into()), "{act:?}");
            }
        });
        assert_eq!(left, 2, "to `eu` and `fr`");
    }
}

#[test]
fn one_band_never_pays_without_a_sensor_that_vouches() {
    let law = law(&["eu-gdpr", "fr-cnil"], Custody::Operator, false);
    let facts = vec![
        ("liveness", values(&[0_i64, 500_000, 1_000_000])),
        ("multispectral", values(&[false, true])),
        ("sensor", values(&["silent", "attack", "living"])),
        (
            "purposes",
            [&[][..], &["pay"], &["loyalty"], &["loyalty", "pay"]]
                .map(|p| p.to_vec().into())
                .into(),
        ),
    ];
    let mut compared = 0;
    every(Action::Compare, &facts, |act| {
        if law.decide(act).allowed {
            compared += 1;
            let pays = act.facts.iter().any(|(_, value)| {
                matches!(value, Value::Words(words) if words.iter().any(|word| word == "pay"))
            });
            let vouched_for = is(act, "sensor", &"living".into());
            assert!(!pays || vouched_for || is(act, "multispectral", &true.into()), "{act:?}");
            assert!(!is(act, "sensor", &"attack".into()), "{act:?}");
            assert!(whole(act, "liveness") >= 500_000, "{act:?}");
        }
    });
    assert_eq!(compared, 2 * (4 * 4 - 2), "all others");
}

/// For the age of children the Union leaves a range to its members (GDPR Art. 8(1)), so that one
/// number may be lower in France; it is not varied here.
#[test]
fn what_the_union_forbids_no_other_pack_permits() {
    let captures = vec![
        ("now", vec![NOW.into()]),
        ("purpose", values(&["pay", "loyalty", "staff", "right", "other"])),
        ("terminal_serves", values(&[false, true])),
        ("clock_off_ms", values(&[0_i64, 60_001])),
        ("frames", values(&[0_i64, 1, 5])),
        ("amount", values(&[0_i64, 5_000, 5_001])),
        ("claim", values(&["none", "invalid", "valid"])),
        ("claim_type", values(&[0_i64, 1, 2, 3])),
        ("claim_ends", values(&[PAST, FUTURE])),
        ("claim_tries", values(&[0_i64, 5])),
        ("known", values(&[false, true])),
        ("paused", values(&[false, true])),
    ];
    let disclosures = vec![
        ("recipient", values(&["subject", "processor", "store", "authority", "other"])),
        ("region", values(&["eu", "us"])),
        ("items", vec![vec!["consents"].into(), vec!["template"].into(), vec!["use"].into()]),
        ("contract", values(&[false, true])),
        ("sealed_to_subject", values(&[false, true])),
        ("others", values(&[false, true])),
        ("paid", values(&[false, true])),
        ("process", values(&[false, true])),
    ];
    let spaces = [
        (Action::Recognise, recognitions()),
        (Action::Escalate, escalations()),
        (Action::Capture, captures),
        (Action::Disclose, disclosures),
    ];
    let union = law(&["eu-gdpr"], Custody::Split, true);
    let forbidden = |act: &Act, verdict: &Verdict| {
        let forbids = |id: &String| union.pack().policy(id).is_some_and(|policy| policy.forbids);
        !verdict.allowed && verdict.policies.iter().any(forbids) && !act.facts.is_empty()
    };
    for state in ["fr-cnil", "us-il", "us-tx", "us-nyc"] {
        let other = law(&["eu-gdpr", state], Custody::Split, true);
        for (action, space) in &spaces {
            let tried = every(*action, space, |act| {
                if forbidden(act, &union.decide(act)) {
                    assert!(!other.decide(act).allowed, "{state} permits {act:?}");
                }
            });
            assert!(tried >= 48, "{action:?}");
        }
    }
}
