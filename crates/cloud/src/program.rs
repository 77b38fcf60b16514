//! The command line of `palmgate-cloud`: founds, provisions and runs a tenant's cloud.

use crate::{
    Options, ServeError, Service, clock,
    provision::{self, Founding},
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use palmgate_protocol::Name;
use sd_notify::NotifyState;
use std::{
    error::Error,
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// `EX_USAGE` of sysexits: starting again will not help.
const CONFIGURATION: u8 = 64;

/// The reference cloud of Palmgate: one tenant's registry.
#[derive(Parser)]
#[command(name = "palmgate-cloud", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Found a cloud in a new state directory.
    Init {
        #[command(flatten)]
        state: State,
        /// The tenant whose people it keeps.
        #[arg(long)]
        tenant: Name,
        /// DNS name or IP address that the stores dial.
        #[arg(long)]
        host: String,
        /// Keep records that the cloud can open (custody `operator`).
        #[arg(long)]
        accept_operator: bool,
    },
    /// Give the service a new certificate.
    RenewServer {
        #[command(flatten)]
        state: State,
    },
    /// Admit, list and look after stores.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Run the service until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        state: State,
        /// Where stores connect, with mutual TLS.
        #[arg(long)]
        listen: SocketAddr,
        /// Where monitoring reads /healthz and /metrics without TLS: a loopback address.
        #[arg(long)]
        monitor: Option<SocketAddr>,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Admit a store and write its bundle.
    Add(BundleArguments),
    /// Write a bundle with a new certificate; the earlier ones hold on.
    Renew(BundleArguments),
    /// Declare the box replaced: accept its next keys, and its newest certificate only.
    Reset {
        #[command(flatten)]
        state: State,
        /// The store.
        name: Name,
    },
    /// List the stores.
    List {
        #[command(flatten)]
        state: State,
    },
}

#[derive(Args)]
struct State {
    /// The state directory.
    #[arg(long = "state", value_name = "DIR")]
    path: PathBuf,
}

#[derive(Args)]
struct BundleArguments {
    #[command(flatten)]
    state: State,
    /// The store.
    name: Name,
    /// A new directory for the bundle.
    #[arg(long)]
    out: PathBuf,
    /// Where the store dials; by default the host that the cloud was founded with.
    #[arg(long)]
    cloud_url: Option<String>,
}

/// The definition of the command line, for manuals and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command line.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done about a standard error that is gone.
            let _ = writeln!(std::io::stderr(), "palmgate-cloud: {error}");
            match error.downcast_ref::<ServeError>() {
                Some(error) if error.is_configuration() => ExitCode::from(CONFIGURATION),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    let now = clock::now();
    match command {
        Command::Init { state, tenant, host, accept_operator } => {
            let founding = Founding { tenant: &tenant, host: &host, accept_operator };
            provision::init(&state.path, &founding, now)?;
        }
        Command::RenewServer { state } => provision::renew_server(&state.path, now)?,
        Command::Store(StoreCommand::Add(to)) => {
            let url = to.cloud_url.as_deref();
            provision::add_store(&to.state.path, &to.name, &to.out, url, now)?;
        }
        Command::Store(StoreCommand::Renew(to)) => {
            let url = to.cloud_url.as_deref();
            provision::renew_store(&to.state.path, &to.name, &to.out, url, now)?;
        }
        Command::Store(StoreCommand::Reset { state, name }) => {
            provision::reset_store(&state.path, &name)?;
        }
        Command::Store(StoreCommand::List { state }) => {
            for (name, entry) in provision::stores(&state.path)? {
                let (certificates, resets) = (entry.certificates.len(), entry.resets);
                writeln!(
                    std::io::stdout(),
                    "{name}: {certificates} certificates, {resets} resets"
                )?;
            }
        }
        Command::Serve { state, listen, monitor } => {
            serve(&Options { state: state.path, listen, monitor })?;
        }
    }
    Ok(())
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let service = Service::bind(options)?;
    tracing::info!(address = %service.address()?, "listening");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            notify(&NotifyState::Stopping);
        };
        notify(&NotifyState::Ready);
        service.run(shutdown).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Without systemd there is nobody to tell.
fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd was not told");
    }
}
