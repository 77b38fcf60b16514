//! From a document to a [`Config`], table by table.

use super::{
    Config, ConfigErrors, Development, Dossier, Log, LogTarget, Problem, Region,
    checks::{self, Rule},
    reader::{Reader, Wanted},
};
use crate::{
    Freshness, RootKeeping, broker,
    in_use::Updates,
    law::{Declared, PackFiles},
    run::{Broker, Cloud, Options},
};
use palmgate_policy::{Measured, Settings};
use palmgate_protocol::{
    Custody, Name, Purpose, PurposeSet, Timestamp,
    limits::{CHALLENGE_LIFETIME, MAX_CLOCK_SKEW},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use toml::de::DeValue;

const STATE_DIRECTORY: &str = "/var/lib/palmgate";
const UPDATE_DIRECTORY: &str = "/var/lib/palmgate-update";
const LANGUAGE: &str = "en";
const PUBLIC_HOST: &str = "localhost";
/// The longest that a TLS client accepts is 398 days.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(397 * 24);
const BROKER_PORT: u16 = 8883;
const HTTPS_PORT: u16 = 8443;
const FALLBACK: &str = "Pay by card or in cash, show a QR code, or ask a member of staff: the \
                        price is the same and there is no extra wait.";

const PAYMENT: Rule = Rule { id: "P-SCA-11", source: "Reg. (EU) 2018/389 Art. 11: EUR 50" };
const TRIES: Rule = Rule { id: "P-SCA-4-3b", source: "Reg. (EU) 2018/389 Art. 4(3)(b)" };
const INACTIVITY: Rule = Rule { id: "RET-03", source: "GDPR Art. 5(1)(e)" };
const HISTORY: Rule = Rule { id: "RET-05", source: "CNIL 2019-001: six months" };
const CONSENT: Rule = Rule { id: "E-CONS-4", source: "EDPB 05/2020" };

/// By [`Purpose::MATCHED`] position (rules P-SCA-8 and I-1N).
const FALSE_MATCH_RATES: [f64; 4] = [1e-6, 1e-4, 1e-4, 1e-5];
/// rumqttd logs every connection, and the others log whole messages at `debug`.
const QUIET_LIBRARIES: &str = "rumqttd=off,rumqttc=warn,rustls=warn,h2=warn,hyper=warn,sled=warn";

const DOSSIER: &str = "store.operator_dossier";
const BROKER_LIMITS: [&str; 4] = [
    "max_terminals",
    "max_terminals_per_address",
    "backlog_mebibytes",
    "terminal_mebibytes_per_second",
];
const MEBIBYTE: u64 = 1024 * 1024;

impl Config {
    /// Reads a configuration at the time `now`. `origin` is the file's name, for people to find it.
    ///
    /// # Errors
    /// [`ConfigErrors`] has everything that is wrong with it.
    pub fn parse(text: &str, origin: &str, now: Timestamp) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::parse(text, origin).map_err(ConfigErrors)?;
        let config = read(&mut reader, now);
        let problems: Vec<Problem> = reader.finish();
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }
}

fn read(reader: &mut Reader<'_>, now: Timestamp) -> Config {
    let (custody, dossier) = read_custody(reader, now);
    let (cloud, region) = read_cloud(reader).unzip();
    let mut settings = read_settings(reader, custody, cloud.is_some());
    settings.production = reader.read("law", "production", false, checks::boolean);
    settings.region = region.unwrap_or(Region::UNION).as_str().into();
    let language = reader.read("store", "language", LANGUAGE.into(), checks::language);
    let root_in_file = reader.read("development", "root_in_file", false, checks::boolean);
    Config {
        options: read_options(reader, settings, cloud, language.clone()),
        log: read_log(reader),
        dossier,
        language,
        fallback: read_fallback(reader),
        law: read_law(reader, now),
        region,
        development: Development { root_in_file },
    }
}

