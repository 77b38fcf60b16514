//! Stories between one terminal and one gateway over a network that the test controls.

mod challenges;
mod roster;

use super::*;
use palmgate_protocol::{DAY, Name, Roster, topic::GATEWAY};
use palmgate_seal::{
    mls::Admitted,
    pki::{Authority, Role},
    sign::SigningKey,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::SystemTime,
};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = limits::FRAMES_LIFETIME;

fn identity(authority: &Authority, name: &str, role: Role, now: Timestamp) -> Identity {
    let (pending, name) = (Identity::generate(), name.parse::<Name>().unwrap());
    let leaf = authority.issue(&pending.csr_der(), &name, role, now, DAY).unwrap();
    pending.certified(vec![leaf.der, authority.certificate_der().clone()]).unwrap()
}

fn copy(identity: &Identity) -> Identity {
    Identity::from_pem(&identity.chain_pem(), identity.key_pem().expose()).unwrap()
}

/// A gateway reduced to what a terminal can observe of it.
struct Gateway {
    identity: Identity,
    session: Option<Session>,
    seen: HashSet<[u8; 32]>,
    joins: usize,
    decisions: HashMap<CaptureId, usize>,
    /// The last captures that were decided: a gateway does not remember more.
    remembered: VecDeque<CaptureId>,
    opened: usize,
    heard: HashSet<Vec<u8>>,
    /// Challenges that are good; a gateway of before gives none.
    fresh: Option<Vec<ScanChallenge>>,
    /// Scans without a good one.
    refused: usize,
    /// What it signs as the store's roster, and with which key; a gateway of before signs none.
    lists: Option<(Roster, SigningKey)>,
}

impl Gateway {
    /// Takes a message of the terminal; gives what it publishes in return.
    fn take(&mut self, channel: Channel, payload: &[u8], now: Timestamp) -> Vec<Wire> {
        match channel {
            Channel::Join => self.admit(payload, now),
            Channel::Up => match self.session.as_mut().map(|session| session.open(payload)) {
                Some(Ok(Opened::Message(message))) => {
                    self.heard.insert(payload.to_vec());
                    self.answer(message.expose())
                }
                Some(Err(MlsError::Replayed)) if self.heard.contains(payload) => Vec::new(),
                _ => vec![(Channel::Welcome, Vec::new())],
            },
            _ => panic!("a terminal wrote to {channel:?}"),
        }
    }

    fn admit(&mut self, key_package: &[u8], now: Timestamp) -> Vec<Wire> {
        let authority = self.identity.authority_der().clone();
        let Ok(Admitted { session, welcome, reference, .. }) =
            mls::admit(&self.identity, key_package, &authority, now)
        else {
            return Vec::new();
        };
        if !self.seen.insert(reference) {
            return Vec::new();
        }
        if let Some(fresh) = &mut self.fresh {
            let bytes = session.export(ScanChallenge::LABEL, ScanChallenge::FIRST_BYTES).unwrap();
            *fresh = ScanChallenge::first(bytes.expose()).collect();
        }
        self.session = Some(session);
        self.joins += 1;
        vec![(Channel::Welcome, welcome)]
    }

    fn answer(&mut self, message: &[u8]) -> Vec<Wire> {
        let request: Request = decode(message).unwrap();
        self.opened += 1;
        let mut answer = Answer::new(request.capture, AnswerBody::Done);
        let listed =
            self.lists.as_ref().filter(|(roster, _)| Some(roster.sequence) != request.roster);
        answer.roster = listed.map(|(roster, key)| palmgate_seal::roster::sign(roster, key));
        let scan = matches!(request.body, RequestBody::Scan(_));
        let known = self.remembered.contains(&request.capture);
        if let Some(fresh) = self.fresh.as_mut().filter(|_| scan && !known) {
            let named = request.challenge;
            let index = fresh.iter().position(|challenge| Some(*challenge) == named);
            if index.map(|index| fresh.remove(index)).is_none() {
                self.refused += 1;
                answer.body = AnswerBody::Refused { reason: Refusal::ChallengeNeeded };
                return vec![self.say(answer)];
            }
        }
        // One decision for each act, however often it is asked.
        if !self.remembered.contains(&request.capture) {
            self.remembered.truncate(31);
            self.remembered.push_front(request.capture);
            *self.decisions.entry(request.capture).or_default() += 1;
        }
        vec![self.say(answer)]
    }

