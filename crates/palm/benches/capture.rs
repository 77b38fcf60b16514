//! What each step of a scan costs on one thread.

mod hand;

use criterion::{Criterion, criterion_group, criterion_main};
use palmgate_palm::{Extractor, Steps, Transform};
use palmgate_protocol::terminal::{Band, Frame};
use palmgate_protocol::{Biometric, Purpose, Secret};
use std::{hint::black_box, time::Duration};

/// Name and part of a step.
type Step = (&'static str, fn(&Steps) -> Duration);

const STEPS: [Step; 7] = [
    ("decode", |steps| steps.decode),
    ("detect", |steps| steps.detect),
    ("landmarks", |steps| steps.landmarks),
    ("region", |steps| steps.region),
    ("embed", |steps| steps.embed),
    ("code", |steps| steps.code),
    ("total", Steps::total),
];

fn capture(criterion: &mut Criterion) {
    let extractor = Extractor::load().expect("the models are in the program");
    for (size, file) in [("100x100", hand::SMALL.to_vec()), ("640x480", hand::large())] {
        let frames =
            [Frame { band: Band::Visible, picture: Biometric::new(file), region_of: None }];
        let mut group = criterion.benchmark_group(size);
        group.sample_size(20).measurement_time(Duration::from_secs(4));
        for (name, part) in STEPS {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let once = || extractor.capture(black_box(&frames)).map(|c| part(&c.steps));
                    (0..rounds).map(|_| once().expect("a good picture")).sum()
                });
            });
        }
        group.finish();
    }
}

fn protect(criterion: &mut Criterion) {
    let extractor = Extractor::load().expect("the models are in the program");
    let (key, tenant) = (Secret::new([1; 32]), "chain".parse().expect("a name"));
    let transform = Transform::derive(&key, &tenant, Purpose::Pay);
    let frames = [Frame {
        band: Band::Visible,
        picture: Biometric::new(hand::SMALL.to_vec()),
        region_of: None,
    }];
    let capture = extractor.capture(&frames).expect("a good picture");
    criterion.bench_function("derive", |bencher| {
        bencher.iter(|| Transform::derive(&key, &tenant, Purpose::Pay));
    });
    criterion.bench_function("probe", |bencher| bencher.iter(|| transform.probe(&capture)));
}

criterion_group!(benches, capture, protect);
criterion_main!(benches);
