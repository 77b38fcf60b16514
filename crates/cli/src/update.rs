//! `palmgate update`: signed bundles of programs, models and law packs, and the state's way back.

use crate::{
    control::{self, Control, block_on},
    format::say,
    policy::signing_key,
};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use palmgate_gateway::{
    CONFIGURATION, Options, Updates,
    config::Config,
    way_back::{self, FORMAT, Formats, RolledBack},
};
use palmgate_ledger::note::{Algorithm, Signer};
use palmgate_matcher::register;
use palmgate_palm::{ModelFile, Role};
use palmgate_protocol::{DAY, Timestamp};
use palmgate_update::{
    Bundle, Dpkg, NOTE, REGISTRY, Terms, Version, add_signature, check_floor, describe,
    unsigned_registry,
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// What to do with updates.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Check a bundle: who signed it, whether it is in time and not below the floor, and every file.
    Verify {
        /// The bundle's directory.
        bundle: PathBuf,
        #[command(flatten)]
        trust: Trust,
    },
    /// Install a bundle: packages by dpkg, then models and law packs, then the floor (as root).
    Install {
        /// The bundle's directory.
        bundle: PathBuf,
        /// The gateway's configuration.
        #[arg(long, default_value = CONFIGURATION)]
        config: PathBuf,
        /// Leave the daemon as it is; it takes models and floor in when it is started anew.
        #[arg(long)]
        no_restart: bool,
        /// Another root directory for dpkg, for a trial.
        #[arg(long, hide = true)]
        dpkg_root: Option<PathBuf>,
    },
    /// Give up the way back to the state's format before the update; the daemon runs.
    Commit(control::Arguments),
    /// Bring the state to its format before the update, with all that happened since, for the program
    /// before; the daemon is stopped.
    Rollback {
        /// The gateway's configuration.
        #[arg(long, default_value = CONFIGURATION)]
        config: PathBuf,
    },
    /// Show what updates left on this box.
    Show {
        /// The gateway's configuration.
        #[arg(long, default_value = CONFIGURATION)]
        config: PathBuf,
    },
    /// Write the models that are built in to a directory, with the registry that describes them.
    Models {
        /// The directory; made if it is not there.
        directory: PathBuf,
    },
    /// Sign the registry of a directory of models, `registry.toml`: both signatures go to the note
    /// beside it.
    SignModels {
        /// The directory.
        directory: PathBuf,
        /// Who signs: a name without spaces.
        #[arg(long)]
        name: String,
        /// The signer's Ed25519 key (PKCS #8, DER); made if it is not there.
        #[arg(long)]
        key: PathBuf,
    },
    /// Sign a bundle: the first signature lists its files, the second completes it.
    Sign {
        /// The bundle's directory, with packages/, models/ and packs/ in it as far as it has them.
        bundle: PathBuf,
        /// Who signs: a name without spaces.
        #[arg(long)]
        name: String,
        /// The signer's Ed25519 key (PKCS #8, DER); made if it is not there.
        #[arg(long)]
        key: PathBuf,
        /// With the first signature: the release that a box has afterwards.
        #[arg(long)]
        version: Option<Version>,
        /// With the first signature: no version below may run from then on.
        #[arg(long)]
        floor: Option<Version>,
        /// With the first signature: for how many days the bundle can be installed.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=730))]
        days: u32,
    },
}

/// Whose signatures count.
#[derive(clap::Args)]
pub(crate) struct Trust {
    /// The gateway's configuration.
    #[arg(long, default_value = CONFIGURATION)]
    config: PathBuf,
    /// A trusted signer's verifier key (C2SP), in place of the configuration's; at least twice.
    #[arg(long)]
    signer: Vec<Signer>,
}

