use super::{
    Admission, Freshness, Inbound, Outbound,
    conversation::{Conversation, Heard, Shared},
};
use crate::{broker::Pace, metrics::Metrics, pressure::Pressure, store::Input};
use palmgate_protocol::{
    MemberId, Name,
    limits::MAX_PAYLOAD_BYTES,
    topic::{self, Channel},
};
use palmgate_vault::Vault;
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    TlsConfiguration, Transport,
};
use rustls::pki_types::CertificateDer;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Messages that wait for one terminal's conversation.
const CONVERSATION_QUEUE: usize = 16;
/// Messages of one terminal in a second, sustained, whatever broker carries them: more are dropped
/// before anything is done with them. The embedded broker reads such a terminal more slowly instead.
const MESSAGES_PER_SECOND: u32 = 50;
/// The same, at once.
const MESSAGES_AT_ONCE: u32 = 100;
/// How long to wait before connecting again.
const RECONNECT: Duration = Duration::from_millis(500);
/// How often the path through the broker is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// What the fabric needs to run.
pub(crate) struct FabricOptions {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: rustls::ClientConfig,
    pub(crate) terminals: Arc<dyn Admission>,
    pub(crate) authority_der: CertificateDer<'static>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) requests: mpsc::Sender<Inbound>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) freshness: Freshness,
    pub(crate) pressure: Pressure,
}

/// The gateway's connection to the broker and its conversations with terminals.
pub(crate) struct Fabric {
    shared: Arc<Shared>,
    conversations: Mutex<HashMap<Name, Line>>,
    health: watch::Receiver<Option<Instant>>,
}

/// The way to one terminal's conversation.
struct Line {
    heard: mpsc::Sender<Heard>,
    pace: Pace,
}

