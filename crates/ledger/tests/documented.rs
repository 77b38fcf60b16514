//! The example in `docs/ledger.md` is what the code makes.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{key, open};
use palmgate_ledger::{
    Checkpoint, Entry, ErasureReceipt,
    note::{Algorithm, Signer},
    receipt::{self, Kind, Recipient},
    witness,
};
use palmgate_protocol::{Timestamp, cloud::ErasureState};
use tempfile::tempdir;

const DOCUMENT: &str = include_str!("../../../docs/ledger.md");

/// The content of the fenced block that follows a line with `marker`.
fn block(marker: &str) -> &'static str {
    let (_, after) = DOCUMENT.split_once(marker).unwrap();
    let (_, after) = after.split_once("```").unwrap().1.split_once('\n').unwrap();
    after.split_once("```").unwrap().0
}

fn recipients(entry: &Entry) -> Vec<Recipient> {
    let [told, confirmed] =
        [250, 4_250].map(|millis| Timestamp::from_millis(entry.at.as_millis() + millis));
    let outstanding = vec!["paris".parse().unwrap()];
    let state = ErasureState { erased_at: confirmed, outstanding, signature: Vec::new() };
    let bytes = state.signed_bytes(&entry.commitment);
    let cloud = key(2).sign(ErasureState::LABEL, &bytes);
    let name = |text: &str| text.parse().unwrap();
    let mut recipients = vec![
        Recipient::acknowledged(Kind::Cloud, name("cloud"), confirmed, Some(cloud)),
        Recipient::pending(Kind::Store, name("paris"), told),
    ];
    recipients.extend(Recipient::sessions(vec![name("till-3")], told));
    recipients.push(Recipient::exports(true, told));
    recipients
}

#[test]
fn the_documented_example_is_made_byte_for_byte() {
    let dir = tempdir().unwrap();
    let mut ledger = open(dir.path());
    for line in block("The three lines of `entries/000000.jsonl`").lines() {
        ledger.append(&Entry::parse(line.as_bytes()).unwrap()).unwrap();
    }
    ledger.flush().unwrap();
    assert_eq!(ledger.checkpoint(), block("`checkpoint` over them"));
    let signer = Signer::new(common::ORIGIN, Algorithm::Ed25519, key(1).public()).unwrap();
    assert_eq!(format!("{signer}\n"), block("As a verifier key"));

    let evidence = ledger.evidence(1).unwrap();
    let (entry, _) = evidence.verify(&key(1).public()).unwrap();
    let [tenant, store] = ["shop", "lyon"].map(|name| name.parse().unwrap());
    let receipt = ErasureReceipt::new(tenant, store, 7, recipients(&entry), evidence).unwrap();
    let text = receipt.sign(&key(1));
    assert_eq!(format!("{text}\n"), block("The receipt for the second entry"));
    let verified = receipt::verify(&text, Some(signer.key())).unwrap();
    verified.check_acknowledgement(&"cloud".parse().unwrap(), &key(2).public()).unwrap();

    let cosigned = block("cosigned by the cloud");
    let (checkpoint, at) =
        witness::verify(cosigned, &key(1).public(), "palmgate/shop/cloud", &key(2).public())
            .unwrap();
    assert_eq!(checkpoint, Checkpoint::verify(ledger.checkpoint(), signer.key()).unwrap());
    assert_eq!(at.as_millis(), 1_785_578_700_000);
}
