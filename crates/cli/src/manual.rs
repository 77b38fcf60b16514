//! Manual pages and shell completions, made from the command lines themselves.

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::{fs, path::Path, process::ExitCode};

/// Programs, and the section of the manual that each belongs to: 1 for people's commands, 8 for
/// those of the machine's administrator.
fn programs() -> [(Command, &'static str); 5] {
    [
        (crate::Arguments::command(), "1"),
        (crate::terminal::Arguments::command(), "1"),
        (palmgate_gateway::Arguments::command(), "8"),
        (palmgate_matcher::Arguments::command(), "8"),
        (palmgate_cloud::program::command(), "8"),
    ]
}

/// Writes `PROGRAM/man/` and `PROGRAM/completions/` below `directory`.
pub(crate) fn write(directory: &Path) -> Result<ExitCode> {
    for (mut command, section) in programs() {
        let name = command.get_name().to_owned();
        let [pages, completions] =
            ["man", "completions"].map(|part| directory.join(&name).join(part));
        for place in [&pages, &completions] {
            fs::create_dir_all(place).with_context(|| place.display().to_string())?;
        }
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut command, &name, &completions)?;
        }
        command.build();
        write_pages(&command, section, &pages)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One page for a command and one for each command below it.
fn write_pages(command: &Command, section: &str, directory: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let page = Man::new(command.clone())
        .section(section)
        .source(format!("Palmgate {version}"))
        .manual("Palmgate");
    page.generate_to(directory)?;
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    for below in shown.filter(|below| below.get_name() != "help") {
        write_pages(below, section, directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_page_in_its_section_and_completions_for_three_shells() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        for page in [
            "palmgate/man/palmgate.1",
            "palmgate/man/palmgate-check.1",
            "palmgate-simulated-terminal/man/palmgate-simulated-terminal.1",
            "palmgated/man/palmgated.8",
            "palmgate-cloud/man/palmgate-cloud-store-add.8",
        ] {
            assert!(read(page).contains(".SH NAME"), "{page}");
        }
        let hidden = directory.path().join("palmgate/man/palmgate-manual.1");
        assert!(!hidden.exists(), "hidden verbs have no page");
        for completion in [
            "palmgate/completions/palmgate.bash",
            "palmgated/completions/palmgated.fish",
            "palmgate-cloud/completions/_palmgate-cloud",
        ] {
            assert!(!read(completion).is_empty());
        }
    }
}
