//! Terminals come, change their certificates and names, and go.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, bail};
use palmgate_cli::stage::{Gateway, Shape};
use palmgate_gateway::control::AddTerminal;
use palmgate_protocol::{Name, terminal::Intent};
use palmgate_seal::{
    pairing::PairingCode,
    pki::{self, Identity},
};
use palmgate_stories::palmgate;
use palmgate_terminal::{Invitation, Paired, Presentation, Terminal, TerminalError};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, TlsConfiguration, Transport};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Seconds that certificates last in the story of renewal.
const LIFETIME: u64 = 30;
/// How long something may take that takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

async fn gateway(directory: &Path, more: &str) -> Result<Gateway> {
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    let shape = Shape { more, ..Shape::new(&tenant, &store) };
    Gateway::start(directory, &shape).await
}

fn identity(directory: &Path) -> Result<Identity> {
    let text = fs::read_to_string(directory.join("identity.pem"))?;
    Ok(Identity::from_pem(&text, &text)?)
}

/// Whether the broker takes this identity.
async fn is_let_in(identity: &Identity, port: u16) -> Result<bool> {
    let tls = pki::client_config(Some(identity), identity.authority_der())?;
    let mut options = MqttOptions::new(identity.name().as_str(), "127.0.0.1", port);
    options
        .set_keep_alive(Duration::from_secs(10))
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    let (_client, mut events) = AsyncClient::new(options, 8);
    let connected = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, connected).await?)
}

