//! The stage for the stories in `tests/`: real processes on loopback, pictures as hands.
#![allow(
    clippy::missing_errors_doc,
    reason = "errors are sentences for a person, with their causes"
)]

mod mosquitto;

pub use mosquitto::Mosquitto;

use anyhow::{Context, Result, bail};
use palmgate_cli::{
    hands::{self, Picture},
    stage::{self, Cloud, Gateway, Shape},
};
use palmgate_protocol::{
    Biometric, Custody, Hand, Name, Purpose,
    terminal::{Age, AnswerBody, Enrolment, Frame, Intent, Payment},
};
use palmgate_terminal::{Presentation, Terminal, simulated};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A store with a kiosk, in a directory of its own.
pub struct Scene {
    /// Everything lies below it.
    pub directory: TempDir,
    /// The tenant.
    pub tenant: Name,
    /// The gateway.
    pub store: Gateway,
    /// A terminal that may do everything.
    pub kiosk: Terminal,
    /// Pictures of hands, one a person.
    pub pictures: Vec<Picture>,
}

/// Somebody who enrolled.
#[derive(Clone)]
pub struct Person {
    /// Their picture.
    pub index: usize,
    /// Their claim tokens.
    pub claims: Vec<Vec<u8>>,
    /// Their consent receipts.
    pub receipts: Vec<String>,
}

impl Scene {
    /// A store by itself.
    pub async fn alone(custody: Custody) -> Result<Self> {
        Self::with(custody, None, tempfile::tempdir()?, "lyon").await
    }

    /// A store `name` of the tenant whose cloud this is.
    pub async fn with(
        custody: Custody,
        cloud: Option<&Cloud>,
        directory: TempDir,
        name: &str,
    ) -> Result<Self> {
        Self::under(custody, cloud, directory, name, ("", true)).await
    }

    /// A store with more in its configuration; the flag says whether it serves employees.
    pub async fn under(
        custody: Custody,
        cloud: Option<&Cloud>,
        directory: TempDir,
        name: &str,
        (more, staff): (&str, bool),
    ) -> Result<Self> {
        let (tenant, store): (Name, Name) = ("tenant".parse()?, name.parse()?);
        let shape = Shape { custody, cloud, more, staff, ..Shape::new(&tenant, &store) };
        Self::shaped(&shape, directory).await
    }

    /// A store by itself with so many people more, who never come, for what measures: it answers
    /// without slots of time.
    pub async fn crowded(custody: Custody, people: usize) -> Result<Self> {
        let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
        let (strangers, more) = (people, stage::WITHOUT_SLOTS);
        let shape = Shape { custody, strangers, more, ..Shape::new(&tenant, &store) };
        Self::shaped(&shape, tempfile::tempdir()?).await
    }

    async fn shaped(shape: &Shape<'_>, directory: TempDir) -> Result<Self> {
        let (tenant, store) =
            (shape.tenant.clone(), Gateway::start(directory.path(), shape).await?);
        let kiosk = store.terminal("kiosk-1", &["pay", "loyalty", "entry"], true).await?;
        Ok(Self { directory, tenant, store, kiosk, pictures: hands::load(None)? })
    }

    /// Enrols the first person from picture `index` on whose hand the reader can use.
    pub async fn enrol(&self, index: usize, purposes: &[Purpose]) -> Result<Person> {
        for index in index..self.pictures.len() {
            let answer = self.kiosk.enrol(self.enrolment(index, purposes)).await?;
            match answer.body {
                AnswerBody::Enrolled { claims, receipts } => {
                    let claims = claims.into_iter().map(|claim| claim.token.0.to_vec()).collect();
                    return Ok(Person { index, claims, receipts });
                }
                AnswerBody::Retry { .. } => {}
                other => bail!("the enrolment was {other:?}"),
            }
        }
        bail!("no hand could be enrolled")
    }

