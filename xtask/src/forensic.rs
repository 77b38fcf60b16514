//! `cargo xtask forensic`: everything ever written is searched for people who were erased, the power is
//! cut at every change of the disk, and every second change fails. Ends with one line of JSON.

use crate::{NEEDED, cargo, install};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

/// Figures of the JSON line, in its order: each is printed by one of the tests.
const FIGURES: [&str; 8] = [
    "erased",
    "remnants",
    "control_before",
    "control_without_rotation",
    "crash_points",
    "failures",
    "lost",
    "back",
];

pub(crate) fn run() -> Result<(), String> {
    install(&NEEDED)?;
    let mut tests = cargo();
    tests.args(["test", "--release", "-p", "palmgate-vault", "--features", "tpm", "--lib", "--"]);
    // One after the other: each keeps the processors busy, and slow disks are part of what is tested.
    tests.args(["tests::forensic", "tests::powercut", "--include-ignored", "--nocapture"]);
    tests.arg("--test-threads=1");
    let mut running = tests.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let output = running.stdout.take().ok_or("no output")?;
    let mut found: Vec<(String, u64)> = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        let figure = line.strip_prefix("forensic ").and_then(|figure| figure.split_once(' '));
        if let Some((key, Ok(value))) = figure.map(|(key, value)| (key, value.parse())) {
            found.push((key.to_owned(), value));
        }
    }
    let status = running.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("the forensic tests failed with {status}"));
    }
    let figure = |key: &str| {
        let value = found.iter().find(|(found, _)| found == key).map(|(_, value)| value);
        value.map(|value| format!("\"{key}\":{value}")).ok_or(format!("no figure for {key}"))
    };
    let figures: Vec<String> = FIGURES.into_iter().map(figure).collect::<Result<_, _>>()?;
    println!("{{{}}}", figures.join(","));
    Ok(())
}
