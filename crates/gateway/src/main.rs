//! `palmgated`: the gateway daemon.

use clap::Parser;

fn main() -> std::process::ExitCode {
    palmgate_gateway::Arguments::parse().run()
}
