//! `cargo xtask load`: two hundred terminals against the real daemon, then the same messages through
//! Mosquitto alone. Ends with one line of JSON; see `docs/store-network.md`.

use crate::{NEEDED, build_programs, install};
use std::process::Command;

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    install(&NEEDED)?;
    build_programs()?;
    let mut bench = Command::new("cargo");
    bench.args(["bench", "-p", "palmgate-stories", "--features", "tpm", "--bench", "load", "--"]);
    let status = bench.args(arguments).status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the load failed with {status}")) }
}
