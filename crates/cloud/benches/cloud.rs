//! What a cloud with many people costs: `cargo xtask cloud-bench`.
//!
//! For each size a PostgreSQL database is filled with people who do not exist, the real program is
//! started over it, and a store asks over TLS, one question after another. The last line is the
//! largest size as JSON. Arguments are numbers of people.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails stops")]
#![allow(dead_code, unused_imports, reason = "shared with the tests")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Gateway, apart, cluster::Cluster, found_on_postgres};
use palmgate_cloud::{
    clock, provision,
    synthetic::{self, Synthetic},
};
use palmgate_protocol::{
    Name, Probe, Purpose,
    cloud::{ProbeQuery, Resolution, SearchAnswer, SearchOutcome, SearchQuery},
    decode, encode,
};
use palmgate_seal::envelope::{self, Label};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_palmgate-cloud");
const SHARD: u64 = 20_000;
/// Questions of each kind.
const QUESTIONS: usize = 200;
/// As in production, but for the durability of the filling.
const FILLING: [&str; 6] = [
    "fsync=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=16GB",
    "shared_buffers=1GB",
    "maintenance_work_mem=256MB",
];
const SERVING: [&str; 2] = ["shared_buffers=1GB", "max_wal_size=4GB"];

struct Measured {
    members: u64,
    shard_rows: u64,
    fill: Duration,
    database_mib: u64,
    index: Duration,
    rss_mib: u64,
    shard: Duration,
    shard_mib: f64,
    search: [Duration; 3],
    claim: [Duration; 3],
    erase: Duration,
    register: Duration,
    found: usize,
}

