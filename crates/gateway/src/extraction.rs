//! Pictures to protected templates on worker threads behind a bounded queue.

mod queue;

use crate::{pressure::Pressure, references::References};
use palmgate_matcher::{CaptureFacts, Enrolled, MatcherError, Scanned, Way};
use palmgate_policy::Ticket;
use palmgate_protocol::{
    Name, PurposeSet,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use queue::{Entry, For, Next, Queue};
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
    /// And how long the pictures waited for a thread.
    Scan(Ticket, Result<(Scanned, Duration), CaptureProblem>),
    Enrolment(Ticket, Result<Enrolled, (CaptureProblem, u8)>),
    /// Its turn did not come while its frames might live.
    Shed(Ticket),
    /// The matcher's process is gone: nothing is known of the pictures.
    Lost(Ticket),
}

/// What the policy may know.
pub(crate) const fn facts(facts: CaptureFacts) -> palmgate_policy::CaptureFacts {
    palmgate_policy::CaptureFacts { liveness: facts.liveness, multispectral: facts.multispectral }
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

impl Workers {
    /// Starts `count` threads that work for people, and half as many, one at least, for terminals that
    /// flood: these leave a processor to the others, and give way to them on theirs. They end when the
    /// last copy of the answer is gone.
    pub(crate) fn start(
        references: &Arc<References>,
        count: usize,
        (queue_length, pressure): (usize, Pressure),
        done: impl Fn(Worked) -> bool + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(queue_length, pressure));
        let open = Arc::new(Open(Arc::clone(&queue)));
        let people = (0..count).map(|number| (For::People, number));
        let floods = (0..count.div_ceil(2)).map(|number| (For::Floods, number));
        for (kind, number) in people.chain(floods) {
            let references = Arc::clone(references);
            let (queue, done) = (Arc::clone(&queue), done.clone());
            let name = match kind {
                For::People => format!("extract-{number}"),
                For::Floods => format!("floods-{number}"),
            };
            thread::Builder::new().name(name).spawn(move || {
                references.matcher().give_way(match kind {
                    For::People => Way::Traffic,
                    For::Floods => Way::Everybody,
                });
                loop {
                    let worked = match queue.next(kind) {
                        Next::Work(job) => work(&references, job),
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

fn work(references: &References, job: Job) -> Worked {
    let matcher = references.matcher();
    match job {
        Job::Scan { ticket, frames, purposes, queued } => {
            let waited = queued.elapsed();
            let scanned = matcher.scan(frames, purposes);
            worked(ticket, scanned, |scanned| {
                Worked::Scan(ticket, scanned.map(|scanned| (scanned, waited)))
            })
        }
        Job::Enrolment { ticket, captures, purposes } => {
            let enrolled = matcher.enrolment(captures, purposes);
            worked(ticket, enrolled, |enrolled| Worked::Enrolment(ticket, enrolled))
        }
    }
}

fn worked<T>(
    ticket: Ticket,
    result: Result<T, MatcherError>,
    done: impl FnOnce(T) -> Worked,
) -> Worked {
    match result {
        Ok(result) => done(result),
        Err(error) => {
            tracing::warn!(%error, "pictures were not looked at");
            Worked::Lost(ticket)
        }
    }
}
