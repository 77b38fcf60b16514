//! The gates before any biometric work, in the rulebook's order (2.9).

use crate::{ClaimFacts, ClaimPresented, Engine, EnrolmentFacts, Rule, ScanFacts, Source, rules};
use palmgate_protocol::{
    ClaimHandle, Custody, Purpose, PurposeSet, Timestamp,
    limits::{MAX_CAPTURES_PER_ENROLMENT, MAX_FRAMES_PER_CAPTURE},
    terminal::{Age, ConsentGiven, Intent, Refusal},
};

/// Why a gate stays shut.
pub(crate) struct Shut {
    pub(crate) reason: Refusal,
    pub(crate) outcome: &'static str,
    pub(crate) rules: Vec<Rule>,
}

/// What a scan that passed its gates will do.
pub(crate) struct Plan {
    /// Purposes whose references may be used.
    pub(crate) purposes: PurposeSet,
    pub(crate) route: Route,
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

const fn shut(reason: Refusal, rules: Vec<Rule>) -> Shut {
    Shut { reason, outcome: reason.as_str(), rules }
}

impl Engine {
    pub(crate) fn scan_gates(&self, scan: &ScanFacts, now: Timestamp) -> Result<Plan, Shut> {
        self.fresh(scan.at, now)?;
        self.served(scan)?;
        if scan.frames == 0 || scan.frames > MAX_FRAMES_PER_CAPTURE {
            return Err(shut(Refusal::Malformed, vec![rules::E_77]));
        }
        self.within_limits(&scan.intent)?;
        let claim = match &scan.claim {
            ClaimPresented::None => None,
            ClaimPresented::Invalid => {
                return Err(shut(Refusal::ClaimInvalid, vec![rules::C_RT_07B]));
            }
            ClaimPresented::Valid(claim) => Some(claim),
        };
        self.not_blocked(scan, claim, now)?;
        let route = self.route(scan, claim, now)?;
        Ok(Plan { purposes: self.usable_purposes(&scan.intent, route, now)?, route })
    }

    fn fresh(&self, at: Timestamp, now: Timestamp) -> Result<(), Shut> {
        if at.distance(now) > self.settings.clock_skew {
            return Err(shut(Refusal::Stale, vec![rules::FRESH]));
        }
        Ok(())
    }

    /// A right can be exercised at every terminal; a purpose only where it is served.
    fn served(&self, scan: &ScanFacts) -> Result<(), Shut> {
        let refused = || shut(Refusal::PurposeNotServed, vec![rules::G_05_B]);
        let terminal = self.terminals.get(&scan.terminal).ok_or_else(refused)?;
        let Some(purpose) = scan.intent.purpose() else { return Ok(()) };
        let served =
            self.settings.purposes.contains(purpose) && terminal.facts.purposes.contains(purpose);
        if !served {
            return Err(refused());
        }
        if let Intent::Staff { zone } = &scan.intent
            && !self.settings.zones.contains(zone)
        {
            return Err(shut(Refusal::ZoneNotListed, vec![rules::C_RT_02, rules::F_44]));
        }
        Ok(())
    }

    fn within_limits(&self, intent: &Intent) -> Result<(), Shut> {
        match intent {
            Intent::Pay(payment) if payment.minor_units > self.settings.payment_limit => {
                Err(shut(Refusal::StepUp, vec![rules::P_SCA_11]))
            }
            _ => Ok(()),
        }
    }

    fn not_blocked(
        &self,
        scan: &ScanFacts,
        claim: Option<&ClaimFacts>,
        now: Timestamp,
    ) -> Result<(), Shut> {
        let claim = claim.is_some_and(|claim| self.claim_blocked(&claim.handle, now));
        let pays = scan.intent.purpose() == Some(Purpose::Pay);
        if claim || (pays && self.reader_blocked(&scan.terminal, now)) {
            return Err(shut(Refusal::TooManyTries, vec![rules::P_SCA_4_3B, rules::C_RT_10G]));
        }
        Ok(())
    }

    fn route(
        &self,
        scan: &ScanFacts,
        claim: Option<&ClaimFacts>,
        now: Timestamp,
    ) -> Result<Route, Shut> {
        let Some(claim) = claim else {
            return match self.settings.custody {
                Custody::Operator => Ok(Route::Search),
                custody => Err(shut(Refusal::ClaimNeeded, vec![Self::custody_rule(custody)])),
            };
        };
        if now >= claim.expires_at {
            return Err(shut(Refusal::ClaimInvalid, vec![rules::G_05_E]));
        }
        if claim.custody > self.settings.custody {
            return Err(shut(Refusal::ClaimInvalid, vec![Self::custody_rule(claim.custody)]));
        }
        let known = self.claims.get(&claim.handle).copied();
        let roaming = claim.purposes.contains(Purpose::Roaming);
        Ok(match (known, claim.custody) {
            (Some(_), Custody::Subject) => Route::One(Source::Carried),
            (Some(member), _) => Route::One(Source::Held(member)),
            (None, Custody::Subject) if roaming => Route::Carried,
            (None, custody) if roaming && scan.ask_cloud && self.settings.escalation => {
                Route::Cloud(claim.handle, custody)
            }
            (None, _) => Route::Nowhere,
        })
    }

