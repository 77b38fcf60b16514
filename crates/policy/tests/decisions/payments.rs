//! Payments by palm alone are counted.

use super::*;

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

/// P-SCA-7: a paper code or a static tag that stands for a record is no factor of its own.
#[test]
fn a_token_that_can_be_copied_pays_nothing_and_one_that_proves_itself_pays() {
    for custody in [Custody::Split, Custody::Subject] {
        let mut store = Store::new(custody);
        store.tell(Event::LeaseLoaded(START.after(3 * DAY)));
        let mut record = Store::record(9, &[Purpose::Pay, Purpose::Loyalty, Purpose::Roaming]);
        record.custody = custody;
        let present = |store: &mut Store, intent: Intent, authenticated, possession| {
            let facts = store.claimed(intent, 9, custody, true);
            let facts = ScanFacts { authenticated, possession, ask_cloud: true, ..facts };
            let (ticket, commands) = store.scan(facts);
            if refused(&commands).is_some() {
                return commands;
            }
            store.tell(Event::Extracted(ticket, Ok(LIVE)));
            let found = Resolved::Found(Box::new(record.clone()));
            store.tell(Event::Resolved(ticket, found));
            let scores = vec![(Purpose::Pay, 0.9), (Purpose::Loyalty, 0.9)];
            store.tell(Event::Compared(ticket, scores))
        };
        let copied = present(&mut store, pay(100), false, Proof::None);
        assert_eq!(refused(&copied), Some(Refusal::StepUp), "{}", shown(&copied));
        assert!(cites(&copied, "P-SCA-7"));
        let loyalty = present(&mut store, Intent::Loyalty, false, Proof::None);
        assert_eq!(refused(&loyalty), None, "{}", shown(&loyalty));
        for _ in 0..6 {
            let proven = present(&mut store, pay(5_100), false, Proof::Valid);
            assert!(accepted(&proven), "{}", shown(&proven));
        }
        assert!(accepted(&present(&mut store, pay(100), true, Proof::None)), "chip and PIN");
    }
}

/// P-PAD-1: what was seen in one band needs the word of a trusted sensor for payments, and for nothing
/// else; P-SCA-8: nothing helps against its word.
#[test]
fn one_band_alone_pays_nothing_without_a_sensor_that_vouches() {
    let one_band = CaptureFacts { liveness: 1.0, multispectral: false };
    let mut store = Store::new(Custody::Operator);
    store.enrol(1, &[Purpose::Pay, Purpose::Loyalty]);
    let mut looked_at = |intent: &Intent, capture: CaptureFacts, sensor| {
        let facts = ScanFacts { sensor, ..store.facts(intent.clone()) };
        let (ticket, _) = store.scan(facts);
        store.tell(Event::Extracted(ticket, Ok(capture)))
    };
    let goes_on = |commands: &[Command]| matches!(commands, [Command::Identify(..)]);
    for intent in [pay(100), Intent::Loyalty, Intent::Export] {
        let is_payment = intent.purpose() == Some(Purpose::Pay);
        let bare = looked_at(&intent, one_band, Sensor::Silent);
        assert_eq!(goes_on(&bare), !is_payment, "{}", shown(&bare));
        assert_eq!(cites(&bare, "P-PAD-1"), is_payment, "{}", shown(&bare));
        assert!(goes_on(&looked_at(&intent, one_band, Sensor::Living)));
        assert!(goes_on(&looked_at(&intent, LIVE, Sensor::Silent)));
        let attack = looked_at(&intent, LIVE, Sensor::Attack);
        assert!(!goes_on(&attack) && cites(&attack, "P-SCA-8"), "{}", shown(&attack));
    }
    for (purpose, sensor, enrols) in [
        (Purpose::Pay, Sensor::Silent, false),
        (Purpose::Pay, Sensor::Living, true),
        (Purpose::Loyalty, Sensor::Silent, true),
    ] {
        let ticket = store.ticket();
        let facts = EnrolmentFacts { sensor, ..store.enrolment(2, &[purpose]) };
        store.tell(Event::Enrol(ticket, Box::new(facts)));
        let commands = store.tell(Event::EnrolmentExtracted(ticket, Ok(one_band)));
        assert_eq!(goes_on(&commands), enrols, "{}", shown(&commands));
    }
}

