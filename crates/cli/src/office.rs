//! `palmgate rights`, `breach`, `hold`, `duties`, `clock`, `decommission`: the office.

use crate::{
    control::{self, Control, block_on},
    format::say,
    policy::signing_key,
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::{BASE64, HEXLOWER};
use palmgate_gateway::office::{
    Done, Duty, OfficeAct, Order, RequestKind, Scope, SignedTime, Urgency,
};
use palmgate_law as law;
use palmgate_ledger::note::{Algorithm, Signer};
use palmgate_protocol::{Name, Timestamp, cloud::SealedPurpose, decode};
use palmgate_seal::envelope::{self, Label, OpeningKey};
use std::{
    fs,
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Subcommand)]
pub(crate) enum Rights {
    /// Enter a request that came in; prints its deadline and the letter to the person.
    Open {
        /// What is asked for.
        kind: Kind,
        /// How the office files the letter; no name.
        #[arg(long)]
        reference: String,
        /// The day on which it came in, as 2026-11-28; now when it is left out.
        #[arg(long)]
        received: Option<String>,
        #[command(flatten)]
        at: Office,
    },
    /// List requests with their deadlines.
    List(Office),
    /// Take up to two months more; prints the letter with the reasons.
    Extend {
        /// The request.
        id: u64,
        /// How many.
        #[arg(long)]
        months: u8,
        /// Why, in the words that the person gets.
        #[arg(long)]
        reasons: String,
        #[command(flatten)]
        at: Office,
    },
    /// Ask for more proof of identity, on a doubt that is written down; prints the letter.
    Identity {
        /// The request.
        id: u64,
        /// The reasonable doubt.
        #[arg(long)]
        doubt: String,
        #[command(flatten)]
        at: Office,
    },
    /// Note that a request was answered as asked.
    Grant {
        /// The request.
        id: u64,
        #[command(flatten)]
        at: Office,
    },
    /// Refuse a request; prints the letter with the reasons and where to complain.
    Refuse {
        /// The request.
        id: u64,
        /// Why, in the words that the person gets.
        #[arg(long)]
        reasons: String,
        #[command(flatten)]
        at: Office,
    },
    /// Make a key to take one's own templates along with; prints its public half.
    Key {
        /// Where to write the private half.
        file: PathBuf,
    },
    /// Open the templates of a portability export with one's own key.
    Unseal {
        /// The export (JSON).
        file: PathBuf,
        /// The private key.
        #[arg(long)]
        key: PathBuf,
        /// Where to write them (CBOR); without it they are only listed.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Access,
    Rectification,
    Erasure,
    Restriction,
    Portability,
    Objection,
}

/// Which gateway, and in which language letters are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Office {
    /// Language of the letter, if not the store's: `fr` or `en`.
    #[arg(long)]
    language: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: control::Arguments,
}

#[derive(Subcommand)]
pub(crate) enum Breaches {
    /// Start the clock of a breach.
    Open {
        /// What happened (Art. 33(3)(a)).
        #[arg(long)]
        nature: String,
        /// When somebody became aware of it, as 2026-11-28T10:00:00Z; now when it is left out.
        #[arg(long)]
        aware: Option<String>,
        #[command(flatten)]
        at: Office,
    },
    /// Add what became known.
    Describe {
        /// The breach.
        id: u64,
        /// Nature, kinds and numbers of people and records (a).
        #[arg(long, default_value = "")]
        nature: String,
        /// Contact (b).
        #[arg(long, default_value = "")]
        contact: String,
        /// Likely consequences (c).
        #[arg(long, default_value = "")]
        consequences: String,
        /// Measures (d).
        #[arg(long, default_value = "")]
        measures: String,
        /// Why the report is late.
        #[arg(long, default_value = "")]
        delay_reasons: String,
        #[command(flatten)]
        at: Office,
    },
    /// Print the draft of the report, as Markdown; says what it lacks.
    Draft {
        /// The breach.
        id: u64,
        #[command(flatten)]
        at: Office,
    },
    /// Note that the authority was told; refused while the report lacks something.
    Report {
        /// The breach.
        id: u64,
        #[command(flatten)]
        at: Office,
    },
    /// List breaches with their deadlines.
    List(Office),
}

#[derive(Subcommand)]
pub(crate) enum Holds {
    /// Keep records from being erased; never anything biometric.
    Place {
        /// Kinds of data, as in the retention table.
        #[arg(long, value_delimiter = ',', required = true)]
        item: Vec<String>,
        /// The article, as 17(3)(e).
        #[arg(long)]
        article: String,
        /// The last day, as 2027-03-31.
        #[arg(long)]
        until: String,
        /// Two different people.
        #[arg(long, num_args = 1, required = true)]
        signed_by: Vec<String>,
        /// Uses at this terminal only.
        #[arg(long)]
        terminal: Option<String>,
        /// Uses from this moment on, as 2026-11-28T10:00:00Z.
        #[arg(long)]
        from: Option<String>,
        /// Uses before this moment.
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        at: Office,
    },
    /// List holds.
    List(Office),
    /// Show the uses that were kept when their people were erased; they name nobody.
    Show(Office),
    /// End a hold early.
    End {
        /// The hold.
        id: u64,
        #[command(flatten)]
        at: Office,
    },
}

