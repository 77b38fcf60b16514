//! The command line of `palmgate-matcher`.

use crate::{Models, serve, standard_input};
use palmgate_ledger::note::Signer;
use palmgate_palm::Extractor;
use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, set_dumpable_behavior},
};
use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Parses pictures and searches open references for the gateway, without a network or a disk.
#[derive(clap::Parser)]
#[command(name = "palmgate-matcher", version)]
pub struct Arguments {
    /// Listen on a socket at this path. Without it, standard input is the listening socket, as
    /// palmgate-matcher.socket gives it. Whoever may write to the socket is served.
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// Directory of models with their registry, as in [palm] models of the gateway; without it those
    /// that are built in.
    #[arg(long, value_name = "DIRECTORY", requires = "signer")]
    models: Option<PathBuf>,
    /// Verifier key (C2SP) of somebody trusted to sign the registry; at least twice.
    #[arg(long, value_name = "KEY")]
    signer: Vec<Signer>,
}

impl Arguments {
    /// Does what they say.
    #[allow(clippy::print_stderr, reason = "systemd takes it into the journal")]
    pub fn run(&self) -> ExitCode {
        protect();
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(&self) -> io::Result<()> {
        let listener = self.listen.as_deref().map_or_else(standard_input, listen)?;
        let extractor = match &self.models {
            None => Extractor::load().map_err(io::Error::other)?,
            Some(directory) => {
                let models = Models::read(directory, &self.signer).map_err(io::Error::other)?;
                models.extractor().map_err(io::Error::other)?
            }
        };
        serve(&listener, extractor)
    }
}

/// As far as the system allows; the unit says so once more.
fn protect() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let _ = mlockall(flags);
}

/// Takes the place of a socket that an earlier process left behind, and of nothing else.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(named)?,
        Ok(_) => return Err(named(io::Error::other("something else than a socket lies there"))),
        Err(_) => {}
    }
    // Nobody else gets in between the making of the socket and that of its permissions.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path).map_err(named);
    rustix::process::umask(before);
    listener
}
