//! The four role mixes of `GDPRbench` (Shastri et al., VLDB 2020) over 100,000 people, with everything
//! that forgetting asks for and without: sealed columns under keys of their own, erasure by a change
//! of the root and a signed Merkle log against plain rows and a plain durable log. Both commit 64
//! operations at once. Prints one line of JSON for each figure; times of one run compare, times of
//! different runs do not.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and stops on errors")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use palmgate_ledger::{Checkpoint, Entry, EntryKind, Ledger, NOBODY, origin};
use palmgate_protocol::{ClaimHandle, Hand, MemberId, Name, Purpose, Secret, Timestamp};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use palmgate_vault::{Batch, Column, ErasureRequest, FileRoot, NewPerson, Vault};
use ring::digest::{SHA256, digest};

const PEOPLE: u64 = 100_000;
const OPERATIONS: usize = 10_000;
const AT_ONCE: usize = 64;
const TEMPLATE: Column = Column::Template(Purpose::Pay, Hand::Left);
const LINE_BYTES: u64 = 256;

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
}

struct Compliant {
    vault: Vault,
    ledger: Ledger,
    key: VerifyingKey,
    checkpoint: Option<Checkpoint>,
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
        Self { vault, ledger, key, checkpoint: None }
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

fn entry(number: u64, kind: EntryKind) -> Entry {
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
        let mut entries = Vec::with_capacity(group.len());
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
                    // One signature a checkpoint, one proof an entry.
                    let size = self.ledger.signed_len();
                    if self.checkpoint.as_ref().is_none_or(|held| held.size != size) {
                        let note = self.ledger.checkpoint();
                        self.checkpoint = Some(Checkpoint::verify(note, &self.key).unwrap());
                    }
                    let evidence = self.ledger.evidence(number % size).unwrap();
                    evidence.verify_under(self.checkpoint.as_ref().unwrap()).unwrap();
                }
            }
            let kind =
                if matches!(operation, Delete) { EntryKind::Erasure } else { EntryKind::Right };
            entries.push(entry(number, kind));
        }
        let logged: Vec<_> = gone.iter().map(|one| one.commitment).collect();
        self.vault.commit(&Batch { insert: new, write: writes, erase: gone }).unwrap();
        self.ledger.append_all(&entries).unwrap();
        self.ledger.sync().unwrap();
        self.vault.finish_erasures(&logged).unwrap();
    }
}

struct Plain {
    db: sled::Db,
    file: File,
    log: File,
    lines: u64,
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
        let plain = Self { db, file, log, lines: 0 };
        (0..PEOPLE).for_each(|number| plain.put(number));
        plain.sync();
        plain
    }

    fn put(&self, number: u64) {
        for at in [Column::Profile, Column::Phone, TEMPLATE] {
            self.db.insert(key(number, at), value(number, at)).unwrap();
        }
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
        let mut lines = Vec::new();
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
                ReadLog => {
                    let place = number % self.lines.max(1) * LINE_BYTES;
                    self.log.seek(SeekFrom::Start(place)).unwrap();
                    let _ = self.log.read(&mut [0; LINE_BYTES as usize]).unwrap();
                }
            }
            lines.extend_from_slice(&[b'x'; LINE_BYTES as usize]);
        }
        self.log.write_all(&lines).unwrap();
        self.log.sync_data().unwrap();
        self.lines += group.len() as u64;
        if changed {
            self.sync();
        }
    }
}

/// One mix; each starts with people whom the mixes before left alone.
fn run(store: &mut dyn Store, mix: &[Operation], turn: u64) -> Duration {
    let (mut newcomer, mut leaver) = (PEOPLE * (turn + 2), turn * 20_000);
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ turn;
    let group = |start: usize, random: &mut u64, newcomer: &mut u64, leaver: &mut u64| {
        let operation = |at: usize| match mix[at % mix.len()] {
            Insert => {
                *newcomer += 1;
                (Insert, *newcomer)
            }
            Delete => {
                *leaver += 1;
                (Delete, *leaver)
            }
            other => {
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                // The last fifth of the people never leaves.
                (other, PEOPLE * 4 / 5 + *random % (PEOPLE / 5))
            }
        };
        (start..start + AT_ONCE).map(operation).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    for start in (0..OPERATIONS).step_by(AT_ONCE) {
        store.commit(&group(start, &mut random, &mut newcomer, &mut leaver));
    }
    begun.elapsed()
}

/// What one mix took of the machine.
struct Cost {
    seconds: f64,
    processor_s: f64,
    written_mib: f64,
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

fn measured(store: &mut dyn Store, mix: &[Operation], turn: u64) -> Cost {
    // Bytes that the process handed to the disk, and its time on processors, all threads.
    let written = || -> u64 {
        let io = fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.unwrap().parse().unwrap()
    };
    let processor = || -> f64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    };
    let (bytes, before) = (written(), processor());
    let seconds = run(store, mix, turn).as_secs_f64();
    let written_mib = (written() - bytes) as f64 / f64::from(1 << 20);
    Cost { seconds, processor_s: processor() - before, written_mib }
}

/// Single erasures while another thread writes and reads: what somebody at a reader waits for.
fn erasures_under_load(vault: &Vault) {
    let stop = AtomicBool::new(false);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..PEOPLE / 5).cycle().map(|n| n + PEOPLE * 4 / 5) {
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

fn all_mixes(store: &mut dyn Store) -> Vec<Cost> {
    quiet();
    let mixes = MIXES.into_iter().enumerate();
    mixes.map(|(turn, (_, mix))| measured(store, mix, turn as u64)).collect()
}

/// One store after the other, each alone: sled works on in threads of its own.
fn main() {
    let directory = tempfile::tempdir().unwrap();
    let mut plain = Plain::fill(directory.path());
    let without = all_mixes(&mut plain);
    drop(plain);
    let mut compliant = Compliant::fill(directory.path());
    let with = all_mixes(&mut compliant);
    for (((name, _), with), without) in MIXES.into_iter().zip(with).zip(without) {
        let slowdown = with.seconds / without.seconds;
        println!(
            r#"{{"mix":"{name}","operations":{OPERATIONS},"slowdown":{slowdown:.2},"compliant":{with},"plain":{without}}}"#
        );
    }
    erasures_under_load(&compliant.vault);
    drop(compliant);
    let begun = Instant::now();
    let keeper = FileRoot::new(directory.path().join("root"));
    let tenant: Name = "lyon".parse().unwrap();
    let vault = Vault::open(&directory.path().join("vault"), &tenant, Box::new(keeper)).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let members = vault.members();
    let read = members.iter().filter(|one| vault.read(one, TEMPLATE).unwrap().is_some()).count();
    let all = begun.elapsed().as_secs_f64();
    println!(
        r#"{{"people":{read},"open_s":{opened:.2},"open_and_read_every_template_s":{all:.2}}}"#
    );
}
