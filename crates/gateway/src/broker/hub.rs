//! The only code that talks to rumqttd's router, on a thread of its own.
//!
//! The router's calls may block, so they stay off the runtime. It also panics, for everybody, when
//! it hears of a connection that it has already dropped. So orders go through one queue that keeps
//! them in their sequence, the router is never given a reason to drop a connection on its own
//! accord, and if it fails all the same a new one takes its place.

use super::{Limits, Reason};
use palmgate_protocol::{
    Name,
    limits::MAX_PAYLOAD_BYTES,
    topic::{self, Channel},
};
use rumqttd::{
    Notification, Router, RouterConfig, SegmentConfig,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter, Packet, QoS, RetainForwardRule, Subscribe,
        Unsubscribe,
    },
};
use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

/// Packets that may wait for the hub.
const QUEUE: usize = 64;
/// Parts that a topic's backlog is dropped by, the oldest first.
const SEGMENTS: usize = 8;
/// Bytes kept for a topic that one terminal reads.
const TERMINAL_SEGMENT: usize = 64 * 1024;
/// Messages without acknowledgement that the router hands over at a time.
const MAX_UNACKNOWLEDGED: u64 = 100;

enum Order {
    Open { client: Name, clean: bool, uplink: Uplink, answer: oneshot::Sender<Opened> },
    Packet { link: u64, packet: Box<Packet> },
    Close { link: u64 },
}

/// What a client needs to exchange packets with the router; the packet is its CONNACK.
pub(super) type Opened = (Uplink, LinkRx, Packet);

/// The way to the hub's thread.
pub(super) struct Hub {
    orders: mpsc::Sender<Order>,
    links: AtomicU64,
}

/// The way from one client to the router. Dropping it takes the client off the router; the
/// place in the queue for that is kept free from the start.
pub(super) struct Uplink {
    link: u64,
    orders: mpsc::Sender<Order>,
    goodbye: Option<mpsc::OwnedPermit<Order>>,
}

impl Hub {
    /// Starts a router and the thread that feeds it; both live as long as anybody holds the hub
    /// or a link, except that rumqttd gives no way to end a router's idle thread.
    pub(super) fn start(limits: &Limits, runtime: Handle) -> io::Result<Self> {
        let clients = limits.clients + 1;
        let (orders, queue) = mpsc::channel(clients + QUEUE);
        let config = router_config(limits, clients + 1);
        thread::Builder::new()
            .name("broker-hub".into())
            .spawn(move || Thread::new(config, runtime).run(queue))?;
        Ok(Self { orders, links: AtomicU64::new(0) })
    }

    /// Puts a client on the router.
    pub(super) async fn open(&self, client: Name, clean: bool) -> Result<Opened, Reason> {
        let lost = Reason::RouterLost;
        let goodbye = self.orders.clone().reserve_owned().await.map_err(|_| lost)?;
        let link = self.links.fetch_add(1, Relaxed);
        let uplink = Uplink { link, orders: self.orders.clone(), goodbye: Some(goodbye) };
        let (answer, opened) = oneshot::channel();
        let order = Order::Open { client, clean, uplink, answer };
        self.orders.send(order).await.map_err(|_| lost)?;
        opened.await.map_err(|_| lost)
    }
}

impl Uplink {
    /// Hands a packet to the router.
    pub(super) async fn send(&self, packet: Packet) -> Result<(), Reason> {
        let order = Order::Packet { link: self.link, packet: Box::new(packet) };
        self.orders.send(order).await.map_err(|_| Reason::RouterLost)
    }