fn read_options(
    reader: &mut Reader<'_>,
    settings: Settings,
    cloud: Option<Cloud>,
    language: String,
) -> Options {
    let store: Name = "store".parse().expect("it is a name");
    let broker = read_broker(reader);
    let (https, public_host) = read_listen(reader, &broker);
    let mut count = |key, default, most| {
        reader.read("palm", key, default, |value| checks::whole(value, 1..=most)) as usize
    };
    let (workers, queue_length) = (count("workers", 2, 64), count("queue_length", 32, 256));
    let matcher = reader.optional("palm", "matcher", checks::path);
    let models = reader.optional("palm", "models", checks::path);
    let updates = read_updates(reader);
    if models.is_some() && updates.signers.is_empty() {
        let wanted = "`signers` in [update] with it: a registry of models has two signatures";
        reader.complain("palm", "models", Wanted::new(wanted, "name the signers"));
    }
    let (freshness, answer_slot) = (read_freshness(reader), read_answer_slot(reader));
    let calibration = reader.optional("palm", "calibration", checks::path);
    let path = STATE_DIRECTORY.into();
    Options {
        tenant: reader.read("store", "tenant", store.clone(), checks::name),
        store: reader.read("store", "name", store, checks::name),
        state_directory: reader.read("store", "state_directory", path, checks::path),
        root: read_root(reader),
        settings,
        false_match_rates: FALSE_MATCH_RATES,
        calibration,
        history: days(reader, "history_days", 90, 183, &HISTORY),
        https,
        public_host,
        broker,
        cloud,
        workers,
        queue_length,
        matcher,
        language,
        certificate_lifetime: read_lifetime(reader),
        models,
        updates,
        freshness,
        answer_slot,
    }
}

fn read_freshness(reader: &mut Reader<'_>) -> Freshness {
    let most = CHALLENGE_LIFETIME.as_secs();
    let seconds = |value: &DeValue<'_>| checks::whole(value, 5..=most);
    let lifetime = Duration::from_secs(reader.read("limits", "challenge_seconds", most, seconds));
    let all = Purpose::MATCHED.into_iter().collect();
    let needed_for = reader.read("limits", "challenge_needed_for", all, checks::purposes);
    Freshness { lifetime, needed_for }
}

fn read_answer_slot(reader: &mut Reader<'_>) -> Duration {
    let milliseconds = |value: &DeValue<'_>| checks::whole(value, 0..=500);
    Duration::from_millis(reader.read("limits", "answer_slot_milliseconds", 100, milliseconds))
}

fn read_settings(reader: &mut Reader<'_>, custody: Custody, cloud: bool) -> Settings {
    let pay = PurposeSet::default().with(Purpose::Pay);
    let purposes = reader.read("store", "purposes", pay, checks::purposes);
    let zones = reader.read("staff", "zones", Vec::new(), checks::zones);
    check_purposes(reader, purposes, &zones);
    let mut limit = |key, most, check: &dyn Fn(&DeValue<'_>) -> Result<u64, Wanted>| {
        reader.read("limits", key, most, check)
    };
    let payment_limit = limit("payment_without_step_up_minor_units", 5000, &|value| {
        checks::lawful(value, 0..=5000, &PAYMENT)
    });
    let tries = limit("tries_before_block", 5, &|value| checks::lawful(value, 1..=5, &TRIES));
    let skew = MAX_CLOCK_SKEW.as_secs();
    let skew = limit("clock_skew_seconds", skew, &|value| checks::whole(value, 1..=skew));
    Settings {
        custody,
        purposes,
        escalation: cloud && purposes.contains(Purpose::Roaming),
        payment_limit,
        tries: tries as u8,
        clock_skew: Duration::from_secs(skew),
        inactivity: days(reader, "inactivity_days", 180, 365, &INACTIVITY),
        ceiling: days(reader, "consent_reconfirmation_days", 365, 365, &CONSENT),
        zones,
        notice: crate::NOTICE.into(),
        ..Settings::default()
    }
}

