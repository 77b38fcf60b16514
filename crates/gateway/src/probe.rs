//! Tries the broker as a terminal would: a CONNECT with a certificate of the store, and a message
//! that goes through broker and back. Stops nobody's work.

use crate::{fabric::Fabric, terminals::Terminals};
use palmgate_protocol::topic::{self, Channel};
use palmgate_seal::random;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration,
    Transport,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

/// Longest wait for the whole round trip.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a listener's half of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Where the broker is, and who tries it.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) fabric: Arc<Fabric>,
}

impl Probe {
    /// Connects anew, subscribes, and has the gateway send a message there, on the way that answers
    /// take; how long it all took.
    ///
    /// # Errors
    /// What did not work, for a person.
    pub(crate) async fn round_trip(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let tls = self.terminals.probe_tls().map_err(|error| error.to_string())?;
        let (host, port) = (self.host.as_str(), self.port);
        let mut options = MqttOptions::new(topic::PROBE, host, port);
        options
            .set_keep_alive(Duration::from_secs(10))
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        let (client, events) = AsyncClient::new(options, 4);
        match timeout(PATIENCE, self.exchange(&client, events)).await {
            Ok(Ok(())) => Ok(begun.elapsed()),
            Ok(Err(error)) => Err(format!("{host}:{port}: {error}")),
            Err(_) => Err(format!("{host}:{port}: nothing came back for {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, client: &AsyncClient, mut events: EventLoop) -> Result<(), String> {
        let name = topic::PROBE.parse().map_err(|_| "its name is none".to_owned())?;
        let place = topic::topic(&name, Channel::Down);
        let token = random::bytes::<16>();
        loop {
            match events.poll().await.map_err(|error| told(&error))? {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let asked = client.try_subscribe(place.as_str(), QoS::AtLeastOnce);
                    asked.map_err(|error| error.to_string())?;
                }
                Event::Incoming(Packet::SubAck(_)) => {
                    self.fabric.send_probe(&name, token.to_vec()).await;
                }
                Event::Incoming(Packet::Publish(came)) if came.payload == token.as_slice() => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

fn told(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("CONNECT was refused: {code:?}"),
        error => error.to_string(),
    }
}

/// Whether a listener of ours takes connections and does its half of TLS. It is not told who asks, so
/// it refuses afterwards, as it refuses any stranger.
pub(crate) async fn listens(host: &str, port: u16, tls: Arc<ClientConfig>) -> bool {
    let handshake = async {
        let stream = TcpStream::connect((host, port)).await.ok()?;
        let name = ServerName::try_from(topic::GATEWAY).ok()?;
        TlsConnector::from(tls).connect(name, stream).await.ok()
    };
    timeout(HANDSHAKE, handshake).await.ok().flatten().is_some()
}
