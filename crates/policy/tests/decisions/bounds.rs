//! Shards, stale requests, and work that is bounded.

use super::*;
use palmgate_policy::DecisionKind;

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

/// A store whose calibration can vouch for so many references to pay, and its shard of version 1.
fn bounded(references: usize, production: bool) -> Store {
    let largest_galleries = [references, 100, 100, 100];
    let custody = Custody::Operator;
    Store::with(Settings { production, custody, largest_galleries, ..Settings::default() })
}

fn offered(store: &Store, version: u64, numbers: &[u8], removed: Vec<MemberId>) -> Event {
    let record = |number: &u8| Store::record(*number, &[Purpose::Pay, Purpose::Roaming]);
    let people = numbers.iter().map(record).collect();
    let lease_until = store.now.after(3 * DAY);
    Event::ShardOffered { version, lease_until, whole: true, people, removed }
}

fn adopts(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::AdoptShard(..)))
}

#[test]
fn a_shard_that_the_calibration_cannot_vouch_for_is_refused_and_the_old_one_serves() {
    let mut store = bounded(2, false);
    let one = |number: u8| MemberId::from_random([number; 16]);
    let event = offered(&store, 1, &[20, 21], Vec::new());
    assert!(adopts(&store.tell(event)));
    let event = offered(&store, 2, &[20, 22, 23], vec![one(21)]);
    let commands = store.tell(event);
    assert!(!adopts(&commands));
    let outcome = commands.iter().find_map(|command| match command {
        Command::Log(decision) if decision.kind == DecisionKind::Shard => Some(decision.outcome),
        _ => None,
    });
    assert_eq!(outcome, Some("too-large"));
    assert!(accepted(&store.recognise(pay(100), &[(one(20), Purpose::Pay, 0.9)])));
    assert!(
        not_recognised(&store.recognise(pay(100), &[(one(21), Purpose::Pay, 0.9)])),
        "who was removed is forgotten all the same"
    );
    let event = offered(&store, 3, &[20, 22], Vec::new());
    assert!(adopts(&store.tell(event)), "one that fits is taken over again");
}

#[test]
fn a_full_gallery_enrols_nobody_where_people_are_real() {
    for production in [false, true] {
        let mut store = bounded(1, production);
        store.enrol(1, &[Purpose::Pay]);
        let ticket = store.ticket();
        let facts = store.enrolment(2, &[Purpose::Pay]);
        store.tell(Event::Enrol(ticket, Box::new(facts)));
        store.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        let commands = store.tell(Event::Identified(ticket, Vec::new()));
        assert_eq!(refused(&commands) == Some(Refusal::PurposeNotServed), production);
    }
}

#[test]
fn references_that_nobody_searches_have_no_limit() {
    let largest_galleries = [0; 4];
    let settings = Settings { production: true, largest_galleries, ..Settings::default() };
    Store::with(settings).enrol(1, &[Purpose::Pay]);
}
