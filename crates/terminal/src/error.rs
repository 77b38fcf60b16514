use crate::RosterFault;
use std::{io, path::PathBuf, time::Duration};

/// What went wrong, whose fault it is and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The caller gave an address that is none.
    #[error("{given:?} is not a gateway's address: {why}. Write it as https://box.store.example")]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The caller chose the name that only the gateway has.
    #[error("a terminal cannot be called {0:?}: choose another name")]
    ReservedName(String),
    /// The state directory belongs to a paired terminal already.
    #[error("{0} holds a paired terminal: use another directory, or delete it to pair anew")]
    AlreadyPaired(PathBuf),
    /// The state directory holds no paired terminal.
    #[error("{0} holds no paired terminal: pair it first")]
    NotPaired(PathBuf),
    /// Another process has the state directory open.
    #[error("{0} is in use by another process: stop that one first")]
    InUse(PathBuf),
    /// Others on this machine could read the terminal's key.
    #[error("{path} may be read by others (mode {mode:03o}): run chmod {wanted:03o} {path}")]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The widest permissions that are accepted.
        wanted: u32,
    },
    /// The terminal's own disk failed.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in the state directory is damaged.
    #[error("{path} is damaged: {why}. Delete the directory and pair the terminal again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody pairs at this address, or the network is at fault.
    #[error(
        "no answer from {host}:{port}: {why}. Check the network, the address and the port, and \
         that the box is on and open for pairing"
    )]
    Unreachable {
        /// Host that was tried.
        host: String,
        /// TCP port that was tried.
        port: u16,
        /// What the system said.
        why: String,
    },
    /// Who answers is not the gateway that issued the pairing code; it learned nothing.
    #[error(
        "{host}:{port} is not the gateway that issued this pairing code ({why}). Check the code \
         and the address; the code's secret was not sent"
    )]
    NotTheGateway {
        /// Host that was tried.
        host: String,
        /// TCP port that was tried.
        port: u16,
        /// What the handshake found.
        why: String,
    },
    /// The gateway refused to pair: the code is wrong, used or expired, or the name is taken.
    #[error("the gateway refused to pair: {title}{} (HTTP {status})", .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    PairingRefused {
        /// HTTP status.
        status: u16,
        /// `title` of the problem (RFC 9457).
        title: String,
        /// `detail` of the problem (RFC 9457).
        detail: Option<String>,
    },
    /// The gateway's answer makes no sense to this version.
    #[error("the gateway's answer is not understood: {0}. Update the older of the two")]
    Incompatible(String),
    /// The network or the broker is at fault; the terminal keeps trying by itself.
    #[error(transparent)]
    Offline(#[from] Trouble),
    /// The broker is there, but the gateway has not let the terminal in.
    #[error(
        "the gateway has not admitted this terminal for {} ms: check on the box that palmgated \
         runs and that the terminal was not removed", .0.as_millis()
    )]
    NotAdmitted(Duration),
    /// The gateway is overloaded and decided nothing: use another way.
    #[error("the gateway is busy and decided nothing: use another way")]
    Busy,
    /// The gateway did not answer in time. It may have decided; ask for a new act, not this one.
    #[error("no answer from the gateway within {} ms: use another way", .0.as_millis())]
    TooLate(Duration),
    /// The caller asks faster than answers come.
    #[error("{0} requests wait for an answer already: ask again when one is answered")]
    TooMany(usize),
    /// The caller's request is over a limit and was not sent.
    #[error("{what} is {is}, the limit is {limit}: nothing was sent")]
    OverLimit {
        /// What is too large or too many.
        what: &'static str,
        /// How large or how many.
        is: usize,
        /// The limit.
        limit: usize,
    },
    /// The store's roster does not hold, so that somebody might listen: no picture was sent.
    #[error(
        "the store's list of terminals does not hold: {0}. No picture was sent; compare the list \
         with `palmgate terminal list` on the box"
    )]
    Roster(RosterFault),
    /// The terminal's cryptographic state failed: a defect of this library or its key.
    #[error("the terminal's keys cannot be used: {0}. Pair the terminal again and report this")]
    Keys(String),
    /// The terminal's task ended, because the runtime did.
    #[error("the terminal was shut down")]
    Closed,
}

impl TerminalError {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// The label used in reports and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Address { .. } | Self::ReservedName(_) | Self::OverLimit { .. } => "misuse",
            Self::AlreadyPaired(_)
            | Self::NotPaired(_)
            | Self::InUse(_)
            | Self::Exposed { .. }
            | Self::File { .. }
            | Self::Damaged { .. } => "state-directory",
            Self::Unreachable { .. } | Self::Offline(_) => "offline",
            Self::NotTheGateway { .. } => "not-the-gateway",
            Self::PairingRefused { .. } => "pairing-refused",
            Self::Incompatible(_) => "incompatible",
            Self::NotAdmitted(_) => "not-admitted",
            Self::Busy => "busy",
            Self::TooLate(_) => "too-late",
            Self::TooMany(_) => "too-many",
            Self::Roster(_) => "roster",
            Self::Keys(_) => "keys",
            Self::Closed => "closed",
        }
    }
}

/// Why there is no connection to the broker. Kept while the terminal tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection, or it broke.
    #[error(
        "no connection to the broker at {host}:{port}: {why}. Check the network, and that the box \
         is on"
    )]
    Unreachable {
        /// Host of the broker.
        host: String,
        /// TCP port of the broker.
        port: u16,
        /// What the system said.
        why: String,
    },
    /// Who answers has no certificate of this store for this address.
    #[error(
        "{host}:{port} is not this store's broker: {why}. Check what answers at this address, and \
         this terminal's clock"
    )]
    NotOurBroker {
        /// Host of the broker.
        host: String,
        /// TCP port of the broker.
        port: u16,
        /// What the handshake found.
        why: String,
    },
    /// The broker does not take this terminal's certificate.
    #[error(
        "the broker at {host}:{port} refused this terminal's certificate: {why}. If the terminal \
         was removed or its certificate ended, pair it again"
    )]
    CertificateRefused {
        /// Host of the broker.
        host: String,
        /// TCP port of the broker.
        port: u16,
        /// What the broker said.
        why: String,
    },
    /// The broker does not take this terminal's name or topics.
    #[error(
        "the broker at {host}:{port} refused this terminal: {why}. Check the broker's access rules"
    )]
    Refused {
        /// Host of the broker.
        host: String,
        /// TCP port of the broker.
        port: u16,
        /// What the broker said.
        why: String,
    },
}
