//! Updates through the one door: signed, in force, on record, and never below the floor.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use palmgate_cli::stage;
use palmgate_ledger::{Entry, EntryKind, NOBODY, verify};
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_seal::sign::VerifyingKey;
use palmgate_stories::{Scene, accepted, pay};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// Publishers of bundles and packs with their keys, and a box that trusts them.
struct Publisher {
    directory: PathBuf,
    signers: Vec<String>,
}

impl Publisher {
    fn new(directory: &Path) -> Result<Self> {
        let mut publisher = Self { directory: directory.join("publisher"), signers: Vec::new() };
        fs::create_dir(&publisher.directory)?;
        for name in ["martin", "petit"] {
            fs::create_dir_all(publisher.directory.join("empty"))?;
            let terms = if name == "martin" { Some("0.0.1") } else { None };
            publisher.signers.push(publisher.sign("empty", name, terms)?);
        }
        Ok(publisher)
    }

    /// Signs a bundle as one of the two; returns the signer's key. The first lists the files.
    fn sign(&self, bundle: &str, name: &str, floor: Option<&str>) -> Result<String> {
        let bundle = self.directory.join(bundle);
        let key = self.directory.join(format!("{name}.key"));
        let mut arguments = vec!["update", "sign"];
        let (bundle, key) = (bundle.to_string_lossy(), key.to_string_lossy());
        arguments.extend([&*bundle, "--name", name, "--key", &key]);
        if let Some(floor) = floor {
            arguments.extend(["--version", PROGRAM, "--floor", floor]);
        }
        signer(&palmgate(&arguments)?)
    }

    /// A bundle with the French pack, in which the history may be kept for `days`.
    fn bundle(&self, name: &str, days: u32) -> Result<PathBuf> {
        let bundle = self.directory.join(name);
        let pack = bundle.join("packs/fr-cnil");
        fs::create_dir_all(&pack)?;
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/packs/fr-cnil");
        for file in fs::read_dir(shipped)? {
            let file = file?;
            fs::copy(file.path(), pack.join(file.file_name()))?;
        }
        let manifest = fs::read_to_string(pack.join("pack.toml"))?;
        ensure!(manifest.contains("value = 90"), "the pack has other numbers");
        let changed = manifest.replacen("value = 90", &format!("value = {days}"), 1);
        fs::write(pack.join("pack.toml"), changed)?;
        let note = bundle.join("packs/fr-cnil.note");
        for name in ["martin", "petit"] {
            let key = self.directory.join(format!("{name}.key"));
            let (pack, note) = (pack.to_string_lossy(), note.to_string_lossy());
            let key = key.to_string_lossy();
            let sign = ["policy", "sign", &pack, "--note", &note, "--name", name, "--key", &key];
            signer(&palmgate(&sign)?)?;
        }
        let models = bundle.join("models").to_string_lossy().into_owned();
        ensure!(palmgate(&["update", "models", &models])?.status.success(), "no models");
        for name in ["martin", "petit"] {
            let key = self.directory.join(format!("{name}.key"));
            let key = key.to_string_lossy();
            let sign = ["update", "sign-models", &models, "--name", name, "--key", &key];
            signer(&palmgate(&sign)?)?;
        }
        self.sign(name, "martin", Some("0.0.1"))?;
        self.sign(name, "petit", None)?;
        Ok(bundle)
    }

    /// Tables `[law]` and `[update]` of a box that takes packs and updates of these two.
    fn tables(&self, installed: &Path) -> String {
        let signers = &self.signers;
        let path = |name: &str| installed.join(name).to_string_lossy().into_owned();
        let directory = installed.to_string_lossy();
        format!(
            "\n[law]\npack = {:?}\nnote = {:?}\nsigners = {signers:?}\n\
             [palm]\nmodels = {:?}\n\
             [update]\ndirectory = {directory:?}\nsigners = {signers:?}\n",
            path("packs/fr-cnil"),
            path("packs/fr-cnil.note"),
            path("models"),
        )
    }
}

fn palmgate(arguments: &[&str]) -> Result<Output> {
    let program = stage::program()?;
    Command::new(&program).args(arguments).output().with_context(|| format!("{arguments:?}"))
}

fn signer(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout);
    let key = said.lines().find_map(|line| line.strip_prefix("signer"));
    let error = || String::from_utf8_lossy(&output.stderr).into_owned();
    key.map(|key| key.trim().to_owned()).with_context(error)
}

