//! What the engine decides, act by act.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    CaptureFacts, ClaimFacts, ClaimPresented, Command, Engine, EnrolmentFacts, Event, FreshIds,
    Match, Profile, Proof, RecordFacts, ReleaseFacts, Resolved, ScanFacts, Settings, Source,
    TerminalFacts, Ticket,
};
use palmgate_protocol::{
    ClaimHandle, Custody, DAY, Hand, MemberId, Name, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{Age, AnswerBody, CaptureProblem, ConsentGiven, Intent, Payment, Refusal},
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOTICE: &str = "notice-1";

struct Store {
    engine: Engine,
    now: Timestamp,
    next: u64,
}

impl Store {
    fn new(custody: Custody) -> Self {
        let settings = Settings {
            custody,
            purposes: Purpose::MATCHED.into_iter().collect(),
            escalation: true,
            thresholds: [0.6, 0.5, 0.5, 0.5],
            zones: vec!["vault".into()],
            notice: NOTICE.into(),
            ..Settings::default()
        };
        let mut engine = Engine::new(settings);
        let facts = TerminalFacts {
            name: name("till"),
            purposes: Purpose::MATCHED.into_iter().collect(),
            enrols: true,
        };
        engine.handle(Event::TerminalKnown(facts), START);
        Self { engine, now: START, next: 0 }
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        self.engine.handle(event, self.now)
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Enrols person `number` and returns who they are.
    fn enrol(&mut self, number: u8, purposes: &[Purpose]) -> MemberId {
        let ticket = self.ticket();
        let facts = self.enrolment(number, purposes);
        let member = facts.ids.member;
        let mut commands = self.tell(Event::Enrol(ticket, Box::new(facts)));
        assert!(
            matches!(commands.as_slice(), [Command::ExtractEnrolment(..)]),
            "{}",
            shown(&commands)
        );
        commands = self.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        if matches!(commands.as_slice(), [Command::Identify(..)]) {
            commands = self.tell(Event::Identified(ticket, Vec::new()));
        }
        assert!(matches!(commands.as_slice(), [Command::Store(..)]), "{}", shown(&commands));
        commands = self.tell(Event::Stored(ticket, Ok(())));
        assert!(matches!(commands[0], Command::ReplyEnrolled(_)));
        member
    }

    fn enrolment(&self, number: u8, purposes: &[Purpose]) -> EnrolmentFacts {
        EnrolmentFacts {
            terminal: name("till"),
            at: self.now,
            captures: vec![Hand::Right; 3],
            frames: 3,
            consents: purposes.iter().map(|purpose| consent(*purpose)).collect(),
            age: Age::Adult,
            card_token: true,
            card_number: false,
            authorisation: None,
            release: None,
            replaces: None,
            ids: FreshIds {
                member: MemberId::from_random([number; 16]),
                claim: ClaimHandle::from_random([number; 16]),
                pseudonyms: [Pseudonym::from_random([number; 16]); 4],
                salt: [number; 32],
            },
        }
    }

    fn facts(&self, intent: Intent) -> ScanFacts {
        let claim = ClaimPresented::None;
        ScanFacts {
            terminal: name("till"),
            at: self.now,
            intent,
            claim,
            ask_cloud: false,
            frames: 1,
            authenticated: false,
            card_number: false,
            possession: Proof::None,
        }
    }

    fn scan(&mut self, facts: ScanFacts) -> (Ticket, Vec<Command>) {
        let ticket = self.ticket();
        let commands = self.tell(Event::Scan(ticket, facts));
        (ticket, commands)
    }

    /// Scans for `intent`, with the search finding `found`.
    fn recognise(&mut self, intent: Intent, found: &[(MemberId, Purpose, f32)]) -> Vec<Command> {
        let facts = self.facts(intent);
        let (ticket, commands) = self.scan(facts);
        if !matches!(commands.as_slice(), [Command::Extract(..)]) {
            return commands;
        }
        let commands = self.tell(Event::Extracted(ticket, Ok(LIVE)));
        assert!(matches!(commands.as_slice(), [Command::Identify(..)]), "{}", shown(&commands));
        let matches = found.iter().map(|(member, purpose, score)| Match {
            member: *member,
            purpose: *purpose,
            score: *score,
        });
        self.tell(Event::Identified(ticket, matches.collect()))
    }

    fn claimed(&self, intent: Intent, number: u8, custody: Custody, roaming: bool) -> ScanFacts {
        let all: PurposeSet = Purpose::MATCHED.into_iter().collect();
        let claim = ClaimFacts {
            handle: ClaimHandle::from_random([number; 16]),
            custody,
            purposes: if roaming { all.with(Purpose::Roaming) } else { all },
            expires_at: self.now.after(30 * DAY),
        };
        ScanFacts { claim: ClaimPresented::Valid(claim), ..self.facts(intent) }
    }

    fn record(number: u8, purposes: &[Purpose]) -> RecordFacts {
        let consents = purposes.iter().map(|purpose| Consent {
            purpose: *purpose,
            given_at: START,
            expires_at: START.after(365 * DAY),
            notice: NOTICE.into(),
            language: "fr".into(),
        });
        RecordFacts {
            member: MemberId::from_random([number; 16]),
            claim: ClaimHandle::from_random([number; 16]),
            custody: Custody::Operator,
            consents: consents.collect(),
            hands: vec![(Purpose::Pay, Hand::Right)],
            pseudonyms: vec![(Purpose::Pay, Pseudonym::from_random([number; 16]))],
            expires_at: START.after(365 * DAY),
            salt: [number; 32],
        }
    }
}

const LIVE: CaptureFacts = CaptureFacts { liveness: 1.0, multispectral: true };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn consent(purpose: Purpose) -> ConsentGiven {
    ConsentGiven { purpose, notice: NOTICE.into(), language: "fr".into(), confirmed: true }
}

fn pay(minor_units: u64) -> Intent {
    Intent::Pay(Payment {
        minor_units,
        currency: "EUR".into(),
        payee: "till".into(),
        nonce: [0; 16],
    })
}

fn shown(commands: &[Command]) -> String {
    let name = |command: &Command| match command {
        Command::Reply(_, body) => format!("Reply({body:?})"),
        Command::Log(decision) => {
            let rules: Vec<_> = decision.rules.iter().map(palmgate_policy::Rule::id).collect();
            format!("Log({}, {})", decision.outcome, rules.join(" "))
        }
        Command::Wipe(_) => "Wipe".into(),
        Command::Accept { .. } => "Accept".into(),
        Command::Erase { .. } => "Erase".into(),
        Command::Extract(..) => "Extract".into(),
        Command::Compare(..) => "Compare".into(),
        _ => "other".into(),
    };
    commands.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn accepted(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Accept { .. }))
}

fn refused(commands: &[Command]) -> Option<Refusal> {
    commands.iter().find_map(|command| match command {
        Command::Reply(_, AnswerBody::Refused { reason }) => Some(*reason),
        _ => None,
    })
}

fn not_recognised(commands: &[Command]) -> bool {
    let unknown =
        |command: &Command| matches!(command, Command::Reply(_, AnswerBody::NotRecognised));
    commands.iter().any(unknown)
        && commands.iter().any(|command| matches!(command, Command::Wipe(_)))
}

fn cites(commands: &[Command], rule: &str) -> bool {
    commands.iter().any(|command| match command {
        Command::Log(decision) => decision.rules.iter().any(|cited| cited.id() == rule),
        _ => false,
    })
}

#[test]
fn a_consenting_shopper_is_recognised_for_what_they_consented_to_and_nothing_else() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    assert!(accepted(&store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
    // A compartment that was not searched cannot answer, and neither can a purpose not consented to.
    let commands = store.recognise(Intent::Loyalty, &[(member, Purpose::Pay, 0.9)]);
    assert!(not_recognised(&commands), "{}", shown(&commands));
    let commands = store.recognise(Intent::Loyalty, &[(member, Purpose::Loyalty, 0.9)]);
    assert!(not_recognised(&commands), "{}", shown(&commands));
}

#[test]
fn every_decision_is_logged_with_rules_and_a_miss_is_wiped() {
    let mut store = Store::new(Custody::Operator);
    let commands = store.recognise(pay(100), &[]);
    assert!(not_recognised(&commands) && cites(&commands, "E-79") && cites(&commands, "C-RT-10g"));
    assert!(matches!(commands[0], Command::Wipe(_)), "wiped before anything else");
}

#[test]
fn two_people_above_the_threshold_are_nobody() {
    let mut store = Store::new(Custody::Operator);
    let (one, two) = (store.enrol(1, &[Purpose::Pay]), store.enrol(2, &[Purpose::Pay]));
    let commands = store.recognise(pay(100), &[(one, Purpose::Pay, 0.9), (two, Purpose::Pay, 0.7)]);
    assert!(not_recognised(&commands) && cites(&commands, "I-1N"), "{}", shown(&commands));
    assert!(accepted(
        &store.recognise(pay(100), &[(one, Purpose::Pay, 0.9), (two, Purpose::Pay, 0.5)])
    ));
    let both_hands = [(one, Purpose::Pay, 0.9), (one, Purpose::Pay, 0.8)];
    assert!(accepted(&store.recognise(pay(100), &both_hands)));
}

#[test]
fn an_amount_above_the_exemption_needs_a_second_factor() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    let commands = store.recognise(pay(5_001), &[(member, Purpose::Pay, 0.9)]);
    assert_eq!(refused(&commands), Some(Refusal::StepUp));
    assert!(cites(&commands, "P-SCA-11"));
    assert!(accepted(&store.recognise(pay(5_000), &[(member, Purpose::Pay, 0.9)])));
}

#[test]
fn split_and_subject_custody_ask_for_a_claim_before_any_biometric_work() {
    for custody in [Custody::Split, Custody::Subject] {
        let mut store = Store::new(custody);
        let commands = store.recognise(pay(100), &[]);
        assert_eq!(refused(&commands), Some(Refusal::ClaimNeeded));
    }
}

#[test]
fn split_custody_compares_with_the_claimed_person_only() {
    let mut store = Store::new(Custody::Split);
    let member = store.enrol(1, &[Purpose::Pay]);
    for (score, held) in [(0.9, true), (0.59, false)] {
        let facts = store.claimed(pay(100), 1, Custody::Split, false);
        let (ticket, _) = store.scan(facts);
        let commands = store.tell(Event::Extracted(ticket, Ok(LIVE)));
        assert!(matches!(
            commands.as_slice(),
            [Command::Compare(_, _, Source::Held(claimed))] if *claimed == member
        ));
        let commands = store.tell(Event::Compared(ticket, vec![(Purpose::Pay, score)]));
        assert_eq!(accepted(&commands), held, "{}", shown(&commands));
    }
}

#[test]
fn a_claim_of_a_laxer_custody_than_the_store_works_under_is_invalid() {
    let mut store = Store::new(Custody::Split);
    let facts = store.claimed(pay(100), 1, Custody::Operator, true);
    assert_eq!(refused(&store.scan(facts).1), Some(Refusal::ClaimInvalid));
}

#[test]
fn five_failed_tries_block_the_claim_for_a_while() {
    let mut store = Store::new(Custody::Split);
    store.enrol(1, &[Purpose::Loyalty]);
    let attempt = |store: &mut Store| {
        let facts = store.claimed(Intent::Loyalty, 1, Custody::Split, false);
        let (ticket, commands) = store.scan(facts);
        if refused(&commands).is_some() {
            return refused(&commands);
        }
        store.tell(Event::Extracted(ticket, Ok(LIVE)));
        store.tell(Event::Compared(ticket, Vec::new()));
        None
    };
    for _ in 0..5 {
        assert_eq!(attempt(&mut store), None);
    }
    assert_eq!(attempt(&mut store), Some(Refusal::TooManyTries));
    store.now = store.now.after(std::time::Duration::from_mins(6));
    assert_eq!(attempt(&mut store), None);
}

#[test]
fn an_unclaimed_miss_never_leaves_and_a_claimed_one_only_with_roaming_and_on_request() {
    let mut store = Store::new(Custody::Operator);
    let leaves = |store: &mut Store, facts: ScanFacts| {
        let (ticket, commands) = store.scan(facts);
        if !matches!(commands.as_slice(), [Command::Extract(..)]) {
            return false;
        }
        let commands = store.tell(Event::Extracted(ticket, Ok(LIVE)));
        commands.iter().any(|command| matches!(command, Command::EscalateProbe(..)))
    };
    let facts = store.facts(pay(100));
    assert!(!leaves(&mut store, ScanFacts { ask_cloud: true, ..facts }));
    let facts = store.claimed(pay(100), 9, Custody::Operator, false);
    assert!(!leaves(&mut store, ScanFacts { ask_cloud: true, ..facts }));
    let facts = store.claimed(pay(100), 9, Custody::Operator, true);
    assert!(!leaves(&mut store, ScanFacts { ask_cloud: false, ..facts }));
    let facts = store.claimed(pay(100), 9, Custody::Operator, true);
    assert!(leaves(&mut store, ScanFacts { ask_cloud: true, ..facts }));
}

#[test]
fn a_person_found_by_the_cloud_is_local_the_second_time() {
    let mut store = Store::new(Custody::Operator);
    let claimed = store.claimed(pay(100), 9, Custody::Operator, true);
    let (ticket, _) = store.scan(ScanFacts { ask_cloud: true, ..claimed });
    store.tell(Event::Extracted(ticket, Ok(LIVE)));
    let record = Store::record(9, &[Purpose::Pay, Purpose::Roaming]);
    let lease = store.now.after(3 * DAY);
    store.tell(Event::LeaseLoaded(lease));
    let commands = store.tell(Event::Resolved(ticket, Resolved::Found(Box::new(record))));
    assert!(matches!(commands.as_slice(), [Command::Compare(_, _, Source::Fetched)]));
    let commands = store.tell(Event::Compared(ticket, vec![(Purpose::Pay, 0.8)]));
    assert!(accepted(&commands) && commands.iter().any(|c| matches!(c, Command::Adopt(..))));
    let member = MemberId::from_random([9; 16]);
    assert!(accepted(&store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
    // What the cloud gave ends with its lease.
    store.now = store.now.after(4 * DAY);
    assert!(not_recognised(&store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
}

#[test]
fn a_record_without_roaming_or_for_another_claim_is_nobody() {
    for (number, purposes) in [
        (9, vec![Purpose::Pay]),
        (8, vec![Purpose::Pay, Purpose::Roaming]),
        (9, vec![Purpose::Roaming]),
    ] {
        let mut store = Store::new(Custody::Operator);
        let claimed = store.claimed(pay(100), 9, Custody::Operator, true);
        let (ticket, _) = store.scan(ScanFacts { ask_cloud: true, ..claimed });
        store.tell(Event::Extracted(ticket, Ok(LIVE)));
        let record = Box::new(Store::record(number, &purposes));
        assert!(not_recognised(&store.tell(Event::Resolved(ticket, Resolved::Found(record)))));
    }
}

#[test]
fn a_withdrawn_purpose_stops_at_once_and_the_last_one_erases() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay, Purpose::Loyalty]);
    let withdraw = |purpose| Intent::Withdraw { purposes: PurposeSet::default().with(purpose) };
    let commands = store.recognise(withdraw(Purpose::Pay), &[(member, Purpose::Loyalty, 0.9)]);
    assert!(cites(&commands, "G-07-3"), "{}", shown(&commands));
    assert!(commands.iter().any(|command| matches!(command, Command::RemovePurposes(..))));
    assert!(not_recognised(&store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
    assert!(accepted(&store.recognise(Intent::Loyalty, &[(member, Purpose::Loyalty, 0.9)])));
    let commands = store.recognise(withdraw(Purpose::Loyalty), &[(member, Purpose::Loyalty, 0.9)]);
    assert!(commands.iter().any(|command| matches!(command, Command::Erase { .. })));
    assert!(!store.engine.knows(&member));
}

#[test]
fn an_erased_person_matches_no_more_even_before_the_disk_is_done_and_a_failed_one_is_repeated() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    let commands = store.recognise(Intent::Erase, &[(member, Purpose::Pay, 0.9)]);
    assert!(commands.iter().any(|command| matches!(command, Command::Erase { relay: true, .. })));
    assert!(not_recognised(&store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
    let commands = store.tell(Event::Erased(member, Err(())));
    assert_eq!(refused(&commands), Some(Refusal::Internal));
    let again = store.tell(Event::Tick);
    assert!(again.iter().any(|command| matches!(command, Command::Erase { .. })));
    store.tell(Event::Erased(member, Ok(())));
    assert!(store.tell(Event::Tick).is_empty());
}

#[test]
fn a_paused_person_is_not_recognised_and_can_still_resume() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    let found = [(member, Purpose::Pay, 0.9)];
    store.recognise(Intent::Pause, &found);
    assert!(not_recognised(&store.recognise(pay(100), &found)));
    store.recognise(Intent::Resume, &found);
    assert!(accepted(&store.recognise(pay(100), &found)));
}

#[test]
fn enrolment_needs_express_confirmed_consent_under_the_current_notice() {
    let mut store = Store::new(Custody::Operator);
    let mut ask = |change: &dyn Fn(&mut EnrolmentFacts)| {
        let ticket = store.ticket();
        let mut facts = store.enrolment(1, &[Purpose::Pay]);
        change(&mut facts);
        refused(&store.tell(Event::Enrol(ticket, Box::new(facts))))
    };
    assert_eq!(ask(&|_| ()), None);
    assert_eq!(ask(&|f| f.consents.clear()), Some(Refusal::ConsentMissing));
    assert_eq!(ask(&|f| f.consents[0].confirmed = false), Some(Refusal::ConsentMissing));
    assert_eq!(ask(&|f| f.consents[0].notice = "old".into()), Some(Refusal::ConsentMissing));
    assert_eq!(ask(&|f| f.consents[0].purpose = Purpose::Staff), Some(Refusal::ConsentMissing));
    assert_eq!(ask(&|f| f.consents[0].purpose = Purpose::Roaming), Some(Refusal::ConsentMissing));
    assert_eq!(ask(&|f| f.age = Age::From15To17), Some(Refusal::AgeGate));
    assert_eq!(ask(&|f| f.age = Age::Under15), Some(Refusal::AgeGate));
    assert_eq!(ask(&|f| f.card_number = true), Some(Refusal::CardNumber));
    assert_eq!(ask(&|f| f.card_token = false), Some(Refusal::Malformed));
    assert_eq!(ask(&|f| f.captures = vec![Hand::Left; 4]), Some(Refusal::Malformed));
    assert_eq!(ask(&|f| f.captures.clear()), Some(Refusal::Malformed));
}

#[test]
fn staff_rests_on_an_authorisation_for_a_listed_zone_and_ends_with_it() {
    let mut store = Store::new(Custody::Operator);
    let ticket = store.ticket();
    let mut facts = store.enrolment(1, &[]);
    let until = START.after(2 * DAY);
    let authorisation =
        |zone: &str| Some(palmgate_protocol::terminal::Authorisation { zone: zone.into(), until });
    facts.authorisation = authorisation("canteen");
    assert_eq!(
        refused(&store.tell(Event::Enrol(ticket, Box::new(facts)))),
        Some(Refusal::ZoneNotListed)
    );
    let ticket = store.ticket();
    let mut facts = store.enrolment(1, &[]);
    let member = facts.ids.member;
    facts.authorisation = authorisation("vault");
    store.tell(Event::Enrol(ticket, Box::new(facts)));
    store.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
    store.tell(Event::Identified(ticket, Vec::new()));
    store.tell(Event::Stored(ticket, Ok(())));
    let found = [(member, Purpose::Staff, 0.9)];
    let zone = |zone: &str| Intent::Staff { zone: zone.into() };
    assert!(accepted(&store.recognise(zone("vault"), &found)));
    assert_eq!(refused(&store.recognise(zone("canteen"), &found)), Some(Refusal::ZoneNotListed));
    store.now = until;
    assert!(not_recognised(&store.recognise(zone("vault"), &found)));
    let commands = store.tell(Event::Tick);
    assert!(commands.iter().any(|command| {
        matches!(command, Command::Erase { rule, .. } if rule.id() == "RET-04")
    }));
}

#[test]
fn inactivity_ends_an_enrolment_and_a_use_prolongs_it() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    let found = [(member, Purpose::Pay, 0.9)];
    store.now = START.after(170 * DAY);
    assert!(accepted(&store.recognise(pay(100), &found)));
    store.now = START.after(200 * DAY);
    assert!(accepted(&store.recognise(pay(100), &found)));
    // Consent itself ends after a year, however often it was used.
    store.now = START.after(364 * DAY);
    assert!(accepted(&store.recognise(pay(100), &found)));
    store.now = START.after(365 * DAY);
    assert!(not_recognised(&store.recognise(pay(100), &found)));
    assert!(store.tell(Event::Tick).iter().any(|c| matches!(c, Command::Erase { .. })));
}

#[test]
fn a_clock_that_runs_backwards_brings_nobody_back() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    store.now = START.after(181 * DAY);
    let facts = store.facts(pay(100));
    store.scan(facts);
    store.now = START;
    let facts = store.facts(pay(100));
    assert_eq!(refused(&store.scan(facts).1), Some(Refusal::Stale));
    let _ = member;
    assert!(store.tell(Event::Tick).iter().any(|c| matches!(c, Command::Erase { .. })));
}

#[test]
fn a_shard_brings_only_roaming_people_and_takes_away_whom_it_removes() {
    let mut store = Store::new(Custody::Operator);
    let people = vec![
        Store::record(20, &[Purpose::Pay, Purpose::Roaming]),
        Store::record(21, &[Purpose::Pay]),
    ];
    let shard = |version, people, removed, store: &Store| Event::ShardOffered {
        version,
        lease_until: store.now.after(3 * DAY),
        whole: false,
        people,
        removed,
    };
    let event = shard(1, people, Vec::new(), &store);
    let commands = store.tell(event);
    let adopted = commands.iter().find_map(|command| match command {
        Command::AdoptShard(1, people) => Some(people.len()),
        _ => None,
    });
    assert_eq!(adopted, Some(1));
    let member = MemberId::from_random([20; 16]);
    let found = [(member, Purpose::Pay, 0.9)];
    assert!(accepted(&store.recognise(pay(100), &found)));
    let event = shard(2, Vec::new(), vec![member], &store);
    let commands = store.tell(event);
    assert!(commands.iter().any(|command| matches!(command, Command::Erase { relay: false, .. })));
    assert!(not_recognised(&store.recognise(pay(100), &found)));
}

#[test]
fn an_expired_shard_is_not_taken_over() {
    let mut store = Store::new(Custody::Operator);
    let people = vec![Store::record(20, &[Purpose::Pay, Purpose::Roaming])];
    let event = Event::ShardOffered {
        version: 1,
        lease_until: store.now,
        whole: true,
        people,
        removed: Vec::new(),
    };
    let commands = store.tell(event);
    assert!(!commands.iter().any(|command| matches!(command, Command::AdoptShard(..))));
}

#[test]
fn a_stale_request_an_unknown_terminal_and_a_poor_capture_are_told_apart() {
    let mut store = Store::new(Custody::Operator);
    let late = ScanFacts { at: START.after(2 * DAY), ..store.facts(pay(100)) };
    assert_eq!(refused(&store.scan(late).1), Some(Refusal::Stale));
    let foreign = ScanFacts { terminal: name("other"), ..store.facts(pay(100)) };
    assert_eq!(refused(&store.scan(foreign).1), Some(Refusal::PurposeNotServed));
    let facts = store.facts(pay(100));
    let (ticket, _) = store.scan(facts);
    let commands = store.tell(Event::Extracted(ticket, Err(CaptureProblem::Blurred)));
    assert!(commands.iter().any(|command| {
        matches!(
            command,
            Command::Reply(_, AnswerBody::Retry { problem: CaptureProblem::Blurred, .. })
        )
    }));
}

#[test]
fn work_that_takes_too_long_is_wiped_and_answered() {
    let mut store = Store::new(Custody::Operator);
    let facts = store.facts(pay(100));
    let (ticket, _) = store.scan(facts);
    store.now = store.now.after(std::time::Duration::from_secs(6));
    let commands = store.tell(Event::Tick);
    assert!(commands.iter().any(|c| matches!(c, Command::Wipe(wiped) if *wiped == ticket)));
    assert!(commands.iter().any(|c| matches!(c, Command::Reply(_, AnswerBody::Busy))));
    assert!(store.tell(Event::Extracted(ticket, Ok(LIVE))).is_empty(), "decided once only");
}

#[test]
fn the_queue_of_work_is_bounded() {
    let mut store = Store::new(Custody::Operator);
    for _ in 0..256 {
        let facts = store.facts(pay(100));
        assert!(matches!(store.scan(facts).1.as_slice(), [Command::Extract(..)]));
    }
    let facts = store.facts(pay(100));
    let (_, commands) = store.scan(facts);
    assert!(commands.iter().any(|c| matches!(c, Command::Reply(_, AnswerBody::Busy))));
}

/// What was written of a person last.
fn written(commands: &[Command], of: MemberId) -> Option<Profile> {
    commands.iter().rev().find_map(|command| match command {
        Command::Update(member, profile) if *member == of => Some((**profile).clone()),
        _ => None,
    })
}

#[test]
fn payments_are_counted_over_a_restart() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Pay]);
    let mut kept = None;
    for _ in 0..5 {
        let commands = store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)]);
        assert!(accepted(&commands));
        kept = written(&commands, member);
    }
    let kept = kept.expect("each payment is written");
    assert_eq!((kept.spent.total, kept.spent.count), (500, 5));
    let mut again = Store::new(Custody::Operator);
    again.tell(Event::Loaded(member, Box::new(kept)));
    let commands = again.recognise(pay(100), &[(member, Purpose::Pay, 0.9)]);
    assert_eq!(refused(&commands), Some(Refusal::StepUp), "{}", shown(&commands));
    let anew = again.tell(Event::Authenticated(member));
    assert_eq!(written(&anew, member).unwrap().spent.count, 0);
    assert!(accepted(&again.recognise(pay(100), &[(member, Purpose::Pay, 0.9)])));
}

