//! Whether a store may open: the gates before any data.

use crate::{
    Law, Rule, STORED,
    pack::{Act, Action, Texts, Verdict},
};
use palmgate_protocol::Purpose;

/// What is known of a store before it opens. The default is a store on a developer's desk that
/// declared nothing: it may open, and a production store may not.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a declaration of its own")]
pub struct Opening {
    /// The pack is built in, or its two signatures hold.
    pub pack_verified: bool,
    /// The clock was confirmed by a signed or trusted time.
    pub clock_trusted: bool,
    /// Name and contact of the controller are declared.
    pub controller: bool,
    /// `controller`, `joint` or `processor`.
    pub role: &'static str,
    /// The arrangement of joint controllers is on file.
    pub arrangement: bool,
    /// `private`, or `state`.
    pub tenant: &'static str,
    /// Items of Art. 13 that the notice lacks.
    pub notice_missing: Vec<String>,
    /// Purposes without a written need.
    pub purposes_without_need: Vec<String>,
    /// Kinds of data that are stored, beyond [`STORED`].
    pub stored: Vec<String>,
    /// Another way is declared.
    pub fallback: bool,
    /// At the same price, without a longer wait.
    pub fallback_free: bool,
    /// Regions that data is sent to.
    pub egress: Vec<String>,
    /// Processors without a contract on file.
    pub processors_without_contract: Vec<String>,
    /// The impact assessment: days since it was signed, if its hash is on file.
    pub dpia_days: Option<i64>,
    /// It covers custody, thresholds and vendors in use.
    pub dpia_covers: bool,
    /// The data protection officer's opinion is in it.
    pub dpo_opinion: bool,
    /// Its residual risk is high.
    pub residual_risk_high: bool,
    /// The authority's answer is on file.
    pub authority_answer: bool,
    /// The exception for `operator` custody, if there is one.
    pub dossier: Option<Dossier>,
    /// The AI Act classification is on file.
    pub classification: bool,
    /// What is read: `palm`.
    pub sensor: &'static str,
    /// Zones without a written need.
    pub zones_without_reason: Vec<String>,
    /// The works council was consulted.
    pub works_council: bool,
    /// Where decisions are sent: `working-time`, `personnel`, `payroll` or others.
    pub event_feeds: Vec<String>,
    /// Named administrators.
    pub administrators: i64,
    /// A key is the one that the product came with.
    pub default_keys: bool,
    /// Age of the oldest key.
    pub key_days: i64,
    /// A price, points or advantage depends on the palm.
    pub reward_for_palm: bool,
    /// Steps to withdraw and to enrol at the reader.
    pub steps: (i64, i64),
    /// Several purposes share a consent screen.
    pub consent_screens_bundled: bool,
    /// A token that can be copied is offered as strong authentication.
    pub card_tokens_copyable: bool,
    /// Measured figures, from reports that belong to the models in use.
    pub measured: Option<Measured>,
    /// People in the largest search.
    pub shard_people: i64,
    /// The longest lease that the cloud grants.
    pub lease_hours: i64,
    /// The sign hangs at the entrance.
    pub sign: bool,
    /// The retention policy is public.
    pub public_policy: bool,
    /// The software is a signed release.
    pub signed_release: bool,
}

/// The exception for `operator` custody.
#[derive(Clone, Debug)]
pub struct Dossier {
    /// Why neither type 1 nor type 2 will do.
    pub reasons: bool,
    /// Signatures of different people.
    pub signatures: i64,
    /// Days that it still holds.
    pub days: i64,
}

