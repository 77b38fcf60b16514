//! A store's terminals at full work, all real: the daemon, its embedded broker, MLS, pictures of
//! palms. Then the same messages straight through Mosquitto. `cargo xtask load` runs it.
#![allow(clippy::print_stdout, reason = "printing is this program's work")]

mod arguments;
mod mosquitto;
mod offer;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use offer::{Captures, Memory, Tally, copy, offer};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::Scene;
use palmgate_terminal::{Presentation, Terminal, simulated};
use std::time::{Duration, Instant};

/// How long a person may wait at the worst of a hundred times.
const GOAL: Duration = Duration::from_millis(300);
/// Terminals that flood.
const FLOODING: usize = 20;
/// How much more than they should.
const FLOOD: f64 = 10.0;
/// Time between two erasures while others flood.
const ERASURE_EVERY: Duration = Duration::from_secs(2);
/// People who are recognised.
const REGULARS: usize = 16;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let asked = arguments.terminals as f64 * arguments.per_second;
    let store = open(arguments).await?;
    let memory = Memory::watch(store.scene.store.process.pid());
    let ceiling = ceiling(&store, arguments, asked).await;
    println!("ceiling: {:.1} scans a second; limited by {}", ceiling.rate, ceiling.limit);

    let rate = if ceiling.rate >= asked { asked } else { 0.8 * ceiling.rate };
    let whole = Duration::from_secs_f64(60.0 * arguments.minutes);
    println!(
        "{} terminals, {rate:.1} scans a second, {:.0} s",
        arguments.terminals,
        whole.as_secs()
    );
    let main = store.offer(&store.terminals, rate, whole, true).await;
    println!("{main}");

    let share = whole.div_f64(10.0).max(arguments.step());
    let overload = store.offer(&store.terminals, asked, share, false).await;
    println!("at {asked:.0} a second: {overload}");

    let flood = flood(&store, arguments, ceiling.rate, share).await?;
    let direct = mosquitto::through(arguments, store.captures.mean(), rate, share).await?;
    println!("the same through Mosquitto alone: {direct}");

    let lost = main.lost + overload.lost + flood.tally.lost;
    println!(
        "{{\"terminals\":{},\"people\":{},\"asked_per_second\":{asked:.0},\
         \"ceiling_per_second\":{:.1},\"ran_per_second\":{rate:.1},\"scans\":{},\"lost\":{lost},\
         \"p50_ms\":{:.1},\"p99_ms\":{:.1},\"overload_busy_share\":{:.3},\"flood_p99_ratio\":{:.2},\
         \"erasure_p99_ms\":{:.0},\"rss_mib\":{:.0},\"mosquitto_p50_ms\":{:.2},\
         \"mosquitto_p99_ms\":{:.2},\"processors\":{}}}",
        arguments.terminals,
        arguments.people,
        ceiling.rate,
        main.asked + overload.asked + flood.tally.asked,
        main.percentile(50.0),
        main.percentile(99.0),
        overload.busy as f64 / overload.asked.max(1) as f64,
        flood.ratio,
        flood.erasure,
        memory.most(),
        direct.percentile(50.0),
        direct.percentile(99.0),
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    Ok(())
}

/// The store and who is in it.
struct Store {
    scene: Scene,
    terminals: Vec<Terminal>,
    captures: Captures,
    /// Pictures of people who will ask to be forgotten.
    leaving: Vec<usize>,
}

impl Store {
    async fn offer(&self, to: &[Terminal], rate: f64, time: Duration, progress: bool) -> Tally {
        offer(to, &self.captures, rate, time, progress).await
    }
}

async fn open(arguments: &Arguments) -> Result<Store> {
    println!("{} people, {} terminals", arguments.people, arguments.terminals);
    let scene = Scene::crowded(Custody::Operator, arguments.people).await?;
    let mut terminals = Vec::with_capacity(arguments.terminals);
    for number in 0..arguments.terminals {
        let name = format!("till-{number}");
        terminals.push(scene.store.terminal(&name, &["entry"], false).await?);
    }
    let (mut captures, mut leaving) = (Captures::default(), Vec::new());
    let cutting = (!arguments.whole_hands).then(Extractor::load).transpose()?;
    for index in 0..scene.pictures.len() {
        let answer = scene.kiosk.enrol(scene.enrolment(index, &[Purpose::Entry])).await?;
        if !matches!(answer.body, AnswerBody::Enrolled { .. }) {
            continue;
        }
        if captures.len() < 2 * REGULARS {
            add_captures(&scene, index, cutting.as_ref(), &mut captures).await?;
        } else if leaving.len() < arguments.erasures {
            leaving.push(index);
        } else {
            break;
        }
    }
    if captures.len() == 0 || leaving.is_empty() {
        bail!("too few hands could be enrolled");
    }
    println!("captures of {} bytes on average", captures.mean());
    Ok(Store { scene, terminals, captures, leaving })
}

