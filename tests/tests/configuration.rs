//! A configuration that is wrong is refused whole, before anything is opened.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
};

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
    let mut program = Command::new(palmgate_cli::stage::program()?);
    program.args(["policy", "rules"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut started = program.spawn()?;
    drop(started.stdout.take());
    let ended = started.wait()?;
    let mut said = String::new();
    started.stderr.take().unwrap().read_to_string(&mut said)?;
    assert_eq!((ended.code(), said.as_str()), (Some(141), ""));
    Ok(())
}