fn read_law(reader: &mut Reader<'_>, now: Timestamp) -> Declared {
    let text = |reader: &mut Reader<'_>, key| reader.optional("law", key, checks::text);
    let directory = reader.optional("law", "pack", checks::path);
    let note = reader.optional("law", "note", checks::path);
    let signers = reader.optional("law", "signers", checks::signers);
    let pack = match (directory, note, signers.clone()) {
        (Some(directory), Some(note), Some(signers)) => {
            Some(PackFiles { directory, note, signers })
        }
        (Some(_), _, _) => {
            let wanted = "`note` and `signers` beside it: a pack has two signatures";
            reader.complain("law", "pack", Wanted::new(wanted, "name the note and both signers"));
            None
        }
        _ => None,
    };
    let day = |value: &DeValue<'_>| checks::past_day(value, now);
    Declared {
        pack,
        controller: text(reader, "controller").unwrap_or_default(),
        contact: text(reader, "contact").unwrap_or_default(),
        officer: text(reader, "officer").unwrap_or_default(),
        assessed: reader.optional("law", "assessed", day),
        administrators: reader
            .read("law", "administrators", 0, |value| checks::whole(value, 0..=100)),
        statements: reader.read("law", "statements", Vec::new(), checks::statements),
        measured: read_measured(reader),
        signers: signers.unwrap_or_default(),
    }
}

/// Figures of reports: all of them, or none.
fn read_measured(reader: &mut Reader<'_>) -> Option<Measured> {
    const TABLE: &str = "law.measured";
    if !reader.has(TABLE, "") {
        return None;
    }
    let mut figure = |key| {
        let missing = Wanted::new(
            "a figure of the report",
            "take it from the report, or remove [law.measured]",
        );
        let whole = |value: &DeValue<'_>| checks::whole(value, 0..=1_000_000_000);
        reader.required(TABLE, key, missing, whole).map(u64::cast_signed)
    };
    let figures = (
        figure("false_match_per_billion"),
        figure("false_positive_per_million"),
        figure("apcer_permille"),
        figure("bpcer_permille"),
        figure("linkability_permille"),
    );
    Some(Measured {
        false_match_per_billion: figures.0?,
        false_positive_per_million: figures.1?,
        apcer_permille: figures.2?,
        bpcer_permille: figures.3?,
        linkability_permille: figures.4?,
    })
}

fn read_updates(reader: &mut Reader<'_>) -> Updates {
    Updates {
        directory: reader.read("update", "directory", UPDATE_DIRECTORY.into(), checks::path),
        signers: reader.optional("update", "signers", checks::signers).unwrap_or_default(),
    }
}

/// Certificates that last for seconds show in minutes how a store renews them.
fn read_lifetime(reader: &mut Reader<'_>) -> Duration {
    let default = CERTIFICATE_LIFETIME.as_secs();
    let seconds = |value: &DeValue<'_>| checks::whole(value, 10..=default);
    Duration::from_secs(reader.read("development", "certificate_seconds", default, seconds))
}

fn read_root(reader: &mut Reader<'_>) -> RootKeeping {
    let tcti = reader.read("root", "tpm", "device:/dev/tpmrm0".into(), checks::text);
    match reader.read("root", "keeper", "file", checks::keeper) {
        "tpm" => RootKeeping::Tpm { tcti },
        "credential" => RootKeeping::Credential,
        _ => RootKeeping::File,
    }
}

fn days(reader: &mut Reader<'_>, key: &str, default: u32, most: u64, rule: &Rule) -> Duration {
    let default = palmgate_protocol::DAY * default;
    reader.read("retention", key, default, |value| checks::days(value, most, rule))
}

fn read_custody(reader: &mut Reader<'_>, now: Timestamp) -> (Custody, Option<Dossier>) {
    let custody = reader.read("store", "custody", Custody::Split, checks::custody);
    if reader.has(DOSSIER, "") {
        return (custody, read_dossier(reader, now));
    }
    if custody == Custody::Operator {
        let wanted = "the table [store.operator_dossier]: rule C-RT-07c (CNIL 2019-001, type 3); \
                      EDPB Opinion 11/2024 rejects this custody where another one will do";
        let remedy = "add it with reason, dpia_sha256, assessed, signed_by and expires, or use \
                      custody = \"split\"";
        reader.complain("store", "custody", Wanted::new(wanted, remedy));
    }
    (custody, None)
}

