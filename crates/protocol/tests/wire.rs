//! The wire format as it is written down: `wire.cddl` and `vectors/wire-1.txt` hold for what this
//! version says and for what it reads.
#![allow(clippy::unwrap_used, missing_docs)]

use cddl_cat::validate_cbor_bytes;
use data_encoding::HEXLOWER;
use palmgate_protocol::{
    Biometric, CaptureId, Challenges, Hand, Pseudonym, Purpose, PurposeSet, Roster, RosterMember,
    ScanChallenge, SignedRoster, Timestamp, decode, encode,
    pairing::{PairAnswer, PairRequest},
    terminal::*,
};
use std::{collections::BTreeMap, fmt::Write};

const CDDL: &str = include_str!("../wire.cddl");
const VECTORS: &str = include_str!("../vectors/wire-1.txt");
const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A message as text: name, rule and bytes; the last reads and writes it again.
struct Vector {
    name: &'static str,
    rule: &'static str,
    bytes: Vec<u8>,
}

fn capture() -> CaptureId {
    CaptureId::from_random([0xca; 16])
}

fn request(name: &'static str, body: RequestBody) -> Vector {
    let bytes = encode(&Request::new(capture(), AT, body));
    Vector { name, rule: "request", bytes }
}

fn answer(name: &'static str, body: AnswerBody) -> Vector {
    Vector { name, rule: "answer", bytes: encode(&Answer::new(capture(), body)) }
}

fn frame(band: Band) -> Frame {
    Frame { band, picture: Biometric::new(vec![0x89, 0x50, 0x4e, 0x47]), region_of: None }
}

fn scan(intent: Intent) -> Scan {
    let frames = vec![frame(Band::Visible), frame(Band::NearInfrared)];
    Scan { ask_cloud: true, ..Scan::new(intent, frames) }
}

fn pay() -> Intent {
    Intent::Pay(Payment {
        minor_units: 1999,
        currency: "EUR".into(),
        payee: "Acme Lyon".into(),
        nonce: [0x0e; 16],
    })
}

fn all_purposes() -> PurposeSet {
    Purpose::ALL.into_iter().collect()
}

fn enrolment() -> Enrolment {
    Enrolment {
        captures: vec![HandCapture { hand: Hand::Right, frames: vec![frame(Band::Visible)] }],
        consents: vec![ConsentGiven {
            purpose: Purpose::Pay,
            notice: "fr-cnil-1".into(),
            language: "fr".into(),
            confirmed: true,
        }],
        age: Age::Adult,
        card_token: None,
        phone: None,
        authorisation: None,
        release: None,
        replaces: None,
        possession: None,
        verdict: None,
    }
}

fn whole_enrolment() -> Enrolment {
    let bytes = |text: &str| Biometric::new(text.as_bytes().to_vec());
    Enrolment {
        card_token: Some(bytes("tok-1")),
        phone: Some(bytes("+33612345678")),
        authorisation: Some(Authorisation { zone: "strong-room".into(), until: AT }),
        release: Some(WrittenRelease {
            name: bytes("A. Person"),
            signed_at: AT,
            purpose_stated: true,
            duration_stated: true,
        }),
        replaces: Some(Replaces { claim: Some(bytes("claim")) }),
        possession: Some(PossessionKey { key: [0x4b; 32] }),
        ..enrolment()
    }
}

fn scans() -> Vec<Vector> {
    let simple = [
        ("scan-loyalty", Intent::Loyalty),
        ("scan-entry", Intent::Entry),
        ("scan-staff", Intent::Staff { zone: "strong-room".into() }),
        ("scan-history", Intent::History),
        ("scan-pause", Intent::Pause),
        ("scan-resume", Intent::Resume),
        ("scan-withdraw", Intent::Withdraw { purposes: all_purposes() }),
        ("scan-erase", Intent::Erase),
        ("scan-export", Intent::Export),
        ("scan-port", Intent::Port { key: [0x25; 32] }),
        ("scan-object", Intent::Object),
    ];
    let proven = Scan {
        claim: Some(Biometric::new(vec![0xc1; 4])),
        authenticated: true,
        possession: Some(Possession { signature: [0x5a; 64] }),
        ..scan(pay())
    };
    let simple = simple.map(|(name, intent)| request(name, RequestBody::Scan(scan(intent))));
    let region = Frame { region_of: Some(Hand::Left), ..frame(Band::NearInfrared) };
    let region = Scan { frames: vec![region], ..scan(Intent::Loyalty) };
    let pay = [
        request("scan-region", RequestBody::Scan(region)),
        request("scan-pay", RequestBody::Scan(scan(pay()))),
        request("scan-pay-proven", RequestBody::Scan(proven)),
    ];
    pay.into_iter().chain(simple).collect()
}

