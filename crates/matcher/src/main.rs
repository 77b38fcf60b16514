//! `palmgate-matcher`: parses pictures and searches open references, apart from the gateway.

use clap::Parser;

fn main() -> std::process::ExitCode {
    palmgate_matcher::Arguments::parse().run()
}