    fn say(&mut self, mut answer: Answer) -> Wire {
        if let Some(fresh) = &mut self.fresh {
            let given = vec![ScanChallenge::from_random(random::bytes())];
            fresh.extend(&given);
            answer.challenges = Some(Challenges { lifetime_ms: 60_000, given });
        }
        let session = self.session.as_mut().unwrap();
        (Channel::Down, session.seal(encode_for_sealing(&answer).expose()).unwrap())
    }
}

type Wire = (Channel, Vec<u8>);

struct World {
    identity: Identity,
    terminal: Conversation,
    gateway: Gateway,
    now: Now,
    /// What the terminal has on disk, newest last.
    saved: Vec<Option<Vec<u8>>>,
    answered: Vec<CaptureId>,
    misunderstood: Vec<CaptureId>,
    distrusted: Vec<CaptureId>,
    /// The roster that the terminal has on disk.
    kept: Option<Kept>,
    given_up: Vec<(CaptureId, Duration, Standing)>,
    /// Messages to the gateway that are lost on the way, by position from now.
    lose_up: VecDeque<bool>,
    /// The same for messages to the terminal.
    lose_down: VecDeque<bool>,
    sealed: HashSet<Vec<u8>>,
    next_capture: u32,
    storm: Option<Storm>,
}

/// A network that loses, doubles and delays by chance.
struct Storm {
    random: u64,
    /// Messages that are still on their way, to the gateway or from it.
    late: Vec<(bool, Wire)>,
}

impl Storm {
    fn chance(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    /// How many copies of a message arrive.
    fn copies(&mut self) -> usize {
        if self.chance(30) { 0 } else { 1 + usize::from(self.chance(50)) }
    }
}

impl World {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let wall = Timestamp::from_millis(since.as_millis() as i64);
        let authority = Authority::generate("store", wall).unwrap();
        let till = identity(&authority, "till-1", Role::Client, wall);
        Self {
            terminal: Conversation::new(copy(&till), None),
            identity: till,
            gateway: Gateway {
                identity: identity(&authority, GATEWAY, Role::Both { hosts: Vec::new() }, wall),
                session: None,
                seen: HashSet::new(),
                joins: 0,
                decisions: HashMap::new(),
                remembered: VecDeque::new(),
                opened: 0,
                heard: HashSet::new(),
                fresh: None,
                refused: 0,
                lists: None,
            },
            now: Now { instant: Instant::now(), wall },
            saved: Vec::new(),
            answered: Vec::new(),
            misunderstood: Vec::new(),
            distrusted: Vec::new(),
            kept: None,
            given_up: Vec::new(),
            lose_up: VecDeque::new(),
            lose_down: VecDeque::new(),
            sealed: HashSet::new(),
            next_capture: 0,
            storm: None,
        }
    }

    fn joined() -> Self {
        let mut world = Self::new();
        world.connect();
        assert_eq!((world.terminal.standing(), world.gateway.joins), (Standing::Ready, 1));
        world.begin_to_count();
        world
    }

    /// Forgets what a new session begins with.
    fn begin_to_count(&mut self) {
        self.gateway.opened = 0;
        self.sealed.clear();
    }

    fn connect(&mut self) {
        self.terminal.connected(self.now);
        self.settle();
    }

    fn ask(&mut self) -> CaptureId {
        self.next_capture += 1;
        let number = self.next_capture.to_be_bytes();
        let capture = CaptureId::from_random(std::array::from_fn(|at| number[at % 4]));
        let request = Request::new(capture, self.now.wall, RequestBody::Ping);
        self.terminal.ask(request, DEADLINE, self.now).unwrap();
        self.settle();
        capture
    }

    /// The process starts anew from what it had saved at `state`.
    fn restart_from(&mut self, state: usize) {
        let state = self.saved[state].as_deref();
        let session = state.map(|state| Session::restore(state, &self.identity).unwrap());
        self.terminal = Conversation::new(copy(&self.identity), session);
        self.connect();
    }

