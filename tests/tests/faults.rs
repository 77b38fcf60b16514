//! A network that loses, doubles, overtakes, stalls and dies, between real terminals and a real
//! gateway.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod network;

use anyhow::{Result, ensure};
use network::{Mode, Network};
use palmgate_cli::{
    control::write_broker,
    hands,
    stage::{Gateway, Shape},
};
use palmgate_protocol::{Name, Purpose, terminal::Intent};
use palmgate_stories::Scene;
use palmgate_terminal::{Paired, Presentation, Terminal, TerminalError};
use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

const TILLS: [&str; 3] = ["till-1", "till-2", "till-3"];
/// Longer than any recovery may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Store {
    scene: Scene,
    network: Network,
    tills: Vec<Terminal>,
}

/// A store whose tills reach the broker through a network that the test controls.
async fn store() -> Result<Store> {
    let directory = tempfile::tempdir()?;
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    let ports = network::Ports::free()?;
    let shape = Shape { broker: Some(ports.gateway), ..Shape::new(&tenant, &store) };
    let mut gateway = Gateway::start(directory.path(), &shape).await?;
    let identity = gateway.control.broker_identity("127.0.0.1").await?;
    let certificates = directory.path().join("mosquitto");
    write_broker(&certificates, &gateway.state, &identity)?;
    let network = Network::start(&certificates, ports).await?;
    gateway.ready().await?;
    let kiosk = gateway.terminal("kiosk-1", &["entry"], true).await?;
    let mut tills = Vec::new();
    for name in TILLS {
        gateway.terminal(name, &["entry"], false).await?.close().await;
        let paired = directory.path().join(format!("terminal-{name}"));
        let settings = paired.join("settings.toml");
        let text = fs::read_to_string(&settings)?;
        let (from, to) = (network.ports.gateway.to_string(), network.ports.tills.to_string());
        ensure!(text.contains(&from), "the broker's port is among the settings");
        fs::write(&settings, text.replace(&from, &to))?;
        tills.push(Terminal::connect(Paired::open(&paired)?)?);
    }
    for till in &tills {
        till.ready(PATIENCE).await?;
    }
    let scene = Scene { directory, tenant, store: gateway, kiosk, pictures: hands::load(None)? };
    Ok(Store { scene, network, tills })
}

impl Store {
    /// Every till scans so many times; the answers are how many, and how many were answered.
    async fn scan(&self, index: usize, times: u64) -> Result<(usize, usize)> {
        let answered = AtomicUsize::new(0);
        let pictures = &self.scene.pictures;
        let scans = self.tills.iter().map(|till| async {
            for seed in 0..times {
                let frames = pictures[index].other_frames(seed);
                let hand = Presentation { frames, ..Presentation::default() };
                match till.scan(Intent::Entry, hand).await {
                    Ok(_) => _ = answered.fetch_add(1, Relaxed),
                    Err(TerminalError::Busy) => panic!("three tills are no load"),
                    Err(_) => {}
                }
            }
        });
        let [first, second, third] = scans.collect::<Vec<_>>().try_into().ok().unwrap();
        tokio::join!(first, second, third);
        Ok((TILLS.len() * usize::try_from(times)?, answered.into_inner()))
    }

    /// Scans that were decided, whatever the outcome.
    async fn decided(&self) -> Result<usize> {
        let metrics = self.scene.store.metrics().await?;
        let scans = metrics
            .lines()
            .filter(|line| line.starts_with("palmgate_decisions_total{kind=\"scan\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        Ok(scans.sum())
    }

    /// How long until every till has an answer again.
    async fn recovery(&self) -> Result<Duration> {
        let begun = Instant::now();
        for till in &self.tills {
            while till.ping().await.is_err() {
                ensure!(begun.elapsed() < PATIENCE, "{} stays away", till.name());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(begun.elapsed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_decision_a_capture_and_back_at_once_whatever_the_network_does() -> Result<()> {
    let mut store = store().await?;
    let shopper = store.scene.enrol(0, &[Purpose::Entry]).await?;
    let before = store.decided().await?;

    store.network.bridge.disturb(true);
    let (asked, answered) = store.scan(shopper.index, 20).await?;
    store.network.bridge.disturb(false);
    let healed = store.recovery().await?;
    let decided = store.decided().await? - before;
    println!(
        "30 % lost, 50 % doubled, overtaking: {asked} captures, {answered} answered, {decided} \
         decided; back after {healed:?}; {:?}",
        store.network.bridge.counts()
    );
    assert!(answered <= decided && decided <= asked, "one decision a capture");
    assert!(answered * 2 > asked, "most are answered all the same");

    for (what, mode) in [("stalled", Mode::Stalled), ("half open", Mode::HalfOpen)] {
        store.network.relay.set(mode);
        tokio::time::sleep(Duration::from_secs(10)).await;
        store.network.relay.set(Mode::Open);
        println!("{what} for 10 s: back after {:?}", store.recovery().await?);
    }
    store.network.relay.set(Mode::Cut);
    tokio::time::sleep(Duration::from_secs(2)).await;
    store.network.relay.set(Mode::Open);
    println!("cut for 2 s: back after {:?}", store.recovery().await?);
    store.network.mosquitto.kill_and_restart()?;
    println!("broker killed: back after {:?}", store.recovery().await?);

    let before = store.decided().await?;
    let (asked, answered) = store.scan(shopper.index, 3).await?;
    assert_eq!((answered, store.decided().await? - before), (asked, asked), "all is well again");
    Ok(())
}
