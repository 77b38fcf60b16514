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

registries! {
    a_lease_is_renewed_once_half_of_it_is_over,
    who_expires_is_forgotten_without_anybody_asking,
    who_stops_roaming_leaves_the_visited_stores_and_stays_at_home,
    a_roaming_consent_that_ends_ends_the_visit,
    everything_is_there_after_opening_again,
    a_lost_answer_is_sent_again_byte_by_byte_unless_somebody_had_to_leave,
    only_the_last_version_can_be_confirmed,
    a_store_that_lost_its_shard_gets_a_whole_one,
    a_replaced_box_begins_with_a_whole_shard_and_its_own_keys,
    no_shard_asked_for_after_an_erasure_has_the_person_however_busy_the_cloud_is,
    a_full_shard_gives_up_visitors_first_and_who_came_first,
    a_visit_ends_and_begins_anew,
    a_removal_that_no_store_confirms_is_an_alarm_after_a_day,
    a_store_that_was_away_for_weeks_learns_who_was_forgotten_and_has_none_of_them,
    who_takes_their_record_out_of_the_clouds_sight_leaves_every_shard,
    random_histories_agree_with_a_model,
}

fn a_lease_is_renewed_once_half_of_it_is_over(world: World) {
    let mut lyon = world.store("lyon");
    assert!(lyon.fetch(&world, START));
    assert!(!lyon.fetch(&world, START.after(35 * HOUR)));
    assert!(lyon.fetch(&world, START.after(36 * HOUR)));
    assert_eq!(lyon.held.unwrap().0, 2);
    assert!(!lyon.fetch(&world, START.after(37 * HOUR)));
}

fn who_expires_is_forgotten_without_anybody_asking(world: World) {
    let (mut lyon, paris) = (world.store("lyon"), world.store("paris"));
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    lyon.fetch(&world, START);
    assert!(lyon.has(person.member));
    let later = START.after(DAY);
    assert!(!world.is_found(&paris, &person, later));
    assert!(lyon.fetch(&world, later));
    assert!(!lyon.has(person.member));
    assert_eq!(world.registry().counts(START).unwrap().members[0].1, 0);
}

fn who_stops_roaming_leaves_the_visited_stores_and_stays_at_home(world: World) {
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(30 * DAY));
    assert!(world.is_found(&paris, &person, START));
    paris.fetch(&world, START);
    assert!(paris.has(person.member));
    world.enrol(&lyon, &person, purposes([Purpose::Pay]), START.after(30 * DAY));
    assert!(!world.is_found(&paris, &person, START));
    assert!(world.is_found(&lyon, &person, START));
    paris.fetch(&world, START);
    lyon.fetch(&world, START);
    assert!(!paris.has(person.member) && lyon.has(person.member));
}

