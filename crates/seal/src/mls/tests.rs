use super::*;
use crate::{
    pki::{Authority, Identity, Role},
    testing::{authority, expired, gateway, identity, name, now, terminal},
};
use credential::{LeafKey, Side};
use openmls::prelude::{
    BasicCredential, CredentialWithKey, KeyPackage, Lifetime, MlsMessageBodyIn, MlsMessageIn,
    MlsMessageOut, OpenMlsProvider as _,
    tls_codec::{Deserialize as _, Serialize as _},
};
use palmgate_protocol::{Timestamp, limits};
use proptest::prelude::*;
use state::Store;
use std::time::Duration;

struct Pair {
    authority: Authority,
    gateway_identity: Identity,
    terminal_identity: Identity,
    gateway: Session,
    terminal: Session,
}

fn pair() -> Pair {
    let authority = authority();
    let (gateway_identity, terminal_identity) =
        (gateway(&authority), terminal(&authority, "till-1"));
    let ca = authority.certificate_der().clone();
    let (joining, key_package) = request_to_join(&terminal_identity, now()).unwrap();
    let admitted = admit(&gateway_identity, &key_package, &ca, now()).unwrap();
    assert_eq!(admitted.terminal, name("till-1"));
    assert_eq!(admitted.serial, crate::testing::serial(&terminal_identity));
    let terminal = joining.accept(&admitted.welcome, &ca, now()).unwrap();
    Pair { authority, gateway_identity, terminal_identity, gateway: admitted.session, terminal }
}

fn text(opened: Result<Opened, MlsError>) -> Vec<u8> {
    match opened.unwrap() {
        Opened::Message(text) => text.expose().clone(),
        Opened::Changed => panic!("a change instead of a message"),
        Opened::Removed => panic!("a removal instead of a message"),
    }
}

fn fails(opened: Result<Opened, MlsError>) -> MlsError {
    opened.map(|_| ()).expect_err("it opened")
}

#[test]
fn a_session_can_move_between_threads() {
    const fn movable<T: Send + Sync>() {}
    movable::<Session>();
    movable::<Joining>();
}

#[test]
fn terminal_and_gateway_talk_both_ways_and_know_each_other() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    assert_eq!(gateway.peer_name().unwrap(), name("till-1"));
    assert_eq!(terminal.peer_name().unwrap(), name("gateway"));
    assert_eq!((gateway.epoch(), terminal.epoch()), (1, 1));
    for round in 0..20u8 {
        let up = terminal.seal(&[round; 500]).unwrap();
        assert_eq!(text(gateway.open(&up)), [round; 500]);
        let down = gateway.seal(&[round]).unwrap();
        assert_eq!(text(terminal.open(&down)), [round]);
    }
}

#[test]
fn sizes_say_little_and_the_largest_message_fits_a_payload() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    let sizes: Vec<_> =
        [0, 1, 100, 3900].map(|length| gateway.seal(&vec![7; length]).unwrap().len()).into();
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
    let largest = vec![9; limits::MAX_MESSAGE_BYTES];
    let sealed = gateway.seal(&largest).unwrap();
    assert!(sealed.len() <= limits::MAX_PAYLOAD_BYTES, "{}", sealed.len());
    assert_eq!(text(terminal.open(&sealed)), largest);
    let over = vec![9; limits::MAX_MESSAGE_BYTES + 1];
    assert!(matches!(gateway.seal(&over), Err(MlsError::State(_))));
}

#[test]
fn every_changed_byte_of_a_message_is_noticed_and_does_no_harm() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    let sealed = terminal.seal(b"scan").unwrap();
    for position in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[position] ^= 1 << (position % 8);
        let error = fails(gateway.open(&changed));
        assert!(error.is_the_other_sides_fault(), "byte {position}: {error}");
    }
    assert_eq!(text(gateway.open(&sealed)), b"scan");
}

#[test]
fn a_message_opens_once() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    let sealed = terminal.seal(b"scan").unwrap();
    assert_eq!(text(gateway.open(&sealed)), b"scan");
    assert!(matches!(fails(gateway.open(&sealed)), MlsError::Replayed));
    assert!(terminal.open(&sealed).is_err(), "a terminal opened its own message");
    let other = pair();
    let mut foreign = other.gateway;
    assert!(matches!(fails(foreign.open(&sealed)), MlsError::Forged));
}

