use super::{Deed, Done, Scribe};
use crate::{
    clock,
    decision_log::DecisionLog,
    receipts::{Holders, Receipts},
};
use palmgate_ledger::{Ledger, receipt};
use palmgate_policy::{Decision, DecisionKind, Rule};
use palmgate_protocol::{ClaimHandle, MemberId, Name, Secret};
use palmgate_seal::{random, sign::SigningKey};
use palmgate_vault::{Column, MemoryRoot, NewPerson, Vault};
use std::{
    path::Path,
    sync::{Arc, mpsc::channel},
    time::Duration,
};

const PEOPLE: u8 = 40;

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
        let person = |number: u16| {
            let columns = vec![(Column::Profile, Secret::new(vec![1; 4_000]))];
            let id: [u8; 16] = random::bytes();
            let _ = number;
            (MemberId::from_random(id), ClaimHandle::from_random(random::bytes()), columns)
        };
        numbers.map(person).collect()
    };
    scribe.submit(Deed::Adopt { people: people(0..2_000) });
    for number in 0..PEOPLE {
        scribe.submit(Deed::Erase {
            member: member(number),
            claim: ClaimHandle::from_random([number ^ 0x80; 16]),
            salt: [number; 32],
            rule: Rule::ERASURE,
            ticket: None,
            holders: Holders { cloud: number % 2 == 0, ..Holders::default() },
        });
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
