//! The MQTT connection: up, down, and tried again for ever.

use crate::error::Trouble;
use bytes::Bytes;
use palmgate_protocol::{
    Name, limits,
    topic::{self, Channel},
};
use palmgate_seal::random;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use std::{error::Error, io, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Two missed answers to this, and the connection counts as broken.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Limit of TCP, TLS and MQTT handshake together. Below five seconds: after a network whose streams
/// went dumb, a terminal is back as soon as the last of its attempts is given up.
const CONNECT_SECONDS: u64 = 4;
/// Bytes around a payload in a PUBLISH packet: header, topic, packet identifier.
const PACKET_OVERHEAD: usize = 128;
/// Messages that may wait in either direction.
const QUEUE: usize = 64;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// With the handshakes and a join, a terminal is back within five seconds of its broker.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that lasted this long starts the pauses over.
const STABLE: Duration = Duration::from_secs(10);

/// What the connection reports.
pub(crate) enum LinkEvent {
    /// The broker took us and our subscriptions; publish here.
    Up(AsyncClient),
    /// The connection broke or did not come about.
    Down(Trouble),
    /// A message for us.
    Message(Channel, Bytes),
}

/// Where the broker is and who we are.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) terminal: Name,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Keeps the connection for as long as it is held.
pub(crate) struct Link {
    route: Route,
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl Link {
    pub(crate) fn start(route: Route) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let task = tokio::spawn(keep_connected(route.clone(), sender));
        Self { route, events, task }
    }

    /// The next report; safe to cancel.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        if let Some(event) = self.events.recv().await {
            return event;
        }
        // The task only ends by a panic in the MQTT library: the terminal outlives it.
        *self = Self::start(self.route.clone());
        LinkEvent::Down(self.route.unreachable("the MQTT client failed and was started anew"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_connected(route: Route, events: mpsc::Sender<LinkEvent>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let since = Instant::now();
        let trouble = connection(&route, &events).await;
        if since.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        if events.send(LinkEvent::Down(trouble)).await.is_err() {
            return;
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between nearly nothing and the whole of `pause`, so that a store's terminals come back one by one
/// instead of in step.
fn jittered(pause: Duration) -> Duration {
    let share = f64::from(u16::from_le_bytes(random::bytes())) / f64::from(u16::MAX);
    pause.mul_f64(share).max(SHORTEST_PAUSE)
}

/// One connection from CONNECT to its end. Its client is not used again: rumqttc would carry
/// unacknowledged packets over, and a sealed message that arrives twice is a replay. For the same
/// reason the MQTT session is clean; what was lost is sealed anew and sent again.
async fn connection(route: &Route, events: &mpsc::Sender<LinkEvent>) -> Trouble {
    let (client, mut mqtt) = AsyncClient::new(route.options(), QUEUE);
    set_network_options(&mut mqtt);
    loop {
        let event = match mqtt.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if client.try_subscribe_many(route.filters()).is_err() {
                    return route.unreachable("the MQTT client takes no subscription");
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return route.refused("it may not read its own topics");
                }
                LinkEvent::Up(client.clone())
            }
            Ok(Event::Incoming(Packet::Publish(message))) => match route.own(&message.topic) {
                Some(channel) => LinkEvent::Message(channel, message.payload),
                None => continue,
            },
            Ok(_) => continue,
            Err(error) => return route.trouble(&error),
        };
        if events.send(event).await.is_err() {
            return route.unreachable("the terminal was shut down");
        }
    }
}

fn set_network_options(mqtt: &mut EventLoop) {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_connection_timeout(CONNECT_SECONDS);
    mqtt.set_network_options(options);
}

impl Route {
    fn options(&self) -> MqttOptions {
        let largest = limits::MAX_PAYLOAD_BYTES + PACKET_OVERHEAD;
        let mut options = MqttOptions::new(self.terminal.as_str(), &self.host, self.port);
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(self.tls.clone())))
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(largest, largest);
        options
    }

    fn filters(&self) -> [SubscribeFilter; 2] {
        [Channel::Welcome, Channel::Down].map(|channel| {
            SubscribeFilter::new(topic::topic(&self.terminal, channel), QoS::AtLeastOnce)
        })
    }

    fn own(&self, topic: &str) -> Option<Channel> {
        let (name, channel) = topic::parse(topic)?;
        (name == self.terminal && !channel.from_terminal()).then_some(channel)
    }

    fn unreachable(&self, why: impl ToString) -> Trouble {
        Trouble::Unreachable { host: self.host.clone(), port: self.port, why: why.to_string() }
    }

    fn refused(&self, why: impl ToString) -> Trouble {
        Trouble::Refused { host: self.host.clone(), port: self.port, why: why.to_string() }
    }

    fn trouble(&self, error: &ConnectionError) -> Trouble {
        let (host, port) = (self.host.clone(), self.port);
        match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => {
                let why = format!("it sent the TLS alert {alert:?}");
                return Trouble::CertificateRefused { host, port, why };
            }
            Some(
                tls @ (rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented),
            ) => {
                return Trouble::NotOurBroker { host, port, why: tls.to_string() };
            }
            Some(tls) => return self.unreachable(tls),
            None => {}
        }
        match error {
            ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
                self.unreachable(format_args!("nothing came for {CONNECT_SECONDS} s"))
            }
            ConnectionError::ConnectionRefused(code) => self.refused(format_args!("{code:?}")),
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                self.unreachable("it no longer answers")
            }
            error => self.unreachable(reason(error)),
        }
    }
}

