//! What is refused, and how packs stack.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    Law, Pack, Settings,
    pack::{Act, Action, LayerSource, Standing, embedded_layer},
};
use palmgate_protocol::{Custody, Purpose};
use std::sync::Arc;

const BASE: &str = include_str!("../../../config/packs/eu-gdpr/pack.toml");
const RULES: &str = include_str!("../../../config/packs/eu-gdpr/rules.cedar");
const OFFICE: &str = include_str!("../../../config/packs/eu-gdpr/office.cedar");
const FRENCH: &str = include_str!("../../../config/packs/fr-cnil/pack.toml");
const FRENCH_RULES: &str = include_str!("../../../config/packs/fr-cnil/rules.cedar");

fn base(manifest: &str, rules: &str) -> LayerSource {
    let files = [("pack.toml", manifest), ("rules.cedar", rules), ("office.cedar", OFFICE)];
    LayerSource::new("eu-gdpr", files)
}

fn french(manifest: &str, rules: &str) -> LayerSource {
    LayerSource::new("fr-cnil", [("pack.toml", manifest), ("rules.cedar", rules)])
}

fn problems(layers: &[LayerSource]) -> String {
    Pack::load(layers).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn the_packs_built_in_are_valid() {
    let pack = Pack::embedded();
    assert_eq!(pack.top().name, "fr-cnil");
    assert_eq!(pack.layers().len(), 2);
    let coverage = pack.coverage();
    let open = pack.rows().iter().filter(|row| row.standing == Standing::Open).count();
    assert_eq!(coverage.proven, coverage.enforced, "{coverage:?}");
    assert_eq!(coverage.enforced + open, coverage.enforceable);
}

#[test]
fn a_wrong_pack_is_refused_with_file_line_and_rule() {
    let line = |text: &str, part: &str| {
        let at = text.find(part).unwrap();
        text[..at].lines().count() + usize::from(text[..at].ends_with('\n') || at == 0)
    };
    let changed = |from: &str, to: &str| {
        assert!(RULES.contains(from), "{from}");
        problems(&[base(BASE, &RULES.replacen(from, to, 1))])
    };
    let misspelt = changed("context.rivals > 0", "context.rivels > 0");
    let at = line(RULES, "@id(\"I-1N/recognise\")");
    let wanted = format!("eu-gdpr/rules.cedar:{at}: I-1N/recognise: ");
    assert!(misspelt.contains(&wanted) && misspelt.contains("rivels"), "{misspelt}");
    let uncited = changed("@cite(\"GDPR Art. 18\")", "@cite(\" \")");
    assert!(uncited.contains("G-18/capture: missing citation"), "{uncited}");
    let unknown = changed("@id(\"G-18/capture\")", "@id(\"G-81/capture\")");
    assert!(unknown.contains("G-81/capture: unknown rule"), "{unknown}");
    let broken = changed("when { context.rivals > 0 };", "when { context.rivals > };");
    assert!(broken.contains("eu-gdpr/rules.cedar:"), "{broken}");
    let twice = changed("@id(\"G-18/capture\")", "@id(\"D-LEASE/capture\")");
    assert!(twice.contains("another policy with this id"), "{twice}");
    let everything = changed(
        "action == Action::\"compare\", resource)\nwhen { context.liveness <",
        "action, resource)\nwhen { context.liveness <",
    );
    assert!(!everything.is_empty());
    let number = BASE.replacen("value = 180\nmost = 365", "value = 400\nmost = 365", 1);
    let outside = problems(&[base(&number, RULES)]);
    let at = line(BASE, "\"inactivity_days\"");
    assert!(outside.contains(&format!("eu-gdpr/pack.toml:{at}: RET-03: 400")), "{outside}");
    let key = problems(&[base(&BASE.replacen("version =", "verzion =", 1), RULES)]);
    assert!(key.contains("eu-gdpr/pack.toml:") && key.contains("verzion"), "{key}");
    let row = problems(&[base(&BASE.replacen("\"RET-01\",", "\"RET-01\", \"G-99\",", 1), RULES)]);
    assert!(row.contains("G-99: nothing stands for this row"), "{row}");
    assert!(!problems(&[]).is_empty());
    assert!(problems(&[french(FRENCH, FRENCH_RULES)]).contains("stacks on eu-gdpr"));
}

#[test]
fn of_two_packs_the_stricter_number_wins() {
    let child = |number: &str| {
        let manifest = format!(
            "{FRENCH}\n[[number]]\nname = \"breach_hours\"\nrule = \"RET-05\"\ncite = \"test\"\nmark = \"D\"\n{number}\nen = \"x\"\nfr = \"x\"\n"
        );
        Pack::load(&[base(BASE, RULES), french(&manifest, FRENCH_RULES)])
    };
    let stricter = child("value = 48\nmost = 60").unwrap();
    let number = stricter.number("breach_hours").unwrap();
    assert_eq!((number.value, number.most, number.rule.id()), (48, 60, "RET-05"));
    let refusal = stricter.check("breach_hours", 61).unwrap_err().to_string();
    assert!(refusal.contains("RET-05") && refusal.contains("test"), "{refusal}");
    for laxer in ["value = 96\nmost = 96", "value = 72\nmost = 96"] {
        let error = child(laxer).err().unwrap().to_string();
        assert!(error.contains("laxer than the layer below"), "{error}");
        assert!(error.contains("GDPR Art. 33(1)"), "{error}");
    }
    // France lowers the age with the Union's leave, and says so.
    let age = |pack: &Pack| pack.number("enrol_age").unwrap().value;
    assert_eq!(age(&Pack::embedded()), 15);
    assert_eq!(age(&Pack::load(&[base(BASE, RULES)]).unwrap()), 16);
    let silent = FRENCH.replace("relaxes = ", "#relaxes = ");
    assert!(problems(&[base(BASE, RULES), french(&silent, FRENCH_RULES)]).contains("F-45: laxer"));
}

#[test]
fn without_the_french_pack_no_employee_is_recognised() {
    let settings = Settings {
        custody: Custody::Operator,
        purposes: Purpose::MATCHED.into_iter().collect(),
        zones: vec!["vault".into()],
        ..Settings::default()
    };
    let act = Act::new(Action::Recognise)
        .with("now", 1_000_i64)
        .with("purpose", "staff")
        .with("right", false)
        .with("above_threshold", true)
        .with("rivals", 0_i64)
        .with("consent_ends", 9_000_i64)
        .with("authorisation_ends", 9_000_i64)
        .with("authorised_zone", "vault")
        .with("zone", "vault")
        .with("paused", false)
        .with("record_ends", 9_000_i64)
        .with("lease_ends", 9_000_i64)
        .with("amount", 0_i64)
        .with("spent_total", 0_i64)
        .with("spent_count", 0_i64);
    let allowed = |pack: Arc<Pack>| {
        let verdict = Law::new(pack, &settings.store_facts()).decide_checked(&act).unwrap();
        verdict.allowed
    };
    assert!(allowed(Pack::embedded()));
    assert!(!allowed(Arc::new(Pack::load(&[base(BASE, RULES)]).unwrap())));
    assert_eq!(Pack::embedded().without_basis(settings.purposes).next(), None);
    let european = Pack::load(&[base(BASE, RULES)]).unwrap();
    assert_eq!(european.without_basis(settings.purposes).next(), Some(Purpose::Staff));
}

#[test]
fn everything_that_is_stored_has_a_term() {
    let pack = Pack::embedded();
    for item in palmgate_policy::STORED {
        assert!(pack.retention().iter().any(|term| term.item == *item), "{item}");
    }
}

#[test]
fn a_changed_byte_changes_the_hash() {
    let hash = |rules: &str| Pack::load(&[base(BASE, rules)]).unwrap().hash();
    assert_ne!(hash(RULES), hash(&RULES.replacen("Two people above", "Two persons above", 1)));
    let fr = [embedded_layer("eu-gdpr").unwrap(), embedded_layer("fr-cnil").unwrap()];
    assert_eq!(Pack::load(&fr).unwrap().hash(), Pack::embedded().hash());
    assert!(Pack::embedded().statement().contains("  fr-cnil/rules.cedar\n"));
}

#[test]
fn the_documented_rules_are_those_of_the_packs() {
    let stack = |state| {
        let layers: Vec<_> = ["eu-gdpr", state].into_iter().filter_map(embedded_layer).collect();
        Pack::load(&layers).unwrap()
    };
    let packs = ["fr-cnil", "us-il", "us-tx", "us-nyc"].map(stack);
    let written = palmgate_policy::pack::document(&packs.each_ref());
    let documented = include_str!("../../../docs/rules.md");
    assert!(written == documented, "run: cargo run -p palmgate-policy --example rules");
}
