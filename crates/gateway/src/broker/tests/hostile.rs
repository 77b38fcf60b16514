use super::*;
use crate::broker::door::{Identity, Shared};
use std::net::IpAddr;
use tokio::io::duplex;

/// The generator `SplitMix64`, so that a failing packet can be found again.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }

    /// Changes, cuts, doubles and inserts bytes.
    fn mutate(&mut self, packet: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(packet.len().max(1));
            match self.below(6) {
                0 if at < packet.len() => packet[at] ^= 1 << self.below(8),
                1 if at < packet.len() => packet[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => packet.truncate(at),
                3 => packet.insert(at, self.below(256) as u8),
                4 => packet.extend_from_within(at..),
                _ => packet.splice(..at, []).for_each(drop),
            }
        }
    }
}

/// Packets of the client `evil`, whose name has six letters.
fn corpus(evil: &str) -> Vec<Vec<u8>> {
    let topic = |channel: &str| format!("palmgate/1/{evil}/{channel}");
    let mut subscribe = vec![0x82, 27, 0, 1, 0, 22];
    subscribe.extend_from_slice(topic("down\x01").as_bytes());
    let mut unsubscribe = vec![0xa2, 26, 0, 2, 0, 22];
    unsubscribe.extend_from_slice(topic("down").as_bytes());
    vec![
        connect(evil, 60),
        vec![0x20, 2, 0, 0],
        vec![0xb0, 2, 0, 1],
        publish(&topic("up"), 1, b"payload"),
        publish(&topic("join"), 2, &[0; 200]),
        vec![0x30, 3, 0, 1, b'a'],
        vec![0x34, 5, 0, 1, b'a', 0, 1],
        vec![0x40, 2, 0, 1],
        vec![0x50, 2, 0, 1],
        vec![0x62, 2, 0, 1],
        vec![0x70, 2, 0, 1],
        subscribe,
        vec![0x90, 3, 0, 1, 0],
        unsubscribe,
        vec![0xc0, 0],
        vec![0xd0, 0],
        vec![0xe0, 0],
    ]
}

/// Two terminals and a gateway that must not notice anything.
struct Bystanders {
    gateway: Client,
    till: Client,
}

impl Bystanders {
    async fn new(store: &Store) -> Self {
        let mut till = store.client("till-1").await;
        assert!(till.subscribe("palmgate/1/till-1/down").await);
        Self { gateway: store.gateway().await, till }
    }

    async fn are_served(&mut self) {
        self.till.publish("palmgate/1/till-1/up", "still there?").await.unwrap();
        while self.gateway.message().await.payload != "still there?" {}
        self.gateway.publish("palmgate/1/till-1/down", "yes").await.unwrap();
        assert_eq!(self.till.message().await.payload, "yes");
    }
}

#[tokio::test]
async fn known_killers_of_other_brokers_cost_one_connection() {
    let store = Store::open();
    let mut bystanders = Bystanders::new(&store).await;
    let killers: [&[u8]; 4] = [
        &[0x20, 2, 0, 0],
        &[0xb0, 2, 0, 1],
        // A topic that starts with a character of several bytes.
        &[0x30, 4, 0, 2, 0xc3, 0xa9],
        &[0x62, 2, 0, 1],
    ];
    for killer in killers {
        let mut evil = store.raw_client("evil-1").await;
        evil.write_all(killer).await.unwrap();
        assert!(evil.read_u8().await.is_err());
        let again = store.raw_client("evil-1").await;
        bystanders.are_served().await;
        drop(again);
    }
}

/// Sends the packets of these seeds from a client of its own.
async fn send_mutated(shared: Arc<Shared>, evil: String, seeds: impl Iterator<Item = u64>) {
    let (corpus, address) = (corpus(&evil), IpAddr::from([127, 0, 0, 2]));
    for seed in seeds {
        let mut random = Seeded(seed);
        let mut packet = corpus[random.below(corpus.len())].clone();
        random.mutate(&mut packet);
        // What comes after the handshake is the same code on any stream.
        let (mut stream, theirs) = duplex(4096);
        let first = if seed.is_multiple_of(10) { Vec::new() } else { connect(&evil, 60) };
        stream.write_all(&[first, packet].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let visit = async {
            let judged_by = shared.tls.borrow().clone();
            let identity = Identity { name: name(&evil), valid: DAY, judged_by };
            let session = shared.connect(theirs, address, identity).await?;
            Err::<(), _>(session.serve(&shared.limits, &shared.counters, &shared.pressure).await)
        };
        let ended = timeout(PATIENCE, visit).await;
        let reason = ended.unwrap_or_else(|_| panic!("seed {seed} hangs")).unwrap_err();
        assert_ne!(reason, Reason::RouterLost, "seed {seed}");
    }
}

async fn bother(packets: u64) {
    let store = Store::open();
    let mut bystanders = Bystanders::new(&store).await;
    // Each waits for the router's thread several times: many at once keep the processors at work.
    let clients = 64;
    let round = packets.min(1_000_000);
    for from in (0..packets).step_by(usize::try_from(round).unwrap()) {
        let evils: Vec<_> = (0..clients)
            .map(|client| {
                let seeds = (from..from + round).skip(client).step_by(clients);
                let shared = store.broker.shared.clone();
                tokio::spawn(send_mutated(shared, format!("evl-{client:02}"), seeds))
            })
            .collect();
        while !evils.iter().all(tokio::task::JoinHandle::is_finished) {
            bystanders.are_served().await;
            sleep(Duration::from_millis(100)).await;
        }
        for evil in evils {
            evil.await.unwrap();
        }
    }
    bystanders.are_served().await;
    let evil = store.raw_client("evil-1").await;
    assert_eq!(store.broker.counters().of(Reason::Lost), 0, "nobody else was disconnected");
    drop(evil);
    println!("{packets} mutated packets, no dead listener");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_mutated_packets_bother_nobody_else() {
    bother(100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn ten_million_mutated_packets_bother_nobody_else() {
    bother(10_000_000).await;
}

#[tokio::test]
async fn mutated_packets_over_tls_bother_nobody_else() {
    let store = Store::open();
    let mut bystanders = Bystanders::new(&store).await;
    let corpus = corpus("evil-1");
    for seed in 0..200 {
        let mut random = Seeded(1_000_000 + seed);
        let mut evil = store.raw_client("evil-1").await;
        for _ in 0..20 {
            let mut packet = corpus[random.below(corpus.len())].clone();
            random.mutate(&mut packet);
            if evil.write_all(&packet).await.is_err() {
                break;
            }
        }
    }
    bystanders.are_served().await;
}
