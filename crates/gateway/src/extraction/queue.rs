//! Whose pictures are worked on next: a right before any scan, then the terminal that has had the
//! least of the workers lately and has the least waiting. A terminal that floods waits behind every
//! one that does not, and is the first to be told that the box is busy.

use crate::pressure::Pressure;
use palmgate_protocol::{Name, limits::FRAMES_LIFETIME};
use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a terminal has had counts half after this long. Were it longer, one that begins to flood
/// would have several turns to the good before those that go on as always.
const HALF_LIFE: Duration = Duration::from_millis(500);
/// The same of rights, which people exercise more slowly.
const RIGHTS_HALF_LIFE: Duration = Duration::from_secs(5);
/// Rights of one terminal that come before scans, counted as its share is: a hostile one must not
/// keep everybody else waiting with them.
const RIGHTS_FIRST: f64 = 8.0;
/// Below this a share is forgotten.
const NOTHING: f64 = 0.01;
/// Shares are looked through for forgotten ones from this number on.
const MANY: usize = 1024;

/// A bounded queue that several threads fill and empty.
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    length: usize,
    /// Raised when a job finds every worker at work.
    pressure: Pressure,
}

/// A job and what decides its turn.
pub(super) struct Entry<J> {
    pub(super) job: J,
    pub(super) terminal: Name,
    /// Somebody exercises a right: withdraws, erases, sees their data.
    pub(super) right: bool,
    /// Captures to work on.
    pub(super) weight: u8,
}

/// What a worker gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<J> {
    Work(J),
    /// It has waited until its frames had to go.
    TooLate(J),
    Closed,
}

struct State<J> {
    waiting: Vec<(Entry<J>, Instant)>,
    shares: HashMap<Name, Share>,
    /// Workers that wait for a job.
    idle: usize,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Share {
    had: f64,
    /// Rights among it.
    rights: f64,
    at: Instant,
}

impl Share {
    const fn nothing(at: Instant) -> Self {
        Self { had: 0.0, rights: 0.0, at }
    }

    fn now(self, now: Instant) -> Self {
        let since = now.saturating_duration_since(self.at);
        let left = |half_life| 0.5_f64.powf(since.div_duration_f64(half_life));
        let (had, rights) = (self.had * left(HALF_LIFE), self.rights * left(RIGHTS_HALF_LIFE));
        Self { had, rights, at: now }
    }

    fn with(self, right: bool, weight: u8) -> Self {
        let weight = f64::from(weight);
        let rights = if right { self.rights + weight } else { self.rights };
        Self { had: self.had + weight, rights, ..self }
    }
}

impl<J> State<J> {
    /// Less is sooner; among equals the order of arrival holds. What a terminal has waiting behind its
    /// first job counts as if it had had it, so that one that begins to flood waits from its second
    /// message on, and not from its second turn. Parts of a turn make no difference: those that were
    /// quiet until now would all go before those that are there now and then.
    fn rank(&self, entry: &Entry<J>, now: Instant) -> (bool, f64) {
        let share = self.shares.get(&entry.terminal).copied().unwrap_or(Share::nothing(now));
        let own = || self.waiting.iter().filter(|(other, _)| other.terminal == entry.terminal);
        let add =
            |share: Share, (other, _): &(Entry<J>, Instant)| share.with(other.right, other.weight);
        let before = own().take_while(|(other, _)| !std::ptr::eq(other, entry));
        let rights = before.fold(share.now(now), add).rights;
        let had = own().skip(1).fold(share.now(now), add).had;
        (!(entry.right && rights < RIGHTS_FIRST), had.round())
    }

    fn ranks(&self, now: Instant) -> impl Iterator<Item = (usize, (bool, f64))> {
        self.waiting.iter().enumerate().map(move |(at, (entry, _))| (at, self.rank(entry, now)))
    }

    fn first(&self, now: Instant) -> Option<usize> {
        let sooner = |a: &(usize, (bool, f64)), b: &(usize, (bool, f64))| compare(a.1, b.1);
        self.ranks(now).min_by(sooner).map(|(at, _)| at)
    }

    /// The last of the last.
    fn last(&self, now: Instant) -> Option<usize> {
        self.ranks(now).max_by(|a, b| compare(a.1, b.1)).map(|(at, _)| at)
    }

    fn serve(&mut self, entry: &Entry<J>, now: Instant) {
        if self.shares.len() >= MANY {
            self.shares.retain(|_, share| {
                let share = share.now(now);
                share.had.max(share.rights) > NOTHING
            });
        }
        let share = self.shares.entry(entry.terminal.clone()).or_insert(Share::nothing(now));
        *share = share.now(now).with(entry.right, entry.weight);
    }
}

fn compare(a: (bool, f64), b: (bool, f64)) -> std::cmp::Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

impl<J> Queue<J> {
    pub(super) fn new(length: usize, pressure: Pressure) -> Self {
        let state = State { waiting: Vec::new(), shares: HashMap::new(), idle: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), length, pressure }
    }

