//! `palmgate terminal`: the box's terminals, and a terminal without hardware.

use crate::{
    control::{self, Control, block_on},
    format::{millis, say},
};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use palmgate_gateway::control::{AddTerminal, Code};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Biometric, Hand, Name, Purpose, PurposeSet,
    terminal::{AnswerBody, Band, Frame, Intent, Payment, WrittenRelease},
};
use palmgate_seal::{pairing::PairingCode, random};
use palmgate_terminal::{Invitation, Paired, Presentation, Terminal, simulated};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long to wait for the gateway.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a one-time pairing code for a new terminal (on the box).
    Add {
        /// The terminal's name.
        name: String,
        /// Purposes it may ask for.
        #[arg(long, value_delimiter = ',', required = true)]
        purpose: Vec<String>,
        /// People may enrol at it.
        #[arg(long)]
        enrols: bool,
        /// Public key of a sensor whose signed verdicts count, or a file with it; four at most.
        #[arg(long)]
        sensor_key: Vec<String>,
        #[command(flatten)]
        gateway: control::Arguments,
    },
    /// List the terminals (on the box).
    List(control::Arguments),
    /// Remove a terminal: its next message is refused (on the box).
    Revoke {
        /// The terminal's name.
        name: String,
        #[command(flatten)]
        gateway: control::Arguments,
    },
    /// Give a terminal another name: make a one-time code under which it is paired again; its old
    /// name is revoked then (on the box).
    Rename {
        /// Its name now.
        old: String,
        /// Its name to be.
        new: String,
        #[command(flatten)]
        gateway: control::Arguments,
    },
    /// Be a terminal.
    #[command(flatten)]
    Own(OwnVerb),
}

/// What a terminal does: here one without hardware, with pictures as hands.
#[derive(Subcommand)]
pub(crate) enum OwnVerb {
    /// Pair this machine as a terminal.
    Pair {
        /// The gateway, as https://HOST:PORT; or all that the QR code says, and no more.
        gateway: String,
        /// The code that `add` printed.
        #[arg(requires = "name")]
        code: Option<String>,
        /// The name given to `add`.
        name: Option<String>,
        #[command(flatten)]
        own: Own,
    },
    /// Present a hand.
    Scan(ScanArguments),
    /// Enrol a person.
    Enrol(EnrolArguments),
    /// Make the key of a simulated sensor and print its public half, for `add --sensor-key`.
    SensorKey {
        /// Where the key lies, or is made.
        file: PathBuf,
    },
    /// Present pictures at a steady rate and report latencies.
    Run(RunArguments),
    /// Simulate another capture of the hand in a picture: turned, moved, bent, under other light.
    Recapture(RecaptureArguments),
}

/// This terminal.
#[derive(Args)]
pub(crate) struct Own {
    /// The terminal's own state directory.
    #[arg(long, default_value = "terminal")]
    directory: PathBuf,
}

#[derive(Args)]
pub(crate) struct ScanArguments {
    /// What the person came for.
    #[arg(value_enum)]
    wish: Wish,
    /// Pictures of one hand: PNG or JPEG; a name ending in -940 is near infrared.
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// Amount in cents, for pay.
    #[arg(long, default_value_t = 0)]
    cents: u64,
    /// Zone, for staff.
    #[arg(long, default_value = "")]
    zone: String,
    /// Purposes to withdraw, for withdraw.
    #[arg(long, value_delimiter = ',')]
    purpose: Vec<String>,
    /// Claim token file that is shown with the hand.
    #[arg(long)]
    claim: Option<PathBuf>,
    /// Ask to be looked up beyond this store.
    #[arg(long)]
    ask_cloud: bool,
    /// The person has just been authenticated strongly, by chip and PIN.
    #[arg(long)]
    authenticated: bool,
    /// Key file of a simulated sensor, which signs that the hand lives.
    #[arg(long)]
    sensor: Option<PathBuf>,
    /// Find the palm here and send its region of interest alone, as a terminal with a processor of its
    /// own does.
    #[arg(long)]
    region: bool,
    /// The person's own public key, for port: what `palmgate rights key` printed.
    #[arg(long)]
    to_key: Option<String>,
    /// Where to write what export, port or erase gives.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    own: Own,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wish {
    Pay,
    Loyalty,
    Entry,
    Staff,
    History,
    Pause,
    Resume,
    Withdraw,
    Erase,
    Export,
    Port,
    Object,
}

