//! What the checks look at.

use crate::control::{self, Control};
use anyhow::{Context, Result};
use palmgate_gateway::{config::Config, control::ListedTerminal, law};
use palmgate_protocol::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longest wait for one answer of the gateway.
const PATIENCE: Duration = Duration::from_secs(5);

/// The law pack in force, as far as a check tells of it.
pub(super) struct Pack {
    /// Name and version of its layers, from the general to the special.
    pub(super) layers: Vec<String>,
    /// SHA-256, in hexadecimal.
    pub(super) hash: String,
}

/// What a running gateway says of itself over HTTPS.
pub(super) struct Told {
    /// Whether its event loop ticks.
    pub(super) alive: bool,
    /// Whether messages pass through the broker.
    pub(super) broker: bool,
    /// Its metrics in the text exposition format.
    pub(super) metrics: String,
}

/// Gathered once, before the first check.
pub(super) struct Facts {
    pub(super) file: PathBuf,
    pub(super) now: Timestamp,
    pub(super) config: Result<Config, String>,
    pub(super) pack: Option<Result<Pack, String>>,
    /// Terminals, by the control socket; `None` without a configuration.
    pub(super) terminals: Option<Result<Vec<ListedTerminal>, String>>,
    /// `None` unless the control socket answered.
    pub(super) told: Option<Result<Told, String>>,
    /// How long a new connection to the broker and a message through it took; `None` unless the
    /// control socket answered.
    pub(super) probed: Option<Result<Duration, String>>,
    /// Whether the system says that its clock is synchronised; `None` when it does not say.
    pub(super) synchronised: Option<bool>,
}

impl Facts {
    pub(super) async fn gather(file: &Path) -> Self {
        let now = now();
        let config = read(file, now);
        let pack = config.as_ref().ok().map(|config| open(config, now));
        let mut facts = Self {
            file: file.to_owned(),
            now,
            config,
            pack,
            terminals: None,
            told: None,
            probed: None,
            synchronised: synchronised(),
        };
        let Ok(config) = &facts.config else { return facts };
        let (state, https) = (config.options.state_directory.clone(), config.options.https);
        let terminals = terminals(&state).await.map_err(|error| in_short(&error));
        if terminals.is_ok() {
            facts.told = Some(told(&state, https).await.map_err(|error| in_short(&error)));
            facts.probed = Some(probed(&state).await.map_err(|error| in_short(&error)));
        }
        facts.terminals = Some(terminals);
        facts
    }

    /// The configuration, for checks that need one.
    pub(super) fn config(&self) -> Option<&Config> {
        self.config.as_ref().ok()
    }

    /// The state directory.
    pub(super) fn state(&self) -> Option<&Path> {
        Some(&self.config()?.options.state_directory)
    }

    /// The running gateway's metrics.
    pub(super) fn metrics(&self) -> Option<&str> {
        Some(&self.told.as_ref()?.as_ref().ok()?.metrics)
    }

    /// The value of one series, written as in the exposition: `name{label="value"}`.
    pub(super) fn metric(&self, series: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        self.metrics()?.lines().find_map(value)
    }

    /// The values of a label in all series of a metric that are not 0.
    pub(super) fn labels<'a>(&'a self, metric: &'a str, label: &'a str) -> Vec<&'a str> {
        let value = |line: &'a str| {
            let series = line.strip_prefix(metric)?.strip_prefix('{')?;
            let (labels, value) = series.rsplit_once("} ")?;
            let of = labels.split(',').find_map(|one| one.strip_prefix(label)?.strip_prefix("=\""));
            (value != "0").then_some(of?.strip_suffix('"')?)
        };
        self.metrics().unwrap_or_default().lines().filter_map(value).collect()
    }
}

/// What was tried, and what the system said; libraries in between have nothing to add.
fn in_short(error: &anyhow::Error) -> String {
    let (tried, cause) = (error.to_string(), error.root_cause().to_string());
    if tried == cause { tried } else { format!("{tried} ({cause})") }
}

fn read(file: &Path, now: Timestamp) -> Result<Config, String> {
    let origin = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| format!("{origin}: {error}"))?;
    Config::parse(&text, &origin, now).map_err(|errors| errors.to_string())
}

fn open(config: &Config, now: Timestamp) -> Result<Pack, String> {
    let (settings, dossier) = (&config.options.settings, config.dossier.as_ref());
    let pack = law::open(&config.law, settings, &config.fallback, dossier, now);
    let pack = pack.map_err(|error| error.to_string())?;
    let layers = pack.pack.layers().iter();
    Ok(Pack {
        layers: layers.map(|layer| format!("{} of {}", layer.name, layer.version)).collect(),
        hash: data_encoding::HEXLOWER.encode(&pack.pack.hash()),
    })
}

async fn terminals(state: &Path) -> Result<Vec<ListedTerminal>> {
    let control = Control::new(&control::Arguments { state: state.to_owned() })?;
    tokio::time::timeout(PATIENCE, control.list()).await.context("no answer in time")?
}

async fn probed(state: &Path) -> Result<Duration> {
    let control = Control::new(&control::Arguments { state: state.to_owned() })?;
    tokio::time::timeout(2 * PATIENCE, control.probe()).await.context("no answer in time")?
}

/// The gateway's certificate names `localhost` wherever it listens. One that has just started gets
/// a moment for its first message through the broker.
async fn told(state: &Path, https: SocketAddr) -> Result<Told> {
    #[derive(Deserialize)]
    struct Ready {
        alive: bool,
        broker: bool,
    }
    let authority = state.join("authority.pem");
    let pem = fs::read(&authority).with_context(|| authority.display().to_string())?;
    let tls = palmgate_seal::pki::client_config(None, &CertificateDer::from_pem_slice(&pem)?)?;
    let mut address = https;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve("localhost", address)
        .timeout(PATIENCE)
        .build()?;
    let url = |path: &str| format!("https://localhost:{}/{path}", address.port());
    let get = |path: &str| client.get(url(path)).send();
    let begun = Instant::now();
    let (alive, broker) = loop {
        let ready = get("readyz").await.with_context(|| format!("https://{https}/readyz"))?;
        let Ready { alive, broker } = serde_json::from_slice(&ready.bytes().await?)?;
        if broker || begun.elapsed() > PATIENCE {
            break (alive, broker);
        }
        tokio::time::sleep(PATIENCE / 10).await;
    };
    let metrics = get("metrics").await?.error_for_status()?.text().await?;
    Ok(Told { alive, broker, metrics })
}

/// What systemd's time daemon, or chrony, says.
fn synchronised() -> Option<bool> {
    let show = ["show", "--property=NTPSynchronized", "--value"];
    let answer = std::process::Command::new("timedatectl").args(show).output().ok()?;
    match answer.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
}
