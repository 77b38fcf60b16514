//! Real clients against the broker over loopback.

mod crowd;
mod delay;
mod door;
mod hostile;
mod mosquitto;
mod sessions;

use super::{Broker, Limits, Reason};
use palmgate_protocol::{DAY, Name, Timestamp};
use palmgate_seal::pki::{self, Authority, ClientAuth, Identity, Role};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish,
    QoS, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An authority, a gateway and its broker.
struct Store {
    authority: Authority,
    gateway: Identity,
    tls: watch::Sender<Arc<ServerConfig>>,
    broker: Broker,
}

impl Store {
    fn open() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let authority = Authority::generate("store", now()).unwrap();
        let gateway = issue(&authority, "gateway").0;
        let config = server_config(&gateway, &authority, None);
        let (tls, current) = watch::channel(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Broker::start(listener, current, limits).unwrap();
        Self { authority, gateway, tls, broker }
    }

    /// Puts certificates on the revocation list.
    fn revoke(&self, serials: &[Vec<u8>]) {
        self.tls.send_replace(server_config(&self.gateway, &self.authority, Some(serials)));
    }

    fn options(&self, id: &str, tls: ClientConfig) -> MqttOptions {
        let mut options = MqttOptions::new(id, "127.0.0.1", self.broker.address().port());
        let tls = TlsConfiguration::Rustls(Arc::new(tls));
        options.set_transport(Transport::tls_with_config(tls));
        options.set_max_packet_size(2 * MIB, 2 * MIB);
        options
    }

    /// TLS as the holder of a certificate of this store.
    fn certified(&self, holder: &str) -> ClientConfig {
        tls(&issue(&self.authority, holder).0, &self.authority)
    }

    /// A client with its own certificate, connected.
    async fn client(&self, id: &str) -> Client {
        let mut client = Client::new(self.options(id, self.certified(id)));
        client.connected().await.unwrap();
        client
    }

    async fn gateway(&self) -> Client {
        let mut gateway = self.client("gateway").await;
        for filter in ["palmgate/1/+/up", "palmgate/1/+/join"] {
            assert!(gateway.subscribe(filter).await);
        }
        gateway
    }

    /// A TLS connection without an MQTT client.
    async fn raw(&self, config: ClientConfig) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.broker.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let host = "127.0.0.1".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(host, tcp).await.unwrap()
    }

    /// The same, after CONNECT.
    async fn raw_client(&self, id: &str) -> TlsStream<TcpStream> {
        let mut stream = self.raw(self.certified(id)).await;
        stream.write_all(&connect(id, 60)).await.unwrap();
        let mut acknowledgement = [0; 4];
        stream.read_exact(&mut acknowledgement).await.unwrap();
        assert_eq!(acknowledgement, [0x20, 2, 0, 0]);
        stream
    }

    /// Waits until a reason was counted `count` times.
    async fn expect(&self, reason: Reason, count: u64) {
        let start = Instant::now();
        while self.broker.counters().of(reason) < count {
            assert!(start.elapsed() < PATIENCE, "{reason:?}: {:?}", self.broker.counters());
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.broker.counters().of(reason), count, "{reason:?}");
    }
}

fn issue_for(authority: &Authority, name: &str, lifetime: Duration) -> (Identity, Vec<u8>) {
    let pending = Identity::generate();
    let role = Role::Both { hosts: vec!["127.0.0.1".into()] };
    let certificate =
        authority.issue(&pending.csr_der(), &name.parse().unwrap(), role, now(), lifetime).unwrap();
    let chain = vec![certificate.der, authority.certificate_der().clone()];
    (pending.certified(chain).unwrap(), certificate.serial)
}

fn issue(authority: &Authority, name: &str) -> (Identity, Vec<u8>) {
    issue_for(authority, name, DAY)
}

fn tls(identity: &Identity, authority: &Authority) -> ClientConfig {
    pki::client_config(Some(identity), authority.certificate_der()).unwrap()
}

fn server_config(
    gateway: &Identity,
    authority: &Authority,
    revoked: Option<&[Vec<u8>]>,
) -> Arc<ServerConfig> {
    let authority_der: CertificateDer<'static> = authority.certificate_der().clone();
    let revoked = revoked.map(|serials| authority.revocation_list(serials, 1, now()));
    let clients = ClientAuth::Required { authority_der, revoked };
    Arc::new(pki::server_config(gateway, clients).unwrap())
}

/// A CONNECT packet with a clean session.
fn connect(id: &str, keep_alive: u8) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\0");
    packet.extend_from_slice(&[keep_alive, 0, id.len() as u8]);
    packet.extend_from_slice(id.as_bytes());
    packet
}

/// A PUBLISH that wants an acknowledgement, with a small payload.
fn publish(topic: &str, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + topic.len() + payload.len();
    let mut packet = vec![0x32, length as u8 & 0x7f | 0x80, (length >> 7) as u8];
    packet.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(&identifier.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A rumqttc client that is driven by the test.
struct Client {
    requests: AsyncClient,
    events: EventLoop,
    received: Vec<Publish>,
}

impl Client {
    fn new(options: MqttOptions) -> Self {
        let (requests, mut events) = AsyncClient::new(options, 300);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        Self { requests, events, received: Vec::new() }
    }

    /// Polls until `wanted` picks something out of an incoming packet.
    async fn until<T>(
        &mut self,
        wanted: impl Fn(&Packet) -> Option<T>,
    ) -> Result<T, Box<ConnectionError>> {
        let wait = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await? {
                    if let Packet::Publish(publish) = &packet {
                        self.received.push(publish.clone());
                    }
                    if let Some(found) = wanted(&packet) {
                        return Ok(found);
                    }
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("an answer in time")
    }

    /// Connects; the answer is whether a session was there.
    async fn connected(&mut self) -> Result<bool, Box<ConnectionError>> {
        self.until(|packet| match packet {
            Packet::ConnAck(ack) => Some(ack.session_present),
            _ => None,
        })
        .await
    }

    async fn subscribe(&mut self, filter: &str) -> bool {
        self.requests.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let codes = self.until(|packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        });
        codes.await.unwrap() == [SubscribeReasonCode::Success(QoS::AtLeastOnce)]
    }

    /// Publishes and waits for the acknowledgement.
    async fn publish(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), Box<ConnectionError>> {
        self.requests.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await
    }

    /// The next message, maybe one that came while something else was awaited.
    async fn message(&mut self) -> Publish {
        if self.received.is_empty() {
            self.until(|packet| matches!(packet, Packet::Publish(_)).then_some(())).await.unwrap();
        }
        self.received.remove(0)
    }

    /// The error that ends the connection.
    async fn ended(&mut self) -> Box<ConnectionError> {
        self.until(|_| None::<()>).await.unwrap_err()
    }
}
