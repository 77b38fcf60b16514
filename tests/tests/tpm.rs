//! A store whose root is in a TPM: a real one in software (swtpm).
#![allow(clippy::unwrap_used)]

use anyhow::{Result, bail};
use palmgate_cli::stage::{Gateway, Shape};
use palmgate_protocol::{
    Name, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::{Scene, accepted, pay};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A software TPM with its state in a directory.
struct Tpm(Child);

impl Tpm {
    fn start(state: &Path) -> Result<(Self, u16)> {
        for _ in 0..50 {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            drop(listener);
            let process = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .args(["--server", &format!("type=tcp,port={port}")])
                .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
                .args(["--tpmstate", &format!("dir={}", state.display())])
                .stderr(Stdio::null())
                .spawn()?;
            let mut tpm = Self(process);
            for _ in 0..100 {
                if tpm.0.try_wait()?.is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                    return Ok((tpm, port));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        bail!("swtpm does not start: is the Debian package swtpm installed?")
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_root_in_a_tpm_an_older_copy_of_the_disk_opens_nothing() -> Result<()> {
    let (directory, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (_tpm, port) = Tpm::start(state.path())?;
    let tcti = format!("swtpm:host=127.0.0.1,port={port}");
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    let shape = Shape { tpm: Some(&tcti), ..Shape::new(&tenant, &store) };
    let gateway = Gateway::start(directory.path(), &shape).await?;
    let kiosk = gateway.terminal("kiosk-1", &["pay", "loyalty", "entry"], true).await?;
    let pictures = palmgate_cli::hands::load(None)?;
    let mut scene = Scene { directory, tenant, store: gateway, kiosk, pictures };
    let metrics = scene.store.metrics().await?;
    assert!(metrics.contains("palmgate_root_promise{promise=\"destroyed\"} 1"), "{metrics}");
    let stays = scene.enrol(0, &[Purpose::Pay]).await?;
    let leaves = scene.enrol(stays.index + 1, &[Purpose::Pay]).await?;
    scene.store.process.stop()?;
    let older = scene.directory.path().join("older");
    copy(&scene.store.state, &older)?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    assert!(accepted(&scene.present(&scene.kiosk, &stays, pay(100), None).await?));
    let body = scene.present(&scene.kiosk, &leaves, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    scene.store.process.stop()?;
    fs::rename(&scene.store.state, scene.directory.path().join("newer"))?;
    fs::rename(&older, &scene.store.state)?;
    let restarted = scene.store.restart().await;
    assert!(restarted.is_err(), "the older disk, with the person in it, must not open");
    fs::rename(&scene.store.state, scene.directory.path().join("refused"))?;
    fs::rename(scene.directory.path().join("newer"), &scene.store.state)?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    assert!(accepted(&scene.present(&scene.kiosk, &stays, pay(100), None).await?));
    assert!(!accepted(&scene.present(&scene.kiosk, &leaves, pay(100), None).await?));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
