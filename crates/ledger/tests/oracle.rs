//! Another implementation of RFC 6962 (the crate ct-merkle) agrees with every root and proof.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{entry, key, ledger};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use palmgate_ledger::{Checkpoint, Hash, verify};
use sha2::Sha256;
use tempfile::tempdir;

type Oracle = MemoryBackedTree<Sha256, Vec<u8>>;

fn oracle(size: u64) -> Oracle {
    let mut tree = Oracle::new();
    (0..size).for_each(|number| tree.push(entry(number).to_line().unwrap().into_bytes()));
    tree
}

fn root(checkpoint: &Checkpoint) -> RootHash<Sha256> {
    RootHash::new(checkpoint.root.into(), checkpoint.size)
}

fn bytes(path: &[Hash]) -> Vec<u8> {
    path.as_flattened().to_vec()
}

#[test]
fn an_independent_implementation_has_the_same_roots_and_accepts_every_proof() {
    let dir = tempdir().unwrap();
    let public = key(1).public();
    let mut notes: Vec<String> = Vec::new();
    for size in [1, 2, 3, 7, 64, 255, 256, 257, 700] {
        let ledger = ledger(dir.path(), size);
        let checkpoint = Checkpoint::verify(ledger.checkpoint(), &public).unwrap();
        let root_here = root(&checkpoint);
        assert_eq!(oracle(size).root().as_bytes(), root_here.as_bytes(), "{size}");
        for index in (0..size).step_by(1 + size as usize / 40) {
            let proof = ledger.inclusion(index, size).unwrap();
            let theirs = InclusionProof::<Sha256>::from_bytes(bytes(&proof.path));
            let line = entry(index).to_line().unwrap().into_bytes();
            root_here.verify_inclusion(&line, index, &theirs).unwrap();
            let other = entry(index + 1).to_line().unwrap().into_bytes();
            assert!(root_here.verify_inclusion(&other, index, &theirs).is_err());
        }
        for note in &notes {
            let earlier = Checkpoint::verify(note, &public).unwrap();
            let proof = ledger.consistency(earlier.size, size).unwrap();
            let theirs = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof.path)).unwrap();
            root_here.verify_consistency(&root(&earlier), &theirs).unwrap();
        }
        notes.push(ledger.checkpoint().to_owned());
    }
}

#[test]
fn proofs_that_the_other_makes_verify_here() {
    let dir = tempdir().unwrap();
    let public = key(1).public();
    let ledger = ledger(dir.path(), 300);
    let checkpoint = Checkpoint::verify(ledger.checkpoint(), &public).unwrap();
    let tree = oracle(300);
    for index in [0, 1, 128, 255, 256, 299] {
        let theirs = tree.prove_inclusion(index as usize);
        let (path, _) = theirs.as_bytes().as_chunks::<32>();
        let proof = palmgate_ledger::InclusionProof { index, size: 300, path: path.to_vec() };
        let leaf = palmgate_ledger::merkle::leaf_hash(entry(index).to_line().unwrap().as_bytes());
        assert_eq!(proof.verify(&leaf, 300, &checkpoint.root), Ok(()));
        assert_eq!(ledger.inclusion(index, 300).unwrap(), proof);
    }
}

#[test]
fn an_exported_directory_proves_entries_and_growth_without_the_private_key() {
    let dir = tempdir().unwrap();
    let public = key(1).public();
    let earlier = ledger(dir.path(), 100).checkpoint().to_owned();
    let later = ledger(dir.path(), 700).checkpoint().to_owned();
    let evidence = verify::prove(dir.path(), &public, 640).unwrap();
    assert_eq!(evidence.verify(&public).unwrap().0, entry(640));
    let beyond = verify::prove(dir.path(), &public, 700).unwrap_err();
    assert!(matches!(beyond, verify::VerifyError::OutOfRange { index: 700, size: 700 }));
    let proof = verify::continuation(dir.path(), &public, &earlier).unwrap();
    let (from, to) = verify::grew(&earlier, &later, &proof, &public).unwrap();
    assert_eq!((from.size, to.size), (100, 700));
    assert!(verify::grew(&later, &earlier, &proof, &public).is_err());
    let mut other = proof.clone();
    other.path[0][0] ^= 1;
    assert!(verify::grew(&earlier, &later, &other, &public).is_err());
}

#[test]
fn a_ledger_says_whether_it_continues_a_checkpoint_kept_elsewhere() {
    use palmgate_ledger::{EntryKind, HistoryError, LedgerError};
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let held = ledger(dir.path(), 40).checkpoint().to_owned();
    let grown = ledger(dir.path(), 300);
    grown.continues(&held).unwrap();
    let short = ledger(other.path(), 30);
    let back = short.continues(&held).unwrap_err();
    assert!(matches!(back, LedgerError::History(HistoryError::RolledBack { held: 40, found: 30 })));
    drop(short);
    let mut forked = ledger(other.path(), 30);
    for _ in 0..20 {
        forked.append(&entry(7)).unwrap();
    }
    forked.flush().unwrap();
    assert!(matches!(forked.continues(&held), Err(LedgerError::Fork(_))));

    let mut erasure = entry(1);
    erasure.kind = EntryKind::Erasure;
    erasure.commitment = [9; 32];
    assert_eq!(forked.find(EntryKind::Erasure, &[9; 32]).unwrap(), None);
    let index = forked.append(&erasure).unwrap();
    forked.append(&entry(2)).unwrap();
    assert_eq!(forked.find(EntryKind::Erasure, &[9; 32]).unwrap(), Some((index, erasure)));
}