pub(crate) fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Verify { bundle, trust } => verify(&bundle, &trust),
        Verb::Install { bundle, config, no_restart, dpkg_root } => {
            install(&bundle, &config, dpkg_root, !no_restart)
        }
        Verb::Commit(gateway) => commit(&gateway),
        Verb::Rollback { config } => rollback(&config),
        Verb::Show { config } => show(&config),
        Verb::Models { directory } => models(&directory),
        Verb::SignModels { directory, name, key } => sign_models(&directory, &name, &key),
        Verb::Sign { bundle, name, key, version, floor, days } => {
            let note = bundle.join(NOTE);
            let key = signing_key(&key)?;
            let signed = match (fs::read_to_string(&note), version, floor) {
                (Ok(before), None, None) => add_signature(&before, &name, &key)?,
                (Err(_), Some(version), Some(floor)) => {
                    let issued = now()?;
                    let terms = Terms { version, floor, issued, expires: issued.after(DAY * days) };
                    describe(&bundle, terms, &name, &key)?
                }
                (Ok(_), ..) => bail!(
                    "{} is there: sign it without --version and --floor, or remove it to list the \
                     files anew",
                    note.display()
                ),
                (Err(error), ..) => {
                    bail!(
                        "{}: {error}; the first signature needs --version and --floor",
                        note.display()
                    )
                }
            };
            fs::write(&note, signed).with_context(|| note.display().to_string())?;
            say(&format!("signed     {}", note.display()));
            let signer = Signer::new(&name, Algorithm::Ed25519, key.public())?;
            say(&format!("signer     {signer}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn now() -> Result<Timestamp> {
    let millis = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Ok(Timestamp::from_millis(i64::try_from(millis)?))
}

fn updates(config: &Path) -> Result<Updates> {
    Ok(options(config)?.updates)
}

fn options(config: &Path) -> Result<Options> {
    let text = fs::read_to_string(config).with_context(|| config.display().to_string())?;
    Ok(Config::parse(&text, &config.display().to_string(), now()?)?.options)
}

fn trusted(updates: &Updates, config: &Path) -> Result<Vec<Signer>> {
    if updates.signers.is_empty() {
        bail!(
            "{}: wanted the keys of two people in [update] signers, found none; add them, \
             `palmgate update sign` prints a signer's key",
            config.display()
        );
    }
    Ok(updates.signers.clone())
}

fn verify(bundle: &Path, trust: &Trust) -> Result<ExitCode> {
    let (signers, floor) = if trust.signer.is_empty() {
        let updates = updates(&trust.config)?;
        (trusted(&updates, &trust.config)?, updates.installed().floor()?)
    } else {
        (trust.signer.clone(), None)
    };
    let bundle = Bundle::open(bundle, &signers, now()?, floor.as_ref())?;
    bundle.verify_files()?;
    say_bundle(&bundle);
    Ok(ExitCode::SUCCESS)
}

fn say_bundle(bundle: &Bundle) {
    let terms = &bundle.manifest().terms;
    say(&format!("bundle     {}", data_encoding::HEXLOWER.encode(bundle.id())));
    say(&format!("version    {}, floor {}", terms.version, terms.floor));
    say(&format!("signatures {}", bundle.signers().join(", ")));
    for path in bundle.manifest().paths() {
        say(&format!("file       {path}"));
    }
}

fn install(
    bundle: &Path,
    config: &Path,
    dpkg_root: Option<PathBuf>,
    restart: bool,
) -> Result<ExitCode> {
    let updates = updates(config)?;
    let signers = trusted(&updates, config)?;
    let installed = updates.installed();
    let bundle = Bundle::open(bundle, &signers, now()?, installed.floor()?.as_ref())?;
    // The daemon's own user reads what is installed, however root's shell is set up.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let dpkg = dpkg_root.map_or_else(Dpkg::default, Dpkg::in_root);
    installed.install(&bundle, &env!("CARGO_PKG_VERSION").parse()?, &dpkg)?;
    say_bundle(&bundle);
    if restart && Path::new("/run/systemd/system").exists() {
        let units = ["palmgate-matcher.service", "palmgated.service"];
        let status = Command::new("systemctl").arg("try-restart").args(units).status();
        if !status.is_ok_and(|status| status.success()) {
            bail!("installed; the daemon was not restarted: systemctl status palmgated says why");
        }
    }
    say("installed  the daemon puts it on record when it is started with it");
    Ok(ExitCode::SUCCESS)
}

fn commit(gateway: &control::Arguments) -> Result<ExitCode> {
    let committed = block_on(async { Control::new(gateway)?.commit().await })?;
    say(&match committed.format {
        Some(format) => format!("committed  the state cannot go back to format {format} any more"),
        None => format!("committed  already: the state is in format {FORMAT} for good"),
    });
    Ok(ExitCode::SUCCESS)
}

/// How to be the daemon's user with the daemon's credential.
const AS_DAEMON: &str = "systemd-run --pipe --wait --collect -p User=palmgate \
                         -p LimitMEMLOCK=infinity \
                         -p LoadCredentialEncrypted=palmgate-root -p SupplementaryGroups=tss \
                         palmgate update rollback";

fn rollback(config: &Path) -> Result<ExitCode> {
    let options = options(config)?;
    let state = &options.state_directory;
    let meta = fs::metadata(state).with_context(|| state.display().to_string())?;
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        bail!(
            "{}: wanted user {}, whose the state is, found user {user}; what another one writes the \
             daemon cannot read, so run it as that user (leave out what the box has not):\n  {AS_DAEMON}",
            state.display(),
            meta.uid()
        );
    }
    match way_back::roll_back(&options)? {
        Some(RolledBack { format, releases }) => {
            say(&format!("state      vault format {format}, with all that happened since"));
            if releases > 0 {
                say(&format!(
                    "lost       {releases} written releases, unless the program knows them"
                ));
            }
        }
        None => say("state      is in the format before already"),
    }
    say("next       install the program before, then start it: this one would migrate anew");
    Ok(ExitCode::SUCCESS)
}

/// The state's format, and whether it can go back.
fn say_state(state: &Path) -> Result<()> {
    say(&match way_back::formats(state)? {
        Formats { present: None, .. } => "state      none yet".to_owned(),
        Formats { present: Some(format), way_back: None } => {
            format!("state      vault format {format}")
        }
        Formats { present: Some(format), way_back: Some(back) } => format!(
            "state      vault format {format}, from {} since {}, not committed",
            back.format,
            since(back.since)?
        ),
    });
    Ok(())
}

fn since(at: Timestamp) -> Result<String> {
    let at = time::OffsetDateTime::from_unix_timestamp(at.as_millis() / 1000)?;
    Ok(at.format(&time::format_description::well_known::Rfc3339)?)
}

fn show(config: &Path) -> Result<ExitCode> {
    let Options { updates, state_directory, .. } = options(config)?;
    let installed = updates.installed();
    let floor = installed.floor()?;
    let program: Version = env!("CARGO_PKG_VERSION").parse()?;
    say(&format!("program    {program}"));
    say_state(&state_directory)?;
    match &floor {
        Some(floor) => say(&format!("floor      {floor}")),
        None => say("floor      none: no bundle named one"),
    }
    let bundle = installed.bundle()?.map(|id| data_encoding::HEXLOWER.encode(&id));
    say(&format!("bundle     {}", bundle.as_deref().unwrap_or("none was installed")));
    for signer in &updates.signers {
        say(&format!("signer     {signer}"));
    }
    if let Some(floor) = &floor {
        check_floor(&program, floor, &installed.floor_path())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The registry before it is signed.
const UNSIGNED: &str = "registry.toml";

fn models(directory: &Path) -> Result<ExitCode> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut registry = Vec::new();
    for role in Role::ALL {
        let model = ModelFile::built_in(role)?;
        let file = format!("{}.onnx", role.as_str());
        let path = directory.join(&file);
        fs::write(&path, &model.bytes).with_context(|| path.display().to_string())?;
        registry.push(register(&model, file));
    }
    let path = directory.join(UNSIGNED);
    fs::write(&path, unsigned_registry(registry)?).with_context(|| path.display().to_string())?;
    say(&format!("written    {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

fn sign_models(directory: &Path, name: &str, key: &Path) -> Result<ExitCode> {
    let path = directory.join(UNSIGNED);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let note = directory.join(REGISTRY);
    let before = fs::read_to_string(&note).ok();
    let key = signing_key(key)?;
    let signed = palmgate_update::sign_models(&text, before.as_deref(), name, &key)
        .with_context(|| note.display().to_string())?;
    fs::write(&note, signed).with_context(|| note.display().to_string())?;
    say(&format!("signed     {}", note.display()));
    say(&format!("signer     {}", Signer::new(name, Algorithm::Ed25519, key.public())?));
    Ok(ExitCode::SUCCESS)
}
