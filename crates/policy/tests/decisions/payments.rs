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
