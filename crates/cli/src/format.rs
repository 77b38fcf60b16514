//! What the command prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this command's work")]

use std::{
    io::{self, ErrorKind, Write},
    process,
    time::Duration,
};

/// What a shell reports of a program that wrote to a pipe which nobody read any more.
const NOBODY_READS: i32 = 128 + 13;

/// A line of progress or result. Whoever has read enough of it (`palmgate check | head -3`) ends the
/// program, as they would most others.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        process::exit(NOBODY_READS);
    }
}

/// A heading.
pub(crate) fn heading(text: &str) {
    say(&format!("\n{text}\n{}", "─".repeat(text.chars().count())));
}

/// An error with its causes.
pub(crate) fn problem(error: &anyhow::Error) {
    eprintln!("palmgate: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}

/// A duration in milliseconds, with two digits after the point.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

/// The value below which `percent` of `sorted` lie, by nearest rank; zero without values.
pub(crate) fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
