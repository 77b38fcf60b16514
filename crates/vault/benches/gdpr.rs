//! The four role mixes of `GDPRbench` (Shastri et al., VLDB 2020) over 100,000 people, with everything
//! that forgetting asks for and without: sealed columns under keys of their own, erasure by a change
//! of the root and a signed Merkle log against plain rows and a plain durable log of the same entries.
//! Both commit 64 operations at once, each in a process of its own, and take turns, so that what else
//! the machine does strikes both. Prints one line of JSON for each figure; ratios of one run compare,
//! times of different runs do not.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and stops on errors")]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Lines, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use mimalloc::MiMalloc;
use palmgate_ledger::{Checkpoint, Entry, EntryKind, Evidence, Ledger, NOBODY, origin};
use palmgate_protocol::{ClaimHandle, Hand, MemberId, Name, Purpose, Secret, Timestamp};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use palmgate_vault::{Batch, Column, ErasureRequest, FileRoot, NewPerson, Vault};
use ring::digest::{SHA256, digest};
use rustix::time::{ClockId, clock_gettime};

/// The daemon's, for both stores.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const PEOPLE: u64 = 100_000;
/// Those from here on never leave.
const STAYING: u64 = PEOPLE * 4 / 5;
/// Operations of a mix in one round; one that only reads takes less time for three times as many.
const OPERATIONS: usize = 10_000;
const READING_OPERATIONS: usize = 3 * OPERATIONS;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 64;
/// Operations of one store before it is the other's turn: few, because the machine is not always as
/// fast, and enough for a store to find its memory in the processor's caches again.
const TURN: usize = 5_000;
/// People whom the gateway reads together at its start.
const READ_TOGETHER: usize = 1_024;
/// Between turns, for what is done behind the last answer.
const PAUSE: Duration = Duration::from_millis(20);
const TEMPLATE: Column = Column::Template(Purpose::Pay, Hand::Left);

#[derive(Clone, Copy)]
enum Operation {
    Insert,
    Delete,
    Read,
    Update,
    ReadMetadata,
    UpdateMetadata,
    ReadLog,
}

use Operation::{Delete, Insert, Read as ReadData, ReadLog, ReadMetadata, Update, UpdateMetadata};

/// Shares in fourths or fifths, as `GDPRbench` has them.
const MIXES: [(&str, &[Operation]); 4] = [
    ("controller", &[Insert, Delete, UpdateMetadata, UpdateMetadata]),
    ("customer", &[ReadData, Update, Delete, ReadMetadata, UpdateMetadata]),
    ("processor", &[ReadData, ReadMetadata, ReadMetadata, ReadMetadata, ReadMetadata]),
    ("regulator", &[ReadMetadata, ReadLog]),
];

fn id(kind: &str, number: u64) -> [u8; 16] {
    *digest(&SHA256, format!("{kind} {number}").as_bytes()).as_ref().first_chunk().unwrap()
}

fn member(number: u64) -> MemberId {
    MemberId::from_random(id("member", number))
}

fn value(number: u64, column: Column) -> Vec<u8> {
    let length = if column == TEMPLATE { 1_024 } else { 200 };
    id("value", number).repeat(length / 16)
}

trait Store {
    /// Carries out operations on people that exist, new ones or those to go, durably.
    fn commit(&mut self, group: &[(Operation, u64)]);
    /// Waits until whoever reads the log has checked what was handed out.
    fn audited(&mut self) {}
}

/// Checks log entries on a thread of its own, as a regulator does on a machine of its own.
struct Auditor {
    evidence: SyncSender<Vec<Evidence>>,
    verified: Receiver<usize>,
    handed_out: usize,
}

impl Auditor {
    fn start(key: VerifyingKey) -> Self {
        let (evidence, handed) = mpsc::sync_channel::<Vec<Evidence>>(16);
        let (tell, verified) = mpsc::channel();
        thread::spawn(move || {
            for some in handed {
                // One signature a checkpoint, one proof an entry.
                let checkpoint = Checkpoint::verify(&some[0].checkpoint, &key).unwrap();
                for one in &some {
                    assert_eq!(one.checkpoint, some[0].checkpoint);
                    one.verify_under(&checkpoint).unwrap();
                }
                tell.send(some.len()).unwrap();
            }
        });
        Self { evidence, verified, handed_out: 0 }
    }

