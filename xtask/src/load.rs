//! `cargo xtask load`: two hundred terminals against the real daemon, then the same messages through
//! Mosquitto alone. Ends with one line of JSON; see `docs/store-network.md`.

use crate::{FEATURES, NEEDED, build_programs, cargo, install};

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    install(&NEEDED)?;
    build_programs()?;
    // With the features that the programs were built with, so that no dependency is built twice.
    let mut bench = cargo();
    bench.args(["bench", "--workspace"]).args(FEATURES).args(["--bench", "load", "--"]);
    let status = bench.args(arguments).status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the load failed with {status}")) }
}