#[derive(Args)]
pub(crate) struct EnrolArguments {
    /// One to three pictures of the left hand.
    #[arg(long)]
    left: Vec<PathBuf>,
    /// One to three pictures of the right hand.
    #[arg(long)]
    right: Vec<PathBuf>,
    /// Purposes consented to, `roaming` among them or not.
    #[arg(long, value_delimiter = ',', required = true)]
    purpose: Vec<String>,
    /// The payment provider's token.
    #[arg(long)]
    card_token: Option<String>,
    /// Phone number, as +33612345678.
    #[arg(long)]
    phone: Option<String>,
    /// Language of the notice that was shown.
    #[arg(long, default_value = "fr")]
    language: String,
    /// Where to write the claim tokens.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Where to write the consent receipts: JSON-LD, and a QR code of each.
    #[arg(long)]
    receipts: Option<PathBuf>,
    /// Correct the enrolment of the person, who is recognised by these captures.
    #[arg(long)]
    replace: bool,
    /// Claim token file of the enrolment that is corrected.
    #[arg(long, requires = "replace")]
    claim: Option<PathBuf>,
    /// Key file of a simulated sensor, which signs that the hands live.
    #[arg(long)]
    sensor: Option<PathBuf>,
    /// Find the palms here and send their regions of interest alone.
    #[arg(long)]
    region: bool,
    /// The name that the person signed a written release with, under purpose and duration.
    #[arg(long)]
    release: Option<String>,
    #[command(flatten)]
    own: Own,
}

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Directory of pictures, one hand each.
    pictures: PathBuf,
    /// Scans a second.
    #[arg(long, default_value_t = 1.0)]
    per_second: f64,
    /// Scans in all.
    #[arg(long, default_value_t = 20)]
    count: usize,
    #[command(flatten)]
    own: Own,
}

#[derive(Args)]
pub(crate) struct RecaptureArguments {
    /// Picture of one hand: PNG or JPEG.
    picture: PathBuf,
    /// Where to write the other capture, a JPEG file.
    out: PathBuf,
    /// The same seed gives the same capture.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A palm terminal without hardware: pictures stand for hands.
#[derive(Parser)]
#[command(name = "palmgate-simulated-terminal", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: OwnVerb,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        block_on(be_terminal(self.verb))
    }
}

pub(crate) fn run(verb: Verb) -> Result<ExitCode> {
    block_on(async {
        match verb {
            Verb::Add { name, purpose, enrols, sensor_key, gateway } => {
                add(name, purpose, enrols, &sensor_key, &gateway).await
            }
            Verb::List(gateway) => list(&gateway).await,
            Verb::Revoke { name, gateway } => {
                Control::new(&gateway)?.revoke(&name).await?;
                say(&format!("{name} is revoked; its next message is refused"));
                Ok(ExitCode::SUCCESS)
            }
            Verb::Rename { old, new, gateway } => {
                let code = Control::new(&gateway)?.rename(&old, &new).await?;
                show(&new.parse()?, &code)
            }
            Verb::Own(verb) => be_terminal(verb).await,
        }
    })
}

async fn be_terminal(verb: OwnVerb) -> Result<ExitCode> {
    match verb {
        OwnVerb::Pair { gateway, code, name, own } => {
            let paired = match code.zip(name) {
                None => Paired::accept(&gateway.parse()?, &own.directory).await?,
                Some((code, name)) => {
                    let (code, name) = (PairingCode::parse(&code)?, name.parse::<Name>()?);
                    Paired::pair(&gateway, &code, &name, &own.directory).await?
                }
            };
            say(&format!("{} now belongs to store {}", paired.name(), paired.store()));
            Ok(ExitCode::SUCCESS)
        }
        OwnVerb::Scan(arguments) => scan(arguments).await,
        OwnVerb::Enrol(arguments) => enrol(arguments).await,
        OwnVerb::SensorKey { file } => {
            say(&data_encoding::HEXLOWER.encode(&crate::policy::signing_key(&file)?.public().0));
            Ok(ExitCode::SUCCESS)
        }
        OwnVerb::Run(arguments) => run_at_rate(arguments).await,
        OwnVerb::Recapture(arguments) => recapture(&arguments),
    }
}

