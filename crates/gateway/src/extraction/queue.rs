//! Whose pictures are worked on next: a right before any scan, then the terminal that has had the
//! least of the workers lately and has the least waiting. A terminal that floods waits behind every
//! one that does not, and is the first to be told that the box is busy. What was begun for it keeps
//! nobody waiting either: workers of its own do it, which give way to those that work for people.

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
/// What a terminal has had, from which on others' workers are not kept with it. Somebody a second comes
/// to a half.
const FLOODS: f64 = 2.0;
/// Below this a share is forgotten.
const NOTHING: f64 = 0.01;
/// Shares are looked through for forgotten ones from this number on.
const MANY: usize = 1024;

/// A bounded queue that several threads fill and empty.
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    /// Of [`For::People`] and [`For::Floods`].
    changed: [Condvar; 2],
    length: usize,
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

/// Whom a worker is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// Terminals that send what hands can do, and whoever exercises a right.
    People,
    /// The others, as long as nobody of those waits.
    Floods,
}

impl For {
    fn of((later, had): Rank) -> Self {
        if later && had >= FLOODS { Self::Floods } else { Self::People }
    }
}

struct State<J> {
    waiting: Vec<(Entry<J>, Instant)>,
    shares: HashMap<Name, Share>,
    /// Workers that wait for a job, by [`For`].
    idle: [usize; 2],
    /// Raised when a job finds every worker at work.
    pressure: Pressure,
    closed: bool,
}

