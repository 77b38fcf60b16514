//! `palmgate policy` and the papers: the law packs, for those who answer for them.

use crate::{
    control::{self, Control, block_on},
    format::say,
};
use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use palmgate_gateway::config::Config;
use palmgate_law::{self as law, House, Pack, Paper};
use palmgate_ledger::note::{Algorithm, Signer};
use palmgate_protocol::Timestamp;
use palmgate_seal::sign::SigningKey;
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// What to do with law packs.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Count the rows of the rulebook: enforceable, enforced, proven.
    Coverage {
        /// The pack's directory; without it the pack that is built in.
        #[arg(long)]
        pack: Option<PathBuf>,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print every rule with its source and what stands for it, as Markdown.
    Rules {
        /// The pack's directory; without it the pack that is built in.
        #[arg(long)]
        pack: Option<PathBuf>,
    },
    /// Check a pack, and its signatures where trusted signers are named.
    Check {
        /// The pack's directory.
        pack: PathBuf,
        /// The note with the signatures.
        #[arg(long, requires = "signer")]
        note: Option<PathBuf>,
        /// A trusted signer's verifier key (C2SP); twice for four eyes.
        #[arg(long)]
        signer: Vec<Signer>,
    },
    /// Sign a pack: the first signature begins the note, the second completes it.
    Sign {
        /// The pack's directory.
        pack: PathBuf,
        /// The note; written anew or added to.
        #[arg(long)]
        note: PathBuf,
        /// Who signs: a name without spaces.
        #[arg(long)]
        name: String,
        /// The signer's Ed25519 key (PKCS #8, DER); made if it is not there.
        #[arg(long)]
        key: PathBuf,
    },
    /// Put the pack that the configuration names in force in a running gateway; one that does not
    /// hold is refused, and the pack before stays.
    Load(control::Arguments),
    /// Show what a new pack would change.
    Diff {
        /// The new pack's directory.
        new: PathBuf,
        /// The old one's; without it the pack that is built in.
        #[arg(long)]
        old: Option<PathBuf>,
    },
    /// Read a ledger as a new pack would have it.
    Replay {
        /// The new pack's directory.
        #[arg(long)]
        pack: PathBuf,
        /// The ledger's directory.
        #[arg(long)]
        ledger: PathBuf,
        /// The pack that the ledger was written under; without it the one that is built in.
        #[arg(long)]
        old: Option<PathBuf>,
    },
}

/// What a paper is made from, beside the pack.
#[derive(clap::Args)]
pub(crate) struct PaperArguments {
    /// The gateway's configuration.
    #[arg(long, default_value = "/etc/palmgate/palmgated.toml")]
    config: PathBuf,
    /// The pack's directory; without it the pack that is built in.
    #[arg(long)]
    pack: Option<PathBuf>,
    /// Name and address of the controller, if not the configuration's.
    #[arg(long, default_value = "")]
    controller: String,
    /// How the controller is reached, if not the configuration's.
    #[arg(long, default_value = "")]
    contact: String,
    /// The data protection officer, if not the configuration's.
    #[arg(long, default_value = "")]
    dpo: String,
    /// Reference of the contract with the cloud.
    #[arg(long, default_value = "")]
    cloud_contract: String,
    /// Language, if not the configuration's: `fr` or `en`.
    #[arg(long)]
    language: Option<String>,
    /// Form.
    #[arg(long, value_enum, default_value_t = Form::Markdown)]
    form: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Markdown,
    Html,
}