/// Figures of accuracy and liveness reports.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Upper end of the 95 % interval of the false match rate to pay, per billion.
    pub false_match_per_billion: i64,
    /// False positives of a search that the strictest purpose served tolerates, per million.
    pub false_positive_per_million: i64,
    /// Worst attack presentation classification error, per thousand.
    pub apcer_permille: i64,
    /// Bona fide presentation classification error, per thousand.
    pub bpcer_permille: i64,
    /// Global linkability of two applications, per thousand.
    pub linkability_permille: i64,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            pack_verified: true,
            clock_trusted: true,
            controller: false,
            role: "controller",
            arrangement: false,
            tenant: "private",
            notice_missing: Vec::new(),
            purposes_without_need: Vec::new(),
            stored: Vec::new(),
            fallback: true,
            fallback_free: true,
            egress: Vec::new(),
            processors_without_contract: Vec::new(),
            dpia_days: None,
            dpia_covers: false,
            dpo_opinion: false,
            residual_risk_high: false,
            authority_answer: false,
            dossier: None,
            classification: false,
            sensor: "palm",
            zones_without_reason: Vec::new(),
            works_council: false,
            event_feeds: Vec::new(),
            administrators: 0,
            default_keys: false,
            key_days: 0,
            reward_for_palm: false,
            steps: (2, 4),
            consent_screens_bundled: false,
            card_tokens_copyable: false,
            measured: None,
            shard_people: 0,
            lease_hours: 0,
            sign: false,
            public_policy: false,
            signed_release: false,
        }
    }
}

/// Why a store may not open, as a sentence with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// The rule.
    pub rule: Rule,
    /// Its source.
    pub cite: String,
    /// In plain words.
    pub text: Texts,
}

impl std::fmt::Display for Citation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule {} ({}): {}", self.rule, self.cite, self.text.en)
    }
}

impl Law {
    /// Everything that keeps the store from opening, each with its rule; nothing when it may.
    pub fn refusals(&self, opening: &Opening) -> Vec<Citation> {
        self.citations(&self.decide(&self.start_act(opening)))
    }

    fn start_act(&self, opening: &Opening) -> Act {
        let terms = self.pack().retention();
        let has_term = |item: &String| terms.iter().any(|term| term.item == *item);
        let staff = self.purposes().contains(Purpose::Staff);
        let here = |item: &&&str| staff || !["staff-template", "authorisation"].contains(*item);
        let stored = STORED.iter().filter(here).map(|item| (*item).to_owned());
        let stored = stored.chain(opening.stored.iter().cloned());
        let (dossier, measured) = (opening.dossier.as_ref(), opening.measured.as_ref());
        let basisless = self.pack().without_basis(self.purposes());
        Act::new(Action::Start)
            .with("pack_verified", opening.pack_verified)
            .with("clock_trusted", opening.clock_trusted)
            .with("controller", opening.controller)
            .with("role", opening.role)
            .with("arrangement", opening.arrangement)
            .with("tenant", opening.tenant)
            .with("notice_missing", opening.notice_missing.clone())
            .with("purposes_without_basis", basisless.map(Purpose::as_str).collect::<Vec<_>>())
            .with("purposes_without_need", opening.purposes_without_need.clone())
            .with(
                "data_without_retention",
                stored.filter(|item| !has_term(item)).collect::<Vec<_>>(),
            )
            .with("fallback", opening.fallback)
            .with("fallback_free", opening.fallback_free)
            .with("egress", opening.egress.clone())
            .with("processors_without_contract", opening.processors_without_contract.clone())
            .with("dpia", opening.dpia_days.is_some())
            .with("dpia_days", opening.dpia_days.unwrap_or(0))
            .with("dpia_covers", opening.dpia_covers)
            .with("dpo_opinion", opening.dpo_opinion)
            .with("residual_risk", if opening.residual_risk_high { "high" } else { "low" })
            .with("authority_answer", opening.authority_answer)
            .with("dossier", dossier.is_some())
            .with("dossier_reasons", dossier.is_some_and(|dossier| dossier.reasons))
            .with("dossier_signatures", dossier.map_or(0, |dossier| dossier.signatures))
            .with("dossier_days", dossier.map_or(0, |dossier| dossier.days))
            .with("classification", opening.classification)
            .with("sensor", opening.sensor)
            .with("zones_without_reason", opening.zones_without_reason.clone())
            .with("works_council", opening.works_council)
            .with("event_feeds", opening.event_feeds.clone())
            .with("administrators", opening.administrators)
            .with("default_keys", opening.default_keys)
            .with("key_days", opening.key_days)
            .with("reward_for_palm", opening.reward_for_palm)
            .with("withdraw_steps", opening.steps.0)
            .with("enrol_steps", opening.steps.1)
            .with("consent_screens_bundled", opening.consent_screens_bundled)
            .with("card_tokens_copyable", opening.card_tokens_copyable)
            .with("accuracy_report", measured.is_some())
            .with("false_match_per_billion", measured.map_or(0, |m| m.false_match_per_billion))
            .with("shard_people", opening.shard_people)
            .with(
                "false_positive_per_million",
                measured.map_or(0, |m| m.false_positive_per_million),
            )
            .with("liveness_report", measured.is_some())
            .with("apcer_permille", measured.map_or(0, |m| m.apcer_permille))
            .with("bpcer_permille", measured.map_or(0, |m| m.bpcer_permille))
            .with("linkability_permille", measured.map_or(0, |m| m.linkability_permille))
            .with("lease_hours", opening.lease_hours)
            .with("sign", opening.sign)
            .with("public_policy", opening.public_policy)
            .with("signed_release", opening.signed_release)
    }
}