/// The TLS error inside an error, wherever the layers between put it.
pub(crate) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An IO error's own source skips the error that it wraps.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The cause at the bottom, which says it best; libraries have many words for a closed connection.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let closed = cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
        || matches!(cause.downcast_ref(), Some(StateError::ConnectionAborted));
    if closed { "it closed the connection".into() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str, port: u16) -> Route {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Route { terminal: "till-1".parse().unwrap(), host: host.into(), port, tls: tls.into() }
    }

    fn as_mqtt_reports(tls: rustls::Error) -> ConnectionError {
        let io = io::Error::new(io::ErrorKind::InvalidData, tls);
        ConnectionError::MqttState(StateError::Deserialization(io.into()))
    }

    #[test]
    fn the_trouble_says_whose_fault_it_is() {
        let route = route("box", 8883);
        let revoked = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked);
        let trouble = route.trouble(&as_mqtt_reports(revoked));
        assert!(matches!(trouble, Trouble::CertificateRefused { .. }), "{trouble}");
        let stranger = rustls::CertificateError::UnknownIssuer.into();
        let trouble = route.trouble(&as_mqtt_reports(stranger));
        assert!(matches!(trouble, Trouble::NotOurBroker { .. }), "{trouble}");
        let closed = io::Error::from(io::ErrorKind::ConnectionReset);
        let trouble = route.trouble(&ConnectionError::Io(closed));
        assert!(trouble.to_string().contains("box:8883: connection reset"), "{trouble}");
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed without close_notify");
        for closed in [StateError::Deserialization(cut.into()), StateError::ConnectionAborted] {
            let trouble = route.trouble(&ConnectionError::MqttState(closed));
            assert!(trouble.to_string().contains("it closed the connection"), "{trouble}");
        }
        let not_allowed = rumqttc::ConnectReturnCode::NotAuthorized;
        let trouble = route.trouble(&ConnectionError::ConnectionRefused(not_allowed));
        assert!(matches!(trouble, Trouble::Refused { .. }), "{trouble}");
    }

    #[test]
    fn only_the_own_readable_topics_are_heard() {
        let route = route("box", 8883);
        assert_eq!(route.own("palmgate/1/till-1/down"), Some(Channel::Down));
        for foreign in ["palmgate/1/till-2/down", "palmgate/1/till-1/up", "other"] {
            assert_eq!(route.own(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn pauses_are_spread() {
        let pauses: Vec<_> = (0..2_000).map(|_| jittered(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().all(|pause| (SHORTEST_PAUSE..=LONGEST_PAUSE).contains(pause)));
        // Two hundred terminals, a tenth of the pause each: every tenth has some of them.
        for tenth in 0..10 {
            let within = LONGEST_PAUSE / 10 * tenth..=LONGEST_PAUSE / 10 * (tenth + 1);
            assert!(pauses.iter().any(|pause| within.contains(pause)), "{tenth}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_with_host_and_port_and_tried_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut link = Link::start(route("127.0.0.1", port));
        for _ in 0..2 {
            let LinkEvent::Down(trouble) = link.next().await else { panic!("connected") };
            assert!(trouble.to_string().contains(&format!("127.0.0.1:{port}")), "{trouble}");
        }
    }
}
