//! `cargo xtask yocto`: the layer's generated crates, its lint, and what the lint does not see.
//! bitbake is in no package registry: recipes are read here, not parsed by bitbake.

use crate::{install, run};
use serde::Deserialize;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const LAYER: &str = "yocto/meta-palmgate";
const CRATES: &str = "yocto/meta-palmgate/recipes-palmgate/palmgate/palmgate-crates.inc";
/// The release that the layer is for, and the Rust that it brings.
const SERIES: &str = "wrynose";
const RUST: (u64, u64) = (1, 94);
/// The version of the programs; the workspace has one.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Classes of openembedded-core, and one of meta-rauc, that recipes may inherit.
const CLASSES: [&str; 10] = [
    "allarch",
    "bundle",
    "cargo",
    "core-image",
    "create-spdx",
    "deploy",
    "externalsrc",
    "pkgconfig",
    "systemd",
    "useradd",
];
/// Variables of openembedded-core and meta-rauc that oelint-adv has not heard of.
const KNOWN: [&str; 3] = ["IMAGE_EFI_BOOT_FILES", "RAUC_SLOT_rootfs", "do_image_wic"];
/// Rules of oelint-adv that do not fit, each with the reason.
const SUPPRESSED: [&str; 4] = [
    // There is no public home page and no public tracker to name.
    "oelint.var.mandatoryvar.HOMEPAGE",
    "oelint.var.mandatoryvar.BUGTRACKER",
    // The source is the tree around the layer.
    "oelint.var.mandatoryvar.SRC_URI",
    // Two files of settings are this layer's own.
    "oelint.var.licenseremotefile",
];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// Checks the layer; with `--write` makes the list of crates anew first.
pub(crate) fn yocto(arguments: &[String]) -> Result<(), String> {
    let crates = crates()?;
    if arguments.iter().any(|argument| argument == "--write") {
        fs::write(CRATES, &crates).map_err(|error| format!("{CRATES}: {error}"))?;
    }
    let written = read(Path::new(CRATES))?;
    if written != crates {
        return Err(format!(
            "{CRATES} is not what Cargo.lock pins: run `cargo xtask yocto --write`"
        ));
    }
    let problems = problems()?;
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    rust_version()?;
    boot_loader()?;
    println!(
        "── yocto layer: {} crates pinned, files, classes, licence, units, Rust",
        crates.matches("crate://").count()
    );
    lint()
}

/// The list of crates: those of the lock file that have a checksum.
fn crates() -> Result<String, String> {
    let lock: Lock =
        toml::from_str(&read(Path::new("Cargo.lock"))?).map_err(|error| error.to_string())?;
    let mut text = String::from(
        "# Made from Cargo.lock by `cargo xtask yocto --write`: every crate with its checksum.\n\
         SRC_URI += \"\\\n",
    );
    let mut sums = String::new();
    for Package { name, version, source, checksum } in &lock.package {
        let Some(source) = source else { continue };
        if !source.starts_with("registry+") {
            return Err(format!("{name} {version} is not from the registry: {source}"));
        }
        let checksum = checksum.as_ref().ok_or(format!("{name} {version} has no checksum"))?;
        let _ = writeln!(text, "    crate://crates.io/{name}/{version} \\");
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{checksum}\"");
    }
    Ok(format!("{text}\"\n\n{sums}"))
}

/// What oelint-adv does not see.
fn problems() -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    let mut say =
        |path: &Path, problem: String| problems.push(format!("{}: {problem}", path.display()));
    let layer = read(&Path::new(LAYER).join("conf/layer.conf"))?;
    if !layer.contains(&format!("LAYERSERIES_COMPAT_palmgate = \"{SERIES}\"")) {
        say(Path::new(LAYER), format!("layer.conf is not for {SERIES}"));
    }
    for path in files(Path::new(LAYER))? {
        let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if kind == "service" {
            say(&path, "units come from systemd/, not from a copy".into());
        }
        if kind == "wks" {
            for problem in problems_of_partitions(&path, &read(&path)?) {
                say(&path, problem);
            }
        }
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("palmgate-bundle_"))
        {
            let wanted = format!("palmgate-bundle_{VERSION}.bb");
            if !path.ends_with(&wanted) {
                say(
                    &path,
                    format!("an update carries the version of its programs: name it {wanted}"),
                );
            }
        }
        if !["bb", "bbappend", "inc"].contains(&kind.as_str()) || path.ends_with(CRATES) {
            continue;
        }
        let text = read(&path)?;
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for problem in problems_of(&path, line) {
                say(&path, problem);
            }
        }
    }
    Ok(problems)
}

/// What a layout of partitions refers to: files beside it, and partitions that units mount.
fn problems_of_partitions(layout: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for word in text.split_whitespace() {
        if let Some(file) = word.strip_prefix("--configfile=") {
            let beside = layout.with_file_name(file.trim_matches('"'));
            if !beside.exists() {
                problems.push(format!("there is no {}", beside.display()));
            }
        }
    }
    if !text.contains("--part-name state ") {
        problems.push("no partition `state`, which var-lib-palmgate.mount mounts".into());
    }
    problems
}