    /// Carries messages until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let Batch { store, roster, actions } = self.terminal.take_batch();
            self.kept = roster.or(self.kept);
            let durable = match store {
                Store::Keep if actions.is_empty() => return,
                Store::Keep => false,
                Store::Replace(state) => {
                    self.saved.push(Some(state.expose().clone()));
                    true
                }
                Store::Delete => {
                    self.saved.push(None);
                    true
                }
            };
            for action in actions {
                match action {
                    Action::Publish(channel, payload) => {
                        assert!(durable || channel != Channel::Up, "sent before it was durable");
                        self.at_gateway(channel, payload);
                    }
                    Action::Deliver(answer) => {
                        assert!(durable, "told before it was durable");
                        self.answered.push(answer.capture);
                    }
                    Action::Misunderstand(capture) => self.misunderstood.push(capture),
                    Action::Distrust(capture) => self.distrusted.push(capture),
                    Action::GiveUp { capture, waited, standing } => {
                        self.given_up.push((capture, waited, standing));
                    }
                }
            }
        }
    }

    fn at_gateway(&mut self, channel: Channel, payload: Vec<u8>) {
        if channel == Channel::Up {
            assert!(self.sealed.insert(payload.clone()), "the same ciphertext was sent twice");
        }
        if !self.lose_up.pop_front().unwrap_or(false) {
            self.carry(true, (channel, payload));
        }
    }

    /// Delivers a message, or what the storm leaves of it.
    fn carry(&mut self, up: bool, message: Wire) {
        let Some(storm) = &mut self.storm else { return self.deliver(up, message) };
        for _ in 0..storm.copies() {
            let overtaken = self.storm.as_mut().is_some_and(|storm| storm.chance(20));
            match &mut self.storm {
                Some(storm) if overtaken => storm.late.push((up, message.clone())),
                _ => self.deliver(up, message.clone()),
            }
        }
    }

    fn deliver(&mut self, up: bool, (channel, payload): Wire) {
        match channel {
            _ if up => {
                for answer in self.gateway.take(channel, &payload, self.now.wall) {
                    self.at_terminal(answer);
                }
            }
            Channel::Welcome => self.terminal.welcome(&payload, self.now),
            Channel::Down => self.terminal.down(&payload, self.now),
            other => panic!("the gateway wrote to {other:?}"),
        }
    }

    /// What was overtaken arrives, the newest first.
    fn late_arrivals(&mut self) {
        let late = self.storm.as_mut().map(|storm| mem::take(&mut storm.late));
        for (up, message) in late.into_iter().flatten().rev() {
            self.deliver(up, message);
            self.settle();
        }
    }

    fn at_terminal(&mut self, (channel, payload): Wire) {
        if !self.lose_down.pop_front().unwrap_or(false) {
            self.carry(false, (channel, payload));
        }
    }

    /// Lets time pass, waking the terminal exactly when it asks to be woken.
    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        let mut wakes = 0;
        while let Some(wake) = self.terminal.wake_at(self.now.instant).filter(|at| *at <= end) {
            self.now.instant = wake.max(self.now.instant);
            self.terminal.tick(self.now);
            self.settle();
            wakes += 1;
            assert!(wakes < 1000, "the terminal never sleeps");
        }
        self.now.instant = end;
    }
}

#[test]
fn a_newcomer_joins_by_itself_and_is_answered() {
    let mut world = World::joined();
    let capture = world.ask();
    assert_eq!(world.answered, [capture]);
    assert_eq!(world.gateway.opened, 1);
}

#[test]
fn a_request_made_before_the_connection_is_sent_once_there_is_one() {
    let mut world = World::new();
    let capture = world.ask();
    assert_eq!(world.terminal.standing(), Standing::Offline);
    world.pass(SECOND);
    world.connect();
    assert_eq!(world.answered, [capture]);
}

#[test]
fn a_session_continues_after_a_restart() {
    let mut world = World::joined();
    world.ask();
    world.restart_from(world.saved.len() - 1);
    assert_eq!(world.terminal.standing(), Standing::Ready, "the gateway proved itself");
    let capture = world.ask();
    assert_eq!(world.answered.last(), Some(&capture));
    assert_eq!(world.gateway.joins, 1);
}