async fn add(
    name: String,
    purposes: Vec<String>,
    enrols: bool,
    sensor_keys: &[String],
    gateway: &control::Arguments,
) -> Result<ExitCode> {
    let hex = |key: &String| Ok(data_encoding::HEXLOWER.encode(&public_key(key)?));
    let sensors = sensor_keys.iter().map(hex).collect::<Result<_>>()?;
    let wanted = AddTerminal { name, purposes, enrols, sensors };
    let code = Control::new(gateway)?.add(&wanted).await?;
    show(&wanted.name.parse()?, &code)
}

/// The code to type, and a QR code that says the rest, too.
fn show(name: &Name, code: &Code) -> Result<ExitCode> {
    let Code { code, host, port } = code;
    let invitation = Invitation::new(name.clone(), host, *port, PairingCode::parse(code)?)?;
    let text = invitation.text();
    let qr = QrCode::with_error_correction_level(text.expose().as_bytes(), EcLevel::L)?;
    say(&format!(
        "{code}\nfor {name} at {}; good once, for ten minutes, five tries",
        invitation.gateway_url()
    ));
    say(&qr.render::<Dense1x2>().quiet_zone(true).build());
    Ok(ExitCode::SUCCESS)
}

async fn list(gateway: &control::Arguments) -> Result<ExitCode> {
    let control = Control::new(gateway)?;
    for terminal in control.list().await? {
        let enrols = if terminal.enrols { ", enrols" } else { "" };
        let sensors = terminal.sensors.iter().map(|key| format!(", sensor {key}"));
        let sensors: String = sensors.collect();
        say(&format!("{:<20} {}{enrols}{sensors}", terminal.name, terminal.purposes.join(",")));
    }
    let roster = control.roster().await?;
    say(&format!("roster {}, hash {}", roster.sequence, roster.hash));
    Ok(ExitCode::SUCCESS)
}

async fn connect(own: &Own) -> Result<Terminal> {
    let terminal = Terminal::connect(Paired::open(&own.directory)?)?;
    terminal.ready(PATIENCE).await?;
    Ok(terminal)
}

fn purposes(names: &[String]) -> Result<Vec<Purpose>> {
    names.iter().map(|name| name.parse().map_err(anyhow::Error::msg)).collect()
}

fn intent(arguments: &ScanArguments) -> Result<Intent> {
    Ok(match arguments.wish {
        Wish::Pay => Intent::Pay(Payment {
            minor_units: arguments.cents,
            currency: "EUR".into(),
            payee: "simulated till".into(),
            nonce: random::bytes(),
        }),
        Wish::Loyalty => Intent::Loyalty,
        Wish::Entry => Intent::Entry,
        Wish::Staff => Intent::Staff { zone: arguments.zone.clone() },
        Wish::History => Intent::History,
        Wish::Pause => Intent::Pause,
        Wish::Resume => Intent::Resume,
        Wish::Withdraw => {
            let purposes: PurposeSet = purposes(&arguments.purpose)?.into_iter().collect();
            Intent::Withdraw { purposes }
        }
        Wish::Erase => Intent::Erase,
        Wish::Export => Intent::Export,
        Wish::Object => Intent::Object,
        Wish::Port => {
            let key = arguments.to_key.as_deref().context("port needs --to-key")?;
            Intent::Port { key: public_key(key)? }
        }
    })
}

