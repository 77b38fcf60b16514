//! A witness, and logs that try to show it two histories.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{ORIGIN, entry, key, ledger, open};
use palmgate_ledger::{
    Checkpoint, ConsistencyProof, Entry, ProofError,
    witness::{WitnessError, cosign, verify},
};
use palmgate_protocol::Timestamp;
use tempfile::tempdir;

const NOW: Timestamp = Timestamp::from_millis(1_785_576_600_999);

fn nothing_before(size: u64) -> ConsistencyProof {
    ConsistencyProof { from: 0, to: size, path: vec![] }
}

#[test]
fn a_log_that_grows_is_cosigned_again_and_again() {
    let dir = tempdir().unwrap();
    let (log, witness) = (key(1).public(), key(8));
    let mut held: Option<String> = None;
    let mut before = 0;
    for size in [0, 1, 7, 7, 300, 513] {
        let ledger = ledger(dir.path(), size);
        let proof = ledger.consistency(before, size).unwrap();
        let note = ledger.checkpoint();
        let cosigned = cosign(held.as_deref(), note, &proof, &log, "cloud", &witness, NOW).unwrap();
        let (checkpoint, at) = verify(&cosigned, &log, "cloud", &witness.public()).unwrap();
        assert_eq!((checkpoint.size, at.as_millis()), (size, 1_785_576_600_000));
        assert_eq!(Checkpoint::verify_of(ORIGIN, &cosigned, &log), Ok(checkpoint));
        (held, before) = (Some(cosigned), size);
    }
}

#[test]
fn a_fork_and_a_rollback_are_found_by_one_honest_witness() {
    let dir = tempdir().unwrap();
    let (log, witness) = (key(1).public(), key(8));
    let honest = ledger(&dir.path().join("honest"), 20);
    let proof = nothing_before(20);
    let held = cosign(None, honest.checkpoint(), &proof, &log, "cloud", &witness, NOW).unwrap();
    let mut forked = open(&dir.path().join("forked"));
    for number in 0..30 {
        let outcome = if number == 19 { "rejected" } else { "accepted" };
        forked.append(&Entry { outcome: outcome.into(), ..entry(number) }).unwrap();
    }
    forked.flush().unwrap();
    let ask = |note: &str, proof: &ConsistencyProof| {
        cosign(Some(&held), note, proof, &log, "cloud", &witness, NOW)
    };
    let own_proof = forked.consistency(20, 30).unwrap();
    let fork = ask(forked.checkpoint(), &own_proof);
    assert_eq!(fork, Err(WitnessError::Fork(ProofError::Root)));
    let evasive = ask(forked.checkpoint(), &nothing_before(30));
    assert_eq!(evasive, Err(WitnessError::Fork(ProofError::Size { proof: 0, checkpoint: 20 })));
    let short = ledger(&dir.path().join("short"), 12);
    let back = ConsistencyProof { from: 20, to: 12, path: vec![] };
    let rollback = ask(short.checkpoint(), &back);
    assert_eq!(rollback, Err(WitnessError::Fork(ProofError::Range { position: 20, size: 12 })));
}

#[test]
fn a_witness_signs_for_one_log_under_its_own_name() {
    let dir = tempdir().unwrap();
    let (log, witness) = (key(1).public(), key(8));
    let ledger = ledger(dir.path(), 3);
    let note = ledger.checkpoint();
    let proof = nothing_before(3);
    let cosigned = cosign(None, note, &proof, &log, "cloud", &witness, NOW).unwrap();
    assert!(verify(note, &log, "cloud", &witness.public()).is_err(), "not cosigned yet");
    assert!(verify(&cosigned, &log, "other", &witness.public()).is_err());
    assert!(verify(&cosigned, &log, "cloud", &key(9).public()).is_err());
    assert!(verify(&cosigned, &key(9).public(), "cloud", &witness.public()).is_err());
    let stranger = cosign(None, note, &proof, &key(9).public(), "cloud", &witness, NOW);
    assert!(matches!(stranger, Err(WitnessError::Checkpoint(_))));
    let elsewhere = Checkpoint { origin: "elsewhere".into(), size: 3, root: [0; 32] };
    let held = elsewhere.sign(&key(1)).unwrap();
    let mixed = cosign(Some(&held), note, &proof, &log, "cloud", &witness, NOW);
    assert!(matches!(mixed, Err(WitnessError::Checkpoint(_))));
    let early = Timestamp::from_millis(-1);
    let clock = cosign(None, note, &proof, &log, "cloud", &witness, early);
    assert_eq!(clock, Err(WitnessError::Clock));
}

#[test]
fn a_changed_cosignature_is_refused() {
    let dir = tempdir().unwrap();
    let (log, witness) = (key(1).public(), key(8));
    let ledger = ledger(dir.path(), 3);
    let proof = nothing_before(3);
    let good = cosign(None, ledger.checkpoint(), &proof, &log, "cloud", &witness, NOW).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(changed) = String::from_utf8(bytes) {
            assert!(verify(&changed, &log, "cloud", &witness.public()).is_err(), "byte {at}");
        }
    }
}
