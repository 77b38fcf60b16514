//! Brokers, rogues and rubbish.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::{Context, Result, bail};
use palmgate_cli::{
    control::write_broker,
    hands,
    stage::{Gateway, Shape},
};
use palmgate_protocol::{Custody, Name, Purpose, topic};
use palmgate_seal::pki::{self, Authority, Identity, Role};
use palmgate_stories::{Mosquitto, Scene, accepted, pay};
use palmgate_terminal::Presentation;
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration, Transport,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{fs, net::TcpListener, path::Path, sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_mosquitto_with_the_shipped_rules_takes_the_embedded_brokers_place() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let shape = Shape { broker: Some(port), ..Shape::new(&tenant, &store) };
    let mut gateway = Gateway::start(directory.path(), &shape).await?;
    let identity = gateway.control.broker_identity("127.0.0.1").await?;
    let broker = directory.path().join("mosquitto");
    write_broker(&broker, &gateway.state, &identity)?;
    let _mosquitto = Mosquitto::shipped(&broker, port)?;
    if let Err(error) = gateway.ready().await {
        let log = fs::read_to_string(broker.join("mosquitto.log"))?;
        bail!("{error}\nmosquitto said:\n{log}");
    }
    let kiosk = gateway.terminal("kiosk-1", &["pay"], true).await?;
    let other = gateway.terminal("till-2", &["pay"], false).await?;
    let scene = Scene { directory, tenant, store: gateway, kiosk, pictures: hands::load(None)? };
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let body = scene.present(&other, &shopper, pay(100), None).await?;
    assert!(accepted(&body), "{body:?}");
    drop(other);
    let mut spy = Spy::paired(&scene, "till-2", port)?;
    spy.subscribe("palmgate/1/kiosk-1/down").await?;
    spy.subscribe("#").await?;
    scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(!spy.hears_anything().await, "another terminal's traffic stays unheard");
    Ok(())
}

/// A client of the broker that is no terminal of ours.
struct Spy {
    client: AsyncClient,
    events: EventLoop,
}

impl Spy {
    fn new(id: &str, port: u16, tls: rustls::ClientConfig) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options
            .set_keep_alive(Duration::from_secs(10))
            .set_max_packet_size(4 << 20, 4 << 20)
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        let (client, events) = AsyncClient::new(options, 64);
        Self { client, events }
    }

    /// With the certificate of a real terminal of the scene.
    fn paired(scene: &Scene, terminal: &str, port: u16) -> Result<Self> {
        let directory = scene.directory.path().join(format!("terminal-{terminal}"));
        let identity = terminal_identity(&directory)?;
        let tls = pki::client_config(Some(&identity), identity.authority_der())?;
        Ok(Self::new(terminal, port, tls))
    }

    async fn connects(&mut self) -> bool {
        let connected = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), connected).await.unwrap_or(false)
    }

    async fn subscribe(&mut self, filter: &str) -> Result<()> {
        Ok(self.client.subscribe(filter, QoS::AtLeastOnce).await?)
    }

    async fn hears_anything(&mut self) -> bool {
        let heard = async {
            loop {
                if let Ok(Event::Incoming(Packet::Publish(_))) = self.events.poll().await {
                    return true;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(2), heard).await.unwrap_or(false)
    }

    /// Publishes; true when the broker acknowledges.
    async fn publishes(&mut self, topic: &str, payload: Vec<u8>) -> bool {
        if self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.is_err() {
            return false;
        }
        let acknowledged = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), acknowledged).await.unwrap_or(false)
    }
}

fn terminal_identity(directory: &Path) -> Result<Identity> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let text = read("identity.pem")?;
    Ok(Identity::from_pem(&text, &text)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_client_reaches_nothing_and_others_do_not_notice() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let port = scene.store.broker.port();
    let pem = fs::read(scene.store.state.join("authority.pem"))?;
    let authority = CertificateDer::from_pem_slice(&pem)?;

    let mut nobody = Spy::new("till-9", port, pki::client_config(None, &authority)?);
    assert!(!nobody.connects().await, "no certificate");

    let foreign = foreign_identity("kiosk-1")?;
    let mut impostor = Spy::new("kiosk-1", port, pki::client_config(Some(&foreign), &authority)?);
    assert!(!impostor.connects().await, "a certificate of another authority");

    let till = scene.store.terminal("till-2", &["pay"], false).await?;
    drop(till);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut renamed = {
        let identity = terminal_identity(&scene.directory.path().join("terminal-till-2"))?;
        let tls = pki::client_config(Some(&identity), identity.authority_der())?;
        Spy::new("kiosk-1", port, tls)
    };
    assert!(!renamed.connects().await, "a client id that the certificate does not name");

    for other in ["palmgate/1/kiosk-1/up", "palmgate/1/kiosk-1/down", topic::HEALTH, "elsewhere"] {
        let mut spy = Spy::paired(&scene, "till-2", port)?;
        assert!(spy.connects().await);
        assert!(!spy.publishes(other, vec![0; 10]).await, "{other}");
    }
    let mut spy = Spy::paired(&scene, "till-2", port)?;
    assert!(spy.connects().await);
    spy.subscribe("palmgate/1/kiosk-1/down").await?;
    spy.subscribe("palmgate/#").await?;
    let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(accepted(&body), "{body:?}");
    assert!(!spy.hears_anything().await);

    scene.store.control.revoke("till-2").await?;
    let mut revoked = Spy::paired(&scene, "till-2", port)?;
    assert!(!revoked.connects().await, "a revoked certificate");
    Ok(())
}

fn foreign_identity(name: &str) -> Result<Identity> {
    let now = palmgate_protocol::Timestamp::from_millis(i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis(),
    )?);
    let authority = Authority::generate("elsewhere", now)?;
    let pending = Identity::generate();
    let day = Duration::from_hours(24);
    let issued = authority.issue(&pending.csr_der(), &name.parse()?, Role::Client, now, day)?;
    Ok(pending.certified(vec![issued.der, authority.certificate_der().clone()])?)
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_every_topic_is_named_in_the_log_and_disturbs_nobody() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let port = scene.store.broker.port();
    drop(scene.store.terminal("till-2", &["pay"], false).await?);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut rogue = Spy::paired(&scene, "till-2", port)?;
    assert!(rogue.connects().await);
    for channel in ["join", "up"] {
        let topic = format!("palmgate/1/till-2/{channel}");
        for length in [0, 1, 2, 17, 300, 70_000] {
            let payload: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            assert!(rogue.publishes(&topic, payload).await, "{channel} {length}");
        }
    }
    let huge = vec![7; palmgate_protocol::limits::MAX_PAYLOAD_BYTES + 100_000];
    assert!(!rogue.publishes("palmgate/1/till-2/up", huge).await, "over the limit");
    let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(accepted(&body), "{body:?}");
    let log = fs::read_to_string(scene.store.state.with_extension("log"))?;
    assert!(log.contains("a join was refused") && log.contains("till-2"), "{log}");
    let metrics = scene.store.metrics().await?;
    assert!(metrics.contains("palmgate_terminal_faults_total{fault=\"join-refused\"}"));
    assert!(!log.contains("panicked"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_capture_is_decided_once_however_often_it_is_sent() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let hand = || Presentation {
        frames: scene.pictures[shopper.index].other_frames(3),
        ..Presentation::default()
    };
    for _ in 0..3 {
        assert!(accepted(&scene.kiosk.scan(pay(100), hand()).await?.body));
    }
    let metrics = scene.store.metrics().await?;
    let line = "palmgate_decisions_total{kind=\"scan\",outcome=\"accepted\",purpose=\"pay\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    Ok(())
}