fn read_dossier(reader: &mut Reader<'_>, now: Timestamp) -> Option<Dossier> {
    let missing = |what: &str| Wanted::new(what, "complete the dossier: rule C-RT-07c");
    let reason = missing("why neither \"subject\" nor \"split\" will do");
    let reason = reader.required(DOSSIER, "reason", reason, checks::text);
    let dpia = missing("SHA-256 of the impact assessment, as 64 hexadecimal digits");
    let dpia_sha256 = reader.required(DOSSIER, "dpia_sha256", dpia, checks::sha256);
    let signed = missing("the day on which the impact assessment was signed");
    let day = |value: &DeValue<'_>| checks::past_day(value, now);
    let assessed = reader.required(DOSSIER, "assessed", signed, day);
    let signatures = missing("the names of two different people");
    let signed_by = reader.required(DOSSIER, "signed_by", signatures, checks::signatories);
    let end = missing("the last day on which it holds, twelve months from now at most");
    let day = |value: &DeValue<'_>| checks::last_day(value, now);
    let expires = reader.required(DOSSIER, "expires", end, day);
    Some(Dossier {
        reason: reason?,
        dpia_sha256: dpia_sha256?,
        assessed: assessed?,
        signed_by: signed_by?,
        expires: expires?,
    })
}

fn read_cloud(reader: &mut Reader<'_>) -> Option<(Cloud, Region)> {
    if !reader.has("cloud", "") {
        return None;
    }
    let missing = Wanted::new(
        "the directory with this store's bundle",
        "set it to where the bundle was copied to, or remove [cloud]",
    );
    let bundle = reader.required("cloud", "identity", missing, checks::path);
    let region = reader.read("cloud", "region", Region::UNION, checks::region);
    let mut number = |key, default, range| {
        reader.read("cloud", key, default, |value| checks::whole(value, range))
    };
    let refresh = Duration::from_secs(number("shard_refresh_seconds", 60, 1..=3600));
    let timeout = Duration::from_millis(number("timeout_ms", 800, 50..=10_000));
    Some((Cloud { bundle: bundle?, refresh, timeout }, region))
}

fn read_broker(reader: &mut Reader<'_>) -> Broker {
    let kinds = [("embedded", true), ("external", false)];
    let embedded = reader.read("broker", "kind", true, |value| checks::word(value, &kinds));
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, BROKER_PORT));
    let listen = reader.read("listen", "broker", local, checks::address);
    let limits = Box::new(read_broker_limits(reader));
    let port = |value: &DeValue<'_>| checks::whole(value, 1..=65_535);
    let port = reader.read("broker", "port", BROKER_PORT.into(), port) as u16;
    let host = reader.optional("broker", "host", checks::host);
    if reader.is_faulty("broker", "kind") {
        return Broker::Embedded { listen, limits };
    }
    if embedded {
        let idle = "no address: the embedded broker is in this daemon";
        reader.complain_if_set("broker", &["host", "port"], idle);
        return Broker::Embedded { listen, limits };
    }
    let idle = "no limit of the embedded broker: an external one has its own";
    reader.complain_if_set("broker", &BROKER_LIMITS, idle);
    reader.complain_if_set("listen", &["broker"], "no listener: the broker is an external one");
    if !reader.has("broker", "host") {
        let remedy = "set host, or kind = \"embedded\"";
        let missing = Wanted::new("the DNS name or IP address of the external broker", remedy);
        reader.complain("broker", "host", missing);
    }
    Broker::External { host: host.unwrap_or_default(), port }
}

