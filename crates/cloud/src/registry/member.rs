//! What a registry knows of a person beside the record, and what it decides about them, whatever it
//! keeps its rows in.

use crate::{problem::Problem, tenant::Admitted};
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    ClaimHandle, Custody, MemberId, Name, PurposeSet, Timestamp, cloud::Registration,
};

/// A store that was given a person, as a registry notes it.
pub(crate) trait Holder: Clone {
    /// Which store.
    fn store(&self) -> &Name;
}

impl Holder for Name {
    fn store(&self) -> &Name {
        self
    }
}

/// A person to the cloud: everything but the record itself. Kept under the person's key.
#[derive(Encode, Decode)]
pub(crate) struct Member<H> {
    #[n(0)]
    pub(crate) id: MemberId,
    #[n(1)]
    pub(crate) claim: ClaimHandle,
    #[n(2)]
    pub(crate) custody: Custody,
    #[n(3)]
    pub(crate) purposes: PurposeSet,
    #[n(4)]
    pub(crate) expires_at: Timestamp,
    /// When the consent to roaming ends; `None` without one.
    #[n(5)]
    pub(crate) roaming_until: Option<Timestamp>,
    /// The store that registered the person.
    #[n(6)]
    pub(crate) home: Name,
    /// SHA-256 of the registration, to know a repetition.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) digest: [u8; 32],
    /// The stores that were given the person, home included (GDPR Art. 19).
    #[n(8)]
    pub(crate) holders: Vec<H>,
}

/// What a registration is to what is known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registering {
    /// Of somebody who is not known.
    New,
    /// Of somebody whose home says something new about them.
    Replaces,
    /// What is known, once more.
    Repeats,
}

/// What it means that a store asks for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// It must not have them.
    Refused,
    /// It was given them already.
    Known,
    /// It becomes a holder.
    First,
}

impl<H: Holder> Member<H> {
    /// The person as a store registers them; holders are those of the row that this one replaces.
    pub(crate) fn registered(
        registration: &Registration,
        admitted: &Admitted,
        (home, digest): (&Name, [u8; 32]),
        before: Option<&Self>,
    ) -> Self {
        Self {
            id: registration.member,
            claim: registration.claim,
            custody: registration.custody,
            purposes: registration.purposes,
            expires_at: registration.expires_at,
            roaming_until: admitted.roaming_until,
            home: home.clone(),
            digest,
            holders: before.map_or_else(Vec::new, |before| before.holders.clone()),
        }
    }

    /// Whether the person's consent to be recognised in other stores lives.
    pub(crate) fn roams(&self, now: Timestamp) -> bool {
        self.roaming_until.is_some_and(|end| now < end)
    }

    pub(crate) fn is_held_by(&self, store: &Name) -> bool {
        self.holders.iter().any(|holder| holder.store() == store)
    }

    /// Whether a store that asks for somebody in `custody` may be answered with this person.
    pub(crate) fn answers(&self, custody: Custody, store: &Name, now: Timestamp) -> bool {
        self.custody == custody && self.visit(store, now) != Visit::Refused
    }

    /// The home store gets its own back after it lost its disk; any other store needs the person's
    /// live consent to roaming.
    pub(crate) fn visit(&self, store: &Name, now: Timestamp) -> Visit {
        match self.is_held_by(store) {
            _ if now >= self.expires_at || self.is_only_at_home(store, now) => Visit::Refused,
            true => Visit::Known,
            false => Visit::First,
        }
    }

    /// Whether a store must give the person up once this row replaces one of `custody`: what it was
    /// given is of another custody, or the person does not roam any more.
    pub(crate) fn leaves(&self, custody: Custody, store: &Name, now: Timestamp) -> bool {
        self.custody != custody || self.is_only_at_home(store, now)
    }

    fn is_only_at_home(&self, store: &Name, now: Timestamp) -> bool {
        self.home != *store && !self.roams(now)
    }
}

/// What a registration by `store` is to the person of the same id. Another store's people cannot be
/// replaced.
///
/// # Errors
/// [`Problem::Conflict`].
pub(crate) fn registering<H: Holder>(
    known: Option<&Member<H>>,
    store: &Name,
    digest: &[u8; 32],
) -> Result<Registering, Problem> {
    match known {
        None => Ok(Registering::New),
        Some(known) if known.home != *store => Err(Problem::Conflict),
        Some(known) if known.digest == *digest => Ok(Registering::Repeats),
        Some(_) => Ok(Registering::Replaces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::Purpose;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    fn member(custody: Custody, roaming_until: Option<i64>) -> Member<Name> {
        Member {
            id: MemberId::from_random([1; 16]),
            claim: ClaimHandle::from_random([2; 16]),
            custody,
            purposes: [Purpose::Pay].into_iter().collect(),
            expires_at: Timestamp::from_millis(NOW.as_millis() + 1000),
            roaming_until: roaming_until
                .map(|after| Timestamp::from_millis(NOW.as_millis() + after)),
            home: name("lyon"),
            digest: [3; 32],
            holders: vec![name("lyon")],
        }
    }

    #[test]
    fn a_visit_needs_a_live_consent_and_home_needs_none() {
        let stays = member(Custody::Operator, None);
        let roams = member(Custody::Operator, Some(500));
        let (lyon, paris) = (name("lyon"), name("paris"));
        let late = Timestamp::from_millis(NOW.as_millis() + 500);
        let over = Timestamp::from_millis(NOW.as_millis() + 1000);
        for (member, store, at, expected) in [
            (&stays, &lyon, NOW, Visit::Known),
            (&stays, &paris, NOW, Visit::Refused),
            (&roams, &paris, NOW, Visit::First),
            (&roams, &paris, late, Visit::Refused),
            (&roams, &lyon, late, Visit::Known),
            (&roams, &lyon, over, Visit::Refused),
        ] {
            assert_eq!(member.visit(store, at), expected, "{store} at {at:?}");
        }
        assert!(roams.answers(Custody::Operator, &paris, NOW));
        assert!(!roams.answers(Custody::Split, &paris, NOW), "of another custody");
    }

    #[test]
    fn who_changes_custody_leaves_everybody_and_who_stops_roaming_leaves_all_but_home() {
        let (lyon, paris) = (name("lyon"), name("paris"));
        let leaves = |member: &Member<Name>, before| {
            [&lyon, &paris].map(|store| member.leaves(before, store, NOW))
        };
        assert_eq!(leaves(&member(Custody::Operator, Some(500)), Custody::Operator), [false; 2]);
        assert_eq!(leaves(&member(Custody::Split, Some(500)), Custody::Operator), [true; 2]);
        assert_eq!(leaves(&member(Custody::Operator, None), Custody::Operator), [false, true]);
    }

    #[test]
    fn only_home_replaces_and_a_repetition_is_known() {
        let known = member(Custody::Split, None);
        let is = |known: Option<&Member<Name>>, store: &str, digest| {
            registering(known, &name(store), &[digest; 32])
        };
        assert_eq!(is(None, "paris", 3), Ok(Registering::New));
        assert_eq!(is(Some(&known), "lyon", 3), Ok(Registering::Repeats));
        assert_eq!(is(Some(&known), "lyon", 4), Ok(Registering::Replaces));
        assert_eq!(is(Some(&known), "paris", 3), Err(Problem::Conflict));
    }
}
