//! Chores of the workspace. `cargo xtask test` installs what the tests need from the distribution's
//! packages, then runs everything; `cargo xtask forensic` shows at length that the erased are gone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this command's work")]

mod monitoring;
mod package;
mod units;
mod yocto;

use std::{
    env,
    ffi::OsStr,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// Programs that the tests start, headers that they are built with, and the package that brings
/// each.
const NEEDED: [(&str, &str); 5] = [
    ("mosquitto", "mosquitto"),
    ("openssl", "openssl"),
    ("swtpm", "swtpm"),
    ("/usr/include/tss2/tss2_esys.h", "libtss2-dev"),
    monitoring::NEEDED,
];
/// Everything is built once, with the root in a TPM, too.
const FEATURES: [&str; 2] = ["--features", "palmgate-stories/tpm"];

const USAGE: &str =
    "usage: cargo xtask test | lint | forensic | monitoring | package | units | yocto";

fn main() -> ExitCode {
    let verb = env::args().nth(1).unwrap_or_default();
    let arguments: Vec<String> = env::args().skip(2).collect();
    let done = match verb.as_str() {
        "test" => test(),
        "lint" => lint(),
        "forensic" => forensic(),
        "monitoring" => monitoring::monitoring(&arguments),
        "package" => package::package(&arguments),
        "units" => units::units(),
        "yocto" => yocto::yocto(&arguments),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    install(&NEEDED)?;
    lint()?;
    monitoring::rules()?;
    units::units()?;
    yocto::yocto(&[])?;
    build_programs()?;
    let everything = [workspace("test"), vec!["--no-fail-fast".to_owned()]].concat();
    step("tests and stories", "cargo", &everything)
}

/// The stories start the built programs. Tests are built with them: by themselves the programs
/// would need the dependencies with fewer features, and everything would be built twice.
fn build_programs() -> Result<(), String> {
    let built = ["--bins", "--lib", "--tests"].map(str::to_owned).to_vec();
    step("build", "cargo", &[workspace("build"), built].concat())
}

fn workspace(verb: &str) -> Vec<String> {
    let arguments = [verb, "--release", "--workspace"].into_iter().chain(FEATURES);
    arguments.map(str::to_owned).collect()
}

/// Everything ever written is searched for people who were erased, and the power is cut at every
/// change of the disk. Ends with one line of JSON.
fn forensic() -> Result<(), String> {
    const KEYS: [&str; 7] = [
        "erased",
        "remnants",
        "control_before",
        "control_without_rotation",
        "crash_points",
        "lost",
        "back",
    ];
    install(&NEEDED)?;
    let mut tests = Command::new("cargo");
    tests.args(["test", "--release", "-p", "palmgate-vault", "--features", "tpm", "--lib", "--"]);
    tests.args(["tests::forensic", "tests::powercut", "--include-ignored", "--nocapture"]);
    // It waits a second for each of sled's endless waits, for many minutes: run it by itself.
    tests.args(["--skip", "every_second_change_failing"]);
    let output = tests.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !output.status.success() {
        return Err(format!("the forensic tests failed with {}", output.status));
    }
    let figure = |key: &str| {
        let prefix = format!("forensic {key} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse::<u64>().ok());
        value.map(|value| format!("\"{key}\":{value}")).ok_or(format!("no figure for {key}"))
    };
    let figures: Vec<String> = KEYS.into_iter().map(figure).collect::<Result<_, _>>()?;
    println!("{{{}}}", figures.join(","));
    Ok(())
}

fn lint() -> Result<(), String> {
    step("format", "cargo", &["fmt", "--all", "--", "--check"])?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets"].into_iter();
    let clippy: Vec<&str> = clippy.chain(FEATURES).chain(["--", "-D", "warnings"]).collect();
    step("clippy", "cargo", &clippy)?;
    install_cargo_tool("cargo-deny", "deny", "^0.20")?;
    step("cargo deny", "cargo", &["deny", "check", "bans", "licenses", "sources"])?;
    let mut doc = Command::new("cargo");
    doc.args(["doc", "--release", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    run("documentation", doc)
}

/// Installs what is missing with apt; says what to do where there is none.
fn install(needed: &[(&str, &'static str)]) -> Result<(), String> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(what, _)| !Path::new(what).is_file() && !is_installed(what))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = |arguments: &[&str]| {
        let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
        if !is_root() {
            command.arg("apt-get");
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run("apt-get", command)
    };
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)
}

/// Installs a subcommand of cargo.
fn install_cargo_tool(package: &str, subcommand: &str, version: &str) -> Result<(), String> {
    let present = Command::new("cargo").args([subcommand, "--version"]).output();
    if present.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let arguments = ["install", package, "--locked", "--version", version];
    step(&format!("install {package}"), "cargo", &arguments)
}

fn is_installed(program: &str) -> bool {
    let places = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    env::split_paths(&places).chain(sbin).any(|place| place.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn step(name: &str, program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run(name, command)
}

fn run(name: &str, mut command: Command) -> Result<(), String> {
    println!("── {name}");
    let begun = Instant::now();
    let status = command.status().map_err(|error| format!("{name}: {error}"))?;
    println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{name} failed with {status}")) }
}
