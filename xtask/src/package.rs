//! `cargo xtask package`: the Debian packages, built twice, linted, and tried in a fresh root.

use crate::{install, is_root, run, step};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Package, and the crate that describes it.
const PACKAGES: [(&str, &str); 3] = [
    ("palmgate", "palmgate-gateway"),
    ("palmgate-cloud", "palmgate-cloud"),
    ("palmgate-terminal", "palmgate-cli"),
];
const NEEDED: [(&str, &str); 4] = [
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("lintian", "lintian"),
    ("mmdebstrap", "mmdebstrap"),
    ("/usr/include/tss2/tss2_esys.h", "libtss2-dev"),
];
/// What the generated parts of the packages lie in; the crates' `Cargo.toml` name it.
const PARTS: &str = "target/packaging";
/// Where the packages lie: not in cargo-deb's own `target/debian`, which it empties.
const OUT: &str = "target/packages";
/// And a second time.
const AGAIN: &str = "target/packages-again";
/// What the upgrade starts from: the same programs under a lower version, since there is no earlier
/// release yet.
const BEFORE: &str = "0.0.1-1";
/// What a signed bundle brings: the same programs under a higher one.
const NEXT: &str = "99.0.0-1";

/// Builds, lints and tries the packages. With `--quick` they are only built and linted; with
/// `--built` the programs in `target/release` are taken as they are; with `--arm64` they are those for
/// another processor, tried under emulation.
pub(crate) fn package(arguments: &[String]) -> Result<(), String> {
    install(&NEEDED)?;
    crate::install_cargo_tool("cargo-deb", "deb", "^3.8")?;
    crate::install_cargo_tool("cargo-cyclonedx", "cyclonedx", "^0.5")?;
    let told = |option: &str| arguments.iter().any(|argument| argument == option);
    crate::auditable::install_writer()?;
    // The manual pages are printed by a program that runs here.
    if !told("--built") {
        build_programs()?;
    }
    parts()?;
    let epoch = commit_time()?;
    if told("--arm64") {
        return crate::arm64::package(&epoch, told("--built"));
    }
    for place in [OUT, AGAIN] {
        build(Path::new(place), &epoch, &[])?;
    }
    same_bytes(Path::new(OUT), Path::new(AGAIN))?;
    crate::auditable::read_back(&built()?)?;
    lint(&built()?)?;
    if told("--quick") {
        return Ok(());
    }
    in_fresh_root()
}

/// Builds the programs with the list of their dependencies in each. One test is built with them, so
/// that the dependencies are those that the tests were built with.
fn build_programs() -> Result<(), String> {
    let built = ["--bins", "--test", "tpm"].map(str::to_owned).to_vec();
    let cargo = [vec!["auditable".to_owned()], crate::workspace("build"), built].concat();
    step("build", "cargo", &cargo)
}

/// Manual pages, completions and bills of materials.
fn parts() -> Result<(), String> {
    let _ = fs::remove_dir_all(PARTS);
    step("manual pages and completions", "target/release/palmgate", &["manual", PARTS])?;
    let sbom = Path::new(PARTS).join("sbom");
    fs::create_dir_all(&sbom).map_err(|error| error.to_string())?;
    let mut cyclonedx = Command::new("cargo");
    cyclonedx.args([
        "cyclonedx",
        "--quiet",
        "--format",
        "json",
        "--spec-version",
        "1.5",
        "--all-features",
    ]);
    cyclonedx
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .env("SOURCE_DATE_EPOCH", commit_time()?);
    run("bill of materials", cyclonedx)?;
    // It writes a file beside the manifest of every member.
    for entry in fs::read_dir("crates").map_err(|error| error.to_string())?.flatten() {
        move_bills(&entry.path(), &sbom)?;
    }
    for other in ["fuzz", "tests", "xtask"] {
        move_bills(Path::new(other), &sbom)?;
    }
    notices(&Path::new(PARTS).join("third-party-notices"))
}