/// A scan as terminals say it since challenges.
fn fresh_scan() -> Vector {
    let challenge = Some(ScanChallenge::from_random([0xf5; 16]));
    let body = RequestBody::Scan(scan(Intent::Entry));
    let bytes = encode(&Request { challenge, ..Request::new(capture(), AT, body) });
    Vector { name: "scan-fresh", rule: "request", bytes }
}

/// What a sensor vouches for, as terminals say it since verdicts.
fn vouched_for() -> [Vector; 2] {
    let verdict = || Some(Biometric::new(vec![0xd2, 0x84]));
    let named = |name, body| {
        let challenge = Some(ScanChallenge::from_random([0xf5; 16]));
        let bytes = encode(&Request { challenge, ..Request::new(capture(), AT, body) });
        Vector { name, rule: "request", bytes }
    };
    let scan = Scan { verdict: verdict(), ..scan(pay()) };
    let enrolment = Enrolment { verdict: verdict(), ..enrolment() };
    [
        named("scan-vouched-for", RequestBody::Scan(scan)),
        named("enrol-vouched-for", RequestBody::Enrol(enrolment)),
    ]
}

/// A ping as terminals say it since rosters.
fn ping_roster() -> Vector {
    let ping = Request::new(capture(), AT, RequestBody::Ping);
    let bytes = encode(&Request { roster: Some(7), ..ping });
    Vector { name: "ping-roster", rule: "request", bytes }
}

/// An answer as gateways say it since rosters.
fn done_roster() -> Vector {
    let member = |name: &str, key: Option<[u8; 32]>| RosterMember {
        name: name.parse().unwrap(),
        certificates: vec![[0xce; 32].into()],
        key: key.map(Into::into),
        purposes: all_purposes(),
        enrols: key.is_none(),
    };
    let roster = Roster {
        store: "lyon".parse().unwrap(),
        sequence: 8,
        at: AT,
        members: vec![member("gateway", Some([0x4b; 32])), member("till-1", None)],
    };
    let roster = SignedRoster { roster: encode(&roster).into(), signature: [0x5a; 64] };
    let done = Answer::new(capture(), AnswerBody::Done);
    let bytes = encode(&Answer { roster: Some(roster), ..done });
    Vector { name: "done-roster", rule: "answer", bytes }
}

/// An answer as gateways say it since challenges.
fn with_challenges(name: &'static str, body: AnswerBody) -> Vector {
    let given =
        vec![ScanChallenge::from_random([0xf6; 16]), ScanChallenge::from_random([0xf7; 16])];
    let challenges = Some(Challenges { lifetime_ms: 60_000, given });
    let bytes = encode(&Answer { challenges, ..Answer::new(capture(), body) });
    Vector { name, rule: "answer", bytes }
}

fn requests() -> Vec<Vector> {
    let renewal = |csr_der| Renewal { using: vec![0x41, 2, 3], csr_der };
    vec![
        request("enrol", RequestBody::Enrol(enrolment())),
        request("enrol-whole", RequestBody::Enrol(whole_enrolment())),
        request("ping", RequestBody::Ping),
        request("renew-told", RequestBody::Renew(renewal(None))),
        request("renew-asked", RequestBody::Renew(renewal(Some(vec![0x30, 0x82].into())))),
        fresh_scan(),
        ping_roster(),
    ]
}

