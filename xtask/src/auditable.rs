//! The list of dependencies that each packaged program carries: written by `cargo auditable`, read back
//! from the packages, so that nothing that packs or strips a program can lose it, and held against the
//! lock file and the bills of materials beside the program.

use crate::install_cargo_tool;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(serde::Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(serde::Deserialize)]
struct Lock {
    package: Vec<Crate>,
}

/// A bill of materials, as `cargo cyclonedx` writes it.
#[derive(serde::Deserialize)]
struct Bill {
    metadata: Described,
    components: Vec<Crate>,
}

#[derive(serde::Deserialize)]
struct Described {
    component: Crate,
}

#[derive(serde::Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
}

/// The tool that writes the lists; it wraps `cargo build`.
pub(crate) fn install_writer() -> Result<(), String> {
    install_cargo_tool("cargo-auditable", "auditable", "^0.7")
}

/// Every program in these packages names its dependencies, each as `Cargo.lock` and the package's bills of
/// materials have it.
pub(crate) fn read_back(packages: &[PathBuf]) -> Result<(), String> {
    if Command::new("rust-audit-info").output().is_err() {
        let tool = ["install", "rust-audit-info", "--locked", "--version", "^0.5"];
        crate::step("install rust-audit-info", "cargo", &tool)?;
    }
    let lock = fs::read_to_string("Cargo.lock").map_err(|error| error.to_string())?;
    let lock: Lock = toml::from_str(&lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    let locked: BTreeSet<Crate> = lock.package.into_iter().collect();
    let opened = Path::new("target/packages-opened");
    for package in packages {
        let _ = fs::remove_dir_all(opened);
        let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(opened).status();
        if !status.map_err(|error| format!("dpkg-deb: {error}"))?.success() {
            return Err(format!("{} does not open", package.display()));
        }
        let billed = bills(&opened.join("usr/share/doc"))?;
        let programs = fs::read_dir(opened.join("usr/bin")).map_err(|error| error.to_string())?;
        for program in programs.flatten() {
            let count = list(&program.path(), &locked, &billed)?;
            println!("   {} names its {count} crates", program.file_name().display());
        }
    }
    Ok(())
}

/// What the bills of materials of a package hold, together.
fn bills(documents: &Path) -> Result<BTreeSet<Crate>, String> {
    let mut billed = BTreeSet::new();
    for package in fs::read_dir(documents).map_err(|error| error.to_string())?.flatten() {
        let files = fs::read_dir(package.path()).map_err(|error| error.to_string())?.flatten();
        for path in files.map(|file| file.path()) {
            if path.to_string_lossy().ends_with(".cdx.json") {
                let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let bill = fs::read(&path).map_err(|error| told(&error))?;
                let bill: Bill = serde_json::from_slice(&bill).map_err(|error| told(&error))?;
                billed.extend(bill.components);
                billed.insert(bill.metadata.component);
            }
        }
    }
    Ok(billed)
}

fn list(
    program: &Path,
    locked: &BTreeSet<Crate>,
    billed: &BTreeSet<Crate>,
) -> Result<usize, String> {
    let read = Command::new("rust-audit-info").arg(program).output();
    let read = read.map_err(|error| format!("rust-audit-info: {error}"))?;
    let told = |what: &dyn std::fmt::Display| format!("{}: {what}", program.display());
    if !read.status.success() {
        let remedy = "it carries no list of its dependencies: `cargo xtask package` without --built \
                      builds it with `cargo auditable`";
        return Err(told(&remedy));
    }
    let list: List = serde_json::from_slice(&read.stdout).map_err(|error| told(&error))?;
    for (known, place) in [(locked, "Cargo.lock"), (billed, "a bill of materials")] {
        if let Some(one) = list.packages.iter().find(|one| !known.contains(*one)) {
            return Err(told(&format!("{} {} is not in {place}", one.name, one.version)));
        }
    }
    match list.packages.len() {
        few @ ..50 => Err(told(&format!("{few} crates are too few"))),
        count => Ok(count),
    }
}
