//! What the engine decides, act by act.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    CaptureFacts, ClaimFacts, ClaimPresented, Command, Engine, EnrolmentFacts, Event, FreshIds,
    Match, RecordFacts, Resolved, ScanFacts, Settings, Source, TerminalFacts, Ticket,
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
