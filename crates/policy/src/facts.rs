//! What the engine knows, in the words of the law pack's schema.

use crate::{
    CaptureFacts, ClaimPresented, Engine, EnrolmentFacts, Origin, Profile, RecordFacts, ScanFacts,
    Sensor, Settings,
    pack::{Act, Action, StoreFacts, custody_type},
    scan::ScanWork,
};
use palmgate_protocol::{
    Hand, Purpose, PurposeSet, Timestamp,
    terminal::{Age, Intent},
};

/// The end of time: what has no lease of its own.
const NEVER: i64 = i64::MAX;
/// A release is signed at the reader, just before the captures.
const RELEASE_LIFETIME: std::time::Duration = std::time::Duration::from_mins(30);

/// What a comparison knows of the person whose reference was used.
pub(crate) struct PersonFacts {
    consent_ends: i64,
    authorisation: Option<(i64, String)>,
    paused: bool,
    record_ends: i64,
    lease_ends: i64,
}

impl PersonFacts {
    /// Of a record that stays with its ticket.
    pub(crate) fn of_record(record: &RecordFacts, purpose: Purpose) -> Self {
        let consents = record.consents.iter().filter(|consent| consent.purpose == purpose);
        Self {
            consent_ends: consents.map(|c| c.expires_at.as_millis()).max().unwrap_or(0),
            authorisation: None,
            paused: false,
            record_ends: record.expires_at.as_millis(),
            lease_ends: NEVER,
        }
    }
}

impl Settings {
    /// What these settings say to the pack's rules.
    pub fn store_facts(&self) -> StoreFacts {
        let whole = |value: u128| i64::try_from(value).unwrap_or(i64::MAX);
        StoreFacts {
            production: self.production,
            purposes: self.purposes,
            custody: self.custody,
            escalation: self.escalation,
            zones: self.zones.clone(),
            chosen: vec![
                ("payment", whole(self.payment_limit.into())),
                ("tries", self.tries.into()),
                ("clock_skew_ms", whole(self.clock_skew.as_millis())),
            ],
        }
    }
}

impl Engine {
    fn lease_ends(&self, person: &Profile) -> i64 {
        match person.origin {
            Origin::Store => NEVER,
            Origin::Cloud => self.lease_until.map_or(0, Timestamp::as_millis),
        }
    }

    pub(crate) fn person_facts(&self, person: &Profile, purpose: Purpose) -> PersonFacts {
        let consents = person.consents.iter().filter(|consent| consent.purpose == purpose);
        let authorisation = person.authorisation.as_ref();
        let authorisation = authorisation.filter(|_| purpose == Purpose::Staff);
        PersonFacts {
            consent_ends: consents.map(|c| c.expires_at.as_millis()).max().unwrap_or(0),
            authorisation: authorisation.map(|given| (given.until.as_millis(), given.zone.clone())),
            paused: person.paused,
            record_ends: person.expires_at.as_millis(),
            lease_ends: self.lease_ends(person),
        }
    }

    pub(crate) fn capture_act(&self, scan: &ScanFacts, now: Timestamp) -> Act {
        let claim = match &scan.claim {
            ClaimPresented::Valid(claim) => Some(claim),
            _ => None,
        };
        let word = match &scan.claim {
            ClaimPresented::None => "none",
            ClaimPresented::Invalid => "invalid",
            ClaimPresented::Valid(_) => "valid",
        };
        let purpose = scan.intent.purpose();
        let terminal = self.terminals.get(&scan.terminal);
        // A right can be exercised at every terminal; a purpose only where it is served.
        let serves = terminal.is_some_and(|terminal| {
            purpose.is_none_or(|purpose| terminal.facts.purposes.contains(purpose))
        });
        let known = claim.and_then(|claim| self.claims.get(&claim.handle));
        let known = known.and_then(|member| self.people.get(member));
        let live = known.map(|person| person.purposes(now)).unwrap_or_default();
        let claim_tries = claim.and_then(|claim| self.tries.get(&claim.handle));
        let (amount, payee_shown) = match &scan.intent {
            Intent::Pay(payment) => {
                (payment.minor_units, !payment.payee.is_empty() && payment.currency.len() == 3)
            }
            _ => (0, false),
        };
        Act::new(Action::Capture)
            .with("now", now.as_millis())
            .with("purpose", purpose.map_or("right", Purpose::as_str))
            .with("clock_off_ms", millis(scan.at.distance(now)))
            .with("terminal_serves", serves)
            .with("frames", scan.frames)
            .with("amount", amount)
            .with("payee_shown", payee_shown)
            .with("zone", zone(&scan.intent))
            .with("claim", word)
            .with("claim_type", claim.map_or(0, |claim| custody_type(claim.custody)))
            .with("claim_ends", claim.map_or(0, |claim| claim.expires_at.as_millis()))
            .with("claim_tries", claim_tries.map_or(0, |tries| self.recent(*tries, now)))
            .with("reader_tries", terminal.map_or(0, |known| self.recent(known.tries, now)))
            .with("known", known.is_some())
            .with("paused", known.is_some_and(|person| person.paused))
            .with("lease_ends", known.map_or(NEVER, |person| self.lease_ends(person)))
            .with("live", live.iter().map(Purpose::as_str).collect::<Vec<_>>())
            .with("card_number", scan.card_number)
            .with("authenticated", scan.authenticated)
            .with("possession", scan.possession.as_str())
    }

    /// `purposes` are those that the captures are for: none where the person exercises a right.
    pub(crate) fn compare_act(
        facts: CaptureFacts,
        needed: f32,
        sensor: Sensor,
        purposes: PurposeSet,
    ) -> Act {
        let millionths = |value: f32| (f64::from(value) * 1e6) as i64;
        Act::new(Action::Compare)
            .with("liveness", millionths(facts.liveness))
            .with("liveness_needed", millionths(needed))
            .with("multispectral", facts.multispectral)
            .with("sensor", sensor.as_str())
            .with("purposes", purposes.iter().map(Purpose::as_str).collect::<Vec<_>>())
    }

