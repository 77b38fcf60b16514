//! One identification among 10,000 rows, and its two halves.

use criterion::{Criterion, criterion_group, criterion_main};
use palmgate_gallery::{Fusion, Gallery, RowId, verify};
use palmgate_protocol::{Code, MAX_PROBE_CODES, Probe, Purpose, Template};
use std::hint::black_box;

fn bytes(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

fn template(seed: u64) -> Template {
    let mut next = bytes(seed);
    Template {
        embedding: std::array::from_fn(|_| next().cast_signed()),
        codes: std::array::from_fn(|_| std::array::from_fn(|_| next())),
    }
}

fn probe(seed: u64, codes: usize) -> Probe {
    let mut next = bytes(!seed);
    let codes: Vec<Code> = (0..codes).map(|_| std::array::from_fn(|_| next())).collect();
    Probe { embedding: template(seed).embedding, codes }
}

fn identify(criterion: &mut Criterion) {
    let gallery = Gallery::new();
    for row in 0..10_000 {
        gallery.insert(RowId(row), Purpose::Pay, &template(row)).expect("room for ten thousand");
    }
    let fusion = Fusion { embedding_weight: 0.6, code_weight: 0.4, shortlist: 256 };
    let probe = probe(4711, MAX_PROBE_CODES);
    criterion.bench_function("identify/10000 rows, shortlist 256, 507 codes", |bench| {
        bench.iter(|| gallery.identify(Purpose::Pay, black_box(&probe), &fusion));
    });
    let embeddings_only = Fusion { shortlist: 1, ..fusion };
    criterion.bench_function("identify/10000 rows, shortlist 1", |bench| {
        bench.iter(|| gallery.identify(Purpose::Pay, black_box(&probe), &embeddings_only));
    });
    let claimed = template(4711);
    criterion.bench_function("verify/507 codes", |bench| {
        bench.iter(|| verify(black_box(&probe), &claimed, &fusion));
    });
}

criterion_group!(benches, identify);
criterion_main!(benches);