    fn check(&mut self, evidence: Vec<Evidence>) {
        self.handed_out += evidence.len();
        if !evidence.is_empty() {
            self.evidence.send(evidence).unwrap();
        }
    }

    fn wait(&mut self) {
        while self.handed_out > 0 {
            self.handed_out -= self.verified.recv().unwrap();
        }
    }
}

struct Compliant {
    vault: Vault,
    ledger: Ledger,
    auditor: Auditor,
}

impl Compliant {
    fn fill(directory: &Path) -> Self {
        let tenant: Name = "lyon".parse().unwrap();
        let keeper = FileRoot::new(directory.join("root"));
        let vault = Vault::open(&directory.join("vault"), &tenant, Box::new(keeper)).unwrap();
        let signing = SigningKey::generate();
        let key = signing.public();
        let name = origin(&tenant, &tenant);
        let ledger = Ledger::open(&directory.join("ledger"), &name, signing).unwrap();
        for first in (0..PEOPLE).step_by(10_000) {
            vault.insert((first..first + 10_000).map(person).collect()).unwrap();
        }
        Self { vault, ledger, auditor: Auditor::start(key) }
    }
}

fn person(number: u64) -> NewPerson {
    let columns = [Column::Profile, Column::Phone, TEMPLATE];
    let columns = columns.map(|at| (at, Secret::new(value(number, at)))).into();
    let claim = ClaimHandle::from_random(id("claim", number));
    NewPerson { member: member(number), claim, columns }
}

fn request(number: u64) -> ErasureRequest {
    let claim = ClaimHandle::from_random(id("claim", number));
    let commitment = digest(&SHA256, &number.to_be_bytes()).as_ref().try_into().unwrap();
    ErasureRequest { member: member(number), claim, commitment }
}

/// What both logs say of an operation.
fn entry(number: u64, operation: Operation) -> Entry {
    let kind = if matches!(operation, Delete) { EntryKind::Erasure } else { EntryKind::Right };
    Entry {
        at: Timestamp::from_millis(1_785_576_600_000 + number.cast_signed()),
        kind,
        terminal: None,
        purpose: Some(Purpose::Pay),
        outcome: "done".into(),
        rules: vec!["G-17".into()],
        pack: [7; 32],
        commitment: NOBODY,
    }
}

impl Store for Compliant {
    fn commit(&mut self, group: &[(Operation, u64)]) {
        let (mut new, mut gone, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut entries, mut evidence) = (Vec::with_capacity(group.len()), Vec::new());
        for &(operation, number) in group {
            let write = |at| (member(number), at, Secret::new(value(number + 1, at)));
            match operation {
                Insert => new.push(person(number)),
                Delete => gone.push(request(number)),
                ReadData => drop(self.vault.read(&member(number), TEMPLATE).unwrap().unwrap()),
                ReadMetadata => {
                    drop(self.vault.read(&member(number), Column::Profile).unwrap().unwrap());
                }
                Update => writes.push(write(Column::Phone)),
                UpdateMetadata => writes.push(write(Column::Profile)),
                ReadLog => {
                    let index = number % self.ledger.signed_len();
                    evidence.push(self.ledger.evidence(index).unwrap());
                }
            }
            entries.push(entry(number, operation));
        }
        self.auditor.check(evidence);
        let logged: Vec<_> = gone.iter().map(|one| one.commitment).collect();
        self.vault.commit(&Batch { insert: new, write: writes, erase: gone }).unwrap();
        self.ledger.append_all(&entries).unwrap();
        self.ledger.sync().unwrap();
        self.vault.finish_erasures(&logged).unwrap();
    }

    fn audited(&mut self) {
        self.auditor.wait();
    }
}

struct Plain {
    db: sled::Db,
    file: File,
    log: File,
    /// Where each line of the log ends.
    ends: Vec<u64>,
}

impl Plain {
    fn fill(directory: &Path) -> Self {
        let path = directory.join("plain");
        let db = sled::Config::new()
            .path(&path)
            .segment_size(2 * 1024 * 1024)
            .cache_capacity(16 * 1024 * 1024)
            .open()
            .unwrap();
        let mut options = OpenOptions::new();
        let log = options.create(true).read(true).append(true).open(directory.join("log")).unwrap();
        let file = File::open(path.join("db")).unwrap();
        let plain = Self { db, file, log, ends: Vec::new() };
        (0..PEOPLE).for_each(|number| plain.put(number));
        plain.sync();
        plain
    }

