//! A matcher behind a socket does what one in the same process does, and outlives bad callers.
#![allow(clippy::unwrap_used)]

use palmgate_gallery::RowId;
use palmgate_matcher::{Fusion, Keyed, MAX_CONNECTIONS, Matcher, MatcherError, Reference, serve};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Biometric, Hand, Purpose, PurposeSet, Secret,
    terminal::{Band, CaptureProblem, Frame, HandCapture},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
    time::Duration,
};
use tempfile::TempDir;

const PALM: &[u8] = include_bytes!("../../palm/data/rendered/left-palm.jpg");

struct Served {
    directory: TempDir,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        thread::spawn(move || serve(&listener, Extractor::load().unwrap()));
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn open(&self) -> Matcher {
        Matcher::process(self.socket(), &keyed()).unwrap()
    }
}

fn keyed() -> Keyed {
    Keyed {
        key: Secret::new([7; 32]),
        tenant: "tenant".parse().unwrap(),
        fusion: Fusion { embedding_weight: 0.5, code_weight: 0.5, shortlist: 8 },
        models: palmgate_palm::models_hash(),
    }
}

fn frames(picture: &[u8]) -> Vec<Frame> {
    vec![Frame { band: Band::Visible, picture: Biometric::new(picture.to_vec()), region_of: None }]
}

fn enrolment() -> Vec<HandCapture> {
    vec![HandCapture { hand: Hand::Left, frames: frames(PALM) }]
}

fn purposes() -> PurposeSet {
    [Purpose::Pay, Purpose::Entry].into_iter().collect()
}

fn enrol(matcher: &Matcher, first: u64) {
    let Ok(enrolled) = matcher.enrolment(enrolment(), purposes()).unwrap() else {
        panic!("the palm can be enrolled")
    };
    let rows = (first..).map(RowId).zip(enrolled.templates);
    let references: Vec<Reference> =
        rows.map(|(row, (purpose, _, template))| Reference { row, purpose, template }).collect();
    matcher.insert(&references).unwrap();
}

#[test]
fn a_matcher_with_other_models_gets_no_template() {
    let served = Served::new();
    let other = Keyed { models: [9; 32], ..keyed() };
    let refused = Matcher::process(served.socket(), &other).err().unwrap();
    assert!(matches!(refused, MatcherError::Version { .. }), "{refused}");
    served.open().ping().unwrap();
}

#[test]
fn both_kinds_give_the_same_probes_references_and_candidates() {
    let served = Served::new();
    let inside = Matcher::inside(Extractor::load().unwrap(), &keyed());
    let outside = served.open();
    let mut seen = Vec::new();
    for matcher in [&inside, &outside] {
        enrol(matcher, 40);
        let Ok(scanned) = matcher.scan(frames(PALM), purposes()).unwrap() else {
            panic!("the palm can be scanned")
        };
        assert!(scanned.timed.steps.total() > Duration::ZERO);
        let found = matcher.identify(&scanned.probes).unwrap();
        let found: Vec<(u64, u32)> =
            found.iter().map(|each| (each.row.0, each.score.to_bits())).collect();
        assert_eq!(found.iter().map(|each| each.0).collect::<Vec<_>>(), [40, 41]);
        let bytes: Vec<(Purpose, Vec<u8>)> = scanned
            .probes
            .iter()
            .map(|(purpose, probe)| (*purpose, probe.to_bytes().expose().clone()))
            .collect();
        matcher.remove(&[RowId(40)]).unwrap();
        let left = matcher.identify(&scanned.probes).unwrap();
        assert_eq!(left.iter().map(|each| each.row.0).collect::<Vec<_>>(), [41]);
        seen.push((found, bytes, scanned.facts));
    }
    assert!(seen[0] == seen[1]);
}

