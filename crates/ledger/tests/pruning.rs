//! Entries whose time is up leave their hash, and everything else holds as before.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{ORIGIN, entry, key, ledger, open};
use palmgate_ledger::{Checkpoint, EntryKind, Ledger, LedgerError, SEGMENT_ENTRIES, verify};
use palmgate_protocol::Timestamp;
use std::fs;
use tempfile::tempdir;

const NEVER: Timestamp = Timestamp::from_millis(0);

/// Everything before this entry is too old.
fn until(number: u64) -> impl Fn(EntryKind) -> Timestamp {
    move |_| entry(number).at
}

#[test]
fn what_is_pruned_is_gone_and_every_proof_over_the_rest_holds() {
    let dir = tempdir().unwrap();
    let size = 2 * SEGMENT_ENTRIES + 700;
    let mut before = ledger(dir.path(), size);
    let first = before.checkpoint().to_owned();
    let kept = SEGMENT_ENTRIES + 300;
    let evidence = before.evidence(kept).unwrap();
    let consistency = before.consistency(5, size).unwrap();
    assert_eq!(before.prune(until(kept)).unwrap(), kept);
    assert_eq!(before.prune(until(kept)).unwrap(), 0, "only once");
    assert_eq!(before.evidence(kept).unwrap(), evidence);
    assert_eq!(before.consistency(5, size).unwrap(), consistency);
    assert!(matches!(before.evidence(7), Err(LedgerError::Pruned { index: 7 })));
    before.append(&entry(size)).unwrap();
    before.flush().unwrap();
    drop(before);

    let public = key(1).public();
    let verified = verify::directory_since(dir.path(), &public, &first).unwrap();
    assert_eq!((verified.size, verified.pruned), (size + 1, kept));
    let text = fs::read_to_string(dir.path().join("entries/000000.jsonl")).unwrap();
    assert!(!text.contains("accepted") && text.lines().count() == 10_000);
    // The hash file is derived from what is left.
    fs::remove_file(dir.path().join("hashes")).unwrap();
    let after = open(dir.path());
    assert_eq!(after.entries(0..size).unwrap().count() as u64, size - kept);
    let late = after.evidence(size).unwrap();
    assert!(late.verify(&public).is_ok());
    assert!(verify::prove(dir.path(), &public, kept).unwrap().verify(&public).is_ok());
    assert!(matches!(
        verify::prove(dir.path(), &public, 3),
        Err(verify::VerifyError::Pruned { index: 3 })
    ));
    assert!(Checkpoint::verify_of(ORIGIN, after.checkpoint(), &public).is_ok());
}

#[test]
fn each_kind_has_its_own_time() {
    let dir = tempdir().unwrap();
    let mut ledger = ledger(dir.path(), 10);
    let erasure = palmgate_ledger::Entry { kind: EntryKind::Erasure, ..entry(10) };
    ledger.append(&erasure).unwrap();
    let times = |kind| if kind == EntryKind::Erasure { NEVER } else { entry(100).at };
    assert_eq!(ledger.prune(times).unwrap(), 10);
    assert_eq!(ledger.find(EntryKind::Erasure, &erasure.commitment).unwrap().unwrap().0, 10);
}

#[test]
fn another_hash_in_the_place_of_a_pruned_entry_is_found() {
    let dir = tempdir().unwrap();
    let mut whole = ledger(dir.path(), 40);
    whole.prune(until(20)).unwrap();
    drop(whole);
    let path = dir.path().join("entries/000000.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let swapped = [&[lines[1], lines[0]], &lines[2..]].concat().join("\n") + "\n";
    fs::write(&path, swapped).unwrap();
    let error = verify::directory(dir.path(), &key(1).public()).unwrap_err().to_string();
    assert!(error.contains("000000.jsonl, line 1"), "{error}");
    assert!(Ledger::open(dir.path(), ORIGIN, key(1)).is_err());
    // An entry that was never logged cannot hide behind a hash either.
    let unsigned = format!("{text}{}\n", lines[0]);
    fs::write(&path, unsigned).unwrap();
    assert_eq!(verify::directory(dir.path(), &key(1).public()).unwrap().unsigned, 0);
    assert_eq!(open(dir.path()).len(), 40);
}
