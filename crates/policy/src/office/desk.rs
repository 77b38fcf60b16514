//! The office's state, and what can be done with it.

use super::{Breach, Explanation, Hold, MAX_TEXT_BYTES, Request, RequestKind, Scope, Urgency};
use crate::{
    Citation, Law, Review, Rule,
    deadline::Calendar,
    looks_like_card_number,
    pack::{Act, Action, Verdict},
    rules,
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{DAY, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests, breaches and holds at once.
const MAX_ENTRIES: usize = 10_000;
/// A letter or a breach is entered at most this long after it came.
const OLDEST: std::time::Duration = std::time::Duration::from_hours(24 * 366);

/// Requests, breaches, holds and duties of a store. Holds no name, and no data of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Desk {
    #[n(0)]
    last: u64,
    #[n(1)]
    requests: BTreeMap<u64, Request>,
    #[n(2)]
    breaches: BTreeMap<u64, Breach>,
    #[n(3)]
    holds: BTreeMap<u64, Hold>,
    #[n(4)]
    duties: BTreeMap<Duty, Timestamp>,
    /// When the store began: duties that were never done count from here.
    #[n(5)]
    since: Option<Timestamp>,
}

/// Something that has to be done again and again, with the date of the last time on record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// A backup was restored for practice.
    #[n(0)]
    RestoreDrill,
    /// Security was tested.
    #[n(1)]
    SecurityTest,
    /// The people who work with the system were trained.
    #[n(2)]
    Training,
}

