//! Random lives of several people at once, with a reference model beside the engine. The gallery is
//! the worst one possible: it finds everybody who was ever enrolled, forgotten people included.
//!
//! More than a million steps with every run of the tests; `PROPTEST_CASES` asks for more.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    CaptureFacts, ClaimPresented, Command, Engine, EnrolmentFacts, Event, FreshIds, Match, Profile,
    Proof, RecordFacts, ScanFacts, Sensor, Settings, TerminalFacts, Ticket, TimeSeen,
};
use palmgate_protocol::{
    ClaimHandle, Custody, DAY, Hand, MemberId, Name, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{Age, Authorisation, ConsentGiven, Intent, Payment},
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::{collections::BTreeMap, time::Duration};

const PEOPLE: u8 = 6;
const START: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const SHOPPING: [Purpose; 3] = [Purpose::Pay, Purpose::Loyalty, Purpose::Entry];

#[derive(Clone, Debug)]
enum Step {
    Enrol(u8, Vec<Purpose>),
    Employ(u8, i64),
    Correct(u8, Vec<Purpose>),
    Scan(u8, Purpose, u64),
    Withdraw(u8, Purpose),
    Pause(u8),
    Resume(u8),
    Erase(u8),
    Authenticate(u8),
    Arrive(u8, i64),
    Leave(u8),
    Pass(i64),
    Backwards(i64),
    Tick,
    Restart,
}

#[derive(Clone, Debug)]
struct Person {
    generation: u8,
    store: bool,
    consents: BTreeMap<Purpose, i64>,
    authorised: i64,
    paused: bool,
    expires: i64,
    spent: (u64, u64),
}

/// What must be true, kept as simply as possible.
#[derive(Clone, Debug, Default)]
struct World {
    now: i64,
    latest: i64,
    lease: i64,
    people: BTreeMap<u8, Person>,
    generations: BTreeMap<u8, u8>,
    /// Whether the last step had its way.
    done: bool,
}

impl World {
    fn fresh(&self) -> bool {
        self.now.abs_diff(self.latest) <= 60_000
    }

    fn basis(&self, person: &Person, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Staff => self.latest < person.authorised,
            _ => person.consents.get(&purpose).is_some_and(|ends| self.latest < *ends),
        }
    }

    fn leased(&self, person: &Person) -> bool {
        person.store || self.latest < self.lease
    }

    /// The person shows their hand to exercise a right.
    fn known(&self, who: u8) -> bool {
        self.fresh()
            && self.people.get(&who).is_some_and(|person| {
                self.leased(person) && Purpose::MATCHED.iter().any(|p| self.basis(person, *p))
            })
    }

    fn accepted(&self, who: u8, purpose: Purpose, cents: u64) -> bool {
        let Some(person) = self.people.get(&who) else { return false };
        let (total, count) = person.spent;
        let paid =
            purpose != Purpose::Pay || (cents <= 5_000 && count < 5 && total + cents <= 15_000);
        self.fresh()
            && paid
            && self.basis(person, purpose)
            && self.leased(person)
            && !person.paused
            && self.latest < person.expires
    }

    fn expiry(&self, person: &Person) -> i64 {
        let consented = person.consents.iter().filter(|(of, _)| **of != Purpose::Roaming);
        let consented = consented.map(|(_, ends)| *ends).max();
        let authorised = (person.authorised > 0).then_some(person.authorised);
        let basis = consented.max(authorised).unwrap_or(self.latest);
        basis.min(self.latest + 180 * DAY_MS)
    }

    fn forget(&mut self, who: u8) {
        self.people.remove(&who);
    }

    fn newcomer(&mut self, who: u8, person: Person) {
        let generation = self.generations.entry(who).or_default();
        *generation += 1;
        let person = Person { generation: *generation, ..person };
        self.people.insert(who, person);
    }
}

struct Lives;

