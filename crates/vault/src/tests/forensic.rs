//! Somebody has every byte that ever reached the medium, as the worst flash controller would, every
//! row ever handed to sled, and every key that still exists. Whom do they read?

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, LazyLock},
};

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64, HEXLOWER};

use super::{
    medium::{Change, Medium, Tree},
    *,
};
use crate::{
    MemoryRoot, Root,
    disk::Rows,
    keys::{KeyTable, Seed},
    people::PersonCipher,
    store::StoreCipher,
    table::{KeyFiles, PAGE_BYTES, TOP_BYTES, page_at},
};

static TENANT: LazyLock<Name> = LazyLock::new(tenant);

const PHONE: Column = Column::Phone;
const COLUMNS: [Column; 4] = [Column::Profile, Column::CardToken, PHONE, TEMPLATE];

/// Bytes that nobody else has, as long as the real thing.
fn canary(number: u64, column: Column) -> Vec<u8> {
    let line = |index: u64| digest(&SHA256, format!("{number} {column:?} {index}").as_bytes());
    let text =
        |word: &str| format!("{word} {}", HEXLOWER.encode(&line(0).as_ref()[..8])).into_bytes();
    match column {
        Column::Profile => [&member(number).as_bytes()[..], &text("name")].concat(),
        Column::CardToken => text("token"),
        PHONE => format!("+336{:08}{:08}", number, number * 7919 % 100_000_000).into_bytes(),
        _ => (0..20).flat_map(|index| line(index).as_ref().to_vec()).collect(),
    }
}

fn customer(number: u64) -> NewPerson {
    let columns = COLUMNS.map(|column| (column, Secret::new(canary(number, column)))).into();
    NewPerson { member: member(number), claim: claim(number), columns }
}

/// What a person's data looks like in the clear: raw, in hexadecimal and in base64.
fn patterns(number: u64) -> Vec<Vec<u8>> {
    let ids = [*member(number).as_bytes(), *claim(number).as_bytes()].map(Vec::from);
    let plain = COLUMNS.map(|column| canary(number, column));
    let raw: Vec<Vec<u8>> = ids.into_iter().chain(plain).collect();
    let begin = |bytes: &[u8]| bytes[..bytes.len().min(24)].to_vec();
    // Base64 of a part depends on where the part begins; its inner groups of three do not.
    let base64 = |bytes: &[u8]| BASE64.encode(&begin(bytes)[..15]).into_bytes();
    let hex = |bytes: &[u8]| HEXLOWER.encode(&begin(bytes)).into_bytes();
    raw.iter().flat_map(|bytes| [begin(bytes), hex(bytes), base64(bytes)]).collect()
}

/// Everything that an adversary with the medium has.
struct Evidence {
    /// Contents of every file at every sync and at the end.
    files: Vec<Arc<[u8]>>,
    /// Place and sealed value of every row ever handed to sled.
    rows: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Every write, in order.
    writes: Vec<Arc<[u8]>>,
}

impl Evidence {
    fn of(medium: &Medium, rows: &Rows) -> Self {
        let changes = medium.changes();
        let mut contents: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut evidence = Self { files: Vec::new(), rows: HashMap::new(), writes: Vec::new() };
        for change in &changes {
            match change {
                Change::Write { node, offset, bytes } => {
                    let (file, start) = (contents.entry(*node).or_default(), *offset as usize);
                    file.resize(file.len().max(start + bytes.len()), 0);
                    file[start..start + bytes.len()].copy_from_slice(bytes);
                    evidence.writes.push(Arc::clone(bytes));
                }
                // The log of sled is looked through as rows and as writes.
                Change::Sync { node } if contents.get(node).is_some_and(|c| is_table(c)) => {
                    evidence.files.push(contents[node].as_slice().into());
                }
                _ => {}
            }
        }
        for (place, sealed) in rows.lock().unwrap().iter() {
            evidence.rows.entry(place.clone()).or_default().push(sealed.clone());
        }
        evidence
    }

    /// Every table that opens under `root`, with every version of its pages that its keys open.
    fn tables(&self, root: &Root) -> Vec<KeyTable> {
        let (disk, tenant) = (Disk::default(), tenant());
        let files = KeyFiles { disk: &disk, directory: Path::new(""), tenant: &tenant };
        let mut tables: BTreeMap<(u64, Vec<u8>), KeyTable> = BTreeMap::new();
        for file in &self.files {
            for table in KeyTable::open_tops(file, &files, root) {
                tables.insert((table.counter, table.state.expose().to_vec()), table);
            }
        }
        let mut pages: HashMap<u32, std::collections::BTreeSet<&[u8]>> = HashMap::new();
        for file in &self.files {
            for slot in 0.. {
                let start = page_at(slot) as usize;
                let Some(page) = file.get(start..start + PAGE_BYTES) else { break };
                pages.entry(slot).or_default().insert(page);
            }
        }
        for table in tables.values_mut() {
            for number in 0..table.pages.len() as u32 {
                let slot = table.pages[number as usize].slot.unwrap();
                for page in pages.get(&slot).into_iter().flatten() {
                    let _ = table.read_page(number, page, &files);
                }
            }
        }
        tables.into_values().collect()
    }

