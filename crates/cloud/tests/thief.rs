//! Somebody has the whole database and every key that the cloud has, and tries everything with
//! everything. People in `split` custody are not in it.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{
    Gateway,
    cluster::Cluster,
    in_a_month, pay_and_roam,
    people::Person,
    process::{Process, Tenant},
};
use palmgate_protocol::{
    Probe, Purpose, TEMPLATE_BYTES,
    cloud::{MemberRecord, SearchAnswer, SearchOutcome, SearchQuery},
    decode, encode,
};
use palmgate_seal::{
    aead::{self, Place},
    envelope::{self, Label, OpeningKey},
};
use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    time::{Duration, Instant},
};

const COLUMNS: [&str; 8] =
    ["member", "record", "embedding", "holding", "removal", "erasure", "person-key", "key-table"];
const LABELS: [Label; 5] =
    [Label::Shard, Label::Probe, Label::Registration, Label::Resolution, Label::Portability];
/// Plaintexts longer than this hold no keys.
const LONGEST_KEY_LIST: usize = 512;

/// A row of the dump: its fields as bytes.
type Row = Vec<Vec<u8>>;

/// Every row of every table: what is in hexadecimal decoded, the rest as text.
fn rows(dump: &str) -> Vec<Row> {
    let field = |text: &str| match text.strip_prefix("\\\\x") {
        Some(hex) => data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap(),
        None => text.as_bytes().to_vec(),
    };
    let lines = dump.lines().filter(|line| line.contains('\t'));
    lines.map(|line| line.split('\t').map(field).collect()).collect()
}

/// Every run of 32 bytes in every file of the service and of its operator, but in certificates and
/// words.
fn keys(state: &Path) -> HashSet<[u8; 32]> {
    let mut keys = HashSet::new();
    for entry in std::fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            keys.extend(self::keys(&path));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("CERTIFICATE") || path.extension().is_some_and(|it| it == "toml") {
            continue;
        }
        let lines = text.lines().filter(|line| !line.starts_with('-'));
        let pem = data_encoding::BASE64.decode(lines.collect::<String>().as_bytes());
        keys.extend(windows(&pem.unwrap_or_else(|_| bytes.clone())));
    }
    keys
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = [u8; 32]> + '_ {
    bytes.windows(32).map(|window| window.try_into().unwrap())
}

/// The names that a row's seal may be bound to: its fields, and a field with a number after it.
fn names(row: &Row) -> Vec<Vec<u8>> {
    let text = |field: &Vec<u8>| String::from_utf8(field.clone()).ok();
    let numbers: Vec<i64> =
        row.iter().filter_map(|field| text(field)?.parse().ok()).take(4).collect();
    let numbered = row.iter().take(3).flat_map(|field| {
        numbers.iter().map(move |n| [field.as_slice(), &[0], &n.to_be_bytes()].concat())
    });
    row.iter().filter(|field| field.len() <= 64).cloned().chain(numbered).collect()
}

struct Thief {
    tenant: palmgate_protocol::Name,
    rows: Vec<Row>,
    keys: HashSet<[u8; 32]>,
    opened: BTreeSet<Vec<u8>>,
}

impl Thief {
    fn of(cluster: &Cluster, tenant: &Tenant) -> Self {
        let rows = rows(&cluster.dump("postgres"));
        let keys = keys(&tenant.state());
        Self { tenant: tenant.name(), rows, keys, opened: BTreeSet::new() }
    }

    /// Tries every key on every field of every row, and whatever that opens as a key again, until
    /// nothing new opens.
    fn try_everything(mut self) -> Self {
        let mut fresh: Vec<[u8; 32]> = self.keys.iter().copied().collect();
        while !fresh.is_empty() {
            let tried: Vec<aead::Key> = fresh.drain(..).map(aead::Key::from_bytes).collect();
            for row in &self.rows {
                let places = self.places(row);
                for sealed in row.iter().filter(|field| field.len() > 28) {
                    let opens = |key: &aead::Key| {
                        let plain = places.iter().find_map(|aad| key.open(aad, sealed).ok())?;
                        Some(plain.expose().clone())
                    };
                    let opened: Vec<Vec<u8>> = tried.iter().filter_map(opens).collect();
                    self.opened.extend(opened);
                }
            }
            let lists = self.opened.iter().filter(|plain| plain.len() <= LONGEST_KEY_LIST);
            let found: Vec<[u8; 32]> = lists.flat_map(|plain| windows(plain)).collect();
            fresh = found.into_iter().filter(|key| self.keys.insert(*key)).collect();
        }
        self
    }

