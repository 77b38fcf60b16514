//! What the tests share.
#![allow(dead_code, reason = "each test uses a part of it")]

use palmgate_ledger::{Entry, EntryKind, Ledger, NOBODY};
use palmgate_protocol::{Purpose, Timestamp};
use palmgate_seal::sign::SigningKey;
use std::path::Path;

pub(crate) const ORIGIN: &str = "palmgate/shop/lyon";

/// A key that is the same in every run.
pub(crate) fn key(seed: u8) -> SigningKey {
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    SigningKey::from_pkcs8(&[&prefix[..], &[seed; 32]].concat()).unwrap()
}

/// The `number`th of a series of entries that all differ.
pub(crate) fn entry(number: u64) -> Entry {
    let kinds = [EntryKind::Scan, EntryKind::Scan, EntryKind::Consent, EntryKind::Shard];
    let mut pack = [0xc0; 32];
    pack[..8].copy_from_slice(&(number / 1000).to_be_bytes());
    Entry {
        at: Timestamp::from_millis(1_785_576_600_000 + number.cast_signed() * 731),
        kind: kinds[number as usize % 4],
        terminal: (!number.is_multiple_of(3))
            .then(|| format!("till-{}", number % 7).parse().unwrap()),
        purpose: (!number.is_multiple_of(5)).then_some(Purpose::Pay),
        outcome: "accepted".into(),
        rules: vec!["G-09".into(), "C-RT-04".into()],
        pack,
        commitment: NOBODY,
    }
}

pub(crate) fn open(dir: &Path) -> Ledger {
    Ledger::open(dir, ORIGIN, key(1)).unwrap()
}

/// A flushed ledger of `size` entries.
pub(crate) fn ledger(dir: &Path, size: u64) -> Ledger {
    let mut ledger = open(dir);
    for number in ledger.len()..size {
        assert_eq!(ledger.append(&entry(number)).unwrap(), number);
    }
    ledger.flush().unwrap();
    ledger
}
