//! Sensors that sign what they saw, and what a visible picture alone is good for.
#![allow(clippy::unwrap_used, missing_docs)]

use anyhow::Result;
use palmgate_protocol::{
    Biometric, Custody, Hand, Purpose, ScanChallenge,
    terminal::{AnswerBody, Band, CaptureProblem, Enrolment, Frame, Intent},
};
use palmgate_seal::sign::SigningKey;
use palmgate_stories::{Person, Scene, accepted, pay};
use palmgate_terminal::{Presentation, Terminal, simulated::Sensor};

fn visible(mut frames: Vec<Frame>) -> Vec<Frame> {
    frames.retain(|frame| frame.band == Band::Visible);
    frames
}

const fn not_live(body: &AnswerBody) -> bool {
    matches!(body, AnswerBody::Retry { problem: CaptureProblem::NotLive, .. })
}

/// An enrolment of somebody whose hand was seen in visible light alone.
fn enrolment(scene: &Scene, index: usize) -> Enrolment {
    let mut enrolment = scene.enrolment(index, &[Purpose::Pay, Purpose::Loyalty]);
    for capture in &mut enrolment.captures {
        capture.frames.retain(|frame| frame.band == Band::Visible);
    }
    enrolment
}

struct Till {
    terminal: Terminal,
    scene: Scene,
    person: Person,
}

impl Till {
    fn hand(&self, bands: bool) -> Presentation {
        let frames = self.scene.pictures[self.person.index].other_frames(77);
        let frames = if bands { frames } else { visible(frames) };
        Presentation { frames, ..Presentation::default() }
    }

    async fn says(&self, intent: Intent, hand: Presentation) -> Result<AnswerBody> {
        Ok(self.terminal.scan(intent, hand).await?.body)
    }

    async fn vouched_for(&self, sensor: &Sensor, bands: bool) -> Result<AnswerBody> {
        let challenge = self.terminal.challenge().await?;
        self.says(pay(100), sensor.present(self.hand(bands), challenge)).await
    }
}