#[test]
fn messages_may_overtake_each_other_within_the_window_only() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    let sealed: Vec<_> = (0..12u8).map(|index| terminal.seal(&[index]).unwrap()).collect();
    assert_eq!(text(gateway.open(&sealed[11])), [11]);
    for index in [4, 10, 5] {
        assert_eq!(text(gateway.open(&sealed[index])), [index as u8]);
    }
    for index in [0, 1, 2, 4, 11] {
        assert!(matches!(fails(gateway.open(&sealed[index])), MlsError::Replayed), "{index}");
    }
}

#[test]
fn a_thousand_lost_messages_are_survived_and_no_more() {
    let Pair { mut gateway, mut terminal, .. } = pair();
    for _ in 0..LOST_IN_A_ROW {
        terminal.seal(b"lost").unwrap();
    }
    let far = terminal.seal(b"still here").unwrap();
    assert_eq!(text(gateway.open(&far)), b"still here");
    for _ in 0..=LOST_IN_A_ROW {
        terminal.seal(b"lost").unwrap();
    }
    assert!(gateway.open(&terminal.seal(b"too far").unwrap()).is_err());
}

#[test]
fn a_session_continues_from_its_state() {
    let mut pair = pair();
    for _ in 0..3 {
        let sealed = pair.terminal.seal(b"before").unwrap();
        assert_eq!(text(pair.gateway.open(&sealed)), b"before");
        let states = (pair.gateway.state(), pair.terminal.state());
        pair.gateway = Session::restore(states.0.expose(), &pair.gateway_identity).unwrap();
        pair.terminal = Session::restore(states.1.expose(), &pair.terminal_identity).unwrap();
        assert!(matches!(fails(pair.gateway.open(&sealed)), MlsError::Replayed));
        let down = pair.gateway.seal(b"after").unwrap();
        assert_eq!(text(pair.terminal.open(&down)), b"after");
    }
}

#[test]
fn a_state_that_was_rolled_back_is_found_out() {
    let mut pair = pair();
    let old = (pair.gateway.state(), pair.terminal.state());
    let up = pair.terminal.seal(b"up").unwrap();
    text(pair.gateway.open(&up));
    let down = pair.gateway.seal(b"down").unwrap();
    text(pair.terminal.open(&down));

    let mut terminal = Session::restore(old.1.expose(), &pair.terminal_identity).unwrap();
    let reused = terminal.seal(b"again").unwrap();
    assert!(matches!(fails(pair.gateway.open(&reused)), MlsError::Replayed));
    let mut gateway = Session::restore(old.0.expose(), &pair.gateway_identity).unwrap();
    let reused = gateway.seal(b"again").unwrap();
    assert!(matches!(fails(pair.terminal.open(&reused)), MlsError::Replayed));
}

#[test]
fn a_removed_terminal_is_heard_and_told_nothing_more() {
    let mut pair = pair();
    let before = pair.terminal.seal(b"sealed before, delivered after").unwrap();
    let told = pair.gateway.seal(b"sealed before, delivered before").unwrap();
    text(pair.terminal.open(&told));
    let kept = pair.terminal.state();
    let removal = pair.gateway.remove_peer().unwrap();
    let after = pair.terminal.seal(b"sealed after").unwrap();
    for message in [&before, &after] {
        assert!(matches!(fails(pair.gateway.open(message)), MlsError::Over));
    }
    assert!(matches!(pair.gateway.seal(b"x"), Err(MlsError::Over)));
    assert!(matches!(pair.gateway.remove_peer(), Err(MlsError::Over)));
    assert!(matches!(pair.gateway.self_update(), Err(MlsError::Over)));

    assert!(matches!(pair.terminal.open(&removal), Ok(Opened::Removed)));
    assert!(matches!(pair.terminal.seal(b"x"), Err(MlsError::Over)));
    assert!(matches!(fails(pair.terminal.open(&removal)), MlsError::Over));
    for (session, identity) in
        [(&pair.gateway, &pair.gateway_identity), (&pair.terminal, &pair.terminal_identity)]
    {
        let state = session.state();
        assert!(state.expose().len() < 100, "an ended session keeps secrets");
        assert!(matches!(Session::restore(state.expose(), identity), Err(MlsError::Over)));
    }
    // A terminal that keeps its old state only keeps itself company.
    let mut stubborn = Session::restore(kept.expose(), &pair.terminal_identity).unwrap();
    let message = stubborn.seal(b"x").unwrap();
    assert!(matches!(fails(pair.gateway.open(&message)), MlsError::Over));
}

