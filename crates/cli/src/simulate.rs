//! `palmgate simulate`: a chain of stores whose members visit and travel, to see how much of what
//! happens a store's own shard answers, and what the rest costs.
//!
//! The rules are those of `palmgate-cloud`: a store has its own members, and for a while whoever
//! visited it with a live consent to roaming; a shard has no more people than its false positive
//! budget allows, and who came first leaves first, visitors before members of the house.

use crate::format::{heading, say};
use anyhow::{Context, Result, ensure};
use palmgate_protocol::{Probe, TEMPLATE_BYTES, cloud::Resolution};
use plotters::prelude::*;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The chain and how its members behave.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Stores of the chain; several chains are compared.
    #[arg(long, value_delimiter = ',', default_values_t = [65, 2_000])]
    stores: Vec<usize>,
    /// Members that a store has enrolled, on average.
    #[arg(long, default_value_t = 5_000)]
    members_per_store: usize,
    /// Exponent of Zipf's law over the members' visits: 0 makes everybody come equally often.
    #[arg(long, default_value_t = 0.7)]
    visit_exponent: f64,
    /// Exponent of Zipf's law over the sizes of stores.
    #[arg(long, default_value_t = 0.4)]
    size_exponent: f64,
    /// Visits of a member in a day, on average.
    #[arg(long, default_value_t = 0.1)]
    visits_per_day: f64,
    /// Share of the visits that are to another store than the own.
    #[arg(long, default_value_t = 0.1)]
    travel: f64,
    /// Exponent of Zipf's law over the other stores of one member: the nearest is visited most.
    #[arg(long, default_value_t = 1.2)]
    travel_exponent: f64,
    /// Share of the members who agreed to be recognised in other stores.
    #[arg(long, default_value_t = 0.6)]
    roaming: f64,
    /// Share of those whom a store does not know who then show a claim and ask to be looked up.
    #[arg(long, default_value_t = 0.8)]
    asks: f64,
    /// False positive identifications that a whole shard may give a stranger.
    #[arg(long, default_value_t = 0.02)]
    fpir: f64,
    /// False match rate at the stores' threshold: the shard has at most FPIR / FMR people.
    #[arg(long, default_value_t = 1e-6)]
    fmr: f64,
    /// Days for which a visitor stays in a shard.
    #[arg(long, default_value_t = 30)]
    visit_days: u32,
    /// Days for which a member stays enrolled.
    #[arg(long, default_value_t = 1_095)]
    lifetime_days: u32,
    /// Templates of one member: purposes times hands.
    #[arg(long, default_value_t = 2)]
    templates: usize,
    /// Seconds between two questions of a store whether anything changed.
    #[arg(long, default_value_t = 60)]
    poll_seconds: u32,
    /// Days simulated; the first `visit_days` of them only fill the shards.
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Seed of the chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to draw the edge hit rate by day.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl Arguments {
    fn cap(&self) -> usize {
        ((self.fpir / self.fmr).round() as usize).max(1)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.stores.is_empty() && !self.stores.contains(&0), "a chain has a store");
        ensure!(self.members_per_store > 0, "a store has members");
        ensure!(self.days > self.visit_days, "simulate more days than a visitor stays");
        for (name, share) in [
            ("travel", self.travel),
            ("roaming", self.roaming),
            ("asks", self.asks),
            ("fpir", self.fpir),
            ("fmr", self.fmr),
        ] {
            ensure!((0.0..=1.0).contains(&share), "--{name} {share}: use 0 to 1");
        }
        ensure!(self.fmr > 0.0, "--fmr 0: no matcher is that good");
        ensure!(self.lifetime_days > 0 && self.poll_seconds > 0, "time passes");
        let exponents = [self.visit_exponent, self.size_exponent, self.travel_exponent];
        ensure!(
            exponents.iter().all(|exponent| (0.0..10.0).contains(exponent)),
            "exponents are 0 to 10"
        );
        ensure!((0.0..=100.0).contains(&self.visits_per_day), "visits per day are 0 to 100");
        Ok(())
    }

    /// Bytes of a sealed record on the wire: the templates, and about 400 for ids, consents,
    /// pseudonyms, a card token and the seal.
    fn record_bytes(&self) -> f64 {
        (self.templates * TEMPLATE_BYTES + 400) as f64
    }
}

