//! The office at the control socket: what is asked, what is answered. Nothing here names, searches
//! or shows people.

pub use palmgate_policy::office::{Duty, OfficeAct, RequestKind, Scope, Urgency};

use palmgate_policy::{
    Citation, Law,
    office::{Breach, Denied, Desk, Hold, Request},
};
use palmgate_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// What the office asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The act.
    pub act: OfficeAct,
    /// Language of the letter, if not the store's.
    pub language: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// Number of the request, breach or hold.
    pub id: u64,
    /// The rules behind it.
    pub rules: Vec<String>,
    /// When the next step is due, in milliseconds since the Unix epoch.
    pub due_ms: Option<i64>,
    /// What is to be sent, as Markdown.
    pub letter: Option<String>,
}

/// Everything on the desk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct View {
    /// Requests.
    pub requests: Vec<RequestView>,
    /// Breaches.
    pub breaches: Vec<BreachView>,
    /// Holds.
    pub holds: Vec<HoldView>,
    /// Duties: when they were last done, in milliseconds since the Unix epoch.
    pub duties: Vec<(Duty, Option<i64>)>,
    /// What is missed, as sentences with their rules.
    pub alarms: Vec<String>,
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestView {
    /// Its number.
    pub id: u64,
    /// What is asked for.
    pub kind: RequestKind,
    /// How its letter is filed.
    pub reference: String,
    /// When it came in, in milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// From when on it is late.
    pub due_ms: i64,
    /// How urgent it is.
    pub urgency: Urgency,
    /// How it ended, if it did.
    pub granted: Option<bool>,
}

/// A breach.
#[derive(Debug, Serialize, Deserialize)]
pub struct BreachView {
    /// Its number.
    pub id: u64,
    /// Since when it is known, in milliseconds since the Unix epoch.
    pub aware_ms: Option<i64>,
    /// From when on its report is late.
    pub due_ms: Option<i64>,
    /// When it was reported.
    pub reported_ms: Option<i64>,
    /// What the report still lacks.
    pub missing: Vec<String>,
}

/// A hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct HoldView {
    /// Its number.
    pub id: u64,
    /// Kinds of data.
    pub items: Vec<String>,
    /// Its article.
    pub article: String,
    /// Its end, in milliseconds since the Unix epoch.
    pub ends_ms: i64,
    /// Who signed.
    pub signed_by: Vec<String>,
    /// What it is about.
    pub scope: Scope,
}

/// The draft of a report to the authority.
#[derive(Debug, Serialize, Deserialize)]
pub struct Draft {
    /// As Markdown.
    pub text: String,
    /// What it lacks.
    pub missing: Vec<String>,
}

/// What is known of the clock.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClockView {
    /// The box's clock, in milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// The time that decisions go by.
    pub latest_ms: i64,
    /// Set after a jump that no signed time has confirmed: the time before it.
    pub before_jump_ms: Option<i64>,
}

/// A signed time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTime {
    /// The note that `palmgate clock sign` wrote.
    pub note: String,
}

/// A use that a hold kept from being erased; it names nobody.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldUse {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Where.
    pub terminal: String,
    /// For what.
    pub purpose: String,
}

impl View {
    pub(crate) fn of(desk: &Desk, law: &Law, alarms: &[Citation], now: Timestamp) -> Self {
        let duties = [Duty::RestoreDrill, Duty::SecurityTest, Duty::Training];
        Self {
            requests: desk.requests().map(|(id, one)| request(id, one, law, now)).collect(),
            breaches: desk.breaches().map(|(id, one)| breach(id, one, law, now)).collect(),
            holds: desk.holds().map(|(id, one)| hold(id, one)).collect(),
            duties: duties.map(|duty| (duty, desk.done(duty).map(Timestamp::as_millis))).into(),
            alarms: alarms.iter().map(ToString::to_string).collect(),
        }
    }
}

fn request(id: u64, request: &Request, law: &Law, now: Timestamp) -> RequestView {
    RequestView {
        id,
        kind: request.kind,
        reference: request.reference.clone(),
        received_ms: request.received.as_millis(),
        due_ms: request.due(law.pack()).as_millis(),
        urgency: request.urgency(law.pack(), now),
        granted: request.closed().map(|closed| closed.granted),
    }
}

fn breach(id: u64, breach: &Breach, law: &Law, now: Timestamp) -> BreachView {
    BreachView {
        id,
        aware_ms: breach.aware.map(Timestamp::as_millis),
        due_ms: breach.due(law.pack()).map(Timestamp::as_millis),
        reported_ms: breach.reported.map(Timestamp::as_millis),
        missing: breach.missing(law.pack(), now).into_iter().map(Into::into).collect(),
    }
}

fn hold(id: u64, hold: &Hold) -> HoldView {
    HoldView {
        id,
        items: hold.items().to_vec(),
        article: hold.article().to_owned(),
        ends_ms: hold.ends().as_millis(),
        signed_by: hold.signed_by().to_vec(),
        scope: hold.scope().clone(),
    }
}

/// Why the office is refused: the law, or the box.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("it could not be made durable: see the box's log; it is tried again every second")]
    Disk,
    #[error("there is no breach {0}: `palmgate breach list` shows what there is")]
    NoBreach(u64),
    #[error(transparent)]
    Time(#[from] palmgate_law::TimeError),
    #[error(
        "the box's clock is {0} s away from the signed time: set the clock first, then confirm"
    )]
    ClockOff(u64),
    #[error("the clock did not jump: there is nothing to confirm")]
    NoDoubt,
    #[error("the time was signed for before the jump: sign the present time")]
    OldTime,
    #[error("{0}\nthe pack before stays in force")]
    Pack(#[from] crate::law::LawError),
}
