//! People who come at a rate, whether or not the ones before were answered.

use anyhow::Result;
use palmgate_protocol::{
    Biometric, decode, encode_for_sealing,
    terminal::{Frame, Intent},
};
use palmgate_terminal::{Presentation, Terminal, TerminalError};
use std::{
    fmt, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// How often something is printed while nothing is finished.
const PROGRESS: Duration = Duration::from_secs(10);

/// Pictures of people whom the store recognises.
#[derive(Default)]
pub(crate) struct Captures(Vec<Arc<Frame>>);

impl Captures {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.0.push(Arc::new(frame));
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes, on average.
    pub(crate) fn mean(&self) -> usize {
        self.0.iter().map(|frame| frame.picture.expose().len()).sum::<usize>() / self.0.len().max(1)
    }

    /// Writes them where another process reads them.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        for (number, frame) in self.0.iter().enumerate() {
            fs::write(directory.join(number.to_string()), encode_for_sealing(&**frame).expose())?;
        }
        Ok(())
    }

    /// Reads what [`Captures::write`] wrote.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let files = fs::read_dir(directory)?;
        let frames = files.map(|file| Ok(Arc::new(decode::<Frame>(&fs::read(file?.path())?)?)));
        Ok(Self(frames.collect::<Result<_>>()?))
    }

    fn presentation(&self, number: usize) -> Presentation {
        let frame = &*self.0[number % self.0.len()];
        Presentation { frames: vec![copy(frame)], ..Presentation::default() }
    }
}

/// Pictures are not copied by chance.
pub(crate) fn copy(frame: &Frame) -> Frame {
    let picture = Biometric::new(frame.picture.expose().clone());
    Frame { picture, ..*frame }
}

/// What became of everybody.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) asked: usize,
    /// Told to use another way.
    pub(crate) busy: usize,
    /// Held back by the terminal, which has enough that waits.
    pub(crate) held_back: usize,
    /// Told nothing in time.
    pub(crate) lost: usize,
    /// Milliseconds, from the moment the person came.
    decided: Vec<f64>,
}

impl Tally {
    pub(crate) fn answered(&mut self, after: Duration) {
        self.asked += 1;
        self.decided.push(after.as_secs_f64() * 1e3);
    }

    pub(crate) fn finish(&mut self) {
        self.decided.sort_by(f64::total_cmp);
    }

    fn count(&mut self, outcome: Result<(), TerminalError>, after: Duration) {
        match outcome {
            Ok(()) => return self.answered(after),
            Err(TerminalError::Busy) => self.busy += 1,
            Err(TerminalError::TooMany(_)) => self.held_back += 1,
            Err(_) => self.lost += 1,
        }
        self.asked += 1;
    }

    /// Milliseconds within which so many of a hundred decisions came, by nearest rank.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.decided.len() as f64).ceil() as usize;
        self.decided.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most) = (self.percentile(50.0), self.percentile(99.0));
        write!(f, "{} came, {} decided: p50 {half:.1} ms, ", self.asked, self.decided.len())?;
        write!(f, "p99 {most:.1} ms; {} busy, ", self.busy)?;
        write!(f, "{} held back, {} lost", self.held_back, self.lost)
    }
}

/// Lets people come to `terminals` in turn, `rate` a second, for `time`.
pub(crate) async fn offer(
    terminals: &[Terminal],
    captures: &Captures,
    rate: f64,
    time: Duration,
    progress: bool,
) -> Tally {
    let (mut tally, mut under_way) = (Tally::default(), JoinSet::new());
    let (start, count) = (Instant::now(), (rate * time.as_secs_f64()) as usize);
    let mut shown = start;
    for number in 0..count {
        let comes = start + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(comes).await;
        let terminal = terminals[number % terminals.len()].clone();
        let hand = captures.presentation(number);
        under_way.spawn(async move {
            let outcome = terminal.scan(Intent::Entry, hand).await;
            (outcome.map(drop), comes.elapsed())
        });
        while let Some(Ok((outcome, after))) = under_way.try_join_next() {
            tally.count(outcome, after);
        }
        if progress && shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            println!(
                "  {:.0} s: {} came, {} lost",
                start.elapsed().as_secs_f64(),
                number,
                tally.lost
            );
        }
    }
    while let Some(Ok((outcome, after))) = under_way.join_next().await {
        tally.count(outcome, after);
    }
    tally.finish();
    tally
}

/// Watches the memory of a process.
pub(crate) struct Memory(Arc<AtomicU64>);

impl Memory {
    pub(crate) fn watch(process: u32) -> Self {
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&most);
        tokio::spawn(async move {
            while let Some(most) = seen.upgrade() {
                most.fetch_max(resident_kib(process), Relaxed);
                drop(most);
                sleep(Duration::from_millis(500)).await;
            }
        });
        Self(most)
    }

    /// The most that was resident, in MiB.
    pub(crate) fn most(&self) -> f64 {
        self.0.load(Relaxed) as f64 / 1024.0
    }

    /// Processor time that a process has used, from `proc_pid_stat(5)`.
    pub(crate) fn processor_seconds(process: u32) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name in parentheses may hold spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks =
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok());
        // Linux counts a hundred ticks a second for programs on every architecture.
        ticks.sum::<f64>() / 100.0
    }
}

fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
