//! What people do beside the reader: requests with their clocks, legal holds, breaches. The pack
//! decides here too.

use crate::{
    Law, Pack,
    deadline::Calendar,
    pack::{Act, Action, Verdict},
};
use palmgate_protocol::{DAY, Timestamp};

/// What a person can ask for in writing (GDPR Art. 15 to 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Access and a copy (Art. 15).
    Access,
    /// Correction, by enrolling anew (Art. 16).
    Rectification,
    /// Erasure (Art. 17).
    Erasure,
    /// Restriction (Art. 18).
    Restriction,
    /// What was provided, to take along (Art. 20).
    Portability,
    /// Objection (Art. 21).
    Objection,
}

/// A request and its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: RequestKind,
    /// When it came in.
    pub received: Timestamp,
    /// Months more, once the person was told why.
    months_more: i64,
    closed: Option<Timestamp>,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        Self { kind, received, months_more: 0, closed: None }
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

    /// Takes up to two months more.
    ///
    /// # Errors
    /// The pack's denial: too long, without reasons, or told too late.
    pub fn extend(
        &mut self,
        law: &Law,
        months: u8,
        reasons: &str,
        told: Timestamp,
    ) -> Result<(), Box<Verdict>> {
        let act = answer_request(0)
            .with("refused", false)
            .with("reasons", !reasons.trim().is_empty())
            .with("complaint_route", false)
            .with("months_more", months)
            .with("told_in_time", self.closed.is_none() && told < self.due(law.pack()));
        allowed(law, &act)?;
        self.months_more = months.into();
        Ok(())
    }

    /// Closes it as granted.
    ///
    /// # Errors
    /// The pack's denial: a fee was asked for.
    pub fn grant(&mut self, law: &Law, fee: i64, now: Timestamp) -> Result<(), Box<Verdict>> {
        // Months that were taken before were taken with reasons.
        let act = answer_request(fee)
            .with("refused", false)
            .with("reasons", false)
            .with("complaint_route", false)
            .with("months_more", 0_i64)
            .with("told_in_time", true);
        allowed(law, &act)?;
        self.closed = Some(now);
        Ok(())
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
    ) -> Result<(), Box<Verdict>> {
        let act = answer_request(0)
            .with("refused", true)
            .with("reasons", !explanation.reasons.trim().is_empty())
            .with("complaint_route", !explanation.complaint_route.trim().is_empty())
            .with("months_more", 0_i64)
            .with("told_in_time", true);
        allowed(law, &act)?;
        self.closed = Some(now);
        Ok(())
    }
}

fn answer_request(fee: i64) -> Act {
    Act::new(Action::AnswerRequest)
        .with("fee", fee)
        .with("identity_asked", false)
        .with("doubt_reason", false)
        .with("identity_copied", false)
}

fn allowed(law: &Law, act: &Act) -> Result<(), Box<Verdict>> {
    let verdict = law.decide(act);
    if verdict.allowed { Ok(()) } else { Err(Box::new(verdict)) }
}

/// Keeps records from being erased for a claim or a duty (GDPR Art. 17(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    items: Vec<String>,
    article: String,
    ends: Timestamp,
    signed_by: [String; 2],
}

impl Hold {
    /// Places a hold on kinds of data, named as in the retention table.
    ///
    /// # Errors
    /// The pack's denial: another article, no end or one too far, one signature, or anything
    /// biometric.
    pub fn place(
        law: &Law,
        items: &[&'static str],
        article: &str,
        ends: Timestamp,
        signed_by: [String; 2],
        now: Timestamp,
    ) -> Result<Self, Box<Verdict>> {
        let [one, other] = signed_by.each_ref().map(|name| name.trim());
        let act = Act::new(Action::Hold)
            .with("now", now.as_millis())
            .with("items", items.to_vec())
            .with("article", article.to_owned())
            .with("ends", ends.as_millis())
            .with("signed", !one.is_empty() && !other.is_empty() && one != other);
        allowed(law, &act)?;
        let items = items.iter().map(|item| (*item).to_owned()).collect();
        Ok(Self { items, article: article.into(), ends, signed_by })
    }

    /// Whether the hold keeps this kind of data now.
    pub fn keeps(&self, item: &str, now: Timestamp) -> bool {
        now < self.ends && self.items.iter().any(|held| held == item)
    }

    /// The article it rests on.
    pub fn article(&self) -> &str {
        &self.article
    }

    /// Who signed.
    pub const fn signed_by(&self) -> &[String; 2] {
        &self.signed_by
    }
}

/// A breach and its clock (GDPR Art. 33).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breach {
    /// When somebody became aware of it: the first alarm that was acknowledged.
    pub aware: Option<Timestamp>,
    /// Art. 33(3)(a): its nature, kinds and numbers of people and records.
    pub nature: String,
    /// Art. 33(3)(b): name and contact of the data protection officer.
    pub contact: String,
    /// Art. 33(3)(c): its likely consequences.
    pub consequences: String,
    /// Art. 33(3)(d): measures taken or proposed.
    pub measures: String,
    /// Why it is reported late, if it is (Art. 33(1)).
    pub delay_reasons: String,
}

impl Breach {
    /// The first moment at which the report is late; `None` before somebody is aware.
    pub fn due(&self, pack: &Pack) -> Option<Timestamp> {
        let hours = pack.number("breach_hours").map_or(72, |number| number.value);
        self.aware.map(|aware| Calendar::new(pack).hours_after(aware, hours))
    }

    /// The fields of Art. 33(3) that a report at `now` still lacks.
    pub fn missing(&self, pack: &Pack, now: Timestamp) -> Vec<&'static str> {
        let late = self.due(pack).is_some_and(|due| now >= due);
        let fields = [
            ("nature", &self.nature, true),
            ("contact", &self.contact, true),
            ("consequences", &self.consequences, true),
            ("measures", &self.measures, true),
            ("reasons for the delay", &self.delay_reasons, late),
        ];
        let lacks = |(_, text, wanted): &(_, &String, bool)| *wanted && text.trim().is_empty();
        fields.into_iter().filter(lacks).map(|(name, ..)| name).collect()
    }
}