fn answers() -> Vec<Vector> {
    let accepted = |card_token: Option<&str>, assertion: Option<Vec<u8>>| {
        AnswerBody::Accepted(Accepted {
            pseudonym: PseudonymText(Pseudonym::from_random([0x9d; 16])),
            card_token: card_token.map(|token| CardToken(token.into())),
            assertion: assertion.map(|bytes| AssertionBytes(bytes.into())),
            objected: false,
        })
    };
    let claims =
        vec![IssuedClaim { purposes: all_purposes(), token: ClaimBytes(vec![0xd2, 0x84].into()) }];
    let uses = vec![Use { at: AT, terminal: "till-1".into(), purpose: Purpose::Loyalty }];
    let chain_der = vec![vec![0x30, 1].into(), vec![0x30, 2].into()];
    vec![
        answer("accepted-payment", accepted(Some("tok-1"), Some(vec![0xd2, 0x84]))),
        answer("accepted", accepted(None, None)),
        answer("retry", AnswerBody::Retry { problem: CaptureProblem::Inconsistent, index: 2 }),
        answer("not-recognised", AnswerBody::NotRecognised),
        answer("refused", AnswerBody::Refused { reason: Refusal::StepUp }),
        answer("not-understood", AnswerBody::Refused { reason: Refusal::NotUnderstood }),
        answer("busy", AnswerBody::Busy),
        answer("enrolled", AnswerBody::Enrolled { claims, receipts: vec!["{}".into()] }),
        answer("history", AnswerBody::History { uses, consents: all_purposes() }),
        answer("done", AnswerBody::Done),
        answer("erased", AnswerBody::Erased { receipt: "{}".into() }),
        answer("exported", AnswerBody::Exported { document: Document("{}".into()) }),
        answer("renewed", AnswerBody::Renewed { chain_der }),
        with_challenges("done-challenges", AnswerBody::Done),
        with_challenges(
            "challenge-needed",
            AnswerBody::Refused { reason: Refusal::ChallengeNeeded },
        ),
        done_roster(),
    ]
}

fn pairing() -> Vec<Vector> {
    let name = |text: &str| text.parse().unwrap();
    let ask =
        PairRequest { secret: [1, 2, 3, 4, 5], name: name("till-1"), csr_der: vec![0x30, 0x82] };
    let give = PairAnswer {
        chain_der: vec![vec![0x30, 1].into(), vec![0x30, 2].into()],
        authority_der: vec![0x30, 2],
        broker_host: "box.store.example".into(),
        broker_port: 8883,
        gateway_time: AT,
        store: name("lyon"),
        tenant: name("grocer"),
    };
    vec![
        Vector { name: "pair-request", rule: "pair-request", bytes: encode(&ask) },
        Vector { name: "pair-answer", rule: "pair-answer", bytes: encode(&give) },
    ]
}

fn all() -> Vec<Vector> {
    let vouched_for = vouched_for().into();
    [scans(), requests(), vouched_for, answers(), pairing()].into_iter().flatten().collect()
}

/// Reads a message of this rule and says it again.
fn again(rule: &str, bytes: &[u8]) -> Result<Vec<u8>, palmgate_protocol::Malformed> {
    Ok(match rule {
        "request" => encode(&decode::<Request>(bytes)?),
        "answer" => encode(&decode::<Answer>(bytes)?),
        "pair-request" => encode(&decode::<PairRequest>(bytes)?),
        "pair-answer" => encode(&decode::<PairAnswer>(bytes)?),
        other => panic!("{other} is no rule"),
    })
}

#[test]
fn what_is_said_is_what_is_written_down() {
    let mut said = String::new();
    for Vector { name, rule, bytes } in all() {
        writeln!(said, "{name} {rule} {}", HEXLOWER.encode(&bytes)).unwrap();
    }
    assert!(
        said == VECTORS,
        "a message has changed: old terminals would not understand it. Said is:\n{said}"
    );
}