impl ReferenceStateMachine for Lives {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        Just(World { now: START, latest: START, ..World::default() }).boxed()
    }

    fn transitions(_: &World) -> BoxedStrategy<Step> {
        let who = || 0..PEOPLE;
        let shopping = || prop::sample::select(SHOPPING.to_vec());
        let any = || prop::sample::select(Purpose::MATCHED.to_vec());
        prop_oneof![
            4 => (who(), prop::sample::subsequence(SHOPPING.to_vec(), 1..=3))
                .prop_map(|(who, purposes)| Step::Enrol(who, purposes)),
            1 => (who(), 1_i64..40).prop_map(|(who, days)| Step::Employ(who, days)),
            1 => (who(), prop::sample::subsequence(SHOPPING.to_vec(), 1..=3))
                .prop_map(|(who, purposes)| Step::Correct(who, purposes)),
            12 => (who(), any(), 0_u64..6_000).prop_map(|(who, p, cents)| Step::Scan(who, p, cents)),
            2 => (who(), shopping()).prop_map(|(who, purpose)| Step::Withdraw(who, purpose)),
            1 => who().prop_map(Step::Pause),
            1 => who().prop_map(Step::Resume),
            1 => who().prop_map(Step::Erase),
            1 => who().prop_map(Step::Authenticate),
            1 => (who(), 1_i64..5).prop_map(|(who, days)| Step::Arrive(who, days)),
            1 => who().prop_map(Step::Leave),
            3 => (1_i64..3_000).prop_map(|minutes| Step::Pass(minutes * MINUTE)),
            1 => (1_i64..200).prop_map(|days| Step::Pass(days * DAY_MS)),
            1 => (1_i64..400_000).prop_map(Step::Backwards),
            3 => Just(Step::Tick),
            1 => Just(Step::Restart),
        ]
        .boxed()
    }

    #[allow(clippy::too_many_lines, reason = "an arm for each step")]
    fn apply(mut world: World, step: &Step) -> World {
        match step {
            Step::Pass(millis) => world.now = world.now.max(world.latest) + millis,
            Step::Backwards(millis) => world.now -= millis,
            _ => (),
        }
        world.latest = world.latest.max(world.now);
        let now = world.latest;
        world.done = false;
        match step {
            Step::Enrol(who, purposes) if world.fresh() && !world.people.contains_key(who) => {
                let consents = purposes.iter().map(|p| (*p, now + 365 * DAY_MS)).collect();
                let mut person = Person {
                    generation: 0,
                    store: true,
                    consents,
                    authorised: 0,
                    paused: false,
                    expires: 0,
                    spent: (0, 0),
                };
                person.expires = world.expiry(&person);
                world.newcomer(*who, person);
                world.done = true;
            }
            Step::Employ(who, days) if world.fresh() && !world.people.contains_key(who) => {
                let mut person = Person {
                    generation: 0,
                    store: true,
                    consents: BTreeMap::new(),
                    authorised: now + days * DAY_MS,
                    paused: false,
                    expires: 0,
                    spent: (0, 0),
                };
                person.expires = world.expiry(&person);
                world.newcomer(*who, person);
                world.done = true;
            }
            Step::Correct(who, purposes) => {
                world.done = world.known(*who);
                if world.done {
                    let old = world.people[who].clone();
                    let consents = purposes.iter().map(|p| (*p, now + 365 * DAY_MS)).collect();
                    let mut person =
                        Person { store: true, consents, authorised: 0, expires: 0, ..old };
                    person.expires = world.expiry(&person);
                    world.newcomer(*who, person);
                }
            }
            Step::Scan(who, purpose, cents) => {
                world.done = world.accepted(*who, *purpose, *cents);
                if world.done {
                    let expiry = world.people.get(who).map(|person| world.expiry(person)).unwrap();
                    let person = world.people.get_mut(who).unwrap();
                    if expiry - person.expires >= DAY_MS {
                        person.expires = expiry;
                    }
                    if *purpose == Purpose::Pay {
                        person.spent = (person.spent.0 + cents, person.spent.1 + 1);
                    }
                }
            }
            Step::Withdraw(who, purpose) => {
                world.done = world.known(*who);
                if world.done {
                    let person = world.people.get_mut(who).unwrap();
                    person.consents.remove(purpose);
                    let roaming = usize::from(person.consents.contains_key(&Purpose::Roaming));
                    if person.consents.len() == roaming && person.authorised == 0 {
                        world.forget(*who);
                    }
                }
            }
            Step::Pause(who) | Step::Resume(who) => {
                world.done = world.known(*who);
                if world.done {
                    world.people.get_mut(who).unwrap().paused = matches!(step, Step::Pause(_));
                }
            }
            Step::Erase(who) => {
                world.done = world.known(*who);
                if world.done {
                    world.forget(*who);
                }
            }
            Step::Authenticate(who) => {
                if let Some(person) = world.people.get_mut(who) {
                    person.spent = (0, 0);
                }
            }
            Step::Arrive(who, days) => {
                world.lease = now + days * DAY_MS;
                if world.people.get(who).is_none_or(|person| !person.store) {
                    let ends = now + 365 * DAY_MS;
                    let spent = world.people.get(who).map_or((0, 0), |person| person.spent);
                    let again = world.people.contains_key(who);
                    let person = Person {
                        generation: 0,
                        store: false,
                        consents: [(Purpose::Loyalty, ends), (Purpose::Roaming, ends)].into(),
                        authorised: 0,
                        paused: false,
                        expires: ends,
                        spent,
                    };
                    if again {
                        let generation = world.generations[who];
                        world.people.insert(*who, Person { generation, ..person });
                    } else {
                        world.newcomer(*who, person);
                    }
                }
            }
            Step::Leave(who) => {
                world.lease = now + DAY_MS;
                world.forget(*who);
            }
            Step::Tick => {
                let gone = |person: &Person| {
                    let live = person.consents.keys().filter(|p| **p != Purpose::Roaming);
                    let live = live.copied().any(|p| world.basis(person, p))
                        || world.basis(person, Purpose::Staff);
                    !live || now >= person.expires
                };
                let gone: Vec<u8> =
                    world.people.iter().filter(|(_, p)| gone(p)).map(|(who, _)| *who).collect();
                for who in gone {
                    world.forget(who);
                }
            }
            _ => (),
        }
        world
    }
}

