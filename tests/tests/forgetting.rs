//! Withdrawn, erased, and provably so.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_cli::stage::{Cloud, Gateway};
use palmgate_ledger::receipt::{self, Kind, Reason, RecipientState, Status, Verified};
use palmgate_protocol::{
    Custody, Purpose, PurposeSet,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Scene, accepted, palmgate, pay, phone, token};
use palmgate_terminal::{Paired, Terminal};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_shopper_withdraws_one_purpose_and_keeps_the_other() -> Result<()> {
    let mut scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay, Purpose::Loyalty]).await?;
    let purposes = PurposeSet::default().with(Purpose::Pay);
    let body = scene.present(&scene.kiosk, &shopper, Intent::Withdraw { purposes }, None).await?;
    assert!(matches!(body, AnswerBody::Done), "{body:?}");
    for restarted in [false, true] {
        if restarted {
            scene.store.process.stop()?;
            scene.store.restart().await?;
            scene.kiosk.ready(Duration::from_secs(20)).await?;
        }
        let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
        assert!(matches!(body, AnswerBody::NotRecognised), "restarted {restarted}: {body:?}");
        let body = scene.present(&scene.kiosk, &shopper, Intent::Loyalty, None).await?;
        assert!(accepted(&body), "restarted {restarted}: {body:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_shopper_is_gone_after_a_restart_and_the_receipt_verifies_offline() -> Result<()>
{
    for custody in [Custody::Operator, Custody::Split, Custody::Subject] {
        let mut scene = Scene::alone(custody).await?;
        let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
        let claim = (custody != Custody::Operator).then_some(0);
        let body = scene.present(&scene.kiosk, &shopper, Intent::Erase, claim).await?;
        let AnswerBody::Erased { receipt } = body else { panic!("{custody}: {body:?}") };
        let key = fs::read_to_string(scene.store.state.join("ledger.pub"))?;
        let key = palmgate_seal::sign::VerifyingKey(hex(key.trim()));
        let verified = receipt::verify(&receipt, Some(&key))?;
        assert_eq!((verified.status, verified.trusted), (Status::Partial, true));
        let waits = verified.recipients.iter().filter(|one| !one.is_settled());
        let waits: Vec<_> = waits.map(|one| one.name.as_str()).collect();
        assert_eq!(waits, [receipt::TERMINALS, receipt::BROKER], "the kiosk's session is as old");
        let changed = receipt.replacen("G-17", "G-18", 1);
        assert!(receipt::verify(&changed, Some(&key)).is_err());
        for restarted in [false, true] {
            if restarted {
                scene.store.process.stop()?;
                scene.store.restart().await?;
                scene.kiosk.ready(Duration::from_secs(20)).await?;
            }
            let body = scene.present(&scene.kiosk, &shopper, pay(100), claim).await?;
            assert!(!accepted(&body), "{custody}, restarted {restarted}: {body:?}");
        }
        let joined = within(Duration::from_mins(1), async || {
            Ok(kept_receipt(&scene.store.state)?.status == Status::Complete)
        });
        assert!(joined.await?, "{custody}: a gateway that restarts has no older session");
        for canary in [phone(shopper.index), token(shopper.index)] {
            assert!(scene.files_with(canary.as_bytes())?.is_empty());
        }
        let ledger = scene.store.state.join("ledger");
        palmgate_ledger::verify::directory(&ledger, &key)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_reaches_the_other_store_and_the_receipt_becomes_complete() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
    let custody = Custody::Operator;
    let paris = Scene::with(custody, Some(&cloud), tempfile::tempdir()?, "paris").await?;
    let lyon = Scene::with(custody, Some(&cloud), directory, "lyon").await?;
    let shopper = paris.enrol(0, &[Purpose::Pay, Purpose::Roaming]).await?;
    assert!(
        within(Duration::from_secs(10), async || {
            Ok(accepted(&lyon.present(&lyon.kiosk, &shopper, pay(100), Some(0)).await?))
        })
        .await?
    );
    let body = paris.present(&paris.kiosk, &shopper, Intent::Erase, None).await?;
    let AnswerBody::Erased { receipt } = body else { panic!("{body:?}") };
    assert_eq!(receipt::verify(&receipt, None)?.status, Status::Partial);
    assert!(
        within(Duration::from_secs(15), async || {
            Ok(!accepted(&lyon.present(&lyon.kiosk, &shopper, pay(100), None).await?))
        })
        .await?,
        "lyon forgets, too"
    );
    let read = || kept_receipt(&paris.store.state);
    assert!(
        within(Duration::from_mins(2), async || Ok(read()?.status == Status::Complete)).await?,
        "cloud, lyon and the kiosk have confirmed"
    );
    let key = fs::read_to_string(paris.store.state.join("cloud.pub"))?;
    let key = palmgate_seal::sign::VerifyingKey(hex(key.trim()));
    read()?.check_acknowledgement(&receipt::CLOUD.parse()?, &key)?;
    let other = palmgate_seal::sign::VerifyingKey([9; 32]);
    assert!(read()?.check_acknowledgement(&receipt::CLOUD.parse()?, &other).is_err());
    let cosigned = paris.store.state.join("ledger.cosigned");
    assert!(
        within(Duration::from_secs(15), async || Ok(cosigned.exists())).await?,
        "the cloud is the ledger's witness"
    );
    let log = fs::read_to_string(paris.store.state.join("ledger.pub"))?;
    let log = palmgate_seal::sign::VerifyingKey(hex(log.trim()));
    let witness = fs::read(cloud.state.join("witness.key"))?;
    let witness = palmgate_seal::sign::SigningKey::from_pkcs8(&witness).unwrap().public();
    let (note, name) = (fs::read_to_string(&cosigned)?, "palmgate-witness/tenant");
    let (checkpoint, _) = palmgate_ledger::witness::verify(&note, &log, name, &witness)?;
    assert!(checkpoint.size > 0);
    assert!(palmgate_ledger::witness::verify(&note, &log, name, &other).is_err());
    Ok(())
}

/// Two terminals are off when somebody is erased; one comes back, one never does.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_waits_for_a_terminal_that_is_off_and_not_for_one_that_was_removed() -> Result<()>
{
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let (till, lost) = (
        scene.store.terminal("till-2", &["pay"], false).await?,
        scene.store.terminal("till-3", &["pay"], false).await?,
    );
    for terminal in [&till, &lost] {
        assert!(accepted(&scene.present(terminal, &shopper, pay(100), None).await?));
    }
    till.close().await;
    lost.close().await;
    let copy = scene.present(&scene.kiosk, &shopper, Intent::Export, None).await?;
    assert!(matches!(copy, AnswerBody::Exported { .. }), "{copy:?}");
    let body = scene.present(&scene.kiosk, &shopper, Intent::Erase, None).await?;
    let AnswerBody::Erased { receipt } = body else { panic!("{body:?}") };
    let of = |verified: &Verified, kind| {
        verified.recipients.iter().find(|one| one.kind == Some(kind)).cloned()
    };
    let outstanding = |verified: &Verified| -> Vec<String> {
        let terminals = of(verified, Kind::Terminals).unwrap();
        terminals.outstanding.iter().map(ToString::to_string).collect()
    };
    let first = receipt::verify(&receipt, None)?;
    assert_eq!(outstanding(&first), ["kiosk-1", "till-2", "till-3"]);
    assert_eq!(of(&first, Kind::Exports).unwrap().state, RecipientState::HandedOver);
    assert!(of(&first, Kind::Cloud).is_none(), "there is none");

    let read = || kept_receipt(&scene.store.state);
    let only = async |left: &[&str]| {
        within(Duration::from_mins(2), async || Ok(outstanding(&read()?) == left)).await
    };
    assert!(only(&["till-2", "till-3"]).await?, "the kiosk began a session anew");
    assert_eq!(read()?.status, Status::Partial);
    assert_eq!(of(&read()?, Kind::Broker).unwrap().state, RecipientState::Pending);
    assert!(scene.office(&["terminal", "revoke", "till-3"])?.success);
    assert!(only(&["till-2"]).await?, "nobody waits for a terminal that was removed");

    let paired = Paired::open(&scene.directory.path().join("terminal-till-2"))?;
    let till = Terminal::connect(paired)?;
    till.ready(Duration::from_secs(20)).await?;
    assert!(
        within(Duration::from_mins(2), async || Ok(read()?.status == Status::Complete)).await?,
        "a terminal that comes back begins a session anew"
    );
    let last = read()?;
    let terminals = of(&last, Kind::Terminals).unwrap();
    assert_eq!(terminals.reason, Some(Reason::SessionsBegunAnew));
    assert_eq!(of(&last, Kind::Broker).unwrap().reason, Some(Reason::CiphertextWithoutKeys));
    let removed = of(&last, Kind::RemovedTerminals).unwrap();
    assert_eq!(removed.outstanding, ["till-3".parse()?]);
    assert_eq!((last.commitment, last.erased_at), (first.commitment, first.erased_at));
    assert!(!accepted(&scene.present(&till, &shopper, pay(100), None).await?));

    let file = fs::read_dir(scene.store.state.join("receipts"))?.next().unwrap()?.path();
    let key = scene.store.state.join("ledger.pub");
    let (file, key) = (file.display().to_string(), key.display().to_string());
    let audited = palmgate(&["audit", "receipt", &file, "--key", &key])?;
    assert!(audited.success, "{}", audited.errors);
    for line in ["terminals: acknowledged", "till-3", "exports: handed-over", "Complete"] {
        assert!(audited.text.contains(line), "{line} in {}", audited.text);
    }
    Ok(())
}

/// The only receipt of a store as it stands now.
fn kept_receipt(state: &Path) -> Result<Verified> {
    let files = fs::read_dir(state.join("receipts"))?.map(|file| Ok(file?.path()));
    let files: Vec<_> = files.collect::<Result<_>>()?;
    // While it is renewed, the next one lies beside it.
    let file = files.iter().find(|file| file.extension().is_some_and(|end| end == "json"));
    let file = file.expect("a receipt");
    Ok(receipt::verify(&fs::read_to_string(file)?, None)?)
}

/// Until the gauge is at `least`; what it shows.
async fn shows(store: &Gateway, gauge: &str, least: u64) -> Result<u64> {
    let mut value = 0;
    let grown = within(Duration::from_mins(1), async || {
        let metrics = store.metrics().await?;
        let of = |line: &str| line.strip_prefix(gauge)?.strip_prefix(' ')?.parse().ok();
        value = metrics.lines().find_map(of).unwrap_or_default();
        Ok(value >= least)
    });
    anyhow::ensure!(grown.await?, "{gauge} shows {value}, not {least}");
    Ok(value)
}

/// A box is put back to an older day, with its keys and its root: nothing on it knows better. Then it
/// lives on, and its ledger has another history than the one that was cosigned.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_forked_is_found_out_by_its_witness() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
    let mut scene = Scene::with(Custody::Operator, Some(&cloud), directory, "lyon").await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    shows(&scene.store, "palmgate_ledger_witnessed", 1).await?;
    scene.store.process.stop()?;
    let (state, copy) = (scene.store.state.clone(), scene.directory.path().join("older"));
    copy_of(&state, &copy)?;

    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    let before = shows(&scene.store, "palmgate_ledger_entries", 1).await?;
    for _ in 0..3 {
        assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), None).await?));
    }
    let grown = shows(&scene.store, "palmgate_ledger_entries", before + 3).await?;
    shows(&scene.store, "palmgate_ledger_witnessed", grown).await?;
    let forks = |metrics: &str| -> u64 {
        let name = r#"palmgate_cloud_requests_total{kind="witness",result="fork"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    assert_eq!(forks(&scene.store.metrics().await?), 0, "growth is no fork");
    scene.store.process.stop()?;

    fs::rename(&state, scene.directory.path().join("newer"))?;
    copy_of(&copy, &state)?;
    scene.store.restart().await?;
    // Its terminal's session is of the older day, too, and is made anew.
    scene.kiosk.ready(Duration::from_mins(1)).await?;
    for _ in 0..4 {
        let _ = scene.present(&scene.kiosk, &shopper, pay(200), None).await;
    }
    let found =
        within(Duration::from_mins(1), async || Ok(forks(&scene.store.metrics().await?) > 0));
    assert!(found.await?, "the witness refuses the fork, and the gateway says so");
    let note = |state: &Path| fs::read(state.join("ledger.cosigned"));
    assert!(note(&state)? == note(&copy)?, "nothing of the fork was cosigned");
    Ok(())
}

