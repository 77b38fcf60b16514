//! Copies, objections and corrections.

use super::*;

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
