//! Every terminal against every topic, on both brokers: nobody reaches what is not theirs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_gateway::broker::{Broker, Limits};
use palmgate_protocol::{
    DAY, Timestamp,
    topic::{self, Channel, GATEWAY, HEALTH},
};
use palmgate_seal::pki::{self, Authority, ClientAuth, Identity, Role};
use palmgate_stories::Mosquitto;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

const TERMINALS: [&str; 4] = ["till-1", "till-2", "kiosk-1", "gate-1"];
const CHANNELS: [Channel; 4] = [Channel::Join, Channel::Welcome, Channel::Up, Channel::Down];
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a message that must not come is waited for, after one that must.
const SETTLED: Duration = Duration::from_millis(500);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

struct Authorities {
    authority: Authority,
    port: u16,
}

impl Authorities {
    fn identity(&self, name: &str, role: Role) -> Identity {
        let pending = Identity::generate();
        let leaf = self
            .authority
            .issue(&pending.csr_der(), &name.parse().unwrap(), role, now(), DAY)
            .unwrap();
        pending.certified(vec![leaf.der, self.authority.certificate_der().clone()]).unwrap()
    }

    /// Connects as `name`; what it hears comes out of the channel, which ends with the connection.
    async fn client(&self, name: &str) -> Client {
        let role = if name == GATEWAY { Role::Both { hosts: Vec::new() } } else { Role::Client };
        let identity = self.identity(name, role);
        let tls = pki::client_config(Some(&identity), self.authority.certificate_der()).unwrap();
        let mut options = MqttOptions::new(name, "127.0.0.1", self.port);
        options
            .set_keep_alive(Duration::from_secs(10))
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        let (requests, mut events) = AsyncClient::new(options, 200);
        let connect = async {
            while !matches!(events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, connect).await.expect("connected");
        let (heard, packets) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(packet) = event
                    && heard.send(packet).is_err()
                {
                    return;
                }
            }
        });
        Client { requests, packets, heard: BTreeSet::new() }
    }
}

struct Client {
    requests: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    /// Payloads, which say who wrote them where.
    heard: BTreeSet<String>,
}

impl Client {
    /// Waits for a packet; `false` when the connection ends before it.
    async fn until(&mut self, wanted: impl Fn(&Packet) -> bool) -> bool {
        let wait = async {
            while let Some(packet) = self.packets.recv().await {
                if let Packet::Publish(publish) = &packet {
                    self.heard.insert(String::from_utf8_lossy(&publish.payload).into_owned());
                }
                if wanted(&packet) {
                    return true;
                }
            }
            false
        };
        timeout(PATIENCE, wait).await.unwrap_or(false)
    }

    async fn subscribe(&mut self, filter: &str) -> bool {
        self.requests.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await
    }

    async fn publish(&mut self, topic: &str, payload: &str) -> bool {
        let sent = self.requests.publish(topic, QoS::AtLeastOnce, false, payload).await;
        sent.is_ok() && self.until(|packet| matches!(packet, Packet::PubAck(_))).await
    }

    /// Everything that came, once nothing more comes.
    async fn everything(&mut self) -> &BTreeSet<String> {
        while let Ok(Some(packet)) = timeout(SETTLED, self.packets.recv()).await {
            if let Packet::Publish(publish) = packet {
                self.heard.insert(String::from_utf8_lossy(&publish.payload).into_owned());
            }
        }
        &self.heard
    }
}

fn topics() -> Vec<String> {
    let names = TERMINALS.iter().copied().chain([GATEWAY]);
    let mut topics: Vec<String> = names
        .flat_map(|name| CHANNELS.map(|channel| topic::topic(&name.parse().unwrap(), channel)))
        .collect();
    topics.extend([HEALTH, "palmgate/1/till-1", "palmgate/2/till-1/up", "other"].map(Into::into));
    topics
}

/// Who may read what was written to `topic`.
fn readers(topic: &str) -> Vec<&'static str> {
    match topic::parse(topic) {
        Some((_, channel)) if channel.from_terminal() => vec![GATEWAY],
        Some((name, _)) => {
            TERMINALS.into_iter().filter(|reader| *reader == name.as_str()).collect()
        }
        None => Vec::new(),
    }
}

/// Everybody subscribes to everything, in turn everybody writes to everything.
async fn matrix(authorities: &Authorities) -> (usize, usize) {
    let (topics, everybody) = (topics(), [TERMINALS.as_slice(), &[GATEWAY]].concat());
    let (mut tried, mut crossed) = (0, 0);
    for writer in &everybody {
        let mut others = Vec::new();
        for reader in everybody.iter().filter(|reader| *reader != writer) {
            let mut client = authorities.client(reader).await;
            let wild = ["#", "+/#", "palmgate/1/+/up", "palmgate/1/+/join", "palmgate/1/+/down"];
            for filter in topics.iter().map(String::as_str).chain(wild) {
                assert!(client.subscribe(filter).await, "{reader} is still there after {filter}");
            }
            others.push((*reader, client));
        }
        let mut client = authorities.client(writer).await;
        for topic in &topics {
            let done = client.publish(topic, &format!("{writer}>{topic}")).await;
            if topic::may_publish(writer, topic) {
                assert!(done, "{writer} writes its own {topic}");
            }
            if !done {
                client = authorities.client(writer).await;
            }
        }
        for (reader, client) in &mut others {
            let heard = client.everything().await;
            for topic in &topics {
                tried += 1;
                let message = format!("{writer}>{topic}");
                let allowed = topic::may_publish(writer, topic) && readers(topic).contains(reader);
                if heard.contains(&message) != allowed {
                    println!("{reader} and {message}: heard instead of {allowed}");
                    crossed += 1;
                }
            }
        }
    }
    println!("{tried} combinations, {crossed} crossed");
    (tried, crossed)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_broker_nobody_reaches_what_is_not_theirs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let authorities = Authorities { authority: Authority::generate("store", now()).unwrap(), port };
    let host = authorities.identity(GATEWAY, Role::Both { hosts: vec!["127.0.0.1".into()] });
    let authority_der = authorities.authority.certificate_der().clone();
    let clients = ClientAuth::Required { authority_der, revoked: None };
    let config = Arc::new(pki::server_config(&host, clients).unwrap());
    let (_tls, current) = tokio::sync::watch::channel(config);
    let _broker = Broker::start(listener, current, Limits::default()).unwrap();
    let (tried, crossed) = matrix(&authorities).await;
    assert!(tried >= 400);
    assert_eq!(crossed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mosquitto_with_the_shipped_rules_nobody_reaches_what_is_not_theirs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let authorities = Authorities { authority: Authority::generate("store", now())?, port };
    let host = authorities.identity("broker", Role::Server { hosts: vec!["127.0.0.1".into()] });
    let file = |name: &str| directory.path().join(name);
    fs::write(file("authority.pem"), authorities.authority.certificate_pem())?;
    fs::write(file("broker.pem"), host.chain_pem())?;
    fs::write(file("broker.key"), host.plain_key_pem().expose())?;
    let _mosquitto = Mosquitto::shipped(directory.path(), port)?;
    let (tried, crossed) = matrix(&authorities).await;
    assert!(tried >= 400);
    assert_eq!(crossed, 0);
    Ok(())
}