#[test]
fn only_the_gateway_removes() {
    let mut pair = pair();
    assert!(matches!(pair.terminal.remove_peer(), Err(MlsError::State(_))));
    let gateway_leaf = pair.terminal.group.members().next().unwrap().index;
    assert_ne!(gateway_leaf, pair.terminal.group.own_leaf_index());
    let Session { store, group, key, .. } = &mut pair.terminal;
    let (commit, _, _) = group.remove_members(&**store, key, &[gateway_leaf]).unwrap();
    let commit = commit.tls_serialize_detached().unwrap();
    assert!(matches!(fails(pair.gateway.open(&commit)), MlsError::Forbidden(_)));
    assert!(pair.gateway.seal(b"still in charge").is_ok());
}

#[test]
fn nobody_brings_in_a_third_member_or_sends_a_proposal() {
    let mut pair = pair();
    let friend = terminal(&pair.authority, "till-2");
    let package = KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .build(
            SUITE,
            &*Store::default(),
            &LeafKey(friend.signing_key()),
            credential::of(&friend).unwrap(),
        )
        .unwrap()
        .into_key_package();
    for from_terminal in [true, false] {
        let (from, to) = if from_terminal {
            (&mut pair.terminal, &mut pair.gateway)
        } else {
            (&mut pair.gateway, &mut pair.terminal)
        };
        let Session { store, group, key, .. } = from;
        let (proposal, _) = group.propose_add_member(&**store, key, &package).unwrap();
        group.clear_pending_proposals(store.storage()).unwrap();
        let proposal = proposal.tls_serialize_detached().unwrap();
        assert!(matches!(fails(to.open(&proposal)), MlsError::Forbidden(_)));
        let (commit, _, _) =
            group.add_members(&**store, key, std::slice::from_ref(&package)).unwrap();
        group.clear_pending_commit(store.storage()).unwrap();
        let commit = commit.tls_serialize_detached().unwrap();
        assert!(matches!(fails(to.open(&commit)), MlsError::Forbidden(_)));
        assert_eq!(to.epoch(), 1);
    }
    let sealed = pair.terminal.seal(b"on we go").unwrap();
    assert_eq!(text(pair.gateway.open(&sealed)), b"on we go");
}

/// A gateway that lets somebody listen has to found a group of three: nobody goes in.
#[test]
fn a_group_with_a_listener_in_it_is_not_entered() {
    let authority = authority();
    let (gateway, ca) = (gateway(&authority), authority.certificate_der());
    let (till, listener) = (terminal(&authority, "till-1"), terminal(&authority, "till-2"));
    let (joining, package) = request_to_join(&till, now()).unwrap();
    let (_, listening) = request_to_join(&listener, now()).unwrap();
    let admitted = admit(&gateway, &listening, ca, now()).unwrap();
    let Session { store, mut group, key, .. } = admitted.session;
    let MlsMessageBodyIn::KeyPackage(package) =
        MlsMessageIn::tls_deserialize_exact(&package).unwrap().extract()
    else {
        panic!("a key package");
    };
    let package = package.validate(store.crypto(), ProtocolVersion::Mls10).unwrap();
    let (_, welcome, _) = group.add_members(&*store, &key, &[package]).unwrap();
    group.merge_pending_commit(&*store).unwrap();
    assert_eq!(group.members().count(), 3);
    let welcome = welcome.tls_serialize_detached().unwrap();
    let entered = joining.accept(&welcome, ca, now()).map(|_| ());
    assert!(matches!(entered, Err(MlsError::Forbidden(_))));
    // Nor does a side go on that finds itself in one.
    let mut session = Session::new(store, group, key, Side::Gateway);
    assert!(matches!(session.seal(b"answer"), Err(MlsError::Forbidden(_))));
}

