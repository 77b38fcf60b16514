//! The store's MQTT side: one connection to the broker, one MLS session for each terminal.
//!
//! The broker is trusted for nothing: who a message is from and what it says is decided by MLS.

mod challenges;
mod client;
mod conversation;
mod joins;
#[cfg(test)]
mod tests;

use crate::terminals::CurrentRoster;
pub use challenges::Freshness;
pub(crate) use client::{Fabric, FabricOptions};
use palmgate_protocol::{
    MemberId, Name,
    terminal::{Answer, Request},
};
use palmgate_seal::pki::Identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that a terminal's session opened.
pub(crate) struct Inbound {
    pub(crate) terminal: Name,
    pub(crate) request: Request,
    pub(crate) arrived: Instant,
    /// How long it took to open.
    pub(crate) open: Duration,
}

/// An answer on its way; the times spent on it come back through `sent`.
pub(crate) struct Outbound {
    pub(crate) answer: Answer,
    /// Whom it says something of.
    pub(crate) about: Option<MemberId>,
    pub(crate) sent: tokio::sync::oneshot::Sender<Sent>,
}

/// How long the last steps of an answer took.
pub(crate) struct Sent {
    pub(crate) seal: Duration,
    pub(crate) publish: Duration,
}

/// Who may have a session, and as whom the gateway takes part in it.
pub(crate) trait Admission: Send + Sync {
    /// The gateway's own identity as it is now.
    fn own(&self) -> Arc<Identity>;
    /// Whether the terminal may use the certificate with this serial number: a broker of somebody
    /// else may know of a revocation late, or never.
    fn holds(&self, terminal: &Name, serial: &[u8]) -> bool;
    /// Takes note of the SHA-256 of that certificate. May block on the disk.
    fn learn(&self, terminal: &Name, serial: &[u8], certificate: [u8; 32]);
    /// Who has sessions in the store.
    fn roster(&self) -> Option<Arc<CurrentRoster>>;
}

impl Admission for crate::terminals::Terminals {
    fn own(&self) -> Arc<Identity> {
        Self::own(self)
    }

    fn holds(&self, terminal: &Name, serial: &[u8]) -> bool {
        Self::holds(self, terminal, serial)
    }

    fn learn(&self, terminal: &Name, serial: &[u8], certificate: [u8; 32]) {
        Self::learn(self, terminal, serial, certificate);
    }

    fn roster(&self) -> Option<Arc<CurrentRoster>> {
        Self::roster(self)
    }
}