#[test]
fn a_visitor_whose_record_stays_in_their_token_is_counted_too_and_over_a_restart() {
    let mut store = Store::new(Custody::Subject);
    let mut record = Store::record(9, &[Purpose::Pay, Purpose::Roaming]);
    record.custody = Custody::Subject;
    let pay_as_visitor = |store: &mut Store| {
        let facts = store.claimed(pay(100), 9, Custody::Subject, true);
        let (ticket, _) = store.scan(facts);
        store.tell(Event::Extracted(ticket, Ok(LIVE)));
        store.tell(Event::Resolved(ticket, Resolved::Found(Box::new(record.clone()))));
        store.tell(Event::Compared(ticket, vec![(Purpose::Pay, 0.9)]))
    };
    let mut kept = Vec::new();
    for number in 1..=5 {
        let commands = pay_as_visitor(&mut store);
        assert!(accepted(&commands), "{number}: {}", shown(&commands));
        for command in commands {
            if let Command::KeepVisitors(visitors) = command {
                kept = visitors;
            }
        }
    }
    assert_eq!(refused(&pay_as_visitor(&mut store)), Some(Refusal::StepUp));
    let mut again = Store::new(Custody::Subject);
    again.tell(Event::VisitorsLoaded(kept));
    assert_eq!(refused(&pay_as_visitor(&mut again)), Some(Refusal::StepUp));
}