    fn put(&self, number: u64) {
        for at in [Column::Profile, Column::Phone, TEMPLATE] {
            self.db.insert(key(number, at), value(number, at)).unwrap();
        }
    }

    fn line(&self, number: usize) -> Vec<u8> {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut line = vec![0; (self.ends[number] - begin) as usize];
        self.log.read_exact_at(&mut line, begin).unwrap();
        line
    }

    fn sync(&self) {
        self.db.flush().unwrap();
        self.file.sync_data().unwrap();
    }
}

fn key(number: u64, column: Column) -> Vec<u8> {
    let at = match column {
        Column::Profile => 0,
        Column::Phone => 1,
        _ => 2,
    };
    [&id("member", number)[..], &[at]].concat()
}

impl Store for Plain {
    fn commit(&mut self, group: &[(Operation, u64)]) {
        let mut changed = false;
        let begin = self.ends.last().copied().unwrap_or_default();
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        for &(operation, number) in group {
            changed |= !matches!(operation, ReadData | ReadMetadata | ReadLog);
            let write = |at| drop(self.db.insert(key(number, at), value(number + 1, at)).unwrap());
            match operation {
                Insert => self.put(number),
                Delete => {
                    for at in [Column::Profile, Column::Phone, TEMPLATE] {
                        self.db.remove(key(number, at)).unwrap();
                    }
                }
                ReadData => drop(self.db.get(key(number, TEMPLATE)).unwrap().unwrap()),
                ReadMetadata => drop(self.db.get(key(number, Column::Profile)).unwrap().unwrap()),
                Update => write(Column::Phone),
                UpdateMetadata => write(Column::Profile),
                ReadLog => drop(self.line(number as usize % self.ends.len())),
            }
            lines.extend_from_slice(entry(number, operation).to_line().unwrap().as_bytes());
            lines.push(b'\n');
            ends.push(begin + lines.len() as u64);
        }
        self.log.write_all(&lines).unwrap();
        self.log.sync_data().unwrap();
        self.ends.extend(ends);
        if changed {
            self.sync();
        }
    }
}

/// The people of one store: who comes, who leaves, and who is asked for.
struct People {
    newcomer: u64,
    leaver: u64,
    random: u64,
}

impl People {
    const fn new() -> Self {
        Self { newcomer: PEOPLE, leaver: 0, random: 0x2545_f491_4f6c_dd1d }
    }

    fn group(&mut self, mix: &[Operation], start: usize) -> Vec<(Operation, u64)> {
        let operation = |at: usize| match mix[at % mix.len()] {
            Insert => {
                self.newcomer += 1;
                (Insert, self.newcomer)
            }
            Delete => {
                self.leaver += 1;
                (Delete, self.leaver)
            }
            other => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                // The last fifth of the people never leaves.
                (other, STAYING + self.random % (PEOPLE - STAYING))
            }
        };
        (start..start + AT_ONCE).map(operation).collect()
    }
}

/// What one mix took of the machine.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    processor_s: f64,
    written_mib: f64,
}

