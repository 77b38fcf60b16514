//! Erasure receipts, as they are made, and as they are forged.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{entry, key, open};
use palmgate_ledger::{
    Entry, EntryKind, ErasureReceipt, Evidence, EvidenceError, Ledger, NOBODY,
    receipt::{Kind, MAX_RECIPIENTS, ReceiptError, Recipient, RecipientState, Status, verify},
};
use palmgate_protocol::{MemberId, Name, Secret, Timestamp, cloud::ErasureState};
use palmgate_seal::sign::SigningKey;
use std::path::Path;
use tempfile::{TempDir, tempdir};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn erasure() -> Entry {
    let mut entry = Entry {
        kind: EntryKind::Erasure,
        purpose: None,
        outcome: "erased".into(),
        rules: vec!["G-17".into(), "RET-12".into()],
        commitment: NOBODY,
        ..entry(20)
    };
    entry.commit(&Secret::new([0x51; 32]), &MemberId::from_random([7; 16]));
    entry
}

/// A ledger with other people's entries around an erasure at index 20.
fn ledger(dir: &Path) -> Ledger {
    let mut ledger = open(dir);
    for number in 0..40 {
        let entry = if number == 20 { erasure() } else { entry(number) };
        ledger.append(&entry).unwrap();
    }
    ledger.flush().unwrap();
    ledger
}

/// When the recipients were told.
fn told() -> Timestamp {
    Timestamp::from_millis(1_785_600_000_000)
}

fn kind(recipient: &str) -> Kind {
    if recipient == "cloud" { Kind::Cloud } else { Kind::Store }
}

fn pending(recipient: &str) -> Recipient {
    Recipient::pending(kind(recipient), name(recipient), told())
}

/// Confirmed by a recipient that knows of others who have not.
fn acknowledged(recipient: &str, key: &SigningKey, outstanding: &[&str]) -> Recipient {
    let at = Timestamp::from_millis(1_785_600_005_000);
    let outstanding = outstanding.iter().map(|other| name(other)).collect();
    let state = ErasureState { erased_at: at, outstanding, signature: Vec::new() };
    let bytes = state.signed_bytes(&erasure().commitment);
    let signature = Some(key.sign(ErasureState::LABEL, &bytes));
    Recipient::acknowledged(kind(recipient), name(recipient), at, signature)
}

fn try_new(
    ledger: &Ledger,
    index: u64,
    recipients: Vec<Recipient>,
) -> Result<ErasureReceipt, ReceiptError> {
    let evidence = ledger.evidence(index).unwrap();
    ErasureReceipt::new(name("shop"), name("lyon"), 7, recipients, evidence)
}

fn signed(recipients: Vec<Recipient>) -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let receipt = try_new(&ledger(dir.path()), 20, recipients).unwrap();
    (dir, receipt.sign(&key(1)))
}

/// Signs a changed receipt anew, as a store that lies would.
fn resigned(text: &str, from: &str, to: &str) -> String {
    let body = text.rsplit_once(",\"signature\"").unwrap().0.to_owned() + "}";
    assert!(body.contains(from), "{from} is in the receipt");
    let body = body.replacen(from, to, 1);
    let signature = key(1).sign("erasure receipt", body.as_bytes());
    let signature = data_encoding::BASE64.encode(&signature);
    format!("{},\"signature\":\"{signature}\"}}", body.strip_suffix('}').unwrap())
}

#[test]
fn a_receipt_says_what_the_ledger_says_and_who_else_has_erased() {
    let cloud = key(2);
    let (_dir, text) = signed(vec![acknowledged("cloud", &cloud, &["paris"]), pending("paris")]);
    let verified = verify(&text, Some(&key(1).public())).unwrap();
    assert_eq!((verified.tenant.as_str(), verified.store.as_str()), ("shop", "lyon"));
    assert_eq!(verified.commitment, erasure().commitment);
    assert_eq!(verified.erased_at, erasure().at);
    assert_eq!(verified.rules, ["G-17", "RET-12"]);
    assert_eq!((verified.root_generation, verified.index), (7, 20));
    assert_eq!((verified.status, verified.trusted), (Status::Partial, true));
    verified.check_acknowledgement(&name("cloud"), &cloud.public()).unwrap();
    let paris = verified.check_acknowledgement(&name("paris"), &cloud.public());
    assert_eq!(paris, Err(ReceiptError::NotSigned(name("paris"))));
    let other = verified.check_acknowledgement(&name("cloud"), &key(3).public());
    assert_eq!(other, Err(ReceiptError::Acknowledgement(name("cloud"))));
    assert_eq!(verify(&format!("{text}\n"), Some(&key(1).public())), Ok(verified));
}