#[test]
fn a_certificate_cannot_be_exchanged_within_a_session() {
    let mut pair = pair();
    let other = terminal(&pair.authority, "till-2");
    let Session { store, group, key, .. } = &mut pair.terminal;
    let leaf = openmls::prelude::LeafNodeParameters::builder()
        .with_credential_with_key(credential::of(&other).unwrap())
        .build();
    let bundle = openmls::prelude::NewSignerBundle {
        signer: &LeafKey(other.signing_key()),
        credential_with_key: credential::of(&other).unwrap(),
    };
    let commit = group.self_update_with_new_signer(&**store, key, bundle, leaf).unwrap();
    let commit = commit.into_commit().tls_serialize_detached().unwrap();
    assert!(matches!(fails(pair.gateway.open(&commit)), MlsError::Forbidden(_)));
}

#[test]
fn renewed_keys_lock_out_whoever_copied_the_state() {
    let mut pair = pair();
    let stolen = pair.terminal.state();
    let late = pair.gateway.seal(b"late").unwrap();
    let change = pair.terminal.self_update().unwrap();
    assert!(matches!(pair.gateway.open(&change), Ok(Opened::Changed)));
    assert_eq!((pair.gateway.epoch(), pair.terminal.epoch()), (2, 2));
    let error = fails(pair.terminal.open(&late));
    assert!(matches!(error, MlsError::Epoch { theirs: 1, ours: 2 }));

    let mut thief = Session::restore(stolen.expose(), &pair.terminal_identity).unwrap();
    let sealed = pair.gateway.seal(b"secret").unwrap();
    assert!(thief.open(&sealed).is_err());
    assert_eq!(text(pair.terminal.open(&sealed)), b"secret");
    let forged = thief.seal(b"forged").unwrap();
    assert!(matches!(fails(pair.gateway.open(&forged)), MlsError::Epoch { .. }));

    let change = pair.gateway.self_update().unwrap();
    assert!(matches!(pair.terminal.open(&change), Ok(Opened::Changed)));
    assert!(matches!(fails(pair.terminal.open(&change)), MlsError::Epoch { .. }));
    let sealed = pair.terminal.seal(b"goes on").unwrap();
    assert_eq!(text(pair.gateway.open(&sealed)), b"goes on");
}

#[test]
fn two_renewals_at_once_are_noticed() {
    let mut pair = pair();
    let (up, down) = (pair.terminal.self_update().unwrap(), pair.gateway.self_update().unwrap());
    assert!(matches!(fails(pair.gateway.open(&up)), MlsError::Epoch { .. }));
    assert!(matches!(fails(pair.terminal.open(&down)), MlsError::Epoch { .. }));
    assert!(pair.gateway.open(&pair.terminal.seal(b"split").unwrap()).is_err());
}

#[test]
fn only_a_terminal_of_the_same_authority_gets_in() {
    let (ours, theirs) = (authority(), authority());
    let (gateway_identity, ca) = (gateway(&ours), ours.certificate_der());
    let refuse = |key_package: &[u8], at: Timestamp| {
        admit(&gateway_identity, key_package, ca, at).map(|_| ()).unwrap_err()
    };
    let ask = |identity: &Identity| request_to_join(identity, now()).unwrap().1;

    let foreign = ask(&terminal(&theirs, "till-1"));
    assert!(matches!(refuse(&foreign, now()), MlsError::Identity(_)));
    let late = ask(&expired(&ours, "till-1", Role::Client));
    assert!(matches!(refuse(&late, now()), MlsError::Identity(_)));
    let hour = Duration::from_hours(1);
    let impostor = ask(&gateway(&ours));
    assert!(matches!(refuse(&impostor, now()), MlsError::Certificate(_)));
    let good = terminal(&ours, "till-1");
    assert!(matches!(refuse(&ask(&good), now().after(hour)), MlsError::NotValidNow));
    assert!(admit(&gateway_identity, &ask(&good), ca, now()).is_ok());
}

