//! The command line of `palmgate-cloud`: founds, provisions and runs a tenant's cloud.

use crate::{
    Options, ServeError, Service,
    check::Verdict,
    clock,
    offboard::Offboarded,
    provision::{self, Database, Founding},
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use palmgate_protocol::{Name, Timestamp};
use sd_notify::NotifyState;
use std::{
    error::Error,
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
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
    Init(InitArguments),
    /// Bring the database's schema up to this program and found the tenant in it.
    Migrate {
        #[command(flatten)]
        state: State,
        /// Connection URL of a role that may create schemas and roles.
        #[arg(long, value_name = "URL")]
        admin: String,
        /// File with that role's password.
        #[arg(long, value_name = "FILE")]
        admin_password: Option<PathBuf>,
    },
    /// Give the service a new certificate.
    RenewServer {
        #[command(flatten)]
        state: State,
    },
    /// Admit, list and look after stores.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Say what stands between this cloud and its stores, and what to do about it.
    Check {
        #[command(flatten)]
        state: State,
    },
    /// Give partitions to a matcher, in place of those that it had.
    Assign {
        #[command(flatten)]
        state: State,
        /// The matcher: the name that `serve --matcher` is given.
        matcher: Name,
        /// The partitions.
        partitions: Vec<Name>,
    },
    /// Erase everybody of the tenant, with a receipt for each.
    Remove {
        #[command(flatten)]
        state: State,
        /// The tenant's name, so that nobody erases the wrong one.
        tenant: Name,
        /// A new file for the receipts: one line of JSON each.
        #[arg(long, value_name = "FILE")]
        receipts: PathBuf,
    },
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
        /// The name of this process in the plan of `matcher assign`; without one it searches every
        /// partition.
        #[arg(long)]
        matcher: Option<Name>,
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
struct InitArguments {
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
    /// The region whose law the data is under.
    #[arg(long, default_value = "eu")]
    region: Name,
    /// Keep the rows in PostgreSQL: a connection URL without role and password.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// File with the password of the tenant's role.
    #[arg(long, requires = "database", value_name = "FILE")]
    database_password: Option<PathBuf>,
    /// Authority of the database's certificate (PEM); needed unless it is on this machine.
    #[arg(long, requires = "database", value_name = "FILE")]
    database_ca: Option<PathBuf>,
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
    /// The partition that a new store's people are searched in, with PostgreSQL.
    #[arg(long, default_value = "main")]
    partition: String,
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
        Command::Init(it) => init(&it, now)?,
        Command::Migrate { state, admin, admin_password } => {
            provision::migrate(&state.path, &admin, admin_password.as_deref())?;
        }
        Command::Check { state } => check(&state.path, now)?,
        Command::Assign { state, matcher, partitions } => {
            provision::assign(&state.path, &matcher, &partitions)?;
        }
        Command::Remove { state, tenant, receipts } => {
            remove(&state.path, &tenant, &receipts, now)?;
        }
        Command::RenewServer { state } => provision::renew_server(&state.path, now)?,
        Command::Store(StoreCommand::Add(to)) => {
            let url = to.cloud_url.as_deref();
            let partition = to.partition.parse()?;
            provision::add_store_to(&to.state.path, &to.name, &partition, &to.out, url, now)?;
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
        Command::Serve { state, listen, monitor, matcher } => {
            serve(&Options { state: state.path, listen, monitor, matcher })?;
        }
    }
    Ok(())
}

fn init(it: &InitArguments, now: Timestamp) -> Result<(), Box<dyn Error>> {
    let database = it.database.as_deref().map(|url| Database {
        url,
        password_file: it.database_password.as_deref(),
        ca: it.database_ca.as_deref(),
    });
    let founding = Founding {
        tenant: &it.tenant,
        host: &it.host,
        accept_operator: it.accept_operator,
        region: Some(&it.region),
        database,
    };
    Ok(provision::init(&it.state.path, &founding, now)?)
}

fn check(state: &Path, now: Timestamp) -> Result<(), Box<dyn Error>> {
    let findings = crate::check::check(state, now);
    for finding in &findings {
        let word = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        writeln!(std::io::stdout(), "{word:8}{:15}{}", finding.subject, finding.words)?;
    }
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
    if failed > 0 {
        return Err(format!("{failed} of {} checks failed", findings.len()).into());
    }
    Ok(())
}

fn remove(
    state: &Path,
    tenant: &Name,
    receipts: &Path,
    now: Timestamp,
) -> Result<(), Box<dyn Error>> {
    let founded = provision::tenant(state)?;
    if founded != *tenant {
        return Err(format!("this is the cloud of {founded}, not of {tenant}").into());
    }
    let mut file = std::fs::File::create_new(receipts)
        .map_err(|error| format!("{}: {error}", receipts.display()))?;
    let done = crate::offboard::remove(state, &mut file, now)?;
    file.sync_all()?;
    let Offboarded { erased, unconfirmed } = done;
    writeln!(
        std::io::stdout(),
        "{erased} people erased, their receipts are in {}. {unconfirmed} removals are not \
         confirmed: keep the service running until every store has them.",
        receipts.display()
    )?;
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