/// The serial number of the certificate that HTTPS shows.
async fn shown(gateway: &Gateway) -> Result<f64> {
    let metrics = gateway.metrics().await?;
    let series = "palmgate_certificate_expiry_timestamp_seconds{certificate=\"gateway\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    Ok(line.context("the gateway tells when its certificate ends")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_on_both_sides_and_no_capture_is_lost() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let more = format!("certificate_seconds = {LIFETIME}\n");
    let gateway = gateway(directory.path(), &more).await?;
    let kiosk = gateway.terminal("kiosk-1", &["entry"], false).await?;
    let place = directory.path().join("terminal-kiosk-1");
    let (first, ends) = (identity(&place)?, shown(&gateway).await?);
    let begun = Instant::now();
    let mut asked = 0;
    // Past the end of the first certificates, and of those after them.
    while begun.elapsed() < Duration::from_secs(2 * LIFETIME + 5) {
        kiosk.ping().await.with_context(|| format!("after {:?}", begun.elapsed()))?;
        let nobody = Presentation::default();
        kiosk.scan(Intent::Entry, nobody).await.with_context(|| format!("scan {asked}"))?;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let last = identity(&place)?;
    assert_ne!(first.serial(), last.serial());
    assert!(first.verifying_key() != last.verifying_key(), "with a new key");
    assert!(shown(&gateway).await? > ends, "the gateway, too, and while it ran");
    let metrics = gateway.metrics().await?;
    for certificate in ["gateway", "terminal"] {
        let series = "palmgate_certificate_renewals_total";
        let wanted = format!("{series}{{certificate=\"{certificate}\",outcome=\"failed\"}} 0");
        assert!(metrics.contains(&wanted), "{wanted}");
    }
    assert!(asked > 10, "{asked} requests");
    kiosk.close().await;
    // A copy of the terminal from before: its certificate has ended, and was revoked before that.
    assert!(!is_let_in(&first, gateway.broker.port()).await?);
    assert!(is_let_in(&identity(&place)?, gateway.broker.port()).await?, "the control");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_terminal_is_worth_nothing_once_it_has_another_certificate() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Long enough that nothing ends by itself.
    let gateway = gateway(directory.path(), "certificate_seconds = 600\n").await?;
    let kiosk = gateway.terminal("kiosk-1", &["entry"], false).await?;
    let port = gateway.broker.port();
    let place = directory.path().join("terminal-kiosk-1");
    let copied = identity(&place)?;
    kiosk.close().await;
    assert!(is_let_in(&copied, port).await?, "as long as the terminal uses it");
    gateway.control.revoke("kiosk-1").await?;
    assert!(!is_let_in(&copied, port).await?, "removed");
    let again = gateway.control.add(&wanted("kiosk-1")).await?;
    let other = directory.path().join("again");
    let url = format!("https://{}", gateway.https);
    let name = "kiosk-1".parse()?;
    let paired = Paired::pair(&url, &PairingCode::parse(&again.code)?, &name, &other).await?;
    drop(paired);
    assert!(is_let_in(&identity(&other)?, port).await?);
    assert!(!is_let_in(&copied, port).await?, "the same name brings nothing back");
    Ok(())
}

fn wanted(name: &str) -> AddTerminal {
    AddTerminal { name: name.into(), purposes: vec!["entry".into()], enrols: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_five_tries_and_not_beyond_a_restart() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut gateway = gateway(directory.path(), "").await?;
    let url = format!("https://{}", gateway.https);
    let name: Name = "till-1".parse()?;
    let place = directory.path().join("till-1");
    let pair = async |code: &PairingCode| Paired::pair(&url, code, &name, &place).await;
    let wrong = |code: &str| {
        // The last symbol holds five bits of the secret; the first half pins the gateway.
        let last = if code.ends_with('0') { '1' } else { '0' };
        PairingCode::parse(&format!("{}{last}", &code[..code.len() - 1]))
    };
    let shown = gateway.control.add(&wanted("till-1")).await?;
    for _ in 0..5 {
        let refused = pair(&wrong(&shown.code)?).await.err();
        assert!(matches!(refused, Some(TerminalError::PairingRefused { .. })));
    }
    assert!(pair(&PairingCode::parse(&shown.code)?).await.is_err(), "void after five");

    let shown = gateway.control.add(&wanted("till-1")).await?;
    gateway.process.kill()?;
    gateway.restart().await?;
    assert!(pair(&PairingCode::parse(&shown.code)?).await.is_err(), "void after a crash");

    let shown = gateway.control.add(&wanted("till-1")).await?;
    let paired = pair(&PairingCode::parse(&shown.code)?).await?;
    assert_eq!(paired.name().as_str(), "till-1");
    drop(paired);
    let log = fs::read_to_string(gateway.state.with_extension("log"))?;
    assert!(!log.contains(&shown.code), "no code is logged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanned_invitation_pairs_and_a_new_name_ends_the_old_one() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let gateway = gateway(directory.path(), "").await?;
    let state = gateway.state.display().to_string();
    let added = palmgate(&["terminal", "add", "till-1", "--purpose", "entry", "--state", &state])?;
    assert!(added.success, "{}", added.errors);
    assert!(added.text.contains('█') && added.text.contains("five tries"), "{}", added.text);
    let code = added.text.lines().find_map(|line| PairingCode::parse(line).ok());
    let code = code.context("the code stands on a line of its own")?;
    let port = gateway.https.port();
    let scanned = Invitation::new("till-1".parse()?, "127.0.0.1", port, code)?.text();
    let old = directory.path().join("old");
    let paired = Paired::accept(&scanned.expose().parse()?, &old).await?;
    let till = Terminal::connect(paired)?;
    till.ready(PATIENCE).await?;

    let renamed = palmgate(&["terminal", "rename", "till-1", "till-7", "--state", &state])?;
    assert!(renamed.success, "{}", renamed.errors);
    till.ping().await.context("the old name serves until the new one is paired")?;
    let code = renamed.text.lines().find_map(|line| PairingCode::parse(line).ok());
    let code = code.context("the code stands on a line of its own")?.text();
    let place = directory.path().join("new").display().to_string();
    let url = format!("https://{}", gateway.https);
    let pair = ["terminal", "pair", &url, code.expose(), "till-7", "--directory", &place];
    let paired = palmgate(&pair)?;
    assert!(paired.success, "{}", paired.errors);
    let names: Vec<String> =
        gateway.control.list().await?.into_iter().map(|terminal| terminal.name).collect();
    assert_eq!(names, ["till-7"]);
    assert!(!is_let_in(&identity(&old)?, gateway.broker.port()).await?);
    if till.ping().await.is_ok() {
        bail!("the old name is still answered");
    }
    Ok(())
}