/// A `KeyPackage` as a faulty or hostile terminal would make it.
fn crafted(credential: CredentialWithKey, key: &LeafKey, lifetime: Option<Lifetime>) -> Vec<u8> {
    let both = Capabilities::new(
        None,
        Some(&[SUITE]),
        None,
        None,
        Some(&[CredentialType::X509, CredentialType::Basic]),
    );
    let builder = KeyPackage::builder().leaf_node_capabilities(both);
    let builder = match lifetime {
        Some(lifetime) => builder.key_package_lifetime(lifetime),
        None => builder,
    };
    let bundle = builder.build(SUITE, &*Store::default(), key, credential).unwrap();
    MlsMessageOut::from(bundle.into_key_package()).tls_serialize_detached().unwrap()
}

#[test]
fn a_certificate_that_is_not_for_the_leafs_key_is_refused() {
    let authority = authority();
    let (gateway, ca) = (gateway(&authority), authority.certificate_der());
    let (victim, thief) = (terminal(&authority, "till-1"), terminal(&authority, "till-2"));
    let admit = |message: &[u8]| admit(&gateway, message, ca, now()).map(|_| ()).unwrap_err();

    let stolen = CredentialWithKey {
        credential: credential::of(&victim).unwrap().credential,
        signature_key: thief.verifying_key().0.as_slice().into(),
    };
    let message = crafted(stolen, &LeafKey(thief.signing_key()), None);
    assert!(matches!(admit(&message), MlsError::Certificate(_)));

    let unsigned = credential::of(&victim).unwrap();
    let message = crafted(unsigned, &LeafKey(thief.signing_key()), None);
    assert!(matches!(admit(&message), MlsError::Malformed(_)));

    let basic = CredentialWithKey {
        credential: BasicCredential::new(b"till-1".to_vec()).into(),
        signature_key: thief.verifying_key().0.as_slice().into(),
    };
    let message = crafted(basic, &LeafKey(thief.signing_key()), None);
    assert!(matches!(admit(&message), MlsError::Certificate(_)));

    let seconds = now().as_millis() as u64 / 1000;
    let long = Lifetime::init(seconds - 10, seconds + 86_400);
    let own = credential::of(&thief).unwrap();
    let message = crafted(own, &LeafKey(thief.signing_key()), Some(long));
    assert!(matches!(admit(&message), MlsError::NotValidNow));
}

#[test]
fn a_terminal_joins_its_own_gateway_only() {
    let (ours, theirs) = (authority(), authority());
    let (till, ca) = (terminal(&ours, "till-1"), ours.certificate_der());
    let join = |host: &Identity, trusts: &Authority| {
        let (joining, key_package) = request_to_join(&till, now()).unwrap();
        let admitted = admit(host, &key_package, ca, now()).unwrap();
        joining.accept(&admitted.welcome, trusts.certificate_der(), now()).map(|_| ())
    };
    assert!(join(&gateway(&ours), &ours).is_ok());
    assert!(matches!(join(&gateway(&theirs), &ours), Err(MlsError::Identity(_))));
    assert!(matches!(join(&gateway(&ours), &theirs), Err(MlsError::Identity(_))));
    assert!(matches!(join(&terminal(&ours, "till-2"), &ours), Err(MlsError::Identity(_))));
    let server = identity(&ours, "till-2", Role::Both { hosts: vec![] });
    assert!(matches!(join(&server, &ours), Err(MlsError::Certificate(_))));
    let named = identity(&ours, "gateway", Role::Server { hosts: vec![] });
    assert!(join(&named, &ours).is_ok());
    let posing = terminal(&ours, "gateway");
    assert!(matches!(join(&posing, &ours), Err(MlsError::Identity(_))), "a client's certificate");
}

#[test]
fn a_session_notices_that_the_other_certificate_ended() {
    let pair = pair();
    let ca = pair.authority.certificate_der();
    for session in [&pair.gateway, &pair.terminal] {
        assert!(session.check_peer(ca, now()).is_ok());
        let late = now().after(Duration::from_hours(48));
        assert!(matches!(session.check_peer(ca, late), Err(MlsError::Identity(_))));
    }
}

