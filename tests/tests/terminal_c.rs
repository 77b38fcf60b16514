//! The terminal in C: compiled, paired, and in front of a shopper.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, bail};
use palmgate_cli::stage;
use palmgate_gateway::control::AddTerminal;
use palmgate_protocol::{Custody, terminal::Frame};
use palmgate_seal::pairing::PairingCode;
use palmgate_stories::Scene;
use palmgate_terminal::Invitation;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Compiles the example as its comment in the header's directory says, warnings being errors.
fn compile(into: &Path) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/terminal-c");
    let libraries = stage::program()?.parent().context("programs lie in a directory")?.to_owned();
    if !libraries.join("libpalmgate.so").exists() {
        bail!("libpalmgate.so is not built: run `cargo build --release -p palmgate-terminal-c`");
    }
    let program = into.join("till");
    let output = Command::new("cc")
        .args(["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(root.join("examples/till.c"))
        .arg("-I")
        .arg(root.join("include"))
        .arg("-L")
        .arg(&libraries)
        .arg("-lpalmgate")
        .arg(format!("-Wl,-rpath,{}", libraries.display()))
        .output()?;
    if !output.status.success() {
        bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(program)
}

/// What the till did and said; it must say nothing secret.
struct Till {
    program: PathBuf,
    directory: PathBuf,
    secrets: Vec<String>,
}

impl Till {
    fn run(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let Output { status, stdout, stderr } =
            Command::new(&self.program).arg(&self.directory).args(arguments).output()?;
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        for secret in &self.secrets {
            assert!(!said.contains(secret), "{said}");
        }
        Ok((status.code(), said))
    }

    fn done(&self, arguments: &[&str], wanted: i32, says: &str) -> Result<()> {
        let (code, said) = self.run(arguments)?;
        assert!(code == Some(wanted) && said.contains(says), "{arguments:?}: {code:?}: {said}");
        Ok(())
    }
}

fn write(directory: &Path, name: &str, frames: &[Frame]) -> Result<String> {
    let path = directory.join(name);
    let [visible, near] = frames else { bail!("two frames a capture") };
    fs::write(&path, visible.picture.expose())?;
    fs::write(path.with_added_extension("nir"), near.picture.expose())?;
    Ok(path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_in_c_is_paired_enrols_a_shopper_and_takes_their_payment() -> Result<()> {
    let scene = Scene::alone(Custody::Operator).await?;
    let directory = scene.directory.path();
    let name = "till-c".to_owned();
    let purposes = vec!["pay".to_owned()];
    let wanted = AddTerminal { name: name.clone(), purposes, enrols: true, sensors: Vec::new() };
    let code = scene.store.control.add(&wanted).await?.code;
    let till = Till {
        program: compile(directory)?,
        directory: directory.join("till-c"),
        secrets: vec![code.clone(), "tok-of-the-payment-provider".into()],
    };
    let port = scene.store.https.port();
    let invite = |code: &str| -> Result<String> {
        let code = PairingCode::parse(code)?;
        Ok(Invitation::new(name.parse()?, "127.0.0.1", port, code)?.text().expose().clone())
    };
    let here = scene.pictures[0].frames();
    let stranger = write(directory, "stranger.png", &scene.pictures[30].frames())?;
    let picture = write(directory, "first.png", &here)?;

    till.done(&["pay", "100", &picture], 1, "status 2")?;
    till.done(&["pair", "palmgate://nobody"], 1, "status 1")?;
    let other = PairingCode::generate(&other_authority()?).text();
    till.done(&["pair", &invite(other.expose())?], 1, "status 4")?;
    till.done(&["pair", &invite(&code)?], 0, "paired")?;
    till.done(&["pair", &invite(&code)?], 1, "status 2")?;

    let mut person = None;
    for index in 0..10 {
        let names = ["a.png", "b.png", "c.png"].into_iter();
        let captures = scene.pictures[index].captures(palmgate_protocol::Hand::Right);
        let files = names.zip(&captures).map(|(name, one)| write(directory, name, &one.frames));
        let files = files.collect::<Result<Vec<_>>>()?;
        let (code, said) = till.run(&["enrol", &files[0], &files[1], &files[2]])?;
        match code {
            Some(0) => person = Some(index),
            Some(2) => continue,
            _ => bail!("{said}"),
        }
        break;
    }
    let person = person.context("no hand could be enrolled")?;
    let again = write(directory, "again.png", &scene.pictures[person].other_frames(77))?;
    till.done(&["pay", "1999", &again], 0, "paid, with an assertion of ")?;
    till.done(&["pay", "1999", &stranger], 2, "")?;
    let text = directory.join("text.png").display().to_string();
    fs::write(&text, "no picture")?;
    fs::write(directory.join("text.png.nir"), "no picture")?;
    till.done(&["pay", "1999", &text], 2, "")?;
    scene.store.control.revoke(&name).await?;
    till.done(&["pay", "1999", &again], 1, "status 3")?;
    Ok(())
}

/// The certificate of an authority that is not this store's.
fn other_authority() -> Result<rustls::pki_types::CertificateDer<'static>> {
    let now = palmgate_protocol::Timestamp::from_millis(1_800_000_000_000);
    let other = palmgate_seal::pki::Authority::generate("another store", now)?;
    Ok(other.certificate_der().clone())
}
