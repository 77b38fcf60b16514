//! Writes the messages that fuzzing starts from: `cargo run --release -p palmgate-fuzz --example
//! corpus`. Tokens are signed with a new key, which stands before them.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed chore")]

use palmgate_protocol::{
    Biometric, CaptureId, ClaimHandle, Custody, MemberId, Pseudonym, Purpose, PurposeSet,
    Timestamp, cloud, encode,
    pairing::PairRequest,
    terminal::{
        Answer, AnswerBody, Band, Frame, Intent, Payment, Refusal, Request, RequestBody, Scan,
    },
};
use palmgate_seal::{assertion, claim, pki::Identity, sign::SigningKey};
use std::{fs, path::Path};

fn main() {
    let at = Timestamp::from_millis(1_800_000_000_000);
    let claim_handle = ClaimHandle::from_random([3; 16]);
    let payment = Payment {
        minor_units: 1250,
        currency: "EUR".into(),
        payee: "Grocer".into(),
        nonce: [9; 16],
    };
    let scan = Scan {
        intent: Intent::Pay(payment.clone()),
        frames: vec![Frame {
            band: Band::Visible,
            picture: Biometric::new(vec![1; 40]),
            region_of: None,
        }],
        claim: Some(Biometric::new(vec![2; 30])),
        ask_cloud: true,
        authenticated: false,
        possession: None,
        verdict: None,
    };
    let capture = CaptureId::from_random([1; 16]);
    let request = |body| encode(&Request::new(capture, at, body));
    write("terminal", "scan", &request(RequestBody::Scan(scan)));
    write("terminal", "ping", &request(RequestBody::Ping));
    let answer = |body| encode(&Answer::new(capture, body));
    write("terminal", "refused", &answer(AnswerBody::Refused { reason: Refusal::Stale }));
    write("terminal", "erased", &answer(AnswerBody::Erased { receipt: "{}".into() }));

    let erasure = cloud::Erasure {
        member: MemberId::from_random([4; 16]),
        claim: claim_handle,
        commitment: [5; 32],
    };
    write("cloud", "erasure", &encode(&erasure));
    write("cloud", "claim-query", &encode(&cloud::ClaimQuery { claim: claim_handle }));
    let outstanding = vec!["paris".parse().unwrap()];
    let state = cloud::ErasureState { erased_at: at, outstanding, signature: vec![6; 64] };
    write("cloud", "erasure-state", &encode(&state));

    let csr_der = Identity::generate().csr_der();
    let name = "till-1".parse().unwrap();
    write("pairing", "request", &encode(&PairRequest { secret: [7; 5], name, csr_der }));

    let key = SigningKey::generate();
    let signed = |token: &[u8]| [key.public().0.as_slice(), token].concat();
    let purposes = PurposeSet::default().with(Purpose::Loyalty);
    let token = claim::issue(
        &claim::Claim {
            tenant: "tenant".parse().unwrap(),
            store: "lyon".parse().unwrap(),
            custody: Custody::Subject,
            handle: claim_handle,
            purposes,
            issued_at: at,
            expires_at: at,
            key: None,
            sealed_record: Some(vec![8; 64]),
            possession: None,
        },
        &key,
    );
    write("token", "claim", &signed(token.expose()));
    let pseudonym = Pseudonym::from_random([1; 16]);
    let assertion = assertion::issue(&assertion::Assertion { payment, pseudonym, at }, &key);
    write("token", "assertion", &signed(&assertion));
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&corpus).unwrap();
    fs::write(corpus.join(name), bytes).unwrap();
}