#[test]
fn a_welcome_answers_one_request() {
    let authority = authority();
    let (gateway, till) = (gateway(&authority), terminal(&authority, "till-1"));
    let ca = authority.certificate_der();
    let (_, first) = request_to_join(&till, now()).unwrap();
    let (second, _) = request_to_join(&till, now()).unwrap();
    let admitted = admit(&gateway, &first, ca, now()).unwrap();
    let again = admit(&gateway, &first, ca, now()).unwrap();
    assert_eq!(admitted.reference, again.reference, "a repeat cannot be recognised");
    assert!(matches!(second.accept(&admitted.welcome, ca, now()), Err(MlsError::Malformed(_))));
    let (third, third_package) = request_to_join(&till, now()).unwrap();
    assert!(matches!(third.accept(&third_package, ca, now()), Err(MlsError::Malformed(_))));
    let other = admit(&gateway, &third_package, ca, now()).unwrap();
    assert_ne!(admitted.reference, other.reference);
}

#[test]
fn a_state_opens_for_its_identity_only() {
    let pair = pair();
    let state = pair.terminal.state();
    let stranger = terminal(&pair.authority, "till-1");
    assert!(matches!(Session::restore(state.expose(), &stranger), Err(MlsError::State(_))));
    for length in (0..state.expose().len()).step_by(97) {
        let cut = &state.expose()[..length];
        assert!(Session::restore(cut, &pair.terminal_identity).is_err(), "cut at {length}");
    }
}

#[test]
fn oversize_messages_are_refused_before_they_are_decoded() {
    let mut pair = pair();
    let large = vec![0; limits::MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(fails(pair.gateway.open(&large)), MlsError::TooLarge));
    let ca = pair.authority.certificate_der();
    let large = vec![0; MAX_HANDSHAKE_BYTES + 1];
    let refused = admit(&pair.gateway_identity, &large, ca, now());
    assert!(matches!(refused, Err(MlsError::TooLarge)));
    let (joining, _) = request_to_join(&pair.terminal_identity, now()).unwrap();
    assert!(matches!(joining.accept(&large, ca, now()), Err(MlsError::TooLarge)));
}

/// Overwrites, cuts or extends.
fn mutated(original: &[u8], position: usize, bytes: &[u8], length: usize) -> Vec<u8> {
    let mut mutated = original.to_vec();
    let position = position % mutated.len();
    for (offset, byte) in bytes.iter().enumerate() {
        if let Some(slot) = mutated.get_mut(position + offset) {
            *slot = *byte;
        }
    }
    mutated.resize(length % (original.len() * 2), 0xff);
    mutated
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_handshakes_never_panic(
        position: usize, bytes: [u8; 6], length: usize, keep_length: bool,
    ) {
        let authority = authority();
        let (gateway, till) = (gateway(&authority), terminal(&authority, "till-1"));
        let ca = authority.certificate_der();
        let (joining, key_package) = request_to_join(&till, now()).unwrap();
        let welcome = admit(&gateway, &key_package, ca, now()).unwrap().welcome;
        let length = |original: &[u8]| if keep_length { original.len() } else { length };
        let bad = mutated(&key_package, position, &bytes, length(&key_package));
        if bad != key_package {
            prop_assert!(admit(&gateway, &bad, ca, now()).is_err());
        }
        let bad = mutated(&welcome, position, &bytes, length(&welcome));
        if bad != welcome {
            prop_assert!(joining.accept(&bad, ca, now()).is_err());
        }
    }

    #[test]
    fn a_damaged_state_never_panics(position: usize, bytes: [u8; 6], length: usize) {
        let pair = pair();
        let state = pair.terminal.state();
        let bad = mutated(state.expose(), position, &bytes, length);
        if let Ok(mut session) = Session::restore(&bad, &pair.terminal_identity) {
            drop(session.seal(b"x"));
            drop(session.open(&bad));
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut pair = pair();
        prop_assert!(pair.gateway.open(&noise).is_err());
        let ca = pair.authority.certificate_der();
        prop_assert!(admit(&pair.gateway_identity, &noise, ca, now()).is_err());
        prop_assert!(Session::restore(&noise, &pair.gateway_identity).is_err());
    }
}