#[test]
fn a_state_from_a_backup_leads_to_a_rejoin_before_anybody_asks() {
    let mut world = World::joined();
    (0..3).for_each(|_| _ = world.ask());
    world.restart_from(0);
    assert_eq!((world.gateway.joins, world.terminal.standing()), (2, Standing::Ready));
    let capture = world.ask();
    assert_eq!(world.answered.last(), Some(&capture));
}

#[test]
fn a_lost_request_or_answer_is_asked_for_again_and_decided_once() {
    let mut world = World::joined();
    world.lose_up = [true].into();
    let lost = world.ask();
    assert!(world.answered.is_empty());
    world.pass(SECOND);
    assert_eq!(world.answered, [lost]);
    world.lose_down = [true, true].into();
    let unheard = world.ask();
    world.pass(SECOND);
    assert_eq!(world.answered, [lost], "two answers were lost");
    world.pass(2 * SECOND);
    assert_eq!(world.answered, [lost, unheard]);
    assert_eq!(world.gateway.decisions[&unheard], 1);
    assert_eq!((world.gateway.opened, world.gateway.joins), (4, 1));
    world.pass(DEADLINE);
    assert!(world.given_up.is_empty());
}

#[test]
fn an_unanswered_request_is_given_up_in_time() {
    let mut world = World::joined();
    world.lose_up = [true; 9].into();
    let capture = world.ask();
    world.pass(DEADLINE);
    assert_eq!(world.given_up, [(capture, DEADLINE, Standing::Ready)]);
    assert_eq!(world.sealed.len(), 4, "sent at 0, 1 and 3 seconds, then is anybody there?");
    world.terminal.disconnected();
    let capture = world.ask();
    world.pass(DEADLINE);
    assert_eq!(world.given_up[1], (capture, DEADLINE, Standing::Offline));
    assert_eq!(world.terminal.wake_at(world.now.instant), None);
}

#[test]
fn a_gateway_that_fell_silent_shows_and_so_does_its_return() {
    let mut world = World::joined();
    world.lose_up = [true; 4].into();
    world.ask();
    world.pass(DEADLINE);
    assert_eq!(world.terminal.standing(), Standing::Joining);
    world.pass(SECOND);
    assert_eq!((world.terminal.standing(), world.gateway.joins), (Standing::Ready, 1));
    world.lose_up = [true; 6].into();
    world.ask();
    world.pass(2 * DEADLINE);
    assert_eq!((world.terminal.standing(), world.gateway.joins), (Standing::Ready, 2));
}

#[test]
fn a_gateway_that_lost_the_session_is_joined_anew_without_losing_the_request() {
    let mut world = World::joined();
    world.pass(2 * SECOND);
    world.gateway.session = None;
    let capture = world.ask();
    assert_eq!((world.answered, world.gateway.joins), (vec![capture], 2));
}

#[test]
fn a_lost_welcome_is_asked_for_again() {
    let mut world = World::new();
    world.lose_down = [true, true].into();
    world.connect();
    let capture = world.ask();
    assert_eq!(world.terminal.standing(), Standing::Joining);
    world.pass(9 * SECOND);
    assert_eq!((world.terminal.standing(), world.gateway.joins), (Standing::Ready, 3));
    assert_eq!(world.given_up, [(capture, DEADLINE, Standing::Joining)]);
}

#[test]
fn an_old_or_invented_welcome_only_delays_the_right_one() {
    for replay in [true, false] {
        let mut world = World::new();
        let (_, old) = mls::request_to_join(&world.identity, world.now.wall).unwrap();
        let [(_, welcome)] = &world.gateway.admit(&old, world.now.wall)[..] else { panic!() };
        let intruder = if replay { welcome.clone() } else { b"welcome".to_vec() };
        world.lose_up = [true].into();
        world.connect();
        world.terminal.welcome(&intruder, world.now);
        world.settle();
        assert_eq!(world.terminal.standing(), Standing::Joining);
        world.pass(2 * SECOND);
        assert_eq!(world.terminal.standing(), Standing::Ready);
    }
}

