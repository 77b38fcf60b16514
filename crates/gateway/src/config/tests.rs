use super::*;
use crate::run::Broker;
use palmgate_protocol::{Custody, DAY, Purpose};

const SAMPLE: &str = include_str!("../../../../config/palmgated.toml");
const OPERATOR: &str = include_str!("../../../../config/operator.toml");

/// 22 November 2026.
const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);

fn accepted(text: &str) -> Config {
    Config::parse(text, "test.toml", NOW).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> Vec<Problem> {
    Config::parse(text, "test.toml", NOW).expect_err(text).problems().to_vec()
}

/// The keys that a text is refused for.
fn refused(text: &str) -> Vec<String> {
    errors(text).into_iter().map(|problem| problem.key).collect()
}

/// `#key = value` and `#[table]` are settings, `# text` is not.
fn uncommented(text: &str) -> String {
    let plain = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(plain).collect()
}

#[test]
fn an_empty_file_is_the_safest_store() {
    let config = accepted("");
    let options = &config.options;
    assert_eq!(options.settings.custody, Custody::Split);
    assert_eq!(options.settings.purposes.iter().collect::<Vec<_>>(), [Purpose::Pay]);
    assert_eq!(options.settings.inactivity, 180 * DAY);
    assert!(options.cloud.is_none() && !options.settings.escalation);
    assert!(options.https.ip().is_loopback());
    let Broker::Embedded { listen, limits } = &options.broker else { panic!("{config:?}") };
    assert!(listen.ip().is_loopback());
    assert_eq!(**limits, crate::broker::Limits::default());
    assert!(!config.development.root_in_file);
    assert!(!config.fallback.is_empty());
}

#[test]
fn the_sample_shows_the_defaults() {
    let mut sample = accepted(SAMPLE);
    // Where the packages' unit listens: a gateway started by hand has no such process.
    let matcher = sample.options.matcher.take();
    assert_eq!(matcher.unwrap().to_str(), Some("/run/palmgate-matcher/socket"));
    assert_eq!(format!("{sample:#?}"), format!("{:#?}", accepted("")));
}

#[test]
fn the_sample_has_every_key_and_no_other() {
    let text = uncommented(SAMPLE);
    let sample: toml::Table = text.parse().unwrap();
    for (path, keys) in schema::SCHEMA {
        let table = path.split('.').try_fold(&sample, |table, name| table[name].as_table());
        for key in *keys {
            assert!(table.unwrap().contains_key(*key), "{path}.{key} is missing in the sample");
        }
    }
    // Only what belongs to the other kind of broker is wrong when everything is set at once.
    assert_eq!(refused(&text), ["broker.host", "broker.port"]);
}

#[test]
fn the_operator_sample_is_complete() {
    let config = accepted(OPERATOR);
    assert_eq!(config.options.settings.custody, Custody::Operator);
    assert_eq!(config.dossier.unwrap().expires.as_millis(), 1_814_400_000_000);
    assert_eq!(config.options.public_host, "palmgate.lyon-1.example");
}

#[test]
fn every_key_is_read_and_refuses_what_is_none_of_its_values() {
    for (path, keys) in schema::SCHEMA {
        for key in *keys {
            // Kinds and custodies that give the key a meaning, unless it is about itself.
            let context = match (*path, *key) {
                ("broker", "host" | "port") => "broker.kind = 'external'\n",
                ("store.operator_dossier", _) => "store.custody = 'operator'\n",
                _ => "",
            };
            for value in ["[[1]]", "-1.5", "''"] {
                let refused = refused(&format!("{context}{path}.{key} = {value}"));
                assert!(refused.contains(&format!("{path}.{key}")), "{path}.{key} = {value}");
            }
        }
    }
}

#[test]
fn ten_mistakes_are_ten_problems_with_line_value_and_remedy() {
    let text = r#"[store]
tenant = "Léon"
custdy = "split"
purposes = ["pay", "fun"]
[listen]
https = "localhost:8443"
[limits]
payment_without_step_up_minor_units = 10000
tries_before_block = "3"
[retention]
inactivity_days = 400
[fallback]
description = " "
[staff]
zones = ["a", "a"]
[colour]
door = "red"
"#;
    let problems = errors(text);
    let found: Vec<_> =
        problems.iter().map(|p| (p.line, p.key.as_str(), p.found.as_str())).collect();
    assert_eq!(
        found,
        [
            (2, "store.tenant", "\"Léon\""),
            (3, "store.custdy", "an unknown key"),
            (4, "store.purposes", "[\"pay\", \"fun\"]"),
            (6, "listen.https", "\"localhost:8443\""),
            (8, "limits.payment_without_step_up_minor_units", "10000"),
            (9, "limits.tries_before_block", "\"3\""),
            (11, "retention.inactivity_days", "400"),
            (13, "fallback.description", "\" \""),
            (15, "staff.zones", "[\"a\", \"a\"]"),
            (16, "colour", "an unknown key"),
        ]
    );
    assert!(problems.iter().all(|p| !p.wanted.is_empty() && !p.remedy.is_empty()));
}

#[test]
fn a_problem_reads_like_a_compilers() {
    let error = Config::parse("[store]\ncustdy = \"split\"\n", "/etc/p.toml", NOW).unwrap_err();
    let expected = r#"error: store.custdy: found an unknown key
 --> /etc/p.toml:2
  |
2 | custdy = "split"
  |
  = wanted: one of tenant, name, custody, purposes, state_directory, language, operator_dossier
  = remedy: did you mean `custody`?

1 problem in /etc/p.toml; nothing was started"#;
    assert_eq!(error.to_string(), expected);
}

#[test]
fn values_may_be_stricter_than_the_law_and_never_laxer() {
    let bounds = [
        ("limits.payment_without_step_up_minor_units", 5000, "P-SCA-11"),
        ("limits.tries_before_block", 5, "P-SCA-4-3b"),
        ("retention.inactivity_days", 365, "RET-03"),
        ("retention.history_days", 183, "RET-05"),
        ("retention.consent_reconfirmation_days", 365, "E-CONS-4"),
    ];
    for (key, most, rule) in bounds {
        for stricter in [1, most - 1, most] {
            accepted(&format!("{key} = {stricter}"));
        }
        let [problem] = &errors(&format!("{key} = {}", most + 1))[..] else { panic!("{key}") };
        assert!(problem.wanted.contains(rule), "{problem}");
    }
}

#[test]
fn operator_custody_needs_its_dossier() {
    let [missing] = &errors("store.custody = 'operator'")[..] else { panic!() };
    assert!(missing.key == "store.custody" && missing.wanted.contains("C-RT-07c"), "{missing}");
    let dossier = OPERATOR.split_once("[listen]").unwrap().0;
    for key in ["reason", "dpia_sha256", "assessed", "signed_by", "expires"] {
        let lines = dossier.lines().filter(|line| !line.starts_with(key));
        let without: String = lines.flat_map(|line| [line, "\n"]).collect();
        assert_eq!(refused(&without), [format!("store.operator_dossier.{key}")]);
    }
    let same = dossier.replace("B. Petit, managing director", "A. Martin, data protection officer");
    assert_eq!(refused(&same), ["store.operator_dossier.signed_by"]);
    for (day, rule) in [("2026-11-21", "not passed"), ("2027-11-25", "twelve months")] {
        let [late] = &errors(&dossier.replace("2027-06-30", day))[..] else { panic!("{day}") };
        assert!(
            late.key == "store.operator_dossier.expires" && late.wanted.contains(rule),
            "{late}"
        );
    }
    accepted(&dossier.replace("2027-06-30", "2026-11-22"));
    accepted(&dossier.replace("2027-06-30", "\"2027-11-22\""));
    assert!(accepted(&dossier.replace("\"operator\"", "\"split\"")).dossier.is_some());
    let misspelt = dossier.replace("\"operator\"", "\"operater\"");
    assert_eq!(refused(&misspelt), ["store.custody"], "one mistake is one problem");
}

#[test]
fn combinations_that_make_no_sense_are_refused() {
    for (text, key) in [
        ("store.purposes = ['pay', 'roaming']", "store.purposes"),
        ("store.purposes = ['staff']", "store.purposes"),
        ("store.purposes = []", "store.purposes"),
        ("store.purposes = ['pay', 'pay']", "store.purposes"),
        ("staff.zones = ['cash office']", "staff.zones"),
        ("listen.broker = '127.0.0.1:8443'", "listen.https"),
        ("listen.https = '0.0.0.0:8443'", "listen.public_host"),
        ("broker.port = 8883", "broker.port"),
        ("broker.kind = 'external'", "broker.host"),
        ("broker = { kind = 'external', host = 'b', max_terminals = 3 }", "broker.max_terminals"),
        ("store = 3", "store"),
    ] {
        assert_eq!(refused(text), [key], "{text}");
    }
    assert_eq!(refused("[cloud]"), ["cloud.identity"]);
    let [place] = &errors("cloud = { identity = '/b', region = 'us' }")[..] else { panic!() };
    assert!(place.wanted.contains("G-44"), "{place}");
}

#[test]
fn what_belongs_together_is_accepted() {
    let text = r#"
[store]
purposes = ["staff", "roaming"]
[staff]
zones = ["cash office"]
[listen]
https = "0.0.0.0:0"
public_host = "10.0.0.7"
[broker]
kind = "external"
host = "10.0.0.8"
[cloud]
identity = "/etc/palmgate/bundle"
region = "fr"
timeout_ms = 500
[development]
root_in_file = true
"#;
    let config = accepted(text);
    let Broker::External { host, port } = config.options.broker else { panic!() };
    assert_eq!((host.as_str(), port), ("10.0.0.8", 8883));
    assert_eq!(config.options.settings.zones, ["cash office"]);
    assert!(config.development.root_in_file && config.options.settings.escalation);
    let cloud = config.options.cloud.unwrap();
    assert_eq!((config.region.unwrap().as_str(), cloud.timeout.as_millis()), ("fr", 500));
    let year = accepted("").options.certificate_lifetime.as_secs();
    assert_eq!(year, 397 * 24 * 3600);
    let short = accepted("development.certificate_seconds = 10").options.certificate_lifetime;
    assert_eq!(short.as_secs(), 10);
    for wrong in ["9", "34300801", "'10'"] {
        assert_eq!(errors(&format!("development.certificate_seconds = {wrong}")).len(), 1);
    }
    accepted("listen = { broker = '127.0.0.1:0', https = '127.0.0.1:0' }");
    for (log, target) in [
        ("target = 'journald', format = 'json'", LogTarget::Journald),
        ("format = 'json'", LogTarget::Json),
        ("level = 'debug'", LogTarget::Stderr),
    ] {
        assert_eq!(accepted(&format!("log = {{ {log} }}")).log.target, target);
    }
}

#[test]
fn the_log_filter_is_one_that_the_logger_takes() {
    for level in ["error", "warn", "info", "debug"] {
        let log = accepted(&format!("log.level = '{level}'")).log;
        assert!(log.filter.starts_with(level));
        tracing_subscriber::EnvFilter::try_new(&log.filter).unwrap();
    }
}

#[test]
fn mistakes_in_the_grammar_are_problems_too() {
    let text = "[store]\nname = lyon\ntenant = \"ok\"\n[listen\nhttps = \"127.0.0.1:1\"\n";
    let lines: Vec<_> =
        errors(text).iter().map(|problem| (problem.line, problem.key.clone())).collect();
    assert_eq!(lines, [(2, String::new()), (4, String::new())]);
    let [twice] = &errors("[store]\nname = 'a'\nname = 'b'\n")[..] else { panic!() };
    assert_eq!(twice.line, 3);
    assert!(
        twice.to_string().starts_with("error: not TOML: found name\n --> test.toml:3\n"),
        "{twice}"
    );
}
