use super::{
    Deed, Done, Scribe,
    erasing::{LEAVING, Leaving},
};
use crate::{
    clock,
    decision_log::DecisionLog,
    receipts::{Holders, Receipts},
};
use palmgate_ledger::{
    Ledger,
    receipt::{self, Kind, RecipientState},
};
use palmgate_policy::{Decision, DecisionKind, Rule};
use palmgate_protocol::{ClaimHandle, MemberId, Name, Secret, Timestamp};
use palmgate_seal::{random, sign::SigningKey};
use palmgate_vault::{Column, ErasureRequest, MemoryRoot, NewPerson, Vault};
use std::{
    path::Path,
    sync::{Arc, mpsc::channel},
    time::Duration,
};

const PEOPLE: u8 = 40;

fn erase(number: u8, holders: Holders) -> Deed {
    Deed::Erase {
        member: member(number),
        claim: ClaimHandle::from_random([number ^ 0x80; 16]),
        salt: [number; 32],
        rule: Rule::ERASURE,
        ticket: None,
        holders,
    }
}

fn member(number: u8) -> MemberId {
    MemberId::from_random([number; 16])
}

fn vault(directory: &Path) -> Arc<Vault> {
    let tenant: Name = "chain".parse().unwrap();
    let root = Box::new(MemoryRoot::new());
    let vault = Vault::open(&directory.join("vault"), &tenant, root).unwrap();
    let person = |number| NewPerson {
        member: member(number),
        claim: ClaimHandle::from_random([number ^ 0x80; 16]),
        columns: vec![(Column::Profile, Secret::new(vec![number; 64]))],
    };
    vault.insert((0..PEOPLE).map(person).collect()).unwrap();
    Arc::new(vault)
}

#[test]
fn erasures_that_wait_share_one_change_of_the_root_and_each_has_its_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    let pkcs8 = SigningKey::generate().pkcs8();
    let key = || SigningKey::from_pkcs8(pkcs8.expose()).unwrap();
    let ledger = Ledger::open(&directory.path().join("ledger"), "palmgate/a/b", key());
    let (tenant, store) = ("a".parse().unwrap(), "b".parse().unwrap());
    let receipts = Receipts::open(directory.path().join("receipts"), tenant, store, key()).unwrap();
    let (done, answers) = channel();
    let report = move |one: Done| drop(done.send(one));
    let log = DecisionLog::new(ledger.unwrap());
    let (history, pack) = (Duration::from_hours(1), [1; 32]);
    // The vault is held while the queue fills.
    let before = vault.root_generation();
    let busy = Arc::clone(&vault);
    let scribe = Scribe::start(
        Arc::clone(&vault),
        log,
        receipts,
        (Vec::new(), true),
        (history, pack),
        report,
    )
    .unwrap();
    let people = |numbers: std::ops::Range<u16>| {
        let person = |_| {
            let columns = vec![(Column::Profile, Secret::new(vec![1; 4_000]))];
            let id = MemberId::from_random(random::bytes());
            (id, ClaimHandle::from_random(random::bytes()), columns)
        };
        numbers.map(person).collect()
    };
    scribe.submit(Deed::Adopt { people: people(0..2_000) });
    for number in 0..PEOPLE {
        let holders = Holders { cloud: number % 2 == 0, ..Holders::default() };
        scribe.submit(erase(number, holders));
        let decision = Decision {
            kind: DecisionKind::Scan,
            terminal: None,
            purpose: None,
            outcome: "not-recognised",
            rules: vec![Rule::ERASURE],
            subject: None,
        };
        scribe.submit(Deed::Log { decision, at: clock::now() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(scribe.finish());
    let mut commitments = std::collections::BTreeSet::new();
    for one in answers.try_iter() {
        if let Done::Erased { member: of, result, .. } = one {
            let verified = receipt::verify(&result.unwrap(), Some(&key().public())).unwrap();
            assert!(commitments.insert(verified.commitment) && !busy.contains(&of));
        }
    }
    assert_eq!(commitments.len(), usize::from(PEOPLE));
    assert!(busy.unfinished_erasures().is_empty());
    assert_eq!(busy.outbox_peek(100).unwrap().len(), usize::from(PEOPLE) / 2);
    let changes = busy.root_generation() - before;
    assert!(changes <= 3, "{changes} changes of the root for {PEOPLE} erasures");
    let ledger = directory.path().join("ledger");
    let verified = palmgate_ledger::verify::directory(&ledger, &key().public()).unwrap();
    assert_eq!((verified.size, verified.unsigned), (2 * u64::from(PEOPLE), 0));
}

/// Receipts on the disk, verified.
fn kept(directory: &Path) -> Vec<receipt::Verified> {
    let files = std::fs::read_dir(directory.join("receipts")).unwrap();
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        receipt::verify(&std::fs::read_to_string(file.unwrap().path()).unwrap(), None).unwrap()
    };
    files.map(read).collect()
}

fn begin(directory: &Path, vault: &Arc<Vault>, terminals: &[&str], cloud: bool) -> Scribe {
    let pkcs8 = SigningKey::generate().pkcs8();
    let key = || SigningKey::from_pkcs8(pkcs8.expose()).unwrap();
    let ledger = Ledger::open(&directory.join("ledger"), "palmgate/a/b", key()).unwrap();
    let (tenant, store) = ("a".parse().unwrap(), "b".parse().unwrap());
    let receipts = Receipts::open(directory.join("receipts"), tenant, store, key()).unwrap();
    let terminals = terminals.iter().map(|name| name.parse().unwrap()).collect();
    let (around, rules) = ((terminals, cloud), (Duration::from_hours(1), [1; 32]));
    Scribe::start(Arc::clone(vault), DecisionLog::new(ledger), receipts, around, rules, |_| {})
        .unwrap()
}

fn finish(scribe: &Scribe) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(scribe.finish());
}