/// The engine with a disk that does what it is told.
struct Machine {
    engine: Engine,
    disk: BTreeMap<MemberId, Profile>,
    lease: Option<Timestamp>,
    generations: BTreeMap<u8, u8>,
    next: u64,
    now: Timestamp,
    latest: Timestamp,
}

fn member(who: u8, generation: u8) -> MemberId {
    let mut id = [who; 16];
    id[0] = generation;
    MemberId::from_random(id)
}

fn till() -> Name {
    "till".parse().unwrap()
}

fn engine() -> Engine {
    let mut engine = Engine::new(Settings {
        custody: Custody::Operator,
        purposes: Purpose::MATCHED.into_iter().collect(),
        thresholds: [0.5; 4],
        zones: vec!["vault".into()],
        notice: "n".into(),
        ..Settings::default()
    });
    let purposes = Purpose::MATCHED.into_iter().collect();
    let facts = TerminalFacts { name: till(), purposes, enrols: true };
    engine.handle(Event::TerminalKnown(facts), Timestamp::from_millis(0));
    engine
}

impl Machine {
    fn tell(&mut self, event: Event) -> Vec<Command> {
        let commands = self.engine.handle(event, self.now);
        for command in &commands {
            match command {
                Command::Store(_, member, profile)
                | Command::Update(member, profile)
                | Command::Adopt(_, member, profile)
                | Command::RemovePurposes(_, member, _, profile) => {
                    self.disk.insert(*member, (**profile).clone());
                }
                Command::AdoptShard(_, people) => self.disk.extend(people.iter().cloned()),
                Command::Erase { member, .. } => drop(self.disk.remove(member)),
                _ => (),
            }
        }
        let erased: Vec<MemberId> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Erase { member, .. } => Some(*member),
                _ => None,
            })
            .collect();
        for member in erased {
            self.tell(Event::Erased(member, Ok(())));
        }
        commands
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn enrol(
        &mut self,
        who: u8,
        purposes: &[Purpose],
        authorisation: Option<Authorisation>,
        correct: bool,
    ) -> bool {
        let generation = self.generations.get(&who).copied().unwrap_or(0) + 1;
        let ticket = self.ticket();
        let consent = |purpose: &Purpose| ConsentGiven {
            purpose: *purpose,
            notice: "n".into(),
            language: "fr".into(),
            confirmed: true,
        };
        let mut claim = [who; 16];
        claim[0] = generation;
        let facts = EnrolmentFacts {
            terminal: till(),
            at: self.now,
            captures: vec![Hand::Right],
            frames: 1,
            consents: purposes.iter().map(consent).collect(),
            age: Age::Adult,
            card_token: true,
            card_number: false,
            authorisation,
            release: None,
            replaces: correct.then_some(ClaimPresented::None),
            sensor: Sensor::Silent,
            ids: FreshIds {
                member: member(who, generation),
                claim: ClaimHandle::from_random(claim),
                pseudonyms: [Pseudonym::from_random([who; 16]); 4],
                salt: [who; 32],
            },
        };
        self.tell(Event::Enrol(ticket, Box::new(facts)));
        self.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        let current = member(who, generation - 1);
        let found = |purpose| Match { member: current, purpose, score: 0.9 };
        let found = Purpose::MATCHED.into_iter().filter(|_| correct).map(found).collect();
        let stored = self.tell(Event::Identified(ticket, found));
        if !matches!(stored.as_slice(), [Command::Store(..)]) {
            return false;
        }
        self.generations.insert(who, generation);
        self.tell(Event::Stored(ticket, Ok(())));
        true
    }

    /// Everybody looks like their last self, enrolled or not.
    fn show(&mut self, who: u8, intent: Intent, purposes: &[Purpose]) -> Vec<Command> {
        let ticket = self.ticket();
        let facts = ScanFacts {
            terminal: till(),
            at: self.now,
            intent,
            claim: ClaimPresented::None,
            ask_cloud: false,
            frames: 1,
            authenticated: false,
            card_number: false,
            possession: Proof::None,
            sensor: Sensor::Silent,
        };
        self.tell(Event::Scan(ticket, facts));
        self.tell(Event::Extracted(ticket, Ok(LIVE)));
        let member = member(who, self.generations.get(&who).copied().unwrap_or(0));
        let found = |purpose: &Purpose| Match { member, purpose: *purpose, score: 0.9 };
        self.tell(Event::Identified(ticket, purposes.iter().map(found).collect()))
    }

    fn exercise(&mut self, who: u8, intent: Intent) -> bool {
        let commands = self.show(who, intent, &Purpose::MATCHED);
        commands.iter().any(|command| {
            matches!(
                command,
                Command::Update(..) | Command::RemovePurposes(..) | Command::Erase { .. }
            )
        })
    }

    fn shard(&mut self, people: Vec<RecordFacts>, removed: Vec<MemberId>, days: i64) {
        let lease_until = self.engine_now().after(DAY * days as u32);
        self.lease = Some(lease_until);
        let event = Event::ShardOffered { version: 1, lease_until, whole: false, people, removed };
        self.tell(event);
    }

    /// The engine's time, which never runs backwards.
    fn engine_now(&self) -> Timestamp {
        self.now.max(self.latest)
    }
}