#[test]
fn a_card_number_in_a_payment_is_refused_before_the_palm_is_looked_at() {
    let mut store = Store::new(Custody::Operator);
    let facts = ScanFacts { card_number: true, ..store.facts(pay(100)) };
    let (_, commands) = store.scan(facts);
    assert_eq!(refused(&commands), Some(Refusal::CardNumber));
    assert!(cites(&commands, "P-PCI-1"), "{}", shown(&commands));
}

#[test]
fn a_copy_is_given_and_templates_only_to_a_key() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Loyalty]);
    let export = |commands: &[Command]| {
        commands.iter().find_map(|command| match command {
            Command::ReplyExport(_, of, _, key) => Some((*of, *key)),
            _ => None,
        })
    };
    let found = [(member, Purpose::Loyalty, 0.9)];
    let commands = store.recognise(Intent::Export, &found);
    assert!(export(&commands) == Some((member, None)), "{}", shown(&commands));
    assert!(cites(&commands, "G-15"));
    let commands = store.recognise(Intent::Port { key: [7; 32] }, &found);
    assert!(export(&commands) == Some((member, Some([7; 32]))));
    assert!(cites(&commands, "G-20"));
    let stranger = store.recognise(Intent::Export, &[]);
    assert!(not_recognised(&stranger) && export(&stranger).is_none());
}