/// Keeps captures of a person that the store recognises: a rejected one costs less work.
async fn add_captures(
    scene: &Scene,
    index: usize,
    cutting: Option<&Extractor>,
    captures: &mut Captures,
) -> Result<()> {
    for seed in 100..102 {
        let frames = scene.pictures[index].other_frames(seed);
        let whole = frames.into_iter().next().context("a capture has a frame")?;
        // Terminals that cut the region of interest out themselves.
        let frame = match cutting.map(|extractor| extractor.cut(&whole)) {
            None => whole,
            Some(Ok(region)) => region,
            Some(Err(_)) => continue,
        };
        let hand = Presentation { frames: vec![copy(&frame)], ..Presentation::default() };
        let answer = scene.kiosk.scan(Intent::Entry, hand).await?;
        if matches!(answer.body, AnswerBody::Accepted(_)) {
            captures.push(frame);
        }
    }
    Ok(())
}

struct Ceiling {
    rate: f64,
    limit: String,
}

/// Raises the rate until answers come too late or not at all.
async fn ceiling(store: &Store, arguments: &Arguments, asked: f64) -> Ceiling {
    let (mut good, mut rate) = (0.0, 4.0_f64.min(asked));
    loop {
        let before = Memory::processor_seconds(store.scene.store.process.pid());
        let tally = store.offer(&store.terminals, rate, arguments.step(), false).await;
        let used = Memory::processor_seconds(store.scene.store.process.pid()) - before;
        let load = used / arguments.step().as_secs_f64();
        println!("{rate:.1} a second: {tally}; the daemon uses {load:.2} processors");
        let unanswered = tally.busy + tally.lost + tally.held_back;
        let late = tally.percentile(99.0) > GOAL.as_secs_f64() * 1e3;
        if (late || unanswered > 0) && good == 0.0 && rate > 0.5 {
            rate /= 2.0;
            continue;
        }
        if late || unanswered > 0 {
            let of = std::thread::available_parallelism().map_or(0, usize::from);
            let why = if late { "answers take too long" } else { "some are told that it is busy" };
            let limit = format!("the processors: {why} with {load:.2} of {of} in the daemon");
            return Ceiling { rate: good, limit };
        }
        good = rate;
        if rate >= asked {
            return Ceiling { rate: asked, limit: "nothing up to what was asked".into() };
        }
        rate = (rate * 1.25).min(asked);
    }
}

struct Flood {
    tally: Tally,
    ratio: f64,
    erasure: f64,
}

/// Most terminals go on as on a quiet day while a few send ten times what they should.
async fn flood(
    store: &Store,
    arguments: &Arguments,
    ceiling: f64,
    time: Duration,
) -> Result<Flood> {
    let flooding = FLOODING.min(store.terminals.len() / 2);
    let (evil, honest) = store.terminals.split_at(flooding);
    let quiet = (0.25 * ceiling).max(1.0);
    let idle = store.offer(honest, quiet, time, false).await;
    println!("quiet, {quiet:.1} a second: {idle}");
    let burst = arguments.per_second * FLOOD * flooding as f64;
    let (tally, flood, erasures) = tokio::join!(
        store.offer(honest, quiet, time, false),
        store.offer(evil, burst, time, false),
        erasures(store, time),
    );
    println!("with {flooding} terminals at {burst:.0} a second: {tally}");
    println!("what those get: {flood}");
    let erasures = erasures?;
    println!("{} erasures meanwhile: {erasures}", erasures.asked);
    let ratio = tally.percentile(99.0) / idle.percentile(99.0).max(f64::EPSILON);
    Ok(Flood { tally, ratio, erasure: erasures.percentile(99.0) })
}

async fn erasures(store: &Store, time: Duration) -> Result<Tally> {
    let (mut tally, end) = (Tally::default(), Instant::now() + time);
    for index in &store.leaving {
        if Instant::now() >= end {
            break;
        }
        let frames = store.scene.pictures[*index].frames();
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
