//! The search beside its peers: faiss and usearch, in the same run, on the same vectors, one thread
//! each, in turns. Needs Python 3 with `venv`, and the package index for the first run.
//!
//! `cargo bench -p palmgate-gallery --bench peers [-- --plots] [-- ROWS…]` writes
//! `target/bench/gallery.json` and `gallery-more.json`, and prints the tables of `docs/search.md`;
//! `--plots` also draws its plots.
#![allow(clippy::print_stdout, reason = "a table is what this command is for")]

#[path = "peers/measure.rs"]
mod measure;
#[path = "peers/miss.rs"]
mod miss;
#[path = "peers/python.rs"]
mod python;
#[path = "peers/tables.rs"]
mod tables;

use measure::{DIMENSIONS, Ours, median, milliseconds};
use palmgate_gallery::without_avx512;
use python::Peers;
use serde_json::{Value, json};
use std::{error::Error, fs, path::Path};

const PEERS: [&str; 4] =
    ["faiss-flat-ip", "faiss-binary-flat-512", "faiss-pq-fastscan-refine", "usearch-f32"];
const ALL: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Cosine from which a row of the bench's vectors is the same person.
const THRESHOLD: f32 = 0.6;
const BUDGET: f64 = 1e-6;
const BATCH: usize = 32;
/// Searches that are timed together where two ways to search are compared.
const TOGETHER: usize = 8;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let chosen: Vec<usize> = arguments.iter().filter_map(|each| each.parse().ok()).collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    python::prepare(&folder)?;
    let misses = miss::all(THRESHOLD)?;
    let mut result = json!({
        "rows": [],
        "miss_bound": misses[0].bound,
        "miss_seen": misses[0].seen,
        "probes": misses[0].probes,
    });
    let mut more = json!({ "runs": [], "misses": misses, "plans": miss::plans(BUDGET)? });
    let (mut rows, mut runs, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for n in if chosen.is_empty() { ALL.to_vec() } else { chosen } {
        match compare(&folder, n) {
            Ok((times, others)) => {
                rows.extend(times);
                runs.push(others);
            }
            // The other sizes are worth having.
            Err(error) => failures.push(format!("{n} rows: {error}")),
        }
        result["rows"] = rows.clone().into();
        more["runs"] = runs.clone().into();
        fs::write(folder.join("gallery.json"), serde_json::to_vec_pretty(&result)?)?;
        fs::write(folder.join("gallery-more.json"), serde_json::to_vec_pretty(&more)?)?;
    }
    println!("\n{}", tables::all(&result, &more));
    if arguments.iter().any(|argument| argument == "--plots") {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        python::plot(&folder, &docs)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}

/// Searches for so many probes together, from the one of that number on.
type Search<'a> = &'a dyn Fn(usize, usize);

/// What is measured of one method.
#[derive(Default)]
struct Times {
    hot: Vec<f64>,
    cold: Vec<f64>,
    batch: Vec<f64>,
}

fn compare(folder: &Path, n: usize) -> Result<(Vec<Value>, Value)> {
    println!("\n{n} rows of {DIMENSIONS} dimensions: making the vectors and the peers' indexes");
    let mut peers = Peers::start(folder, n)?;
    let ours = Ours::load(folder, n)?;
    let checked = ours.check(folder, THRESHOLD, BUDGET)?;
    let plan = ours.shard.plan(THRESHOLD, BUDGET)?;
    let (rounds, inner) = match n {
        0..=10_000 => (60, 20),
        10_001..=100_000 => (40, 4),
        _ => (15, 1),
    };
    let cascade = |first: usize, batch: usize| ours.above(first, batch, &plan);
    let exhaustive = |first: usize, batch: usize| ours.nearest(first, batch);
    let searches: [(&str, Search<'_>); 2] =
        [("palmgate", &cascade), ("palmgate-int8", &exhaustive)];
    let mut times: Vec<(&str, Times)> = Vec::new();
    times.extend(searches.iter().map(|(name, _)| (*name, Times::default())));
    times.extend(PEERS.map(|name| (name, Times::default())));
    let (mut narrow, mut wide, mut bandwidth) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let first = (round * 7) % (measure::PROBES - inner.max(TOGETHER));
        for (at, (name, times)) in times.iter_mut().enumerate() {
            let also_rare = round % 5 == 0;
            if let Some((_, search)) = searches.get(at) {
                times.hot.push(measure::hot(inner, |i| search(first + i, 1)));
                if also_rare {
                    times.cold.push(measure::cold(|| search(first, 1)));
                    times.batch.push(measure::hot(1, |_| search(first / 2, BATCH)) / BATCH as f64);
                }
            } else {
                times.hot.push(peers.time(name, "hot", first, inner, 1)?);
                if also_rare {
                    times.cold.push(peers.time(name, "cold", first, 1, 1)?);
                    times.batch.push(peers.time(name, "hot", first / 2, 1, BATCH)?);
                }
            }
        }
        bandwidth.push(ours.stream(inner));
        // In turns and several together: a single search takes less than the machine's moods.
        measure::hot(TOGETHER, |i| cascade(first + i, 1));
        for is_narrow in [false, true, false, true] {
            without_avx512(is_narrow);
            let times = if is_narrow { &mut narrow } else { &mut wide };
            times.push(measure::hot(TOGETHER, |i| cascade(first + i, 1)));
        }
        without_avx512(false);
    }
    let (two_threads, two_readers) = (ours.two_threads(&plan), ours.two_readers());
    println!("{}", table(&times));
    let of = |name: &str| &times.iter().find(|each| each.0 == name).expect("measured above").1;
    let int8 = median(&of("palmgate-int8").hot);
    let more = json!({
        "n": n,
        "load_ms": ours.load_ms,
        "bytes_a_row": ours.bytes_a_row,
        "huge_pages": ours.huge_pages,
        "plan": {
            "components": plan.components(),
            "typical_cut": plan.typical_cut::<DIMENSIONS>(),
            "miss_bound": plan.miss_bound(),
        },
        "above_threshold": checked.above,
        "differing_from_float_search": checked.differing,
        "swapped_within_rounding": checked.swapped,
        "int8_share_of_bandwidth": median(&bandwidth) / int8,
        "bandwidth_gb_s": (n * DIMENSIONS) as f64 / median(&bandwidth) / 1e6,
        "avx2_over_avx512": median(&narrow) / median(&wide),
        "two_threads_over_one": two_threads,
        "two_readers_over_one": two_readers,
        "cold_ms": medians(&times, |times| &times.cold),
        "batch_ms": medians(&times, |times| &times.batch),
        "load_average": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    });
    println!("{}", serde_json::to_string_pretty(&more)?);
    let rows = times
        .iter()
        .map(|(method, times)| {
            let least = times.hot.iter().copied().fold(f64::INFINITY, f64::min);
            json!({ "method": method, "n": n, "median_ms": median(&times.hot), "min_ms": least })
        })
        .collect();
    Ok((rows, more))
}

fn medians(times: &[(&str, Times)], of: fn(&Times) -> &Vec<f64>) -> Value {
    times.iter().map(|(name, each)| ((*name).to_owned(), median(of(each)))).collect()
}

fn table(times: &[(&str, Times)]) -> String {
    let mut lines = vec![format!(
        "{:<26}{:>10}{:>10}{:>10}{:>10}   {:>9}{:>9}{:>9}",
        "ms a search", "median", "least", "cold", "batch 32", "× median", "× cold", "× batch"
    )];
    let ours = &times[0].1;
    for (name, each) in times {
        let ratio = |of: fn(&Times) -> &Vec<f64>| median(of(each)) / median(of(ours));
        lines.push(format!(
            "{name:<26}{}{}{}{}   {:>9.2}{:>9.2}{:>9.2}",
            milliseconds(median(&each.hot)),
            milliseconds(each.hot.iter().copied().fold(f64::INFINITY, f64::min)),
            milliseconds(median(&each.cold)),
            milliseconds(median(&each.batch)),
            ratio(|times| &times.hot),
            ratio(|times| &times.cold),
            ratio(|times| &times.batch),
        ));
    }
    lines.join("\n")
}