impl Cost {
    fn medians(costs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(costs.iter().map(part));
        Self {
            seconds: of(|cost| cost.seconds),
            processor_s: of(|cost| cost.processor_s),
            written_mib: of(|cost| cost.written_mib),
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, processor_s, written_mib } = self;
        write!(
            f,
            r#"{{"s":{seconds:.3},"processor_s":{processor_s:.3},"written_mib":{written_mib:.1}}}"#
        )
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What one store has spent: bytes that its process handed to the disk, and its time on processors,
/// all threads.
struct Spent {
    bytes: u64,
    processor_s: f64,
}

impl Spent {
    fn now() -> Self {
        let io = fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let processor = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
        Self { bytes: line.unwrap().parse().unwrap(), processor_s: processor.as_secs_f64() }
    }

    /// Seconds and mebibytes since then, as a line.
    fn until_now(&self) -> String {
        let now = Self::now();
        let mebibytes = (now.bytes - self.bytes) as f64 / f64::from(1 << 20);
        format!("{} {mebibytes}", now.processor_s - self.processor_s)
    }
}

/// The operations of a mix that come with one turn, and how long they took.
fn turn(
    store: &mut dyn Store,
    people: &mut People,
    mix: &[Operation],
    operations: Range<usize>,
) -> Duration {
    let begun = Instant::now();
    for start in operations.step_by(AT_ONCE) {
        store.commit(&people.group(mix, start));
    }
    store.audited();
    begun.elapsed()
}

/// A store in a process of its own, as a box has one: the other's threads and heap are not in its
/// figures.
struct Apart {
    child: Child,
    asks: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Apart {
    fn start(which: &str, directory: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["store", which]).arg(directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut store = Self { child, asks, answers };
        assert_eq!(store.answer(), "filled");
        store
    }

    /// Begins a round.
    fn begin(&mut self) {
        self.ask("begin");
        assert_eq!(self.answer(), "begun");
    }

    /// Seconds that a turn takes.
    fn turn(&mut self, mix: &str, operations: &Range<usize>) -> f64 {
        self.ask(&format!("{mix} {} {}", operations.start, operations.end));
        let seconds = self.answer().parse().unwrap();
        thread::sleep(PAUSE);
        seconds
    }

    /// Ends a round whose turns took so long.
    fn end(&mut self, seconds: f64) -> Cost {
        self.ask("end");
        let answer = self.answer();
        let (processor_s, written_mib) = answer.split_once(' ').unwrap();
        let [processor_s, written_mib] = [processor_s, written_mib].map(|one| one.parse().unwrap());
        Cost { seconds, processor_s, written_mib }
    }

    fn ask(&mut self, what: &str) {
        writeln!(self.asks.as_mut().unwrap(), "{what}").unwrap();
    }

    fn answer(&mut self) -> String {
        self.answers.next().unwrap().unwrap()
    }

    fn close(mut self) {
        self.asks = None;
        assert!(self.child.wait().unwrap().success());
    }
}

/// The other side of [`Apart`].
fn serve(which: &str, directory: &Path) {
    let mut store = filled(which, directory);
    let mut people = People::new();
    quiet();
    println!("filled");
    let mut before = Spent::now();
    for asked in io::stdin().lines() {
        let asked = asked.unwrap();
        let asked: Vec<&str> = asked.split(' ').collect();
        match asked[..] {
            ["begin"] => {
                before = Spent::now();
                println!("begun");
            }
            ["end"] => {
                quiet();
                println!("{}", before.until_now());
            }
            [name, start, end] => {
                let (_, mix) = MIXES.iter().find(|(known, _)| *known == name).unwrap();
                let operations = start.parse().unwrap()..end.parse().unwrap();
                println!("{}", turn(store.as_mut(), &mut people, mix, operations).as_secs_f64());
            }
            _ => panic!("{asked:?} is no question"),
        }
    }
}

fn filled(which: &str, directory: &Path) -> Box<dyn Store> {
    match which {
        "compliant" => Box::new(Compliant::fill(directory)),
        "plain" => Box::new(Plain::fill(directory)),
        other => panic!("{other} is neither compliant nor plain"),
    }
}

/// One round of a mix on both stores.
fn round(mix: &str, turns: usize, compliant: &mut Apart, plain: &mut Apart) -> (Cost, Cost) {
    let (mut with, mut without) = (0.0, 0.0);
    compliant.begin();
    plain.begin();
    for number in 0..turns {
        let operations = number * TURN..(number + 1) * TURN;
        // Whoever was second is first: a machine that slows down strikes both alike.
        if number % 2 == 0 {
            without += plain.turn(mix, &operations);
            with += compliant.turn(mix, &operations);
        } else {
            with += compliant.turn(mix, &operations);
            without += plain.turn(mix, &operations);
        }
    }
    (compliant.end(with), plain.end(without))
}

/// Runs rounds of a mix, and prints the medians.
fn compare(name: &str, mix: &[Operation], compliant: &mut Apart, plain: &mut Apart) {
    let reads = mix.iter().all(|one| matches!(one, ReadData | ReadMetadata | ReadLog));
    let operations = if reads { READING_OPERATIONS } else { OPERATIONS };
    let (with, without): (Vec<Cost>, Vec<Cost>) =
        (0..ROUNDS).map(|_| round(name, operations / TURN, compliant, plain)).unzip();
    let ratios = |part: fn(&Cost) -> f64| {
        let pairs = with.iter().zip(&without);
        let mut ratios: Vec<f64> =
            pairs.map(|(with, without)| part(with) / part(without)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    let (wall, processor) = (ratios(|cost| cost.seconds), ratios(|cost| cost.processor_s));
    let (slowdown, least, most) = (wall[ROUNDS / 2], wall[0], wall[ROUNDS - 1]);
    let processor = processor[ROUNDS / 2];
    let (with, without) = (Cost::medians(&with), Cost::medians(&without));
    println!(
        r#"{{"mix":"{name}","operations":{operations},"rounds":{ROUNDS},"slowdown":{slowdown:.2},"least":{least:.2},"most":{most:.2},"slowdown_processor":{processor:.2},"compliant":{with},"plain":{without}}}"#
    );
}

/// Single erasures while another thread writes and reads: what somebody at a reader waits for.
fn erasures_under_load(vault: &Vault) {
    let stop = AtomicBool::new(false);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            for number in (STAYING..PEOPLE).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                vault.write(&member(number), Column::Phone, b"+33").unwrap();
                vault.read(&member(number), TEMPLATE).unwrap();
            }
        });
        let erase = |number| {
            let begun = Instant::now();
            vault.erase(&[request(number)]).unwrap();
            begun.elapsed()
        };
        let times = (79_000..79_200).map(erase).collect();
        stop.store(true, Ordering::Relaxed);
        times
    });
    times.sort();
    let millis = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1_000.0;
    println!(
        r#"{{"erasure_ms_under_load":{{"p50":{:.1},"p99":{:.1}}},"people":{PEOPLE}}}"#,
        millis(50),
        millis(99)
    );
}

