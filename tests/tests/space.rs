//! A disk that is full.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Scene, accepted, pay};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::Duration,
};

/// A file system of its own; `None` where that is not allowed.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mebibytes: u32) -> Result<Option<Self>> {
        let directory = tempfile::tempdir()?;
        let size = format!("size={mebibytes}m,mode=0700");
        let mounted = mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], directory.path());
        if !mounted {
            println!("not shown on this machine: it does not let a test mount a file system");
        }
        Ok(mounted.then_some(Self(directory)))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let status = Command::new("mount").args(arguments).arg(at).status();
    status.is_ok_and(|status| status.success())
}

/// Leaves so many bytes.
fn fill(directory: &Path, left: u64) -> Result<()> {
    let mut file = File::create(directory.join("filling"))?;
    let block = vec![0; 64 * 1024];
    while file.write_all(&block).is_ok() {}
    let length = file.metadata()?.len();
    Ok(file.set_len(length.saturating_sub(left))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_people_are_recognised_and_erased_and_nobody_is_taken_in() -> Result<()> {
    let Some(mounted) = Mounted::new(64)? else { return Ok(()) };
    let directory = tempfile::tempdir_in(mounted.0.path())?;
    let mut scene = Scene::with(Custody::Operator, None, directory, "lyon").await?;
    let leaver = scene.enrol(0, &[Purpose::Pay]).await?;
    let stayer = scene.enrol(leaver.index + 1, &[Purpose::Pay]).await?;
    fill(mounted.0.path(), 200_000)?;
    let body = scene.present(&scene.kiosk, &stayer, pay(100), None).await?;
    assert!(accepted(&body), "matching goes on: {body:?}");
    let late = scene.kiosk.enrol(scene.enrolment(stayer.index + 1, &[Purpose::Pay])).await;
    let taken = late.is_ok_and(|answer| matches!(answer.body, AnswerBody::Enrolled { .. }));
    assert!(!taken, "nobody is told that they are enrolled who is not");
    let body = scene.present(&scene.kiosk, &leaver, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    fs::remove_file(mounted.0.path().join("filling"))?;
    scene.store.process.stop()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    let body = scene.present(&scene.kiosk, &leaver, pay(100), None).await?;
    assert!(!accepted(&body), "{body:?}");
    let body = scene.present(&scene.kiosk, &stayer, pay(100), None).await?;
    assert!(accepted(&body), "{body:?}");
    Ok(())
}
