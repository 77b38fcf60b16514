//! Terminals come, change their certificates and names, and go.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, bail};
use palmgate_cli::stage::{Gateway, Shape};
use palmgate_gateway::control::AddTerminal;
use palmgate_protocol::{
    Name,
    pairing::{PATH, PairRequest},
    terminal::Intent,
};
use palmgate_seal::{
    pairing::{PairingCode, pinned_client_config},
    pki::{self, Identity},
};
use palmgate_stories::palmgate;
use palmgate_terminal::{
    Invitation, Paired, Presentation, RosterFault, StoreRoster, Terminal, TerminalError,
};
use rumqttc::{AsyncClient, ConnectionError, MqttOptions, TlsConfiguration, Transport};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Seconds that certificates last in the story of renewal.
const LIFETIME: u64 = 60;
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

/// Whether the broker takes this identity. Under another name than the certificate's it is refused
/// after that, so that nobody's connection is displaced.
async fn is_let_in(identity: &Identity, port: u16) -> Result<bool> {
    let tls = pki::client_config(Some(identity), identity.authority_der())?;
    let mut options = MqttOptions::new("nobody", "127.0.0.1", port);
    options
        .set_keep_alive(Duration::from_secs(10))
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    let (_client, mut events) = AsyncClient::new(options, 8);
    let connected = async {
        loop {
            match events.poll().await {
                Err(ConnectionError::ConnectionRefused(_)) => return true,
                Err(_) => return false,
                Ok(_) => {}
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, connected).await?)
}

/// When the gateway's certificate ends, as its metrics tell.
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
    let port = gateway.broker.port();
    let begun = Instant::now();
    let (mut asked, mut renewed, mut revoked) = (0, Vec::new(), None);
    // Past the end of the first certificates, and two later ones of the terminal.
    while renewed.len() < 2 || begun.elapsed() < Duration::from_secs(LIFETIME + 5) {
        if begun.elapsed() > PATIENCE * 5 {
            bail!("{} new certificates in {:?}", renewed.len(), begun.elapsed());
        }
        kiosk.ping().await.with_context(|| format!("after {:?}", begun.elapsed()))?;
        let nobody = Presentation::default();
        kiosk.scan(Intent::Entry, nobody).await.with_context(|| format!("scan {asked}"))?;
        asked += 1;
        let now = identity(&place)?.serial().to_vec();
        if now != first.serial() && renewed.last() != Some(&now) {
            renewed.push(now);
        }
        if revoked.is_none() && !renewed.is_empty() && !is_let_in(&first, port).await? {
            revoked = Some(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let revoked = revoked.context("the first certificate is refused")?;
    assert!(revoked < Duration::from_secs(LIFETIME), "{revoked:?}: it was revoked, not outlived");
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
    assert!(is_let_in(&identity(&place)?, port).await?, "the control");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_terminal_does_not_come_back_with_its_name() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let gateway = gateway(directory.path(), "").await?;
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
    AddTerminal {
        name: name.into(),
        purposes: vec!["entry".into()],
        enrols: false,
        sensors: Vec::new(),
    }
}

/// Sends a wrong secret to the gateway that `code` names, as somebody might who knows no code.
async fn guess(url: &str, code: &PairingCode) -> Result<u16> {
    let mut secret = *code.secret();
    secret[4] ^= 1;
    let csr_der = Identity::generate().csr_der();
    let request = PairRequest { secret, name: "till-1".parse()?, csr_der };
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(pinned_client_config(code)).build()?;
    let body = palmgate_protocol::encode(&request);
    Ok(client.post(format!("{url}{PATH}")).body(body).send().await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_five_tries_and_not_beyond_a_restart() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut gateway = gateway(directory.path(), "").await?;
    let url = format!("https://{}", gateway.https);
    let name: Name = "till-1".parse()?;
    let place = directory.path().join("till-1");
    let pair = async |code: &PairingCode| Paired::pair(&url, code, &name, &place).await;
    let shown = gateway.control.add(&wanted("till-1")).await?;
    let code = PairingCode::parse(&shown.code)?;
    let typo = format!("{}{}", &shown.code[..28], u8::from(shown.code.ends_with('0')));
    let refused = pair(&PairingCode::parse(&typo)?).await.err();
    assert!(matches!(refused, Some(TerminalError::NotTheGateway { .. })), "it costs no try");
    for _ in 0..5 {
        assert_eq!(guess(&url, &code).await?, 403);
    }
    assert!(pair(&code).await.is_err(), "void after five");

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

#[tokio::test(flavor = "multi_thread")]
async fn the_check_connects_to_the_broker_anew_and_the_signal_reloads_what_can_change() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let mut gateway = gateway(directory.path(), "").await?;
    let till = gateway.terminal("till-1", &["entry"], false).await?;
    let file = directory.path().join("lyon.toml");
    let config = file.display().to_string();
    let checked = palmgate(&["check", "--config", &config])?;
    assert!(checked.text.contains("connected and delivered anew"), "{}", checked.text);
    assert!(checked.text.contains("the one of the gateway ends first, in 39"), "{}", checked.text);

    let text = fs::read_to_string(&file)?;
    let log = gateway.state.with_extension("log");
    let reloaded = async |gateway: &Gateway, wanted: &str| -> Result<()> {
        gateway.process.reload()?;
        let begun = Instant::now();
        while !fs::read_to_string(&log)?.contains(wanted) {
            if begun.elapsed() > PATIENCE {
                bail!("the log does not say {wanted:?}:\n{}", fs::read_to_string(&log)?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    fs::write(&file, format!("{text}\n[colours]\nblue = true\n"))?;
    reloaded(&gateway, "nothing is reloaded").await?;
    till.ping().await.context("a wrong file changes nothing")?;
    fs::write(&file, format!("{text}\n[limits]\ntries_before_block = 3\n"))?;
    reloaded(&gateway, "something else than [log] and the law pack changed").await?;
    fs::write(&file, format!("{text}\n[log]\nlevel = \"debug\"\n"))?;
    reloaded(&gateway, "level=debug").await?;
    till.ping().await.context("nobody noticed")?;
    gateway.process.stop()?;
    Ok(())
}

/// Waits until a terminal has a roster like this.
async fn roster(of: &Terminal, like: impl Fn(&StoreRoster) -> bool) -> Result<Arc<StoreRoster>> {
    let begun = Instant::now();
    loop {
        match of.roster()? {
            Some(roster) if like(&roster) => return Ok(roster),
            shown if begun.elapsed() > PATIENCE => {
                bail!("{} has {:?}", of.name(), shown.map(|shown| shown.roster.sequence))
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The hashes of rosters in the ledger.
fn logged(state: &Path) -> Result<String> {
    let entries = fs::read_dir(state.join("ledger/entries"))?;
    let entries = entries.map(|file| Ok(fs::read_to_string(file?.path())?));
    Ok(entries.collect::<Result<Vec<_>>>()?.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_terminal_has_the_same_list_of_all_and_hears_of_a_removal() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let gateway = gateway(directory.path(), "").await?;
    let till = gateway.terminal("till-1", &["entry"], false).await?;
    let kiosk = gateway.terminal("kiosk-1", &["entry"], false).await?;
    let names = |shown: &StoreRoster| -> Vec<String> {
        shown.roster.members.iter().map(|member| member.name.to_string()).collect()
    };
    let both = |shown: &StoreRoster| names(shown) == ["gateway", "kiosk-1", "till-1"];
    let (first, second) = (roster(&till, both).await?, roster(&kiosk, both).await?);
    assert_eq!(first, second, "one list for everybody, the older terminal was told");
    let shown = gateway.control.roster().await?;
    assert_eq!((shown.sequence, &shown.hash), (first.roster.sequence, &first.hash_text()));
    let state = gateway.state.to_str().context("the directory's name is text")?;
    let listed = palmgate(&["terminal", "list", "--state", state])?;
    assert!(listed.text.contains(&first.hash_text()), "a person compares it");

    gateway.control.revoke("kiosk-1").await?;
    let alone = |shown: &StoreRoster| names(shown) == ["gateway", "till-1"];
    let after = roster(&till, alone).await?;
    assert!(after.roster.sequence > first.roster.sequence && after.hash != first.hash);
    till.scan(Intent::Entry, Presentation::default()).await?;

    // A terminal that starts anew still knows the number, and both sides go on with it.
    till.close().await;
    let place = directory.path().join("terminal-till-1");
    assert!(place.join("roster").is_file());
    let till = Terminal::connect(Paired::open(&place)?)?;
    assert_eq!(roster(&till, alone).await?, after);
    let begun = Instant::now();
    while ![&first, &after].iter().all(|shown| {
        logged(&gateway.state).is_ok_and(|entries| entries.contains(&shown.hash_text()))
    }) {
        assert!(begun.elapsed() < PATIENCE, "the ledger has every list");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_has_seen_a_later_list_sends_no_picture() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let gateway = gateway(directory.path(), "").await?;
    let till = gateway.terminal("till-1", &["entry"], false).await?;
    till.scan(Intent::Entry, Presentation::default()).await?;
    till.close().await;
    // As after a gateway that was put back to an earlier state: [sequence, hash].
    let kept = [&[0x82, 0x18, 0x63, 0x58, 0x20][..], &[7; 32]].concat();
    let place = directory.path().join("terminal-till-1");
    fs::write(place.join("roster"), kept)?;
    let till = Terminal::connect(Paired::open(&place)?)?;
    till.ready(PATIENCE).await?;
    let refused = till.scan(Intent::Entry, Presentation::default()).await;
    let older = |fault: &RosterFault| matches!(fault, RosterFault::Older { kept: 0x63, .. });
    assert!(matches!(refused, Err(TerminalError::Roster(fault)) if older(&fault)));
    till.ping().await?;
    Ok(())
}