#[test]
fn a_flood_of_hints_and_forgeries_costs_one_rejoin_in_two_seconds() {
    let mut world = World::joined();
    for _ in 0..100 {
        world.pass(SECOND / 10);
        for forgery in [&b""[..], b"not a welcome"] {
            world.terminal.welcome(forgery, world.now);
        }
        world.terminal.down(b"not a message", world.now);
        world.settle();
    }
    assert!((2..=6).contains(&world.gateway.joins), "{}", world.gateway.joins);
    world.pass(2 * SECOND);
    let capture = world.ask();
    assert_eq!(world.answered, [capture]);
}

#[test]
fn a_replayed_answer_is_told_once_and_causes_no_rejoin() {
    let mut world = World::joined();
    world.pass(2 * SECOND);
    let mut answers = Vec::new();
    let capture = CaptureId::from_random([200; 16]);
    let request = Request::new(capture, world.now.wall, RequestBody::Ping);
    world.terminal.ask(request, DEADLINE, world.now).unwrap();
    for action in world.terminal.take_batch().actions {
        let Action::Publish(channel, payload) = action else { panic!("not published") };
        answers.extend(world.gateway.take(channel, &payload, world.now.wall));
    }
    for answer in [answers.clone(), answers].concat() {
        world.at_terminal(answer);
        world.settle();
    }
    assert_eq!((world.answered, world.gateway.joins), (vec![capture], 1));
}

#[test]
fn a_change_of_keys_is_followed() {
    let mut world = World::joined();
    let commit = world.gateway.session.as_mut().unwrap().self_update().unwrap();
    let saved = world.saved.len();
    world.at_terminal((Channel::Down, commit));
    world.settle();
    assert_eq!(world.saved.len(), saved + 1, "the new keys are durable");
    let capture = world.ask();
    assert_eq!((world.answered, world.gateway.joins), (vec![capture], 1));
}

#[test]
fn a_session_that_is_left_is_deleted_before_the_next_is_asked_for() {
    let mut world = World::joined();
    world.pass(2 * SECOND);
    world.terminal.welcome(b"", world.now);
    let Batch { store, actions, .. } = world.terminal.take_batch();
    assert!(matches!(store, Store::Delete));
    assert!(matches!(actions[..], [Action::Publish(Channel::Join, _)]));
}

#[test]
fn an_answer_of_a_newer_gateway_is_reported_instead_of_waited_for() {
    let mut world = World::joined();
    let capture = CaptureId::from_random([9; 16]);
    let request = Request::new(capture, world.now.wall, RequestBody::Ping);
    world.terminal.ask(request, DEADLINE, world.now).unwrap();
    // Capture in field 0, and in field 1 an answer of a kind that this version has no name for.
    let newer = [&[0x82, 0x50][..], &[9; 16], &[0x82, 0x18, 0x63, 0x80]].concat();
    let message = world.gateway.session.as_mut().unwrap().seal(&newer).unwrap();
    world.at_terminal((Channel::Down, message));
    world.lose_up = [true].into();
    world.settle();
    assert_eq!(world.misunderstood, [capture]);
}

#[test]
fn a_removed_terminal_is_answered_no_more() {
    let mut world = World::joined();
    let removal = world.gateway.session.as_mut().unwrap().remove_peer().unwrap();
    world.lose_up = [true; 99].into();
    world.at_terminal((Channel::Down, removal));
    world.settle();
    assert_eq!(world.terminal.standing(), Standing::Joining);
    let capture = world.ask();
    world.pass(DEADLINE);
    assert_eq!(world.given_up, [(capture, DEADLINE, Standing::Joining)]);
}

#[test]
fn frames_are_wiped_in_time_with_or_without_a_connection() {
    for mut world in [World::new(), World::joined()] {
        world.lose_up = [true; 9].into();
        let capture = CaptureId::from_random([1; 16]);
        let request = Request::new(capture, world.now.wall, RequestBody::Ping);
        world.terminal.ask(request, 3 * DEADLINE, world.now).unwrap();
        world.pass(limits::FRAMES_LIFETIME);
        let mut all = world.terminal.exchanges.iter_mut();
        let waiting = all.find(|e| e.capture() == capture).unwrap();
        assert!(waiting.request(0).is_none());
    }
}