    /// What of these people can be read with `root` and everything that it leads to.
    fn readable(&self, root: &Root, people: Range<u64>) -> usize {
        let tables = self.tables(root);
        let numbers: HashMap<MemberId, u64> = people.clone().map(|n| (member(n), n)).collect();
        let mut found = std::collections::BTreeSet::new();
        for table in &tables {
            for (id, person) in &table.people {
                let Some(number) = numbers.get(id) else { continue };
                found.insert((*number, "key".to_owned()));
                let cipher = PersonCipher::new(&TENANT, id, &person.seed);
                for column in Column::all() {
                    let rows = self.rows.get(cipher.place(column).as_slice());
                    if rows.into_iter().flatten().any(|row| cipher.open(column, row).is_some()) {
                        found.insert((*number, format!("{column:?}")));
                    }
                }
            }
            for plain in self.store_entries(table) {
                let named = people.clone().filter(|n| names(&plain, *n));
                found.extend(named.map(|number| (number, "letter".to_owned())));
            }
        }
        found.len()
    }

    /// State and outbox entries that a table has the keys of.
    fn store_entries(&self, table: &KeyTable) -> Vec<Vec<u8>> {
        let opened = |seed: &Seed| -> Vec<Vec<u8>> {
            let rows =
                self.rows.iter().flat_map(|(key, rows)| rows.iter().map(move |row| (key, row)));
            let open = |(key, row): (&Vec<u8>, &Vec<u8>)| {
                StoreCipher::open_row(&TENANT, seed, key, row).map(|plain| plain.expose().clone())
            };
            rows.filter_map(open).collect()
        };
        [&table.state, &table.outbox].into_iter().flat_map(opened).collect()
    }

    /// How many of the patterns of these people stand anywhere in the clear.
    fn in_the_clear(&self, people: Range<u64>) -> usize {
        let search = AhoCorasick::new(people.flat_map(patterns)).unwrap();
        self.writes.iter().map(|bytes| search.find_iter(&bytes[..]).count()).sum()
    }

    /// How many rows of sled were seen on the medium, as sealed as they were handed over.
    fn rows_on_medium(&self, limit: usize) -> (usize, usize) {
        let rows: Vec<&[u8]> =
            self.rows.values().flatten().map(|row| &row[..32]).take(limit).collect();
        let search = AhoCorasick::new(&rows).unwrap();
        let hits = self.writes.iter().flat_map(|bytes| search.find_iter(&bytes[..]));
        let seen: std::collections::BTreeSet<_> = hits.map(|hit| hit.pattern()).collect();
        (seen.len(), rows.len())
    }
}

fn is_table(contents: &[u8]) -> bool {
    let magic = b"palmgate keys\n";
    contents.starts_with(magic)
        || contents.get(TOP_BYTES..).is_some_and(|other| other.starts_with(magic))
}

fn names(text: &[u8], number: u64) -> bool {
    let id = member(number);
    text.windows(16).any(|window| window == id.as_bytes())
}

/// The figures of one run.
struct Outcome {
    before: usize,
    after: usize,
    clear: usize,
}

/// A store of `people`, of whom `erased` ask to be forgotten, a tenth of them at a time.
fn forget(people: u64, erased: u64, rotate: bool) -> Outcome {
    let medium = Medium::mount(Tree::new());
    let keeper = MemoryRoot::new();
    let rows = Rows::default();
    let disk = Disk { rows: Some(Arc::clone(&rows)), ..Disk::default() };
    let data = medium.machine().data();
    let open = || Vault::open_on(&data, &tenant(), Box::new(keeper.clone()), disk.clone()).unwrap();
    let vault = open();
    vault.inspect(|inner| inner.rotation_off = !rotate);
    for first in (0..people).step_by(1_000) {
        vault.insert((first..people.min(first + 1_000)).map(customer).collect()).unwrap();
    }
    // Values that are replaced, and letters that name people and are sent before they are erased.
    let newer = |n| (member(n), Column::History, Secret::new(canary(n, Column::History)));
    vault.write_many((0..erased).map(newer).collect()).unwrap();
    for number in 0..20 {
        let letter = vault.outbox_push(member(number).as_bytes()).unwrap();
        vault.outbox_done(letter).unwrap();
    }
    let root = |keeper: &MemoryRoot| keeper.clone().load().unwrap().unwrap();
    let before = Evidence::of(&medium, &rows).readable(&root(&keeper), 0..erased);
    let batch = (erased / 10).max(1);
    for first in (0..erased).step_by(batch as usize) {
        let batch: Vec<_> = (first..first + batch).map(request).collect();
        vault.erase(&batch).unwrap();
    }
    // Life goes on.
    vault.insert((people..people + 10).map(customer).collect()).unwrap();
    drop(vault);
    powercut::closed(medium.machine());
    let evidence = Evidence::of(&medium, &rows);
    let after = evidence.readable(&root(&keeper), 0..erased);
    let (seen, sought) = evidence.rows_on_medium(5_000);
    eprintln!(
        "{} writes; {seen} of {sought} sealed rows found on the medium",
        evidence.writes.len()
    );
    assert!(seen * 10 > sought * 9, "the recorder misses what sled writes");
    let kept = evidence.readable(&root(&keeper), erased..erased + 10);
    assert!(kept >= 10 * COLUMNS.len(), "the solver reads those who stay: {kept}");
    assert_eq!(evidence.in_the_clear(erased..erased + 100), 0, "nobody lies in the clear");
    let planted = AhoCorasick::new(patterns(1)).unwrap();
    assert!(planted.is_match(&canary(1, TEMPLATE)), "control: the search finds what is there");
    Outcome { before, after, clear: evidence.in_the_clear(0..erased) }
}