fn copy_of(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status()?;
    anyhow::ensure!(copied.success(), "{} could not be copied", from.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_carries_its_own_record_ends_in_every_store() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
    let custody = Custody::Subject;
    let paris = Scene::with(custody, Some(&cloud), tempfile::tempdir()?, "paris").await?;
    let mut lyon = Scene::with(custody, Some(&cloud), directory, "lyon").await?;
    let shopper = paris.enrol(0, &[Purpose::Pay, Purpose::Roaming]).await?;
    assert!(
        within(Duration::from_secs(10), async || {
            Ok(accepted(&lyon.present(&lyon.kiosk, &shopper, pay(100), Some(0)).await?))
        })
        .await?
    );
    let body = paris.present(&paris.kiosk, &shopper, Intent::Erase, Some(0)).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    assert!(
        within(Duration::from_secs(15), async || {
            Ok(!accepted(&lyon.present(&lyon.kiosk, &shopper, pay(100), Some(0)).await?))
        })
        .await?,
        "lyon hears of it"
    );
    cloud.process.stop()?;
    lyon.store.process.stop()?;
    lyon.store.restart().await?;
    lyon.kiosk.ready(Duration::from_secs(20)).await?;
    let body = lyon.present(&lyon.kiosk, &shopper, pay(100), Some(0)).await?;
    assert!(!accepted(&body), "after a restart without the cloud: {body:?}");
    Ok(())
}

async fn within(limit: Duration, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if holds().await? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    Ok(false)
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}