#[test]
fn a_caller_who_left_is_forgotten() {
    let mut world = World::joined();
    world.lose_up = [true].into();
    let capture = world.ask();
    world.terminal.forget(|left| left == capture);
    world.pass(DEADLINE);
    assert!(world.answered.is_empty() && world.given_up.is_empty());
    assert_eq!(world.gateway.opened, 0);
}

#[test]
fn requests_that_wait_are_bounded_in_number_and_size() {
    let mut world = World::new();
    (0..MAX_WAITING).for_each(|_| _ = world.ask());
    let request = |capture, body| {
        Request::new(CaptureId::from_random([capture; 16]), Timestamp::from_millis(0), body)
    };
    let one_more = world.terminal.ask(request(99, RequestBody::Ping), DEADLINE, world.now);
    assert!(matches!(one_more, Err(TerminalError::TooMany(MAX_WAITING))));
    let mut world = World::new();
    let frames = || {
        let picture = palmgate_protocol::Biometric::new(vec![0; limits::MAX_FRAME_BYTES]);
        vec![palmgate_protocol::terminal::Frame {
            band: palmgate_protocol::terminal::Band::Visible,
            picture,
            region_of: None,
        }]
    };
    let capture = || palmgate_protocol::terminal::HandCapture {
        hand: palmgate_protocol::Hand::Left,
        frames: frames(),
    };
    let captures = (0..6).map(|_| capture()).collect();
    let mut enrolment = crate::simulated::enrolment(&[], Vec::new()).unwrap();
    enrolment.captures = captures;
    let large = request(1, RequestBody::Enrol(enrolment));
    let refused = world.terminal.ask(large, DEADLINE, world.now);
    assert!(matches!(refused, Err(TerminalError::OverLimit { .. })));
}

/// Random histories: a third of all messages lost, restarts of either side, broken connections.
/// Whatever happened, a healed network brings answers again within seconds.
#[test]
fn whatever_happens_the_two_find_each_other_again() {
    for seed in 1..=40_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut chance = move |of: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % of == 0
        };
        let mut world = World::new();
        world.connect();
        for _ in 0..60 {
            world.lose_up = (0..20).map(|_| chance(3)).collect();
            world.lose_down = (0..20).map(|_| chance(3)).collect();
            if chance(2) && world.next_capture < 100 {
                world.ask();
            }
            if chance(8) {
                world.gateway.session = None;
            }
            if chance(8) && !world.saved.is_empty() {
                world.restart_from(world.saved.len() - 1);
            }
            if chance(8) {
                world.terminal.disconnected();
                world.pass(SECOND / 4);
                world.connect();
            }
            world.pass(SECOND / 2);
        }
        (world.lose_up, world.lose_down) = Default::default();
        world.pass(15 * SECOND);
        let capture = world.ask();
        world.pass(DEADLINE);
        assert_eq!(world.answered.last(), Some(&capture), "seed {seed}");
        assert!(world.gateway.decisions.values().all(|decisions| *decisions == 1));
    }
}

/// Twenty-four hours of a network that loses 30 %, doubles 50 % and lets messages overtake each
/// other, with a gateway that restarts and connections that break.
#[test]
fn a_day_in_a_storm_gives_one_decision_a_capture() {
    let mut world = World::new();
    world.storm = Some(Storm { random: 0x9E37_79B9_7F4A_7C15, late: Vec::new() });
    world.connect();
    for minute in 1..=24 * 60_u32 {
        world.ask();
        for _ in 0..12 {
            world.pass(SECOND / 2);
            world.late_arrivals();
        }
        if minute % 30 == 0 {
            world.terminal.disconnected();
            world.pass(10 * SECOND);
            world.connect();
        }
        if minute % 50 == 0 {
            world.gateway.session = None;
        }
        world.pass(44 * SECOND);
        world.late_arrivals();
    }
    let decided = &world.gateway.decisions;
    assert!(decided.values().all(|decisions| *decisions == 1));
    let told: HashSet<_> = world.answered.iter().collect();
    assert_eq!(told.len(), world.answered.len(), "each is told once");
    println!("1440 captures, {} answered in time", told.len());
    assert!(told.len() > 720, "{} of 1440", told.len());

    world.storm = None;
    world.pass(5 * SECOND);
    let capture = world.ask();
    assert_eq!(world.answered.last(), Some(&capture), "at once, five seconds after the storm");
}