    /// An adult with one hand, three captures.
    pub fn enrolment(&self, index: usize, purposes: &[Purpose]) -> Enrolment {
        let consents = purposes.iter().map(|purpose| simulated::consent(*purpose, NOTICE, "fr"));
        Enrolment {
            captures: self.pictures[index].captures(Hand::Right),
            consents: consents.collect(),
            age: Age::Adult,
            card_token: Some(Biometric::new(token(index).into_bytes())),
            phone: Some(Biometric::new(phone(index).into_bytes())),
            authorisation: None,
            release: None,
            replaces: None,
            possession: None,
            verdict: None,
        }
    }

    /// Presents another capture of a person's hand, with their first claim token or without.
    pub async fn present(
        &self,
        terminal: &Terminal,
        person: &Person,
        intent: Intent,
        claim: Option<usize>,
    ) -> Result<AnswerBody> {
        let claim = claim.and_then(|number| person.claims.get(number)).cloned();
        let hand = Presentation {
            frames: self.pictures[person.index].other_frames(77),
            // A token that can be copied pays beside chip and PIN only (P-SCA-7).
            authenticated: claim.is_some() && intent.purpose() == Some(Purpose::Pay),
            claim: claim.map(Biometric::new),
            ask_cloud: true,
            ..Presentation::default()
        };
        Ok(terminal.scan(intent, hand).await?.body)
    }

    /// Runs `palmgate` with these arguments and this store's state directory.
    pub fn office(&self, arguments: &[&str]) -> Result<Output> {
        let state = self.store.state.display().to_string();
        palmgate(&[arguments, &["--state", &state]].concat())
    }

    /// Frames of a picture, as they are.
    pub fn frames(&self, index: usize) -> Vec<Frame> {
        self.pictures[index].frames()
    }

    /// Every file that holds `needle`, below the store's state and in its log.
    pub fn files_with(&self, needle: &[u8]) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for place in [self.store.state.clone(), self.store.state.with_extension("log")] {
            walk(&place, &mut |path, bytes| {
                if bytes.windows(needle.len()).any(|window| window == needle) {
                    found.push(path.to_owned());
                }
            })?;
        }
        Ok(found)
    }
}

/// What a command printed, and whether it did what it was asked.
pub struct Output {
    /// Standard output.
    pub text: String,
    /// Standard error.
    pub errors: String,
    /// Exit status 0.
    pub success: bool,
}

/// Runs `palmgate` with these arguments.
pub fn palmgate(arguments: &[&str]) -> Result<Output> {
    let output = std::process::Command::new(stage::program()?).args(arguments).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output {
        text: text(&output.stdout),
        errors: text(&output.stderr),
        success: output.status.success(),
    })
}

/// The notice that the gateway wants to have been shown.
pub const NOTICE: &str = palmgate_cli::NOTICE;

/// A payment of so many cents.
pub fn pay(minor_units: u64) -> Intent {
    Intent::Pay(Payment {
        minor_units,
        currency: "EUR".into(),
        payee: "story".into(),
        nonce: palmgate_seal::random::bytes(),
    })
}

/// Whether the answer is yes.
pub const fn accepted(body: &AnswerBody) -> bool {
    matches!(body, AnswerBody::Accepted(_))
}

/// The card token of a person.
pub fn token(index: usize) -> String {
    format!("tok-story-{index:04}-abcdefgh")
}

/// The phone number of a person.
pub fn phone(index: usize) -> String {
    format!("+3365432{index:04}")
}

fn walk(path: &Path, look: &mut impl FnMut(&Path, &[u8])) -> Result<()> {
    let at = || path.display().to_string();
    let kind = fs::symlink_metadata(path).with_context(at)?;
    if kind.is_dir() {
        for entry in fs::read_dir(path).with_context(at)? {
            walk(&entry?.path(), look)?;
        }
    } else if kind.is_file() {
        look(path, &fs::read(path).with_context(at)?);
    }
    Ok(())
}
