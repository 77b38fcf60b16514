//! The registry without a network, at times of the test's choosing.

use super::*;
use crate::shared::cluster::Cluster;
use crate::shared::people::{Person, purposes};
use crate::{
    embedded::Embedded,
    layout::Layout,
    postgres::Postgres,
    provision::{self, Database, Founding},
};
use palmgate_protocol::{
    DAY, MemberId, Purpose, PurposeSet,
    cloud::{Erasure, ErasureState, Resolution, Shard},
    decode,
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey, SealingKey},
    shard,
    sign::VerifyingKey,
};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

struct World {
    _directory: tempfile::TempDir,
    layout: Layout,
    registry: Option<Arc<dyn Registry>>,
    /// The same one, when it is that.
    embedded: Option<Arc<Embedded>>,
}

/// A store's gateway: its key and the shard that it holds.
struct Gateway {
    name: Name,
    key: OpeningKey,
    held: Option<(u64, [u8; 32])>,
    members: BTreeSet<[u8; 16]>,
}

impl World {
    fn embedded() -> Self {
        Self::over(None)
    }

    fn postgres() -> Self {
        let cluster = Cluster::shared();
        let (url, admin) = (cluster.url("postgres"), cluster.admin_url("postgres"));
        let world = Self::over(Some((&url, &admin)));
        let store = |name: &str| {
            let (state, bundle) = (world.layout.path(""), world.layout.path(name));
            provision::add_store(&state, &name.parse().unwrap(), &bundle, None, START).unwrap();
        };
        ["lyon", "paris", "lille"].into_iter().for_each(store);
        world
    }

    fn over(database: Option<(&str, &str)>) -> Self {
        static SCHEMA: Mutex<()> = Mutex::new(());
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let random: u32 = u32::from_be_bytes(palmgate_seal::random::bytes());
        let tenant = format!("acme-{random}").parse().unwrap();
        let urls = database.map(|(url, _)| Database { url, password_file: None, ca: None });
        let founding = Founding { accept_operator: true, database: urls, ..Founding::new(&tenant) };
        provision::init(&state, &founding, START).unwrap();
        if let Some((_, admin)) = database {
            let _one_after_the_other = SCHEMA.lock().unwrap();
            provision::migrate(&state, admin, None).unwrap();
        }
        let layout = Layout::new(&state);
        let mut world = Self { _directory: directory, layout, registry: None, embedded: None };
        world.reopen(START);
        world
    }

    /// The operator chooses, and the process begins anew.
    fn configure(&mut self, choices: &str) {
        let file = self.layout.path("cloud.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{choices}")).unwrap();
        self.reopen(START);
    }

    fn registry(&self) -> &dyn Registry {
        &**self.registry.as_ref().unwrap()
    }

    fn inside(&self) -> &Embedded {
        self.embedded.as_ref().unwrap()
    }

    /// The process dies and comes back.
    fn reopen(&mut self, now: Timestamp) {
        (self.registry, self.embedded) = (None, None);
        let settings = self.layout.settings().unwrap();
        if let Some(database) = &settings.database {
            self.registry = Some(Postgres::open(&self.layout, database, None).unwrap());
            self.registry().sweep(now).unwrap();
        } else {
            let embedded = Arc::new(Embedded::open(&self.layout, now).unwrap());
            self.embedded = Some(embedded.clone());
            self.registry = Some(embedded);
        }
    }

    fn store(&self, name: &str) -> Gateway {
        let key = OpeningKey::generate();
        let name: Name = name.parse().unwrap();
        let hello = Hello { seal_key: key.public().0, verify_key: [7; 32] };
        self.registry().hello(&name, &hello, 0).unwrap();
        Gateway { name, key, held: None, members: BTreeSet::new() }
    }

    /// The same box, with nothing applied.
    fn copy(gateway: &Gateway) -> Gateway {
        let key = OpeningKey::from_bytes(gateway.key.to_bytes().expose()).unwrap();
        Gateway { name: gateway.name.clone(), key, held: None, members: BTreeSet::new() }
    }

    fn matcher(&self) -> SealingKey {
        self.layout.matcher().unwrap().public()
    }

    fn publisher(&self) -> VerifyingKey {
        self.layout.publisher().unwrap().public()
    }

    fn tenant(&self) -> Name {
        self.layout.settings().unwrap().tenant
    }

    fn enrol(&self, store: &Gateway, person: &Person, purposes: PurposeSet, until: Timestamp) {
        let (tenant, matcher) = (self.tenant(), self.matcher());
        let registration = person.operator(&tenant, &matcher, purposes, START, until);
        self.registry().register(&store.name, &registration, START).unwrap();
    }

    fn is_found(&self, store: &Gateway, person: &Person, now: Timestamp) -> bool {
        let query = person.query(&self.tenant(), &self.matcher(), Purpose::Pay, &person.probe());
        let resolution = self.registry().resolve_probe(&store.name, &query, now).unwrap();
        matches!(resolution, Resolution::Found { .. })
    }

    fn erase(&self, store: &Gateway, person: &Person, now: Timestamp) -> ErasureState {
        self.registry().erase(&store.name, &erasure_of(person), now).unwrap()
    }
}

impl Gateway {
    /// Fetches and applies a shard; `false` when there is none.
    fn fetch(&mut self, world: &World, now: Timestamp) -> bool {
        let held = self.held.map_or(0, |(version, _)| version);
        let asked = || world.registry().shard(&self.name, held, now);
        // A busy cloud is asked again, as gateways do.
        let mut answer = asked();
        while matches!(answer, Err(Problem::Busy)) {
            answer = asked();
        }
        let Some(bytes) = answer.unwrap() else { return false };
        self.apply(world, &bytes);
        true
    }

    fn apply(&mut self, world: &World, bytes: &[u8]) {
        let shard: Shard = decode(bytes).unwrap();
        let tenant = world.tenant();
        let expected = shard::Expected { tenant: &tenant, store: &self.name, held: self.held };
        let opened = shard::open(&shard, &world.publisher(), &self.key, &expected).unwrap();
        if opened.manifest.base == 0 {
            self.members.clear();
        }
        for chunk in opened.chunks {
            chunk.remove.iter().for_each(|member| {
                self.members.remove(member.as_bytes());
            });
            self.members.extend(chunk.add.iter().map(|record| *record.member.as_bytes()));
        }
        assert_eq!(opened.manifest.rows, self.members.len() as u64);
        self.held = Some((opened.manifest.version, opened.manifest_hash));
    }

    fn has(&self, member: MemberId) -> bool {
        self.members.contains(member.as_bytes())
    }
}

/// A person of the house or not, who agreed to roam for long.
fn roams(world: &World, home: &Gateway) -> Person {
    let person = Person::new();
    world.enrol(home, &person, pay_and_roam(), START.after(300 * DAY));
    person
}

fn erasure_of(person: &Person) -> Erasure {
    let commitment = std::array::from_fn(|i| person.member.as_bytes()[i % 16] ^ 0x5a);
    Erasure { member: person.member, claim: person.claim, commitment }
}

fn pay_and_roam() -> PurposeSet {
    purposes([Purpose::Pay, Purpose::Roaming])
}

/// Each is true of one process with its own disk, and of a process over PostgreSQL.
macro_rules! registries {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[test]
            fn $test() {
                super::$test(super::World::embedded());
            })*
        }
        mod postgres {
            $(#[test]
            fn $test() {
                super::$test(super::World::postgres());
            })*
        }
    };
}

mod erasures;
mod histories;
mod shards;
mod visits;
