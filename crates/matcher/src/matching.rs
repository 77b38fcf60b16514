//! The work itself, in whichever process.

use crate::{Keyed, Reference};
use palmgate_gallery::{Candidate, Fusion, Gallery, GalleryError, RowId};
use palmgate_palm::{Capture, Extractor, Steps, Transform};
use palmgate_protocol::{
    Hand, Probe, Purpose, PurposeSet, Template,
    limits::MAX_FRAME_BYTES,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What the policy may know of captures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureFacts {
    /// Liveness of the least live capture, 0 to 1.
    pub liveness: f32,
    /// Whether every capture was seen in several bands.
    pub multispectral: bool,
}

/// What each step of a scan took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    /// Pictures to features.
    pub steps: Steps,
    /// Features to protected probes.
    pub protect: Duration,
}

/// A scan's probes.
pub struct Scanned {
    /// What the policy may know of the capture.
    pub facts: CaptureFacts,
    /// One for each purpose asked for.
    pub probes: Vec<(Purpose, Probe)>,
    /// What it took.
    pub timed: Timed,
}

/// An enrolment's references.
pub struct Enrolled {
    /// What the policy may know of the captures.
    pub facts: CaptureFacts,
    /// One for each purpose and hand.
    pub templates: Vec<(Purpose, Hand, Template)>,
    /// What a duplicate would answer to: one for each of them.
    pub probes: Vec<(Purpose, Probe)>,
}

/// An enrolment's references, or what is wrong with which capture, counted from 0.
pub type Enrolling = Result<Enrolled, (CaptureProblem, u8)>;

/// Models, keyed transforms and a gallery.
pub struct Matching {
    extractor: Arc<Extractor>,
    transforms: Vec<(Purpose, Transform)>,
    gallery: Gallery,
    fusion: Fusion,
}

impl Matching {
    /// With an empty gallery. Models can be shared.
    pub fn new(extractor: Arc<Extractor>, keyed: &Keyed) -> Self {
        let transform = |purpose| Transform::derive(&keyed.key, &keyed.tenant, purpose);
        Self {
            extractor,
            transforms: Purpose::MATCHED.map(|purpose| (purpose, transform(purpose))).into(),
            gallery: Gallery::new(),
            fusion: keyed.fusion,
        }
    }

    pub(crate) fn scan(
        &self,
        frames: &[Frame],
        purposes: PurposeSet,
    ) -> Result<Scanned, CaptureProblem> {
        let capture = self.capture(frames)?;
        let begun = Instant::now();
        let probes = self.of(purposes).map(|(purpose, by)| (*purpose, by.probe(&capture)));
        let probes = probes.collect();
        let timed = Timed { steps: capture.steps, protect: begun.elapsed() };
        Ok(Scanned { facts: facts(&[&capture]), probes, timed })
    }

    pub(crate) fn enrolment(&self, captures: &[HandCapture], purposes: PurposeSet) -> Enrolling {
        let mut worked: Vec<(Hand, Capture)> = Vec::with_capacity(captures.len());
        for (index, capture) in (0u8..).zip(captures) {
            let one = self.capture(&capture.frames);
            worked.push((capture.hand, one.map_err(|problem| (problem, index))?));
        }
        let (mut templates, mut probes) = (Vec::new(), Vec::new());
        for hand in [Hand::Left, Hand::Right] {
            let of_hand: Vec<&Capture> = worked
                .iter()
                .filter(|(which, _)| *which == hand)
                .map(|(_, capture)| capture)
                .collect();
            let Some(first) = of_hand.first() else { continue };
            let index = worked.iter().rposition(|(which, _)| *which == hand).unwrap_or(0);
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            for (purpose, by) in self.of(purposes) {
                let template = by.template(&of_hand).map_err(|problem| (problem, index))?;
                templates.push((*purpose, hand, template));
                probes.push((*purpose, by.probe(first)));
            }
        }
        let captures: Vec<&Capture> = worked.iter().map(|(_, capture)| capture).collect();
        Ok(Enrolled { facts: facts(&captures), templates, probes })
    }

    pub(crate) fn insert(&self, references: &[Reference]) -> Result<(), GalleryError> {
        Purpose::ALL.into_iter().try_for_each(|purpose| {
            let of = references.iter().filter(|reference| reference.purpose == purpose);
            let rows: Vec<_> = of.map(|each| (each.row, &each.template)).collect();
            if rows.is_empty() { Ok(()) } else { self.gallery.insert_all(purpose, &rows) }
        })
    }

    pub(crate) fn remove(&self, rows: &[RowId]) {
        for row in rows {
            self.gallery.remove(*row);
        }
    }

    pub(crate) fn identify(&self, probes: &[(Purpose, Probe)]) -> Vec<Candidate> {
        let identify = |(purpose, probe): &(Purpose, Probe)| {
            self.gallery.identify(*purpose, probe, &self.fusion)
        };
        probes.iter().flat_map(identify).collect()
    }

    fn of(&self, purposes: PurposeSet) -> impl Iterator<Item = &(Purpose, Transform)> {
        self.transforms.iter().filter(move |(purpose, _)| purposes.contains(*purpose))
    }

    fn capture(&self, frames: &[Frame]) -> Result<Capture, CaptureProblem> {
        let too_large = |frame: &Frame| frame.picture.expose().len() > MAX_FRAME_BYTES;
        if frames.iter().any(too_large) {
            return Err(CaptureProblem::Unreadable);
        }
        self.extractor.capture(frames)
    }
}

fn facts(captures: &[&Capture]) -> CaptureFacts {
    let liveness = captures.iter().map(|capture| capture.liveness.score);
    CaptureFacts {
        liveness: liveness.fold(1.0, f32::min),
        multispectral: captures.iter().all(|capture| capture.liveness.multispectral),
    }
}