/// Waits until nothing is written for a second: sled goes on cleaning up after people were filled in.
fn quiet() {
    let written = || fs::read_to_string("/proc/self/io").unwrap();
    let mut before = written();
    for _ in 0..120 {
        thread::sleep(Duration::from_secs(1));
        let now = written();
        let line =
            |text: &str| text.lines().find(|line| line.starts_with("wchar")).map(str::to_owned);
        if line(&now) == line(&before) {
            return;
        }
        before = now;
    }
}

/// Runs a mix on one store alone, for a profiler: nothing of the other is in the picture.
fn profile(which: &str, mix: &[Operation]) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(which, directory.path());
    let mut people = People::new();
    // So that there is a log to read.
    turn(store.as_mut(), &mut people, MIXES[0].1, 0..OPERATIONS);
    for _ in 0..ROUNDS {
        quiet();
        let took = turn(store.as_mut(), &mut people, mix, 0..OPERATIONS);
        println!(r#"{{"store":"{which}","s":{:.3}}}"#, took.as_secs_f64());
    }
}

/// How many of them have a template.
fn templates(vault: &Vault, members: &[MemberId]) -> usize {
    let read = vault.read_people(members, |columns| columns.read(TEMPLATE));
    read.unwrap().iter().flatten().count()
}

/// Opens what the mixes left, and reads every template as the gateway does at its start.
fn open(directory: &Path) -> Vault {
    let begun = Instant::now();
    let keeper = FileRoot::new(directory.join("root"));
    let tenant: Name = "lyon".parse().unwrap();
    let vault = Vault::open(&directory.join("vault"), &tenant, Box::new(keeper)).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let members = vault.members();
    let read: usize = members.chunks(READ_TOGETHER).map(|some| templates(&vault, some)).sum();
    let all = begun.elapsed().as_secs_f64();
    println!(
        r#"{{"people":{read},"open_s":{opened:.2},"open_and_read_every_template_s":{all:.2}}}"#
    );
    vault
}

/// `gdpr [MIX [compliant|plain]]`: all mixes, one, or one on one store alone.
fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let wanted = |name: &str| arguments.first().is_none_or(|one| *one == name);
    match arguments[..] {
        ["store", which, directory] => return serve(which, directory.as_ref()),
        [_, which] => {
            return MIXES
                .iter()
                .filter(|(name, _)| wanted(name))
                .for_each(|(_, mix)| profile(which, mix));
        }
        _ => {}
    }
    let directory = tempfile::tempdir().unwrap();
    let mut plain = Apart::start("plain", directory.path());
    let mut compliant = Apart::start("compliant", directory.path());
    if !arguments.is_empty() {
        // So that there is a log to read.
        round(MIXES[0].0, OPERATIONS / TURN, &mut compliant, &mut plain);
    }
    for (name, mix) in MIXES.into_iter().filter(|(name, _)| wanted(name)) {
        compare(name, mix, &mut compliant, &mut plain);
    }
    plain.close();
    compliant.close();
    erasures_under_load(&open(directory.path()));
}
