//! `cargo xtask cloud-bench`: what a cloud with many people costs. Ends with one line of JSON.

use crate::cargo;

/// Runs the measurement for these numbers of people; without any, for 10⁴, 10⁵ and 10⁶.
pub(crate) fn run(sizes: &[String]) -> Result<(), String> {
    let mut command = cargo();
    command.args(["bench", "-p", "palmgate-cloud", "--bench", "cloud", "--"]).args(sizes);
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the measurement failed with {status}")) }
}
