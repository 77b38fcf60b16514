//! Scans name a challenge of the gateway's without anybody's doing.

use super::*;
use palmgate_protocol::terminal::{Intent, Scan};

impl World {
    fn scan(&mut self, challenge: Option<ScanChallenge>) -> CaptureId {
        self.next_capture += 1;
        let number = self.next_capture.to_be_bytes();
        let capture = CaptureId::from_random(std::array::from_fn(|at| number[at % 4]));
        let scan = Scan::new(Intent::Entry, Vec::new());
        let request = Request::new(capture, self.now.wall, RequestBody::Scan(scan));
        self.terminal.ask(Request { challenge, ..request }, DEADLINE, self.now).unwrap();
        self.settle();
        capture
    }

    fn challenging() -> Self {
        let mut world = Self::new();
        world.gateway.fresh = Some(Vec::new());
        world.connect();
        world.begin_to_count();
        world
    }
}

#[test]
fn the_first_scans_of_a_session_need_no_message_before_them() {
    let mut world = World::challenging();
    let scans: Vec<_> = (0..limits::CHALLENGES_AT_HAND).map(|_| world.scan(None)).collect();
    assert_eq!(world.answered, scans);
    assert_eq!((world.gateway.opened, world.gateway.refused), (scans.len(), 0));
}

#[test]
fn a_refused_challenge_is_replaced_and_the_act_decided_once() {
    let mut world = World::challenging();
    // All that the terminal has at hand ended at the gateway.
    world.gateway.fresh = Some(Vec::new());
    let capture = world.scan(None);
    assert_eq!((&world.answered[..], world.gateway.refused), (&[capture][..], 1));
    assert_eq!(world.gateway.decisions[&capture], 1);
}

#[test]
fn a_terminal_that_was_restarted_asks_for_challenges_and_sends_its_pictures_once() {
    let mut world = World::challenging();
    world.restart_from(world.saved.len() - 1);
    world.terminal.challenges.clear();
    let before = world.gateway.opened;
    let capture = world.scan(None);
    assert_eq!((&world.answered[..], world.gateway.refused), (&[capture][..], 0));
    assert_eq!(world.gateway.opened, before + 2, "a small question, then the scan");
}

#[test]
fn challenges_that_do_not_come_are_not_waited_for() {
    let mut world = World::challenging();
    world.terminal.challenges.clear();
    world.lose_up = [true].into();
    let capture = world.scan(None);
    assert!(world.answered.is_empty());
    world.pass(SECOND);
    assert_eq!((&world.answered[..], world.gateway.refused), (&[capture][..], 1));
}

#[test]
fn a_capture_that_is_about_an_ended_challenge_is_not_passed_off_as_another() {
    let mut world = World::challenging();
    let challenge = world.terminal.take_challenge(30 * SECOND, world.now).unwrap();
    let good = world.scan(Some(challenge));
    assert_eq!((&world.answered[..], world.gateway.refused), (&[good][..], 0));
    let again = world.scan(Some(challenge));
    assert_eq!((&world.answered[..], world.gateway.refused), (&[good, again][..], 1));
    assert_eq!(world.gateway.decisions.get(&again), None, "the caller is told");
}

#[test]
fn a_gateway_of_before_is_asked_for_challenges_once() {
    let mut world = World::joined();
    world.ask();
    let before = world.gateway.opened;
    let scans = [world.scan(None), world.scan(None)];
    assert!(scans.iter().all(|scan| world.answered.contains(scan)));
    assert_eq!(world.gateway.opened, before + 2);
}

#[test]
fn another_session_takes_what_waits_with_its_own_challenges() {
    let mut world = World::challenging();
    world.pass(2 * SECOND);
    world.gateway.session = None;
    let capture = world.scan(None);
    world.pass(3 * SECOND);
    assert_eq!((&world.answered[..], world.gateway.refused), (&[capture][..], 0));
    assert_eq!(world.gateway.joins, 2);
}