fn update(verb: &str, bundle: &Path, config: &Path) -> Result<Output> {
    let (bundle, config) = (bundle.to_string_lossy(), config.to_string_lossy());
    let mut arguments = vec!["update", verb, &*bundle, "--config", &config];
    if verb == "install" {
        arguments.push("--no-restart");
    }
    palmgate(&arguments)
}

/// What the ledger says of a kind: every entry with its proof.
fn entries(state: &Path, kind: EntryKind) -> Result<Vec<Entry>> {
    let key: [u8; 32] = data_encoding::HEXLOWER
        .decode(fs::read_to_string(state.join("ledger.pub"))?.trim().as_bytes())?
        .try_into()
        .unwrap();
    let (ledger, key) = (state.join("ledger"), VerifyingKey(key));
    let size = verify::directory(&ledger, &key)?.size;
    let entry = |index| Ok(verify::prove(&ledger, &key, index)?.verify(&key)?.0);
    let all: Result<Vec<Entry>> = (0..size).map(entry).collect();
    Ok(all?.into_iter().filter(|entry| entry.kind == kind).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_comes_by_a_signed_bundle_and_every_change_is_in_the_ledger_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let publisher = Publisher::new(directory.path())?;
    let installed = directory.path().join("installed");
    let tables = publisher.tables(&installed);
    let config = directory.path().join("box.toml");
    fs::write(&config, &tables)?;
    let first = publisher.bundle("first", 90)?;
    let done = update("install", &first, &config)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let mut scene =
        Scene::under(Custody::Operator, None, directory, "lyon", (&tables, true)).await?;
    let person = scene.enrol(0, &[Purpose::Pay]).await?;
    assert!(accepted(&scene.present(&scene.kiosk, &person, pay(100), None).await?));
    scene.store.process.stop()?;
    let state = scene.store.state.clone();
    let updates = entries(&state, EntryKind::Update)?;
    let outcomes: Vec<_> = updates.iter().map(|entry| entry.outcome.as_str()).collect();
    assert_eq!(outcomes, [&format!("program:{PROGRAM}"), "bundle-installed"]);
    let bundle_id = updates[1].commitment;
    assert_ne!(bundle_id, NOBODY);
    let models = entries(&state, EntryKind::Model)?;
    assert_eq!((models.len(), models[0].outcome.as_str()), (1, "in-use"));
    let packs = entries(&state, EntryKind::Pack)?;
    assert_eq!(packs.len(), 1);

    // Tampered with on the way: refused, and the box goes on as it is.
    let second = publisher.bundle("second", 89)?;
    let file = second.join("packs/fr-cnil/pack.toml");
    let whole = fs::read_to_string(&file)?;
    fs::write(&file, whole.replacen("value = 89", "value = 99", 1))?;
    for verb in ["verify", "install"] {
        let refused = update(verb, &second, &config)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("pack.toml: wanted SHA-256"), "{said}");
    }
    fs::write(&file, whole)?;
    let done = update("install", &second, &config)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for _ in 0..2 {
        scene.store.restart().await?;
        scene.kiosk.ready(Duration::from_secs(20)).await?;
        scene.store.process.stop()?;
    }
    let updates = entries(&state, EntryKind::Update)?;
    assert_eq!(updates.len(), 3, "once, although it was started twice");
    assert_ne!(updates[2].commitment, bundle_id);
    let packs = entries(&state, EntryKind::Pack)?;
    assert_eq!(packs.len(), 2);
    assert_ne!(packs[0].pack, packs[1].pack);

    // Models that are not the signed ones: the box does not start on them.
    let model = fs::canonicalize(installed.join("models"))?.join("embedding.onnx");
    let whole = fs::read(&model)?;
    let mut flipped = whole.clone();
    flipped[1000] ^= 1;
    fs::write(&model, flipped)?;
    let file = scene.directory.path().join("lyon.toml");
    let refused = palmgate(&["daemon", "--config", &file.to_string_lossy()])?;
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("embedding.onnx: wanted"), "{said}");
    fs::write(&model, whole)?;

    // A floor above this program: it changes nothing, says why, and is not started again.
    fs::write(installed.join("floor"), "9.9.9\n")?;
    let refused = palmgate(&["daemon", "--config", &file.to_string_lossy()])?;
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("9.9.9 or above") && said.contains("palmgate update install"), "{said}");
    let refused = update("install", &second, &config)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("9.9.9 or above"), "{said}");
    Ok(())
}

/// A store whose state may have been in the format before.
struct Updated {
    scene: Scene,
    config: String,
}

impl Updated {
    fn format(&self) -> String {
        let format = fs::read_to_string(self.scene.store.state.join("vault/format")).unwrap();
        format.lines().next().unwrap().to_owned()
    }

