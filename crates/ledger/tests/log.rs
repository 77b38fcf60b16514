//! Stories of a ledger on disk.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{ORIGIN, entry, key, ledger, open};
use palmgate_ledger::{
    Checkpoint, ConsistencyProof, Entry, Evidence, HistoryError, Ledger, LedgerError,
    SEGMENT_ENTRIES, verify,
};
use proptest::prelude::*;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};
use tempfile::tempdir;

fn all(ledger: &Ledger) -> Vec<Entry> {
    let entries = ledger.entries(0..ledger.len()).unwrap();
    entries
        .enumerate()
        .map(|(number, read)| {
            let (index, entry) = read.unwrap();
            assert_eq!(index, number as u64);
            entry
        })
        .collect()
}

#[test]
fn a_new_ledger_is_signed_before_it_has_entries() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir.path().join("new/ledger"));
    assert!(ledger.is_empty());
    let checkpoint = Checkpoint::verify_of(ORIGIN, ledger.checkpoint(), &key(1).public()).unwrap();
    assert_eq!(checkpoint.size, 0);
    let verified = verify::directory(&dir.path().join("new/ledger"), &key(1).public()).unwrap();
    assert_eq!((verified.size, verified.unsigned, verified.torn), (0, 0, false));
}

#[test]
fn entries_and_proofs_survive_a_restart() {
    let dir = tempdir().unwrap();
    let before = ledger(dir.path(), 700);
    let (first, evidence) = (before.checkpoint().to_owned(), before.evidence(5).unwrap());
    drop(before);
    let after = ledger(dir.path(), 1_000);
    assert_eq!((after.len(), after.signed_len(), after.recovered()), (1_000, 1_000, 0));
    assert_eq!(all(&after), (0..1_000).map(entry).collect::<Vec<_>>());
    let public = key(1).public();
    assert_eq!(evidence.verify(&public).unwrap().0, entry(5), "old evidence stays good");
    for index in [0, 1, 255, 256, 511, 512, 767, 768, 999] {
        let json = after.evidence(index).unwrap().to_json();
        let (read, checkpoint) = Evidence::parse(&json).unwrap().verify(&public).unwrap();
        assert_eq!((read, checkpoint.size), (entry(index), 1_000));
    }
    let proof = serde_json::to_string(&after.consistency(700, 1_000).unwrap()).unwrap();
    let proof: ConsistencyProof = serde_json::from_str(&proof).unwrap();
    let earlier = Checkpoint::verify(&first, &public).unwrap();
    let later = Checkpoint::verify(after.checkpoint(), &public).unwrap();
    proof.verify((earlier.size, &earlier.root), (later.size, &later.root)).unwrap();
    let verified = verify::directory_since(dir.path(), &public, &first).unwrap();
    assert_eq!((verified.size, verified.root), (1_000, later.root));
}

#[test]
fn a_log_of_several_segments_is_one_log() {
    let dir = tempdir().unwrap();
    let size = 2 * SEGMENT_ENTRIES;
    let before = ledger(dir.path(), size);
    drop(before);
    let mut ledger = open(dir.path());
    assert_eq!(ledger.append(&entry(size)).unwrap(), size);
    ledger.flush().unwrap();
    let across = ledger.entries(SEGMENT_ENTRIES - 2..SEGMENT_ENTRIES + 2).unwrap();
    let across: Vec<_> = across.map(|read| read.unwrap().1).collect();
    assert_eq!(across, (SEGMENT_ENTRIES - 2..SEGMENT_ENTRIES + 2).map(entry).collect::<Vec<_>>());
    for index in [0, SEGMENT_ENTRIES - 1, SEGMENT_ENTRIES, size - 1, size] {
        let evidence = ledger.evidence(index).unwrap();
        assert_eq!(evidence.verify(&key(1).public()).unwrap().0, entry(index));
    }
    assert_eq!(verify::directory(dir.path(), &key(1).public()).unwrap().size, size + 1);
    fs::remove_file(dir.path().join("entries/000001.jsonl")).unwrap();
    let gap = verify::directory(dir.path(), &key(1).public());
    assert!(
        matches!(gap, Err(verify::VerifyError::History(HistoryError::Files { .. }))),
        "{gap:?}"
    );
}

