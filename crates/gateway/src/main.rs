//! `palmgated`: the gateway daemon.

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Recognises consenting shoppers' palms on the premises.
#[derive(Parser)]
#[command(name = "palmgated", version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/palmgate/palmgated.toml")]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return palmgate_gateway::daemon::check(&arguments.config);
    }
    palmgate_gateway::daemon::main(&arguments.config)
}