#[test]
fn a_receipt_is_complete_when_everybody_has_erased() {
    let (_dir, nobody_else) = signed(vec![]);
    assert_eq!(verify(&nobody_else, None).unwrap().status, Status::Complete);
    let (_dir, all) = signed(vec![acknowledged("cloud", &key(2), &[])]);
    assert_eq!(verify(&all, None).unwrap().status, Status::Complete);
    let (_dir, one_left) =
        signed(vec![acknowledged("cloud", &key(2), &["paris"]), pending("paris")]);
    assert_eq!(verify(&one_left, None).unwrap().status, Status::Partial);
}

#[test]
fn a_receipt_without_a_trusted_key_says_so() {
    let (_dir, text) = signed(vec![]);
    let verified = verify(&text, None).unwrap();
    assert!(!verified.trusted && verified.key == key(1).public());
    assert_eq!(verify(&text, Some(&key(2).public())), Err(ReceiptError::Untrusted));
}

#[test]
fn a_receipt_with_any_byte_changed_is_refused() {
    let (_dir, text) = signed(vec![acknowledged("cloud", &key(2), &["paris"]), pending("paris")]);
    for trusted in [None, Some(key(1).public())] {
        for at in 0..text.len() {
            for change in 1..=255 {
                // All values at some places, one bit of each byte everywhere.
                if at % 16 != 0 && !u8::is_power_of_two(change) {
                    continue;
                }
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= change;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert!(verify(&changed, trusted.as_ref()).is_err(), "byte {at}: {changed}");
                }
            }
        }
    }
    for end in 0..text.len() {
        assert!(text.get(..end).is_none_or(|cut| verify(cut, None).is_err()));
    }
}

#[test]
fn a_store_that_lies_is_caught_by_its_own_ledger() {
    let (_dir, text) = signed(vec![acknowledged("cloud", &key(2), &["paris"]), pending("paris")]);
    assert_eq!(verify(&resigned(&text, "\"shop\"", "\"shop\""), None), verify(&text, None));
    let commitment = data_encoding::HEXLOWER.encode(&erasure().commitment);
    for (from, to, expected) in [
        (&*commitment, &*"ab".repeat(32), ReceiptError::Commitment),
        ("\"erased_at\":\"2026", "\"erased_at\":\"2025", ReceiptError::Time),
        ("[\"G-17\",", "[\"G-18\",", ReceiptError::Rules),
        ("partial", "complete", ReceiptError::Status),
        ("pending", "acknowledged", ReceiptError::Status),
        ("acknowledged", "pending", ReceiptError::PendingSigned(name("cloud"))),
        (
            "\"paris\",\"kind\":\"store\"",
            "\"cloud\",\"kind\":\"cloud\"",
            ReceiptError::Repeated(name("cloud")),
        ),
        ("\"version\":2", "\"version\":1", ReceiptError::Contradiction(name("cloud"))),
        ("\"version\":2", "\"version\":3", ReceiptError::Version(3)),
    ] {
        assert_eq!(verify(&resigned(&text, from, to), None), Err(expected), "{from}");
    }
    for (from, to) in [
        ("\"index\":20", "\"index\":21"),
        ("\"size\":40", "\"size\":41"),
        ("palmgate/shop/lyon\\n40", "palmgate/shop/lyon\\n41"),
        ("\\\"erased\\\"", "\\\"kept\\\""),
        ("\"path\":[\"", "\"path\":[\"00"),
    ] {
        let forged = verify(&resigned(&text, from, to), None);
        let refused = matches!(forged, Err(ReceiptError::Ledger(_) | ReceiptError::Malformed(_)));
        assert!(refused, "{from}: {forged:?}");
    }
}

#[test]
fn a_receipt_has_one_spelling_only() {
    let (_dir, text) = signed(vec![pending("paris")]);
    for (from, to) in [
        ("{\"version\"", "{ \"version\""),
        ("\"version\":2,", "\"version\":2,\"note\":\"\","),
        ("\"version\":2,", ""),
        ("partial", "Partial"),
        ("\"lyon\"", "\"l\\u0079on\""),
        ("\"root_generation\":7", "\"root_generation\":7.0"),
    ] {
        let other = verify(&resigned(&text, from, to), None);
        assert!(matches!(other, Err(ReceiptError::Malformed(_))), "{to}: {other:?}");
    }
    assert_eq!(verify(&" ".repeat(70_000), None), Err(ReceiptError::TooLong(70_000)));
}

