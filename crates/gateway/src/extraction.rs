//! Pictures to protected templates on worker threads behind a bounded queue.

use crate::references::References;
use palmgate_matcher::{CaptureFacts, Enrolled, MatcherError, Scanned};
use palmgate_policy::Ticket;
use palmgate_protocol::{
    PurposeSet,
    terminal::{CaptureProblem, Frame, HandCapture},
};
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

/// What became of them.
pub(crate) enum Worked {
    /// And how long the pictures waited for a thread.
    Scan(Ticket, Result<(Scanned, Duration), CaptureProblem>),
    Enrolment(Ticket, Result<Enrolled, (CaptureProblem, u8)>),
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
    queue: flume::Sender<Job>,
}

impl Workers {
    /// Starts `count` threads; they end when the last sender is gone.
    pub(crate) fn start(
        references: &Arc<References>,
        count: usize,
        queue_length: usize,
        done: impl Fn(Worked) -> bool + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = flume::bounded::<Job>(queue_length);
        for number in 0..count {
            let references = Arc::clone(references);
            let (jobs, done) = (jobs.clone(), done.clone());
            thread::Builder::new().name(format!("extract-{number}")).spawn(move || {
                while let Ok(job) = jobs.recv() {
                    if !done(work(&references, job)) {
                        break;
                    }
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Queues a job; gives it back when the queue is full.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        self.queue.try_send(job).map_err(flume::TrySendError::into_inner)
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
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
