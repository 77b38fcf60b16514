//! The embedded MQTT 3.1.1 broker: rumqttd's router and codec behind a front door of our own.
//!
//! The door does mutual TLS 1.3 with deadlines, takes the client's name from its certificate, and
//! holds every CONNECT, PUBLISH and SUBSCRIBE against [`palmgate_protocol::topic`] before the
//! router sees it. The broker is not trusted with content: that is end-to-end encrypted.

mod clients;
mod collector;
mod door;
mod hub;
mod pace;
mod packets;
mod porch;
mod reason;
mod rules;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use collector::BrokerCollector;
pub(crate) use pace::Pace;
pub use reason::{Counters, Fault, Reason};

use crate::pressure::Pressure;
use clients::Clients;
use door::Shared;
use hub::Hub;
use palmgate_protocol::{Name, limits::MAX_PAYLOAD_BYTES};
use porch::Porch;
use rustls::ServerConfig;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

/// Every bound of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connected terminals; the gateway itself comes on top.
    pub clients: usize,
    /// Connected terminals behind one address.
    pub clients_per_address: usize,
    /// Connections that have not sent CONNECT yet. One more costs the oldest its place.
    pub handshakes: usize,
    /// The same, from one address.
    pub handshakes_per_address: usize,
    /// For the TLS handshake.
    pub handshake_deadline: Duration,
    /// From the handshake to CONNECT.
    pub connect_deadline: Duration,
    /// Shortest keep-alive that a client may ask for; 0 (none) is always refused.
    pub keep_alive_min: Duration,
    /// Longest keep-alive that a client may ask for.
    pub keep_alive_max: Duration,
    /// For writing one batch (64 KiB, or one message) to a client.
    pub write_deadline: Duration,
    /// Sustained pace of one terminal's messages; above it, the terminal is read more slowly.
    pub bytes_per_second: u32,
    /// Bytes that a terminal may send at once before the pace counts.
    pub burst_bytes: u32,
    /// Sustained number of one terminal's messages; above it, the terminal is read more slowly.
    pub messages_per_second: u32,
    /// Messages that a terminal may send at once before that counts.
    pub burst_messages: u32,
    /// Memory for messages of all terminals that wait for the gateway; when it is used up the
    /// oldest are dropped. At least two messages of the largest size.
    pub backlog_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 256,
            clients_per_address: 256,
            handshakes: 512,
            handshakes_per_address: 256,
            handshake_deadline: Duration::from_secs(3),
            connect_deadline: Duration::from_secs(5),
            keep_alive_min: Duration::from_secs(5),
            keep_alive_max: Duration::from_mins(5),
            write_deadline: Duration::from_secs(10),
            bytes_per_second: 4 * 1024 * 1024,
            burst_bytes: 16 * MAX_PAYLOAD_BYTES as u32,
            messages_per_second: 50,
            burst_messages: 4,
            backlog_bytes: 32 * 1024 * 1024,
        }
    }
}

/// The broker could not be started: a fault of this box.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listening socket cannot be used.
    #[error("the broker cannot use its listening socket: {0}")]
    Listener(#[source] io::Error),
    /// No thread for the router.
    #[error("the broker cannot start its router: {0}")]
    Thread(#[source] io::Error),
}

/// How many packets a client may send are at the beginning of `bytes`, and why the next one is
/// none: what the network faces, for fuzzing.
#[doc(hidden)]
pub fn packets_in(bytes: &[u8]) -> (usize, Option<Reason>) {
    packets::count(bytes, MAX_PAYLOAD_BYTES + 256)
}

/// A running broker. Dropping it disconnects everybody without waiting for them.
pub struct Broker {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: watch::Sender<()>,
    door: JoinHandle<()>,
}

impl Broker {
    /// Serves on `listener`. Each connection is judged by the TLS configuration that `tls` holds
    /// at that moment: one that demands client certificates, and is built anew whenever the
    /// revocation list or the own certificate changes.
    ///
    /// # Errors
    /// When the socket or a thread is not to be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        listener: TcpListener,
        tls: watch::Receiver<Arc<ServerConfig>>,
        limits: Limits,
    ) -> Result<Self, BrokerError> {
        let hub = Hub::start(&limits, Handle::current()).map_err(BrokerError::Thread)?;
        listener.set_nonblocking(true).map_err(BrokerError::Listener)?;
        let address = listener.local_addr().map_err(BrokerError::Listener)?;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(BrokerError::Listener)?;
        let shared = Arc::new(Shared {
            limits,
            counters: Arc::new(Counters::new()),
            clients: Arc::new(Clients::default()),
            porch: Arc::new(Porch::default()),
            hub,
            tls,
            pressure: Pressure::default(),
        });
        let (stop, stopped) = watch::channel(());
        let door = tokio::spawn(door::run(listener, shared.clone(), stopped));
        Ok(Self { shared, address, stop, door })
    }

    /// While this is on, terminals are read no faster than hands can be held over them.
    pub(crate) fn pressure(&self) -> Pressure {
        self.shared.pressure.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the listener anew, at the same address; clients that are connected stay so.
    ///
    /// # Errors
    /// When the socket is not to be had.
    pub async fn reopen(&mut self) -> Result<(), BrokerError> {
        self.door.abort();
        let _ = (&mut self.door).await;
        let listener = TcpListener::bind(self.address).map_err(BrokerError::Listener)?;
        listener.set_nonblocking(true).map_err(BrokerError::Listener)?;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(BrokerError::Listener)?;
        self.door = tokio::spawn(door::run(listener, self.shared.clone(), self.stop.subscribe()));
        Ok(())
    }

    /// As if the listener's task had died.
    #[cfg(test)]
    pub(crate) fn kill_listener(&self) {
        self.door.abort();
    }

    /// Cuts off a client that is connected now. Whether it may come back is the business of the
    /// TLS configuration: replace that first.
    pub fn disconnect(&self, name: &Name) {
        self.shared.clients.stop(name, Reason::Removed);
    }

    /// Connected clients, the gateway included.
    pub fn clients(&self) -> usize {
        self.shared.clients.count()
    }

    /// What happened so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Lets nobody in any more, disconnects everybody and waits until they are gone, a few
    /// seconds at most.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(());
        let _ = (&mut self.door).await;
        self.shared.porch.clear();
        self.shared.clients.clear(Reason::Shutdown).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.door.abort();
        self.shared.porch.clear();
        self.shared.clients.stop_all(Reason::Shutdown);
    }
}
