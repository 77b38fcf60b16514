//! Pictures are sent only where the store's roster holds.

use super::*;
use crate::RosterFault;
use palmgate_protocol::{
    PurposeSet, RosterMember,
    terminal::{Intent, Scan},
};
use palmgate_seal::pki;

fn member(identity: &Identity, key: bool) -> RosterMember {
    RosterMember {
        name: identity.name(),
        certificates: vec![pki::fingerprint(identity.certificate_der()).into()],
        key: key.then(|| identity.verifying_key().0.into()),
        purposes: PurposeSet::default(),
        enrols: false,
    }
}

impl World {
    /// A gateway that signs rosters: this one first.
    fn listing(sequence: u64) -> Self {
        let mut world = Self::new();
        world.terminal = Conversation::new(copy(&world.identity), None)
            .keeping(Rosters::new("lyon".parse().unwrap(), None));
        world.list(sequence, |_| {});
        world
    }

    /// From now on the gateway signs this.
    fn list(&mut self, sequence: u64, change: impl FnOnce(&mut Roster)) {
        let members = vec![member(&self.gateway.identity, true), member(&self.identity, false)];
        let at = self.now.wall;
        let mut roster = Roster { store: "lyon".parse().unwrap(), sequence, at, members };
        change(&mut roster);
        self.gateway.lists = Some((roster, self.gateway.identity.signing_key()));
    }

    /// Presents a hand; the answer is why nothing was sent, if that is so.
    fn hand(&mut self) -> Result<CaptureId, TerminalError> {
        self.next_capture += 1;
        let number = self.next_capture.to_be_bytes();
        let capture = CaptureId::from_random(std::array::from_fn(|at| number[at % 4]));
        let scan = Scan::new(Intent::Entry, Vec::new());
        let request = Request::new(capture, self.now.wall, RequestBody::Scan(scan));
        self.terminal.ask(request, DEADLINE, self.now)?;
        self.settle();
        Ok(capture)
    }

    /// What the terminal says about a roster that the gateway gives from now on.
    fn fault(&mut self, sequence: u64, change: impl FnOnce(&mut Roster)) -> RosterFault {
        self.list(sequence, change);
        self.ask();
        let fault = self.terminal.roster().unwrap_err();
        let decided = self.gateway.decisions.len();
        assert!(matches!(self.hand(), Err(TerminalError::Roster(why)) if why == fault));
        assert_eq!(self.gateway.decisions.len(), decided, "nothing was sent");
        fault
    }
}

#[test]
fn pictures_wait_for_the_roster_and_go_when_it_holds() {
    let mut world = World::listing(1);
    let early = world.hand().unwrap();
    world.connect();
    assert_eq!(world.answered, [early], "it came with the first answer of the session");
    let shown = world.terminal.roster().unwrap().unwrap();
    assert_eq!((shown.roster.sequence, shown.roster.members.len()), (1, 2));
    assert_eq!(world.kept.unwrap().hash, shown.hash);
    world.list(2, |_| {});
    let capture = world.hand().unwrap();
    assert_eq!(world.answered, [early, capture]);
    let later = world.terminal.roster().unwrap().unwrap();
    assert!(later.roster.sequence == 2 && later.hash != shown.hash);
}

#[test]
fn a_roster_that_is_older_or_not_the_only_one_with_its_number_is_refused() {
    let mut world = World::listing(7);
    world.connect();
    assert_eq!(world.fault(6, |_| {}), RosterFault::Older { came: 6, kept: 7 });
    let other = |roster: &mut Roster| roster.at = roster.at.after(SECOND);
    // With the sequence that the terminal has, the gateway of this story would send nothing.
    assert_eq!(world.fault(7, other), RosterFault::Two(7));
    world.list(8, |_| {});
    world.ask();
    assert!(world.terminal.roster().is_ok() && world.hand().is_ok(), "a good one ends it");
    // The number is on disk: another run goes by it.
    let kept = world.kept;
    let rosters = Rosters::new("lyon".parse().unwrap(), kept);
    world.terminal = Conversation::new(copy(&world.identity), None).keeping(rosters);
    world.list(7, |_| {});
    world.pass(2 * SECOND);
    world.connect();
    assert_eq!(world.terminal.roster(), Err(RosterFault::Older { came: 7, kept: 8 }));
}

#[test]
fn a_roster_that_somebody_else_signed_or_that_lacks_one_of_both_is_refused() {
    let mut world = World::listing(1);
    world.connect();
    let mut next = 1;
    let mut fault = |change: fn(&mut Roster)| {
        next += 1;
        world.fault(next, change)
    };
    assert_eq!(fault(|roster| _ = roster.members.pop()), RosterFault::NotListed);
    let renewed = |roster: &mut Roster| roster.members[1].certificates = vec![[9; 32].into()];
    assert_eq!(fault(renewed), RosterFault::NotListed);
    assert_eq!(fault(|roster| _ = roster.members.remove(0)), RosterFault::OtherGateway);
    let another = |roster: &mut Roster| roster.members[0].key = Some([9; 32].into());
    assert_eq!(fault(another), RosterFault::OtherGateway);
    let store = "paris".parse().unwrap();
    assert_eq!(
        fault(|roster| roster.store = "paris".parse().unwrap()),
        RosterFault::OfAnotherStore(store)
    );
    let twice = |roster: &mut Roster| roster.members.push(roster.members[1].clone());
    assert_eq!(fault(twice), RosterFault::Members);
    world.list(90, |_| {});
    world.gateway.lists.as_mut().unwrap().1 = SigningKey::generate();
    world.ask();
    let forged = RosterFault::Unusable(crate::RosterError::Signature);
    assert_eq!(world.terminal.roster(), Err(forged));
    assert!(world.hand().is_err());
}

#[test]
fn a_gateway_that_gave_rosters_cannot_play_one_of_before() {
    let mut world = World::listing(1);
    world.connect();
    assert!(world.terminal.roster().unwrap().is_some());
    world.gateway.lists = None;
    world.terminal.leave();
    world.terminal.membership.out();
    world.pass(2 * SECOND);
    assert_eq!(world.terminal.roster(), Err(RosterFault::Missing));
    assert!(world.hand().is_err() && world.gateway.joins == 2);
}