#[test]
fn who_objects_is_said_to_object_for_loyalty_and_nowhere_else() {
    let mut store = Store::new(Custody::Operator);
    let member = store.enrol(1, &[Purpose::Loyalty, Purpose::Entry]);
    let objected = |commands: &[Command]| {
        commands.iter().find_map(|command| match command {
            Command::Accept { objected, .. } => Some(*objected),
            _ => None,
        })
    };
    let loyalty = [(member, Purpose::Loyalty, 0.9)];
    assert_eq!(objected(&store.recognise(Intent::Loyalty, &loyalty)), Some(false));
    let commands = store.recognise(Intent::Object, &loyalty);
    assert!(cites(&commands, "G-21") && written(&commands, member).unwrap().objected);
    assert_eq!(objected(&store.recognise(Intent::Loyalty, &loyalty)), Some(true));
    let entry = store.recognise(Intent::Entry, &[(member, Purpose::Entry, 0.9)]);
    assert_eq!(objected(&entry), Some(false));
}

#[test]
fn a_correction_replaces_the_enrolment_and_keeps_who_the_person_is_to_the_shop() {
    let mut store = Store::new(Custody::Operator);
    let old = store.enrol(1, &[Purpose::Loyalty, Purpose::Pay]);
    assert!(accepted(&store.recognise(pay(300), &[(old, Purpose::Pay, 0.9)])));
    let other = store.enrol(2, &[Purpose::Loyalty]);
    let correct = |store: &mut Store, number: u8, found: &[(MemberId, Purpose, f32)]| {
        let ticket = store.ticket();
        let mut facts = store.enrolment(number, &[Purpose::Loyalty, Purpose::Pay]);
        facts.replaces = Some(ClaimPresented::None);
        store.tell(Event::Enrol(ticket, Box::new(facts)));
        store.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        let found = found.iter().map(|(member, purpose, score)| Match {
            member: *member,
            purpose: *purpose,
            score: *score,
        });
        (ticket, store.tell(Event::Identified(ticket, found.collect())))
    };
    let (_, nobody) = correct(&mut store, 3, &[]);
    assert!(not_recognised(&nobody), "{}", shown(&nobody));
    let two = [(old, Purpose::Loyalty, 0.9), (other, Purpose::Loyalty, 0.9)];
    let (_, rivals) = correct(&mut store, 3, &two);
    assert!(not_recognised(&rivals), "{}", shown(&rivals));
    let (ticket, commands) = correct(&mut store, 3, &[(old, Purpose::Loyalty, 0.9)]);
    let [Command::Store(_, new, profile)] = commands.as_slice() else {
        panic!("{}", shown(&commands))
    };
    let (new, profile) = (*new, (**profile).clone());
    assert!(profile.replaces == Some(old) && profile.spent.count == 1);
    assert!(profile.pseudonym(Purpose::Loyalty) == Some(Pseudonym::from_random([1; 16])));
    // A crash here: both are on disk. The first tick finishes the correction.
    let mut restarted = Store::new(Custody::Operator);
    restarted.tell(Event::Loaded(new, Box::new(profile.clone())));
    restarted.tell(Event::Loaded(old, Box::new(Profile { replaces: None, ..profile })));
    let finished = restarted.tell(Event::Tick);
    assert!(
        finished.iter().any(|c| matches!(c, Command::Erase { member, .. } if *member == old)),
        "{}",
        shown(&finished)
    );
    // Without one: the old key goes as soon as the new enrolment is durable.
    let commands = store.tell(Event::Stored(ticket, Ok(())));
    assert!(cites(&commands, "G-16"), "{}", shown(&commands));
    let erased = |c: &Command| {
        matches!(c, Command::Erase { member, rule, relay: true, .. }
            if *member == old && rule.id() == "G-16")
    };
    assert!(commands.iter().any(erased) && store.engine.knows(&new) && !store.engine.knows(&old));
    let done = store.tell(Event::Erased(old, Ok(())));
    assert!(written(&done, new).unwrap().replaces.is_none());
    let entry = store.recognise(Intent::Loyalty, &[(new, Purpose::Loyalty, 0.9)]);
    assert!(accepted(&entry));
}

