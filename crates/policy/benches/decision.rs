//! What a decision costs with `fr-cnil` in force: the pack's verdict on the lawful act of each kind,
//! and the engine's whole way from a scan to its answer.
//!
//! Criterion says how a mean moves; the 99th percentile is printed after it, from single timings.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use criterion::Criterion;
use palmgate_policy::{
    CaptureFacts, ClaimPresented, Engine, EnrolmentFacts, Event, FreshIds, Law, Match, Pack, Proof,
    ScanFacts, Sensor, Settings, TerminalFacts, Ticket, pack::Action,
};
use palmgate_protocol::{
    ClaimHandle, Custody, Hand, MemberId, Pseudonym, Purpose, Timestamp,
    terminal::{Age, ConsentGiven, Intent},
};
use std::{hint::black_box, time::Instant};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let settings = settings();
    let law = Law::new(Pack::embedded(), &settings.store_facts());
    for action in [Action::Capture, Action::Recognise, Action::Enrol, Action::Start] {
        let act = Pack::lawful_act(action);
        let mut group = criterion.benchmark_group("decision");
        group.bench_function(action.as_str(), |b| b.iter(|| law.decide(black_box(&act))));
        group.finish();
        let p99 = percentile(10_000, || {
            black_box(law.decide(black_box(&act)));
        });
        println!("decision/{}: p99 {p99:.1} µs of 10000", action.as_str());
    }
    let mut engine = store(settings);
    let mut next = 10;
    let mut scan = || {
        next += 1;
        recognise(&mut engine, Ticket(next));
    };
    criterion.bench_function("scan, four decisions", |b| b.iter(&mut scan));
    println!("scan, four decisions: p99 {:.1} µs of 10000", percentile(10_000, scan));
    criterion.final_summary();
}

/// In microseconds.
fn percentile(times: usize, mut work: impl FnMut()) -> f64 {
    let mut taken: Vec<f64> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[times * 99 / 100]
}

fn settings() -> Settings {
    Settings {
        custody: Custody::Operator,
        purposes: Purpose::MATCHED.into_iter().collect(),
        thresholds: [0.5; 4],
        zones: vec!["vault".into()],
        notice: "notice".into(),
        ..Settings::default()
    }
}

fn store(settings: Settings) -> Engine {
    let mut engine = Engine::new(settings);
    let till = TerminalFacts {
        name: "till".parse().unwrap(),
        purposes: Purpose::MATCHED.into_iter().collect(),
        enrols: true,
    };
    engine.handle(Event::TerminalKnown(till), NOW);
    let consents = vec![ConsentGiven {
        purpose: Purpose::Entry,
        notice: "notice".into(),
        language: "fr".into(),
        confirmed: true,
    }];
    let facts = EnrolmentFacts {
        terminal: "till".parse().unwrap(),
        at: NOW,
        captures: vec![Hand::Right],
        frames: 1,
        consents,
        age: Age::Adult,
        card_token: false,
        card_number: false,
        authorisation: None,
        release: None,
        replaces: None,
        sensor: Sensor::Silent,
        ids: FreshIds {
            member: MemberId::from_random([1; 16]),
            claim: ClaimHandle::from_random([1; 16]),
            pseudonyms: [Pseudonym::from_random([1; 16]); 4],
            salt: [1; 32],
        },
    };
    engine.handle(Event::Enrol(Ticket(1), Box::new(facts)), NOW);
    engine.handle(Event::EnrolmentExtracted(Ticket(1), Ok(LIVE)), NOW);
    engine.handle(Event::Identified(Ticket(1), Vec::new()), NOW);
    engine.handle(Event::Stored(Ticket(1), Ok(())), NOW);
    engine
}

const LIVE: CaptureFacts = CaptureFacts { liveness: 1.0, multispectral: true };

fn recognise(engine: &mut Engine, ticket: Ticket) {
    let facts = ScanFacts {
        terminal: "till".parse().unwrap(),
        at: NOW,
        intent: Intent::Entry,
        claim: ClaimPresented::None,
        ask_cloud: false,
        frames: 1,
        authenticated: false,
        card_number: false,
        possession: Proof::None,
        sensor: Sensor::Silent,
    };
    engine.handle(Event::Scan(ticket, facts), NOW);
    engine.handle(Event::Extracted(ticket, Ok(LIVE)), NOW);
    let member = MemberId::from_random([1; 16]);
    let found = Match { member, purpose: Purpose::Entry, score: 0.9 };
    let commands = engine.handle(Event::Identified(ticket, vec![found]), NOW);
    assert!(commands.iter().any(|c| matches!(c, palmgate_policy::Command::Accept { .. })));
}
