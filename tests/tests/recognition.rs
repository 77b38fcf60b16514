//! Recognised, refused, found elsewhere.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_cli::stage::Cloud;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent, Refusal},
};
use palmgate_stories::{Scene, accepted, pay, token};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_shopper_pays_by_palm_and_the_till_gets_token_and_assertion_never_a_score() -> Result<()>
{
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay, Purpose::Loyalty]).await?;
    assert!(shopper.claims.is_empty(), "nothing to carry in operator custody");
    let AnswerBody::Accepted(yes) = scene.present(&scene.kiosk, &shopper, pay(1_999), None).await?
    else {
        panic!("not accepted")
    };
    assert_eq!(yes.card_token.unwrap().0, token(shopper.index));
    assert!(yes.assertion.is_some());
    let AnswerBody::Accepted(yes) =
        scene.present(&scene.kiosk, &shopper, Intent::Loyalty, None).await?
    else {
        panic!("not accepted")
    };
    assert!(yes.card_token.is_none() && yes.assertion.is_none());
    let body = scene.present(&scene.kiosk, &shopper, Intent::Entry, None).await?;
    assert!(matches!(body, AnswerBody::NotRecognised), "no consent for entry: {body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_payments_by_palm_alone_the_sixth_asks_for_a_second_factor() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    for number in 1..=5 {
        let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
        assert!(accepted(&body), "payment {number}: {body:?}");
    }
    let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::StepUp }), "{body:?}");
    let hand = palmgate_terminal::Presentation {
        frames: scene.pictures[shopper.index].other_frames(77),
        authenticated: true,
        ..palmgate_terminal::Presentation::default()
    };
    assert!(accepted(&scene.kiosk.scan(pay(100), hand).await?.body));
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), None).await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_sends_no_more_than_the_palm_is_understood() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Entry]).await?;
    let extractor = palmgate_palm::Extractor::load()?;
    let mut answers = Vec::new();
    for index in [shopper.index, scene.pictures.len() - 1] {
        let whole = scene.pictures[index].other_frames(77);
        let region = extractor.cut(&whole[0]).unwrap();
        assert!(region.region_of.is_some());
        let hand = palmgate_terminal::Presentation {
            frames: vec![region],
            ..palmgate_terminal::Presentation::default()
        };
        answers.push(scene.kiosk.scan(Intent::Entry, hand).await?.body);
    }
    assert!(accepted(&answers[0]), "{answers:?}");
    assert!(matches!(answers[1], AnswerBody::NotRecognised), "{answers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_enrols_once_and_a_blank_picture_is_no_hand() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    let again = scene.enrolment(shopper.index, &[Purpose::Pay]);
    let body = scene.kiosk.enrol(again).await?.body;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::AlreadyEnrolled }), "{body:?}");
    let mut enrolment = scene.enrolment(shopper.index + 1, &[Purpose::Pay]);
    for capture in &mut enrolment.captures {
        capture.frames[0].picture = palmgate_protocol::Biometric::new(vec![0xFF, 0xD8, 0xFF, 0xE0]);
    }
    let body = scene.kiosk.enrol(enrolment).await?.body;
    assert!(matches!(body, AnswerBody::Retry { index: 0, .. }), "{body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_not_enrolled_is_refused_and_leaves_no_trace() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    scene.enrol(0, &[Purpose::Pay]).await?;
    let stranger = scene.pictures.len() - 1;
    let hand = palmgate_terminal::Presentation {
        frames: scene.frames(stranger),
        ..palmgate_terminal::Presentation::default()
    };
    let body = scene.kiosk.scan(pay(100), hand).await?.body;
    assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    let picture = scene.pictures[stranger].bytes();
    assert!(scene.files_with(&picture[200..232])?.is_empty());
    let metrics = scene.store.metrics().await?;
    assert!(metrics.contains("outcome=\"not-recognised\""));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn history_pause_and_resume_at_the_reader() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), None).await?));
    let body = scene.present(&scene.kiosk, &shopper, Intent::History, None).await?;
    let AnswerBody::History { uses, consents } = body else { panic!("{body:?}") };
    assert_eq!(uses.len(), 1);
    assert_eq!((uses[0].terminal.as_str(), uses[0].purpose), ("kiosk-1", Purpose::Pay));
    assert!(consents.contains(Purpose::Pay) && !consents.contains(Purpose::Entry));
    let body = scene.present(&scene.kiosk, &shopper, Intent::Pause, None).await?;
    assert!(matches!(body, AnswerBody::Done), "{body:?}");
    let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    scene.present(&scene.kiosk, &shopper, Intent::Resume, None).await?;
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), None).await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_split_custody_the_box_needs_the_key_in_the_token() -> Result<()> {
    let scene = Scene::alone(Custody::Split).await?;
    let (one, two) =
        (scene.enrol(0, &[Purpose::Pay]).await?, scene.enrol(30, &[Purpose::Pay]).await?);
    let body = scene.present(&scene.kiosk, &one, pay(100), None).await?;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::ClaimNeeded }), "{body:?}");
    let body = scene.present(&scene.kiosk, &one, pay(100), Some(0)).await?;
    assert!(accepted(&body), "{body:?}");
    let borrowed = palmgate_stories::Person { index: two.index, ..one.clone() };
    let body = scene.present(&scene.kiosk, &borrowed, pay(100), Some(0)).await?;
    assert!(matches!(body, AnswerBody::NotRecognised), "somebody else's token: {body:?}");
    let mut forged = one.claims[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    let forged = palmgate_stories::Person { claims: vec![forged], ..one.clone() };
    let body = scene.present(&scene.kiosk, &forged, pay(100), Some(0)).await?;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::ClaimInvalid }), "{body:?}");
    let gallery = scene.store.metrics().await?;
    assert!(gallery.contains("palmgate_references 0"), "no reference is ever open");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_subject_custody_the_token_carries_the_template_and_fits_a_qr_code() -> Result<()> {
    let scene = Scene::alone(Custody::Subject).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay, Purpose::Loyalty]).await?;
    assert_eq!(shopper.claims.len(), 2, "one token for each purpose");
    assert!(shopper.claims.iter().all(|claim| claim.len() <= 2_900));
    let mut paid = 0;
    for claim in 0..2 {
        let body = scene.present(&scene.kiosk, &shopper, pay(100), Some(claim)).await?;
        paid += usize::from(accepted(&body));
    }
    assert_eq!(paid, 1, "the loyalty token does not pay");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shopper_known_to_the_cloud_is_found_once_and_local_from_then_on() -> Result<()> {
    for custody in [Custody::Operator, Custody::Split] {
        let directory = tempfile::tempdir()?;
        let mut cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
        let away = Scene::with(custody, Some(&cloud), tempfile::tempdir()?, "paris").await?;
        let home = Scene::with(custody, Some(&cloud), directory, "lyon").await?;
        let roaming = [Purpose::Pay, Purpose::Roaming];
        let shopper = away.enrol(0, &roaming).await?;
        let silent = away.enrol(30, &[Purpose::Pay]).await?;
        let body =
            until(|| home.present(&home.kiosk, &shopper, pay(100), Some(0)), accepted).await?;
        assert!(accepted(&body), "{custody}: {body:?}");
        if custody == Custody::Split {
            let body = home.present(&home.kiosk, &silent, pay(100), Some(0)).await?;
            assert!(matches!(body, AnswerBody::NotRecognised), "did not agree to roam: {body:?}");
        }
        cloud.process.stop()?;
        let claim = (custody == Custody::Split).then_some(0);
        let body = home.present(&home.kiosk, &shopper, pay(100), claim).await?;
        assert!(accepted(&body), "{custody}, the cloud is cut: {body:?}");
    }
    Ok(())
}

