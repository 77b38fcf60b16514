//! `cargo xtask package --arm64`: the packages for arm64, built here and tried under emulation.

use crate::{install, package, run};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const EMULATOR: &str = "qemu-aarch64-static";
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";
const NEEDED: [(&str, &str); 5] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    (EMULATOR, "qemu-user-static"),
    ("mmdebstrap", "mmdebstrap"),
    ("pkg-config", "pkg-config"),
];
/// Whose hands are tried; each is photographed once, the other capture is simulated.
const PEOPLE: usize = 4;
/// Where the packages lie.
const OUT: &str = "target/packages-arm64";
/// What the programs are linked with beside the C library: Debian's for arm64, unpacked.
const LINKED: &str = "target/arm64/sysroot";
/// What the packages ask for, and nothing else.
const ROOT: &str = "target/arm64/root";

/// Builds the packages for arm64 and tries their programs.
pub(crate) fn package(epoch: &str, built: bool) -> Result<(), String> {
    install(&NEEDED)?;
    crate::step("standard library", "rustup", &["target", "add", TARGET])?;
    if !built {
        unpack(LINKED, "libtss2-dev,libc6,libgcc-s1")?;
        build()?;
    }
    package::build(Path::new(OUT), epoch, &["--target", TARGET, "--variant", "arm64"])?;
    let packages = package::packages(Path::new(OUT))?;
    crate::auditable::read_back(&packages)?;
    package::lint(&packages)?;
    try_out(&packages)?;
    kernels()
}

/// Unpacks packages for arm64 and what they need; nothing of them is started.
fn unpack(root: &str, packages: &str) -> Result<(), String> {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).map_err(|error| format!("{root}: {error}"))?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--arch=arm64", "--variant=extract", "--include", packages]);
    make.arg(package::distribution()?).arg(root);
    run(&format!("{packages} for arm64"), make)
}

/// The packaged programs alone: what only the tests need is not compiled for arm64.
fn build() -> Result<(), String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["auditable", "build", "--release", "--bins", "--target", TARGET]);
    for one in ["palmgate-gateway", "palmgate-matcher", "palmgate-cloud", "palmgate-cli"] {
        cargo.args(["--package", one]);
    }
    cargo.args(["--features", "palmgate-cli/tpm"]);
    across(&mut cargo)?;
    run("build for arm64", cargo)
}

/// What cargo needs to compile for arm64 here, and to run what it compiled.
fn across(cargo: &mut Command) -> Result<(), String> {
    let here = env::current_dir().map_err(|error| error.to_string())?;
    let root = here.join(LINKED);
    cargo.env("PKG_CONFIG_ALLOW_CROSS", "1").env("PKG_CONFIG_SYSROOT_DIR", &root);
    cargo.env("PKG_CONFIG_LIBDIR", root.join(LIBRARIES).join("pkgconfig"));
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    let emulator = format!("{EMULATOR} -L {}", here.join(ROOT).display());
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", emulator);
    // What the linked libraries themselves need.
    let below = format!("-Clink-arg=-Wl,-rpath-link,{LINKED}/{LIBRARIES}");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", below);
    cargo.env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc");
    cargo.env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar");
    Ok(())
}

/// The gallery's kernels for this processor against their portable twins.
fn kernels() -> Result<(), String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--package", "palmgate-gallery", "--lib"]);
    cargo.args(["--target", TARGET]);
    across(&mut cargo)?;
    run("the gallery's kernels on arm64", cargo)
}

/// Starts every program, in a root with the libraries that the packages ask for and no others, and has
/// the matcher's and the gallery's code for this processor recognise hands.
fn try_out(packages: &[PathBuf]) -> Result<(), String> {
    unpack(ROOT, &depends(packages)?)?;
    for package in packages {
        let mut open = Command::new("dpkg-deb");
        open.arg("-x").arg(package).arg(ROOT);
        run(&format!("unpack {}", package.display()), open)?;
    }
    let programs =
        fs::read_dir(Path::new(ROOT).join("usr/bin")).map_err(|error| error.to_string())?;
    let mut tried = 0;
    for program in programs.flatten().map(|program| program.path()) {
        let name = program.file_name().unwrap_or_default().display().to_string();
        if name.starts_with("palmgate") {
            emulated(&name, &["--version"])?;
            emulated(&name, &["--help"])?;
            tried += 1;
        }
    }
    if tried != 5 {
        return Err(format!("{tried} programs of five were tried"));
    }
    let config = format!("{ROOT}/etc/palmgate/palmgated.toml");
    emulated("palmgated", &["--check", "--config", &config])?;
    recognise()
}

/// Hands are found, turned into references and recognised by the code for this processor.
fn recognise() -> Result<(), String> {
    let work = Path::new("target/arm64/hands");
    let _ = fs::remove_dir_all(work);
    let hands = fs::read_dir("crates/palm/data/hands").map_err(|error| error.to_string())?;
    let mut hands: Vec<PathBuf> = hands.flatten().map(|entry| entry.path()).collect();
    hands.retain(|path| path.extension().is_some_and(|kind| kind == "JPG"));
    hands.sort();
    for (number, hand) in hands.iter().take(PEOPLE).enumerate() {
        let person = work.join("people").join(format!("person-{number}"));
        fs::create_dir_all(&person).map_err(|error| error.to_string())?;
        fs::copy(hand, person.join("1-1.jpg")).map_err(|error| error.to_string())?;
        let (hand, other) = (hand.display().to_string(), person.join("2-1.jpg"));
        let other = other.display().to_string();
        emulated("palmgate-simulated-terminal", &["recapture", &hand, &other])?;
    }
    let figures = work.join("figures.json").display().to_string();
    let (people, report) = (work.join("people"), work.join("report"));
    let (people, report) = (people.display().to_string(), report.display().to_string());
    emulated("palmgate", &["evaluate", &people, "--out", &report, "--json", &figures])?;
    let found = fs::read(&figures).map_err(|error| format!("{figures}: {error}"))?;
    let found: Recognised = serde_json::from_slice(&found).map_err(|error| error.to_string())?;
    if found.pictures == 2 * PEOPLE && found.failure_to_acquire == 0.0 && found.rank1 > 0.999 {
        return Ok(());
    }
    Err(format!("on arm64 not every hand is recognised: see {figures}"))
}

#[derive(serde::Deserialize)]
struct Recognised {
    pictures: usize,
    failure_to_acquire: f64,
    rank1: f64,
}

/// The libraries that the packages depend on, by name.
fn depends(packages: &[PathBuf]) -> Result<String, String> {
    let mut names = Vec::new();
    for package in packages {
        let field = Command::new("dpkg-deb").arg("-f").arg(package).arg("Depends").output();
        let field = field.map_err(|error| format!("dpkg-deb: {error}"))?.stdout;
        let field = String::from_utf8_lossy(&field).into_owned();
        let name = |wanted: &str| wanted.split_whitespace().next().map(str::to_owned);
        names.extend(field.split(',').filter_map(name).filter(|name| name.starts_with("lib")));
    }
    names.sort();
    names.dedup();
    if names.iter().any(|name| name == "libc6") {
        Ok(names.join(","))
    } else {
        Err("no libc6".into())
    }
}

fn emulated(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut emulated = Command::new(EMULATOR);
    emulated.args(["-L", ROOT]).arg(format!("{ROOT}/usr/bin/{program}")).args(arguments);
    run(&format!("{program} {} on arm64", arguments.join(" ")), {
        if arguments.first().is_some_and(|first| first.starts_with("--") && *first != "--check") {
            emulated.stdout(std::process::Stdio::null());
        }
        emulated
    })
}
