//! Ended, killed, started again.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Scene, accepted, pay};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_a_scan_in_flight_answers_it_and_ends_well() -> Result<()> {
    let mut scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let (kiosk, frames) = (scene.kiosk.clone(), scene.pictures[shopper.index].other_frames(5));
    let scan = tokio::spawn(async move {
        let hand = palmgate_terminal::Presentation { frames, ..Default::default() };
        kiosk.scan(pay(100), hand).await
    });
    tokio::time::sleep(Duration::from_millis(25)).await;
    scene.store.process.terminate()?;
    let answer = scan.await??;
    assert!(accepted(&answer.body), "{:?}", answer.body);
    assert!(scene.store.process.wait()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ledger_nobody_is_scanned_and_everybody_keeps_their_rights() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let (ledger, away) = (scene.store.state.join("ledger"), scene.store.state.join("away"));
    std::fs::rename(&ledger, &away)?;
    let mut busy = false;
    for _ in 0..10 {
        let answer = scene.present(&scene.kiosk, &shopper, pay(100), None).await;
        busy = answer.is_err_and(|error| error.to_string().contains("busy"));
        if busy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(busy, "a scan that cannot be logged is not decided");
    assert!(scene.store.metrics().await?.contains("palmgate_ledger_writable 0"));
    let body = scene.present(&scene.kiosk, &shopper, Intent::Pause, None).await?;
    assert!(matches!(body, AnswerBody::Done), "{body:?}");
    std::fs::rename(&away, &ledger)?;
    let mut resumed = false;
    for _ in 0..10 {
        scene.present(&scene.kiosk, &shopper, Intent::Resume, None).await?;
        let answer = scene.present(&scene.kiosk, &shopper, pay(100), None).await;
        resumed = answer.is_ok_and(|body| accepted(&body));
        if resumed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(resumed, "the ledger is back");
    let key = std::fs::read_to_string(scene.store.state.join("ledger.pub"))?;
    let key: [u8; 32] =
        std::array::from_fn(|i| u8::from_str_radix(&key[2 * i..2 * i + 2], 16).unwrap());
    let key = palmgate_seal::sign::VerifyingKey(key);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let ledger = palmgate_ledger::verify::directory(&ledger, &key)?;
    assert!(ledger.size >= 4, "enrolment, pause, resume, payment");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_ten_random_moments_nothing_acknowledged_is_lost_and_nobody_erased_is_back()
-> Result<()> {
    let mut scene = Scene::alone(Custody::Operator).await?;
    let (mut enrolled, mut erased) = (Vec::new(), Vec::new());
    for (next, round) in (0..10u64).enumerate() {
        let wait = Duration::from_millis(u64::from(palmgate_seal::random::bytes::<1>()[0]) * 6);
        let (kiosk, enrolment) = (scene.kiosk.clone(), scene.enrolment(next, &[Purpose::Pay]));
        let enrols = tokio::spawn(async move { kiosk.enrol(enrolment).await });
        let leaving = (round % 2 == 1).then(|| enrolled.pop()).flatten();
        let (kiosk, leaves) = (scene.kiosk.clone(), leaving);
        let frames = leaving.map(|index: usize| scene.pictures[index].other_frames(round));
        let erases = tokio::spawn(async move {
            let hand = palmgate_terminal::Presentation { frames: frames?, ..Default::default() };
            Some((leaves?, kiosk.scan(Intent::Erase, hand).await))
        });
        tokio::time::sleep(wait).await;
        scene.store.process.kill()?;
        scene.store.restart().await?;
        scene.kiosk.ready(Duration::from_secs(20)).await?;
        match enrols.await?.map(|answer| answer.body) {
            Ok(AnswerBody::Enrolled { .. }) => enrolled.push(next),
            other => println!("round {round}: enrolment {next} was not acknowledged: {other:?}"),
        }
        match erases.await? {
            Some((index, Ok(answer))) => match answer.body {
                AnswerBody::Erased { .. } => erased.push(index),
                _ => println!("round {round}: an erasure was not acknowledged"),
            },
            Some((_, Err(error))) => {
                println!("round {round}: an erasure was not answered: {error}");
            }
            None => {}
        }
        check(&scene, &enrolled, &erased, round).await?;
    }
    assert!(enrolled.len() + erased.len() >= 3, "the story must have happened");
    Ok(())
}

async fn check(scene: &Scene, enrolled: &[usize], erased: &[usize], round: u64) -> Result<()> {
    for (people, wanted) in [(enrolled, true), (erased, false)] {
        for index in people {
            let mut known = false;
            // Twenty failures in a row would block payments at the reader, over restarts, too.
            for seed in 0..if wanted { 8 } else { 2 } {
                let frames = scene.pictures[*index].other_frames(500 + seed);
                let hand = palmgate_terminal::Presentation {
                    frames,
                    authenticated: true,
                    ..Default::default()
                };
                known |= accepted(&scene.kiosk.scan(pay(100), hand).await?.body);
                if known {
                    break;
                }
            }
            assert_eq!(known, wanted, "round {round}, person {index}");
        }
    }
    Ok(())
}
