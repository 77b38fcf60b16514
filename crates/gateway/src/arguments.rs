//! The command line of `palmgated`.

use std::{path::PathBuf, process::ExitCode};

/// Recognises consenting shoppers' palms on the premises: the gateway of a store.
#[derive(clap::Parser)]
#[command(name = "palmgated", version)]
pub struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = crate::CONFIGURATION)]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
}

impl Arguments {
    /// Does what they say.
    pub fn run(&self) -> ExitCode {
        if self.check {
            return crate::daemon::check(&self.config);
        }
        crate::daemon::main(&self.config)
    }
}
