//! A calibration that the command makes from a folder of pictures, put in force by the daemon.
#![allow(clippy::unwrap_used, missing_docs)]

use anyhow::{Context, Result};
use palmgate_cli::hands;
use palmgate_protocol::{Custody, Purpose, terminal::Band, terminal::Intent};
use palmgate_stories::{Output, Person, Scene, accepted, palmgate};
use std::{fs, path::Path, process::Command};

/// Hands in the folder: enough for ten thousand comparisons of different ones.
const HANDS: usize = 60;

/// Two sessions of each hand, the second one simulated.
fn folder(directory: &Path) -> Result<String> {
    let pictures = directory.join("pictures");
    for (number, picture) in hands::load(None)?.iter().take(HANDS).enumerate() {
        let hand = pictures.join(format!("{number:03}"));
        fs::create_dir_all(&hand)?;
        fs::write(hand.join("a-1.jpg"), picture.bytes())?;
        let mut other = picture.other_frames(500).into_iter();
        let other = other.find(|frame| frame.band == Band::Visible).context("a frame")?;
        fs::write(hand.join("b-1.jpg"), other.picture.expose())?;
    }
    Ok(pictures.display().to_string())
}

fn done(output: Output) -> String {
    assert!(output.success, "{}{}", output.text, output.errors);
    output.text
}

/// Evaluates the folder and gives the calibration's path.
fn calibrated(directory: &Path, more: &[&str]) -> Result<String> {
    let path = |name: &str| directory.join(name).display().to_string();
    let (pictures, calibration) = (folder(directory)?, path("calibration.json"));
    let (out, json) = (path("evaluation"), path("figures.json"));
    let evaluate = ["evaluate", &pictures, "--out", &out, "--json", &json, "--simulated"];
    let described = ["--calibration", &calibration, "--description", "photographs, once more"];
    let said = done(palmgate(&[evaluate.as_slice(), &described, more].concat())?);
    assert!(said.contains("for FMR"), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(&json)?)?;
    let made: serde_json::Value = serde_json::from_slice(&fs::read(&calibration)?)?;
    assert_eq!(figures["model"], made["models"], "report and calibration name the same models");
    Ok(calibration)
}

async fn store(palm: &str, more: &str) -> Result<Scene> {
    let more = format!("\n[palm]\n{palm}\n{more}");
    let directory = tempfile::tempdir()?;
    Scene::under(Custody::Operator, None, directory, "lyon", (&more, false)).await
}

/// Enrols people until one is let in by another capture.
async fn somebody_enters(scene: &Scene) -> Result<bool> {
    let mut index = 0;
    for _ in 0..5 {
        let person: Person = scene.enrol(index, &[Purpose::Entry]).await?;
        if accepted(&scene.present(&scene.kiosk, &person, Intent::Entry, None).await?) {
            return Ok(true);
        }
        index = person.index + 1;
    }
    Ok(false)
}

/// The largest gallery for entry in the metrics and in the file.
async fn galleries(scene: &Scene, calibration: &str) -> Result<(String, String)> {
    let metrics = scene.store.metrics().await?;
    let name = "palmgate_largest_gallery{purpose=\"entry\"} ";
    let shown = metrics.lines().find_map(|line| line.strip_prefix(name)).context("no gallery")?;
    let made: serde_json::Value = serde_json::from_slice(&fs::read(calibration)?)?;
    let points = made["points"].as_array().context("no points")?;
    let at = |point: &&serde_json::Value| point["target"].as_f64() == Some(1e-4);
    let point = points.iter().find(at).context("no such rate")?;
    Ok((shown.into(), point["largest_gallery"].to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calibration_from_a_folder_of_pictures_is_put_in_force() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let calibration = calibrated(directory.path(), &[])?;
    let scene = store(&format!("calibration = {calibration:?}"), "").await?;
    let (shown, made) = galleries(&scene, &calibration).await?;
    assert_eq!(shown, made);
    assert!(somebody_enters(&scene).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_a_registry_recognise_by_a_calibration_of_their_own_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let models = directory.path().join("models");
    let path = models.display().to_string();
    done(palmgate(&["update", "models", &path])?);
    another_hash(&models)?;
    let mut signers = Vec::new();
    for name in ["martin", "petit"] {
        let key = directory.path().join(name).display().to_string();
        let sign = ["update", "sign-models", &path, "--name", name, "--key", &key];
        let said = done(palmgate(&sign)?);
        let signer = said.lines().find_map(|line| line.strip_prefix("signer"));
        signers.push(signer.context("no signer")?.trim().to_owned());
    }
    let with = ["--models", &path, "--signer", &signers[0], "--signer", &signers[1]];
    let calibration = calibrated(directory.path(), &with)?;

    let installed = directory.path().join("installed");
    let update = format!("[update]\ndirectory = {installed:?}\nsigners = {signers:?}\n");
    let both = format!("models = {path:?}\ncalibration = {calibration:?}");
    let scene = store(&both, &update).await?;
    assert!(somebody_enters(&scene).await?, "with a calibration of these models");
    let scene = store(&format!("models = {path:?}"), &update).await?;
    assert!(!somebody_enters(&scene).await?, "without one nobody is recognised");
    Ok(())
}

/// Gives the embedding model another hash, without another answer: the version of its producer.
fn another_hash(models: &Path) -> Result<()> {
    let model = models.join("embedding.onnx");
    let (mut bytes, old) = (fs::read(&model)?, sum(&model)?);
    let registry = models.join("registry.toml");
    let text = fs::read_to_string(&registry)?;
    let size = |bytes: &[u8]| format!("size = {}", bytes.len());
    let old_size = size(&bytes);
    // Field 3 of `ModelProto`, one byte.
    bytes.extend(b"\x1a\x01x");
    fs::write(&model, &bytes)?;
    assert!(text.contains(&old) && text.matches(&old_size).count() == 1, "{text}");
    let text = text.replace(&old, &sum(&model)?).replace(&old_size, &size(&bytes));
    Ok(fs::write(&registry, text)?)
}

/// SHA-256 of a file.
fn sum(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("no sum")?.to_owned())
}