async fn counted(scene: &Scene, outcome: &str) -> Result<u64> {
    let metrics = scene.store.metrics().await?;
    let name = format!("palmgate_sensor_verdicts_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    Ok(line.unwrap().parse()?)
}

/// Enrols the first person whose hand the reader can use, with the sensor's word.
async fn enrolled(scene: &Scene, terminal: &Terminal, sensor: &Sensor) -> Result<usize> {
    for index in 0..10 {
        let challenge = terminal.challenge().await?;
        let vouched_for = sensor.enrol(enrolment(scene, index), challenge);
        match terminal.enrol_about(vouched_for, challenge).await?.body {
            AnswerBody::Enrolled { .. } => return Ok(index),
            AnswerBody::Retry { problem, .. } => assert!(problem != CaptureProblem::NotLive),
            other => anyhow::bail!("{other:?}"),
        }
    }
    anyhow::bail!("no hand could be enrolled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visible_picture_pays_only_with_the_word_of_a_trusted_sensor() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let key = SigningKey::generate();
    let public = key.public();
    let living = Sensor::new(key, true);
    let terminal =
        scene.store.terminal_with("till-1", &["pay", "loyalty"], true, &[public]).await?;
    let listed = scene.store.control.list().await?;
    let till = listed.iter().find(|terminal| terminal.name == "till-1").unwrap();
    assert_eq!(till.sensors, [data_encoding::HEXLOWER.encode(&public.0)]);

    let body = terminal.enrol(enrolment(&scene, 0)).await?.body;
    assert!(not_live(&body), "nobody enrols for payments by a visible picture alone: {body:?}");
    let index = enrolled(&scene, &terminal, &living).await?;
    let person = Person { index, claims: Vec::new(), receipts: Vec::new() };
    let till = Till { terminal, scene, person };

    let body = till.says(pay(100), till.hand(false)).await?;
    assert!(not_live(&body), "nobody pays by one: {body:?}");
    let body = till.says(Intent::Loyalty, till.hand(false)).await?;
    assert!(accepted(&body), "a loyalty account takes it: {body:?}");
    let body = till.says(Intent::History, till.hand(false)).await?;
    assert!(matches!(body, AnswerBody::History { .. }), "and so do rights: {body:?}");
    let body = till.vouched_for(&living, false).await?;
    assert!(accepted(&body), "the sensor's word makes up for it: {body:?}");
    let body = till.says(pay(100), till.hand(true)).await?;
    assert!(accepted(&body), "and so does near infrared: {body:?}");
    assert!(counted(&till.scene, "living").await? >= 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_does_not_count_is_nobodys_fault() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let key = SigningKey::generate();
    let pkcs8 = key.pkcs8();
    let public = key.public();
    let terminal = scene.store.terminal_with("till-1", &["pay"], true, &[public]).await?;
    let living = Sensor::new(key, true);
    let index = enrolled(&scene, &terminal, &living).await?;
    let person = Person { index, claims: Vec::new(), receipts: Vec::new() };
    let till = Till { terminal, scene, person };

    // The sensor of somebody else.
    let foreign = Sensor::new(SigningKey::generate(), true);
    assert!(not_live(&till.vouched_for(&foreign, false).await?));
    assert!(accepted(&till.vouched_for(&foreign, true).await?), "as if there were none");
    assert_eq!(counted(&till.scene, "unknown-sensor").await?, 2);

    // Held back: signed about a challenge, and sent with another.
    let old: ScanChallenge = till.terminal.challenge().await?;
    let held_back = living.present(till.hand(false), old);
    let challenge = Some(till.terminal.challenge().await?);
    let body = till.says(pay(100), Presentation { challenge, ..held_back }).await?;
    assert!(not_live(&body) && counted(&till.scene, "other-challenge").await? == 1, "{body:?}");

    // Other pictures than the sensor took.
    let challenge = till.terminal.challenge().await?;
    let vouched_for = living.present(till.hand(false), challenge);
    let frames = visible(till.scene.pictures[till.person.index].other_frames(78));
    let body = till.says(pay(100), Presentation { frames, ..vouched_for }).await?;
    assert!(not_live(&body) && counted(&till.scene, "other-pictures").await? == 1, "{body:?}");

    // No verdict at all.
    let verdict = Some(Biometric::new(b"no verdict".to_vec()));
    let body = till.says(pay(100), Presentation { verdict, ..till.hand(true) }).await?;
    assert!(accepted(&body) && counted(&till.scene, "malformed").await? == 1, "{body:?}");

    // The sensor saw a copy: no picture is good enough then.
    let wary = Sensor::new(SigningKey::from_pkcs8(pkcs8.expose())?, false);
    let body = till.vouched_for(&wary, true).await?;
    assert!(not_live(&body) && counted(&till.scene, "attack").await? == 1, "{body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_sensor_vouches_from_the_command_line() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let directory = scene.directory.path();
    let path = |name: &str| directory.join(name).display().to_string();
    let made = palmgate_stories::palmgate(&["terminal", "sensor-key", &path("sensor")])?;
    assert!(made.success, "{}", made.errors);
    let key = ["--sensor-key", made.text.trim()];
    let add = ["terminal", "add", "till-1", "--purpose", "pay", "--enrols"];
    let added = scene.office(&[add.as_slice(), &key].concat())?;
    assert!(added.success, "{}", added.errors);
    let code = added.text.lines().next().unwrap().trim().to_owned();
    let url = format!("https://{}", scene.store.https);
    let own = ["--directory", &path("till")];
    let terminal = |arguments: &[&str]| {
        palmgate_stories::palmgate(&[&["terminal"], arguments, own.as_slice()].concat())
    };
    let paired = terminal(&["pair", &url, &code, "till-1"])?;
    assert!(paired.success, "{}", paired.errors);
    let listed = scene.office(&["terminal", "list"])?;
    assert!(listed.text.contains(&format!("sensor {}", key[1])), "{}", listed.text);

    let write = |name: &str, frames: Vec<Frame>| -> Result<String> {
        std::fs::write(path(name), visible(frames)[0].picture.expose())?;
        Ok(path(name))
    };
    let sensor = ["--sensor", &path("sensor")];
    for index in 0..10 {
        let mut captures = scene.pictures[index].captures(Hand::Right).into_iter();
        let first = write("first.jpg", captures.next().unwrap().frames)?;
        let enrol = ["enrol", "--right", &first, "--purpose", "pay", "--card-token", "tok-1"];
        if !terminal(&[enrol.as_slice(), &sensor].concat())?.success {
            continue;
        }
        let again = write("again.jpg", scene.pictures[index].other_frames(77))?;
        let paid = ["scan", "pay", &again, "--cents", "100"];
        let bare = terminal(&paid)?;
        assert!(!bare.success && bare.text.contains("living hand"), "{}", bare.text);
        let paid = terminal(&[paid.as_slice(), &sensor].concat())?;
        assert!(paid.success, "{}{}", paid.text, paid.errors);
        return Ok(());
    }
    anyhow::bail!("no hand could be enrolled")
}
