use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Who has to act when a connection is refused or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody who did not prove to be one of our terminals: normal noise on a network.
    Stranger,
    /// The software or the settings of the named terminal.
    Terminal,
    /// The network between the terminal and this box.
    Network,
    /// This box.
    Broker,
    /// Nobody: this is how connections end.
    Nobody,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $fault:ident, $label:literal, $text:literal;)*) => {
        /// Why a connection was refused or has ended, or why a subscription was refused. The set
        /// is closed: each reason is one value of a metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault),* }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text),* })
            }
        }
    };
}

reasons! {
    /// No finished handshake within the deadline.
    HandshakeTimeout = Stranger, "handshake-timeout", "the TLS handshake was not finished in time";
    /// Too many unfinished handshakes: the oldest gave way.
    CrowdedOut = Stranger, "crowded-out", "too many connections were waiting; the oldest gave way";
    /// The handshake failed for another reason than the certificate.
    HandshakeFailed = Stranger, "handshake-failed", "the TLS handshake failed";
    /// The client showed no certificate.
    CertificateMissing = Stranger, "certificate-missing", "no certificate was shown";
    /// The certificate is on the revocation list.
    CertificateRevoked = Stranger, "certificate-revoked", "the certificate is revoked";
    /// The certificate is past its end, before or during the connection.
    CertificateExpired = Terminal, "certificate-expired", "the certificate has expired: renew it";
    /// Another authority signed the certificate, or it is no client certificate.
    CertificateForeign = Stranger, "certificate-foreign", "the certificate is not from this store";
    /// The certificate's common name is not one name of a terminal.
    CertificateName = Stranger, "certificate-name", "the certificate carries no usable name";
    /// No CONNECT within the deadline.
    ConnectTimeout = Terminal, "connect-timeout", "CONNECT did not arrive in time";
    /// The first packet was something else.
    NotConnect = Terminal, "not-connect", "the first packet is not an MQTT 3.1.1 CONNECT";
    /// The client identifier is not the certificate's common name.
    ClientId = Terminal, "client-id", "the client id differs from the name in the certificate";
    /// CONNECT carries a will.
    Will = Terminal, "will", "wills are not allowed";
    /// CONNECT switches the keep-alive off, or asks for too long a one.
    KeepAlive = Terminal, "keep-alive", "the keep-alive is off or out of bounds";
    /// As many clients as the limit allows.
    TooManyClients = Broker, "too-many-clients", "the limit of connected terminals is reached";
    /// As many clients from one address as the limit allows.
    TooManyFromAddress = Terminal, "too-many-from-address", "too many connections from one address";
    /// The session that the same certificate has already did not end in time.
    Busy = Broker, "busy", "the older session of this terminal did not end in time";
    /// The TLS configuration changed after the handshake, maybe by a revocation.
    Outdated = Nobody, "outdated", "certificates changed meanwhile; it has to connect anew";
    /// Not MQTT 3.1.1.
    Malformed = Terminal, "malformed", "a packet is malformed";
    /// A packet that a client may not send, or not at this point.
    Unexpected = Terminal, "unexpected", "a packet is not allowed at this point";
    /// A payload or packet over the limit.
    TooLarge = Terminal, "too-large", "a packet is over the size limit";
    /// A PUBLISH to a topic of somebody else.
    Topic = Terminal, "topic", "publishing to this topic is not allowed";
    /// A SUBSCRIBE to a topic of somebody else; the connection stays.
    Filter = Terminal, "filter", "subscribing to this filter is not allowed";
    /// A PUBLISH with the retain flag.
    Retain = Terminal, "retain", "retained messages are not allowed";
    /// A PUBLISH with quality of service 2.
    QosTwo = Terminal, "qos-2", "QoS 2 is not supported";
    /// Nothing arrived for one and a half times the keep-alive.
    Silent = Network, "silent", "nothing arrived within the keep-alive";
    /// The client does not take what is sent to it.
    SlowReader = Network, "slow-reader", "the terminal takes its messages too slowly";
    /// The connection broke.
    Lost = Network, "lost", "the connection was lost";
    /// The same certificate connected anew.
    Displaced = Nobody, "displaced", "a newer connection took its place";
    /// [`super::Broker::disconnect`] was called.
    Removed = Nobody, "removed", "it was disconnected from this side";
    /// The client said goodbye.
    Left = Nobody, "left", "the terminal disconnected";
    /// The broker stops.
    Shutdown = Nobody, "shutdown", "the broker is stopping";
    /// The router behind the door has failed and was replaced.
    RouterLost = Broker, "router-lost", "the message router failed and was started anew";
}

/// What the broker has seen since it started; every counter exists from the start.
#[derive(Debug)]
pub struct Counters {
    accepted: AtomicU64,
    held_back: AtomicU64,
    ended: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
            ended: [const { AtomicU64::new(0) }; _],
        }
    }

    /// Connections that passed the door.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Messages of terminals over their pace, after which they were read more slowly.
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Relaxed)
    }

    /// Connections refused or ended, and subscriptions refused, for one reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.ended[reason as usize].load(Relaxed)
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn hold_back(&self) {
        self.held_back.fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self, reason: Reason) {
        self.ended[reason as usize].fetch_add(1, Relaxed);
    }
}