#[test]
fn in_split_custody_a_correction_needs_the_claim_and_the_palm() {
    let mut store = Store::new(Custody::Split);
    let old = store.enrol(1, &[Purpose::Pay]);
    let begin = |store: &mut Store, claim: ClaimPresented| {
        let ticket = store.ticket();
        let mut facts = store.enrolment(3, &[Purpose::Pay]);
        facts.replaces = Some(claim);
        let commands = store.tell(Event::Enrol(ticket, Box::new(facts)));
        (ticket, commands)
    };
    let (_, commands) = begin(&mut store, ClaimPresented::None);
    assert_eq!(refused(&commands), Some(Refusal::ClaimNeeded));
    let claim = |number| store_claim(&Store::new(Custody::Split), number);
    let (_, commands) = begin(&mut store, claim(8));
    assert_eq!(refused(&commands), Some(Refusal::ClaimInvalid), "nobody here has this claim");
    for (score, found) in [(0.1, false), (0.9, true)] {
        let (ticket, _) = begin(&mut store, claim(1));
        let commands = store.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        assert!(matches!(commands.as_slice(), [Command::Compare(..)]), "{}", shown(&commands));
        let commands = store.tell(Event::Compared(ticket, vec![(Purpose::Pay, score)]));
        assert_eq!(matches!(commands.as_slice(), [Command::Store(..)]), found);
        assert_eq!(not_recognised(&commands), !found);
    }
    assert!(store.engine.knows(&old), "until the new enrolment is durable");
}