    /// Takes a job in. When the queue is full the one whose turn is farthest away comes back,
    /// which may be this one.
    pub(super) fn put(&self, entry: Entry<J>, now: Instant) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed {
            return Err(entry.job);
        }
        state.waiting.push((entry, now));
        if state.waiting.len() > state.idle {
            self.pressure.raise(now);
        }
        let out = (state.waiting.len() > self.length).then(|| state.last(now)).flatten();
        let out = out.map(|at| state.waiting.remove(at).0.job);
        drop(state);
        self.changed.notify_one();
        out.map_or(Ok(()), Err)
    }

    /// Waits for a job.
    pub(super) fn next(&self) -> Next<J> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            let now = Instant::now();
            if let Some(next) = take(&mut state, now) {
                return next;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Lets everybody go who waits in [`Queue::next`]; what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<J>(state: &mut State<J>, now: Instant) -> Option<Next<J>> {
    let late = |since: Instant| now.saturating_duration_since(since) >= FRAMES_LIFETIME;
    if let Some(at) = state.waiting.iter().position(|(_, since)| late(*since)) {
        return Some(Next::TooLate(state.waiting.remove(at).0.job));
    }
    let at = state.first(now)?;
    let (entry, _) = state.waiting.remove(at);
    state.serve(&entry, now);
    Some(Next::Work(entry.job))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(job: u32, terminal: &str) -> Entry<u32> {
        Entry { job, terminal: terminal.parse().unwrap(), right: false, weight: 1 }
    }

    fn order(queue: &Queue<u32>, now: Instant) -> Vec<u32> {
        let mut jobs = Vec::new();
        while let Some(Next::Work(job)) = take(&mut queue.lock(), now) {
            jobs.push(job);
        }
        jobs
    }

    #[test]
    fn whoever_has_less_waiting_comes_first_however_much_another_sends() {
        let (queue, now) = (Queue::new(16, Pressure::default()), Instant::now());
        for job in 0..6 {
            queue.put(entry(job, "flood"), now).unwrap();
        }
        queue.put(entry(10, "till-1"), now).unwrap();
        queue.put(entry(20, "till-2"), now).unwrap();
        queue.put(entry(11, "till-1"), now).unwrap();
        assert_eq!(order(&queue, now), [20, 10, 11, 0, 1, 2, 3, 4, 5]);
        queue.put(entry(6, "flood"), now).unwrap();
        queue.put(entry(12, "till-1"), now).unwrap();
        assert_eq!(order(&queue, now), [12, 6], "what was had before counts");
        let later = now + 60 * HALF_LIFE;
        queue.put(entry(7, "flood"), later).unwrap();
        queue.put(entry(13, "till-1"), later).unwrap();
        assert_eq!(order(&queue, later).len(), 2);
    }

    #[test]
    fn one_that_begins_to_flood_has_no_turn_before_those_that_go_on_as_always() {
        let (queue, mut now) = (Queue::new(16, Pressure::default()), Instant::now());
        for job in 0..10 {
            queue.put(entry(job, "till-1"), now).unwrap();
            assert_eq!(order(&queue, now), [job]);
            now += Duration::from_secs(3);
        }
        queue.put(entry(20, "flood"), now).unwrap();
        queue.put(entry(10, "till-1"), now).unwrap();
        for job in 21..25 {
            queue.put(entry(job, "flood"), now).unwrap();
        }
        queue.put(entry(30, "another"), now).unwrap();
        assert_eq!(order(&queue, now), [10, 30, 20, 21, 22, 23, 24]);
    }

    #[test]
    fn a_right_comes_before_every_scan_and_is_shed_last() {
        let (queue, now) = (Queue::new(3, Pressure::default()), Instant::now());
        for job in 0..3 {
            queue.put(Entry { weight: 5, ..entry(job, "kiosk") }, now).unwrap();
        }
        let erasure = Entry { right: true, ..entry(9, "kiosk") };
        assert_eq!(queue.put(erasure, now), Err(2), "the newest scan gives way");
        assert_eq!(order(&queue, now), [9, 0, 1]);
    }

    #[test]
    fn a_flood_of_rights_loses_its_privilege() {
        let (queue, now) = (Queue::new(64, Pressure::default()), Instant::now());
        for job in 0..20 {
            queue.put(Entry { right: true, ..entry(job, "flood") }, now).unwrap();
        }
        queue.put(entry(100, "till-1"), now).unwrap();
        assert_eq!(order(&queue, now)[..9], [0, 1, 2, 3, 4, 5, 6, 7, 100]);
    }

    #[test]
    fn a_full_queue_sheds_the_flooding_terminals_newest() {
        let (queue, now) = (Queue::new(4, Pressure::default()), Instant::now());
        for job in 0..4 {
            queue.put(entry(job, "flood"), now).unwrap();
        }
        assert_eq!(queue.put(entry(4, "flood"), now), Err(4));
        assert_eq!(queue.put(entry(10, "till-1"), now), Err(3));
        assert_eq!(queue.put(entry(20, "till-2"), now), Err(2));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn nothing_waits_longer_than_frames_may_live() {
        let (queue, now) = (Queue::new(4, Pressure::default()), Instant::now());
        queue.put(entry(1, "till-1"), now).unwrap();
        let next = take(&mut queue.lock(), now + FRAMES_LIFETIME);
        assert_eq!(next, Some(Next::TooLate(1)));
    }

    #[test]
    fn a_closed_queue_lets_its_workers_go() {
        let queue = Queue::new(4, Pressure::default());
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| queue.next());
            queue.close();
            assert_eq!(worker.join().unwrap(), Next::Closed);
        });
        assert_eq!(queue.put(entry(1, "till-1"), Instant::now()), Err(1));
    }
}
