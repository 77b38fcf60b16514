//! Who is recognised, for what, and what leaves the store.

use super::*;

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
        let (ticket, _) = store.scan(ScanFacts { possession: Proof::Valid, ..facts });
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
