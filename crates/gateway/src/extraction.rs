//! Pictures to protected templates on worker threads behind a bounded queue.

mod queue;

use palmgate_palm::{Capture, Extractor, Steps, Transform};
use palmgate_policy::{CaptureFacts, Ticket};
use palmgate_protocol::{
    Hand, Name, Probe, Purpose, PurposeSet, Secret, Template,
    limits::MAX_FRAME_BYTES,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use queue::{Entry, Next, Queue};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// One request's pictures.
pub(crate) enum Job {
    Scan { ticket: Ticket, frames: Vec<Frame>, purposes: PurposeSet, queued: Instant },
    Enrolment { ticket: Ticket, captures: Vec<HandCapture>, purposes: PurposeSet },
}

impl Job {
    /// The request.
    pub(crate) const fn ticket(&self) -> Ticket {
        match self {
            Self::Scan { ticket, .. } | Self::Enrolment { ticket, .. } => *ticket,
        }
    }

    fn weight(&self) -> u8 {
        match self {
            Self::Scan { .. } => 1,
            Self::Enrolment { captures, .. } => u8::try_from(captures.len()).unwrap_or(u8::MAX),
        }
    }
}

/// What became of them.
pub(crate) enum Worked {
    Scan(Ticket, Result<ScanWorked, CaptureProblem>),
    Enrolment(Ticket, Result<EnrolmentWorked, (CaptureProblem, u8)>),
    /// Its turn did not come while its frames might live.
    Shed(Ticket),
}

/// A scan's probes.
pub(crate) struct ScanWorked {
    pub(crate) facts: CaptureFacts,
    pub(crate) probes: Vec<(Purpose, Probe)>,
    pub(crate) steps: Steps,
    pub(crate) waited: Duration,
    pub(crate) protect: Duration,
}

/// An enrolment's templates, and the probes that a duplicate would answer to.
pub(crate) struct EnrolmentWorked {
    pub(crate) facts: CaptureFacts,
    pub(crate) templates: Vec<(Purpose, Hand, Template)>,
    pub(crate) probes: Vec<(Purpose, Probe)>,
}

/// The queue to the workers.
#[derive(Clone)]
pub(crate) struct Workers {
    queue: Arc<Open>,
}

/// Closes the queue when the last who could fill it is gone.
struct Open(Arc<Queue<Job>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Worker {
    extractor: Arc<Extractor>,
    transforms: Arc<Vec<(Purpose, Transform)>>,
}

impl Workers {
    /// Starts `count` threads; they end when the last copy of the answer is gone.
    pub(crate) fn start(
        extractor: Extractor,
        key: &Secret<[u8; 32]>,
        tenant: &Name,
        count: usize,
        queue_length: usize,
        done: impl Fn(Worked) -> bool + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let transforms = Purpose::MATCHED
            .into_iter()
            .map(|purpose| (purpose, Transform::derive(key, tenant, purpose)))
            .collect();
        let (extractor, transforms) = (Arc::new(extractor), Arc::new(transforms));
        let queue = Arc::new(Queue::new(queue_length));
        let open = Arc::new(Open(Arc::clone(&queue)));
        for number in 0..count {
            let worker =
                Worker { extractor: extractor.clone(), transforms: Arc::clone(&transforms) };
            let (queue, done) = (Arc::clone(&queue), done.clone());
            thread::Builder::new().name(format!("extract-{number}")).spawn(move || {
                loop {
                    let worked = match queue.next() {
                        Next::Work(job) => worker.work(job),
                        Next::TooLate(job) => Worked::Shed(job.ticket()),
                        Next::Closed => return,
                    };
                    if !done(worked) {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { queue: open })
    }

    /// Queues a job of `terminal`; a `right` comes before every scan. When the queue is full one
    /// job comes back, this one or another: its request is to be answered `busy`.
    pub(crate) fn submit(&self, job: Job, terminal: Name, right: bool) -> Result<(), Job> {
        let weight = job.weight();
        self.queue.0.put(Entry { job, terminal, right, weight }, Instant::now())
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.0.len()
    }
}

impl Worker {
    fn work(&self, job: Job) -> Worked {
        match job {
            Job::Scan { ticket, frames, purposes, queued } => {
                let waited = queued.elapsed();
                Worked::Scan(ticket, self.scan(&frames, purposes, waited))
            }
            Job::Enrolment { ticket, captures, purposes } => {
                Worked::Enrolment(ticket, self.enrolment(&captures, purposes))
            }
        }
    }

    fn scan(
        &self,
        frames: &[Frame],
        purposes: PurposeSet,
        waited: Duration,
    ) -> Result<ScanWorked, CaptureProblem> {
        let capture = self.capture(frames)?;
        let begun = Instant::now();
        let transforms = self.transforms.iter().filter(|(purpose, _)| purposes.contains(*purpose));
        let probes = transforms.map(|(purpose, by)| (*purpose, by.probe(&capture))).collect();
        Ok(ScanWorked {
            facts: facts(&[&capture]),
            probes,
            steps: capture.steps,
            waited,
            protect: begun.elapsed(),
        })
    }

    fn capture(&self, frames: &[Frame]) -> Result<Capture, CaptureProblem> {
        let too_large = |frame: &Frame| frame.picture.expose().len() > MAX_FRAME_BYTES;
        if frames.iter().any(too_large) {
            return Err(CaptureProblem::Unreadable);
        }
        self.extractor.capture(frames)
    }

    fn enrolment(
        &self,
        captures: &[HandCapture],
        purposes: PurposeSet,
    ) -> Result<EnrolmentWorked, (CaptureProblem, u8)> {
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
            for (purpose, by) in self.transforms.iter().filter(|(p, _)| purposes.contains(*p)) {
                let template = by.template(&of_hand).map_err(|problem| (problem, index))?;
                templates.push((*purpose, hand, template));
                probes.push((*purpose, by.probe(first)));
            }
        }
        let captures: Vec<&Capture> = worked.iter().map(|(_, capture)| capture).collect();
        Ok(EnrolmentWorked { facts: facts(&captures), templates, probes })
    }
}

fn facts(captures: &[&Capture]) -> CaptureFacts {
    let liveness = captures.iter().map(|capture| capture.liveness.score);
    CaptureFacts {
        liveness: liveness.fold(1.0, f32::min),
        multispectral: captures.iter().all(|capture| capture.liveness.multispectral),
    }
}