/// What the daily look at duties finds.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a duty of its own")]
pub struct Review {
    /// A request is past its deadline.
    pub request_overdue: bool,
    /// Hours since the oldest breach that is not reported became known; 0 without one.
    pub breach_hours: i64,
    /// Hours that the oldest confirmation of an erasure is missing.
    pub acknowledgement_hours: i64,
    /// Days since the keys were last changed.
    pub key_days: i64,
    /// Days since a restore was last practised.
    pub restore_drill_days: i64,
    /// Days since security was last tested.
    pub security_test_days: i64,
    /// Days since the impact assessment was signed; 0 where none is declared.
    pub dpia_days: i64,
    /// Somebody from elsewhere was not told in time.
    pub roaming_notice_due: bool,
    /// A reader is under a burst of attempts.
    pub attack_burst: bool,
    /// The date of the last training is on record.
    pub training_recorded: bool,
}

impl Law {
    /// The duties that were missed, each with its rule; nothing when all is well.
    pub fn alarms(&self, review: &Review) -> Vec<Citation> {
        let act = Act::new(Action::Review)
            .with("request_overdue", review.request_overdue)
            .with("breach_hours", review.breach_hours)
            .with("breach_reported", false)
            .with("acknowledgement_hours", review.acknowledgement_hours)
            .with("key_days", review.key_days)
            .with("restore_drill_days", review.restore_drill_days)
            .with("security_test_days", review.security_test_days)
            .with("dpia_days", review.dpia_days)
            .with("roaming_notice_due", review.roaming_notice_due)
            .with("attack_burst", review.attack_burst)
            .with("training_recorded", review.training_recorded);
        self.citations(&self.decide(&act))
    }

    /// What denied, as sentences with their sources; nothing when it was allowed.
    pub fn citations(&self, verdict: &Verdict) -> Vec<Citation> {
        if verdict.allowed {
            return Vec::new();
        }
        let cite = |policy: &crate::pack::Policy| Citation {
            rule: policy.rule,
            cite: policy.cite.clone(),
            text: policy.text.clone(),
        };
        let deciding = verdict.policies.iter();
        let cited: Vec<_> = deciding.filter_map(|id| self.pack().policy(id)).map(cite).collect();
        if cited.is_empty() { vec![Citation::unknown()] } else { cited }
    }
}

impl Citation {
    fn unknown() -> Self {
        let text = "The facts of the store could not be judged, so it stays closed.";
        let fr = "Les faits du magasin n'ont pu être jugés ; il reste fermé.";
        let text = Texts { en: text.into(), fr: fr.into() };
        Self { rule: crate::rules::G_25_2, cite: "GDPR Art. 25(2)".into(), text }
    }
}