/// What the boot loader is told is a script that it can read, and its first environment a block.
fn boot_loader() -> Result<(), String> {
    install(&[("grub-script-check", "grub-common")])?;
    let mut check = Command::new("grub-script-check");
    check.arg(Path::new(LAYER).join("files/wic/palmgate-grub.cfg"));
    run("grub-script-check", check)?;
    let mut list = Command::new("grub-editenv");
    let slots = "dynamic-layers/rauc/recipes-palmgate/palmgate-slots/files/grubenv";
    list.arg(Path::new(LAYER).join(slots)).arg("list");
    let output = list.output().map_err(|error| format!("grub-editenv: {error}"))?;
    let wanted = "ORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n";
    let found = String::from_utf8_lossy(&output.stdout);
    if found != wanted {
        return Err(format!("{slots}: wanted\n{wanted}found\n{found}"));
    }
    Ok(())
}

fn problems_of(recipe: &Path, line: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if line.contains("${WORKDIR}") {
        problems.push("${WORKDIR} holds no sources since scarthgap: use ${UNPACKDIR}".into());
    }
    if line.contains("security_flags.inc") {
        problems.push("security_flags.inc is the distribution's to require".into());
    }
    if let Some(classes) = line.strip_prefix("inherit ") {
        let unknown = classes.split_whitespace().filter(|class| !CLASSES.contains(class));
        problems.extend(unknown.map(|class| format!("no class {class} that we know of")));
    }
    let words = line.split(|c: char| c.is_whitespace() || c == '"');
    for word in words {
        if let Some(path) = word.strip_prefix("${S}/") {
            // Sources of the tree itself, or what the recipe brought along.
            let beside = recipe.with_file_name("files").join(path);
            let loops = path.contains('$');
            if !loops && !Path::new(path).exists() && !beside.exists() {
                problems.push(format!("there is no {path}"));
            }
        } else if let Some(rest) = word.strip_prefix("file://") {
            let file = rest.split(';').next().unwrap_or_default();
            problems.extend(problem_of_file(recipe, file, rest));
        }
    }
    problems
}

fn problem_of_file(recipe: &Path, file: &str, rest: &str) -> Option<String> {
    if file.starts_with('$') {
        return None;
    }
    let Some((_, wanted)) = rest.split_once(";md5=") else {
        let beside = recipe.with_file_name("files").join(file);
        return (!beside.exists()).then(|| format!("there is no {}", beside.display()));
    };
    let sum = Command::new("md5sum").arg(file).output().ok()?;
    let found = String::from_utf8_lossy(&sum.stdout);
    let found = found.split_whitespace().next().unwrap_or("nothing").to_owned();
    (found != wanted).then(|| format!("{file} has the MD5 {found}, the recipe says {wanted}"))
}

/// The release's Rust builds everything that is pinned.
fn rust_version() -> Result<(), String> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Needs>,
    }
    #[derive(Deserialize)]
    struct Needs {
        name: String,
        version: String,
        rust_version: Option<String>,
    }
    let metadata = ["metadata", "--format-version", "1", "--locked"];
    let output =
        Command::new("cargo").args(metadata).output().map_err(|error| error.to_string())?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let too_new = |needs: &&Needs| {
        let text = needs.rust_version.as_deref().unwrap_or("1.0");
        let mut parts = text.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) > RUST
    };
    let too_new: Vec<String> = metadata
        .packages
        .iter()
        .filter(too_new)
        .map(|needs| format!("{} {}", needs.name, needs.version))
        .collect();
    if too_new.is_empty() {
        return Ok(());
    }
    Err(format!("newer than {SERIES}'s Rust {}.{}: {}", RUST.0, RUST.1, too_new.join(", ")))
}

/// oelint-adv, in an environment of its own.
fn lint() -> Result<(), String> {
    install(&[("/usr/share/doc/python3-venv/copyright", "python3-venv")])?;
    let environment = Path::new("target/oelint");
    let program = environment.join("bin/oelint-adv");
    if !program.exists() {
        let mut make = Command::new("python3");
        run("python environment", {
            make.args(["-m", "venv"]).arg(environment);
            make
        })?;
        let mut pip = Command::new(environment.join("bin/pip"));
        run("install oelint-adv", {
            pip.args(["install", "--quiet", "oelint-adv==9.11.2"]);
            pip
        })?;
    }
    let mut oelint = Command::new(program);
    oelint.args(["--quiet", "--release", SERIES, "--mode", "all", "--relpaths", "--hide", "info"]);
    oelint.args(["--extra-layer", "rauc"]);
    let known = environment.join("known.json");
    let words = serde_json::json!({ "variables": { "known": KNOWN } });
    fs::write(&known, words.to_string())
        .map_err(|error| format!("{}: {error}", known.display()))?;
    oelint.arg("--constantmods").arg(format!("+{}", known.display()));
    for rule in SUPPRESSED {
        oelint.args(["--suppress", rule]);
    }
    let recipes = files(Path::new(LAYER))?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "bb" || kind == "bbappend"));
    oelint.args(recipes);
    run("oelint-adv", oelint)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