/// 64 hexadecimal digits, or a file with them.
fn public_key(text: &str) -> Result<[u8; 32]> {
    let read = if Path::new(text).is_file() { fs::read_to_string(text)? } else { text.to_owned() };
    let key = data_encoding::HEXLOWER_PERMISSIVE.decode(read.trim().as_bytes()).ok();
    key.and_then(|key| key.try_into().ok()).context("a public key has 64 hexadecimal digits")
}

fn sensor(key: Option<&Path>) -> Result<Option<simulated::Sensor>> {
    let key = key.map(crate::policy::signing_key).transpose()?;
    Ok(key.map(|key| simulated::Sensor::new(key, true)))
}

async fn scan(arguments: ScanArguments) -> Result<ExitCode> {
    let intent = intent(&arguments)?;
    let captures = simulated::group(&arguments.pictures, false)?;
    let [capture] = captures.as_slice() else { bail!("pictures of one hand are wanted") };
    let claim = arguments.claim.as_deref().map(read_file).transpose()?.map(Biometric::new);
    let mut frames = capture.read()?;
    if arguments.region {
        cut(&Extractor::load()?, &mut frames)?;
    }
    let hand = Presentation {
        frames,
        claim,
        ask_cloud: arguments.ask_cloud,
        authenticated: arguments.authenticated,
        ..Presentation::default()
    };
    let terminal = connect(&arguments.own).await?;
    let hand = match sensor(arguments.sensor.as_deref())? {
        Some(sensor) => sensor.present(hand, terminal.challenge().await?),
        None => hand,
    };
    let begun = Instant::now();
    let answer = terminal.scan(intent, hand).await?;
    let took = begun.elapsed();
    say(&format!("{} after {} ms", describe(&answer.body), millis(took)));
    let accepted = matches!(
        answer.body,
        AnswerBody::Accepted(_)
            | AnswerBody::Done
            | AnswerBody::History { .. }
            | AnswerBody::Erased { .. }
            | AnswerBody::Exported { .. }
    );
    let given = match &answer.body {
        AnswerBody::Exported { document } => Some(&document.0),
        AnswerBody::Erased { receipt } => Some(receipt),
        _ => None,
    };
    match (given, &arguments.out) {
        (Some(text), Some(file)) => {
            fs::write(file, text).with_context(|| file.display().to_string())?;
        }
        (Some(text), None) if matches!(answer.body, AnswerBody::Exported { .. }) => say(text),
        _ => {}
    }
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// An answer in words.
pub(crate) fn describe(body: &AnswerBody) -> String {
    match body {
        AnswerBody::Accepted(accepted) if accepted.assertion.is_some() => {
            "accepted, with a card token and a signed assertion".into()
        }
        AnswerBody::Accepted(_) => "accepted".into(),
        AnswerBody::Retry { problem, index } => format!("capture {index}: {}", problem.prompt()),
        AnswerBody::NotRecognised => "not recognised: offer the other way".into(),
        AnswerBody::Refused { reason } => format!("refused: {}", reason.as_str()),
        AnswerBody::Busy => "busy: use another way".into(),
        AnswerBody::Enrolled { claims, receipts } => {
            let (claims, receipts) = (claims.len(), receipts.len());
            format!("enrolled, {claims} claim token(s), {receipts} consent receipt(s)")
        }
        AnswerBody::History { uses, consents } => {
            let purposes: Vec<_> = consents.iter().map(Purpose::as_str).collect();
            format!("{} uses; consents: {}", uses.len(), purposes.join(", "))
        }
        AnswerBody::Done => "done".into(),
        AnswerBody::Erased { receipt } => format!("erased; the receipt:\n{receipt}\n"),
        AnswerBody::Exported { document } => format!("exported, {} bytes", document.0.len()),
        AnswerBody::Renewed { .. } => "a new certificate".into(),
    }
}

async fn enrol(arguments: EnrolArguments) -> Result<ExitCode> {
    let mut hands = Vec::new();
    for (hand, files) in [(Hand::Left, &arguments.left), (Hand::Right, &arguments.right)] {
        hands.extend(simulated::group(files, false)?.into_iter().map(|capture| (hand, capture)));
    }
    let notice = palmgate_gateway::NOTICE;
    let consents = purposes(&arguments.purpose)?
        .into_iter()
        .map(|purpose| simulated::consent(purpose, notice, &arguments.language))
        .collect();
    let mut enrolment = simulated::enrolment(&hands, consents)?;
    if arguments.region {
        let extractor = Extractor::load()?;
        for capture in &mut enrolment.captures {
            cut(&extractor, &mut capture.frames)?;
        }
    }
    enrolment.card_token = arguments.card_token.map(|token| Biometric::new(token.into_bytes()));
    enrolment.phone = arguments.phone.map(|phone| Biometric::new(phone.into_bytes()));
    enrolment.release = arguments.release.map(|name| WrittenRelease {
        name: Biometric::new(name.into_bytes()),
        signed_at: crate::office::now(),
        purpose_stated: true,
        duration_stated: true,
    });
    let terminal = connect(&arguments.own).await?;
    let answer = if arguments.replace {
        let claim = arguments.claim.as_deref().map(read_file).transpose()?.map(Biometric::new);
        terminal.rectify(enrolment, claim).await?
    } else if let Some(sensor) = sensor(arguments.sensor.as_deref())? {
        let challenge = terminal.challenge().await?;
        terminal.enrol_about(sensor.enrol(enrolment, challenge), challenge).await?
    } else {
        terminal.enrol(enrolment).await?
    };
    say(&describe(&answer.body));
    let AnswerBody::Enrolled { claims, receipts } = answer.body else {
        return Ok(ExitCode::from(2));
    };
    if let Some(directory) = arguments.receipts {
        write_receipts(&directory, receipts)?;
    }
    if let Some(directory) = arguments.tokens {
        fs::create_dir_all(&directory)?;
        for (number, claim) in claims.iter().enumerate() {
            fs::write(directory.join(format!("claim-{number}")), claim.token.0.as_slice())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Each receipt as it is signed, and as a QR code.
fn write_receipts(directory: &Path, receipts: Vec<String>) -> Result<()> {
    fs::create_dir_all(directory)?;
    for (number, text) in receipts.into_iter().enumerate() {
        let receipt = palmgate_law::ConsentReceipt::from_text(text);
        let file = directory.join(format!("receipt-{number}"));
        fs::write(file.with_extension("jsonld"), receipt.as_str())?;
        fs::write(file.with_extension("svg"), receipt.qr()?)?;
        say(&format!(
            "receipt    {}, {} bytes, as a QR code beside it",
            file.with_extension("jsonld").display(),
            receipt.as_str().len()
        ));
    }
    Ok(())
}

async fn run_at_rate(arguments: RunArguments) -> Result<ExitCode> {
    let pictures = simulated::pictures_in(&arguments.pictures)?;
    let terminal = connect(&arguments.own).await?;
    let plan = simulated::Plan {
        intent: Intent::Entry,
        claim: None,
        per_second: arguments.per_second,
        count: arguments.count,
    };
    let report = simulated::run_at_rate(&terminal, &pictures, &plan).await?;
    for (outcome, count) in report.outcomes() {
        say(&format!("{outcome:<24} {count}"));
    }
    let at = |percent| report.percentile(percent).map(millis).unwrap_or_default();
    say(&format!("p50 {} ms, p99 {} ms", at(50.0), at(99.0)));
    Ok(ExitCode::SUCCESS)
}

/// Keeps the regions of interest alone.
fn cut(extractor: &Extractor, frames: &mut [Frame]) -> Result<()> {
    for frame in frames {
        let region = extractor.cut(frame);
        *frame = region.map_err(|problem| anyhow::anyhow!("{}", problem.prompt()))?;
    }
    Ok(())
}

fn recapture(arguments: &RecaptureArguments) -> Result<ExitCode> {
    let frame = simulated::read_frame(&arguments.picture, Band::Visible)?;
    let capture = palmgate_palm::simulate::second_capture(frame.picture.expose(), arguments.seed);
    let out = &arguments.out;
    fs::write(out, capture.expose()).with_context(|| out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