    /// Ends subscriptions. The router forgets which filters a resumed session had, but not the
    /// subscription itself: subscribing again (under the identifier 0, which no client can use)
    /// changes nothing else and lets it find them.
    pub(super) async fn unsubscribe(&self, unsubscribe: Unsubscribe) -> Result<(), Reason> {
        if unsubscribe.filters.is_empty() {
            return Ok(());
        }
        let again = |path: &String| Filter {
            path: path.clone(),
            qos: QoS::AtLeastOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let filters = unsubscribe.filters.iter().map(again).collect();
        self.send(Packet::Subscribe(Subscribe { pkid: 0, filters }, None)).await?;
        self.send(Packet::Unsubscribe(unsubscribe, None)).await
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if let Some(place) = self.goodbye.take() {
            place.send(Order::Close { link: self.link });
        }
    }
}

/// The router no longer answers.
type RouterError = Box<LinkError>;
type Connect = Box<dyn Fn(&Name, bool) -> Result<(LinkTx, LinkRx, Notification), RouterError>>;

struct Thread {
    config: RouterConfig,
    runtime: Handle,
    connect: Connect,
    links: HashMap<u64, LinkTx>,
}

impl Thread {
    fn new(config: RouterConfig, runtime: Handle) -> Self {
        let connect = start_router(config.clone());
        Self { config, runtime, connect, links: HashMap::new() }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        while let Some(order) = queue.blocking_recv() {
            let done = match order {
                Order::Open { client, clean, uplink, answer } => {
                    self.open(&client, clean, uplink, answer)
                }
                Order::Packet { link, packet } => self.forward(link, *packet),
                Order::Close { link } => self.close(link),
            };
            if let Err(error) = done {
                tracing::error!(%error, "the message router failed; starting a new one");
                self.links.clear();
                self.connect = start_router(self.config.clone());
            }
        }
    }

    fn open(
        &mut self,
        client: &Name,
        clean: bool,
        uplink: Uplink,
        answer: oneshot::Sender<Opened>,
    ) -> Result<(), RouterError> {
        let (sender, downlink, connected) = (self.connect)(client, clean)?;
        let Some(acknowledgement) = Option::<Packet>::from(connected) else {
            return Err(LinkError::NotConnectionAck.into());
        };
        self.links.insert(uplink.link, sender);
        // Nobody waits any more when the client has gone meanwhile: the uplink then closes itself.
        let _ = answer.send((uplink, downlink, acknowledgement));
        Ok(())
    }

    /// Packets of a link that a failed router has lost go nowhere; its client is on its way out.
    fn forward(&mut self, link: u64, packet: Packet) -> Result<(), RouterError> {
        let Some(uplink) = self.links.get_mut(&link) else { return Ok(()) };
        self.runtime.block_on(uplink.send(packet)).map(drop).map_err(Box::new)
    }

    fn close(&mut self, link: u64) -> Result<(), RouterError> {
        let Some(mut uplink) = self.links.remove(&link) else { return Ok(()) };
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let goodbye = Packet::Disconnect(Disconnect { reason_code }, None);
        self.runtime.block_on(uplink.send(goodbye)).map(drop).map_err(Box::new)
    }
}

fn start_router(config: RouterConfig) -> Connect {
    let router = Router::new(0, config).spawn();
    Box::new(move |client, clean| {
        let link = LinkBuilder::new(client.as_str(), router.clone()).clean_session(clean);
        link.build().map_err(Box::new)
    })
}

/// The router keeps what it delivered, and what a persistent session misses, in one bounded log
/// for each filter, in memory.
fn router_config(limits: &Limits, max_connections: usize) -> RouterConfig {
    let backlog = limits.backlog_bytes.max(2 * MAX_PAYLOAD_BYTES);
    let requests =
        SegmentConfig { max_segment_size: backlog / SEGMENTS, max_segment_count: SEGMENTS };
    let filters = [Channel::Join, Channel::Up].map(topic::gateway_filter);
    RouterConfig {
        max_connections,
        max_outgoing_packet_count: MAX_UNACKNOWLEDGED,
        max_segment_size: TERMINAL_SEGMENT,
        max_segment_count: 2,
        custom_segment: Some(filters.map(|filter| (filter, requests.clone())).into()),
        ..RouterConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_router_is_replaced() {
        let hub = Hub::start(&Limits::default(), Handle::current()).unwrap();
        let open = async |name: &str| hub.open(name.parse().unwrap(), true).await;
        let (_bystander, mut downlink, _) = open("till-1").await.unwrap();
        let (uplink, stale, _) = open("till-2").await.unwrap();
        drop(uplink);
        // The panic that everything else here is written to prevent.
        while stale.wake().await.is_ok() {
            tokio::task::yield_now().await;
        }
        while downlink.next().await.is_ok() {}
        let reopened = loop {
            match open("till-1").await {
                Ok(opened) => break opened,
                Err(reason) => assert_eq!(reason, Reason::RouterLost),
            }
        };
        let (uplink, mut downlink, _) = reopened;
        uplink.send(Packet::PingReq(rumqttd::protocol::PingReq)).await.unwrap();
        let answer = loop {
            if let Some(notification) = downlink.next().await.unwrap() {
                break Option::<Packet>::from(notification);
            }
        };
        assert!(matches!(answer, Some(Packet::PingResp(_))));
    }
}