fn read_broker_limits(reader: &mut Reader<'_>) -> broker::Limits {
    let defaults = broker::Limits::default();
    let mut limit = |key, default: u64, range| {
        reader.read("broker", key, default, |value| checks::whole(value, range))
    };
    let clients = limit("max_terminals", defaults.clients as u64, 1..=2000);
    let per_address = defaults.clients_per_address as u64;
    let per_address = limit("max_terminals_per_address", per_address, 1..=2000);
    let backlog = defaults.backlog_bytes as u64 / MEBIBYTE;
    let backlog = limit("backlog_mebibytes", backlog, 4..=1024);
    let pace = u64::from(defaults.bytes_per_second) / MEBIBYTE;
    let pace = limit("terminal_mebibytes_per_second", pace, 1..=1024);
    broker::Limits {
        clients: clients as usize,
        clients_per_address: per_address as usize,
        backlog_bytes: (backlog * MEBIBYTE) as usize,
        bytes_per_second: (pace * MEBIBYTE) as u32,
        ..defaults
    }
}

fn read_listen(reader: &mut Reader<'_>, broker: &Broker) -> (SocketAddr, String) {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTPS_PORT));
    let https = reader.read("listen", "https", local, checks::address);
    let public_host = reader.read("listen", "public_host", PUBLIC_HOST.into(), checks::host);
    let broker = match broker {
        Broker::Embedded { listen, .. } => Some(*listen),
        Broker::External { .. } => None,
    };
    if https.port() != 0 && broker == Some(https) {
        let wanted = "another port than that of the broker";
        reader.complain("listen", "https", Wanted::new(wanted, "give each its own port"));
    }
    let open = broker.into_iter().chain([https]).any(|address| !address.ip().is_loopback());
    if open && !reader.has("listen", "public_host") {
        let wanted = "the name or address of this box, since terminals reach it over the network";
        let remedy = "set public_host to what terminals can dial; it goes into the certificate";
        reader.complain("listen", "public_host", Wanted::new(wanted, remedy));
    }
    (https, public_host)
}

/// Purposes that need something else to be configured, and the other way round.
fn check_purposes(reader: &mut Reader<'_>, purposes: PurposeSet, zones: &[String]) {
    if reader.is_faulty("store", "purposes") || reader.is_faulty("staff", "zones") {
        return;
    }
    if purposes.contains(Purpose::Roaming) && !reader.has("cloud", "") {
        let wanted = "no \"roaming\" without [cloud]: people would consent to nothing";
        let remedy = "take \"roaming\" out, or configure [cloud]";
        reader.complain("store", "purposes", Wanted::new(wanted, remedy));
    }
    let staff = purposes.contains(Purpose::Staff);
    if staff && zones.is_empty() {
        let wanted = "no \"staff\" without restricted zones: rule C-RT-02 (CNIL 2019-001): staff are \
                      admitted to listed zones, and never clocked";
        let remedy = "list them, for example [staff] zones = [\"cash office\"]";
        reader.complain("store", "purposes", Wanted::new(wanted, remedy));
    } else if !staff && !zones.is_empty() {
        let wanted = "no zones without the purpose \"staff\"";
        let remedy = "remove them, or add \"staff\" to the purposes";
        reader.complain("staff", "zones", Wanted::new(wanted, remedy));
    }
}

fn read_log(reader: &mut Reader<'_>) -> Log {
    let targets = [("stderr", LogTarget::Stderr), ("journald", LogTarget::Journald)];
    let formats = [("text", LogTarget::Stderr), ("json", LogTarget::Json)];
    let levels = ["error", "warn", "info", "debug"].map(|level| (level, level));
    let target = |value: &DeValue<'_>| checks::word(value, &targets);
    let target = reader.read("log", "target", LogTarget::Stderr, target);
    let format = |value: &DeValue<'_>| checks::word(value, &formats);
    let format = reader.read("log", "format", LogTarget::Stderr, format);
    let level = |value: &DeValue<'_>| checks::word(value, &levels);
    let level = reader.read("log", "level", "info", level);
    let target = if target == LogTarget::Stderr { format } else { target };
    Log { target, filter: format!("{level},{QUIET_LIBRARIES}") }
}

fn read_fallback(reader: &mut Reader<'_>) -> String {
    reader.read("fallback", "description", FALLBACK.into(), |value| {
        checks::text(value).map_err(|_| {
            Wanted::new(
                "what people can use instead: rules C-RT-10g, E-86, X-EAA",
                "describe it, or remove the key for the default text",
            )
        })
    })
}
