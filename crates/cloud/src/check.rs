//! `palmgate-cloud check`: what stands between this cloud and its stores, and what to do about it.

use crate::{
    layout::{Layout, LayoutError},
    postgres::{DatabaseSettings, Postgres, Stores},
};
use palmgate_protocol::{DAY, Timestamp};
use palmgate_seal::pki;
use std::path::Path;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In order.
    Good,
    /// It works, and will not for ever.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// In words, with a remedy where one is needed.
    pub words: String,
}

impl Finding {
    fn good(subject: &'static str, words: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, words: words.into() }
    }

    fn warning(subject: &'static str, words: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warning, words: words.into() }
    }

    fn failed(subject: &'static str, words: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Failed, words: words.into() }
    }
}

/// Looks at everything that `serve` needs. Changes nothing.
pub fn check(state: &Path, now: Timestamp) -> Vec<Finding> {
    let layout = Layout::new(state);
    let settings = match layout.settings() {
        Ok(settings) => settings,
        Err(error) => return vec![Finding::failed("configuration", error.to_string())],
    };
    let mut findings = vec![
        Finding::good(
            "configuration",
            format!("tenant {}, region {}", settings.tenant, settings.region),
        ),
        keys(&layout),
        certificate(&layout, now),
        provisioning(&layout),
    ];
    match &settings.database {
        Some(database) => findings.extend(database_findings(&layout, database)),
        None => findings.push(Finding::warning(
            "database",
            "the rows are in the state directory: enough for one process and for trying it out; \
             found the cloud with --database for more",
        )),
    }
    findings
}

fn keys(layout: &Layout) -> Finding {
    let read = || -> Result<bool, LayoutError> {
        layout.publisher()?;
        layout.matcher()?;
        Ok(layout.witness()?.is_some())
    };
    match read() {
        Ok(true) => Finding::good("keys", "publisher, matcher and witness can be read"),
        Ok(false) => Finding::warning("keys", "there is no witness.key: ledgers are not cosigned"),
        Err(error) => Finding::failed("keys", error.to_string()),
    }
}

fn certificate(layout: &Layout, now: Timestamp) -> Finding {
    let subject = "certificate";
    let (server, authority) = match (layout.server(), layout.authority()) {
        (Ok(server), Ok(authority)) => (server, authority),
        (Err(error), _) | (_, Err(error)) => return Finding::failed(subject, error.to_string()),
    };
    let holds_at = |at| pki::verify(server.certificate_der(), &authority, at).is_ok();
    let remedy = "run `palmgate-cloud renew-server`";
    if !holds_at(now) {
        Finding::failed(subject, format!("the service's certificate does not hold now: {remedy}"))
    } else if !holds_at(now.after(30 * DAY)) {
        Finding::warning(subject, format!("it ends within 30 days: {remedy}"))
    } else {
        Finding::good(subject, "it holds for 30 days and more")
    }
}

fn provisioning(layout: &Layout) -> Finding {
    if layout.provisioning().join("authority.key").exists() {
        Finding::warning(
            "provisioning",
            "the authority's key lies beside the service: move provisioning/ off this machine \
             between uses",
        )
    } else {
        Finding::good("provisioning", "the authority's key is elsewhere")
    }
}

fn database_findings(layout: &Layout, database: &DatabaseSettings) -> Vec<Finding> {
    let opened = Postgres::open(layout, database, None);
    let registry = match opened {
        Ok(registry) => registry,
        Err(error) => return vec![Finding::failed("database", error.to_string())],
    };
    let place = registry.address().to_owned();
    let mut findings = vec![
        Finding::good("database", format!("{place} has the schema and the tenant")),
        Finding::good("egress", format!("the service dials {place} and nothing else")),
        registry.policy_finding(),
    ];
    drop(registry);
    findings.push(partitions(layout, database));
    findings
}

fn partitions(layout: &Layout, database: &DatabaseSettings) -> Finding {
    let listed = layout.settings().map_err(|error| error.to_string()).and_then(|settings| {
        Stores::open(layout, database, &settings.tenant, &settings.region)
            .and_then(|stores| stores.partitions())
            .map(|partitions| (settings, partitions))
            .map_err(|error| error.to_string())
    });
    let (settings, partitions) = match listed {
        Ok(listed) => listed,
        Err(error) => return Finding::failed("partitions", error),
    };
    let planned = partitions.iter().any(|partition| !partition.matchers.is_empty());
    let unsearched: Vec<&str> = partitions
        .iter()
        .filter(|partition| planned && partition.matchers.is_empty())
        .map(|partition| partition.partition.as_str())
        .collect();
    if settings.search.is_some() && !unsearched.is_empty() {
        let words = format!(
            "nobody searches {}: run `palmgate-cloud matcher assign`",
            unsearched.join(", ")
        );
        return Finding::failed("partitions", words);
    }
    let elsewhere: Vec<&str> = partitions
        .iter()
        .filter(|partition| partition.region != settings.region.as_str())
        .map(|partition| partition.partition.as_str())
        .collect();
    if !elsewhere.is_empty() {
        let words = format!(
            "{} are of another region: their stores are refused here, serve them there",
            elsewhere.join(", ")
        );
        return Finding::warning("partitions", words);
    }
    let members: i64 = partitions.iter().map(|partition| partition.members).sum();
    Finding::good("partitions", format!("{} with {members} people", partitions.len()))
}