pub(crate) fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Coverage { pack, json } => coverage(&*open(pack.as_deref())?, json),
        Verb::Rules { pack } => {
            say(law::document(&[&*open(pack.as_deref())?]).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Check { pack, note, signer } => check(&pack, note.as_deref(), &signer),
        Verb::Sign { pack, note, name, key } => sign(&pack, &note, &name, &key),
        Verb::Load(gateway) => {
            let pack = block_on(async { Control::new(&gateway)?.reload().await })?;
            say(&format!("in force   {}", pack.pack));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Diff { new, old } => Ok(diff(&*open(old.as_deref())?, &law::read(&new)?)),
        Verb::Replay { pack, ledger, old } => {
            replay(&*open(old.as_deref())?, &law::read(&pack)?, &ledger)
        }
    }
}

fn open(directory: Option<&Path>) -> Result<Arc<Pack>> {
    match directory {
        Some(directory) => Ok(Arc::new(law::read(directory)?)),
        None => Ok(Pack::embedded()),
    }
}

fn coverage(pack: &Pack, json: bool) -> Result<ExitCode> {
    let coverage = pack.coverage();
    if json {
        say(&serde_json::to_string(&coverage)?);
    } else {
        say(&format!("rows         {}", coverage.rows));
        say(&format!("enforceable  {}", coverage.enforceable));
        say(&format!("enforced     {}", coverage.enforced));
        say(&format!("proven       {}", coverage.proven));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(directory: &Path, note: Option<&Path>, signers: &[Signer]) -> Result<ExitCode> {
    let pack = law::read(directory)?;
    let top = pack.top();
    say(&format!("pack       {} {} holds", top.name, top.version));
    say(&format!("hash       {}", data_encoding::HEXLOWER.encode(&pack.hash())));
    match note {
        None => say("signatures not compared: pass --note and --signer"),
        Some(note) => {
            let note = fs::read_to_string(note).with_context(|| note.display().to_string())?;
            let names = law::verify(&pack, &note, signers)?;
            say(&format!("signatures {}", names.join(", ")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sign(directory: &Path, note: &Path, name: &str, key: &Path) -> Result<ExitCode> {
    let pack = law::read(directory)?;
    let key = signing_key(key)?;
    let before = if note.exists() { Some(fs::read_to_string(note)?) } else { None };
    let signed = law::add_signature(&pack, before.as_deref(), name, &key)?;
    fs::write(note, signed).with_context(|| note.display().to_string())?;
    let signer = Signer::new(name, Algorithm::Ed25519, key.public())?;
    say(&format!("signed     {}", note.display()));
    say(&format!("signer     {signer}"));
    Ok(ExitCode::SUCCESS)
}

/// Reads a key, or makes one that only its owner can read.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey> {
    if path.exists() {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        return SigningKey::from_pkcs8(&bytes).with_context(|| path.display().to_string());
    }
    let key = SigningKey::generate();
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    file.write_all(key.pkcs8().expose())?;
    file.sync_all()?;
    Ok(key)
}

fn diff(old: &Pack, new: &Pack) -> ExitCode {
    let comparison = law::compare(old, new);
    for change in &comparison.changes {
        say(&change.to_string());
    }
    say(&match comparison.changes.len() {
        1 => "1 change".into(),
        changes => format!("{changes} changes"),
    });
    ExitCode::SUCCESS
}

fn replay(old: &Pack, new: &Pack, ledger: &Path) -> Result<ExitCode> {
    let replay = law::replay_ledger(old, new, ledger)?;
    say(&format!("entries    {}", replay.entries));
    say(&format!("same       {}", replay.same));
    for (why, count) in &replay.changed {
        say(&format!("changed    {count}: {why}"));
    }
    for (policies, count) in &replay.depends {
        say(&format!("open       {count}: depends on facts that no entry holds, for {policies}"));
    }
    if replay.other_pack > 0 {
        say(&format!(
            "other pack {}: pass --old with the pack they were made under",
            replay.other_pack
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Which paper.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Notice,
    Ropa,
    Dpia,
    Sign,
}

/// Prints a paper; a notice that lacks an item is printed and refused.
pub(crate) fn paper(kind: Kind, arguments: &PaperArguments) -> Result<ExitCode> {
    let path = &arguments.config;
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let millis = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let now = Timestamp::from_millis(i64::try_from(millis)?);
    let config = Config::parse(&text, &path.display().to_string(), now)?;
    let pack = open(arguments.pack.as_deref())?;
    let language = arguments.language.as_deref().unwrap_or(&config.language);
    let house = house(arguments, &config);
    let write = match kind {
        Kind::Notice => law::notice,
        Kind::Ropa => law::ropa,
        Kind::Dpia => law::dpia,
        Kind::Sign => law::sign,
    };
    let paper: Paper = write(&house, &pack, language);
    let text = match arguments.form {
        Form::Markdown => paper.markdown(),
        Form::Html => paper.html(),
    };
    say(text.trim_end());
    if !paper.missing.is_empty() {
        bail!("the notice lacks {} (rule G-13, GDPR Art. 13)", paper.missing.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the configuration declares; what is said on the command line has the last word.
fn house(arguments: &PaperArguments, config: &Config) -> House {
    let settings = &config.options.settings;
    let mut house = palmgate_gateway::law::house(&config.law, settings, &config.fallback);
    house.place = config.options.store.to_string();
    for (said, item) in [
        (&arguments.controller, &mut house.controller),
        (&arguments.contact, &mut house.contact),
        (&arguments.dpo, &mut house.dpo),
    ] {
        if !said.is_empty() {
            item.clone_from(said);
        }
    }
    if !arguments.cloud_contract.is_empty() {
        for processor in &mut house.processors {
            processor.contract.clone_from(&arguments.cloud_contract);
        }
    }
    house
}