#[test]
fn a_receipt_is_made_from_an_erasure_only() {
    let dir = tempdir().unwrap();
    let ledger = ledger(dir.path());
    assert_eq!(try_new(&ledger, 19, vec![]), Err(ReceiptError::NotAnErasure));
    let twice = try_new(&ledger, 20, vec![pending("paris"), pending("paris")]);
    assert_eq!(twice, Err(ReceiptError::Repeated(name("paris"))));
    let signature = acknowledged("paris", &key(2), &[]).signature;
    let signed_pending = try_new(&ledger, 20, vec![Recipient { signature, ..pending("paris") }]);
    assert_eq!(signed_pending, Err(ReceiptError::PendingSigned(name("paris"))));
    let at = Timestamp::from_millis(i64::MIN);
    let early = try_new(&ledger, 20, vec![Recipient { at, ..pending("paris") }]);
    assert_eq!(early, Err(ReceiptError::RecipientTime(name("paris"))));
    let crowd: Vec<_> = (0..=MAX_RECIPIENTS).map(|i| pending(&format!("store-{i}"))).collect();
    let too_many = try_new(&ledger, 20, crowd.clone());
    assert_eq!(too_many, Err(ReceiptError::TooManyRecipients(MAX_RECIPIENTS + 1)));
    let most = crowd[1..].iter().map(|r| acknowledged(r.name.as_str(), &key(2), &[])).collect();
    let text = try_new(&ledger, 20, most).unwrap().sign(&key(1));
    assert_eq!(verify(&text, None).unwrap().recipients.len(), MAX_RECIPIENTS);
}

#[test]
fn a_receipt_signed_with_another_key_than_its_ledger_is_refused() {
    let dir = tempdir().unwrap();
    let text = try_new(&ledger(dir.path()), 20, vec![]).unwrap().sign(&key(9));
    let refused = verify(&text, None);
    assert!(
        matches!(refused, Err(ReceiptError::Ledger(EvidenceError::Checkpoint(_)))),
        "{refused:?}"
    );
}

#[test]
fn an_acknowledgement_is_for_what_the_receipt_says() {
    let cloud = key(2);
    let check = |recipients: Vec<Recipient>| {
        let (_dir, text) = signed(recipients);
        let verified = verify(&text, None).unwrap();
        verified.check_acknowledgement(&name("cloud"), &cloud.public()).is_ok()
    };
    let paris = || acknowledged("cloud", &cloud, &["paris"]);
    assert!(check(vec![paris(), pending("paris")]));
    assert!(!check(vec![paris()]), "somebody is kept from the reader");
    assert!(!check(vec![paris(), pending("nantes")]));
    let later = Timestamp::from_millis(paris().at.as_millis() + 1);
    assert!(!check(vec![Recipient { at: later, ..paris() }, pending("paris")]));
    // This store told the cloud only after it wrote the receipt.
    let both = || acknowledged("cloud", &cloud, &["lyon", "paris"]);
    assert!(check(vec![both(), pending("paris")]));
    assert!(!check(vec![both()]));
}

fn places(outstanding: &[&str], handed_over: bool) -> Vec<Recipient> {
    let outstanding = outstanding.iter().map(|terminal| name(terminal)).collect();
    let [terminals, broker] = Recipient::sessions(outstanding, told());
    vec![terminals, broker, Recipient::exports(handed_over, told())]
}