fn main() {
    let mut sizes: Vec<u64> = std::env::args().skip(1).filter_map(|it| it.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut last = String::new();
    for members in sizes {
        let measured = runtime.block_on(measure(members));
        print(&measured);
        last = json(&measured);
    }
    println!("{last}");
}

async fn measure(members: u64) -> Measured {
    let cluster = Cluster::start(&FILLING);
    let choices = "[search]\nthreshold = 0.85\n[limits]\nmembers = 100000000\nrequests_per_minute = 1000000\nresolutions_per_minute = 1000000\ntries_per_claim_per_hour = 1000000\n";
    let directory = found_on_postgres(&cluster, choices);
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    let lyon: Name = "lyon".parse().unwrap();
    let now = clock::now();
    apart(|| provision::add_store(&state, &lyon, &bundle, None, now).map(drop).unwrap());
    let begun = Instant::now();
    apart(|| synthetic::load(&state, &lyon, (members, SHARD), now).unwrap());
    cluster.sql("postgres", "VACUUM (ANALYZE)").unwrap();
    cluster.sql("postgres", "CHECKPOINT").unwrap();
    let fill = begun.elapsed();
    println!("{members} people written in {:.0} s", fill.as_secs_f64());
    let cluster = cluster.restarted(&SERVING);
    let size = cluster.sql("postgres", "SELECT pg_database_size('postgres') / 1048576").unwrap();

    let begun = Instant::now();
    let (child, address, monitor) = serve(&state);
    let gateway = Gateway::read(&bundle, address);
    gateway.hello().await;
    while indexed(monitor).await < members {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let index = begun.elapsed();
    let begun = Instant::now();
    let response = gateway.get("/v1/shard?held=0").await;
    let shard_bytes = response.bytes().await.unwrap().len();
    let shard = begun.elapsed();
    assert!(shard_bytes > 1_000_000, "a whole shard");
    let (search, found) = searches(&gateway, members).await;
    let claim = claims(&gateway, members).await;
    let rss_mib = resident(&child);
    let (register, erase) = changes(&gateway).await;
    drop(child);
    Measured {
        members,
        shard_rows: members.min(SHARD),
        fill,
        database_mib: size.trim().parse().unwrap(),
        index,
        rss_mib,
        shard,
        shard_mib: shard_bytes as f64 / 1_048_576.0,
        search,
        claim,
        erase,
        register,
        found,
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(state: &std::path::Path) -> (Killed, std::net::SocketAddr, std::net::SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--monitor", &free.to_string(), "--state"])
        .arg(state)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, address)) = line.rsplit_once("address=") {
            break address.parse().unwrap();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    (Killed(child), address, free)
}

async fn indexed(monitor: std::net::SocketAddr) -> u64 {
    let Ok(response) = reqwest::get(format!("http://{monitor}/metrics")).await else { return 0 };
    let text = response.text().await.unwrap_or_default();
    let value =
        text.lines().find_map(|line| line.strip_prefix("palmgate_registry_indexed_embeddings "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn resident(child: &Killed) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Half of the questions are of members, half of strangers.
async fn searches(gateway: &Gateway, members: u64) -> ([Duration; 3], usize) {
    let (mut times, mut found) = (Vec::new(), 0);
    for number in 0..QUESTIONS as u64 {
        let is_member = number % 2 == 0;
        let who = if is_member { number * 7919 % members } else { members + number };
        let padded = envelope::pad(Synthetic(who).probe().to_bytes().expose(), Probe::PADDED_BYTES);
        let binding = SearchQuery::binding(Purpose::Pay);
        let sealed = envelope::seal(
            &gateway.matcher,
            Label::Probe,
            &gateway.tenant,
            &binding,
            padded.expose(),
        );
        let query = encode(&SearchQuery { purpose: Purpose::Pay, sealed: sealed.unwrap() });
        let begun = Instant::now();
        let response = gateway.post("/v1/search", query).await;
        assert_eq!(response.status(), 200);
        let bytes = response.bytes().await.unwrap();
        times.push(begun.elapsed());
        let answer: SearchAnswer = decode(envelope::unpad(&bytes).unwrap()).unwrap();
        assert!(answer.missing.is_empty());
        let hit = matches!(answer.outcome, SearchOutcome::Found { .. });
        assert!(is_member || !hit, "a stranger is somebody");
        found += usize::from(hit);
    }
    (percentiles(times), found)
}

async fn claims(gateway: &Gateway, members: u64) -> [Duration; 3] {
    let mut times = Vec::new();
    for number in 0..QUESTIONS as u64 {
        let who = Synthetic(number * 104_729 % members);
        let mut query =
            ProbeQuery { purpose: Purpose::Pay, claim: who.claim(), sealed: Vec::new() };
        let padded = envelope::pad(who.probe().to_bytes().expose(), Probe::PADDED_BYTES);
        let sealed = envelope::seal(
            &gateway.matcher,
            Label::Probe,
            &gateway.tenant,
            &query.binding(),
            padded.expose(),
        );
        query.sealed = sealed.unwrap();
        let begun = Instant::now();
        let response = gateway.post("/v1/resolve/probe", encode(&query)).await;
        let (answer, _) = common::resolution(response).await;
        times.push(begun.elapsed());
        assert!(matches!(answer, Resolution::Found { .. }));
    }
    percentiles(times)
}

/// Median of some enrolments and of some erasures.
async fn changes(gateway: &Gateway) -> (Duration, Duration) {
    let (mut enrolments, mut erasures) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let person = common::people::Person::new();
        let begun = Instant::now();
        gateway.enrol(&person, common::pay_and_roam()).await;
        enrolments.push(begun.elapsed());
        let begun = Instant::now();
        gateway.erase(&person).await;
        erasures.push(begun.elapsed());
    }
    (percentiles(enrolments)[0], percentiles(erasures)[0])
}

/// The median, 99 of 100, and the longest.
fn percentiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    [at(50), at(99), at(100)]
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

fn print(it: &Measured) {
    println!("people                     {}", it.members);
    println!(
        "database                   {} MiB, filled in {:.0} s",
        it.database_mib,
        it.fill.as_secs_f64()
    );
    println!("index complete after       {:.1} s", it.index.as_secs_f64());
    println!("process resident           {} MiB", it.rss_mib);
    println!(
        "whole shard of {:<8}    {:.2} s, {:.1} MiB",
        it.shard_rows,
        it.shard.as_secs_f64(),
        it.shard_mib
    );
    let [p50, p99, max] = it.search.map(ms);
    println!(
        "miss, palm only            p50 {p50}, p99 {p99}, longest {max} ms; {} of {} members found",
        it.found,
        QUESTIONS / 2
    );
    let [p50, p99, max] = it.claim.map(ms);
    println!("miss, with a claim         p50 {p50}, p99 {p99}, longest {max} ms");
    println!("enrolment, erasure         {} ms, {} ms", ms(it.register), ms(it.erase));
}

fn json(it: &Measured) -> String {
    let [p50, p99, _] = it.search.map(ms);
    format!(
        "{{\"members\":{},\"shard_rows\":{},\"shard_build_s\":{:.2},\"miss_p50_ms\":{p50},\"miss_p99_ms\":{p99},\"rss_mib\":{}}}",
        it.members,
        it.shard_rows,
        it.shard.as_secs_f64(),
        it.rss_mib
    )
}
