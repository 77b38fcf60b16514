//! Withdrawal, erasure, pauses, and what ends by itself.

use super::*;

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
