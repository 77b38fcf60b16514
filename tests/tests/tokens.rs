//! What a scan carries beside the hand: a code on paper or a phone, a card, a challenge.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, bail};
use palmgate_protocol::{
    Biometric, Custody, Purpose,
    terminal::{AnswerBody, Intent, Refusal},
};
use palmgate_stories::{Scene, accepted, pay};
use palmgate_terminal::Presentation;
use qrcode::{EcLevel, QrCode, Version};
use std::time::Duration;

const PURPOSES: [Purpose; 4] = [Purpose::Pay, Purpose::Loyalty, Purpose::Entry, Purpose::Roaming];

/// The smallest QR code that holds the token, with the error correction `level`.
fn version(token: &[u8], level: EcLevel) -> Result<i16> {
    match QrCode::with_error_correction_level(token, level)?.version() {
        Version::Normal(version) => Ok(version),
        Version::Micro(_) => bail!("a token is larger than a micro code"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_token_fits_a_code_of_version_25_and_opens_nothing_without_the_palm() -> Result<()>
{
    let scene = Scene::alone(Custody::Split).await?;
    let (one, other) =
        (scene.enrol(0, &PURPOSES[..3]).await?, scene.enrol(10, &PURPOSES[..3]).await?);
    let token = &one.claims[0];
    let fits = version(token, EcLevel::M)?;
    assert!(fits <= 25, "{} bytes, version {fits}", token.len());
    // The person's own hand and token, then the token without a hand, and with another's.
    assert!(accepted(&scene.present(&scene.kiosk, &one, Intent::Loyalty, Some(0)).await?));
    let shown = |frames| Presentation {
        frames,
        claim: Some(Biometric::new(token.clone())),
        ..Presentation::default()
    };
    let alone = scene.kiosk.scan(Intent::Loyalty, shown(Vec::new())).await?.body;
    assert!(matches!(alone, AnswerBody::Refused { .. }), "{alone:?}");
    let hand = scene.pictures[other.index].other_frames(77);
    let copied = scene.kiosk.scan(Intent::Loyalty, shown(hand)).await?.body;
    assert!(matches!(copied, AnswerBody::NotRecognised | AnswerBody::Retry { .. }), "{copied:?}");
    // A token that can be copied pays nothing (P-SCA-7), not even within the exemption.
    let own = scene.pictures[one.index].other_frames(77);
    let body = scene.kiosk.scan(pay(100), shown(own)).await?.body;
    assert!(
        matches!(body, AnswerBody::Refused { reason } if reason.as_str() == "step-up"),
        "{body:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_token_fits_one_code_for_each_purpose() -> Result<()> {
    let scene = Scene::alone(Custody::Subject).await?;
    let shopper = scene.enrol(0, &PURPOSES[..3]).await?;
    assert_eq!(shopper.claims.len(), 3);
    for token in &shopper.claims {
        let fits = version(token, EcLevel::L)?;
        assert!(fits <= 40, "{} bytes, version {fits}", token.len());
        println!("a subject token: {} bytes, QR version {fits}-L", token.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_about_a_used_challenge_is_refused_and_every_other_scan_needs_nobody()
-> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Loyalty]).await?;
    let hand = |challenge| Presentation {
        frames: scene.pictures[shopper.index].other_frames(77),
        challenge,
        ..Presentation::default()
    };
    let challenge = scene.kiosk.challenge().await?;
    let first = scene.kiosk.scan(Intent::Loyalty, hand(Some(challenge))).await?.body;
    assert!(accepted(&first), "{first:?}");
    // The same pictures once more, as an application might that kept them.
    let held = scene.kiosk.scan(Intent::Loyalty, hand(Some(challenge))).await?.body;
    assert!(matches!(held, AnswerBody::Refused { reason: Refusal::ChallengeNeeded }), "{held:?}");
    // More than are ever at hand, one after another and all at once.
    for number in 0..12 {
        let body = scene.kiosk.scan(Intent::Loyalty, hand(None)).await?.body;
        assert!(accepted(&body), "{number}: {body:?}");
    }
    let scan = || scene.kiosk.scan(Intent::Loyalty, hand(None));
    let at_once = tokio::join!(scan(), scan(), scan(), scan());
    for answer in [at_once.0, at_once.1, at_once.2, at_once.3] {
        let body = answer?.body;
        assert!(accepted(&body), "{body:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tries_with_a_token_count_over_a_restart() -> Result<()> {
    let mut scene = Scene::alone(Custody::Split).await?;
    let one = scene.enrol(0, &[Purpose::Loyalty]).await?;
    let stranger = palmgate_stories::Person { index: 30, ..one.clone() };
    for number in 0..5 {
        let body = scene.present(&scene.kiosk, &stranger, Intent::Loyalty, Some(0)).await?;
        assert!(matches!(body, AnswerBody::NotRecognised), "{number}: {body:?}");
    }
    scene.store.process.stop()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_mins(2)).await?;
    let body = scene.present(&scene.kiosk, &one, Intent::Loyalty, Some(0)).await?;
    assert!(
        matches!(body, AnswerBody::Refused { reason: Refusal::TooManyTries }),
        "not even with the right hand: {body:?}"
    );
    Ok(())
}
