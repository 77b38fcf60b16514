//! A store's terminals at full work, all real: the daemon, its embedded broker, MLS, pictures of
//! palms. Then the same messages straight through Mosquitto. `cargo xtask load` runs it.
#![allow(clippy::print_stdout, reason = "printing is this program's work")]

mod arguments;
mod flood;
mod machine;
mod mosquitto;
mod offer;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use machine::Machine;
use offer::{Captures, Memory, Tally, copy, offer};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Custody, Purpose,
    terminal::{AnswerBody, Intent},
};
use palmgate_stories::Scene;
use palmgate_terminal::{Presentation, Terminal};
use std::time::Duration;

/// How long a person may wait at the worst of a hundred times.
const GOAL: Duration = Duration::from_millis(300);
/// People who are recognised.
const REGULARS: usize = 16;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &arguments.flood_from {
        Some(directory) => runtime.block_on(flood::play(&arguments, directory)),
        None => runtime.block_on(run(&arguments)),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let asked = arguments.terminals as f64 * arguments.per_second;
    let mut store = open(arguments).await?;
    let memory = Memory::watch(store.scene.store.process.pid());
    let ceiling = match arguments.ceiling {
        Some(rate) => Ceiling { rate, limit: "what was said".into() },
        None => ceiling(&store, arguments, asked).await,
    };
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

    let flood = flood::flood(&mut store, arguments, ceiling.rate, share).await?;
    let direct = mosquitto::through(arguments, store.captures.mean(), rate, share).await?;
    println!("the same through Mosquitto alone: {direct}");

    let lost = main.lost + overload.lost + flood.lost;
    println!(
        "{{\"terminals\":{},\"people\":{},\"asked_per_second\":{asked:.0},\
         \"ceiling_per_second\":{:.1},\"ran_per_second\":{rate:.1},\"scans\":{},\"lost\":{lost},\
         \"p50_ms\":{:.1},\"p99_ms\":{:.1},\"overload_busy_share\":{:.3},\"flood_p99_ratio\":{:.2},\
         \"erasure_p99_ms\":{:.0},\"rss_mib\":{:.0},\"mosquitto_p50_ms\":{:.2},\
         \"mosquitto_p99_ms\":{:.2},\"processors\":{}}}",
        arguments.terminals,
        arguments.people,
        ceiling.rate,
        main.asked + overload.asked + flood.asked,
        main.percentile(50.0),
        main.percentile(99.0),
        overload.busy as f64 / overload.asked.max(1) as f64,
        flood.ratio,
        flood.erasure_p99,
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
        } else if leaving.len() < arguments.erasures * arguments.floods {
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

/// Raises the rate until answers come too late or not at all, twice: a shared machine has its moments.
async fn ceiling(store: &Store, arguments: &Arguments, asked: f64) -> Ceiling {
    let (mut good, mut rate, mut again) = (0.0, 4.0_f64.min(asked), false);
    loop {
        let daemon = || Memory::processor_seconds(store.scene.store.process.pid());
        let before = (daemon(), Machine::now());
        let tally = store.offer(&store.terminals, rate, arguments.step(), false).await;
        let load = (daemon() - before.0) / arguments.step().as_secs_f64();
        let machine = Machine::now().since(&before.1);
        println!("{rate:.1} a second: {tally}; the daemon uses {load:.2} processors, {machine}");
        let unanswered = tally.busy + tally.lost + tally.held_back;
        let late = tally.percentile(99.0) > GOAL.as_secs_f64() * 1e3;
        if late || unanswered > 0 {
            if good == 0.0 && rate > 0.5 {
                rate /= 2.0;
                continue;
            }
            if !again {
                again = true;
                continue;
            }
            let why = if late { "answers take too long" } else { "some are told that it is busy" };
            let what = if machine.is_busy() {
                "the processors"
            } else {
                "something else than the processors"
            };
            let limit = format!("{what}: {why} with {load:.2} of them in the daemon, {machine}");
            return Ceiling { rate: good, limit };
        }
        (good, again) = (rate, false);
        if rate >= asked {
            return Ceiling { rate: asked, limit: "nothing up to what was asked".into() };
        }
        rate = (rate * 1.25).min(asked);
    }
}
