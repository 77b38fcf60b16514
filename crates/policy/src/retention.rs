use crate::{Command, Engine, Profile, Rule, rules};
use palmgate_protocol::{MemberId, Purpose, Timestamp};

/// Every kind of data that the box stores, by the names of the packs' retention tables.
pub const STORED: &[&str] = &[
    "template",
    "staff-template",
    "pseudonym",
    "card-token",
    "phone",
    "claim",
    "authorisation",
    "consent-record",
    "use",
    "erasure-receipt",
    "tombstone",
    "decision",
    "letter",
    "technical-log",
    "payment-counter",
    "rights-request",
    "breach-register",
    "legal-hold",
];

impl Engine {
    /// When everything about the person must be gone: after inactivity, never later than the last
    /// consent or authorisation.
    pub(crate) fn expiry(&self, profile: &Profile, used_at: Timestamp) -> Timestamp {
        let matched = profile.consents.iter().filter(|consent| consent.purpose != Purpose::Roaming);
        let consented = matched.map(|consent| consent.expires_at).max();
        let authorised = profile.authorisation.as_ref().map(|authorisation| authorisation.until);
        let basis = consented.max(authorised).unwrap_or(used_at);
        used_at.after(self.settings.inactivity).min(basis)
    }

    /// A use counts against inactivity. Written at most once a day, not at every scan.
    pub(crate) fn prolong(&mut self, member: MemberId, now: Timestamp) -> Option<Command> {
        let expiry = self.expiry(self.people.get(&member)?, now);
        let person = self.people.get_mut(&member)?;
        if expiry.since(person.expires_at) < palmgate_protocol::DAY {
            return None;
        }
        person.expires_at = expiry;
        Some(Command::Update(member, Box::new(person.clone())))
    }

    /// Erases who expired, a bounded number at a time.
    pub(crate) fn sweep(&mut self, now: Timestamp) -> Vec<Command> {
        let due = |profile: &Profile| -> Option<Rule> {
            let basis = profile.hands.iter().any(|(purpose, _)| profile.basis(*purpose, now));
            if basis && now < profile.expires_at {
                return None;
            }
            let staff = profile.hands.iter().all(|(purpose, _)| *purpose == Purpose::Staff);
            let verdict = self.law.decide(&Self::keep_act(profile, basis, staff, now));
            let rule = verdict.rules.first().copied().unwrap_or(rules::RET_03);
            (!verdict.allowed).then_some(rule)
        };
        let most = self.doubt.map_or(usize::MAX, |doubt| doubt.left as usize);
        let most = most.min(self.settings.sweep_limit);
        let expired: Vec<(MemberId, Rule)> = self
            .people
            .iter()
            .filter_map(|(member, profile)| Some((*member, due(profile)?)))
            .take(most)
            .collect();
        if let Some(doubt) = &mut self.doubt {
            doubt.left = doubt.left.saturating_sub(expired.len() as u64);
        }
        let mut commands: Vec<Command> = expired
            .into_iter()
            .flat_map(|(member, rule)| self.erase(member, rule, None, true))
            .collect();
        let visitors = self.visitors.len();
        self.visitors.retain(|_, visitor| now < visitor.ends);
        if self.visitors.len() < visitors {
            commands.push(self.keep_visitors());
        }
        commands
    }
}
