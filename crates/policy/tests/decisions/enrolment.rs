//! What an enrolment needs.

use super::*;

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
