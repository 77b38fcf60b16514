//! Chores of the workspace. `cargo xtask test` installs what the tests need from the distribution's
//! packages, then runs everything; `cargo xtask forensic` shows at length that the erased are gone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this command's work")]

mod arm64;
mod auditable;
mod boot;
mod cloud_bench;
mod forensic;
mod load;
mod monitoring;
mod package;
mod units;
mod yocto;

use std::{
    env,
    ffi::OsStr,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

/// Programs that the tests start, headers that they are built with, and the package that brings
/// each.
const NEEDED: [(&str, &str); 7] = [
    ("cvc5", "cvc5"),
    ("mosquitto", "mosquitto"),
    ("openssl", "openssl"),
    ("pg_createcluster", "postgresql"),
    ("swtpm", "swtpm"),
    ("/usr/include/tss2/tss2_esys.h", "libtss2-dev"),
    monitoring::NEEDED,
];
/// Everything is built once: with the root in a TPM, and with the proofs of the law packs.
const FEATURES: [&str; 2] = ["--features", "palmgate-stories/tpm,palmgate-policy/proof"];

const USAGE: &str = "usage: cargo xtask test | lint | forensic | load | boot | cloud-bench | monitoring | package | units | yocto";

fn main() -> ExitCode {
    let verb = env::args().nth(1).unwrap_or_default();
    let arguments: Vec<String> = env::args().skip(2).collect();
    let done = match verb.as_str() {
        "test" => test(),
        "lint" => lint(),
        "forensic" => forensic::run(),
        "boot" => boot::run(&arguments),
        "cloud-bench" => install(&NEEDED).and_then(|()| cloud_bench::run(&arguments)),
        "load" => load::run(&arguments),
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

fn lint() -> Result<(), String> {
    step("format", "cargo", &["fmt", "--all", "--", "--check"])?;
    let clippy = ["clippy", "--release", "--workspace", "--all-targets"].into_iter();
    let clippy: Vec<&str> = clippy.chain(FEATURES).chain(["--", "-D", "warnings"]).collect();
    step("clippy", "cargo", &clippy)?;
    install_cargo_tool("cargo-deny", "deny", "^0.20")?;
    step("cargo deny", "cargo", &["deny", "check", "bans", "licenses", "sources"])?;
    let mut doc = cargo();
    doc.args(["doc", "--release", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    run("documentation", doc)
}

/// Installs what is missing with apt; says what to do where there is none.
fn install(needed: &[(&str, &'static str)]) -> Result<(), String> {
    let is_there = |what: &str| Path::new(what).is_file() || is_installed(what);
    if needed.iter().all(|(what, _)| is_there(what)) {
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
    // All of them: what is there already may have to make way for what is missing.
    install.extend(needed.iter().map(|(_, package)| *package));
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
    let mut command = if program == "cargo" { cargo() } else { Command::new(program) };
    command.args(arguments);
    run(name, command)
}

/// Cargo as a shell starts it. `cargo run` told this program about its own package; a build script
/// that looks at such variables (ring's does) would run anew, and all that needs it be built anew.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

fn run(name: &str, mut command: Command) -> Result<(), String> {
    println!("── {name}");
    let begun = Instant::now();
    let status = command.status().map_err(|error| format!("{name}: {error}"))?;
    println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{name} failed with {status}")) }
}
