//! A ledger of a million entries: what each operation on it takes.

use criterion::{Criterion, criterion_group, criterion_main};
use palmgate_ledger::{Entry, EntryKind, Ledger, NOBODY, verify};
use palmgate_protocol::{Purpose, Timestamp};
use palmgate_seal::sign::SigningKey;
use std::hint::black_box;

const SIZE: u64 = 1_000_000;

fn entry(number: u64) -> Entry {
    Entry {
        at: Timestamp::from_millis(1_785_576_600_000 + number.cast_signed() * 731),
        kind: EntryKind::Scan,
        terminal: Some("till-3".parse().expect("a name")),
        purpose: Some(Purpose::Pay),
        outcome: "accepted".into(),
        rules: vec!["G-09".into(), "C-RT-04".into()],
        pack: [0xc0; 32],
        commitment: NOBODY,
    }
}

fn operations(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pkcs8 = SigningKey::generate().pkcs8();
    let key = || SigningKey::from_pkcs8(pkcs8.expose()).expect("the key just made");
    let open = || Ledger::open(dir.path(), "palmgate/shop/lyon", key()).expect("a whole ledger");
    let mut ledger = open();
    let mut number = 0..;
    let mut append = |ledger: &mut Ledger| {
        let entry = entry(number.next().expect("endless"));
        ledger.append(&entry).expect("room on the disk")
    };
    while append(&mut ledger) < SIZE - 1 {}
    ledger.flush().expect("a durable ledger");

    let mut random = 0_u64;
    let mut index = move || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 32) % SIZE
    };
    criterion.bench_function("inclusion proof", |bench| {
        bench.iter(|| ledger.inclusion(black_box(index()), SIZE).expect("a proof"));
    });
    criterion.bench_function("consistency proof", |bench| {
        bench.iter(|| ledger.consistency(black_box(index()), SIZE).expect("a proof"));
    });
    criterion.bench_function("evidence", |bench| {
        bench.iter(|| ledger.evidence(index()).expect("evidence"));
    });
    let proof = ledger.evidence(4711).expect("a signed entry");
    let public = key().public();
    criterion.bench_function("verify evidence", |bench| {
        bench.iter(|| black_box(&proof).verify(&public).expect("good evidence"));
    });
    drop(ledger);
    let mut whole = criterion.benchmark_group("all entries");
    whole.sample_size(10);
    whole.bench_function("open", |bench| bench.iter(open));
    whole.bench_function("verify", |bench| {
        bench.iter(|| verify::directory(dir.path(), &public).expect("a whole ledger"));
    });
    whole.finish();

    let mut ledger = open();
    criterion.bench_function("append and flush", |bench| {
        bench.iter(|| {
            append(&mut ledger);
            ledger.flush().expect("a working disk");
        });
    });
    criterion.bench_function("append", |bench| bench.iter(|| append(&mut ledger)));
}

criterion_group!(benches, operations);
criterion_main!(benches);
