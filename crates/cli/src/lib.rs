//! The command `palmgate`: try a whole store, run and check one, work with its terminals and papers.
//!
//! [`stage`] and [`hands`] also serve the stories in `tests/`: real processes on loopback.
#![allow(
    clippy::missing_errors_doc,
    reason = "errors are sentences for a person, with their causes"
)]

mod audit;
mod bench;
mod check;
pub mod control;
mod demo;
mod evaluate;
mod format;
pub mod hands;
mod manual;
mod office;
mod policy;
mod simulate;
pub mod stage;
mod terminal;
mod update;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Recognises consenting shoppers' palms on the premises, and proves that it forgot them.
#[derive(Parser)]
#[command(name = "palmgate", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a whole store on this machine, once through all that it does (the default).
    Demo(demo::Arguments),
    /// Check a box hop by hop: what is wrong, and what to do.
    Check(check::Arguments),
    /// Measure a scan step by step against a shard of many people.
    Bench(bench::Arguments),
    /// Simulate a chain of stores: what their shards answer, and what the rest costs.
    Simulate(simulate::Arguments),
    /// Measure recognition on a folder of your own pictures, as ISO/IEC 19795-1 asks.
    Evaluate(evaluate::Arguments),
    /// Add, list or revoke terminals of the box; or be a terminal, with pictures as hands.
    #[command(subcommand)]
    Terminal(terminal::Verb),
    /// Check a ledger or an erasure receipt, offline.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Read, check, sign, compare and replay law packs.
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Verify, install and sign updates of programs, models and law packs.
    #[command(subcommand)]
    Update(update::Verb),
    /// Print the notice to people (GDPR Art. 13).
    Notice(policy::PaperArguments),
    /// Print the record of processing activities (GDPR Art. 30).
    Ropa(policy::PaperArguments),
    /// Print the annex of facts to the impact assessment (GDPR Art. 35).
    Dpia(policy::PaperArguments),
    /// Print the sign for the entrance.
    Sign(policy::PaperArguments),
    /// Requests of people and their clocks, and the keys that people take their data along with.
    #[command(subcommand)]
    Rights(office::Rights),
    /// Breaches, their clock of 72 hours and the draft of the report (on the box).
    #[command(subcommand)]
    Breach(office::Breaches),
    /// Legal holds (on the box).
    #[command(subcommand)]
    Hold(office::Holds),
    /// What has to be done again and again, and what is missed (on the box).
    #[command(subcommand)]
    Duties(office::Duties),
    /// The box's clock, and signed times that confirm it after a jump.
    #[command(subcommand)]
    Clock(office::Clock),
    /// Forget everybody: the box was opened, or its life is over (on the box).
    Decommission(office::DecommissionArguments),
    /// Write certificate, key and authority for an external broker (on the box).
    Broker(control::BrokerArguments),
    /// Show what the store holds: the public counter.
    Counter(control::Arguments),
    /// Write the manual pages and shell completions of every program.
    #[command(hide = true)]
    Manual {
        /// Directory to write to.
        directory: PathBuf,
    },
    /// Run the gateway daemon, as `palmgated` does.
    #[command(hide = true)]
    Daemon {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run the reference cloud, as `palmgate-cloud serve` does.
    #[command(hide = true)]
    Cloud {
        /// State directory.
        #[arg(long)]
        state: PathBuf,
        /// Address to listen on.
        #[arg(long)]
        listen: std::net::SocketAddr,
        /// Address for monitoring.
        #[arg(long)]
        monitor: std::net::SocketAddr,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => demo::run(demo::Arguments::default()),
        Some(Verb::Demo(arguments)) => demo::run(arguments),
        Some(Verb::Check(arguments)) => check::run(&arguments),
        Some(Verb::Manual { directory }) => manual::write(&directory),
        Some(Verb::Bench(arguments)) => bench::run(&arguments),
        Some(Verb::Simulate(arguments)) => simulate::run(&arguments),
        Some(Verb::Evaluate(arguments)) => evaluate::run(&arguments),
        Some(Verb::Terminal(verb)) => terminal::run(verb),
        Some(Verb::Audit(verb)) => audit::run(verb),
        Some(Verb::Policy(verb)) => policy::run(verb),
        Some(Verb::Update(verb)) => update::run(verb),
        Some(Verb::Notice(arguments)) => policy::paper(policy::Kind::Notice, &arguments),
        Some(Verb::Ropa(arguments)) => policy::paper(policy::Kind::Ropa, &arguments),
        Some(Verb::Dpia(arguments)) => policy::paper(policy::Kind::Dpia, &arguments),
        Some(Verb::Sign(arguments)) => policy::paper(policy::Kind::Sign, &arguments),
        Some(Verb::Rights(verb)) => office::rights(verb),
        Some(Verb::Breach(verb)) => office::breach(verb),
        Some(Verb::Hold(verb)) => office::hold(verb),
        Some(Verb::Duties(verb)) => office::duties(verb),
        Some(Verb::Clock(verb)) => office::clock(verb),
        Some(Verb::Decommission(arguments)) => office::decommission(&arguments),
        Some(Verb::Broker(arguments)) => control::broker(&arguments),
        Some(Verb::Counter(arguments)) => control::counter(&arguments),
        Some(Verb::Daemon { config }) => return palmgate_gateway::daemon::main(&config),
        Some(Verb::Cloud { state, listen, monitor }) => {
            return stage::serve_cloud(state, listen, monitor);
        }
    };
    ended(done)
}

/// Runs the command line of `palmgate-simulated-terminal`.
pub fn terminal_main() -> ExitCode {
    ended(terminal::Arguments::parse().run())
}

fn ended(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        format::problem(&error);
        ExitCode::FAILURE
    })
}

/// The notice that people must have been shown before they consent.
pub const NOTICE: &str = palmgate_gateway::NOTICE;