#[test]
fn receipts_wait_for_a_session_begun_after_the_erasure() {
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    let scribe = begin(directory.path(), &vault, &["kiosk-1", "till-2"], false);
    let terminals: Vec<Name> = ["kiosk-1", "till-2"].map(|name| name.parse().unwrap()).into();
    for number in 0..PEOPLE {
        let holders = Holders { terminals: terminals.clone(), ..Holders::default() };
        scribe.submit(erase(number, holders));
    }
    let [early, late] =
        [-60_000, 60_000].map(|off| Timestamp::from_millis(clock::now().as_millis() + off));
    scribe.submit(Deed::Joined(terminals[0].clone(), late));
    scribe.submit(Deed::Joined(terminals[1].clone(), early));
    // More than are renewed in one go.
    (0..3).for_each(|_| scribe.submit(Deed::Flush));
    finish(&scribe);
    let receipts = kept(directory.path());
    assert_eq!(receipts.len(), usize::from(PEOPLE));
    for one in receipts {
        assert_eq!(one.status, receipt::Status::Partial);
        let [waits] =
            &one.recipients.iter().find(|one| !one.outstanding.is_empty()).unwrap().outstanding[..]
        else {
            panic!("one terminal is outstanding")
        };
        assert_eq!(waits, &terminals[1], "its session is older");
    }
}

#[test]
fn a_receipt_that_a_crash_cut_says_what_the_erasure_knew() {
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    let erased = |number: u8| ErasureRequest {
        member: member(number),
        claim: ClaimHandle::from_random([number ^ 0x80; 16]),
        commitment: [number; 32],
    };
    let leaving = Leaving { commitment: [1; 32], cloud: false, exported: true };
    vault.put_state(LEAVING, &palmgate_protocol::encode(&vec![leaving])).unwrap();
    vault.erase(&[erased(1), erased(2)]).unwrap();
    finish(&begin(directory.path(), &vault, &[], true));
    assert!(vault.unfinished_erasures().is_empty() && vault.state(LEAVING).unwrap().is_none());
    let receipts = kept(directory.path());
    let of = |number: u8, kind| {
        let one = receipts.iter().find(|one| one.commitment == [number; 32]).unwrap();
        one.recipients.iter().find(|one| one.kind == Some(kind)).map(|one| one.state)
    };
    assert_eq!(of(1, Kind::Exports), Some(RecipientState::HandedOver));
    assert_eq!(of(1, Kind::Cloud), None);
    assert_eq!(of(2, Kind::Exports), Some(RecipientState::NothingKept));
    assert_eq!(of(2, Kind::Cloud), Some(RecipientState::Pending), "as the rule is");
}
