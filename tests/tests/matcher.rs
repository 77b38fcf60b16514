//! Pictures and open references in a process of their own.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use palmgate_cli::stage;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Scene, accepted, pay};
use palmgate_terminal::TerminalError;
use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Ends with the test.
struct MatcherProcess(Child);

impl MatcherProcess {
    /// On a listening socket that stays, as systemd starts it.
    fn start(listener: &UnixListener) -> Result<Self> {
        let program = stage::program()?.with_file_name("palmgate-matcher");
        let child = Command::new(&program)
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self(child))
    }

    /// As the system does to a process that takes too much, or that a hostile picture broke.
    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for MatcherProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matcher_of_its_own_is_lost_and_comes_back_without_a_wrong_answer() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("matcher.sock");
    let listener = UnixListener::bind(&socket)?;
    let mut matcher = MatcherProcess::start(&listener)?;
    let more = format!("\n[palm]\nmatcher = {socket:?}\n");
    let mut scene = Scene::under(Custody::Operator, None, directory, "lyon", (&more, true)).await?;
    let leaver = scene.enrol(0, &[Purpose::Pay]).await?;
    let stayer = scene.enrol(leaver.index + 1, &[Purpose::Pay]).await?;
    for person in [&leaver, &stayer] {
        let body = scene.present(&scene.kiosk, person, pay(100), None).await?;
        assert!(accepted(&body), "{body:?}");
    }

    matcher.kill()?;
    let presented = scene.present(&scene.kiosk, &stayer, pay(100), None).await;
    assert!(is_busy(&presented), "whether it knows them is not known: {presented:?}");
    let mut matcher = MatcherProcess::start(&listener)?;
    comes_back(&scene, &stayer).await?;
    let body = scene.present(&scene.kiosk, &leaver, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");

    // Lost once more: who was erased does not come back with the others.
    matcher.kill()?;
    let _matcher = MatcherProcess::start(&listener)?;
    comes_back(&scene, &stayer).await?;
    let body = scene.present(&scene.kiosk, &leaver, pay(100), None).await?;
    assert!(!accepted(&body), "{body:?}");

    scene.store.process.stop()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    let body = scene.present(&scene.kiosk, &stayer, pay(100), None).await?;
    assert!(accepted(&body), "{body:?}");
    Ok(())
}

fn is_busy(presented: &Result<AnswerBody>) -> bool {
    let error = presented.as_ref().err().and_then(|error| error.downcast_ref());
    matches!(error, Some(TerminalError::Busy))
}

/// Until they are recognised nobody is told anything else than to use another way.
async fn comes_back(scene: &Scene, person: &palmgate_stories::Person) -> Result<()> {
    let begun = Instant::now();
    loop {
        let presented = scene.present(&scene.kiosk, person, pay(100), None).await;
        if presented.as_ref().is_ok_and(accepted) {
            return Ok(());
        }
        assert!(is_busy(&presented), "{presented:?}");
        assert!(begun.elapsed() < Duration::from_mins(1), "the matcher does not come back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_matcher_a_gateway_does_not_start_and_says_which() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("nobody.sock");
    let more = format!("\n[palm]\nmatcher = {socket:?}\n");
    let refused = Scene::under(Custody::Operator, None, directory, "lyon", (&more, true)).await;
    let error = format!("{:#}", refused.err().context("nobody listens there")?);
    assert!(error.contains("nobody.sock") && error.contains("palmgate-matcher"), "{error}");
    Ok(())
}