    /// The purpose asked for; for a right, every purpose under which the person can be known.
    fn usable_purposes(
        &self,
        intent: &Intent,
        route: Route,
        now: Timestamp,
    ) -> Result<PurposeSet, Shut> {
        let asked: PurposeSet = match intent.purpose() {
            Some(purpose) => PurposeSet::default().with(purpose),
            None => Purpose::MATCHED
                .into_iter()
                .filter(|p| self.settings.purposes.contains(*p))
                .collect(),
        };
        let Route::One(Source::Held(member)) = route else { return Ok(asked) };
        let Some(person) = self.people.get(&member) else { return Ok(asked) };
        if !self.leased(person, now) {
            return Err(shut(Refusal::LeaseExpired, vec![rules::LEASE]));
        }
        let live =
            asked.iter().filter(|purpose| person.basis(*purpose, now)).collect::<PurposeSet>();
        if live.is_empty() || (person.paused && intent.purpose().is_some()) {
            let rules = vec![rules::G_09, rules::G_07_1, rules::G_18];
            return Err(shut(Refusal::ConsentMissing, rules));
        }
        Ok(live)
    }

    pub(crate) fn enrolment_gates(
        &self,
        facts: &EnrolmentFacts,
        now: Timestamp,
    ) -> Result<PurposeSet, Shut> {
        self.fresh(facts.at, now)?;
        let refused = || shut(Refusal::PurposeNotServed, vec![rules::G_05_B]);
        let terminal = self.terminals.get(&facts.terminal).ok_or_else(refused)?;
        if !terminal.facts.enrols {
            return Err(refused());
        }
        if facts.card_number {
            return Err(shut(Refusal::CardNumber, vec![rules::P_PCI_1]));
        }
        captures_bounded(facts)?;
        let purposes = self.consented(facts)?;
        age_gate(facts.age, purposes)?;
        if purposes.contains(Purpose::Pay) && !facts.card_token {
            return Err(shut(Refusal::Malformed, vec![rules::P_PCI_1]));
        }
        Ok(purposes)
    }

    /// The purposes with an express, confirmed consent under the current notice, and `staff` where
    /// an authorisation for a listed zone takes the place of consent.
    fn consented(&self, facts: &EnrolmentFacts) -> Result<PurposeSet, Shut> {
        let valid = |consent: &ConsentGiven| {
            consent.confirmed
                && consent.notice == self.settings.notice
                && consent.purpose != Purpose::Staff
                && !consent.language.is_empty()
        };
        if !facts.consents.iter().all(valid) {
            let rules = vec![rules::G_07_1, rules::G_09, rules::E_CONS_2];
            return Err(shut(Refusal::ConsentMissing, rules));
        }
        let mut purposes: PurposeSet =
            facts.consents.iter().map(|consent| consent.purpose).collect();
        if let Some(authorisation) = &facts.authorisation {
            if !self.settings.zones.contains(&authorisation.zone) {
                return Err(shut(Refusal::ZoneNotListed, vec![rules::C_RT_02, rules::F_44]));
            }
            purposes = purposes.with(Purpose::Staff);
        }
        if purposes.without(Purpose::Roaming).is_empty() {
            return Err(shut(Refusal::ConsentMissing, vec![rules::G_09]));
        }
        let served =
            |purpose| purpose == Purpose::Roaming || self.settings.purposes.contains(purpose);
        if !purposes.iter().all(served) {
            return Err(shut(Refusal::PurposeNotServed, vec![rules::G_05_B]));
        }
        Ok(purposes)
    }
}

fn captures_bounded(facts: &EnrolmentFacts) -> Result<(), Shut> {
    let captures = facts.captures.len();
    let each = |hand| facts.captures.iter().filter(|capture| **capture == hand).count() <= 3;
    let bounded = (1..=MAX_CAPTURES_PER_ENROLMENT).contains(&captures)
        && facts.frames >= captures
        && facts.frames <= captures * MAX_FRAMES_PER_CAPTURE
        && each(palmgate_protocol::Hand::Left)
        && each(palmgate_protocol::Hand::Right);
    if bounded { Ok(()) } else { Err(shut(Refusal::Malformed, vec![rules::E_77])) }
}

/// Under 15 only jointly with a holder of parental responsibility (France); payments from 18.
fn age_gate(age: Age, purposes: PurposeSet) -> Result<(), Shut> {
    let too_young = match age {
        Age::Adult => false,
        Age::From15To17 => purposes.contains(Purpose::Pay) || purposes.contains(Purpose::Staff),
        Age::Under15WithGuardian => {
            purposes.contains(Purpose::Pay) || purposes.contains(Purpose::Staff)
        }
        Age::Under15 => true,
    };
    if too_young { Err(shut(Refusal::AgeGate, vec![rules::G_08])) } else { Ok(()) }
}
