//! Ten thousand random manipulations of a ledger, each of which must be found.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{ORIGIN, key, ledger};
use palmgate_ledger::{HistoryError, Ledger, LedgerError, SEGMENT_ENTRIES, verify};
use std::{fs, path::Path};
use tempfile::tempdir;

const SIZE: u64 = 24;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

fn manipulate(text: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(7) {
        0 => drop(lines.remove(one)),
        1 => lines.swap(one, other),
        2 => lines.insert(other, lines[one]),
        3 => lines[one] = lines[other],
        4 => return text[..dice.below(text.len())].to_vec(),
        5 => {
            let mut changed = text.to_vec();
            let count = 1 + dice.below(4);
            (0..count).for_each(|_| changed[dice.below(text.len())] = dice.below(256) as u8);
            return changed;
        }
        _ => {
            // A forger keeps the form: one decision becomes another.
            let edited = String::from_utf8(lines[one].to_vec()).unwrap();
            let edited = edited.replacen("accepted", "rejected", 1).into_bytes();
            return [&lines[..one].concat()[..], &edited, &lines[one + 1..].concat()].concat();
        }
    }
    lines.concat()
}

/// The first line that differs, counted from 1.
fn first_difference(a: &[u8], b: &[u8]) -> u64 {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    a[..same].split(|byte| *byte == b'\n').count() as u64
}

fn named_line(error: &HistoryError) -> Option<u64> {
    match error {
        HistoryError::Altered { file, line, .. } | HistoryError::Missing { file, line, .. } => {
            assert!(file.ends_with("entries/000000.jsonl"));
            Some(*line)
        }
        _ => None,
    }
}

fn history(dir: &Path) -> HistoryError {
    match verify::directory(dir, &key(1).public()) {
        Err(verify::VerifyError::History(error)) => error,
        other => panic!("not found: {other:?}"),
    }
}

#[test]
fn every_manipulation_of_signed_entries_is_found_and_its_line_is_named() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), SIZE));
    let path = dir.path().join("entries/000000.jsonl");
    let original = fs::read(&path).unwrap();
    let mut dice = Dice(0x5eed);
    let mut found = 0;
    while found < 10_000 {
        let changed = manipulate(&original, &mut dice);
        if changed == original {
            continue;
        }
        fs::write(&path, &changed).unwrap();
        if changed.starts_with(&original) {
            let beyond = verify::directory(dir.path(), &key(1).public()).unwrap();
            assert!(beyond.unsigned > 0 || beyond.torn, "what follows is not vouched for");
        } else {
            let line = named_line(&history(dir.path()));
            assert_eq!(line, Some(first_difference(&original, &changed)));
            if found % 100 == 0 {
                let opened = Ledger::open(dir.path(), ORIGIN, key(1));
                assert!(matches!(opened, Err(LedgerError::History(_))));
                assert_eq!(fs::read(&path).unwrap(), changed, "evidence is left as it is");
            }
        }
        found += 1;
    }
    fs::write(&path, &original).unwrap();
    assert_eq!(verify::directory(dir.path(), &key(1).public()).unwrap().size, SIZE);
}

#[test]
fn entries_changed_together_with_their_hashes_are_found_all_the_same() {
    let dir = tempdir().unwrap();
    drop(ledger(&dir.path().join("forged"), SIZE));
    let path = dir.path().join("forged/entries/000000.jsonl");
    let forged = fs::read_to_string(&path).unwrap().replacen("accepted", "rejected", 1);
    fs::write(&path, forged).unwrap();
    fs::remove_file(dir.path().join("forged/hashes")).unwrap();
    assert!(matches!(history(&dir.path().join("forged")), HistoryError::Root { size: SIZE, .. }));
}

#[test]
fn every_changed_byte_of_the_checkpoint_is_found() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), SIZE));
    let path = dir.path().join("checkpoint");
    let original = fs::read(&path).unwrap();
    for at in 0..original.len() {
        for bit in 0..8 {
            let mut changed = original.clone();
            changed[at] ^= 1 << bit;
            fs::write(&path, &changed).unwrap();
            assert!(
                verify::directory(dir.path(), &key(1).public()).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn a_line_moved_to_the_file_before_is_found() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), SEGMENT_ENTRIES + 2));
    let [first, second] = [0, 1].map(|i| dir.path().join(format!("entries/00000{i}.jsonl")));
    let moved = fs::read_to_string(&second).unwrap();
    let (line, rest) = moved.split_once('\n').unwrap();
    fs::write(&first, fs::read_to_string(&first).unwrap() + line + "\n").unwrap();
    fs::write(&second, rest).unwrap();
    let error = history(dir.path());
    assert!(matches!(error, HistoryError::Missing { line, .. } if line == SEGMENT_ENTRIES + 1));
}

#[test]
fn foreign_files_among_the_entries_are_named() {
    let dir = tempdir().unwrap();
    drop(ledger(dir.path(), SIZE));
    fs::write(dir.path().join("entries/000000.jsonl~"), "").unwrap();
    let error = history(dir.path()).to_string();
    assert!(error.contains("000000.jsonl~"), "{error}");
}