#[test]
fn nobody_erased_is_readable_from_all_that_was_ever_written() {
    if !Medium::is_possible() {
        return;
    }
    let outcome = forget(600, 60, true);
    assert!(outcome.before > 60 * COLUMNS.len(), "control: {}", outcome.before);
    assert_eq!((outcome.after, outcome.clear), (0, 0));
    let control = forget(600, 60, false);
    assert!(control.after > 60 * COLUMNS.len(), "control: {}", control.after);
}

#[test]
#[ignore = "part of cargo xtask forensic"]
fn of_ten_thousand_people_a_thousand_erased_leave_nothing() {
    let outcome = forget(10_000, 1_000, true);
    println!("\nforensic erased 1000");
    println!("\nforensic remnants {}", outcome.after + outcome.clear);
    println!("\nforensic control_before {}", outcome.before);
    assert!(outcome.before > 1_000 * COLUMNS.len());
    assert_eq!((outcome.after, outcome.clear), (0, 0));
    let control = forget(10_000, 1_000, false);
    println!("\nforensic control_without_rotation {}", control.after);
    assert!(control.after > 1_000 * COLUMNS.len());
}

/// Runs a program of the system; says so where it is missing or not allowed.
fn system(program: &str, arguments: &[&Path]) -> bool {
    let status = std::process::Command::new(program).args(arguments).status();
    let done = status.is_ok_and(|status| status.success());
    if !done {
        eprintln!("not shown on this machine: {program} failed");
    }
    done
}

#[test]
#[ignore = "part of cargo xtask forensic"]
fn a_raw_image_of_a_real_file_system_holds_nobody_in_the_clear() {
    let scratch = Machine::on_disk();
    let (image, mounted) = (scratch.all().join("image"), scratch.all().join("mounted"));
    fs::File::create(&image).unwrap().set_len(96 * 1024 * 1024).unwrap();
    fs::create_dir(&mounted).unwrap();
    let quiet = Path::new("-q");
    if !system("mkfs.ext4", &[quiet, &image])
        || !system("mount", &[Path::new("-o"), Path::new("loop"), &image, &mounted])
    {
        return;
    }
    let keeper = MemoryRoot::new();
    let rows = Rows::default();
    let disk = Disk { rows: Some(Arc::clone(&rows)), ..Disk::default() };
    let data = mounted.join("data");
    let vault = Vault::open_on(&data, &tenant(), Box::new(keeper), disk).unwrap();
    vault.insert((0..500).map(customer).collect()).unwrap();
    let seeds: Vec<[u8; 32]> =
        vault.inspect(|inner| inner.table.people.values().map(|one| *one.seed.expose()).collect());
    vault.erase(&(0..100).map(request).collect::<Vec<_>>()).unwrap();
    drop(vault);
    let log = data.join("records/db");
    crate::disk::lock(&fs::File::open(&log).unwrap(), &log, std::time::Duration::from_secs(10))
        .unwrap();
    assert!(system("umount", &[&mounted]));
    let bytes = fs::read(&image).unwrap();
    let found =
        |patterns: Vec<Vec<u8>>| AhoCorasick::new(patterns).unwrap().find_iter(&bytes).count();
    let sealed = rows.lock().unwrap().iter().map(|(_, row)| row[..32].to_vec()).collect();
    assert!(found(sealed) > 1_000, "control: the search finds what lies there sealed");
    assert_eq!(found((0..500).flat_map(patterns).collect()), 0);
    assert_eq!(found(seeds.iter().map(|seed| seed.to_vec()).collect()), 0, "a key in the clear");
}