    /// `above` says whether the score reached the purpose's threshold, `rivals` how many other
    /// people did.
    pub(crate) fn recognise_act(
        scan: &ScanWork,
        purpose: Purpose,
        person: &PersonFacts,
        spent: (u64, u64),
        rivals: usize,
        now: Timestamp,
    ) -> Act {
        let authorised = person.authorisation.as_ref();
        let amount = match &scan.intent {
            Intent::Pay(payment) => payment.minor_units,
            _ => 0,
        };
        Act::new(Action::Recognise)
            .with("now", now.as_millis())
            .with("purpose", purpose.as_str())
            .with("right", scan.intent.purpose().is_none())
            .with("above_threshold", true)
            .with("rivals", rivals)
            .with("consent_ends", person.consent_ends)
            .with("authorisation_ends", authorised.map_or(0, |(until, _)| *until))
            .with("authorised_zone", authorised.map_or(String::new(), |(_, zone)| zone.clone()))
            .with("zone", zone(&scan.intent))
            .with("paused", person.paused)
            .with("record_ends", person.record_ends)
            .with("lease_ends", person.lease_ends)
            .with("amount", amount)
            .with("spent_total", spent.0)
            .with("spent_count", spent.1)
    }

    pub(crate) fn escalate_act(&self, roaming: bool, asked: bool) -> Act {
        Act::new(Action::Escalate)
            .with("claim", "valid")
            .with("roaming", roaming)
            .with("asked", asked)
            .with("region", self.settings.region.clone())
    }

    pub(crate) fn adopt_act(
        &self,
        record: &RecordFacts,
        claimed: bool,
        leased: bool,
        now: Timestamp,
    ) -> Act {
        let mut consents = record.consents.iter();
        let roams = consents.any(|c| c.purpose == Purpose::Roaming && now < c.expires_at);
        Act::new(Action::Adopt)
            .with("roaming_live", roams)
            .with("record_live", now < record.expires_at)
            .with("lease_live", leased)
            .with("erased", self.erasing.contains_key(&record.member))
            .with("claimed", claimed)
    }

    pub(crate) fn enrol_act(&self, facts: &EnrolmentFacts, already: bool, now: Timestamp) -> Act {
        let consents = || facts.consents.iter();
        let confirmed = consents().all(|c| c.confirmed && c.purpose != Purpose::Staff);
        let consented = consents().map(|c| c.purpose).filter(|p| *p != Purpose::Staff);
        let authorised = facts.authorisation.as_ref();
        let of = |hand| facts.captures.iter().filter(|capture| **capture == hand).count();
        let (age, guardian): (i64, bool) = match facts.age {
            Age::Adult => (18, false),
            Age::From15To17 => (15, false),
            Age::Under15WithGuardian => (0, true),
            Age::Under15 => (0, false),
        };
        let enrols = self.terminals.get(&facts.terminal).is_some_and(|known| known.facts.enrols);
        Act::new(Action::Enrol)
            .with("clock_off_ms", millis(facts.at.distance(now)))
            .with("terminal_enrols", enrols)
            .with("consented", consented.map(Purpose::as_str).collect::<Vec<_>>())
            .with("all_confirmed", confirmed)
            .with("notice_current", consents().all(|c| c.notice == self.settings.notice))
            .with("language_known", consents().all(|c| !c.language.is_empty()))
            .with("staff_authorised", authorised.is_some())
            .with("zone", authorised.map_or(String::new(), |given| given.zone.clone()))
            .with("age", age)
            .with("guardian", guardian)
            .with("captures", facts.captures.len())
            .with("captures_of_one_hand", of(Hand::Left).max(of(Hand::Right)))
            .with("frames", facts.frames)
            .with("card_token", facts.card_token)
            .with("card_number", facts.card_number)
            .with("already", already)
            .with("written_release", Self::released(facts))
    }

    /// A release counts when it is signed, complete and of this moment.
    fn released(facts: &EnrolmentFacts) -> bool {
        facts.release.is_some_and(|release| {
            release.named
                && release.complete
                && release.signed_at <= facts.at
                && facts.at.since(release.signed_at) <= RELEASE_LIFETIME
        })
    }

    pub(crate) fn disclose_act(items: Vec<&'static str>, sealed: bool) -> Act {
        Act::new(Action::Disclose)
            .with("recipient", "subject")
            .with("region", "")
            .with("items", items)
            .with("contract", false)
            .with("sealed_to_subject", sealed)
            .with("others", false)
            .with("paid", false)
            .with("process", false)
    }

    pub(crate) fn exercise_act(right: &'static str) -> Act {
        Act::new(Action::Exercise).with("right", right)
    }

    pub(crate) fn answer_act(purpose: Purpose, pays: bool, objected: bool) -> Act {
        let mut fields =
            if pays { vec!["pseudonym", "card-token", "assertion"] } else { vec!["pseudonym"] };
        if objected {
            fields.push("objection");
        }
        Act::new(Action::Answer).with("purpose", purpose.as_str()).with("fields", fields)
    }

    pub(crate) fn keep_act(person: &Profile, basis: bool, staff: bool, now: Timestamp) -> Act {
        Act::new(Action::Keep)
            .with("item", if staff { "staff-template" } else { "template" })
            .with("now", now.as_millis())
            .with("ends", person.expires_at.as_millis())
            .with("basis", basis)
    }
}

fn zone(intent: &Intent) -> String {
    match intent {
        Intent::Staff { zone } => zone.clone(),
        _ => String::new(),
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
