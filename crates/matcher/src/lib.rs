//! Everything that parses pictures and searches open references, behind one seam: in the gateway's
//! own process ([`Matching`]), or in one of its own ([`serve`], `palmgate-matcher`) that has no
//! network, no disk, and no idea whose the rows are.
//!
//! The gateway is a client of a [`Matcher`] and cannot tell the two apart, but for
//! [`MatcherError::Lost`]: a process can die. What it held is gone then, and whoever opens it again
//! gives it every reference anew.
//!
//! The process speaks over a socket of the local machine ([`Remote`]): a length of four bytes, least
//! significant first, then one message in CBOR. Who may connect is the socket file's permissions.

mod arguments;
mod client;
mod matching;
mod models;
mod server;
mod wire;

pub use arguments::Arguments;
pub use client::Remote;
pub use matching::{CaptureFacts, Enrolled, Enrolling, Matching, Scanned, Timed};
pub use models::{Models, ModelsError, register};
pub use server::{MAX_CONNECTIONS, serve, standard_input};

use palmgate_gallery::{GalleryError, RowId};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Name, Probe, Purpose, PurposeSet, Secret, Template,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use std::{io, path::PathBuf, sync::Arc};

pub use palmgate_gallery::{Candidate, Fusion};

/// What a matcher works with, whichever process it is in.
pub struct Keyed {
    /// The tenant's key of protected templates (ISO/IEC 24745).
    pub key: Secret<[u8; 32]>,
    /// Whose key it is.
    pub tenant: Name,
    /// How embeddings and codes become one score.
    pub fusion: Fusion,
    /// SHA-256 of the models; templates of others say nothing about each other.
    pub models: [u8; 32],
}

/// One row to search: one hand of one person for one purpose.
pub struct Reference {
    /// Its number, which says nothing about the person.
    pub row: RowId,
    /// The compartment it is searched in.
    pub purpose: Purpose,
    /// The protected reference.
    pub template: Template,
}

/// Pictures to protected templates, and the search among references.
pub enum Matcher {
    /// In this process.
    Inside(Matching),
    /// In a process of its own.
    Process(Remote),
}

/// The matcher did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MatcherError {
    /// The process is not there, or went away; it holds no reference any more.
    #[error("the matcher at {} is gone: {cause}; systemctl status palmgate-matcher says why", path.display())]
    Lost {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The process does not answer in time: it is busy, still reading its models, or stopped. What it
    /// holds is given up.
    #[error("the matcher at {} did not answer in time; systemctl status palmgate-matcher says what it does", path.display())]
    Late {
        /// Its socket.
        path: PathBuf,
    },
    /// The process answered with something else than what was asked: another version.
    #[error("the matcher at {} speaks another version or has other models: install gateway and matcher of one version, and start palmgate-matcher anew", path.display())]
    Version {
        /// Its socket.
        path: PathBuf,
    },
    /// A reference was not taken in.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// A reference was not taken in, in the process's words.
    #[error("{0}")]
    Refused(String),
}

impl MatcherError {
    /// A wait that ran out is told apart from a connection that broke.
    fn of(path: PathBuf, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late { path },
            _ => Self::Lost { path, cause },
        }
    }

    /// Whether the matcher must be opened anew, with every reference.
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Late { .. } | Self::Version { .. })
    }
}

/// To whom a thread's pictures give way.
#[derive(Clone, Copy)]
pub enum Way {
    /// To what terminals send: reading it takes little, and whose turn it is can only be told of what
    /// was read.
    Traffic,
    /// To everything, other pictures among it.
    Everybody,
}

impl Way {
    /// As `nice(2)` counts.
    const fn niceness(self) -> i32 {
        match self {
            Self::Traffic => 5,
            Self::Everybody => 19,
        }
    }
}

impl Matcher {
    /// Has the calling thread's pictures give way. In a process of its own all do as the unit says.
    pub fn give_way(&self, way: Way) {
        if let Self::Inside(_) = self {
            // On Linux this is about one thread. Refused, everything goes on as before.
            let _ = rustix::process::nice(way.niceness());
        }
    }

    /// One in this process.
    pub fn inside(extractor: Extractor, keyed: &Keyed) -> Self {
        Self::Inside(Matching::new(Arc::new(extractor), keyed))
    }

    /// The one that listens at `socket`, without any reference.
    ///
    /// # Errors
    /// [`MatcherError`] when nobody listens there, or somebody else.
    pub fn process(socket: PathBuf, keyed: &Keyed) -> Result<Self, MatcherError> {
        Remote::open(socket, keyed).map(Self::Process)
    }

    /// One hand's frames to probes, one for each purpose.
    ///
    /// # Errors
    /// [`MatcherError`]; a picture that cannot be used is no error of the matcher.
    pub fn scan(
        &self,
        frames: Vec<Frame>,
        purposes: PurposeSet,
    ) -> Result<Result<Scanned, CaptureProblem>, MatcherError> {
        match self {
            Self::Inside(matching) => Ok(matching.scan(&frames, purposes)),
            Self::Process(remote) => remote.scan(frames, purposes),
        }
    }

    /// An enrolment's captures to references, and to the probes that a duplicate would answer to.
    ///
    /// # Errors
    /// [`MatcherError`]; a capture that cannot be used is no error of the matcher.
    pub fn enrolment(
        &self,
        captures: Vec<HandCapture>,
        purposes: PurposeSet,
    ) -> Result<Enrolling, MatcherError> {
        match self {
            Self::Inside(matching) => Ok(matching.enrolment(&captures, purposes)),
            Self::Process(remote) => remote.enrolment(captures, purposes),
        }
    }

    /// Takes references in, each under a new row.
    ///
    /// # Errors
    /// [`MatcherError`]; some of them may be in then.
    pub fn insert(&self, references: &[Reference]) -> Result<(), MatcherError> {
        match self {
            Self::Inside(matching) => Ok(matching.insert(references)?),
            Self::Process(remote) => remote.insert(references),
        }
    }

    /// Wipes rows: no search that begins afterwards finds them.
    ///
    /// # Errors
    /// [`MatcherError::Lost`]: they are gone with the process.
    pub fn remove(&self, rows: &[RowId]) -> Result<(), MatcherError> {
        match self {
            Self::Inside(matching) => {
                matching.remove(rows);
                Ok(())
            }
            Self::Process(remote) => remote.remove(rows),
        }
    }

    /// Searches the compartment of each probe; each one's best candidates, best first.
    ///
    /// # Errors
    /// [`MatcherError`]: whether the person is there is not known then.
    pub fn identify(&self, probes: &[(Purpose, Probe)]) -> Result<Vec<Candidate>, MatcherError> {
        match self {
            Self::Inside(matching) => Ok(matching.identify(probes)),
            Self::Process(remote) => remote.identify(probes),
        }
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// [`MatcherError`] when it is not.
    pub fn ping(&self) -> Result<(), MatcherError> {
        self.remove(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::net::UnixStream, time::Duration};

    #[test]
    fn a_wait_that_ran_out_is_no_matcher_that_is_gone() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let told = |cause| MatcherError::of(PathBuf::from("socket"), cause);
        let late = told(ours.read_exact(&mut [0]).unwrap_err());
        assert!(matches!(late, MatcherError::Late { .. }), "{late}");
        drop(theirs);
        let lost = told(ours.read_exact(&mut [0]).unwrap_err());
        assert!(matches!(lost, MatcherError::Lost { .. }), "{lost}");
        assert!(late.is_lost() && lost.is_lost());
    }
}
