//! The network: a relay that stalls and cuts connections, and behind it one Mosquitto for tills and
//! one for the gateway, with a bridge between them that loses, doubles and delays messages.

use anyhow::{Context, Result};
use palmgate_stories::Mosquitto;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};
use std::{
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

/// Where everybody listens.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// The gateway's side of the broker.
    pub(crate) gateway: u16,
    /// Where tills connect: the relay.
    pub(crate) tills: u16,
    /// The tills' side of the broker.
    behind: u16,
    bridge_tills: u16,
    bridge_gateway: u16,
}

impl Ports {
    /// Ports that are free now.
    pub(crate) fn free() -> Result<Self> {
        let listeners: Vec<_> =
            (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let port = |at: usize| Ok::<_, std::io::Error>(listeners[at].local_addr()?.port());
        let (gateway, tills, behind) = (port(0)?, port(1)?, port(2)?);
        Ok(Self { gateway, tills, behind, bridge_tills: port(3)?, bridge_gateway: port(4)? })
    }
}

/// All of it.
pub(crate) struct Network {
    /// The tills' broker.
    pub(crate) mosquitto: Mosquitto,
    _gateways: Mosquitto,
    pub(crate) relay: Relay,
    pub(crate) bridge: Bridge,
    pub(crate) ports: Ports,
}

impl Network {
    /// Starts it with the broker's certificate in `directory`.
    pub(crate) async fn start(directory: &Path, ports: Ports) -> Result<Self> {
        let tls =
            ["cafile authority.pem", "certfile broker.pem", "keyfile broker.key"].map(|line| {
                let (key, name) = line.split_once(' ').unwrap();
                format!("{key} {}\n", directory.join(name).display())
            });
        let broker = |name: &str, secure: u16, plain: u16| {
            let directory = directory.join(name);
            std::fs::create_dir(&directory)?;
            let configuration = format!(
                "per_listener_settings true\npersistence false\n\
                 listener {plain} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
                 listener {secure} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n{}",
                tls.concat()
            );
            Mosquitto::configured(&directory, &configuration)
        };
        let mosquitto = broker("tills", ports.behind, ports.bridge_tills)?;
        let gateways = broker("gateway", ports.gateway, ports.bridge_gateway)?;
        let relay = Relay::start(ports.tills, ports.behind).await?;
        let bridge = Bridge::start(ports);
        Ok(Self { mosquitto, _gateways: gateways, relay, bridge, ports })
    }
}

/// What the relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    /// Bytes wait.
    Stalled,
    /// Bytes are swallowed, and connections look alive.
    HalfOpen,
    /// Connections end.
    Cut,
}

pub(crate) struct Relay(watch::Sender<Mode>);

impl Relay {
    async fn start(from: u16, to: u16) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", from)).await;
        let listener = listener.context("the relay's port")?;
        let (mode, modes) = watch::channel(Mode::Open);
        tokio::spawn(async move {
            while let Ok((till, _)) = listener.accept().await {
                tokio::spawn(carry(till, to, modes.clone()));
            }
        });
        Ok(Self(mode))
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }
}

async fn carry(till: TcpStream, to: u16, mut modes: watch::Receiver<Mode>) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let _ = (till.set_nodelay(true), broker.set_nodelay(true));
    let ((till_in, till_out), (broker_in, broker_out)) = (till.into_split(), broker.into_split());
    let (up, down) = (modes.clone(), modes.clone());
    tokio::select! {
        () = copy(till_in, broker_out, up) => {}
        () = copy(broker_in, till_out, down) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut swallowed = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        swallowed |= *modes.borrow() == Mode::HalfOpen;
        // A stream that lost bytes never comes back to life.
        if swallowed {
            continue;
        }
        if modes.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Carries messages between the broker's two sides.
pub(crate) struct Bridge(Arc<State>);

#[derive(Default)]
struct State {
    disturbed: AtomicBool,
    random: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    carried: AtomicU64,
}

/// What the bridge did.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub(crate) struct Counts {
    carried: u64,
    lost: u64,
    doubled: u64,
}

impl Bridge {
    fn start(ports: Ports) -> Self {
        let side = |port: u16| {
            let mut options = MqttOptions::new("bridge", "127.0.0.1", port);
            options.set_max_packet_size(4 << 20, 4 << 20);
            AsyncClient::new(options, 500)
        };
        let (tills, from_tills) = side(ports.bridge_tills);
        let (gateway, from_gateway) = side(ports.bridge_gateway);
        let state = Arc::new(State::default());
        let up = ["palmgate/1/+/up", "palmgate/1/+/join"];
        let down = ["palmgate/1/+/down", "palmgate/1/+/welcome"];
        tokio::spawn(run(Arc::clone(&state), (tills.clone(), from_tills), up, gateway.clone()));
        tokio::spawn(run(Arc::clone(&state), (gateway, from_gateway), down, tills));
        Self(state)
    }

    /// From now on a third of the messages is lost, or none.
    pub(crate) fn disturb(&self, disturb: bool) {
        self.0.disturbed.store(disturb, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let State { lost, doubled, carried, .. } = &*self.0;
        let [carried, lost, doubled] = [carried, lost, doubled].map(|count| count.load(Relaxed));
        Counts { carried, lost, doubled }
    }
}

impl State {
    /// The generator `SplitMix64`.
    fn below(&self, bound: u64) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(step, Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// After how many milliseconds copies of a message arrive.
    fn fate(&self) -> Vec<u64> {
        if !self.disturbed.load(Relaxed) {
            return vec![0];
        }
        if self.below(100) < 30 {
            self.lost.fetch_add(1, Relaxed);
            return Vec::new();
        }
        let delay = || match self.below(50) {
            0 => 10_000,
            _ => self.below(300),
        };
        let twice = self.below(2) == 0;
        self.doubled.fetch_add(twice.into(), Relaxed);
        (0..=u8::from(twice)).map(|_| delay()).collect()
    }
}

async fn run(
    state: Arc<State>,
    (from, mut events): (AsyncClient, EventLoop),
    filters: [&'static str; 2],
    to: AsyncClient,
) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                for filter in filters {
                    let _ = from.try_subscribe(filter, QoS::AtLeastOnce);
                }
            }
            Ok(Event::Incoming(Packet::Publish(message))) => carry_message(&state, &to, message),
            Ok(_) => {}
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn carry_message(state: &State, to: &AsyncClient, message: Publish) {
    state.carried.fetch_add(1, Relaxed);
    for after in state.fate() {
        let (to, topic, payload) = (to.clone(), message.topic.clone(), message.payload.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(after)).await;
            let _ = to.publish(topic, QoS::AtMostOnce, false, payload).await;
        });
    }
}