/// Whether it is no right, and what its terminal has had: less is sooner.
type Rank = (bool, f64);

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
    /// message on, and not from its second turn; one that flooded has had it even before the first.
    /// Parts of a turn make no difference: those that were quiet until now would all go before those
    /// that are there now and then.
    fn rank(&self, entry: &Entry<J>, now: Instant) -> Rank {
        let share = self.shares.get(&entry.terminal).copied().unwrap_or(Share::nothing(now));
        let own = || self.waiting.iter().filter(|(other, _)| other.terminal == entry.terminal);
        let add =
            |share: Share, (other, _): &(Entry<J>, Instant)| share.with(other.right, other.weight);
        let before = own().take_while(|(other, _)| !std::ptr::eq(other, entry));
        let rights = before.fold(share.now(now), add).rights;
        let before = if self.pressure.floods(&entry.terminal, now) { FLOODS } else { 0.0 };
        let had = before + own().skip(1).fold(share.now(now), add).had;
        (!(entry.right && rights < RIGHTS_FIRST), had.round())
    }

    fn ranks(&self, now: Instant) -> impl Iterator<Item = (usize, Rank)> {
        self.waiting.iter().enumerate().map(move |(at, (entry, _))| (at, self.rank(entry, now)))
    }

    fn first(&self, now: Instant) -> Option<(usize, Rank)> {
        self.ranks(now).min_by(|a, b| compare(a.1, b.1))
    }

    /// Whether more wait for one kind of workers than there are of it.
    fn is_short_of_workers(&self, now: Instant) -> bool {
        let floods = self.ranks(now).filter(|(_, rank)| For::of(*rank) == For::Floods).count();
        self.waiting.len() - floods > self.idle[For::People as usize]
            || floods > self.idle[For::Floods as usize]
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

fn compare(a: Rank, b: Rank) -> std::cmp::Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

impl<J> Queue<J> {
    pub(super) fn new(length: usize, pressure: Pressure) -> Self {
        let (waiting, shares) = (Vec::new(), HashMap::new());
        let state = State { waiting, shares, idle: [0; 2], pressure, closed: false };
        Self { state: Mutex::new(state), changed: [Condvar::new(), Condvar::new()], length }
    }

    /// Takes a job in. When the queue is full the one whose turn is farthest away comes back,
    /// which may be this one.
    pub(super) fn put(&self, entry: Entry<J>, now: Instant) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed {
            return Err(entry.job);
        }
        state.waiting.push((entry, now));
        if state.is_short_of_workers(now) {
            state.pressure.raise(now);
        }
        let out = (state.waiting.len() > self.length).then(|| state.last(now)).flatten();
        let out = out.map(|at| state.waiting.remove(at).0.job);
        drop(state);
        self.changed.iter().for_each(Condvar::notify_one);
        out.map_or(Ok(()), Err)
    }

    /// Waits for a job.
    pub(super) fn next(&self, worker: For) -> Next<J> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some(next) = take(&mut state, worker, Instant::now()) {
                return next;
            }
            let changed = &self.changed[worker as usize];
            state.idle[worker as usize] += 1;
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle[worker as usize] -= 1;
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
        self.changed.iter().for_each(Condvar::notify_all);
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take<J>(state: &mut State<J>, worker: For, now: Instant) -> Option<Next<J>> {
    let late = |since: Instant| now.saturating_duration_since(since) >= FRAMES_LIFETIME;
    if let Some(at) = state.waiting.iter().position(|(_, since)| late(*since)) {
        return Some(Next::TooLate(state.waiting.remove(at).0.job));
    }
    let (at, _) = state.first(now).filter(|(_, rank)| For::of(*rank) == worker)?;
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
        let mut state = queue.lock();
        let kinds = [For::People, For::Floods];
        while let Some(next) = kinds.iter().find_map(|kind| take(&mut state, *kind, now)) {
            let Next::Work(job) = next else { panic!("{next:?}") };
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
    fn what_floods_has_workers_of_its_own_that_begin_when_nobody_waits() {
        let (queue, now) = (Queue::new(16, Pressure::default()), Instant::now());
        let take = |kind| take(&mut queue.lock(), kind, now);
        for job in 0..4 {
            queue.put(entry(job, "flood"), now).unwrap();
        }
        assert_eq!(take(For::People), None);
        assert_eq!(take(For::Floods), Some(Next::Work(0)));
        queue.put(entry(10, "till-1"), now).unwrap();
        queue.put(Entry { right: true, ..entry(4, "flood") }, now).unwrap();
        assert_eq!(take(For::Floods), None);
        assert_eq!(take(For::People), Some(Next::Work(4)));
        assert_eq!(take(For::People), Some(Next::Work(10)));
        assert_eq!((take(For::People), take(For::Floods)), (None, Some(Next::Work(1))));
    }

    #[test]
    fn a_terminal_that_flooded_is_known_before_its_next_turn() {
        let (pressure, now) = (Pressure::default(), Instant::now());
        let queue = Queue::new(16, pressure.clone());
        pressure.flooded(&"flood".parse().unwrap(), now);
        queue.put(entry(0, "flood"), now).unwrap();
        queue.put(entry(10, "till-1"), now).unwrap();
        assert_eq!(order(&queue, now), [10, 0]);
        queue.put(entry(1, "flood"), now).unwrap();
        assert_eq!(take(&mut queue.lock(), For::People, now), None);
    }

    #[test]
    fn whoever_finds_no_worker_of_their_kind_waits() {
        let (pressure, now) = (Pressure::default(), Instant::now());
        let queue = Queue::new(16, pressure.clone());
        queue.lock().idle = [2, 0];
        for job in 0..2 {
            queue.put(entry(job, &format!("till-{job}")), now).unwrap();
        }
        assert!(!pressure.is_on(now));
        queue.put(entry(2, "till-2"), now).unwrap();
        assert!(pressure.is_on(now));

        let pressure = Pressure::default();
        let queue = Queue::new(16, pressure.clone());
        queue.lock().idle = [8, 0];
        for job in 0..2 {
            queue.put(entry(job, "flood"), now).unwrap();
        }
        assert!(!pressure.is_on(now));
        queue.put(entry(2, "flood"), now).unwrap();
        assert!(pressure.is_on(now));
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
        let next = take(&mut queue.lock(), For::People, now + FRAMES_LIFETIME);
        assert_eq!(next, Some(Next::TooLate(1)));
    }

    #[test]
    fn a_closed_queue_lets_its_workers_go() {
        let queue = &Queue::new(4, Pressure::default());
        std::thread::scope(|scope| {
            let workers = [For::People, For::Floods];
            let workers = workers.map(|kind| scope.spawn(move || queue.next(kind)));
            queue.close();
            for worker in workers {
                assert_eq!(worker.join().unwrap(), Next::Closed);
            }
        });
        assert_eq!(queue.put(entry(1, "till-1"), Instant::now()), Err(1));
    }
}
