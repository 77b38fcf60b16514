//! The same number of publishers, messages of the same size at the same rate, and one subscriber,
//! with a Mosquitto between them and nothing else: no TLS, no MLS, no work on pictures.

use crate::{arguments::Arguments, offer::Tally};
use anyhow::{Context, Result, bail};
use palmgate_cli::stage::free_address;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

/// How long the last messages may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Latencies from publisher to subscriber.
pub(crate) async fn through(
    arguments: &Arguments,
    bytes: usize,
    rate: f64,
    time: Duration,
) -> Result<Tally> {
    let directory = tempfile::tempdir()?;
    let port = free_address()?.port();
    let _broker = start(directory.path(), port)?;
    let (subscriber, mut events) = client("subscriber", port);
    subscriber.subscribe("load/+", QoS::AtLeastOnce).await?;
    connected(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    let mut running = JoinSet::new();
    let mut publishers = Vec::with_capacity(arguments.terminals);
    for number in 0..arguments.terminals {
        let (publisher, mut events) = client(&format!("till-{number}"), port);
        connected(&mut events, |packet| matches!(packet, Packet::ConnAck(_))).await?;
        running.spawn(async move { while events.poll().await.is_ok() {} });
        publishers.push(publisher);
    }
    let start = Instant::now();
    let count = (rate * time.as_secs_f64()) as usize;
    let heard = tokio::spawn(listen(events, start, count));
    for number in 0..count {
        let comes = start + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(comes.into()).await;
        let mut payload = vec![0; bytes.max(8)];
        let after = u64::try_from((comes - start).as_nanos()).unwrap_or(u64::MAX);
        payload[..8].copy_from_slice(&after.to_be_bytes());
        let publisher = &publishers[number % publishers.len()];
        publisher.publish("load/up", QoS::AtLeastOnce, false, payload).await?;
    }
    Ok(heard.await?)
}

async fn listen(mut events: EventLoop, start: Instant, count: usize) -> Tally {
    let mut tally = Tally::default();
    while tally.asked < count {
        match timeout(PATIENCE, events.poll()).await {
            Ok(Ok(Event::Incoming(Packet::Publish(message)))) => {
                let Some(after) = message.payload.first_chunk() else { continue };
                let sent = start + Duration::from_nanos(u64::from_be_bytes(*after));
                tally.answered(sent.elapsed());
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    tally.lost = count - tally.asked;
    tally.finish();
    tally
}

fn client(id: &str, port: u16) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_max_packet_size(4 << 20, 4 << 20);
    let (client, mut events) = AsyncClient::new(options, 64);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

async fn connected(events: &mut EventLoop, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
    let wait = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(packet)) if wanted(&packet) => return,
                Ok(_) => {}
                // Mosquitto may still be starting.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, wait).await.context("Mosquitto does not answer")
}

fn start(directory: &Path, port: u16) -> Result<Mosquitto> {
    let file = directory.join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
         persistence false\nmax_connections -1\nmax_queued_messages 0\n"
    );
    std::fs::write(&file, text)?;
    for program in ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"] {
        let command = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(child) = command {
            return Ok(Mosquitto(child));
        }
    }
    bail!("mosquitto is installed by `cargo xtask load`")
}
