//! `palmgate check`: a box hop by hop, from the configuration to the cloud. What does not work is
//! named with what was found and what to do; what depends on something that failed is left out.
//!
//! One file a check. A check is a function of [`Facts`], which are gathered once.

mod broker;
mod calibration;
mod certificates;
mod clock;
mod cloud;
mod configuration;
mod facts;
mod law;
mod ledger;
mod models;
mod root;
mod service;
mod space;
mod state;
#[cfg(test)]
mod tests;
mod update;

use crate::{control::block_on, format::say};
use anyhow::Result;
use facts::Facts;
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode};

/// What to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration file of the gateway on this box.
    #[arg(long, default_value = palmgate_gateway::CONFIGURATION)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It could not be checked, for a reason that another check names.
    Skip,
    /// It works, and somebody should look after it.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// A check by its name.
type Check = (&'static str, fn(&Facts) -> Outcome);

/// Findings without their check's name.
struct Outcome {
    status: Status,
    found: String,
    remedy: Option<String>,
}

impl Outcome {
    fn ok(found: impl Into<String>) -> Self {
        Self { status: Status::Ok, found: found.into(), remedy: None }
    }

    fn skip(found: impl Into<String>) -> Self {
        Self { status: Status::Skip, found: found.into(), remedy: None }
    }

    fn warn(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fail(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// In the order in which one thing needs the other.
const CHECKS: [Check; 15] = [
    ("configuration", configuration::check),
    ("law", law::check),
    ("models", models::check),
    ("calibration", calibration::check),
    ("clock", clock::check),
    ("state", state::check),
    ("update", update::check),
    ("space", space::check),
    ("root", root::check),
    ("service", service::process),
    ("https", service::https),
    ("ledger", ledger::check),
    ("broker", broker::check),
    ("certificates", certificates::check),
    ("cloud", cloud::check),
];

/// Checks the box; fails when one check failed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let facts = block_on(async { Ok(Facts::gather(&arguments.config).await) })?;
    let findings = examine(&facts);
    if arguments.json {
        say(&serde_json::to_string_pretty(&serde_json::json!({
            "status": worst(&findings),
            "checks": findings,
        }))?);
    } else {
        say(&told(&findings));
    }
    let failed = worst(&findings) == Status::Fail;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(facts: &Facts) -> Vec<Finding> {
    let findings = CHECKS.into_iter().map(|(name, check)| {
        let Outcome { status, found, remedy } = check(facts);
        Finding { check: name, status, found, remedy }
    });
    findings.collect()
}

/// `ok` when there is nothing worse than what could not be checked.
fn worst(findings: &[Finding]) -> Status {
    let worst = findings.iter().map(|finding| finding.status).max();
    worst.filter(|status| *status > Status::Skip).unwrap_or(Status::Ok)
}

fn told(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for Finding { check, status, found, remedy } in findings {
        let status = match status {
            Status::Ok => "ok",
            Status::Skip => "skip",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let indent = format!("\n{:20}", "");
        lines.push(format!("{status:4}  {check:13} {}", found.replace('\n', &indent)));
        if let Some(remedy) = remedy {
            lines.push(format!("{:20}remedy: {}", "", remedy.replace('\n', &indent)));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.status == wanted).count();
    let failed = findings.iter().find(|finding| finding.status == Status::Fail);
    let first = failed.map_or(String::new(), |first| format!("; begin with {}", first.check));
    lines.push(format!(
        "{} ok, {} to look after, {} failed, {} not checked{first}",
        count(Status::Ok),
        count(Status::Warn),
        count(Status::Fail),
        count(Status::Skip),
    ));
    lines.join("\n")
}
