//! Packs in directories: read, signed, compared, replayed.
#![allow(clippy::unwrap_used)]

use palmgate_law::{
    Change, ReadError, SignatureError, add_signature, compare, read, replay, replay_ledger, verify,
};
use palmgate_ledger::{
    Entry, EntryKind, NOBODY,
    note::{Algorithm, FOUR_EYES, FourEyesError, Signer},
};
use palmgate_policy::Pack;
use palmgate_protocol::{Purpose, Timestamp};
use palmgate_seal::sign::SigningKey;
use std::{fs, path::Path};
use tempfile::TempDir;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/packs");

/// A copy of the shipped packs.
fn copy() -> TempDir {
    let into = tempfile::tempdir().unwrap();
    for layer in ["eu-gdpr", "fr-cnil"] {
        fs::create_dir(into.path().join(layer)).unwrap();
        for file in fs::read_dir(Path::new(SHIPPED).join(layer)).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, into.path().join(layer).join(file.file_name().unwrap())).unwrap();
        }
    }
    into
}

fn change(directory: &TempDir, file: &str, from: &str, to: &str) {
    let path = directory.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_shipped_directories_are_the_packs_built_in() {
    let read_back = read(&Path::new(SHIPPED).join("fr-cnil")).unwrap();
    assert_eq!(read_back.hash(), Pack::embedded().hash());
    // A layer alone stacks on what is built in.
    let alone = copy();
    fs::remove_dir_all(alone.path().join("eu-gdpr")).unwrap();
    let pack = read(&alone.path().join("fr-cnil")).unwrap();
    assert_eq!(pack.hash(), Pack::embedded().hash());
    assert_eq!(read(&Path::new(SHIPPED).join("us-il")).unwrap().layers().len(), 2);
}

#[test]
fn a_broken_pack_is_refused_with_file_line_and_rule() {
    let packs = copy();
    change(&packs, "fr-cnil/rules.cedar", "context.attack_burst", "context.atack_burst");
    let error = read(&packs.path().join("fr-cnil")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("fr-cnil/rules.cedar:") && text.contains("C-RT-10f/review"), "{text}");
    fs::remove_file(packs.path().join("fr-cnil/rules.cedar")).unwrap();
    let text = read(&packs.path().join("fr-cnil")).unwrap_err().to_string();
    assert!(text.contains("rules.cedar is listed"), "{text}");
    let gone = read(&packs.path().join("nowhere")).unwrap_err();
    assert!(matches!(gone, ReadError::File { path, .. } if path.ends_with("nowhere")));
}

#[test]
fn a_pack_is_good_with_two_signatures_of_two_people_over_these_very_files() {
    let packs = copy();
    let pack = read(&packs.path().join("fr-cnil")).unwrap();
    let (one, other, third) =
        (SigningKey::generate(), SigningKey::generate(), SigningKey::generate());
    let signer =
        |name, key: &SigningKey| Signer::new(name, Algorithm::Ed25519, key.public()).unwrap();
    let trusted = [signer("martin", &one), signer("petit", &other)];
    let note = add_signature(&pack, None, "martin", &one).unwrap();
    let few = verify(&pack, &note, &trusted).unwrap_err();
    assert_eq!(few, FourEyesError::TooFew { found: 1, trusted: "martin, petit".into() }.into());
    let foreign = add_signature(&pack, Some(&note), "petit", &third).unwrap();
    assert!(verify(&pack, &foreign, &trusted).is_err(), "another key under the same name");
    let note = add_signature(&pack, Some(&note), "petit", &other).unwrap();
    assert_eq!(verify(&pack, &note, &trusted).unwrap().len(), FOUR_EYES);
    let same = [signer("martin", &one), signer("martin-again", &one)];
    assert_eq!(verify(&pack, &note, &same), Err(FourEyesError::SameKey.into()));
    change(&packs, "fr-cnil/pack.toml", "value = 90", "value = 89");
    let changed = read(&packs.path().join("fr-cnil")).unwrap();
    let error = verify(&changed, &note, &trusted).unwrap_err();
    assert_eq!(error, SignatureError::Other("fr-cnil/pack.toml".into()));
    assert!(add_signature(&changed, Some(&note), "petit", &other).is_err());
}

#[test]
fn a_comparison_names_what_changes_and_what_is_decided_otherwise() {
    let packs = copy();
    let old = read(&packs.path().join("fr-cnil")).unwrap();
    assert!(compare(&old, &old).changes.is_empty());
    change(&packs, "eu-gdpr/pack.toml", "value = 180", "value = 90");
    change(
        &packs,
        "eu-gdpr/rules.cedar",
        "when { context.rivals > 0 };",
        "when { context.rivals > 1 };",
    );
    let new = read(&packs.path().join("fr-cnil")).unwrap();
    let changes = compare(&old, &new).changes;
    assert!(changes.contains(&Change::Reworded("I-1N/recognise".into())), "{changes:?}");
    let flipped = Change::Decision("I-1N/recognise".into(), "denied", "allowed");
    assert!(changes.contains(&flipped), "{changes:?}");
    assert!(
        changes.iter().any(|c| matches!(c, Change::Number(name, ..) if name == "inactivity_days"))
    );
}

fn entry(pack: &Pack, outcome: &str, purpose: Purpose, rules: &[&str]) -> Entry {
    Entry {
        at: Timestamp::from_millis(1_800_000_000_000),
        kind: EntryKind::Scan,
        terminal: Some("till".parse().unwrap()),
        purpose: Some(purpose),
        outcome: outcome.into(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        pack: pack.hash(),
        commitment: NOBODY,
    }
}

#[test]
fn a_ledger_on_disk_is_replayed_and_a_line_that_is_no_entry_is_named() {
    let (pack, ledger) = (Pack::embedded(), tempfile::tempdir().unwrap());
    let entries = ledger.path().join("entries");
    fs::create_dir(&entries).unwrap();
    let line = entry(&pack, "accepted", Purpose::Pay, &["G-09"]).to_line().unwrap();
    fs::write(entries.join("000000.jsonl"), format!("{line}\n{line}\n")).unwrap();
    let replay = replay_ledger(&pack, &pack, ledger.path()).unwrap();
    assert_eq!((replay.entries, replay.same), (2, 2));
    fs::write(entries.join("000001.jsonl"), format!("{line}\n{{}}\n")).unwrap();
    let error = replay_ledger(&pack, &pack, ledger.path()).unwrap_err().to_string();
    assert!(error.contains("000001.jsonl: line 2"), "{error}");
}

#[test]
fn a_replay_says_what_is_certain_and_what_the_ledger_does_not_hold() {
    let packs = copy();
    let old = read(&packs.path().join("fr-cnil")).unwrap();
    let entries = |pack: &Pack| {
        vec![
            entry(pack, "accepted", Purpose::Loyalty, &["G-06", "G-09"]),
            entry(pack, "accepted", Purpose::Staff, &["G-06", "F-44"]),
            entry(pack, "stale", Purpose::Pay, &["D-FRESH"]),
            entry(pack, "not-recognised", Purpose::Pay, &["I-1N", "RET-02"]),
        ]
    };
    let same = replay(&old, &old, entries(&old));
    assert_eq!((same.entries, same.same), (4, 4));
    // Tomorrow rivals are judged otherwise, and employees are no longer recognised at all.
    change(
        &packs,
        "eu-gdpr/rules.cedar",
        "when { context.rivals > 0 };",
        "when { context.rivals > 1 };",
    );
    let manifest = fs::read_to_string(packs.path().join("fr-cnil/pack.toml")).unwrap();
    let from = manifest.find("[[purpose]]").unwrap();
    let to = manifest.find("[[number]]").unwrap();
    let without = format!("{}{}", &manifest[..from], &manifest[to..]);
    fs::write(packs.path().join("fr-cnil/pack.toml"), without).unwrap();
    let new = read(&packs.path().join("fr-cnil")).unwrap();
    let read_anew = replay(&old, &new, entries(&old));
    assert_eq!(read_anew.same, 1, "the stale one: {read_anew:?}");
    assert_eq!(read_anew.changed.values().sum::<usize>(), 1, "{read_anew:?}");
    assert_eq!(read_anew.depends.get("I-1N/recognise"), Some(&2), "{read_anew:?}");
    let foreign = replay(&new, &old, entries(&old));
    assert_eq!(foreign.other_pack, 4);
}
