use crate::{
    Command, Decision, DecisionKind, Engine, Origin, Profile, RecordFacts, pack::Act, rules,
};
use palmgate_protocol::{MemberId, Purpose, Timestamp};
use std::collections::BTreeSet;

impl Engine {
    /// Takes over a verified shard: only people with a live consent that covers this store, nobody
    /// who was erased here; who is removed is erased.
    pub(crate) fn shard_offered(
        &mut self,
        version: u64,
        lease_until: Timestamp,
        whole: bool,
        people: Vec<RecordFacts>,
        removed: &[MemberId],
        now: Timestamp,
    ) -> Vec<Command> {
        if now >= lease_until {
            let decision = Decision::new(DecisionKind::Shard, "lease-expired", vec![rules::LEASE]);
            return vec![Command::Log(decision)];
        }
        let mut gone: BTreeSet<MemberId> = removed.iter().copied().collect();
        if whole {
            let kept: BTreeSet<MemberId> = people.iter().map(|person| person.member).collect();
            let from_cloud = self.people.iter().filter(|(_, p)| p.origin == Origin::Cloud);
            gone.extend(from_cloud.map(|(member, _)| *member).filter(|m| !kept.contains(m)));
        }
        let mut commands = Vec::new();
        for member in gone {
            commands.extend(self.erase(member, rules::G_19, None, false));
        }
        // The few different answers are asked for once each, not once for each of many people.
        let mut verdicts = Vec::new();
        let adopted = people.into_iter();
        let adopted = adopted.filter_map(|facts| self.adopt(&facts, &mut verdicts, now)).collect();
        self.lease_until = Some(lease_until);
        commands.push(Command::AdoptShard(version, adopted));
        let decision =
            Decision::new(DecisionKind::Shard, "adopted", vec![rules::G_14, rules::G_19]);
        commands.push(Command::Log(decision));
        commands
    }

    fn adopt(
        &mut self,
        facts: &RecordFacts,
        verdicts: &mut Vec<(Act, bool)>,
        now: Timestamp,
    ) -> Option<(MemberId, Profile)> {
        let own = self.people.get(&facts.member).is_some_and(|p| p.origin == Origin::Store);
        let act = self.adopt_act(facts, true, true, now);
        let known = verdicts.iter().find(|(asked, _)| *asked == act).map(|(_, allowed)| *allowed);
        let allowed = known.unwrap_or_else(|| {
            let allowed = self.law.decide(&act).allowed;
            verdicts.push((act, allowed));
            allowed
        });
        if own || !allowed {
            return None;
        }
        let profile = self.profile_of(facts, now);
        self.load(facts.member, profile.clone());
        Some((facts.member, profile))
    }

    /// The profile of a person whom the cloud gave.
    pub(crate) fn profile_of(&self, facts: &RecordFacts, now: Timestamp) -> Profile {
        let served = |purpose: Purpose| self.settings.purposes.contains(purpose);
        let (hands, pseudonyms) = (facts.hands.iter(), facts.pseudonyms.iter());
        Profile {
            claim: facts.claim,
            custody: facts.custody,
            origin: Origin::Cloud,
            consents: facts.consents.clone(),
            hands: hands.filter(|(purpose, _)| served(*purpose)).copied().collect(),
            pseudonyms: pseudonyms.filter(|(purpose, _)| served(*purpose)).copied().collect(),
            paused: false,
            authorisation: None,
            enrolled_at: now,
            expires_at: facts.expires_at,
            salt: facts.salt,
            spent: self.people.get(&facts.member).map(|known| known.spent).unwrap_or_default(),
            objected: self.people.get(&facts.member).is_some_and(|known| known.objected),
            replaces: None,
            released_at: None,
            exported: false,
        }
    }
}