#[test]
fn a_picture_that_cannot_be_used_is_no_error_of_the_matcher() {
    let served = Served::new();
    let matcher = served.open();
    let scanned = matcher.scan(frames(b"no picture"), purposes()).unwrap();
    assert!(matches!(scanned, Err(CaptureProblem::Unreadable)));
    let mut captures = enrolment();
    captures.push(HandCapture { hand: Hand::Left, frames: frames(b"no picture") });
    let enrolled = matcher.enrolment(captures, purposes()).unwrap();
    assert!(matches!(enrolled, Err((CaptureProblem::Unreadable, 1))));
}

#[test]
fn a_row_that_is_there_is_refused_in_words() {
    let served = Served::new();
    let matcher = served.open();
    enrol(&matcher, 1);
    let Ok(enrolled) = matcher.enrolment(enrolment(), purposes()).unwrap() else {
        panic!("the palm can be enrolled")
    };
    let (purpose, _, template) = enrolled.templates.into_iter().next().unwrap();
    let refused = matcher.insert(&[Reference { row: RowId(1), purpose, template }]);
    assert!(matches!(refused, Err(MatcherError::Refused(why)) if why.contains("row 1")));
}

#[test]
fn the_gateway_that_came_last_is_served_and_begins_with_nothing() {
    let served = Served::new();
    let first = served.open();
    enrol(&first, 1);
    let Ok(scanned) = first.scan(frames(PALM), purposes()).unwrap() else { panic!("a palm") };
    assert_eq!(first.identify(&scanned.probes).unwrap().len(), 2);
    let second = served.open();
    assert!(second.identify(&scanned.probes).unwrap().is_empty());
    assert!(first.ping().is_err_and(|error| error.is_lost()));
    assert!(first.identify(&scanned.probes).is_err_and(|error| error.is_lost()));
    drop(first);
    assert!(second.ping().is_ok(), "the end of an older session ends no newer one");
}

#[test]
fn nonsense_ends_the_caller_and_nobody_else() {
    let served = Served::new();
    let matcher = served.open();
    enrol(&matcher, 1);
    let hostile: [&[u8]; 5] = [
        &[0xff; 64],
        &[0xff, 0xff, 0xff, 0x7f],
        &[3, 0, 0, 0, 0x82, 0x01, 0x81],
        &[1, 0, 0, 0, 0xff],
        &[200, 0, 0, 0, 1, 2, 3],
    ];
    for bytes in hostile {
        let mut caller = UnixStream::connect(served.socket()).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = caller.write_all(bytes);
        caller.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = caller.read_to_end(&mut answer);
        assert!(answer.len() < 16, "no more than that there is no such session");
    }
    let Ok(scanned) = matcher.scan(frames(PALM), purposes()).unwrap() else { panic!("a palm") };
    assert_eq!(matcher.identify(&scanned.probes).unwrap().len(), 2);
}

#[test]
fn callers_beyond_the_bound_are_turned_away_and_places_come_back() {
    let served = Served::new();
    let callers: Vec<UnixStream> =
        (0..=MAX_CONNECTIONS).map(|_| UnixStream::connect(served.socket()).unwrap()).collect();
    // The last of them sees the end of its connection, the one before waits for an answer.
    let [.., mut within, mut last] = callers.iter().collect::<Vec<_>>()[..] else {
        panic!("two callers at least")
    };
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(last.read(&mut [0; 4]).unwrap(), 0);
    within.set_nonblocking(true).unwrap();
    let waits = within.read(&mut [0; 4]).map_err(|error| error.kind());
    assert_eq!(waits, Err(ErrorKind::WouldBlock));
    drop(callers);
    let opened = (0..100).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        Matcher::process(served.socket(), &keyed()).ok()
    });
    opened.unwrap().ping().unwrap();
}

#[test]
fn a_matcher_that_is_not_there_is_named_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let lost = Matcher::process(directory.path().join("nobody"), &keyed()).err().unwrap();
    assert!(lost.is_lost() && lost.to_string().contains("nobody"));
}