#[test]
fn only_what_is_under_the_checkpoint_has_evidence() {
    let dir = tempdir().unwrap();
    let mut ledger = ledger(dir.path(), 3);
    ledger.append(&entry(3)).unwrap();
    let early = ledger.evidence(3);
    assert!(matches!(early, Err(LedgerError::OutOfRange { index: 3, size: 3 })), "{early:?}");
    assert!(matches!(ledger.inclusion(u64::MAX, 3), Err(LedgerError::OutOfRange { .. })));
    assert!(matches!(ledger.consistency(4, 3), Err(LedgerError::OutOfRange { .. })));
    assert!(matches!(ledger.consistency(2, 5), Err(LedgerError::OutOfRange { .. })));
    assert!(ledger.entries(0..5).is_err());
    ledger.flush().unwrap();
    ledger.evidence(3).unwrap().verify(&key(1).public()).unwrap();
}

#[test]
fn a_refused_entry_leaves_the_ledger_as_it_was() {
    let dir = tempdir().unwrap();
    let mut ledger = ledger(dir.path(), 3);
    let named = Entry { outcome: "Marie Dupont".into(), ..entry(3) };
    assert!(matches!(ledger.append(&named), Err(LedgerError::Entry(_))));
    assert_eq!(ledger.append(&entry(3)).unwrap(), 3);
    ledger.flush().unwrap();
    assert_eq!(verify::directory(dir.path(), &key(1).public()).unwrap().size, 4);
}

#[test]
fn two_processes_never_write_one_ledger() {
    let dir = tempdir().unwrap();
    let first = ledger(dir.path(), 1);
    let second = Ledger::open(dir.path(), ORIGIN, key(1));
    assert!(matches!(second, Err(LedgerError::Locked { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn another_key_another_origin_or_no_checkpoint_is_refused() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), 2));
    let stranger = Ledger::open(dir.path(), ORIGIN, key(2));
    assert!(matches!(stranger, Err(LedgerError::Checkpoint { .. })));
    let elsewhere = Ledger::open(dir.path(), "palmgate/shop/paris", key(1));
    assert!(matches!(elsewhere, Err(LedgerError::Checkpoint { .. })));
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let unsigned = Ledger::open(dir.path(), ORIGIN, key(1));
    assert!(matches!(unsigned, Err(LedgerError::NoCheckpoint { .. })));
    let nowhere = tempdir().unwrap();
    let spaced = Ledger::open(nowhere.path(), "two words", key(1));
    assert!(matches!(spaced, Err(LedgerError::Origin(_))));
}

#[test]
fn a_torn_last_line_is_cut_off_and_the_log_goes_on() {
    let dir = tempdir().unwrap();
    let mut before = ledger(dir.path(), 5);
    before.append(&entry(5)).unwrap();
    drop(before);
    let path = dir.path().join("entries/000000.jsonl");
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":\"2026-0").unwrap();
    let torn = verify::directory(dir.path(), &key(1).public()).unwrap();
    assert_eq!((torn.size, torn.unsigned, torn.torn), (5, 1, true));
    let mut after = open(dir.path());
    assert_eq!((after.len(), after.recovered(), after.signed_len()), (6, 1, 6));
    after.append(&entry(6)).unwrap();
    after.flush().unwrap();
    assert_eq!(all(&after), (0..7).map(entry).collect::<Vec<_>>());
    let whole = verify::directory(dir.path(), &key(1).public()).unwrap();
    assert_eq!((whole.size, whole.unsigned, whole.torn), (7, 0, false));
}

