use crate::{Pack, deadline::Calendar};
use minicbor::{Decode, Encode};
use palmgate_protocol::Timestamp;

/// A breach and its clock (GDPR Art. 33).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Breach {
    /// When somebody became aware of it: the first alarm that was acknowledged.
    #[n(0)]
    pub aware: Option<Timestamp>,
    /// Art. 33(3)(a): its nature, kinds and numbers of people and records.
    #[n(1)]
    pub nature: String,
    /// Art. 33(3)(b): name and contact of the data protection officer.
    #[n(2)]
    pub contact: String,
    /// Art. 33(3)(c): its likely consequences.
    #[n(3)]
    pub consequences: String,
    /// Art. 33(3)(d): measures taken or proposed.
    #[n(4)]
    pub measures: String,
    /// Why it is reported late, if it is (Art. 33(1)).
    #[n(5)]
    pub delay_reasons: String,
    /// When it was reported to the authority.
    #[n(6)]
    pub reported: Option<Timestamp>,
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