/// What the office does. Times are milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OfficeAct {
    /// A request of a person came in.
    OpenRequest {
        /// What is asked for.
        kind: RequestKind,
        /// When it came in.
        received: i64,
        /// How the office files the letter.
        reference: String,
    },
    /// Months more are taken, and the person is told why.
    ExtendRequest {
        /// Which.
        id: u64,
        /// How many.
        months: u8,
        /// Why.
        reasons: String,
    },
    /// More proof of identity is asked for.
    AskIdentity {
        /// For which request.
        id: u64,
        /// The reasonable doubt.
        doubt: String,
    },
    /// A request was answered as asked.
    GrantRequest {
        /// Which.
        id: u64,
    },
    /// A request is refused.
    RefuseRequest {
        /// Which.
        id: u64,
        /// Why.
        reasons: String,
    },
    /// Somebody became aware of a breach.
    OpenBreach {
        /// When.
        aware: i64,
        /// What happened.
        nature: String,
    },
    /// More is known; empty texts leave what is there.
    DescribeBreach {
        /// Which.
        id: u64,
        /// Art. 33(3)(a).
        nature: String,
        /// Art. 33(3)(b).
        contact: String,
        /// Art. 33(3)(c).
        consequences: String,
        /// Art. 33(3)(d).
        measures: String,
        /// Art. 33(1).
        delay_reasons: String,
    },
    /// The authority was told.
    ReportBreach {
        /// Of which.
        id: u64,
    },
    /// A legal hold is placed.
    PlaceHold {
        /// Kinds of data, as in the retention table.
        items: Vec<String>,
        /// Article, as `17(3)(e)`.
        article: String,
        /// Its end.
        ends: i64,
        /// Two different people.
        signed_by: [String; 2],
        /// What it is about.
        scope: Scope,
    },
    /// A hold ends early.
    EndHold {
        /// Which.
        id: u64,
    },
    /// A duty was done.
    RecordDuty {
        /// Which.
        duty: Duty,
        /// When.
        done: i64,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted {
    /// The request, breach or hold; 0 for a duty.
    pub id: u64,
    /// A word for the ledger.
    pub word: &'static str,
    /// The rules behind it.
    pub rules: Vec<Rule>,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The law pack denies it.
    #[error("{}", lines(.0))]
    Law(Vec<Citation>),
    /// There is none with this number.
    #[error("there is no {0} {1}: `list` shows what there is")]
    Unknown(&'static str, u64),
    /// It has ended already.
    #[error("{0} {1} is closed already")]
    Closed(&'static str, u64),
    /// The report lacks something.
    #[error("the report lacks {} (rule G-33, GDPR Art. 33(3))", .0.join(", "))]
    Incomplete(Vec<&'static str>),
    /// A text is too long, or empty where one is needed.
    #[error("{0}")]
    Text(&'static str),
    /// A text looks like a card number.
    #[error("a text looks like a card number (rule P-PCI-1): leave it out")]
    CardNumber,
    /// A date is to come, or too long ago.
    #[error("{0} lies in the future or more than a year back: correct the date")]
    Date(&'static str),
    /// No more fit.
    #[error("{MAX_ENTRIES} entries are open: close some first")]
    Full,
}

fn lines(citations: &[Citation]) -> String {
    citations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What the desk cannot know by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outside {
    /// When the oldest erasure was decided that a recipient has not confirmed.
    pub unconfirmed_since: Option<Timestamp>,
    /// When the keys were last changed.
    pub keys_changed: Option<Timestamp>,
    /// When the impact assessment was signed.
    pub assessed: Option<Timestamp>,
    /// A reader is under a burst of attempts.
    pub attack_burst: bool,
}

impl Desk {
    /// The desk of a store that begins at `now`, or goes on.
    pub fn begin(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }

    /// Requests by number, open and closed.
    pub fn requests(&self) -> impl Iterator<Item = (u64, &Request)> {
        self.requests.iter().map(|(id, request)| (*id, request))
    }

    /// Breaches by number.
    pub fn breaches(&self) -> impl Iterator<Item = (u64, &Breach)> {
        self.breaches.iter().map(|(id, breach)| (*id, breach))
    }

    /// Holds by number.
    pub fn holds(&self) -> impl Iterator<Item = (u64, &Hold)> {
        self.holds.iter().map(|(id, hold)| (*id, hold))
    }

    /// When a duty was last done.
    pub fn done(&self, duty: Duty) -> Option<Timestamp> {
        self.duties.get(&duty).copied()
    }

    /// Does what the office asks for, as far as the pack allows.
    ///
    /// # Errors
    /// [`Denied`] says why not; nothing is changed then.
    pub fn act(&mut self, law: &Law, act: OfficeAct, now: Timestamp) -> Result<Acted, Denied> {
        match act {
            OfficeAct::OpenRequest { kind, received, reference } => {
                self.open_request(law, kind, received, reference, now)
            }
            OfficeAct::ExtendRequest { id, months, reasons } => {
                text(&reasons)?;
                let request = self.open(id)?;
                let rules = request.extend(law, months, &reasons, now);
                Ok(acted(id, "request-extended", rules.map_err(by(law))?))
            }
            OfficeAct::AskIdentity { id, doubt } => {
                text(&doubt)?;
                self.open(id)?;
                let rules = Request::ask_identity(law, &doubt).map_err(by(law))?;
                Ok(acted(id, "identity-asked", rules))
            }
            OfficeAct::GrantRequest { id } => {
                let rules = self.open(id)?.grant(law, 0, now).map_err(by(law))?;
                Ok(acted(id, "request-granted", rules))
            }
            OfficeAct::RefuseRequest { id, reasons } => {
                text(&reasons)?;
                let complaint_route = law.pack().top().authority.url.clone();
                let explanation = Explanation { reasons, complaint_route };
                let rules = self.open(id)?.refuse(law, &explanation, now).map_err(by(law))?;
                Ok(acted(id, "request-refused", rules))
            }
            OfficeAct::OpenBreach { aware, nature } => self.open_breach(aware, nature, now),
            OfficeAct::DescribeBreach { .. } => self.describe_breach(act),
            OfficeAct::ReportBreach { id } => self.report_breach(law, id, now),
            OfficeAct::PlaceHold { items, article, ends, signed_by, scope } => {
                signed_by.iter().chain(&items).chain([&article]).try_for_each(|one| text(one))?;
                let ends = Timestamp::from_millis(ends);
                let hold = Hold::place(law, &items, &article, ends, signed_by, now);
                let hold = hold.map_err(by(law))?.about(scope);
                let (id, rules) = (self.number()?, hold.rules());
                self.holds.insert(id, hold);
                Ok(acted(id, "hold-placed", rules))
            }
            OfficeAct::EndHold { id } => {
                let ended = self.holds.remove(&id).ok_or(Denied::Unknown("hold", id))?;
                Ok(acted(id, "hold-ended", ended.rules()))
            }
            OfficeAct::RecordDuty { duty, done } => {
                let done = moment(done, now, "the date")?;
                self.duties.insert(duty, done);
                Ok(acted(0, "duty-recorded", vec![rules::G_05_2]))
            }
        }
    }

    fn open_request(
        &mut self,
        law: &Law,
        kind: RequestKind,
        received: i64,
        reference: String,
        now: Timestamp,
    ) -> Result<Acted, Denied> {
        text(&reference)?;
        if reference.trim().is_empty() {
            return Err(Denied::Text("a request needs a reference, so that its letter is found"));
        }
        let received = moment(received, now, "the day on which it came in")?;
        let id = self.number()?;
        let mut request = Request::new(kind, received);
        request.reference = reference;
        let rules = request.clone().grant(law, 0, now).map_err(by(law))?;
        self.requests.insert(id, request);
        Ok(acted(id, "request-opened", rules))
    }

    fn open(&mut self, id: u64) -> Result<&mut Request, Denied> {
        let request = self.requests.get_mut(&id).ok_or(Denied::Unknown("request", id))?;
        if request.closed().is_some() { Err(Denied::Closed("request", id)) } else { Ok(request) }
    }

    fn open_breach(&mut self, aware: i64, nature: String, now: Timestamp) -> Result<Acted, Denied> {
        text(&nature)?;
        let aware = Some(moment(aware, now, "the moment of becoming aware")?);
        let id = self.number()?;
        self.breaches.insert(id, Breach { aware, nature, ..Breach::default() });
        Ok(acted(id, "breach-opened", vec![rules::G_33]))
    }

    fn describe_breach(&mut self, act: OfficeAct) -> Result<Acted, Denied> {
        let OfficeAct::DescribeBreach {
            id,
            nature,
            contact,
            consequences,
            measures,
            delay_reasons,
        } = act
        else {
            return Err(Denied::Text("no description"));
        };
        let texts = [&nature, &contact, &consequences, &measures, &delay_reasons];
        texts.into_iter().try_for_each(|one| text(one))?;
        let breach = self.breaches.get_mut(&id).ok_or(Denied::Unknown("breach", id))?;
        let fields = [
            (&mut breach.nature, nature),
            (&mut breach.contact, contact),
            (&mut breach.consequences, consequences),
            (&mut breach.measures, measures),
            (&mut breach.delay_reasons, delay_reasons),
        ];
        for (field, said) in fields {
            if !said.trim().is_empty() {
                *field = said;
            }
        }
        Ok(acted(id, "breach-described", vec![rules::G_33]))
    }

    fn report_breach(&mut self, law: &Law, id: u64, now: Timestamp) -> Result<Acted, Denied> {
        let breach = self.breaches.get_mut(&id).ok_or(Denied::Unknown("breach", id))?;
        if breach.reported.is_some() {
            return Err(Denied::Closed("breach", id));
        }
        let missing = breach.missing(law.pack(), now);
        if !missing.is_empty() {
            return Err(Denied::Incomplete(missing));
        }
        breach.reported = Some(now);
        Ok(acted(id, "breach-reported", vec![rules::G_33]))
    }

    fn number(&mut self) -> Result<u64, Denied> {
        if self.requests.len() + self.breaches.len() + self.holds.len() >= MAX_ENTRIES {
            return Err(Denied::Full);
        }
        self.last += 1;
        Ok(self.last)
    }

    /// Drops what is past its term and under no hold; whether anything was.
    pub fn sweep(&mut self, law: &Law, now: Timestamp) -> bool {
        let before = (self.requests.len(), self.breaches.len(), self.holds.len());
        self.holds.retain(|_, hold| now < hold.ends());
        let held = |item: &str| self.holds.values().any(|hold| hold.keeps(item, now));
        let (requests, breaches) = (held("rights-request"), held("breach-register"));
        self.requests.retain(|_, request| {
            let closed = request.closed().map(|closed| closed.at);
            requests || closed.is_none_or(|at| keep(law, "rights-request", at, now))
        });
        self.breaches.retain(|_, breach| {
            breaches || breach.reported.is_none_or(|at| keep(law, "breach-register", at, now))
        });
        before != (self.requests.len(), self.breaches.len(), self.holds.len())
    }

    /// What the daily look finds.
    pub fn review(&self, law: &Law, outside: &Outside, now: Timestamp) -> Review {
        let (pack, calendar) = (law.pack(), Calendar::new(law.pack()));
        let began = self.since.unwrap_or(now);
        let days = |from: Timestamp| calendar.days_between(from, now);
        let hours = |from: Timestamp| (now.since(from).as_secs().div_ceil(3_600)).cast_signed();
        let unreported = self.breaches.values().filter(|breach| breach.reported.is_none());
        let trained = self.done(Duty::Training);
        Review {
            request_overdue: self
                .requests
                .values()
                .any(|request| request.urgency(pack, now) == Urgency::Late),
            breach_hours: unreported.filter_map(|breach| breach.aware).min().map_or(0, hours),
            acknowledgement_hours: outside.unconfirmed_since.map_or(0, hours),
            key_days: days(outside.keys_changed.unwrap_or(now)),
            restore_drill_days: days(self.done(Duty::RestoreDrill).unwrap_or(began)),
            security_test_days: days(self.done(Duty::SecurityTest).unwrap_or(began)),
            dpia_days: outside.assessed.map_or(0, days),
            roaming_notice_due: false,
            attack_burst: outside.attack_burst,
            // A month to train whoever opens a store.
            training_recorded: trained.is_some() || now.since(began) < 31 * DAY,
        }
    }
}

/// Whether the pack still lets something be kept that counts from `from`.
fn keep(law: &Law, item: &'static str, from: Timestamp, now: Timestamp) -> bool {
    let term = law.pack().retention().iter().find(|term| term.item == item);
    let Some(term) = term else { return false };
    let ends = Calendar::new(law.pack()).gone_by(term, from);
    let act = Act::new(Action::Keep)
        .with("item", item)
        .with("now", now.as_millis())
        .with("ends", ends.as_millis())
        .with("basis", true);
    now < ends && law.decide(&act).allowed
}

const fn acted(id: u64, word: &'static str, rules: Vec<Rule>) -> Acted {
    Acted { id, word, rules }
}

fn by(law: &Law) -> impl Fn(Box<Verdict>) -> Denied {
    |verdict| Denied::Law(law.citations(&verdict))
}

fn text(text: &str) -> Result<(), Denied> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Denied::Text("a text has 4,000 bytes at most"));
    }
    if looks_like_card_number(text.as_bytes()) {
        return Err(Denied::CardNumber);
    }
    Ok(())
}

fn moment(millis: i64, now: Timestamp, what: &'static str) -> Result<Timestamp, Denied> {
    let at = Timestamp::from_millis(millis);
    if at > now || now.since(at) > OLDEST { Err(Denied::Date(what)) } else { Ok(at) }
}
