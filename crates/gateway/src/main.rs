//! `palmgated`: the gateway daemon.

use clap::Parser;
use mimalloc::MiMalloc;

// Why: docs/architecture.md, "Decisions that differ from a first sketch".
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    palmgate_gateway::Arguments::parse().run()
}