/// Asks again for eight seconds at most: registrations travel in their own time.
async fn until<F>(
    mut ask: impl FnMut() -> F,
    enough: impl Fn(&AnswerBody) -> bool,
) -> Result<AnswerBody>
where
    F: Future<Output = Result<AnswerBody>>,
{
    let begun = Instant::now();
    loop {
        let body = ask().await?;
        if enough(&body) || begun.elapsed() > Duration::from_secs(8) {
            return Ok(body);
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sends_regions_alone_and_no_picture_without_a_hand() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let directory = scene.directory.path();
    let path = |name: &str| directory.join(name).display().to_string();
    let add = ["terminal", "add", "gate-1", "--purpose", "entry", "--enrols"];
    let added = scene.office(&add)?;
    let code = added.text.lines().next().unwrap_or_default().trim().to_owned();
    let (url, own) = (format!("https://{}", scene.store.https), ["--directory", &path("gate")]);
    let terminal = |arguments: &[&str]| {
        palmgate_stories::palmgate(&[&["terminal"], arguments, own.as_slice()].concat())
    };
    let paired = terminal(&["pair", &url, &code, "gate-1"])?;
    assert!(paired.success, "{}", paired.errors);
    let landmarks = async || -> Result<Vec<u64>> {
        let recent = scene.store.control.steps().await?.into_iter().flatten();
        Ok(recent.filter(|(step, _)| step == "landmarks").map(|(_, micros)| micros).collect())
    };

    let (first, again) = (path("first.jpg"), path("again.jpg"));
    let mut enrolled = false;
    for picture in scene.pictures.iter().take(10) {
        std::fs::write(&first, picture.bytes())?;
        let enrol = ["enrol", "--region", "--right", &first, "--purpose", "entry"];
        if terminal(&enrol)?.success {
            enrolled = true;
            break;
        }
    }
    assert!(enrolled, "no hand could be enrolled");
    let recaptured =
        palmgate_stories::palmgate(&["terminal", "recapture", &first, &again, "--seed", "77"])?;
    assert!(recaptured.success, "{}", recaptured.errors);
    assert_ne!(std::fs::read(&first)?, std::fs::read(&again)?);

    // The gateway looks for a hand in a picture, and in a region for none.
    let whole = terminal(&["scan", "entry", &again])?;
    assert!(whole.success, "{}{}", whole.text, whole.errors);
    let looked = landmarks().await?;
    assert!(looked.len() == 1 && looked[0] > 0, "{looked:?}");
    let region = terminal(&["scan", "entry", &again, "--region"])?;
    assert!(region.success, "{}{}", region.text, region.errors);
    assert_eq!(landmarks().await?, [0]);

    // Where the terminal finds no hand, nothing is sent.
    let blank = path("blank.jpg");
    std::fs::write(&blank, [0xFF, 0xD8, 0xFF, 0xE0])?;
    let refused = terminal(&["scan", "entry", &blank, "--region"])?;
    assert!(!refused.success && refused.errors.contains("palmgate: "), "{}", refused.errors);
    assert!(landmarks().await?.is_empty());
    Ok(())
}