#[derive(Subcommand)]
pub(crate) enum Duties {
    /// Show what was done when, and what is missed; ends with 3 when something is.
    List(Office),
    /// Note that something was done.
    Done {
        /// What.
        duty: DutyDone,
        /// The day, as 2026-11-28; now when it is left out.
        #[arg(long)]
        on: Option<String>,
        #[command(flatten)]
        at: Office,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DutyDone {
    RestoreDrill,
    SecurityTest,
    Training,
}

#[derive(Subcommand)]
pub(crate) enum Clock {
    /// Show the box's clock and the time that decisions go by (on the box).
    Show(Office),
    /// Sign the present time for a store, away from the box.
    Sign {
        /// The chain.
        tenant: String,
        /// The store.
        store: String,
        /// Who signs, as in `[law] signers`.
        #[arg(long)]
        name: String,
        /// The signer's Ed25519 key (PKCS #8, DER); made if it is not there.
        #[arg(long)]
        key: PathBuf,
        /// Where to write the note.
        #[arg(long)]
        out: PathBuf,
    },
    /// Confirm the clock of the box with a signed time (on the box).
    Confirm {
        /// The note.
        note: PathBuf,
        #[command(flatten)]
        at: Office,
    },
}

#[derive(Args)]
pub(crate) struct DecommissionArguments {
    /// Do it without asking, as from a contact on the enclosure.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    gateway: control::Arguments,
}

pub(crate) fn rights(verb: Rights) -> Result<ExitCode> {
    match verb {
        Rights::Open { kind, reference, received, at } => {
            let received = received.as_deref().map_or_else(|| Ok(now().as_millis()), day)?;
            let act = OfficeAct::OpenRequest { kind: kind.into(), received, reference };
            order(act, &at, "request")
        }
        Rights::List(at) => list_requests(&at),
        Rights::Extend { id, months, reasons, at } => {
            order(OfficeAct::ExtendRequest { id, months, reasons }, &at, "request")
        }
        Rights::Identity { id, doubt, at } => {
            order(OfficeAct::AskIdentity { id, doubt }, &at, "request")
        }
        Rights::Grant { id, at } => order(OfficeAct::GrantRequest { id }, &at, "request"),
        Rights::Refuse { id, reasons, at } => {
            order(OfficeAct::RefuseRequest { id, reasons }, &at, "request")
        }
        Rights::Key { file } => {
            let key = OpeningKey::generate();
            private(&file, &HEXLOWER.encode(key.to_bytes().expose()))?;
            say(&HEXLOWER.encode(&key.public().0));
            Ok(ExitCode::SUCCESS)
        }
        Rights::Unseal { file, key, out } => unseal(&file, &key, out.as_deref()),
    }
}

fn list_requests(at: &Office) -> Result<ExitCode> {
    let view = block_on(async { Control::new(&at.gateway)?.office().await })?;
    if at.json {
        say(&serde_json::to_string_pretty(&view.requests)?);
        return Ok(ExitCode::SUCCESS);
    }
    for one in &view.requests {
        let state = match (one.urgency, one.granted) {
            (Urgency::Closed, Some(true)) => "granted".to_owned(),
            (Urgency::Closed, _) => "refused".to_owned(),
            (urgency, _) => format!("due before {}, {}", moment(one.due_ms), urgency.as_str()),
        };
        let kind = serde_json::to_value(one.kind)?;
        let kind = kind.as_str().unwrap_or_default();
        say(&format!("{:<5} {kind:<14} {:<24} {state}", one.id, one.reference));
    }
    say(&format!("{} requests", view.requests.len()));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn breach(verb: Breaches) -> Result<ExitCode> {
    match verb {
        Breaches::Open { nature, aware, at } => {
            let aware = aware.as_deref().map_or_else(|| Ok(now().as_millis()), instant)?;
            order(OfficeAct::OpenBreach { aware, nature }, &at, "breach")
        }
        Breaches::Describe { id, nature, contact, consequences, measures, delay_reasons, at } => {
            let act = OfficeAct::DescribeBreach {
                id,
                nature,
                contact,
                consequences,
                measures,
                delay_reasons,
            };
            order(act, &at, "breach")
        }
        Breaches::Report { id, at } => order(OfficeAct::ReportBreach { id }, &at, "breach"),
        Breaches::Draft { id, at } => {
            let language = at.language.as_deref().unwrap_or("-");
            let draft = block_on(async { Control::new(&at.gateway)?.draft(id, language).await })?;
            say(draft.text.trim_end());
            if !draft.missing.is_empty() {
                bail!("the report lacks {} (rule G-33, GDPR Art. 33(3))", draft.missing.join(", "));
            }
            Ok(ExitCode::SUCCESS)
        }
        Breaches::List(at) => {
            let view = block_on(async { Control::new(&at.gateway)?.office().await })?;
            if at.json {
                say(&serde_json::to_string_pretty(&view.breaches)?);
                return Ok(ExitCode::SUCCESS);
            }
            for one in &view.breaches {
                let state = match (one.reported_ms, one.due_ms) {
                    (Some(at), _) => format!("reported {}", moment(at)),
                    (None, Some(due)) => format!("due before {}", moment(due)),
                    (None, None) => "no clock".into(),
                };
                say(&format!("{:<5} {state}; lacks: {}", one.id, one.missing.join(", ")));
            }
            say(&format!("{} breaches", view.breaches.len()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn hold(verb: Holds) -> Result<ExitCode> {
    match verb {
        Holds::Place { item, article, until, signed_by, terminal, from, to, at } => {
            let signed_by = <[String; 2]>::try_from(signed_by);
            let Ok(signed_by) = signed_by else { bail!("--signed-by is given twice: two people") };
            let scope = Scope {
                terminal,
                from: from.as_deref().map(instant).transpose()?,
                to: to.as_deref().map(instant).transpose()?,
            };
            // To the end of the last day.
            let ends = day(&until)? + 86_400_000;
            let act = OfficeAct::PlaceHold { items: item, article, ends, signed_by, scope };
            order(act, &at, "hold")
        }
        Holds::End { id, at } => order(OfficeAct::EndHold { id }, &at, "hold"),
        Holds::Show(at) => {
            let held = block_on(async { Control::new(&at.gateway)?.held().await })?;
            if at.json {
                say(&serde_json::to_string_pretty(&held)?);
                return Ok(ExitCode::SUCCESS);
            }
            for one in &held {
                say(&format!("{} {} {}", moment(one.at_ms), one.terminal, one.purpose));
            }
            say(&format!("{} uses", held.len()));
            Ok(ExitCode::SUCCESS)
        }
        Holds::List(at) => {
            let view = block_on(async { Control::new(&at.gateway)?.office().await })?;
            if at.json {
                say(&serde_json::to_string_pretty(&view.holds)?);
                return Ok(ExitCode::SUCCESS);
            }
            for one in &view.holds {
                say(&format!(
                    "{:<5} {} under Art. {} until {}, signed by {}",
                    one.id,
                    one.items.join(", "),
                    one.article,
                    moment(one.ends_ms),
                    one.signed_by.join(" and ")
                ));
            }
            say(&format!("{} holds", view.holds.len()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn duties(verb: Duties) -> Result<ExitCode> {
    match verb {
        Duties::Done { duty, on, at } => {
            let done = on.as_deref().map_or_else(|| Ok(now().as_millis()), day)?;
            let duty = match duty {
                DutyDone::RestoreDrill => Duty::RestoreDrill,
                DutyDone::SecurityTest => Duty::SecurityTest,
                DutyDone::Training => Duty::Training,
            };
            order(OfficeAct::RecordDuty { duty, done }, &at, "duty")
        }
        Duties::List(at) => {
            let view = block_on(async { Control::new(&at.gateway)?.office().await })?;
            if at.json {
                say(&serde_json::to_string_pretty(&view)?);
            } else {
                for (duty, done) in &view.duties {
                    let duty = serde_json::to_value(duty)?;
                    let done = done.map_or_else(|| "never".into(), moment);
                    say(&format!("{:<14} {done}", duty.as_str().unwrap_or_default()));
                }
                view.alarms.iter().for_each(|alarm| say(&format!("missed: {alarm}")));
            }
            Ok(if view.alarms.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
    }
}

pub(crate) fn clock(verb: Clock) -> Result<ExitCode> {
    match verb {
        Clock::Show(at) => {
            let clock = block_on(async { Control::new(&at.gateway)?.clock().await })?;
            if at.json {
                say(&serde_json::to_string_pretty(&clock)?);
                return Ok(ExitCode::SUCCESS);
            }
            say(&format!("clock      {}", moment(clock.clock_ms)));
            say(&format!("decisions  {}", moment(clock.latest_ms)));
            if let Some(before) = clock.before_jump_ms {
                say(&format!(
                    "doubted    it jumped from {}: erasures wait for a signed time",
                    moment(before)
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Clock::Sign { tenant, store, name, key, out } => {
            let (tenant, store): (Name, Name) = (tenant.parse()?, store.parse()?);
            let key = signing_key(&key)?;
            let note = law::sign_time(&tenant, &store, now(), &name, &key)?;
            fs::write(&out, note).with_context(|| out.display().to_string())?;
            let signer = Signer::new(&name, Algorithm::Ed25519, key.public())?;
            say(&format!("signed     {}\nsigner     {signer}", out.display()));
            Ok(ExitCode::SUCCESS)
        }
        Clock::Confirm { note, at } => {
            let note = fs::read_to_string(&note).with_context(|| note.display().to_string())?;
            let time = SignedTime { note };
            block_on(async { Control::new(&at.gateway)?.confirm(&time).await })?;
            say("the clock is confirmed; erasures go on");
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn decommission(arguments: &DecommissionArguments) -> Result<ExitCode> {
    if !arguments.yes {
        if !std::io::stdin().is_terminal() {
            bail!("every enrolment would end: say so with --yes");
        }
        say(
            "Every enrolment of this store ends, and no backup brings anybody back. Type `forget`:",
        );
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed)?;
        if typed.trim() != "forget" {
            bail!("nothing was done");
        }
    }
    let done = block_on(async { Control::new(&arguments.gateway)?.decommission().await })?;
    say(&format!(
        "{} people are being forgotten; a receipt for each is written to {}",
        done.people,
        arguments.gateway.state.join("receipts").display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn order(act: OfficeAct, at: &Office, what: &str) -> Result<ExitCode> {
    let order = Order { act, language: at.language.clone() };
    let done: Done = block_on(async { Control::new(&at.gateway)?.order(&order).await })?;
    if at.json {
        say(&serde_json::to_string_pretty(&done)?);
        return Ok(ExitCode::SUCCESS);
    }
    if done.id > 0 {
        say(&format!("{what:<10} {}", done.id));
    }
    say(&format!("rules      {}", done.rules.join(", ")));
    if let Some(due) = done.due_ms {
        say(&format!("due before {}", moment(due)));
    }
    if let Some(letter) = done.letter {
        say(&format!("\n{}", letter.trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the envelope of a portability export.
fn unseal(file: &Path, key: &Path, out: Option<&Path>) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let field = |name: &str| -> Result<&str> {
        let value = document.pointer(&format!("/templates/{name}"));
        let value = value.and_then(serde_json::Value::as_str);
        value.with_context(|| format!("{}: no export with templates", file.display()))
    };
    let secret = fs::read_to_string(key).with_context(|| key.display().to_string())?;
    let secret = HEXLOWER.decode(secret.trim().as_bytes()).ok();
    let secret: [u8; 32] = secret
        .and_then(|secret| secret.try_into().ok())
        .with_context(|| format!("{}: no key that `palmgate rights key` made", key.display()))?;
    let own = OpeningKey::from_bytes(&secret)?;
    let tenant: Name = field("chain")?.parse()?;
    let sealed = BASE64.decode(field("envelope")?.as_bytes())?;
    let public = own.public().0;
    let opened = envelope::open(&own, Label::Portability, &tenant, &public, &sealed)?;
    let templates: Vec<SealedPurpose> = decode(opened.expose())?;
    for one in &templates {
        let bytes = one.template.expose().len();
        say(&format!("{:<8} {:?} hand, {bytes} bytes", one.purpose.as_str(), one.hand));
    }
    if let Some(out) = out {
        fs::write(out, opened.expose()).with_context(|| out.display().to_string())?;
    }
    say(&format!("{} templates", templates.len()));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that only its owner can read, and no other in its place.
fn private(path: &Path, text: &str) -> Result<()> {
    let at = || path.display().to_string();
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    Ok(file.with_context(at)?.write_all(text.as_bytes())?)
}

impl From<Kind> for RequestKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Access => Self::Access,
            Kind::Rectification => Self::Rectification,
            Kind::Erasure => Self::Erasure,
            Kind::Restriction => Self::Restriction,
            Kind::Portability => Self::Portability,
            Kind::Objection => Self::Objection,
        }
    }
}

pub(crate) fn now() -> Timestamp {
    let millis = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// The start of a day, in UTC.
fn day(text: &str) -> Result<i64> {
    instant(&format!("{text}T00:00:00Z")).context("write the day as 2026-11-28")
}

fn instant(text: &str) -> Result<i64> {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(text, &Rfc3339);
    let at =
        at.with_context(|| format!("{text} is no moment: write it as 2026-11-28T10:00:00Z"))?;
    Ok(i64::try_from(at.unix_timestamp_nanos() / 1_000_000)?)
}

fn moment(millis: i64) -> String {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "the end of time".into())
}
