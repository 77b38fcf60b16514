//! From the start of the daemon to a store that serves: with 100,000 people on disk, and with none.
//! The difference is what opening their references takes: reading and checking the vault, opening
//! every profile and every template, and giving them to the matcher. Every second start finds the
//! files in the page cache. Ends with one line of JSON.
#![allow(clippy::print_stdout, reason = "printing is this program's work")]

use anyhow::{Context, Result};
use palmgate_cli::stage::{Gateway, Shape};
use palmgate_protocol::Name;
use rustix::fs::{Advice, fadvise};
use std::{
    fs::{self, File},
    path::Path,
    time::Instant,
};

const PEOPLE: usize = 100_000;
const STARTS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let empty = starts(0).await?;
    let full = starts(PEOPLE).await?;
    println!(
        "{{\"people\":{PEOPLE},\"starts\":{STARTS},\"serves_after_s\":{:.2},\
         \"serves_after_without_people_s\":{:.2},\"opening_s\":{:.2},\
         \"opening_from_page_cache_s\":{:.2},\"read_mib\":{:.0},\"rss_mib\":{:.0},\
         \"rss_without_people_mib\":{:.0},\"processors\":{}}}",
        full.cold,
        empty.cold,
        full.cold - empty.cold,
        full.warm - empty.warm,
        full.read_mib,
        full.mib,
        empty.mib,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    Ok(())
}

/// Medians.
struct Started {
    /// Seconds, with the files out of the page cache.
    cold: f64,
    /// Seconds, with the files in it.
    warm: f64,
    /// What a cold start reads from the disk.
    read_mib: f64,
    /// Resident.
    mib: f64,
}

async fn starts(people: usize) -> Result<Started> {
    let directory = tempfile::tempdir()?;
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    let shape = Shape { strangers: people, ..Shape::new(&tenant, &store) };
    let mut gateway = Gateway::start(directory.path(), &shape).await?;
    let (mut seconds, mut read, mut mib) = ([Vec::new(), Vec::new()], Vec::new(), Vec::new());
    for start in 0..2 * STARTS {
        gateway.process.stop()?;
        let is_warm = start % 2 == 1;
        if !is_warm {
            forget(&gateway.state)?;
        }
        let begun = Instant::now();
        gateway.restart().await?;
        let took = begun.elapsed().as_secs_f64();
        if !is_warm {
            read.push(read_mib(gateway.process.pid())?);
        }
        mib.push(gateway.process.memory_mib().context("a running process has memory")?);
        let cache = if is_warm { "warm" } else { "cold" };
        println!("{people} people, {cache}: serves after {took:.2} s");
        seconds[usize::from(is_warm)].push(took);
    }
    let [cold, warm] = seconds.map(median);
    Ok(Started { cold, warm, read_mib: median(read), mib: median(mib) })
}

/// What the process had the disk read.
fn read_mib(pid: u32) -> Result<f64> {
    let counts = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = counts.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.context("no read_bytes")?.parse::<f64>()? / 1024.0 / 1024.0)
}

/// Takes every file below out of the page cache.
fn forget(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