fn move_bills(from: &Path, to: &Path) -> Result<(), String> {
    for entry in fs::read_dir(from).map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name();
        if let Some(stem) = name.to_string_lossy().strip_suffix(".cdx.json") {
            let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
            fs::write(to.join(format!("{stem}.cdx.json")), anonymous(&text))
                .and_then(|()| fs::remove_file(entry.path()))
                .map_err(|error| format!("{stem}: {error}"))?;
        }
    }
    Ok(())
}

/// What stands below crates that bring no text.
const WITHOUT_TEXT: &str = "These crates bring no licence text of their own. The texts of the licences \
                            named above are in /usr/share/common-licenses or in the SPDX licence list.";

/// The licence texts of every crate that is linked into the programs, as their licences ask; a text
/// that several crates share stands once.
fn notices(to: &Path) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        packages: Vec<Linked>,
    }
    #[derive(serde::Deserialize)]
    struct Linked {
        name: String,
        version: String,
        license: Option<String>,
        manifest_path: PathBuf,
        source: Option<String>,
    }
    let cargo = |arguments: &[&str]| {
        let output = Command::new("cargo").args(arguments).output();
        output.map(|output| output.stdout).map_err(|error| error.to_string())
    };
    let mut tree = vec!["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    tree.extend(PACKAGES.iter().flat_map(|(_, described_by)| ["--package", *described_by]));
    tree.extend(["--features", "palmgate-gateway/tpm,palmgate-cli/tpm"]);
    let tree = String::from_utf8_lossy(&cargo(&tree)?).into_owned();
    let linked: BTreeSet<&str> = tree.lines().collect();
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Metadata =
        serde_json::from_slice(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for crate_ in metadata.packages.iter().filter(|one| one.source.is_some()) {
        let name = format!("{} v{}", crate_.name, crate_.version);
        if !linked.iter().any(|line| line.starts_with(&name)) {
            continue;
        }
        let licence = crate_.license.as_deref().unwrap_or("see its text");
        let said = format!("{name}: {licence}");
        let own = licence_texts(crate_.manifest_path.parent().unwrap_or(Path::new(".")));
        if own.is_empty() {
            texts.entry(WITHOUT_TEXT.to_owned()).or_default().push(said.clone());
        }
        for text in own {
            texts.entry(text).or_default().push(said.clone());
        }
    }
    if texts.len() < 50 {
        return Err(format!("{} licence texts are too few", texts.len()));
    }
    let line = "-".repeat(80);
    let notice = |(text, crates): (&String, &Vec<String>)| {
        format!("{line}\n{}\n\n{}\n", crates.join("\n"), text.trim_end())
    };
    let all: String = texts.iter().map(notice).collect();
    fs::write(to, all).map_err(|error| error.to_string())
}

fn licence_texts(directory: &Path) -> Vec<String> {
    let known = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"];
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && known.iter().any(|known| name.starts_with(known))
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The bill without the place where it was built.
fn anonymous(text: &str) -> String {
    let here = env::current_dir().map(|here| here.display().to_string()).unwrap_or_default();
    text.replace(&here, "/palmgate")
}

/// The last commit's time: two builds of it have the same bytes.
fn commit_time() -> Result<String, String> {
    let log = Command::new("git").args(["log", "-1", "--format=%ct"]).output();
    let text = log.map_err(|error| format!("git log: {error}"))?.stdout;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.is_empty() { Err("git log names no commit".into()) } else { Ok(text) }
}

pub(crate) fn build(out: &Path, epoch: &str, more: &[&str]) -> Result<(), String> {
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).map_err(|error| error.to_string())?;
    for (package, described_by) in PACKAGES {
        let mut deb = Command::new("cargo");
        // Compressed fast: xz at its best takes minutes for programs that hold networks and law.
        deb.args(["deb", "--no-build", "--fast", "-q", "-p", described_by, "-o"])
            .arg(out)
            .args(more);
        deb.env("SOURCE_DATE_EPOCH", epoch).stdout(Stdio::null());
        run(&format!("{package} in {}", out.display()), deb)?;
    }
    Ok(())
}

/// The packages again, under another version, in `out`.
fn under_version(version: &str, out: &Path) -> Result<(), String> {
    fs::create_dir_all(out).map_err(|error| error.to_string())?;
    let opened = Path::new("target/packages-opened");
    for package in packages(Path::new(OUT))? {
        let _ = fs::remove_dir_all(opened);
        let mut open = Command::new("dpkg-deb");
        run("open a package", {
            open.arg("-R").arg(&package).arg(opened);
            open
        })?;
        let control = opened.join("DEBIAN/control");
        let text = fs::read_to_string(&control).map_err(|error| error.to_string())?;
        let line = |line: &str| match line.strip_prefix("Version: ") {
            Some(_) => format!("Version: {version}\n"),
            None => format!("{line}\n"),
        };
        let text: String = text.lines().map(line).collect();
        fs::write(&control, text).map_err(|error| error.to_string())?;
        let mut close = Command::new("dpkg-deb");
        close.args(["--root-owner-group", "-Zgzip", "-z1", "-b"]).arg(opened).arg(out);
        run(&format!("close it as {version}"), close)?;
    }
    Ok(())
}

/// The packages as they lie there.
pub(crate) fn built() -> Result<Vec<PathBuf>, String> {
    packages(Path::new(OUT))
}

pub(crate) fn packages(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?.flatten();
    let mut packages: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .collect();
    packages.sort();
    if packages.len() == PACKAGES.len() {
        return Ok(packages);
    }
    Err(format!("{} holds {} packages of {}", directory.display(), packages.len(), PACKAGES.len()))
}

fn same_bytes(one: &Path, other: &Path) -> Result<(), String> {
    for package in packages(one)? {
        let twin = other.join(package.file_name().unwrap_or_default());
        let read =
            |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (bytes, again) = (read(&package)?, read(&twin)?);
        if bytes != again {
            return Err(format!("{} and {} differ", package.display(), twin.display()));
        }
        println!("   {}: {} KiB, the same bytes twice", package.display(), bytes.len() / 1024);
    }
    Ok(())
}

pub(crate) fn lint(packages: &[PathBuf]) -> Result<(), String> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    lintian.args(packages);
    run("lintian", lintian)
}