#[test]
fn a_receipt_waits_for_terminals_and_says_what_else_is_left_and_why() {
    let (_dir, waits) = signed(places(&["kiosk-1", "till-3"], true));
    let verified = verify(&waits, None).unwrap();
    assert_eq!(verified.status, Status::Partial);
    assert_eq!(verified.recipients[0].outstanding, [name("kiosk-1"), name("till-3")]);
    for part in [
        r#""kind":"terminals","state":"pending""#,
        r#""outstanding":["kiosk-1","till-3"],"reason":"older-sessions""#,
        r#""kind":"broker","state":"pending""#,
        r#""state":"handed-over""#,
        r#""reason":"belongs-to-the-person""#,
    ] {
        assert!(waits.contains(part), "{part} in {waits}");
    }
    let (_dir, done) = signed(places(&[], false));
    assert_eq!(verify(&done, None).unwrap().status, Status::Complete);
    assert!(done.contains(r#""state":"acknowledged""#) && done.contains("sessions-begun-anew"));
    let mut removed = places(&[], false);
    removed.push(Recipient::removed_terminals(vec![name("till-3")], told()));
    let (_dir, removed) = signed(removed);
    assert_eq!(verify(&removed, None).unwrap().status, Status::Complete);
    assert!(removed.contains(r#""state":"impossible""#), "{removed}");
    let (_dir, none) = signed(Recipient::no_sessions(told()).to_vec());
    assert_eq!(verify(&none, None).unwrap().status, Status::Complete);
}

#[test]
fn what_is_said_of_a_place_goes_together_or_the_receipt_is_refused() {
    let (_dir, text) = signed(places(&["kiosk-1", "till-3"], true));
    for (from, to, who) in [
        (r#""outstanding":["kiosk-1","till-3"],"#, "", "terminals"),
        (r#"["kiosk-1","till-3"]"#, r#"["till-3","kiosk-1"]"#, "terminals"),
        (r#"["kiosk-1","till-3"]"#, r#"["till-3","till-3"]"#, "terminals"),
        ("older-sessions", "no-terminal", "terminals"),
        (r#""terminals","state":"pending""#, r#""terminals","state":"acknowledged""#, "terminals"),
        (r#""terminals","state":"pending""#, r#""terminals","state":"impossible""#, "terminals"),
        (r#""kind":"terminals""#, r#""kind":"store""#, "terminals"),
        (r#""kind":"terminals","#, "", "terminals"),
        (r#""broker","state":"pending""#, r#""broker","state":"nothing-kept""#, "broker"),
        ("handed-over", "nothing-kept", "exports"),
        (r#","reason":"belongs-to-the-person""#, "", "exports"),
    ] {
        let refused = verify(&resigned(&text, from, to), None);
        assert_eq!(refused, Err(ReceiptError::Contradiction(name(who))), "{from} to {to}");
    }
    let dir = tempdir().unwrap();
    let ledger = ledger(dir.path());
    let signature = acknowledged("paris", &key(2), &[]).signature;
    let [terminals, _] = Recipient::sessions(Vec::new(), told());
    let signed_for = try_new(&ledger, 20, vec![Recipient { signature, ..terminals }]);
    assert_eq!(signed_for, Err(ReceiptError::Contradiction(name("terminals"))));
    let old = Recipient { kind: None, ..pending("paris") };
    let old = try_new(&ledger, 20, vec![old]);
    assert_eq!(old, Err(ReceiptError::Contradiction(name("paris"))), "new ones say what they are");
}

#[test]
fn terminals_do_not_disturb_what_the_cloud_signed() {
    let cloud = key(2);
    let mut recipients = vec![acknowledged("cloud", &cloud, &["paris"]), pending("paris")];
    recipients.extend(places(&["kiosk-1"], false));
    let (_dir, text) = signed(recipients);
    let verified = verify(&text, None).unwrap();
    verified.check_acknowledgement(&name("cloud"), &cloud.public()).unwrap();
    // A store may be called what a place is called.
    let mut recipients = vec![acknowledged("broker", &cloud, &[])];
    recipients.extend(places(&[], false));
    let (_dir, text) = signed(recipients);
    verify(&text, None).unwrap().check_acknowledgement(&name("broker"), &cloud.public()).unwrap();
}

/// Written by version 1: the example that `docs/ledger.md` had then.
const OLDER: &str = include_str!("receipt-version-1.json");

#[test]
fn a_receipt_of_version_1_still_holds() {
    let verified = verify(OLDER, Some(&key(1).public())).unwrap();
    assert_eq!((verified.status, verified.recipients.len()), (Status::Partial, 2));
    assert_eq!(verified.recipients[0].state, RecipientState::Acknowledged);
    assert!(verified.recipients.iter().all(|recipient| recipient.kind.is_none()));
    verified.check_acknowledgement(&name("cloud"), &key(2).public()).unwrap();
    let changed = resigned(OLDER.trim_end(), "\"version\":1", "\"version\":2");
    assert_eq!(verify(&changed, None), Err(ReceiptError::Contradiction(name("cloud"))));
}

/// The trail of two people, of whom one is forgotten.
#[test]
fn after_an_erasure_no_two_entries_are_linked_and_every_proof_still_holds() {
    let dir = tempdir().unwrap();
    let mut ledger = open(dir.path());
    let people = [[1; 16], [2; 16]].map(MemberId::from_random);
    let salts = [[3; 32], [4; 32]].map(Secret::new);
    for number in 0..200 {
        let mut entry = entry(number);
        let who = usize::from(number.is_multiple_of(3));
        entry.commit(&salts[who], &people[who]);
        ledger.append(&entry).unwrap();
    }
    ledger.flush().unwrap();
    let entries: Vec<Entry> =
        ledger.entries(0..200).unwrap().map(|entry| entry.unwrap().1).collect();
    let own = |who: usize, salt: &Secret<[u8; 32]>| {
        entries.iter().filter(|entry| entry.concerns(salt, &people[who])).count()
    };
    assert_eq!((own(0, &salts[0]), own(1, &salts[1])), (133, 67), "while the salts exist");
    assert_eq!((own(0, &salts[1]), own(1, &salts[0])), (0, 0));
    // What is left after erasure: the ids in somebody's notes, and no salt.
    assert_eq!((own(0, &Secret::new([0; 32])), own(1, &Secret::new([0; 32]))), (0, 0));
    let mut commitments: Vec<_> = entries.iter().map(|entry| entry.commitment).collect();
    commitments.sort_unstable();
    commitments.dedup();
    assert_eq!(commitments.len(), 200, "no value comes twice");
    for index in 0..200 {
        let evidence: Evidence = ledger.evidence(index).unwrap();
        evidence.verify(&key(1).public()).unwrap();
    }
}
