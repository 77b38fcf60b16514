//! `cargo xtask boot`: a box from the packages in a virtual machine with a TPM, under its real units;
//! the power is cut in the middle of enrolments and of erasures, and what was acknowledged must hold.
//! Ends with one line of JSON.

mod image;
mod machine;
mod store;

use crate::{install, is_root};
use image::Image;
use machine::{Machine, Ports};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use store::{Cut, Store};

const NEEDED: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("swtpm", "swtpm"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
];
/// Disks, the TPM's state, consoles and the terminal: kept for a look when something failed.
const WORK: &str = "target/boot";

/// What may be said on the command line.
struct Options {
    /// Takes the packages in `target/packages`.
    built: bool,
    /// Takes the image of the last run, too.
    image: bool,
    /// Uses the machine's own virtualisation.
    kvm: bool,
    /// How often the power is cut.
    cuts: u64,
    /// What the moments of the cuts are drawn from.
    seed: u64,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { built: false, image: false, kvm: false, cuts: 6, seed: 1 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let number = arguments.next().and_then(|number| number.parse().ok());
                number.ok_or(format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--built" => options.built = true,
                "--same-image" => options.image = true,
                "--kvm" => options.kvm = true,
                "--cuts" => options.cuts = number()?,
                "--seed" => options.seed = number()?,
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }
}

const USAGE: &str =
    "usage: cargo xtask boot [--built] [--same-image] [--kvm] [--cuts N] [--seed N]";

/// What was counted.
#[derive(Default)]
struct Counts {
    boots: u64,
    cuts: u64,
    /// Cuts after which an unanswered request had happened all the same.
    happened: u64,
    enrolled: usize,
    lost: u64,
    erased: usize,
    back: u64,
}

/// Boots the box, cuts its power, boots it again, until all cuts are made.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let begun = Instant::now();
    install(&NEEDED)?;
    if !options.built && !options.image {
        crate::package::package(&["--quick".to_owned()])?;
    }
    if !is_root() {
        return Err("an image is made by root: run `sudo cargo xtask boot`".into());
    }
    let work = Path::new(WORK);
    if !options.image {
        let _ = fs::remove_dir_all(work);
        Image::make(work)?;
    }
    let image = Image::of(work)?;
    // A TPM as it comes from the factory.
    let _ = fs::remove_dir_all(work.join("tpm"));
    println!("── image: {:.0} s", begun.elapsed().as_secs_f64());
    let mut counts = Counts::default();
    let told = story(&options, &image, work, &mut counts);
    let Counts { boots, cuts, happened, enrolled, lost, erased, back } = counts;
    println!(
        "{{\"boots\":{boots},\"cuts\":{cuts},\"unanswered_but_done\":{happened},\
         \"enrolled\":{enrolled},\"lost\":{lost},\
         \"erased\":{erased},\"back\":{back},\"minutes\":{:.1}}}",
        begun.elapsed().as_secs_f64() / 60.0
    );
    told?;
    match lost + back {
        0 => Ok(()),
        broken => Err(format!("{broken} promises are broken")),
    }
}

fn story(options: &Options, image: &Image, work: &Path, counts: &mut Counts) -> Result<(), String> {
    let ports = Ports::free()?;
    let mut store = Store::new(work, &ports, if options.kvm { 3 } else { 1 })?;
    let mut machine = boot(options, image, work, &ports, counts)?;
    machine.ask(&format!("broker={} https={} set-up", ports.broker, ports.https))?;
    machine.runs()?;
    store.pair(&mut machine)?;
    machine.ask("stall")?;
    examine(&mut machine)?;
    println!("   systemd started another daemon in place of one that stopped answering");
    let settled = store.settle(&mut machine);
    let (enrol, erase) = machine.explained(settled)?;
    println!("   an enrolment takes {:.1} s, an erasure {:.1} s", seconds(enrol), seconds(erase));
    for number in 0..options.cuts {
        machine.explained(store.grow())?;
        machine.ask("remember")?;
        let enrols = number % 2 == 0;
        let (kind, whole) = if enrols { (Cut::Enrolment, enrol) } else { (Cut::Erasure, erase) };
        let moment = whole.mul_f64(moment(options, number));
        store.begin(kind)?;
        std::thread::sleep(moment);
        machine.cut();
        counts.cuts += 1;
        store.interrupted()?;
        println!("   power cut {:.1} s into an {kind}", seconds(moment));
        machine = boot(options, image, work, &ports, counts)?;
        examine(&mut machine)?;
        let found = machine.explained(store.verify())?;
        let held = store.checkpoints()?;
        for checkpoint in &held {
            machine.continues(checkpoint)?;
        }
        println!("   the ledger continues the checkpoints of {} receipts", held.len());
        counts.happened += u64::from(found.happened);
        counts.lost += found.lost;
        counts.back += found.back;
        (counts.enrolled, counts.erased) = store.acknowledged();
    }
    counts.cuts += 1;
    machine.cut_loses_what_is_not_flushed(work)?;
    println!("   a write that was not flushed is gone after the cut");
    Ok(())
}

/// Everything is in its place, and the daemon stays up meanwhile. On an emulated processor its first
/// start after a boot may run into systemd's limit while the matcher reads its models.
fn examine(machine: &mut Machine) -> Result<(), String> {
    machine.runs()?;
    let told = machine.ask("restarts=$(systemctl show --value -p NRestarts palmgated) examine")?;
    println!("   {}", told.trim());
    Ok(())
}

fn boot(
    options: &Options,
    image: &Image,
    work: &Path,
    ports: &Ports,
    counts: &mut Counts,
) -> Result<Machine, String> {
    let begun = Instant::now();
    counts.boots += 1;
    let machine = Machine::boot(image, work, counts.boots, ports, options.kvm)?;
    println!("── boot {}: {:.0} s", counts.boots, begun.elapsed().as_secs_f64());
    Ok(machine)
}

/// When to cut, as a part of what the request takes in peace. The first part of that is the
/// terminal's own, which starts and finds the palm; the cuts are spread over the rest and a little
/// beyond.
fn moment(options: &Options, number: u64) -> f64 {
    let kinds = options.cuts.div_ceil(2).max(1) as f64;
    let drawn = splitmix(options.seed.wrapping_add(number)) >> 11;
    let within = drawn as f64 / (1_u64 << 53) as f64;
    0.4 + 0.65 * ((number / 2) as f64 + within) / kinds
}

/// `SplitMix64`: the same moments on every machine.
const fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
