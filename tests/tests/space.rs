//! Disks that are full, turn read-only or fail.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Person, Scene, accepted, pay};
use palmgate_terminal::TerminalError;
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A file system of its own; `None` where that is not allowed.
struct Mounted(TempDir);

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

/// An ext4 in an image file, at the place of the store's state: everything else has another disk.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// `None` where a test may not mount one.
    fn new(image: PathBuf, at: PathBuf) -> Result<Option<Self>> {
        File::create(&image)?.set_len(128 << 20)?;
        let mut made = Command::new("mkfs.ext4");
        // Without a journal a failed write does not end the mount.
        made.args(["-q", "-O", "^has_journal", "-E", "lazy_itable_init=0,nodiscard"]).arg(&image);
        fs::create_dir_all(&at)?;
        let disk = Self { image, at };
        if !made.status().is_ok_and(|status| status.success()) || !disk.mount("remount-ro") {
            println!("not shown on this machine: it does not let a test mount an image");
            return Ok(None);
        }
        Ok(Some(disk))
    }

    fn mount(&self, on_error: &str) -> bool {
        let image = self.image.display().to_string();
        mount(&["-o", &format!("loop,errors={on_error}"), &image], &self.at)
    }

    /// What a kernel does to a file system in which it finds an error.
    fn turn_read_only(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let at = self.at.display().to_string();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let device = mounts.find(|line| line[1] == at).context("it is mounted")?[0].to_owned();
        let device = Path::new(&device).file_name().context("a device has a name")?;
        fs::write(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"), "1\n")?;
        ensure!(self.is_read_only(), "it is still written to");
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        let probe = self.at.join("probe");
        let tried = File::create(&probe).and_then(|_| fs::remove_file(&probe));
        tried.is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
    }

    /// Repaired and mounted again, when nobody uses it any more.
    fn repair(&self) -> Result<()> {
        ensure!(Command::new("umount").arg(&self.at).status()?.success(), "it is in use");
        let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(&self.image).output()?;
        // 1: errors were found and repaired.
        ensure!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        ensure!(self.mount("remount-ro"), "it cannot be mounted again");
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// Whether the person is let through, as long as it takes to be told; a till that is told nothing or
/// `busy` lets nobody through.
async fn let_through(scene: &Scene, person: &Person) -> Result<bool> {
    let nothing = |error: &_| matches!(error, TerminalError::Busy | TerminalError::TooLate(_));
    let_through_unless(scene, person, nothing).await
}

/// As [`let_through`], at a box that may have ended meanwhile.
async fn let_through_if_on(scene: &Scene, person: &Person) -> Result<bool> {
    let nothing = |error: &_| {
        use TerminalError::{Busy, NotAdmitted, Offline, TooLate};
        matches!(error, Busy | TooLate(_) | Offline(_) | NotAdmitted(_))
    };
    let_through_unless(scene, person, nothing).await
}

async fn let_through_unless(
    scene: &Scene,
    person: &Person,
    nothing: impl Fn(&TerminalError) -> bool,
) -> Result<bool> {
    match scene.present(&scene.kiosk, person, pay(100), None).await {
        Ok(body) => Ok(accepted(&body)),
        Err(error) => {
            ensure!(error.downcast_ref().is_some_and(nothing), "{error}");
            Ok(false)
        }
    }
}

/// Asks to forget somebody; whether that was acknowledged.
async fn acknowledged(scene: &Scene, person: &Person) -> bool {
    let answer = scene.present(&scene.kiosk, person, Intent::Erase, None).await;
    matches!(answer, Ok(AnswerBody::Erased { .. }))
}

/// Asks to take somebody in; whether that was acknowledged.
async fn taken_in(scene: &Scene, index: usize) -> bool {
    let answer = scene.kiosk.enrol(scene.enrolment(index, &[Purpose::Pay])).await;
    answer.is_ok_and(|answer| matches!(answer.body, AnswerBody::Enrolled { .. }))
}

/// The value of a metric without labels.
async fn shows(scene: &Scene, metric: &str) -> Result<u64> {
    let metrics = scene.store.metrics().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    Ok(line.context(metric.to_owned())?.parse::<f64>()? as u64)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        ensure!(begun.elapsed() < Duration::from_mins(2), "never: {what}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_turned_read_only_nothing_is_acknowledged_and_nobody_is_lost() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let disk = Disk::new(directory.path().join("image"), directory.path().join("lyon"))?;
    let Some(disk) = disk else { return Ok(()) };
    let mut scene = Scene::with(Custody::Operator, None, directory, "lyon").await?;
    let leaver = scene.enrol(0, &[Purpose::Pay]).await?;
    let stayer = scene.enrol(leaver.index + 1, &[Purpose::Pay]).await?;
    assert!(let_through(&scene, &stayer).await?);

    disk.turn_read_only()?;
    // The scan that finds it out may still be let through; then none is without an entry in the log.
    let _ = let_through(&scene, &stayer).await?;
    until("the store says that it cannot log", async || {
        Ok(shows(&scene, "palmgate_ledger_writable").await? == 0)
    })
    .await?;
    assert!(!let_through(&scene, &stayer).await?, "no decision without its entry");
    assert!(!taken_in(&scene, stayer.index + 1).await, "nobody is told what is not so");
    assert!(!acknowledged(&scene, &leaver).await, "nobody is told what is not so");
    assert!(!let_through(&scene, &leaver).await?, "who asked is not recognised, all the same");
    assert!(fs::read_dir(scene.store.state.join("receipts"))?.next().is_none());

    // A kernel lets nobody write to it again before it was unmounted.
    scene.store.process.stop()?;
    disk.repair()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    assert!(let_through(&scene, &stayer).await?, "nobody is lost");
    assert!(acknowledged(&scene, &leaver).await, "and who asks again is forgotten");
    assert!(!let_through(&scene, &leaver).await?);
    assert!(taken_in(&scene, stayer.index + 1).await || taken_in(&scene, stayer.index + 2).await);
    scene.store.process.stop()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    assert!(!let_through(&scene, &leaver).await? && let_through(&scene, &stayer).await?);
    Ok(())
}

/// The image lies on a file system without room, so that its new blocks fail with EIO.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_for_a_while_costs_nobody_anything() -> Result<()> {
    let Some(below) = Mounted::new(128)? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let image = below.0.path().join("image");
    let Some(disk) = Disk::new(image, directory.path().join("lyon"))? else { return Ok(()) };
    let mut scene = Scene::with(Custody::Operator, None, directory, "lyon").await?;
    let leaver = scene.enrol(0, &[Purpose::Pay]).await?;
    let stayer = scene.enrol(leaver.index + 1, &[Purpose::Pay]).await?;
    assert!(let_through(&scene, &stayer).await?);
    Command::new("sync").arg("--file-system").arg(&disk.at).status()?;

    fill(below.0.path(), 0)?;
    // Some blocks are there already, and writes to them succeed: what is acknowledged must hold.
    let taken = taken_in(&scene, stayer.index + 1).await;
    let forgotten = acknowledged(&scene, &leaver).await;
    for _ in 0..5 {
        let _ = let_through_if_on(&scene, &stayer).await?;
    }
    println!("while the disk failed: enrolled {taken}, erased {forgotten}");
    assert!(!let_through_if_on(&scene, &leaver).await?, "who asked is not recognised in any case");

    fs::remove_file(below.0.path().join("filling"))?;
    // It heals by itself, or ends with a failure, upon which systemd starts it anew. A disk that the
    // kernel turned read-only is repaired by somebody first.
    until("the stayer is let through again", async || {
        if disk.is_read_only() {
            let _ = scene.store.process.stop();
            disk.repair()?;
            scene.store.restart().await?;
            scene.kiosk.ready(Duration::from_mins(1)).await?;
        }
        if scene.store.metrics().await.is_err() {
            let ended = scene.store.process.wait()?;
            ensure!(!ended.success(), "it ended without a failure");
            scene.store.restart().await?;
            scene.kiosk.ready(Duration::from_mins(1)).await?;
        }
        let_through_if_on(&scene, &stayer).await
    })
    .await?;
    // It may have let somebody through and be ending all the same, with a failure.
    let _ = scene.store.process.stop();
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_mins(1)).await?;
    let again = let_through(&scene, &leaver).await?;
    assert!(!(again && forgotten), "acknowledged and still there");
    assert!(!again || acknowledged(&scene, &leaver).await);
    scene.store.process.stop()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_mins(1)).await?;
    assert!(!let_through(&scene, &leaver).await?, "forgotten for good");
    assert!(let_through(&scene, &stayer).await?);
    let newcomer = Person { index: stayer.index + 1, claims: Vec::new(), receipts: Vec::new() };
    assert!(!taken || let_through(&scene, &newcomer).await?, "acknowledged and lost");
    let ledger = scene.store.state.join("ledger");
    let key = fs::read_to_string(scene.store.state.join("ledger.pub"))?;
    let key: [u8; 32] =
        std::array::from_fn(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap());
    palmgate_ledger::verify::directory(&ledger, &palmgate_seal::sign::VerifyingKey(key))?;
    Ok(())
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
    // Meanwhile the kiosk is asked for a new session.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let body = scene.present(&scene.kiosk, &stayer, pay(100), None).await?;
    assert!(accepted(&body), "matching still goes on: {body:?}");
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
