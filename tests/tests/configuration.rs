//! A configuration that is wrong is refused whole, before anything is opened.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use std::{fs, io, process::Command};

#[test]
fn ten_planted_errors_are_shown_at_once_and_the_exit_is_64() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("palmgated.toml");
    let state = directory.path().join("state");
    fs::write(
        &file,
        format!(
            r#"[store]
tenant = "Über"
custody = "shared"
purposes = ["working-time"]
state_directory = {:?}
colour = "blue"
[listen]
https = "everywhere"
[limits]
payment_without_step_up_minor_units = 10000
tries_before_block = 0
[retention]
inactivity_days = 800
history_days = "long"
[palmm]
workers = 2
"#,
            state.display().to_string()
        ),
    )?;
    let program = palmgate_cli::stage::program()?;
    let output = Command::new(program).args(["daemon", "--config"]).arg(&file).output()?;
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{shown}");
    assert_eq!(shown.matches("error: ").count(), 10, "{shown}");
    assert_eq!(shown.matches("remedy: ").count(), 10, "{shown}");
    assert!(!state.exists(), "nothing was opened");
    Ok(())
}

#[test]
fn who_has_read_enough_ends_the_program_quietly() -> Result<()> {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let mut program = Command::new(palmgate_cli::stage::program()?);
    let ended = program.args(["policy", "rules"]).stdout(writer).output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), &*said), (Some(141), ""));
    Ok(())
}