#[test]
fn what_is_written_down_is_read_and_follows_the_cddl() {
    let mut read = BTreeMap::new();
    for line in VECTORS.lines() {
        let [name, rule, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(again(rule, &bytes).unwrap(), bytes, "{name}");
        validate_cbor_bytes(rule, CDDL, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        *read.entry(rule).or_insert(0) += 1;
    }
    assert_eq!(
        read.into_iter().collect::<Vec<_>>(),
        [("answer", 16), ("pair-answer", 1), ("pair-request", 1), ("request", 23)]
    );
}

#[test]
fn the_cddl_refuses_what_is_none_of_it() {
    for (rule, bytes) in [("request", b"\x80".as_slice()), ("answer", b"\x83\x01\x02\x03")] {
        assert!(validate_cbor_bytes(rule, CDDL, bytes).is_err());
    }
    let ping = all().into_iter().find(|vector| vector.name == "ping").unwrap().bytes;
    assert!(validate_cbor_bytes("answer", CDDL, &ping).is_err());
}

/// `array` with one more item at the end.
fn with_field(array: &[u8], item: &[u8]) -> Vec<u8> {
    let (head, rest) = array.split_first().unwrap();
    assert!((0x80..0x97).contains(head), "a short array");
    [&[head + 1], rest, item].concat()
}

#[test]
fn a_field_of_a_later_version_is_skipped() {
    // A text, a map and an array of later versions.
    for item in [b"\x63new".as_slice(), b"\xa1\x01\x02", b"\x82\x01\x81\x02"] {
        for Vector { name, rule, bytes } in all() {
            // A later version says null where it says nothing, since its own fields follow.
            let fields = match rule {
                "request" => 0x85,
                "answer" => 0x84,
                _ => bytes[0],
            };
            let mut whole = bytes.clone();
            while whole[0] < fields {
                whole = with_field(&whole, b"\xf6");
            }
            let later = with_field(&whole, item);
            assert_eq!(again(rule, &later).unwrap(), bytes, "{name}");
            validate_cbor_bytes(rule, CDDL, &later)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn a_message_of_an_earlier_version_is_read_with_what_it_lacks_at_rest() {
    // A scan before possession and strong authentication: [entry, [], null, true].
    let scan =
        [b"\x83\x50".as_slice(), &[0xca; 16], b"\x01\x82\x00\x81\x84\x82\x02\x80\x80\xf6\xf5"];
    let request: Request = decode(&scan.concat()).unwrap();
    let RequestBody::Scan(scan) = request.body else { panic!("a scan") };
    assert!(scan.ask_cloud && !scan.authenticated && scan.possession.is_none());
    // An acceptance before objections.
    let accepted =
        [b"\x82\x50".as_slice(), &[0xca; 16], b"\x82\x00\x81\x83\x50", &[0x9d; 16], b"\xf6\xf6"];
    let answer: Answer = decode(&accepted.concat()).unwrap();
    assert!(matches!(answer.body, AnswerBody::Accepted(accepted) if !accepted.objected));
    assert!(request.challenge.is_none() && answer.challenges.is_none());
    assert!(request.roster.is_none() && answer.roster.is_none());
}

/// The outer arrays as a version before challenges read them.
#[test]
fn a_reader_of_before_reads_what_names_a_challenge_or_a_roster() {
    #[derive(minicbor::Decode)]
    struct OldAnswer {
        #[n(0)]
        capture: CaptureId,
        #[n(1)]
        body: AnswerBody,
    }
    #[derive(minicbor::Decode)]
    struct OldRequest {
        #[n(0)]
        capture: CaptureId,
        #[n(2)]
        body: RequestBody,
    }
    for said in [with_challenges("", AnswerBody::Done), done_roster()] {
        let answer: OldAnswer = decode(&said.bytes).unwrap();
        assert!(answer.capture == capture() && matches!(answer.body, AnswerBody::Done));
    }
    let request: OldRequest = decode(&ping_roster().bytes).unwrap();
    assert!(request.capture == capture() && matches!(request.body, RequestBody::Ping));
    let request: OldRequest = decode(&fresh_scan().bytes).unwrap();
    assert!(request.capture == capture() && matches!(request.body, RequestBody::Scan(_)));
}

#[test]
fn a_request_of_a_later_version_can_at_least_be_answered() {
    // [capture, at, [77, ["later"]]]
    let later = [b"\x83\x50".as_slice(), &[0xca; 16], b"\x01\x82\x18\x4d\x81\x65later"].concat();
    assert!(decode::<Request>(&later).is_err());
    let RequestHead { capture: of } = decode(&later).unwrap();
    assert_eq!(of, capture());
}
