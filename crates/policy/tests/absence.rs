//! What does not exist. The patterns name every field and variant: a new one does not compile here
//! until somebody has read the rule that it may break.

use palmgate_policy::Profile;
use palmgate_protocol::terminal::{Accepted, AnswerBody, RequestBody};

/// AI Act Art. 5(1)(e): no bulk import, no search by picture.
fn word(request: &RequestBody) -> &'static str {
    match request {
        RequestBody::Scan(_) => "scan",
        RequestBody::Enrol(_) => "enrol",
        RequestBody::Ping => "ping",
        RequestBody::Renew(_) => "renew",
    }
}

#[test]
fn a_terminal_can_ask_for_nothing_but_these() {
    assert_eq!(word(&RequestBody::Ping), "ping");
}

/// Délibération 2019-001 Art. 6: no name, no address, no score, no free text.
fn kept(profile: &Profile) -> usize {
    let Profile {
        claim: _,
        custody: _,
        origin: _,
        consents,
        hands: _,
        pseudonyms: _,
        paused: _,
        authorisation: _,
        enrolled_at: _,
        expires_at: _,
        salt: _,
        spent: _,
        objected: _,
        replaces: _,
        released_at: _,
        exported: _,
    } = profile;
    consents.len()
}

/// AI Act Art. 5(1)(c), (f), (g): yes, a pseudonym, a token, a signature.
fn answered(body: &AnswerBody) -> usize {
    match body {
        AnswerBody::Accepted(Accepted { pseudonym: _, card_token, assertion, objected: _ }) => {
            1 + usize::from(card_token.is_some()) + usize::from(assertion.is_some())
        }
        AnswerBody::Retry { problem: _, index: _ }
        | AnswerBody::NotRecognised
        | AnswerBody::Refused { reason: _ }
        | AnswerBody::Busy
        | AnswerBody::Enrolled { claims: _, receipts: _ }
        | AnswerBody::History { uses: _, consents: _ }
        | AnswerBody::Done
        | AnswerBody::Erased { receipt: _ }
        | AnswerBody::Exported { document: _ }
        | AnswerBody::Renewed { chain_der: _ } => 0,
    }
}

#[test]
fn what_is_kept_of_a_person_is_a_closed_list() {
    let profile = Profile {
        claim: palmgate_protocol::ClaimHandle::from_random([1; 16]),
        custody: palmgate_protocol::Custody::Split,
        origin: palmgate_policy::Origin::Store,
        consents: Vec::new(),
        hands: Vec::new(),
        pseudonyms: Vec::new(),
        paused: false,
        authorisation: None,
        enrolled_at: palmgate_protocol::Timestamp::from_millis(0),
        expires_at: palmgate_protocol::Timestamp::from_millis(0),
        salt: [0; 32],
        spent: palmgate_policy::Spent::default(),
        objected: false,
        replaces: None,
        released_at: None,
        exported: false,
    };
    assert_eq!(kept(&profile), 0);
    assert_eq!(answered(&AnswerBody::NotRecognised), 0);
}
