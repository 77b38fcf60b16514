//! The gates before any biometric work, in the rulebook's order (2.9): the pack decides, the route
//! follows.

use crate::{
    ClaimFacts, ClaimPresented, Engine, EnrolmentFacts, Rule, ScanFacts, Source, pack::Verdict,
};
use palmgate_protocol::{
    ClaimHandle, Custody, Purpose, PurposeSet, Timestamp,
    terminal::{Intent, Refusal},
};

/// Why a gate stays shut.
pub(crate) struct Shut {
    pub(crate) reason: Refusal,
    pub(crate) outcome: &'static str,
    pub(crate) rules: Vec<Rule>,
}

impl From<Verdict> for Shut {
    /// A rule without a word for the terminal is one that no terminal can do anything about.
    fn from(verdict: Verdict) -> Self {
        let reason = verdict.refusal.unwrap_or(Refusal::Internal);
        Self { reason, outcome: reason.as_str(), rules: verdict.rules }
    }
}

/// What a scan that passed its gates will do.
pub(crate) struct Plan {
    /// Purposes whose references may be used.
    pub(crate) purposes: PurposeSet,
    pub(crate) route: Route,
    /// The rules that opened the gates.
    pub(crate) rules: Vec<Rule>,
}

/// How the person will be looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Among everybody in the compartments (`operator`).
    Search,
    /// Against one reference.
    One(Source),
    /// At the cloud: it was asked for, claimed and consented.
    Cloud(ClaimHandle, Custody),
    /// In the token: the person enrolled in another store of the tenant and agreed to roam.
    Carried,
    /// Nowhere: the claim names nobody here and may not be asked for elsewhere.
    Nowhere,
}

impl Engine {
    pub(crate) fn scan_gates(&self, scan: &ScanFacts, now: Timestamp) -> Result<Plan, Shut> {
        let verdict = self.law.decide(&self.capture_act(scan, now));
        if !verdict.allowed {
            return Err(verdict.into());
        }
        let claim = match &scan.claim {
            ClaimPresented::Valid(claim) => Some(claim),
            _ => None,
        };
        let mut rules = verdict.rules;
        let route = self.route(scan, claim, &mut rules);
        Ok(Plan { purposes: self.usable_purposes(&scan.intent, route, now), route, rules })
    }

    fn route(&self, scan: &ScanFacts, claim: Option<&ClaimFacts>, cited: &mut Vec<Rule>) -> Route {
        let Some(claim) = claim else {
            return match self.settings.custody {
                Custody::Operator => Route::Search,
                Custody::Split | Custody::Subject => Route::Nowhere,
            };
        };
        let known = self.claims.get(&claim.handle).copied();
        let roaming = claim.purposes.contains(Purpose::Roaming);
        match (known, claim.custody) {
            (Some(_), Custody::Subject) => Route::One(Source::Carried),
            (Some(member), _) => Route::One(Source::Held(member)),
            (None, Custody::Subject) if roaming => Route::Carried,
            (None, Custody::Subject) => Route::Nowhere,
            (None, custody) => {
                let verdict = self.law.decide(&self.escalate_act(roaming, scan.ask_cloud));
                cited.extend(verdict.rules);
                if verdict.allowed { Route::Cloud(claim.handle, custody) } else { Route::Nowhere }
            }
        }
    }

    /// The purpose asked for; for a right, every purpose under which the person can be known.
    fn usable_purposes(&self, intent: &Intent, route: Route, now: Timestamp) -> PurposeSet {
        let asked: PurposeSet = match intent.purpose() {
            Some(purpose) => PurposeSet::default().with(purpose),
            None => Purpose::MATCHED
                .into_iter()
                .filter(|p| self.settings.purposes.contains(*p))
                .collect(),
        };
        let Route::One(Source::Held(member)) = route else { return asked };
        let Some(person) = self.people.get(&member) else { return asked };
        asked.iter().filter(|purpose| person.basis(*purpose, now)).collect()
    }

    pub(crate) fn enrolment_gates(
        &self,
        facts: &EnrolmentFacts,
        now: Timestamp,
    ) -> Result<(PurposeSet, Vec<Rule>), Shut> {
        let verdict = self.law.decide(&self.enrol_act(facts, false, now));
        if !verdict.allowed {
            return Err(verdict.into());
        }
        let purposes = facts.consents.iter().map(|consent| consent.purpose);
        let staff = facts.authorisation.iter().map(|_| Purpose::Staff);
        Ok((purposes.chain(staff).collect(), verdict.rules))
    }
}
