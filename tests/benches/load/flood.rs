//! A few terminals send ten times what they should, while the others go on as on a quiet day.
//!
//! Those that flood run in a process of their own that every other process goes before: a real one
//! brings its own processor, and takes none of the store's but by what it sends.

use crate::{
    Store,
    arguments::Arguments,
    offer::{Captures, Memory, Tally, offer},
};
use anyhow::{Context, Result, ensure};
use palmgate_protocol::terminal::{AnswerBody, Intent};
use palmgate_terminal::{Paired, Presentation, Terminal, simulated};
use std::{
    env, fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Terminals that flood.
const FLOODING: usize = 20;
/// How much more than they should.
const FLOOD: f64 = 10.0;
/// Time between two erasures while others flood.
const ERASURE_EVERY: Duration = Duration::from_secs(2);
/// How long terminals may take to connect.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where captures lie for the flooding process, below the store's directory.
const CAPTURES: &str = "flood-captures";

/// What it did to the others.
pub(crate) struct Flood {
    /// People at honest terminals.
    pub(crate) asked: usize,
    pub(crate) lost: usize,
    /// The honest ones' p99 against that without the flood: the median of all floods.
    pub(crate) ratio: f64,
    /// Milliseconds, of the worst flood.
    pub(crate) erasure_p99: f64,
}

/// Floods the store as often as was asked.
pub(crate) async fn flood(
    store: &mut Store,
    arguments: &Arguments,
    ceiling: f64,
    time: Duration,
) -> Result<Flood> {
    let flooding = FLOODING.min(store.terminals.len() / 2);
    for terminal in store.terminals.drain(..flooding) {
        terminal.close().await;
    }
    let burst = arguments.per_second * FLOOD * flooding as f64;
    let quiet = (0.25 * ceiling).max(1.0);
    let mut flooders = Flooders::start(store, flooding, burst, time).await?;
    let mut ratios = Vec::with_capacity(arguments.floods);
    let mut flood = Flood { asked: 0, lost: 0, ratio: 0.0, erasure_p99: 0.0 };
    for _ in 0..arguments.floods {
        let idle = store.offer(&store.terminals, quiet, time, false).await;
        println!("quiet, {quiet:.1} a second: {idle}");
        let mut leaving = std::mem::take(&mut store.leaving);
        let process = store.scene.store.process.pid();
        let before = Memory::processor_seconds(process);
        let (tally, flooded, erasures) = tokio::join!(
            store.offer(&store.terminals, quiet, time, false),
            flooders.go(),
            erasures(store, &mut leaving, time),
        );
        let used = (Memory::processor_seconds(process) - before) / time.as_secs_f64();
        let (flooded, erasures) = (flooded?, erasures?);
        store.leaving = leaving;
        println!("with {flooding} terminals at {burst:.0} a second: {tally}");
        println!("what those get: {flooded}; the daemon uses {used:.2} processors");
        println!("{} erasures meanwhile: {erasures}", erasures.asked);
        ratios.push(tally.percentile(99.0) / idle.percentile(99.0).max(f64::EPSILON));
        flood.asked += idle.asked + tally.asked;
        flood.lost += idle.lost + tally.lost + erasures.lost;
        flood.erasure_p99 = flood.erasure_p99.max(erasures.percentile(99.0));
    }
    println!("honest p99 against quiet: {ratios:.2?}");
    ratios.sort_by(f64::total_cmp);
    flood.ratio = ratios[ratios.len() / 2];
    Ok(flood)
}

async fn erasures(store: &Store, leaving: &mut Vec<usize>, time: Duration) -> Result<Tally> {
    let (mut tally, end) = (Tally::default(), Instant::now() + time);
    while Instant::now() < end {
        let Some(index) = leaving.pop() else { break };
        let frames = store.scene.pictures[index].frames();
        let hand = Presentation { frames, ..Presentation::default() };
        let begun = Instant::now();
        let answer = store.scene.kiosk.scan(Intent::Erase, hand).await;
        match answer.map(|answer| answer.body) {
            Ok(AnswerBody::Erased { .. }) => tally.answered(begun.elapsed()),
            Ok(other) => println!("an erasure: {}", simulated::outcome(&other)),
            Err(error) => {
                println!("an erasure: {error}");
                tally.lost += 1;
            }
        }
        tokio::time::sleep(ERASURE_EVERY.saturating_sub(begun.elapsed())).await;
    }
    tally.finish();
    Ok(tally)
}

/// The process with the terminals that flood.
struct Flooders {
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Flooders {
    async fn start(store: &Store, terminals: usize, rate: f64, time: Duration) -> Result<Self> {
        let directory = store.scene.directory.path();
        fs::create_dir(directory.join(CAPTURES))?;
        store.captures.write(&directory.join(CAPTURES))?;
        let mut process = Command::new("nice")
            .args(["-n", "10"])
            .arg(env::current_exe()?)
            .args(["--terminals", &terminals.to_string()])
            .args(["--per-second", &(rate / terminals as f64).to_string()])
            .args(["--minutes", &(time.as_secs_f64() / 60.0).to_string()])
            .arg("--flood-from")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the flooding terminals' process")?;
        let told = process.stdout.take().context("its output")?;
        let orders = process.stdin.take().context("its input")?;
        let mut flooders = Self { orders, told: BufReader::new(told).lines(), process };
        ensure!(flooders.told().await? == "ready", "the flooding terminals do not connect");
        Ok(flooders)
    }

    /// One flood; the answer is what became of it.
    async fn go(&mut self) -> Result<String> {
        let process = self.process.id().unwrap_or_default();
        let before = Memory::processor_seconds(process);
        self.orders.write_all(b"go\n").await?;
        let told = self.told().await?;
        let used = Memory::processor_seconds(process) - before;
        Ok(format!("{told}, for which they used {used:.1} s of a processor"))
    }

    async fn told(&mut self) -> Result<String> {
        self.told.next_line().await?.context("the flooding terminals' process ended")
    }
}

/// Plays the terminals that flood.
pub(crate) async fn play(arguments: &Arguments, directory: &Path) -> Result<()> {
    let captures = Captures::read(&directory.join(CAPTURES))?;
    let mut terminals = Vec::with_capacity(arguments.terminals);
    for number in 0..arguments.terminals {
        let paired = Paired::open(&directory.join(format!("terminal-till-{number}")))?;
        let terminal = Terminal::connect(paired)?;
        terminal.ready(PATIENCE).await?;
        terminals.push(terminal);
    }
    println!("ready");
    let rate = arguments.per_second * arguments.terminals as f64;
    // Blocks no thread that serves a terminal: those are the runtime's own.
    for order in std::io::stdin().lines() {
        order?;
        let begun = Instant::now();
        let time = Duration::from_secs_f64(60.0 * arguments.minutes);
        let tally = offer(&terminals, &captures, rate, time, false).await;
        println!("{tally}; {:.0} a second", tally.asked as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(())
}