/// The distribution that this machine runs: the programs are linked with its libraries.
pub(crate) fn distribution() -> Result<String, String> {
    let release = fs::read_to_string("/etc/os-release").map_err(|error| error.to_string())?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).ok_or("no VERSION_CODENAME".to_owned())
}

fn in_fresh_root() -> Result<(), String> {
    if !is_root() {
        return Err(
            "a fresh root is made by root: run `sudo cargo xtask package`, or `cargo xtask \
                    package --quick` without it"
                .into(),
        );
    }
    let root = env::temp_dir().join(format!("palmgate-root-{}", std::process::id()));
    let tried = make_root(&root).and_then(|()| try_in(&root));
    let _ = fs::remove_dir_all(&root);
    tried
}

fn make_root(root: &Path) -> Result<(), String> {
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=apt", "--include=systemd,passwd,man-db"]);
    make.arg(distribution()?).arg(root);
    run("fresh root", make)?;
    let inside = root.join("packages");
    fs::create_dir_all(&inside).map_err(|error| error.to_string())?;
    for package in packages(Path::new(OUT))? {
        let name = package.file_name().unwrap_or_default();
        fs::copy(&package, inside.join(name)).map_err(|error| error.to_string())?;
    }
    for (version, directory) in [(BEFORE, "before"), (NEXT, "next")] {
        under_version(version, &inside.join(directory))?;
    }
    let script = fs::copy("packaging/debian/try", root.join("packages/try"));
    script.map(drop).map_err(|error| error.to_string())
}

fn try_in(root: &Path) -> Result<(), String> {
    // Mounts and processes of its own, so that nothing is left behind.
    let inside = "mount -t proc proc \"$0/proc\" && mount --bind /dev \"$0/dev\" && \
                  exec chroot \"$0\" /packages/try";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    unshare.args(["sh", "-c", inside]).arg(root);
    run("install, check, upgrade, remove, purge", unshare)
}
