//! `cargo xtask monitoring`: the shipped rules and dashboards, against a real Prometheus.

use crate::{cargo, install, run, step};

/// What watches.
pub(crate) const NEEDED: (&str, &str) = ("promtool", "prometheus");

/// Checks configuration and rules, runs the rules' tests, and lets a real Prometheus watch a store.
/// With `--write`, writes `docs/metrics.md`.
pub(crate) fn monitoring(arguments: &[String]) -> Result<(), String> {
    install(&[NEEDED])?;
    rules()?;
    let mut story = cargo();
    story.args(crate::workspace("test")).args(["--test", "monitoring"]);
    if arguments.iter().any(|argument| argument == "--write") {
        story.env("PALMGATE_WRITE_DOCUMENTS", "1");
    }
    run("a real Prometheus watches a store", story)
}

/// Cheap enough for every run of the tests.
pub(crate) fn rules() -> Result<(), String> {
    let config = ["check", "config", "--syntax-only", "monitoring/prometheus.yml"];
    step("promtool check config", "promtool", &config)?;
    step("promtool check rules", "promtool", &["check", "rules", "monitoring/rules.yml"])?;
    step("promtool test rules", "promtool", &["test", "rules", "monitoring/tests/rules.yml"])
}