const LIVE: CaptureFacts = CaptureFacts { liveness: 1.0, multispectral: true };

impl StateMachineTest for Lives {
    type SystemUnderTest = Machine;
    type Reference = Self;

    fn init_test(world: &World) -> Machine {
        let mut engine = engine();
        let now = Timestamp::from_millis(world.now);
        let seen = TimeSeen { latest: world.now, doubt: None };
        engine.handle(Event::TimeSeen(seen), now);
        Machine {
            engine,
            disk: BTreeMap::new(),
            lease: None,
            generations: BTreeMap::new(),
            next: 0,
            now,
            latest: now,
        }
    }

    fn apply(mut sut: Machine, world: &World, step: Step) -> Machine {
        sut.now = Timestamp::from_millis(world.now);
        sut.latest = Timestamp::from_millis(world.latest);
        let done = match step {
            Step::Enrol(who, purposes) => {
                let absent = who_is_absent(&sut, who);
                absent && sut.enrol(who, &purposes, None, false)
            }
            Step::Employ(who, days) => {
                let until = sut.engine_now().after(DAY * days as u32);
                let authorisation = Authorisation { zone: "vault".into(), until };
                who_is_absent(&sut, who) && sut.enrol(who, &[], Some(authorisation), false)
            }
            Step::Correct(who, purposes) => sut.enrol(who, &purposes, None, true),
            Step::Scan(who, purpose, cents) => {
                let intent = match purpose {
                    Purpose::Pay => Intent::Pay(Payment {
                        minor_units: cents,
                        currency: "EUR".into(),
                        payee: "till".into(),
                        nonce: [0; 16],
                    }),
                    Purpose::Loyalty => Intent::Loyalty,
                    Purpose::Entry => Intent::Entry,
                    Purpose::Staff | Purpose::Roaming => Intent::Staff { zone: "vault".into() },
                };
                let commands = sut.show(who, intent, &[purpose]);
                commands.iter().any(|command| matches!(command, Command::Accept { .. }))
            }
            Step::Withdraw(who, purpose) => {
                let purposes = PurposeSet::default().with(purpose);
                sut.exercise(who, Intent::Withdraw { purposes })
            }
            Step::Pause(who) => sut.exercise(who, Intent::Pause),
            Step::Resume(who) => sut.exercise(who, Intent::Resume),
            Step::Erase(who) => sut.exercise(who, Intent::Erase),
            Step::Authenticate(who) => {
                let generation = sut.generations.get(&who).copied().unwrap_or(0);
                sut.tell(Event::Authenticated(member(who, generation)));
                false
            }
            Step::Arrive(who, days) => {
                let absent = who_is_absent(&sut, who);
                let generation = sut.generations.entry(who).or_default();
                *generation += u8::from(absent);
                let generation = *generation;
                let ends = sut.engine_now().after(365 * DAY);
                let consent = |purpose| Consent {
                    purpose,
                    given_at: sut.now,
                    expires_at: ends,
                    notice: "n".into(),
                    language: "fr".into(),
                };
                let mut claim = [who; 16];
                claim[0] = generation;
                let record = RecordFacts {
                    member: member(who, generation),
                    claim: ClaimHandle::from_random(claim),
                    custody: Custody::Operator,
                    consents: vec![consent(Purpose::Loyalty), consent(Purpose::Roaming)],
                    hands: vec![(Purpose::Loyalty, Hand::Right)],
                    pseudonyms: vec![(Purpose::Loyalty, Pseudonym::from_random([who; 16]))],
                    expires_at: ends,
                    salt: [who; 32],
                };
                sut.shard(vec![record], Vec::new(), days);
                false
            }
            Step::Leave(who) => {
                let generation = sut.generations.get(&who).copied().unwrap_or(0);
                sut.shard(Vec::new(), vec![member(who, generation)], 1);
                false
            }
            Step::Pass(_) | Step::Backwards(_) => {
                sut.tell(Event::TimeConfirmed(sut.engine_now()));
                false
            }
            Step::Tick => {
                sut.tell(Event::Tick);
                false
            }
            Step::Restart => {
                let seen = sut.engine.time_seen();
                sut.engine = engine();
                sut.tell(Event::TimeSeen(seen));
                if let Some(lease) = sut.lease {
                    sut.tell(Event::LeaseLoaded(lease));
                }
                for (member, profile) in sut.disk.clone() {
                    sut.tell(Event::Loaded(member, Box::new(profile)));
                }
                false
            }
        };
        assert_eq!(done, world.done, "at {world:?}");
        sut
    }