fn store_claim(store: &Store, number: u8) -> ClaimPresented {
    store.claimed(pay(1), number, Custody::Split, false).claim
}

#[test]
fn a_box_that_was_opened_forgets_everybody() {
    let mut store = Store::new(Custody::Operator);
    let members = [1, 2, 3].map(|number| store.enrol(number, &[Purpose::Pay]));
    let commands = store.tell(Event::Decommissioned);
    let erased = commands.iter().filter(
        |command| matches!(command, Command::Erase { rule, .. } if rule.id() == "C-RT-10e"),
    );
    assert_eq!(erased.count(), 3, "{}", shown(&commands));
    for member in members {
        let commands = store.recognise(pay(100), &[(member, Purpose::Pay, 0.9)]);
        assert!(not_recognised(&commands));
    }
}

#[test]
fn time_goes_on_from_where_it_was_and_a_jump_in_the_dark_is_doubted() {
    let mut store = Store::new(Custody::Operator);
    for number in 1..=30 {
        store.enrol(number, &[Purpose::Entry]);
    }
    let people: Vec<_> = (1..=30).map(|number| MemberId::from_random([number; 16])).collect();
    let later = START.after(2 * DAY);
    store.now = later;
    store.tell(Event::Tick);
    let seen = store.engine.time_seen();
    assert_eq!((seen.latest, seen.doubt), (later.as_millis(), None));
    // Restarted with the clock a day back: nothing expired comes back to life.
    let mut back = Store::new(Custody::Operator);
    back.now = Timestamp::from_millis(START.as_millis() - 86_400_000);
    back.tell(Event::TimeSeen(seen));
    assert_eq!(back.engine.time_seen().latest, later.as_millis());
    // Restarted with the clock a year ahead: ten people at most are erased, and another restart
    // does not take the doubt away.
    let mut profile = None;
    for command in store.recognise(Intent::Object, &[(people[0], Purpose::Entry, 0.9)]) {
        if let Command::Update(_, written) = command {
            profile = Some(*written);
        }
    }
    let profile = profile.unwrap();
    let mut gone = 0;
    let mut seen = seen;
    for _ in 0..2 {
        let mut ahead = Store::new(Custody::Operator);
        ahead.now = START.after(400 * DAY);
        ahead.tell(Event::TimeSeen(seen));
        for member in &people {
            ahead.tell(Event::Loaded(*member, Box::new(profile.clone())));
        }
        let commands = ahead.tell(Event::Tick);
        gone += commands.iter().filter(|c| matches!(c, Command::Erase { .. })).count();
        seen = ahead.engine.time_seen();
        assert_eq!(seen.doubt.map(|doubt| doubt.before), Some(later.as_millis()));
    }
    assert_eq!(gone, 10);
    // A time signed before the jump confirms nothing; one after it takes the clock's place.
    let mut store = Store::new(Custody::Operator);
    store.now = later.after(DAY);
    store.tell(Event::TimeSeen(seen));
    store.tell(Event::TimeConfirmed(Timestamp::from_millis(later.as_millis() - 1)));
    assert!(store.engine.time_seen().doubt.is_some());
    let commands = store.tell(Event::TimeConfirmed(later.after(DAY)));
    assert!(cites(&commands, "G-05-E"));
    let now = store.engine.time_seen();
    assert_eq!((now.latest, now.doubt), (later.after(DAY).as_millis(), None));
}

