use super::allowed;
use crate::{
    Law, Pack, Rule,
    deadline::Calendar,
    pack::{Act, Action, Verdict},
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{DAY, Timestamp};
use serde::{Deserialize, Serialize};

/// What a person can ask for in writing (GDPR Art. 15 to 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum RequestKind {
    /// Access and a copy (Art. 15).
    #[n(0)]
    Access,
    /// Correction, by enrolling anew (Art. 16).
    #[n(1)]
    Rectification,
    /// Erasure (Art. 17).
    #[n(2)]
    Erasure,
    /// Restriction (Art. 18).
    #[n(3)]
    Restriction,
    /// What was provided, to take along (Art. 20).
    #[n(4)]
    Portability,
    /// Objection (Art. 21).
    #[n(5)]
    Objection,
}

/// A request and its clock. Names nobody: the letter has the name, and a reference.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// What is asked for.
    #[n(0)]
    pub kind: RequestKind,
    /// When it came in.
    #[n(1)]
    pub received: Timestamp,
    /// How the office files the letter.
    #[n(2)]
    pub reference: String,
    /// Months more, once the person was told why.
    #[n(3)]
    months_more: i64,
    #[n(4)]
    closed: Option<Closed>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Closed {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// Whether the person got what they asked for.
    #[n(1)]
    pub granted: bool,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Answered.
    Closed,
    /// There is time.
    Calm,
    /// Ten days or less are left.
    Soon,
    /// Three days or less are left.
    Now,
    /// The deadline has passed.
    Late,
}

impl Urgency {
    /// Of a request that is open.
    pub const OPEN: [Self; 4] = [Self::Calm, Self::Soon, Self::Now, Self::Late];

    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Calm => "calm",
            Self::Soon => "soon",
            Self::Now => "now",
            Self::Late => "late",
        }
    }
}

/// Why a request is not answered as asked, in the words that the person gets.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The reasons; blank ones are none.
    pub reasons: String,
    /// Where the person can complain; blank is none.
    pub complaint_route: String,
}

impl Request {
    /// A request that came in.
    pub const fn new(kind: RequestKind, received: Timestamp) -> Self {
        Self { kind, received, reference: String::new(), months_more: 0, closed: None }
    }

    /// How it ended, if it did.
    pub const fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Months that were taken beyond the first.
    pub const fn months_more(&self) -> i64 {
        self.months_more
    }

    /// The first moment at which it is late.
    pub fn due(&self, pack: &Pack) -> Timestamp {
        let months = pack.number("request_months").map_or(1, |number| number.value);
        Calendar::new(pack).months_after(self.received, months + self.months_more)
    }

    /// How urgent it is.
    pub fn urgency(&self, pack: &Pack, now: Timestamp) -> Urgency {
        if self.closed.is_some() {
            return Urgency::Closed;
        }
        let due = self.due(pack);
        let left = due.since(now);
        match () {
            () if now >= due => Urgency::Late,
            () if left <= 3 * DAY => Urgency::Now,
            () if left <= 10 * DAY => Urgency::Soon,
            () => Urgency::Calm,
        }
    }

    /// Takes up to two months more; gives the rules that allow it.
    ///
    /// # Errors
    /// The pack's denial: too long, without reasons, or told too late.
    pub fn extend(
        &mut self,
        law: &Law,
        months: u8,
        reasons: &str,
        told: Timestamp,
    ) -> Result<Vec<Rule>, Box<Verdict>> {
        let first = Self { months_more: 0, ..self.clone() }.due(law.pack());
        let act = answer_request(0)
            .with("refused", false)
            .with("reasons", !reasons.trim().is_empty())
            .with("complaint_route", false)
            .with("months_more", months)
            .with("told_in_time", self.closed.is_none() && told < first);
        let verdict = allowed(law, &act)?;
        self.months_more = months.into();
        Ok(verdict.rules)
    }

    /// Asks the person for more proof of identity.
    ///
    /// # Errors
    /// The pack's denial: without a doubt that is written down.
    pub fn ask_identity(law: &Law, doubt: &str) -> Result<Vec<Rule>, Box<Verdict>> {
        let act = Act::new(Action::AnswerRequest)
            .with("fee", 0_i64)
            .with("identity_asked", true)
            .with("doubt_reason", !doubt.trim().is_empty())
            .with("identity_copied", false)
            .with("refused", false)
            .with("reasons", false)
            .with("complaint_route", false)
            .with("months_more", 0_i64)
            .with("told_in_time", true);
        Ok(allowed(law, &act)?.rules)
    }

    /// Closes it as granted.
    ///
    /// # Errors
    /// The pack's denial: a fee was asked for.
    pub fn grant(
        &mut self,
        law: &Law,
        fee: i64,
        now: Timestamp,
    ) -> Result<Vec<Rule>, Box<Verdict>> {
        // Months that were taken before were taken with reasons.
        let act = answer_request(fee)
            .with("refused", false)
            .with("reasons", false)
            .with("complaint_route", false)
            .with("months_more", 0_i64)
            .with("told_in_time", true);
        let verdict = allowed(law, &act)?;
        self.closed = Some(Closed { at: now, granted: true });
        Ok(verdict.rules)
    }

    /// Closes it as refused.
    ///
    /// # Errors
    /// The pack's denial: without reasons or without saying where to complain.
    pub fn refuse(
        &mut self,
        law: &Law,
        explanation: &Explanation,
        now: Timestamp,
    ) -> Result<Vec<Rule>, Box<Verdict>> {
        let act = answer_request(0)
            .with("refused", true)
            .with("reasons", !explanation.reasons.trim().is_empty())
            .with("complaint_route", !explanation.complaint_route.trim().is_empty())
            .with("months_more", 0_i64)
            .with("told_in_time", true);
        let verdict = allowed(law, &act)?;
        self.closed = Some(Closed { at: now, granted: false });
        Ok(verdict.rules)
    }
}

fn answer_request(fee: i64) -> Act {
    Act::new(Action::AnswerRequest)
        .with("fee", fee)
        .with("identity_asked", false)
        .with("doubt_reason", false)
        .with("identity_copied", false)
}
