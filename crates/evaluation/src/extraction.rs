//! Pictures to features, on every core.

use crate::{Dataset, Sample, Stage};
use palmgate_palm::{Capture, Extractor, MAX_PICTURE_BYTES, Steps};
use palmgate_protocol::{
    Biometric, Hand,
    terminal::{CaptureProblem, Frame},
};
use std::{
    fs,
    io::Read,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// What pictures show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A whole hand, as a terminal's camera sees it.
    Hand,
    /// The palm's region of interest, cut out already.
    Region,
}

/// Pictures from which the kind is found out.
const LOOKED_AT: usize = 12;

const UNREADABLE: &str =
    "unreadable: no whole PNG or JPEG picture, in grey or RGB, of at most 4096 pixels a side";

/// What became of every picture.
pub(crate) struct Captured {
    pub(crate) kind: Kind,
    /// In the order of the data set.
    pub(crate) captures: Vec<Result<Capture, String>>,
}

impl Captured {
    pub(crate) fn good(&self) -> impl Iterator<Item = (usize, &Capture)> {
        let each = self.captures.iter().enumerate();
        each.filter_map(|(index, capture)| Some((index, capture.as_ref().ok()?)))
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &Steps> {
        self.good().map(|(_, capture)| &capture.steps)
    }
}

pub(crate) fn extract(
    extractor: &Extractor,
    dataset: &Dataset,
    kind: Option<Kind>,
    threads: usize,
    progress: &(dyn Fn(Stage, usize, usize) + Sync),
) -> Captured {
    let kind = kind.unwrap_or_else(|| find_out(extractor, &dataset.samples));
    let all = dataset.samples.len();
    let done = AtomicUsize::new(0);
    let captures = in_parallel(threads, all, |index| {
        let capture = capture(extractor, &dataset.samples[index], kind);
        progress(Stage::Pictures, done.fetch_add(1, Ordering::Relaxed) + 1, all);
        capture
    });
    Captured { kind, captures }
}

/// Results in order; threads take the next index as they come free.
pub(crate) fn in_parallel<T: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return results;
            }
            results.push((index, work(index)));
        }
    };
    let mut results: Vec<(usize, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<(usize, T)>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Whole hands if most of some pictures, spread over the set, hold one.
fn find_out(extractor: &Extractor, samples: &[Sample]) -> Kind {
    let step = samples.len().div_ceil(LOOKED_AT);
    let looked: Vec<bool> = samples
        .iter()
        .step_by(step)
        .map(|sample| capture(extractor, sample, Kind::Hand).is_ok())
        .collect();
    let hands = looked.iter().filter(|hand| **hand).count();
    if 2 * hands >= looked.len() { Kind::Hand } else { Kind::Region }
}

fn capture(extractor: &Extractor, sample: &Sample, kind: Kind) -> Result<Capture, String> {
    let picture = read(sample)?;
    // A region does not tell which hand it is of, and nothing depends on it here.
    let region_of = (kind == Kind::Region).then_some(Hand::Right);
    let frame = Frame { band: sample.band, picture: Biometric::new(picture), region_of };
    extractor.capture(&[frame]).map_err(|problem| match problem {
        CaptureProblem::Unreadable => UNREADABLE.to_owned(),
        other => other.as_str().to_owned(),
    })
}

fn read(sample: &Sample) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("unreadable: {error}");
    let limit = MAX_PICTURE_BYTES as u64;
    let mut file = fs::File::open(&sample.path).map_err(unreadable)?;
    let mut picture = Vec::new();
    Read::by_ref(&mut file).take(limit + 1).read_to_end(&mut picture).map_err(unreadable)?;
    match picture.len() as u64 {
        0 => Err("unreadable: the file is empty".to_owned()),
        length if length > limit => Err(format!("unreadable: more than {limit} bytes")),
        _ => Ok(picture),
    }
}