#[test]
fn illinois_wants_a_release_that_was_just_signed_and_keeps_it_and_france_keeps_none() {
    let layers: Vec<_> = ["eu-gdpr", "us-il"]
        .into_iter()
        .filter_map(palmgate_policy::pack::embedded_layer)
        .collect();
    let illinois = std::sync::Arc::new(palmgate_policy::Pack::load(&layers).unwrap());
    let settings = Settings {
        custody: Custody::Split,
        purposes: [Purpose::Pay, Purpose::Entry].into_iter().collect(),
        thresholds: [0.6, 0.5, 0.5, 0.5],
        notice: NOTICE.into(),
        ..Settings::default()
    };
    let enrol = |pack: Option<&std::sync::Arc<palmgate_policy::Pack>>,
                 release: Option<ReleaseFacts>| {
        let mut store = Store::new(Custody::Split);
        if let Some(pack) = pack {
            store.engine = Engine::with_pack(settings.clone(), std::sync::Arc::clone(pack));
            let purposes = [Purpose::Pay, Purpose::Entry].into_iter().collect();
            let facts = TerminalFacts { name: name("till"), purposes, enrols: true };
            store.tell(Event::TerminalKnown(facts));
        }
        let ticket = store.ticket();
        let mut facts = store.enrolment(1, &[Purpose::Pay]);
        facts.release = release;
        let refused = refused(&store.tell(Event::Enrol(ticket, Box::new(facts))));
        let commands = store.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        let kept = commands.into_iter().find_map(|command| match command {
            Command::Store(_, _, profile) => Some(profile.released_at),
            _ => None,
        });
        (refused, kept)
    };
    let signed = ReleaseFacts { named: true, signed_at: START, complete: true };
    let il = Some(&illinois);
    assert_eq!(enrol(il, None).0, Some(Refusal::ConsentMissing));
    for incomplete in [
        ReleaseFacts { named: false, ..signed },
        ReleaseFacts { complete: false, ..signed },
        ReleaseFacts { signed_at: Timestamp::from_millis(START.as_millis() - 3_600_000), ..signed },
        ReleaseFacts { signed_at: START.after(DAY), ..signed },
    ] {
        assert_eq!(enrol(il, Some(incomplete)).0, Some(Refusal::ConsentMissing), "{incomplete:?}");
    }
    assert_eq!(enrol(il, Some(signed)), (None, Some(Some(START))));
    assert_eq!(enrol(None, Some(signed)), (None, Some(None)), "no more data than the law asks for");
}