    fn check_invariants(sut: &Machine, world: &World) {
        let known = world.people.iter().all(|(who, person)| {
            let member = member(*who, person.generation);
            sut.engine.knows(&member) && sut.disk.contains_key(&member)
        });
        assert!(known, "somebody was forgotten who should not be: {world:?}");
        assert_eq!(sut.disk.len(), world.people.len(), "somebody is kept: {world:?}");
    }
}

fn who_is_absent(sut: &Machine, who: u8) -> bool {
    let generation = sut.generations.get(&who).copied().unwrap_or(0);
    !sut.engine.knows(&member(who, generation))
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        // Sixty steps each at least.
        cases: ProptestConfig::default().cases.max(17_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_happens_nobody_is_recognised_without_a_live_basis(
        sequential 60..80 => Lives
    );
}

#[test]
fn a_jump_of_the_clock_erases_few_people_until_it_is_confirmed() {
    let mut sut = Lives::init_test(&World { now: START, latest: START, ..World::default() });
    for who in 0..30 {
        assert!(sut.enrol(who, &[Purpose::Entry], None, false));
    }
    sut.now = sut.now.after(400 * DAY);
    for _ in 0..5 {
        sut.tell(Event::Tick);
    }
    assert_eq!(sut.disk.len(), 20, "ten at most, and nobody is matched meanwhile");
    let accepted = |commands: &[Command]| {
        commands.iter().any(|command| matches!(command, Command::Accept { .. }))
    };
    for who in 0..30 {
        assert!(!accepted(&sut.show(who, Intent::Entry, &[Purpose::Entry])));
    }
    sut.tell(Event::TimeConfirmed(sut.now));
    sut.tell(Event::Tick);
    assert!(sut.disk.is_empty());
    // Small steps need no confirmation.
    assert!(sut.enrol(40, &[Purpose::Entry], None, false));
    for _ in 0..370 {
        sut.now = sut.now.after(Duration::from_hours(24));
        sut.tell(Event::Tick);
    }
    assert!(sut.disk.is_empty());
}
