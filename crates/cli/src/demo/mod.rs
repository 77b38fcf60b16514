//! `palmgate demo`: a whole store on loopback, once through everything that it does.

mod report;
mod search;
mod story;

use crate::{
    control::block_on,
    format::{heading, say},
};
use anyhow::Result;
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// How the demo runs.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Pictures of hands, one hand a file, eight at least, instead of the ones that come with this
    /// program.
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// People in the shard who are never here: random protected templates.
    #[arg(long, default_value_t = 10_000)]
    people: usize,
    /// Keep the store running afterwards, until interrupted.
    #[arg(long)]
    stay: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { pictures: None, people: 10_000, stay: false }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    block_on(async {
        let begun = Instant::now();
        heading("A store in one process group, on loopback, with fresh state");
        let mut story = story::Story::begin(&arguments).await?;
        story.tell().await?;
        report::print(&mut story, begun.elapsed()).await?;
        if arguments.stay {
            story.stay().await?;
        }
        let failed = story.failed();
        story.end()?;
        if failed > 0 {
            say(&format!("\n{failed} step(s) did not hold"));
            return Ok(ExitCode::FAILURE);
        }
        say("\nEverything held.");
        Ok(ExitCode::SUCCESS)
    })
}
