//! A matcher in a process of its own, as the gateway sees it.

use crate::{
    Enrolled, Enrolling, Keyed, MatcherError, Reference, Scanned,
    wire::{self, Asked, Opening, Protected, Row, Told, VERSION},
};
use palmgate_gallery::{Candidate, RowId};
use palmgate_protocol::{
    Hand, Probe, Purpose, PurposeSet, Secret, Template,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use std::{
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Longest wait for what becomes of pictures: two hands on a busy machine take seconds.
const PICTURES: Duration = Duration::from_secs(30);
/// Longest wait for a process that systemd starts when it is asked the first time, which has its models
/// to read and to try. A unit may take 90 seconds to start, the gateway's own work included.
const OPENING: Duration = Duration::from_mins(1);
/// Longest wait for everything else, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections to the process. References come and go over one of them, whose end is the end of
/// all of them; pictures and probes use as many others as there are threads.
pub struct Remote {
    path: PathBuf,
    session: u64,
    own: Mutex<UnixStream>,
    idle: Mutex<Vec<UnixStream>>,
}

impl Remote {
    pub(crate) fn open(path: PathBuf, keyed: &Keyed) -> Result<Self, MatcherError> {
        let opening = Opening {
            version: VERSION,
            tenant: keyed.tenant.to_string(),
            key: Secret::new(keyed.key.expose().to_vec()),
            weights: (keyed.fusion.embedding_weight, keyed.fusion.code_weight),
            shortlist: u32::try_from(keyed.fusion.shortlist).unwrap_or(u32::MAX),
            models: keyed.models,
        };
        let asked = connect(&path).and_then(|own| {
            let told = ask(&own, &Asked::Open(opening))?;
            Ok((own, told))
        });
        match asked {
            Ok((own, Told::Opened(session))) => {
                Ok(Self { path, session, own: Mutex::new(own), idle: Mutex::default() })
            }
            Ok(_) => Err(MatcherError::Version { path }),
            Err(cause) => Err(MatcherError::of(path, cause)),
        }
    }

    pub(crate) fn scan(
        &self,
        frames: Vec<Frame>,
        purposes: PurposeSet,
    ) -> Result<Result<Scanned, CaptureProblem>, MatcherError> {
        match self.work(&Asked::Scan(frames, purposes))? {
            Told::Scanned(facts, probes, times) => {
                let probes = self.probes(&probes)?;
                Ok(Ok(Scanned { facts: facts.into(), probes, timed: times.into() }))
            }
            Told::Problem(problem, _) => Ok(Err(problem)),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(crate) fn enrolment(
        &self,
        captures: Vec<HandCapture>,
        purposes: PurposeSet,
    ) -> Result<Enrolling, MatcherError> {
        match self.work(&Asked::Enrolment(captures, purposes))? {
            Told::Enrolled(facts, templates, probes) => {
                let template = |one: &wire::Enrolment| {
                    let (purpose, template) = one.template.to_template()?;
                    Some((purpose, one.hand, template))
                };
                let templates: Option<Vec<(Purpose, Hand, Template)>> =
                    templates.iter().map(template).collect();
                let templates = templates.ok_or_else(|| self.version())?;
                let probes = self.probes(&probes)?;
                Ok(Ok(Enrolled { facts: facts.into(), templates, probes }))
            }
            Told::Problem(problem, index) => Ok(Err((problem, index))),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(crate) fn insert(&self, references: &[Reference]) -> Result<(), MatcherError> {
        for some in references.chunks(wire::MAX_REFERENCES) {
            let row = |reference: &Reference| Row {
                row: reference.row.0,
                template: Protected::template(reference.purpose, &reference.template),
            };
            self.change(&Asked::Insert(some.iter().map(row).collect()))?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self, rows: &[RowId]) -> Result<(), MatcherError> {
        self.change(&Asked::Remove(rows.iter().map(|row| row.0).collect()))
    }

    pub(crate) fn identify(
        &self,
        probes: &[(Purpose, Probe)],
    ) -> Result<Vec<Candidate>, MatcherError> {
        match self.work(&Asked::Identify(probes.iter().map(Protected::probe).collect()))? {
            Told::Candidates(found) => Ok(found.into_iter().map(wire::candidate).collect()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn change(&self, asked: &Asked) -> Result<(), MatcherError> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(&own, asked).map_err(|cause| self.lost(cause))? {
            Told::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// On a connection that nobody else uses meanwhile. One that failed is not used again.
    fn work(&self, asked: &Asked) -> Result<Told, MatcherError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let told = idle.map_or_else(|| self.join(), Ok).and_then(|connection| {
            let told = ask(&connection, asked)?;
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(told)
        });
        told.map_err(|cause| self.lost(cause))
    }

    fn join(&self) -> io::Result<UnixStream> {
        let connection = connect(&self.path)?;
        match ask(&connection, &Asked::Join(self.session))? {
            Told::Opened(_) => Ok(connection),
            _ => Err(io::Error::other("it was started anew")),
        }
    }

    fn probes(&self, probes: &[Protected]) -> Result<Vec<(Purpose, Probe)>, MatcherError> {
        let probes: Option<Vec<_>> = probes.iter().map(Protected::to_probe).collect();
        probes.ok_or_else(|| self.version())
    }

    fn lost(&self, cause: io::Error) -> MatcherError {
        MatcherError::of(self.path.clone(), cause)
    }

    fn version(&self) -> MatcherError {
        MatcherError::Version { path: self.path.clone() }
    }

    fn unexpected(&self, told: &Told) -> MatcherError {
        match told {
            Told::Refused(why) => MatcherError::Refused(why.clone()),
            _ => self.version(),
        }
    }
}

fn connect(path: &PathBuf) -> io::Result<UnixStream> {
    let connection = UnixStream::connect(path)?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn ask(connection: &UnixStream, asked: &Asked) -> io::Result<Told> {
    let patience = match asked {
        Asked::Open(..) => OPENING,
        Asked::Scan(..) | Asked::Enrolment(..) => PICTURES,
        _ => PATIENCE,
    };
    connection.set_read_timeout(Some(patience))?;
    wire::send(connection, asked)?;
    wire::receive(connection)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
