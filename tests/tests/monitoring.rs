//! A real Prometheus, with the configuration and rules that are shipped, watches a store and its
//! cloud: no bell rings while all is well, no rule or panel asks for what nobody tells, and no label
//! can hold a person. `docs/metrics.md` is what Prometheus learnt.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use palmgate_cli::stage::{self, Cloud, Gateway, Shape};
use palmgate_protocol::{Custody, Name, Purpose};
use palmgate_stories::{Scene, accepted, pay};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set to write `docs/metrics.md` instead of comparing it.
const WRITE: &str = "PALMGATE_WRITE_DOCUMENTS";
/// Labels that our programs may use; the rest is what Prometheus itself adds.
const LABELS: [&str; 17] = [
    "kind",
    "purpose",
    "outcome",
    "step",
    "le",
    "custody",
    "promise",
    "version",
    "models",
    "pack",
    "certificate",
    "queue",
    "fault",
    "result",
    "rule",
    "reason",
    "urgency",
];
/// The cloud's own label.
const ENDPOINT: &str = "endpoint";
/// What is scraped, and under which heading its metrics stand.
const JOBS: [(&str, &str); 2] = [("palmgate", "of a gateway"), ("palmgate-cloud", "of the cloud")];
/// Type and meaning of each job's metrics.
type Known = BTreeMap<(&'static str, String), (String, String)>;
const ADDED: [&str; 4] = ["__name__", "instance", "job", "store"];

struct Prometheus {
    child: Child,
    address: SocketAddr,
    client: reqwest::Client,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// The shipped files, with a store and a cloud filled in, and ticking once a second.
    fn start(directory: &Path, store: &Gateway, cloud: &Cloud) -> Result<Self> {
        let shipped = root().join("monitoring");
        let config = fs::read_to_string(shipped.join("prometheus.yml"))?
            .replace("interval: 15s", "interval: 1s")
            .replace("127.0.0.1:9444", &cloud.monitor.to_string());
        fs::write(directory.join("prometheus.yml"), config)?;
        fs::copy(shipped.join("rules.yml"), directory.join("rules.yml"))?;
        fs::copy(store.state.join("authority.pem"), directory.join("authorities.pem"))?;
        let stores =
            format!(r#"[{{"targets": ["{}"], "labels": {{"store": "lyon"}}}}]"#, store.https);
        fs::write(directory.join("stores.json"), stores)?;
        let address = stage::free_address()?;
        let log = fs::File::create(directory.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("prometheus: install the package prometheus")?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { child, address, client: reqwest::Client::builder().build()? })
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let base = format!("http://{}/api/v1/{path}", self.address);
        let url = reqwest::Url::parse_with_params(&base, query)?;
        let answer = self.client.get(url).send().await?;
        let body: Value = serde_json::from_slice(&answer.bytes().await?)?;
        ensure!(body["status"] == "success", "{path} {query:?}: {body}");
        Ok(body["data"].clone())
    }

    /// Waits until the store and the cloud were scraped and the rules looked at.
    async fn sees_both(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let up = self.get("query", &[("query", "sum(up)")]).await;
            let two = up.is_ok_and(|up| up["result"][0]["value"][1] == "2");
            if two && self.rules().await?.iter().all(|rule| rule["health"] == "ok") {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_mins(1) {
                bail!("prometheus does not see the store and its cloud: {:?}", self.rules().await?);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn rules(&self) -> Result<Vec<Value>> {
        let data = self.get("rules", &[]).await?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_watches_a_store_and_its_cloud() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (monitoring, tenant): (_, Name) = (tempfile::tempdir()?, "tenant".parse()?);
    let cloud = Cloud::start(directory.path(), &tenant)?;
    let scene = Scene::with(Custody::Operator, Some(&cloud), directory, "lyon").await?;
    let person = scene.enrol(0, &[Purpose::Pay]).await?;
    let answer = scene.present(&scene.kiosk, &person, pay(500), None).await?;
    println!("the payment was accepted: {}", accepted(&answer));
    let prometheus = Prometheus::start(monitoring.path(), &scene.store, &cloud)?;
    prometheus.sees_both().await?;

    let firing =
        prometheus.get("query", &[("query", r#"ALERTS{alertname!="PalmgateRootNotDestroyed"}"#)]);
    let firing = firing.await?;
    ensure!(firing["result"] == Value::Array(Vec::new()), "a bell rings: {firing}");

    let mut known = Known::new();
    for (job, _) in JOBS {
        let of = format!(r#"{{job="{job}"}}"#);
        let told = prometheus.get("targets/metadata", &[("match_target", of.as_str())]).await?;
        for metric in told.as_array().into_iter().flatten() {
            let text = |key: &str| metric[key].as_str().unwrap_or_default().to_owned();
            known.insert((job, text("metric")), (text("type"), text("help")));
        }
    }
    let series = prometheus.get("series", &[("match[]", r#"{__name__=~"palmgate.*"}"#)]).await?;
    let series: Vec<BTreeMap<String, String>> = serde_json::from_value(series)?;
    let rules = prometheus.rules().await?;
    labels_are_closed(&series)?;
    questions_have_answers(&prometheus, &known, &rules).await?;
    documents_are_current(&known, &series, &rules)
}

/// A label that nobody knows could hold anybody.
fn labels_are_closed(series: &[BTreeMap<String, String>]) -> Result<()> {
    for labels in series {
        for label in labels.keys().map(String::as_str) {
            let known = LABELS.contains(&label) || ADDED.contains(&label) || label == ENDPOINT;
            ensure!(known, "the label {label} of {labels:?} is not on the list");
        }
    }
    Ok(())
}

/// Every expression of a rule or a panel can be asked, and asks only for what exists.
async fn questions_have_answers(
    prometheus: &Prometheus,
    known: &Known,
    rules: &[Value],
) -> Result<()> {
    let told: BTreeSet<&str> = known.keys().map(|(_, name)| name.as_str()).collect();
    let recorded: BTreeSet<&str> = rules
        .iter()
        .filter(|rule| rule["type"] == "recording")
        .filter_map(|rule| rule["name"].as_str())
        .collect();
    let mut questions: Vec<(String, String)> = rules
        .iter()
        .map(|rule| (rule["name"].as_str().unwrap().into(), rule["query"].as_str().unwrap().into()))
        .collect();
    for board in fs::read_dir(root().join("monitoring/dashboards"))? {
        let path = board?.path();
        let board: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let before = questions.len();
        expressions(&board, &mut |expression| {
            let asked = expression.replace("$__rate_interval", "1m").replace("$store", "lyon");
            questions.push((path.display().to_string(), asked));
        });
        ensure!(questions.len() > before, "{} asks nothing", path.display());
    }
    for (who, question) in &questions {
        prometheus.get("query", &[("query", question)]).await.context(who.clone())?;
        for name in names(question) {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .filter(|base| told.contains(base));
            let exists = base.is_some() || told.contains(name) || recorded.contains(name);
            ensure!(exists, "{who} asks for {name}, which nobody tells");
        }
    }
    println!(
        "{} rules and {} panels' questions were asked",
        rules.len(),
        questions.len() - rules.len()
    );
    Ok(())
}

fn expressions(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found(text),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Our metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(move |c| !part(c));
    words.filter(|word| word.starts_with("palmgate_") || word.starts_with("palmgate:"))
}

fn documents_are_current(
    known: &Known,
    series: &[BTreeMap<String, String>],
    rules: &[Value],
) -> Result<()> {
    let path = root().join("docs/metrics.md");
    let text = document(known, series, rules)?;
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, text)?;
        return Ok(());
    }
    let written = fs::read_to_string(&path)?;
    ensure!(
        written == text,
        "docs/metrics.md is not current: run `cargo xtask monitoring --write`"
    );
    Ok(())
}

fn document(known: &Known, series: &[BTreeMap<String, String>], rules: &[Value]) -> Result<String> {
    let mut text = String::from(INTRODUCTION);
    for (job, title) in JOBS {
        metrics(&mut text, job, title, known, series)?;
    }
    writeln!(text, "\n## Alerts\n\n| alert | severity | after | remedy |\n|---|---|---|---|")?;
    for rule in rules.iter().filter(|rule| rule["type"] == "alerting") {
        let (name, remedy) =
            (rule["name"].as_str().unwrap(), rule["annotations"]["remedy"].as_str());
        let severity = rule["labels"]["severity"].as_str().context("a severity")?;
        let remedy = remedy.with_context(|| format!("{name} has no remedy"))?;
        let after = Duration::from_secs_f64(rule["duration"].as_f64().unwrap_or_default());
        let after = match after.as_secs() {
            0 => "at once".to_owned(),
            seconds if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
            seconds => format!("{} min", seconds / 60),
        };
        writeln!(text, "| `{name}` | {severity} | {after} | {remedy} |")?;
    }
    text.push_str(LEFT_OUT);
    Ok(text)
}

fn metrics(
    text: &mut String,
    job: &str,
    title: &str,
    known: &Known,
    series: &[BTreeMap<String, String>],
) -> Result<()> {
    writeln!(text, "\n## Metrics {title}\n\n| metric | type | labels | what |\n|---|---|---|---|")?;
    let of_job = known.iter().filter(|((of, name), _)| *of == job && name.starts_with("palmgate_"));
    for ((_, name), (kind, help)) in of_job {
        let own = |labels: &&BTreeMap<String, String>| {
            let rest = labels["__name__"].strip_prefix(name.as_str());
            let known = rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest));
            known && labels.get("job").is_some_and(|of| of == job)
        };
        let labels = series.iter().filter(own).flat_map(|labels| labels.keys().map(String::as_str));
        let hidden = |label: &&str| ADDED.contains(label) || *label == "le";
        let labels: BTreeSet<&str> = labels.filter(|label| !hidden(label)).collect();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "))?;
    }
    Ok(())
}

const INTRODUCTION: &str = "# Metrics and alerts

Made by `cargo xtask monitoring --write` from what a real Prometheus learns of a store and its cloud; \
the tests compare. Gateways serve `/metrics` over HTTPS under the store's own authority, the cloud at \
the address given to `--monitor`. `monitoring/` holds the scrape configuration, the rules with their \
tests, and dashboards for Grafana; the package puts them into `/usr/share/palmgate/monitoring`.

Every label has a closed set of values: purposes, outcomes, queues, rule ids of the law pack, reasons. \
None can hold a person, a terminal or a claim, and a store with 10,000 people shows the same series as \
an empty one.
";

const LEFT_OUT: &str = "
There is no alert for a missing fallback: a store whose configuration declares none does not start. \
A store without a cloud has no witness, and no alert for that.
";

/// The series of a metrics text, without their values and without what differs between builds.
fn shown(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_people_show_the_series_of_none() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tenant: Name = "tenant".parse()?;
    let mut texts = Vec::new();
    for (name, strangers) in [("empty", 0), ("full", 10_000)] {
        let name: Name = name.parse()?;
        let shape = Shape { strangers, ..Shape::new(&tenant, &name) };
        let store = Gateway::start(directory.path(), &shape).await?;
        let begun = Instant::now();
        loop {
            let text = store.metrics().await?;
            if text.contains(&format!("palmgate_people{{custody=\"operator\"}} {strangers}\n")) {
                texts.push(text);
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(30), "the store does not count: {text}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let (empty, full) = (shown(&texts[0]), shown(&texts[1]));
    let new: Vec<&&str> = full.difference(&empty).collect();
    ensure!(new.is_empty(), "people bring new series: {new:?}");
    ensure!(empty.len() > 50, "{} series are too few to prove anything", empty.len());
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