#[test]
fn a_segment_begun_and_lost_in_a_crash_is_begun_again() {
    let dir = tempdir().unwrap();
    let mut before = ledger(dir.path(), SEGMENT_ENTRIES);
    before.append(&entry(SEGMENT_ENTRIES)).unwrap();
    drop(before);
    fs::write(dir.path().join("entries/000001.jsonl"), [0; 300]).unwrap();
    let mut after = open(dir.path());
    assert_eq!((after.len(), after.recovered()), (SEGMENT_ENTRIES, 0));
    assert_eq!(after.append(&entry(SEGMENT_ENTRIES)).unwrap(), SEGMENT_ENTRIES);
    after.flush().unwrap();
    let verified = verify::directory(dir.path(), &key(1).public()).unwrap();
    assert_eq!((verified.size, verified.torn), (SEGMENT_ENTRIES + 1, false));
}

#[test]
fn a_disk_that_fails_is_named_and_the_ledger_recovers_with_it() {
    let dir = tempdir().unwrap();
    let mut ledger = ledger(dir.path(), SEGMENT_ENTRIES);
    let (entries, aside) = (dir.path().join("entries"), dir.path().join("aside"));
    fs::rename(&entries, &aside).unwrap();
    let error = ledger.append(&entry(SEGMENT_ENTRIES)).unwrap_err().to_string();
    assert!(error.contains("entries/000001.jsonl"), "{error}");
    fs::rename(&aside, &entries).unwrap();
    assert_eq!(ledger.append(&entry(SEGMENT_ENTRIES)).unwrap(), SEGMENT_ENTRIES);
    // The checkpoint cannot be put in place: whether the flush held is unknown from here on.
    fs::create_dir(dir.path().join("checkpoint.new")).unwrap();
    let error = ledger.flush().unwrap_err().to_string();
    assert!(error.contains("checkpoint.new"), "{error}");
    assert!(matches!(ledger.append(&entry(0)), Err(LedgerError::Failed { .. })));
    assert!(matches!(ledger.flush(), Err(LedgerError::Failed { .. })));
    assert!(ledger.recover().is_err(), "the disk still fails");
    fs::remove_dir(dir.path().join("checkpoint.new")).unwrap();
    assert_eq!(ledger.recover().unwrap(), 0);
    assert_eq!(ledger.append(&entry(SEGMENT_ENTRIES + 1)).unwrap(), SEGMENT_ENTRIES + 1);
    ledger.flush().unwrap();
    let verified = verify::directory(dir.path(), &key(1).public()).unwrap();
    assert_eq!((verified.size, verified.unsigned), (SEGMENT_ENTRIES + 2, 0));
    let (_, found) = ledger.entries(0..verified.size).unwrap().last().unwrap().unwrap();
    assert_eq!(found, entry(SEGMENT_ENTRIES + 1));
    fs::create_dir(dir.path().join("checkpoint.new")).unwrap();
    ledger.append(&entry(SEGMENT_ENTRIES + 2)).unwrap();
    ledger.flush().unwrap_err();
    drop(ledger);
    fs::remove_dir(dir.path().join("checkpoint.new")).unwrap();
    let ledger = open(dir.path());
    assert_eq!((ledger.len(), ledger.recovered()), (SEGMENT_ENTRIES + 3, 1));
}

#[test]
fn a_hash_file_changed_by_another_hand_gives_no_wrong_proof() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), 600));
    let ledger = open(dir.path());
    let path = dir.path().join("hashes");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(ledger.evidence(3), Err(LedgerError::Hashes { .. })));
    assert!(ledger.evidence(300).is_ok(), "other tiles are not touched");
    drop(ledger);
    let repaired = open(dir.path());
    repaired.evidence(3).unwrap().verify(&key(1).public()).unwrap();
    drop(repaired);
    fs::remove_file(&path).unwrap();
    open(dir.path()).evidence(3).unwrap().verify(&key(1).public()).unwrap();
}