    fn places(&self, row: &Row) -> Vec<Vec<u8>> {
        let place = |name: &[u8], column| {
            Place { tenant: &self.tenant, purpose: None, record: name, column, version: 1 }.aad()
        };
        let names = names(row);
        names.iter().flat_map(|name| COLUMNS.map(|column| place(name, column))).collect()
    }

    /// Templates in what was opened, and in what of that opens once more with any key, as an
    /// envelope or as a record under a key.
    fn templates(&self) -> usize {
        let records = self.opened.iter().filter_map(|plain| decode::<MemberRecord>(plain).ok());
        let templates = records.map(|record| record.templates.len()).sum::<usize>();
        let long = || self.opened.iter().filter(|plain| plain.len() >= TEMPLATE_BYTES);
        let once_more = long().filter(|plain| {
            self.keys.iter().any(|key| {
                let record = aead::Key::from_bytes(*key).open(b"", plain).is_ok();
                let envelope = OpeningKey::from_bytes(key).is_ok_and(|key| {
                    LABELS
                        .iter()
                        .any(|label| envelope::open(&key, *label, &self.tenant, b"", plain).is_ok())
                });
                record || envelope
            })
        });
        templates + once_more.count()
    }

    /// Whether what was opened, or a row as it is, holds a part of these people's palms.
    fn sees(&self, people: &[Person]) -> bool {
        let stored = self.rows.iter().flatten().chain(&self.opened);
        let all: Vec<&[u8]> = stored.map(Vec::as_slice).filter(|bytes| bytes.len() > 24).collect();
        people.iter().any(|person| {
            let template = person.template().to_bytes();
            let parts = [&template.expose()[..24], &template.expose()[TEMPLATE_BYTES - 24..]];
            all.iter().any(|bytes| {
                parts.iter().any(|part| bytes.windows(part.len()).any(|window| window == *part))
            })
        })
    }
}

async fn search(store: &Gateway, person: &Person) -> SearchOutcome {
    let padded = envelope::pad(person.probe().to_bytes().expose(), Probe::PADDED_BYTES);
    let binding = SearchQuery::binding(Purpose::Pay);
    let sealed =
        envelope::seal(&store.matcher, Label::Probe, &store.tenant, &binding, padded.expose());
    let query = SearchQuery { purpose: Purpose::Pay, sealed: sealed.unwrap() };
    let answer = store.post("/v1/search", encode(&query)).await;
    let answer: SearchAnswer =
        decode(envelope::unpad(&answer.bytes().await.unwrap()).unwrap()).unwrap();
    answer.outcome
}

#[tokio::test]
async fn the_whole_database_and_every_key_of_the_cloud_give_no_palm_of_a_split_tenant() {
    let cluster = Cluster::start(&["fsync=off"]);
    let tenant = Tenant::new(&cluster, "[search]\nthreshold = 0.5\n");
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let people: Vec<Person> = (0..6).map(|_| Person::new()).collect();
    for person in &people {
        lyon.register(&person.split(pay_and_roam(), in_a_month())).await;
    }
    lyon.erase(&people[0]).await;
    let thief = Thief::of(&cluster, &tenant).try_everything();
    let outer = thief.opened.iter().filter(|plain| plain.len() > TEMPLATE_BYTES).count();
    assert_eq!(outer, people.len() - 1, "the cloud's own seals open, but of who was erased");
    assert_eq!(thief.templates(), 0);
    assert!(!thief.sees(&people));
    for person in &people {
        assert!(matches!(search(&lyon, person).await, SearchOutcome::NotFound));
    }

    // The same thief, and the same question, find who is in the other custody.
    let control = Person::new();
    lyon.enrol(&control, pay_and_roam()).await;
    let thief = Thief::of(&cluster, &tenant).try_everything();
    assert_eq!(thief.templates(), 1);
    assert!(thief.sees(&[control]) && !thief.sees(&people));
    let begun = Instant::now();
    while !matches!(search(&lyon, &control).await, SearchOutcome::Found { .. }) {
        assert!(begun.elapsed() < Duration::from_mins(1), "the index never had it");
    }
}