    /// Runs `palmgate update rollback`: whether it did so, and what it said.
    fn rollback(&self) -> Result<(bool, String)> {
        let output = palmgate(&["update", "rollback", "--config", &self.config])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// What `palmgate check` says of the update.
    fn check(&self) -> Result<String> {
        let output = palmgate(&["check", "--config", &self.config])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("  update "));
        line.map(str::to_owned).context(said.clone())
    }

    async fn uncommitted_since(&self) -> Result<f64> {
        let metrics = self.scene.store.metrics().await?;
        let of = |line: &str| {
            let value = line.strip_prefix("palmgate_state_uncommitted_since_timestamp_seconds ")?;
            value.parse().ok()
        };
        metrics.lines().find_map(of).context("no such metric")
    }

    async fn start(&mut self) -> Result<()> {
        self.scene.store.restart().await?;
        self.scene.kiosk.ready(Duration::from_secs(20)).await?;
        Ok(())
    }

    async fn pays(&self, person: &palmgate_stories::Person) -> Result<bool> {
        let body = self.scene.present(&self.scene.kiosk, person, pay(100), None).await?;
        ensure!(accepted(&body) || matches!(body, AnswerBody::NotRecognised), "{body:?}");
        Ok(accepted(&body))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_state_goes_back_until_it_is_committed_and_brings_nobody_back()
-> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let config = scene.directory.path().join("lyon.toml").display().to_string();
    let mut updated = Updated { scene, config };
    let stays = updated.scene.enrol(0, &[Purpose::Pay]).await?;
    let leaves = updated.scene.enrol(stays.index + 1, &[Purpose::Pay]).await?;
    assert!(updated.check()?.starts_with("ok"), "{}", updated.check()?);
    updated.scene.store.process.stop()?;
    let (done, said) = updated.rollback()?;
    assert!(!done && said.contains("vault has format 2 for good"), "{said}");

    // The state of the release before, which is what the way back makes of this one.
    let vault = updated.scene.store.state.join("vault");
    fs::write(vault.join("way-back"), "palmgate vault 1\n")?;
    let (done, said) = updated.rollback()?;
    assert!(done && said.contains("vault format 1"), "{said}");
    assert_eq!(updated.format(), "palmgate vault 1");
    let (done, said) = updated.rollback()?;
    assert!(done && said.contains("already"), "{said}");

    // The update: everybody is there, somebody comes, somebody is erased.
    updated.start().await?;
    assert_eq!(updated.format(), "palmgate vault 2");
    assert!(updated.pays(&stays).await? && updated.pays(&leaves).await?);
    let comes = updated.scene.enrol(leaves.index + 1, &[Purpose::Pay]).await?;
    let kiosk = &updated.scene.kiosk;
    let body = updated.scene.present(kiosk, &leaves, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    let check = updated.check()?;
    assert!(check.starts_with("warn") && check.contains("not committed for 0 days"), "{check}");
    assert!(updated.uncommitted_since().await? > 1.7e9);
    let (done, said) = updated.rollback()?;
    assert!(!done && said.contains("locked by another process: stop it first"), "{said}");

    // Back, as after a release that does not suit.
    updated.scene.store.process.stop()?;
    let (done, said) = updated.rollback()?;
    assert!(done, "{said}");
    assert_eq!(updated.format(), "palmgate vault 1");

    // Forward again: nobody is lost, and nobody is back.
    updated.start().await?;
    assert!(updated.pays(&stays).await? && updated.pays(&comes).await?);
    assert!(!updated.pays(&leaves).await?, "erased stays erased");
    let committed = updated.scene.office(&["update", "commit"])?;
    assert!(committed.success && committed.text.contains("format 1"), "{}", committed.errors);
    let committed = updated.scene.office(&["update", "commit"])?;
    assert!(committed.success && committed.text.contains("already"), "{}", committed.text);
    assert!(updated.uncommitted_since().await?.abs() < 1.0);
    assert!(updated.check()?.starts_with("ok"), "{}", updated.check()?);
    updated.scene.store.process.stop()?;
    let (done, said) = updated.rollback()?;
    assert!(!done && said.contains("its migration was committed"), "{said}");
    assert_eq!(updated.format(), "palmgate vault 2");
    let acts = entries(&updated.scene.store.state, EntryKind::Operation)?;
    let acts: Vec<_> = acts.iter().map(|entry| entry.outcome.as_str()).collect();
    assert_eq!(acts, ["state-rolled-back", "state-rolled-back", "state-committed"]);
    Ok(())
}