fn a_roaming_consent_that_ends_ends_the_visit(world: World) {
    let (lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = Person::new();
    let mut registration =
        person.operator(&world.tenant(), &world.matcher(), pay_and_roam(), START, START.after(DAY));
    registration.expires_at = START.after(10 * DAY);
    let mut record = person.record(pay_and_roam(), START, START.after(DAY));
    record.expires_at = registration.expires_at;
    registration.sealed = envelope::seal(
        &world.matcher(),
        Label::Registration,
        &world.tenant(),
        &registration.binding(),
        palmgate_protocol::encode_for_sealing(&record).expose(),
    )
    .unwrap();
    world.registry().register(&lyon.name, &registration, START).unwrap();
    assert!(world.is_found(&paris, &person, START));
    paris.fetch(&world, START);
    assert!(paris.has(person.member));
    paris.fetch(&world, START.after(DAY));
    assert!(!paris.has(person.member));
    assert_eq!(world.registry().counts(START).unwrap().members[0].1, 1, "still known at home");
}

fn everything_is_there_after_opening_again(mut world: World) {
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let (stays, goes) = (Person::new(), Person::new());
    for person in [&stays, &goes] {
        world.enrol(&lyon, person, pay_and_roam(), START.after(DAY));
        assert!(world.is_found(&paris, person, START));
    }
    lyon.fetch(&world, START);
    paris.fetch(&world, START);
    let before = world.erase(&lyon, &goes, START);
    world.reopen(START);
    let after = world.registry().erasure(&lyon.name, &erasure_of(&goes).commitment).unwrap();
    assert_eq!(after.outstanding, before.outstanding);
    assert_eq!(after.outstanding.len(), 2);
    lyon.fetch(&world, START);
    paris.fetch(&world, START);
    for store in [&lyon, &paris] {
        assert!(store.has(stays.member) && !store.has(goes.member));
    }
    assert!(world.is_found(&paris, &stays, START) && !world.is_found(&paris, &goes, START));
}

#[test]
fn an_erasure_cut_off_before_the_key_was_destroyed_is_finished_at_the_next_start() {
    let mut world = World::embedded();
    let lyon = world.store("lyon");
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    let table = world.layout.keys().join("table-1");
    assert!(table.exists());
    {
        world.inside().begin_erasure_only(&erasure_of(&person), &lyon.name);
    }
    assert!(matches!(
        world.registry().erasure(&lyon.name, &erasure_of(&person).commitment),
        Err(Problem::NotFound)
    ));
    world.reopen(START.after(HOUR));
    assert!(!table.exists(), "the old table and its root are gone");
    let state = world.registry().erasure(&lyon.name, &erasure_of(&person).commitment).unwrap();
    assert_eq!(state.erased_at, START.after(HOUR));
    assert!(!world.is_found(&lyon, &person, START));
}

#[test]
fn an_erasure_whose_key_cannot_be_destroyed_is_not_acknowledged_and_nothing_is_promised_after() {
    let mut world = World::embedded();
    let lyon = world.store("lyon");
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    let (keys, away) = (world.layout.keys(), world.layout.path("keys-away"));
    std::fs::rename(&keys, &away).unwrap();
    let asked = world.registry().erase(&lyon.name, &erasure_of(&person), START);
    assert!(matches!(asked, Err(Problem::Internal)));
    assert!(world.registry().health() == Health::Broken);
    assert!(world.registry().shard(&lyon.name, 0, START).is_err());
    std::fs::rename(&away, &keys).unwrap();
    world.reopen(START.after(HOUR));
    assert_eq!(world.erase(&lyon, &person, START.after(DAY)).erased_at, START.after(HOUR));
}

#[test]
fn a_replaced_record_reaches_every_holder_and_its_old_key_is_destroyed() {
    let world = World::embedded();
    let (lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    assert!(world.is_found(&paris, &person, START));
    paris.fetch(&world, START);
    let root = |path: &Path| std::fs::read(path.join("root.key")).unwrap();
    let before = root(&world.layout.keys());
    world.enrol(&lyon, &person, pay_and_roam(), START.after(2 * DAY));
    assert!(paris.fetch(&world, START), "the new record is on its way");
    assert_ne!(before, root(&world.layout.keys()));
    assert!(!world.inside().has_dead_keys());
    assert!(world.is_found(&paris, &person, START.after(DAY)));
}

fn a_lost_answer_is_sent_again_byte_by_byte_unless_somebody_had_to_leave(world: World) {
    let mut lyon = world.store("lyon");
    let (first, second) = (Person::new(), Person::new());
    lyon.fetch(&world, START);
    world.enrol(&lyon, &first, pay_and_roam(), START.after(DAY));
    let lost = world.registry().shard(&lyon.name, 1, START).unwrap().unwrap();
    world.enrol(&lyon, &second, pay_and_roam(), START.after(DAY));
    let again = world.registry().shard(&lyon.name, 1, START).unwrap().unwrap();
    assert!(lost == again);
    world.erase(&lyon, &first, START);
    assert!(lyon.fetch(&world, START));
    assert!(!lyon.has(first.member) && lyon.has(second.member));
    assert_eq!(lyon.held.unwrap().0, 3, "a whole shard with a version of its own");
    let state = world.registry().erasure(&lyon.name, &erasure_of(&first).commitment).unwrap();
    assert_eq!(state.outstanding, [lyon.name.clone()], "applied, but not said so yet");
    world.registry().applied(&lyon.name, 3).unwrap();
    let state = world.registry().erasure(&lyon.name, &erasure_of(&first).commitment).unwrap();
    assert!(state.outstanding.is_empty());
}

fn only_the_last_version_can_be_confirmed(world: World) {
    let mut lyon = world.store("lyon");
    assert!(matches!(world.registry().applied(&lyon.name, 1), Err(Problem::Conflict)));
    lyon.fetch(&world, START);
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    lyon.fetch(&world, START);
    world.erase(&lyon, &person, START);
    assert!(matches!(world.registry().applied(&lyon.name, 3), Err(Problem::Conflict)));
    world.registry().applied(&lyon.name, 1).unwrap();
    world.registry().applied(&lyon.name, 2).unwrap();
    let state = world.erase(&lyon, &person, START);
    assert_eq!(state.outstanding, [lyon.name.clone()], "version 2 is older than the removal");
}

fn a_store_that_lost_its_shard_gets_a_whole_one(world: World) {
    let mut lyon = world.store("lyon");
    let people: Vec<_> = (0..600).map(|_| Person::new()).collect();
    for person in &people {
        world.enrol(&lyon, person, pay_and_roam(), START.after(DAY));
    }
    lyon.fetch(&world, START);
    lyon.held = None;
    lyon.members.clear();
    assert!(lyon.fetch(&world, START));
    assert!(people.iter().all(|person| lyon.has(person.member)));
    lyon.held = Some((7, [0; 32]));
    let whole = world.registry().shard(&lyon.name, 7, START).unwrap().unwrap();
    lyon.held = None;
    lyon.apply(&world, &whole);
    let shard: Shard = decode(&whole).unwrap();
    assert_eq!(shard.chunks.len(), 3);
}

fn a_replaced_box_begins_with_a_whole_shard_and_its_own_keys(world: World) {
    let mut lyon = world.store("lyon");
    let person = Person::new();
    world.enrol(&lyon, &person, pay_and_roam(), START.after(DAY));
    lyon.fetch(&world, START);
    let key = OpeningKey::generate();
    let hello = Hello { seal_key: key.public().0, verify_key: [8; 32] };
    let refused = world.registry().hello(&lyon.name, &hello, 0);
    assert!(matches!(refused, Err(Problem::KeysChanged)));
    world.registry().hello(&lyon.name, &hello, 1).unwrap();
    let mut other = Gateway { key, held: None, members: BTreeSet::new(), name: lyon.name.clone() };
    other.fetch(&world, START);
    assert!(other.has(person.member));
    let old = Hello { seal_key: lyon.key.public().0, verify_key: [7; 32] };
    assert!(matches!(world.registry().hello(&lyon.name, &old, 1), Err(Problem::KeysChanged)));
}

fn no_shard_asked_for_after_an_erasure_has_the_person_however_busy_the_cloud_is(world: World) {
    let lyon = world.store("lyon");
    let people: Vec<_> = (0..200).map(|_| Person::new()).collect();
    for person in &people {
        world.enrol(&lyon, person, pay_and_roam(), START.after(DAY));
    }
    let erased = Mutex::new(BTreeSet::new());
    let fetch_whole = || {
        let mut other = World::copy(&lyon);
        loop {
            let before = erased.lock().unwrap().clone();
            other.held = None;
            assert!(other.fetch(&world, START));
            assert!(before.is_disjoint(&other.members));
            if before.len() == people.len() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let fetching = scope.spawn(fetch_whole);
        for person in &people {
            world.erase(&lyon, person, START);
            erased.lock().unwrap().insert(*person.member.as_bytes());
        }
        fetching.join().unwrap();
    });
}

fn a_full_shard_gives_up_visitors_first_and_who_came_first(mut world: World) {
    // Three strangers in a hundred may find somebody, at one false match in a hundred.
    world.configure("[shards]\nfpir = 0.03\nfmr = 0.01\n");
    let (mut lyon, paris) = (world.store("lyon"), world.store("paris"));
    let of_lyon = [roams(&world, &lyon), roams(&world, &lyon)];
    let visitors = [roams(&world, &paris), roams(&world, &paris)];
    let shard = |lyon: &mut Gateway| {
        lyon.fetch(&world, START);
        let people = of_lyon.iter().chain(&visitors);
        people.map(|person| lyon.has(person.member)).collect::<Vec<_>>()
    };
    assert!(world.is_found(&lyon, &visitors[0], START));
    assert_eq!(shard(&mut lyon), [true, true, true, false], "full");
    assert!(world.is_found(&lyon, &visitors[1], START));
    assert_eq!(shard(&mut lyon), [true, true, false, true], "the visitor who came first leaves");
    assert!(world.is_found(&lyon, &visitors[0], START), "and is found by the claim");
    assert_eq!(shard(&mut lyon), [true, true, true, false]);
    let third = roams(&world, &lyon);
    assert_eq!(shard(&mut lyon), [true, true, false, false], "visitors before the house");
    let fourth = roams(&world, &lyon);
    assert_eq!(shard(&mut lyon), [false, true, false, false], "then who came first");
    assert!(lyon.has(third.member) && lyon.has(fourth.member));
    assert_eq!(lyon.members.len(), 3);
    assert!(world.is_found(&lyon, &of_lyon[0], START), "nobody is forgotten");
    world.reopen(START);
    lyon.held = None;
    lyon.fetch(&world, START);
    assert_eq!(lyon.members.len(), 3, "and the budget holds after a new start");
}

fn a_visit_ends_and_begins_anew(mut world: World) {
    world.configure("[shards]\nvisit_days = 10\n");
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = roams(&world, &lyon);
    assert!(world.is_found(&paris, &person, START));
    for restarted in [false, true] {
        if restarted {
            world.reopen(START.after(9 * DAY));
        }
        paris.fetch(&world, START.after(9 * DAY));
        assert!(paris.has(person.member), "restarted: {restarted}");
    }
    let over = START.after(10 * DAY);
    paris.fetch(&world, over);
    lyon.fetch(&world, over);
    assert!(!paris.has(person.member), "after ten days");
    assert!(lyon.has(person.member), "home is not visited");
    assert!(world.is_found(&paris, &person, over), "the claim is shown again");
    paris.fetch(&world, over);
    assert!(paris.has(person.member));
    paris.fetch(&world, START.after(19 * DAY));
    assert!(paris.has(person.member), "the days count from there");
    paris.fetch(&world, START.after(20 * DAY));
    assert!(!paris.has(person.member));
}

fn a_removal_that_no_store_confirms_is_an_alarm_after_a_day(world: World) {
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = roams(&world, &lyon);
    assert!(world.is_found(&paris, &person, START));
    lyon.fetch(&world, START);
    paris.fetch(&world, START);
    world.erase(&lyon, &person, START);
    let counts = |now| {
        let counts = world.registry().counts(now).unwrap();
        (counts.unconfirmed_removals, counts.overdue_removals)
    };
    assert_eq!(counts(START.after(23 * HOUR)), (2, 0));
    assert_eq!(counts(START.after(25 * HOUR)), (2, 2));
    for (store, left) in [(&mut lyon, 1), (&mut paris, 0)] {
        store.fetch(&world, START.after(26 * HOUR));
        assert_eq!(counts(START.after(26 * HOUR)), (left + 1, left + 1), "fetched, not in force");
        world.registry().applied(&store.name, store.held.unwrap().0).unwrap();
        assert_eq!(counts(START.after(26 * HOUR)), (left, left));
    }
}

fn a_store_that_was_away_for_weeks_learns_who_was_forgotten_and_has_none_of_them(world: World) {
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let people: Vec<Person> = (0..30).map(|_| roams(&world, &lyon)).collect();
    for person in &people {
        assert!(world.is_found(&paris, person, START));
    }
    paris.fetch(&world, START);
    // The store is cut off with all of them, and its lease ends.
    let back = START.after(40 * DAY);
    for (number, person) in people.iter().enumerate().take(20) {
        let now = START.after(DAY * u32::try_from(number).unwrap());
        world.erase(&lyon, person, now);
        lyon.fetch(&world, now);
    }
    let hasher = |key: &[u8; 32]| palmgate_seal::hidden_id::IdHasher::new(key);
    let told = world.registry().tombstones(0).unwrap();
    let hashes: BTreeSet<[u8; 32]> = told.hashes.iter().map(|hash| **hash).collect();
    for (number, person) in people.iter().enumerate() {
        let (member, claim) =
            (hasher(&told.key).member(&person.member), hasher(&told.key).claim(&person.claim));
        assert_eq!(hashes.contains(&member), number < 20);
        assert_eq!(hashes.contains(&claim), number < 20);
    }
    assert!(world.registry().counts(back).unwrap().overdue_removals > 0);
    assert!(paris.fetch(&world, back), "one difference over all that time");
    assert!(people[..20].iter().all(|person| !paris.has(person.member)));
    assert!(people[20..].iter().all(|person| !paris.has(person.member)), "their visits ended");
    world.registry().applied(&paris.name, paris.held.unwrap().0).unwrap();
    lyon.fetch(&world, back);
    world.registry().applied(&lyon.name, lyon.held.unwrap().0).unwrap();
    assert_eq!(world.registry().counts(back).unwrap().unconfirmed_removals, 0);
    for person in &people[..20] {
        let commitment = erasure_of(person).commitment;
        let state = world.registry().erasure(&lyon.name, &commitment).unwrap();
        assert!(state.outstanding.is_empty());
    }
}

fn who_takes_their_record_out_of_the_clouds_sight_leaves_every_shard(world: World) {
    let (mut lyon, mut paris) = (world.store("lyon"), world.store("paris"));
    let person = roams(&world, &lyon);
    assert!(world.is_found(&paris, &person, START));
    lyon.fetch(&world, START);
    paris.fetch(&world, START);
    assert!(lyon.has(person.member) && paris.has(person.member));
    let split = person.split(pay_and_roam(), START.after(300 * DAY));
    world.registry().register(&lyon.name, &split, START).unwrap();
    lyon.fetch(&world, START);
    paris.fetch(&world, START);
    assert!(!lyon.has(person.member) && !paris.has(person.member));
    assert!(!world.is_found(&paris, &person, START));
    let counts = world.registry().counts(START).unwrap();
    assert_eq!(counts.members.map(|(_, count)| count), [0, 1]);
}

fn random_histories_agree_with_a_model(mut world: World) {
    let mut stores = [world.store("lyon"), world.store("paris"), world.store("lille")];
    let mut people: Vec<(Person, usize, BTreeSet<usize>)> = Vec::new();
    let mut forgotten: Vec<Person> = Vec::new();
    for _ in 0..400 {
        let [act, one, other, _] = palmgate_seal::random::bytes::<4>();
        let store = usize::from(one) % stores.len();
        let chosen = (!people.is_empty()).then(|| usize::from(other) % people.len().max(1));
        match (act % 8, chosen) {
            (0 | 1, _) => {
                let person = Person::new();
                world.enrol(&stores[store], &person, pay_and_roam(), START.after(DAY));
                people.push((person, store, BTreeSet::from([store])));
            }
            (2 | 3, Some(chosen)) => {
                let (person, _, holders) = &mut people[chosen];
                assert!(world.is_found(&stores[store], person, START));
                holders.insert(store);
            }
            (4, Some(chosen)) => {
                let (person, _, _) = people.swap_remove(chosen);
                world.erase(&stores[store], &person, START);
                forgotten.push(person);
            }
            (5, _) => world.reopen(START),
            _ => {
                stores[store].fetch(&world, START);
            }
        }
        for person in &forgotten {
            assert!(!world.is_found(&stores[store], person, START));
        }
    }
    for (index, store) in stores.iter_mut().enumerate() {
        store.fetch(&world, START);
        let held = people.iter().filter(|(_, _, holders)| holders.contains(&index));
        let expected: BTreeSet<_> = held.map(|(person, ..)| *person.member.as_bytes()).collect();
        assert_eq!(store.members, expected);
        world.registry().applied(&store.name, store.held.unwrap().0).unwrap();
    }
    assert_eq!(world.registry().counts(START).unwrap().unconfirmed_removals, 0);
}
