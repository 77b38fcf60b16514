use crate::{
    Command, Decision, DecisionKind, Engine, Origin, Profile, RecordFacts, pack::Act, rules,
};
use palmgate_protocol::{Custody, Hand, MemberId, Purpose, Timestamp};
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
        let too_large = self.outgrows(&gone, &people);
        for member in gone {
            // Forgetting never waits; who is only missing from a shard that is refused stays.
            if !too_large || removed.contains(&member) {
                commands.extend(self.erase(member, rules::G_19, None, false));
            }
        }
        if too_large {
            let decision = Decision::new(DecisionKind::Shard, "too-large", vec![rules::I_1N]);
            commands.push(Command::Log(decision));
            return commands;
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

    /// Whether a purpose would have more references than the calibration can vouch for, with these
    /// people and without those who go.
    fn outgrows(&self, gone: &BTreeSet<MemberId>, people: &[RecordFacts]) -> bool {
        let offered: BTreeSet<MemberId> = people.iter().map(|person| person.member).collect();
        let stays = |member: &&MemberId| !gone.contains(member) && !offered.contains(member);
        let held = self.people.iter().filter(|(member, _)| stays(member)).map(|(_, person)| person);
        let held = held.map(|person| (person.custody, &person.hands));
        let new = people.iter().map(|person| (person.custody, &person.hands));
        self.exceeds(held.chain(new))
    }

    /// Whether one more person makes a purpose larger than the calibration can vouch for.
    pub(crate) fn outgrown_by(&self, custody: Custody, hands: &Vec<(Purpose, Hand)>) -> bool {
        let held = self.people.values().map(|person| (person.custody, &person.hands));
        self.exceeds(held.chain([(custody, hands)]))
    }

    /// Whether the references that are searched are more than the calibration can vouch for: others
    /// are compared with one claimed palm, however many there are.
    fn exceeds<'a>(
        &self,
        people: impl Iterator<Item = (Custody, &'a Vec<(Purpose, Hand)>)>,
    ) -> bool {
        let mut counts = [0usize; 4];
        let searched = people.filter(|(custody, _)| *custody == Custody::Operator);
        for (purpose, _) in searched.flat_map(|(_, hands)| hands) {
            let served = self.settings.purposes.contains(*purpose);
            if let Some(count) = counts.get_mut(*purpose as usize).filter(|_| served) {
                *count += 1;
            }
        }
        let limits = &self.settings.largest_galleries;
        counts.iter().zip(limits).any(|(count, limit)| count > limit)
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