/// Bytes of a sealed probe.
const PROBE_BYTES: f64 = Probe::PADDED_BYTES as f64;
/// Bytes of one question whether anything changed, and of its answer "no", headers and TLS records
/// included.
const POLL_BYTES: f64 = 420.0;
/// Bytes of one removal in a shard.
const REMOVAL_BYTES: f64 = 17.0;
/// Bytes of a difference without people: manifest, signature, encapsulated key, headers.
const DIFFERENCE_BYTES: f64 = 700.0;
/// Differences that only prolong the lease: one in 36 hours.
const LEASES_PER_DAY: f64 = 24.0 / 36.0;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.check()?;
    say(&format!("{arguments:#?}"));
    let mut curves = Vec::new();
    for &stores in &arguments.stores {
        let result = Chain::new(arguments, stores).run();
        print(arguments, stores, &result);
        curves.push((stores, result.days));
    }
    if let Some(path) = &arguments.plot {
        draw(&curves, path)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("the plot cannot be written to {}", path.display()))?;
        say(&format!("drawn in {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A person in somebody's shard as a visitor.
type Visit = (u32, u32);

/// What one store's shard has beside its own members.
#[derive(Default)]
struct Store {
    members: usize,
    /// Visitors, and the day on which they leave.
    visitors: HashMap<u32, u32>,
    /// In order of coming; who was given anew stands in it twice, and counts at the later place.
    order: VecDeque<Visit>,
    /// The store's own members in the shard, when they are more than the cap; in order of coming.
    own: Option<(HashSet<u32>, VecDeque<u32>)>,
}

struct Chain<'a> {
    arguments: &'a Arguments,
    stores: Vec<Store>,
    homes: Vec<u32>,
    random: ChaCha8Rng,
}

#[derive(Default, Clone, Copy)]
struct Tally {
    scans: u64,
    hits: u64,
    escalations: u64,
    removals: u64,
}

struct Simulated {
    total: Tally,
    /// Edge hit rate by day.
    days: Vec<f64>,
    sizes: Vec<usize>,
    measured_days: u32,
    members: usize,
}

impl<'a> Chain<'a> {
    fn new(arguments: &'a Arguments, stores: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(arguments.seed);
        let members = stores * arguments.members_per_store;
        let mut chain: Vec<Store> = (0..stores).map(|_| Store::default()).collect();
        let homes: Vec<u32> = (0..members)
            .map(|_| {
                let home = zipf(unit(&mut random), stores, arguments.size_exponent);
                chain[home].members += 1;
                home as u32
            })
            .collect();
        let cap = arguments.cap();
        for store in &mut chain {
            if store.members > cap {
                store.own = Some((HashSet::new(), VecDeque::new()));
            }
        }
        let mut this = Self { arguments, stores: chain, homes, random };
        for member in 0..members as u32 {
            this.give_own(member);
        }
        this
    }

    /// A member of a house whose members do not all fit.
    fn give_own(&mut self, member: u32) {
        let cap = self.arguments.cap();
        let store = &mut self.stores[self.homes[member as usize] as usize];
        let Some((held, order)) = &mut store.own else { return };
        if held.insert(member) {
            order.push_back(member);
        }
        while held.len() > cap {
            let Some(first) = order.pop_front() else { return };
            held.remove(&first);
        }
    }

    fn run(mut self) -> Simulated {
        let members = self.homes.len();
        let visits = (members as f64 * self.arguments.visits_per_day).round() as u64;
        let (mut total, mut days) = (Tally::default(), Vec::new());
        for day in 0..self.arguments.days {
            let mut today = Tally::default();
            for _ in 0..visits {
                self.visit(day, &mut today);
            }
            today.removals += self.end_visits(day);
            days.push(today.hits as f64 / (today.scans as f64).max(1.0));
            if day >= self.arguments.visit_days {
                total.scans += today.scans;
                total.hits += today.hits;
                total.escalations += today.escalations;
                total.removals += today.removals;
            }
        }
        let cap = self.arguments.cap();
        // In a full house the newest visitor takes the place of a member.
        let size = |store: &Store| (store.members + store.visitors.len()).min(cap);
        let mut sizes: Vec<usize> = self.stores.iter().map(size).collect();
        sizes.sort_unstable();
        let measured_days = self.arguments.days - self.arguments.visit_days;
        Simulated { total, days, sizes, measured_days, members }
    }

    fn visit(&mut self, day: u32, today: &mut Tally) {
        let members = self.homes.len();
        let rank = zipf(unit(&mut self.random), members, self.arguments.visit_exponent);
        // Who comes often has nothing to do with where; an odd factor below scatters the ranks.
        let member = (rank as u64).wrapping_mul(2_654_435_761) % members as u64;
        let home = self.homes[member as usize];
        let travels = self.stores.len() > 1 && unit(&mut self.random) < self.arguments.travel;
        today.scans += 1;
        if !travels {
            let known = self.stores[home as usize].own.as_ref();
            if known.is_none_or(|(held, _)| held.contains(&(member as u32))) {
                today.hits += 1;
            } else if unit(&mut self.random) < self.arguments.asks {
                today.escalations += 1;
                self.give_own(member as u32);
            }
            return;
        }
        let others = self.stores.len() - 1;
        let distance = 1 + zipf(unit(&mut self.random), others, self.arguments.travel_exponent);
        let there = (home as usize + distance) % self.stores.len();
        if self.stores[there].visitors.get(&(member as u32)).is_some_and(|until| day < *until) {
            today.hits += 1;
        } else if roams(member, self.arguments.roaming)
            && unit(&mut self.random) < self.arguments.asks
        {
            today.escalations += 1;
            today.removals += self.receive(there, member as u32, day);
        }
    }

    /// Takes a visitor in; how many had to leave for them.
    fn receive(&mut self, there: usize, member: u32, day: u32) -> u64 {
        let cap = self.arguments.cap();
        let store = &mut self.stores[there];
        let until = day + self.arguments.visit_days;
        store.visitors.insert(member, until);
        store.order.push_back((member, until));
        let room = cap.saturating_sub(store.members).max(1);
        let mut left = 0;
        while store.visitors.len() > room {
            left += u64::from(store.first_leaves());
        }
        left
    }

    fn end_visits(&mut self, day: u32) -> u64 {
        let mut left = 0;
        for store in &mut self.stores {
            while store.order.front().is_some_and(|(_, until)| *until <= day) {
                left += u64::from(store.first_leaves());
            }
        }
        left
    }
}

impl Store {
    fn first_leaves(&mut self) -> bool {
        let Some((member, until)) = self.order.pop_front() else { return false };
        let is_current = self.visitors.get(&member) == Some(&until);
        is_current && self.visitors.remove(&member).is_some()
    }
}

fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether a member agreed: the same answer whenever asked.
fn roams(member: u64, share: f64) -> bool {
    let scattered = member.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    (scattered as f64 / (1_u64 << 53) as f64) < share
}

/// A rank of 0 to n − 1 with a probability of about (rank + 1)^−exponent: the inverse of the
/// continuous distribution function.
fn zipf(uniform: f64, n: usize, exponent: f64) -> usize {
    let n = n as f64;
    let rank = if (exponent - 1.0).abs() < 1e-9 {
        (n + 1.0).powf(uniform)
    } else {
        let power = 1.0 - exponent;
        (((n + 1.0).powf(power) - 1.0) * uniform + 1.0).powf(1.0 / power)
    };
    (rank.floor() as usize).clamp(1, n as usize) - 1
}

/// Bytes of a store in a day, down and up.
fn bytes(arguments: &Arguments, stores: usize, result: &Simulated) -> (f64, f64) {
    let store_days = stores as f64 * f64::from(result.measured_days);
    let escalations = result.total.escalations as f64 / store_days;
    let removals = result.total.removals as f64 / store_days;
    // As many come as go, so that the chain keeps its size.
    let enrolments = result.members as f64 / f64::from(arguments.lifetime_days) / stores as f64;
    let polls = 86_400.0 / f64::from(arguments.poll_seconds);
    let given = escalations + enrolments;
    let down = given * (arguments.record_bytes() + DIFFERENCE_BYTES)
        + (removals + enrolments) * REMOVAL_BYTES
        + LEASES_PER_DAY * DIFFERENCE_BYTES
        + escalations * Resolution::WIRE_BYTES as f64
        + polls * POLL_BYTES / 2.0;
    let up = escalations * PROBE_BYTES
        + enrolments * arguments.record_bytes()
        + polls * POLL_BYTES / 2.0;
    (down, up)
}

fn print(arguments: &Arguments, stores: usize, result: &Simulated) {
    heading(&format!("{stores} stores, {} members", result.members));
    let Tally { scans, hits, escalations, .. } = result.total;
    let scans = scans.max(1) as f64;
    say(&format!("edge hit rate               {:.2} %", 100.0 * hits as f64 / scans));
    say(&format!("escalations per 1,000 scans {:.1}", 1000.0 * escalations as f64 / scans));
    let at = |share: f64| result.sizes[((result.sizes.len() - 1) as f64 * share) as usize];
    say(&format!(
        "people in a shard           median {}, 95 % {}, largest {}; at most {}",
        at(0.5),
        at(0.95),
        at(1.0),
        arguments.cap()
    ));
    let (down, up) = bytes(arguments, stores, result);
    say(&format!("KiB a store and day         {:.0} down, {:.0} up", down / 1024.0, up / 1024.0));
}

fn draw(curves: &[(usize, Vec<f64>)], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let days = curves.iter().map(|(_, days)| days.len()).max().unwrap_or(1);
    let lowest = curves.iter().flat_map(|(_, days)| days).copied().fold(1.0, f64::min);
    let mut chart = ChartBuilder::on(&area)
        .caption("Scans that the store's own shard answers", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0..days, (lowest - 0.01).max(0.0)..1.0)?;
    chart.configure_mesh().x_desc("day").y_desc("share of scans").draw()?;
    for (number, (stores, days)) in curves.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let points = days.iter().copied().enumerate();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(format!("{stores} stores"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        Line::parse_from(std::iter::once("simulate").chain(line.split_whitespace())).arguments
    }

    fn simulated(line: &str) -> Simulated {
        let arguments = arguments(&format!("--members-per-store 300 --days 50 {line}"));
        Chain::new(&arguments, 20).run()
    }

    #[test]
    fn who_never_travels_is_always_known() {
        let result = simulated("--travel 0");
        assert_eq!(result.total.hits, result.total.scans);
        assert_eq!(result.total.escalations, 0);
    }

    #[test]
    fn without_consent_nobody_is_asked_for_and_every_visit_elsewhere_is_a_miss() {
        let result = simulated("--roaming 0 --travel 0.3");
        assert_eq!(result.total.escalations, 0);
        let misses = 1.0 - result.total.hits as f64 / result.total.scans as f64;
        assert!((misses - 0.3).abs() < 0.02, "{misses}");
    }

    #[test]
    fn longer_visits_make_more_hits_and_no_shard_is_larger_than_its_budget() {
        let short = simulated("--visit-days 2 --travel 0.3");
        let long = simulated("--visit-days 40 --travel 0.3");
        assert!(long.days[49] > short.days[49]);
        let small = simulated("--fpir 0.0002 --travel 0.3");
        assert!(small.sizes.iter().all(|size| *size <= 200), "{:?}", small.sizes);
        assert!(small.days[49] < long.days[49]);
    }

    #[test]
    fn ranks_follow_the_law() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut counts = [0_u32; 100];
        for _ in 0..200_000 {
            counts[zipf(unit(&mut random), 100, 1.0)] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((6.0..14.0).contains(&ratio), "{ratio}");
        assert!(counts.iter().all(|count| *count > 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["--stores 0", "--travel 2", "--days 3", "--fmr 0", "--visit-exponent=-1"] {
            assert!(arguments(line).check().is_err(), "{line}");
        }
    }
}
