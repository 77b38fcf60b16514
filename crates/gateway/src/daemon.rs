//! The process: configuration before anything is opened, then logging, then the gateway; systemd is
//! told when it is ready, that it is alive, and that it stops.
#![allow(
    clippy::print_stderr,
    reason = "before logging is set up, and where nothing is served, there is nothing else to say it on"
)]

use crate::{
    RootKeeping, clock,
    config::{Config, Log, LogTarget},
    law::{self, InForce},
    run::{self, Gateway},
};
use sd_notify::NotifyState;
use std::{
    fs,
    io::{self, Write},
    path::Path,
    pin::pin,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// The configuration is at fault (`EX_USAGE`): starting again cannot help.
const EXIT_CONFIGURATION: u8 = 64;

/// Runs the daemon until it is told to stop.
pub fn main(file: &Path) -> ExitCode {
    let (config, law) = match read(file) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let filter = log_to(&config.log);
    let protected = palmgate_vault::protect_memory();
    if !protected.locked || !protected.no_dumps {
        tracing::info!(
            locked = protected.locked,
            no_dumps = protected.no_dumps,
            "the system does not keep all memory out of swap and core dumps"
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(config, law, file, &filter))
}

/// Checks the configuration, and says what an erasure is worth under it.
pub fn check(file: &Path) -> ExitCode {
    match read(file) {
        Ok((config, _)) => {
            // Who reads only the exit status may have closed the pipe.
            let _ = writeln!(io::stdout(), "root: {}", config.options.root.promise());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// The configuration, and the law that lets it open.
fn read(file: &Path) -> Result<(Config, InForce), ExitCode> {
    let origin = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| {
        eprintln!("error: {origin}: {error}\n  remedy: pass the right file with --config");
        ExitCode::from(EXIT_CONFIGURATION)
    })?;
    let refuse = |text: &dyn std::fmt::Display| {
        eprintln!("{text}");
        ExitCode::from(EXIT_CONFIGURATION)
    };
    let now = clock::now_or_changed(file);
    let config = Config::parse(&text, &origin, now).map_err(|errors| refuse(&errors))?;
    let (settings, dossier) = (&config.options.settings, config.dossier.as_ref());
    let mut law = law::open(&config.law, settings, &config.fallback, dossier, now)
        .map_err(|error| refuse(&format_args!("error: {origin}: {error}")))?;
    law.house.place = config.options.store.to_string();
    Ok((config, law))
}

/// Changes what is logged, while it is logged.
type Filter = tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>;

fn filter(log: &Log) -> EnvFilter {
    EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn log_to(log: &Log) -> Filter {
    let (layer, handle) = tracing_subscriber::reload::Layer::new(filter(log));
    let registry = tracing_subscriber::registry().with(layer);
    let text = || tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    match log.target {
        LogTarget::Stderr => registry.with(text()).init(),
        LogTarget::Json => registry.with(text().json()).init(),
        LogTarget::Journald => match tracing_journald::layer() {
            Ok(journal) => registry.with(journal).init(),
            Err(error) => {
                registry.with(text()).init();
                tracing::warn!(%error, "no systemd journal; logging to standard error");
            }
        },
    }
    handle
}

/// Reads the configuration again: what is logged and the law pack change at once. A file with an
/// error changes nothing.
async fn reload(gateway: &Gateway, file: &Path, started_with: &str, filter_now: &Filter) {
    let _ = sd_notify::notify(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0)),
    ]);
    let origin = file.display().to_string();
    let config =
        fs::read_to_string(file).map_err(|error| format!("{origin}: {error}")).and_then(|text| {
            let now = clock::now_or_changed(file);
            Config::parse(&text, &origin, now).map_err(|errors| errors.to_string())
        });
    match config {
        Err(errors) => tracing::error!("nothing is reloaded: {errors}"),
        Ok(config) => {
            if let Err(error) = filter_now.reload(filter(&config.log)) {
                tracing::error!(%error, "the log's level stays");
            }
            match gateway.reload().await {
                Ok(pack) => tracing::info!(%pack, level = %config.log.filter, "reloaded"),
                Err(refused) => tracing::error!("the law pack stays: {refused}"),
            }
            if format!("{:?}", config.options) != started_with {
                tracing::warn!(
                    "something else than [log] and the law pack changed: systemctl restart \
                     palmgated puts it in force"
                );
            }
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

async fn serve(config: Config, law: InForce, file: &Path, filter: &Filter) -> ExitCode {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (mut term, mut interrupt, mut hangup) = match signals {
        (Ok(term), Ok(interrupt), Ok(hangup)) => (term, interrupt, hangup),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    if config.options.root == RootKeeping::File && !config.development.root_in_file {
        tracing::warn!(
            "the root key lies in a file: a copy of the disk opens everything; choose another \
             [root] keeper, or acknowledge it with development.root_in_file = true"
        );
    }
    let started_with = format!("{:?}", config.options);
    let gateway = match run::run(config.options, law).await {
        Ok(gateway) => gateway,
        Err(error) => {
            tracing::error!("{error:#}");
            let code = if error.is_configuration() { EXIT_CONFIGURATION } else { 1 };
            return ExitCode::from(code);
        }
    };
    tracing::info!(https = %gateway.https(), broker = ?gateway.broker(), "serving");
    let code = {
        let mut told = pin!(tell_systemd(&gateway));
        loop {
            tokio::select! {
                () = &mut told => {
                    tracing::error!(
                        "a write failed earlier and the disk is back: ending, to be started anew"
                    );
                    break ExitCode::FAILURE;
                }
                _ = term.recv() => break ExitCode::SUCCESS,
                _ = interrupt.recv() => break ExitCode::SUCCESS,
                Some(()) = hangup.recv() => reload(&gateway, file, &started_with, filter).await,
            }
        }
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    gateway.stop().await;
    tracing::info!("stopped");
    code
}

/// Ready once messages pass through the broker; alive as long as the event loop ticks. Returns when a
/// new start would heal what a failed write broke: until then, a broken store still recognises and
/// erases, and one that cannot start does neither.
async fn tell_systemd(gateway: &Gateway) {
    while !gateway.is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(5), |limit| limit / 3);
    loop {
        if gateway.is_alive() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        if gateway.should_restart().await {
            return;
        }
        tokio::time::sleep(every).await;
    }
}