impl Fabric {
    /// Connects, and stays connected until the returned fabric is dropped.
    pub(crate) fn start(options: FabricOptions) -> Arc<Self> {
        let mut mqtt = MqttOptions::new(topic::GATEWAY, options.host, options.port);
        mqtt.set_keep_alive(Duration::from_secs(10))
            .set_clean_session(false)
            .set_inflight(100)
            .set_max_packet_size(MAX_PAYLOAD_BYTES + 1024, MAX_PAYLOAD_BYTES + 1024)
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(
                options.tls,
            ))));
        let (client, mut events) = AsyncClient::new(mqtt, 64);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let shared = Arc::new(Shared {
            terminals: options.terminals,
            authority_der: options.authority_der,
            vault: options.vault,
            client,
            requests: options.requests,
            inputs: options.inputs,
            metrics: options.metrics,
            freshness: options.freshness,
            pressure: options.pressure,
            anew: Mutex::default(),
        });
        let (echoed, health) = watch::channel(None);
        let fabric = Arc::new(Self { shared, conversations: Mutex::new(HashMap::new()), health });
        tokio::spawn(poll(Arc::downgrade(&fabric), events, echoed));
        tokio::spawn(probe(Arc::downgrade(&fabric)));
        fabric
    }

    /// Opens the conversation with a paired terminal.
    pub(crate) fn admit(&self, terminal: &Name) {
        let (heard, inbox) = mpsc::channel(CONVERSATION_QUEUE);
        let conversation = Conversation::begin(Arc::clone(&self.shared), terminal.clone());
        tokio::spawn(conversation.run(inbox));
        let pace = Pace::new(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, Instant::now());
        self.lock().insert(terminal.clone(), Line { heard, pace });
    }

    /// Ends it: the next message of the terminal is refused.
    pub(crate) async fn remove(&self, terminal: &Name) {
        let line = self.lock().remove(terminal);
        if let Some(line) = line {
            let _ = line.heard.send(Heard::Removed).await;
        }
    }

    /// Sends an answer; a terminal that does not take its answers loses them, not others'.
    pub(crate) fn answer(&self, terminal: &Name, outbound: Outbound) {
        let heard = self.lock().get(terminal).map(|line| line.heard.clone());
        if heard.is_none_or(|heard| heard.try_send(Heard::Answer(outbound)).is_err()) {
            self.shared.metrics.shed("answers");
        }
    }

    /// Wipes the answers that say something of an erased person.
    pub(crate) fn forget(&self, member: MemberId) {
        self.tell_all(|| Heard::Forget(member));
    }

    /// Has every terminal begin a new session, so that the keys of those until now end on both sides.
    pub(crate) fn begin_anew(&self) {
        self.tell_all(|| Heard::BeginAnew);
    }

    /// Gives every terminal another roster.
    pub(crate) fn give_roster(&self) {
        self.tell_all(|| Heard::Roster);
    }

    /// A conversation that is busy hears it later, and none misses it.
    fn tell_all(&self, what: impl Fn() -> Heard) {
        for Line { heard: conversation, .. } in self.lock().values() {
            match conversation.try_send(what()) {
                Err(mpsc::error::TrySendError::Full(heard)) => {
                    let conversation = conversation.clone();
                    tokio::spawn(async move { conversation.send(heard).await });
                }
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Sends a message where the gateway itself listens as a terminal would.
    pub(crate) async fn send_probe(&self, listener: &Name, payload: Vec<u8>) {
        let place = topic::topic(listener, Channel::Down);
        let _ = self.shared.client.publish(place, QoS::AtLeastOnce, false, payload).await;
    }

    /// Terminals with a conversation.
    pub(crate) fn terminals(&self) -> usize {
        self.lock().len()
    }

    /// Time since the broker last carried a message from us to us; `None` when it never did.
    pub(crate) fn last_round_trip(&self) -> Option<Duration> {
        self.health.borrow().map(|at| at.elapsed())
    }

    fn heard(&self, publish: &Publish) {
        let Some((terminal, channel)) = topic::parse(&publish.topic) else { return };
        if !channel.from_terminal() {
            return;
        }
        let now = Instant::now();
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(&terminal) else {
            return self.shared.metrics.terminal_fault("unknown");
        };
        if !line.pace.allows(now) {
            return self.shared.metrics.terminal_fault("flooding");
        }
        let heard = match channel {
            Channel::Join => Heard::Join(publish.payload.to_vec()),
            _ => Heard::Up(publish.payload.to_vec(), now),
        };
        if line.heard.try_send(heard).is_err() {
            self.shared.metrics.shed("conversation");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Line>> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn poll(
    fabric: std::sync::Weak<Fabric>,
    mut events: EventLoop,
    echoed: watch::Sender<Option<Instant>>,
) {
    let mut reported = false;
    loop {
        let event = events.poll().await;
        let Some(fabric) = fabric.upgrade() else { return };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                reported = false;
                tracing::info!("connected to the broker");
                subscribe(&fabric.shared.client);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == topic::HEALTH => {
                let _ = echoed.send(Some(Instant::now()));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => fabric.heard(&publish),
            Ok(_) => {}
            Err(error) => {
                if !reported {
                    tracing::warn!(%error, "the broker cannot be reached; trying again");
                    reported = true;
                }
                drop(fabric);
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }
}

fn subscribe(client: &AsyncClient) {
    let own = [topic::gateway_filter(Channel::Join), topic::gateway_filter(Channel::Up)];
    for filter in own.into_iter().chain([topic::HEALTH.to_owned()]) {
        if client.try_subscribe(filter, QoS::AtLeastOnce).is_err() {
            tracing::error!("the queue to the broker is full; subscriptions are missing");
        }
    }
    // One that was sent before these subscriptions does not come back.
    send_health(client);
}

fn send_health(client: &AsyncClient) {
    let _ = client.try_publish(topic::HEALTH, QoS::AtMostOnce, false, "");
}

/// Sends a message to ourselves on the same path as traffic.
async fn probe(fabric: std::sync::Weak<Fabric>) {
    loop {
        let Some(fabric) = fabric.upgrade() else { return };
        send_health(&fabric.shared.client);
        drop(fabric);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}