#[test]
fn an_entry_changed_under_an_open_ledger_is_not_attested() {
    let dir = tempdir().unwrap();
    let ledger = ledger(dir.path(), 10);
    let path = dir.path().join("entries/000000.jsonl");
    let text = fs::read_to_string(&path).unwrap().replacen("accepted", "rejected", 3);
    fs::write(&path, text).unwrap();
    let evidence = ledger.evidence(2);
    assert!(
        matches!(&evidence, Err(LedgerError::History(HistoryError::Altered { line: 3, .. }))),
        "{evidence:?}"
    );
}

#[test]
fn a_ledger_rolled_back_or_rewritten_does_not_continue_what_was_seen() {
    let dir = tempdir().unwrap();
    let public = key(1).public();
    drop(ledger(&dir.path().join("a"), 20));
    let seen = fs::read_to_string(dir.path().join("a/checkpoint")).unwrap();
    // The store signs a shorter log and a longer one with another past.
    drop(ledger(&dir.path().join("short"), 12));
    let short = verify::directory_since(&dir.path().join("short"), &public, &seen);
    assert!(matches!(
        short,
        Err(verify::VerifyError::History(HistoryError::RolledBack { held: 20, found: 12 }))
    ));
    let mut other = open(&dir.path().join("other"));
    for number in 0..30 {
        let outcome = if number == 7 { "rejected" } else { "accepted" };
        other.append(&Entry { outcome: outcome.into(), ..entry(number) }).unwrap();
    }
    other.flush().unwrap();
    assert!(verify::directory(&dir.path().join("other"), &public).is_ok(), "whole in itself");
    let forked = verify::directory_since(&dir.path().join("other"), &public, &seen);
    assert!(matches!(
        forked,
        Err(verify::VerifyError::History(HistoryError::Root { size: 20, .. }))
    ));
}

/// What a power cut may leave of a file whose last part was not synchronised: less of it, and
/// something else in its place.
fn crash(path: &Path, durable: usize, keep: usize, garbage: &[u8]) {
    let mut bytes = fs::read(path).unwrap_or_default();
    let keep = durable.min(bytes.len()) + keep % (bytes.len().saturating_sub(durable) + 1);
    bytes.truncate(keep);
    bytes.extend_from_slice(garbage);
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_crash_loses_only_entries_that_were_not_flushed(
        flushed in 0..600_u64,
        appended in 0..300_u64,
        keep in any::<usize>(),
        garbage in prop::sample::select(vec![vec![], vec![0; 400], b"\n\n".to_vec(), b"{}\n".to_vec()]),
        hashes in any::<usize>(),
        draft in any::<bool>(),
    ) {
        let dir = tempdir().unwrap();
        let path = dir.path().join("entries/000000.jsonl");
        let mut before = ledger(dir.path(), flushed);
        let durable = fs::read(&path).map_or(0, |bytes| bytes.len());
        for number in flushed..flushed + appended {
            before.append(&entry(number)).unwrap();
        }
        drop(before);
        if flushed + appended > 0 {
            crash(&path, durable, keep, &garbage);
        }
        crash(&dir.path().join("hashes"), 0, hashes, &garbage);
        if draft {
            fs::write(dir.path().join("checkpoint.new"), "palmgate/shop/lyon\n99").unwrap();
        }
        let mut after = open(dir.path());
        let kept = after.len();
        prop_assert!((flushed..=flushed + appended).contains(&kept));
        prop_assert_eq!((after.recovered(), after.signed_len()), (kept - flushed, kept));
        after.append(&entry(kept)).unwrap();
        after.flush().unwrap();
        let hashes = fs::metadata(dir.path().join("hashes")).unwrap().len();
        prop_assert_eq!(hashes, (kept + 1) * 32, "no hash of a lost entry stays");
        prop_assert_eq!(all(&after), (0..=kept).map(entry).collect::<Vec<_>>());
        after.evidence(kept / 2).unwrap().verify(&key(1).public()).unwrap();
        let verified = verify::directory(dir.path(), &key(1).public()).unwrap();
        prop_assert_eq!((verified.size, verified.unsigned, verified.torn), (kept + 1, 0, false));
    }
}