/// The last failed tries that the engine wanted kept.
fn kept(commands: Vec<Command>, kept: &mut Option<FailedTries>) {
    for command in commands {
        if let Command::KeepTries(tries) = command {
            *kept = Some(tries);
        }
    }
}

#[test]
fn failed_tries_count_over_a_restart() {
    let mut tries = None;
    let fail = |store: &mut Store, tries: &mut Option<FailedTries>| {
        let facts = store.claimed(Intent::Loyalty, 1, Custody::Split, false);
        let (ticket, commands) = store.scan(facts);
        let refused = refused(&commands);
        if refused.is_none() {
            store.tell(Event::Extracted(ticket, Ok(LIVE)));
            kept(store.tell(Event::Compared(ticket, Vec::new())), tries);
        }
        refused
    };
    for _ in 0..5 {
        let mut store = Store::new(Custody::Split);
        store.enrol(1, &[Purpose::Loyalty]);
        store.tell(Event::TriesLoaded(tries.clone().unwrap_or_default()));
        assert_eq!(fail(&mut store, &mut tries), None);
    }
    let mut store = Store::new(Custody::Split);
    let member = store.enrol(1, &[Purpose::Loyalty]);
    store.tell(Event::TriesLoaded(tries.clone().unwrap()));
    assert_eq!(fail(&mut store, &mut tries), Some(Refusal::TooManyTries));

    // Whoever is erased leaves no count behind.
    let facts = ScanFacts {
        possession: Proof::None,
        ..store.claimed(Intent::Erase, 1, Custody::Split, false)
    };
    store.now = store.now.after(std::time::Duration::from_mins(6));
    let (ticket, _) = store.scan(ScanFacts { at: store.now, ..facts });
    store.tell(Event::Extracted(ticket, Ok(LIVE)));
    let erased = store.tell(Event::Compared(ticket, vec![(Purpose::Loyalty, 0.9)]));
    assert!(
        erased
            .iter()
            .any(|command| matches!(command, Command::Erase { member: of, .. } if *of == member))
    );
    kept(erased, &mut tries);
    let bytes = palmgate_protocol::encode(&tries.unwrap());
    assert_eq!(bytes, palmgate_protocol::encode(&FailedTries::default()));
}

#[test]
fn a_readers_failed_tries_count_over_a_restart() {
    let mut tries = None;
    let mut store = Store::new(Custody::Operator);
    store.enrol(1, &[Purpose::Pay]);
    for _ in 0..20 {
        let facts = store.facts(pay(100));
        let (ticket, _) = store.scan(facts);
        store.tell(Event::Extracted(ticket, Ok(LIVE)));
        kept(store.tell(Event::Identified(ticket, Vec::new())), &mut tries);
    }
    let mut again = Store::new(Custody::Operator);
    again.tell(Event::TriesLoaded(tries.unwrap()));
    let purposes = PurposeSet::default().with(Purpose::Pay);
    let facts = TerminalFacts { name: name("till"), purposes, enrols: false };
    again.tell(Event::TerminalKnown(facts));
    let facts = again.facts(pay(100));
    assert_eq!(refused(&again.scan(facts).1), Some(Refusal::TooManyTries));
}

#[test]
fn a_card_number_in_a_payment_is_refused_before_the_palm_is_looked_at() {
    let mut store = Store::new(Custody::Operator);
    let facts = ScanFacts { card_number: true, ..store.facts(pay(100)) };
    let (_, commands) = store.scan(facts);
    assert_eq!(refused(&commands), Some(Refusal::CardNumber));
    assert!(cites(&commands, "P-PCI-1"), "{}", shown(&commands));
}
