//! What somebody can read who has the database, all of its past, and the keys that still exist.

use super::*;
use crate::provision::{self, Founding};
use crate::registry::erasure::ErasureRow;
use crate::shared::cluster::Cluster;
use crate::shared::people::{Person, purposes};
use palmgate_protocol::{
    DAY, MemberId, Purpose,
    cloud::{MemberRecord, Registration},
    decode,
};
use palmgate_seal::aead;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

struct World {
    _directory: tempfile::TempDir,
    layout: Layout,
    registry: Arc<Postgres>,
    lyon: Name,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::shared();
        let directory = tempfile::tempdir().unwrap();
        let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
        let random = u32::from_be_bytes(palmgate_seal::random::bytes());
        let tenant = format!("seen-{random}").parse().unwrap();
        let url = cluster.url("postgres");
        let database = provision::Database { url: &url, password_file: None, ca: None };
        let founding =
            Founding { accept_operator: true, database: Some(database), ..Founding::new(&tenant) };
        provision::init(&state, &founding, START).unwrap();
        while provision::migrate(&state, &cluster.admin_url("postgres"), None).is_err() {}
        let lyon: Name = "lyon".parse().unwrap();
        provision::add_store(&state, &lyon, &bundle, None, START).unwrap();
        let layout = Layout::new(&state);
        let settings = layout.settings().unwrap();
        let registry = Postgres::open(&layout, &settings.database.unwrap(), None).unwrap();
        let hello = Hello { seal_key: key().public().0, verify_key: [7; 32] };
        Registry::hello(&*registry, &lyon, &hello, 0).unwrap();
        Self { _directory: directory, layout, registry, lyon }
    }

    fn enrol(&self, registration: &Registration) {
        self.registry.register(&self.lyon, registration, START).unwrap();
    }

    fn operator(&self, person: &Person) -> Registration {
        let (tenant, matcher) = (self.registry.name(), self.layout.matcher().unwrap().public());
        let all = purposes([Purpose::Pay, Purpose::Roaming]);
        person.operator(tenant, &matcher, all, START, START.after(DAY))
    }

    fn seen(&self) -> Seen {
        let rows = |sql: &str| {
            self.registry
                .database
                .run(|tx| {
                    let rows = tx.query(sql, &[&self.registry.tenant()])?;
                    Ok(rows.iter().map(|row| row.get(0)).collect())
                })
                .unwrap()
        };
        let keys = self
            .registry
            .database
            .run(|tx| {
                Ok(tx
                    .query(
                        "SELECT member_hash, key_group, sealed FROM person_key WHERE tenant = $1",
                        &[&self.registry.tenant()],
                    )?
                    .iter()
                    .map(|row| (row.get(0), row.get(1), row.get(2)))
                    .collect())
            })
            .unwrap();
        let generations = self
            .registry
            .database
            .run(|tx| {
                let sql = "SELECT generation FROM key_table WHERE tenant = $1";
                let rows = tx.query(sql, &[&self.registry.tenant()])?;
                Ok(rows.iter().map(|row| row.get(0)).collect())
            })
            .unwrap();
        Seen {
            tables: rows("SELECT sealed FROM key_table WHERE tenant = $1"),
            generations,
            keys,
            records: rows(
                "SELECT sealed FROM record WHERE tenant = $1 UNION ALL \
                 SELECT sealed FROM embedding WHERE tenant = $1 UNION ALL \
                 SELECT sealed FROM member WHERE tenant = $1",
            ),
            embeddings: rows("SELECT sealed FROM embedding WHERE tenant = $1"),
        }
    }
}

fn key() -> palmgate_seal::envelope::OpeningKey {
    palmgate_seal::envelope::OpeningKey::generate()
}

/// What a thief copied from the database at some moment.
#[derive(Clone)]
struct Seen {
    tables: Vec<Vec<u8>>,
    generations: Vec<i64>,
    keys: Vec<(Vec<u8>, i32, Vec<u8>)>,
    records: Vec<Vec<u8>>,
    embeddings: Vec<Vec<u8>>,
}

/// Opens everything that any key in `roots` leads to; the plaintexts of rows.
fn solve(world: &World, seen: &Seen) -> Vec<Vec<u8>> {
    let (registry, partition) = (&world.registry, "main".parse().unwrap());
    let roots = Roots::new(&world.layout.roots());
    let mut opened = Vec::new();
    let mut keys: Vec<aead::Key> = Vec::new();
    for (table, at) in seen.tables.iter().zip(&seen.generations) {
        // Any root that still exists, at whatever generation.
        for generation in 0..=(at + 8) {
            let Ok(Some(root)) = roots.read(&partition, generation.cast_unsigned()) else {
                continue;
            };
            let ring = registry.keyrings.opened_by(&root, &partition, *at, table);
            let Some(ring) = ring else { continue };
            for (member, group, sealed) in &seen.keys {
                keys.extend(registry.keyrings.open(&ring, member, *group, sealed).ok());
            }
        }
    }
    let hashes: Vec<&Vec<u8>> = seen.keys.iter().map(|(member, ..)| member).collect();
    for record in &seen.records {
        for (key, hash) in keys.iter().flat_map(|key| hashes.iter().map(move |hash| (key, hash))) {
            for column in [rows::Column::Record, rows::Column::Member, rows::Column::Embedding] {
                let plain = column.open_quietly(registry.name(), key, hash, record);
                opened.extend(plain.map(|plain| plain.expose().clone()));
            }
        }
    }
    opened
}

fn templates(plain: &[Vec<u8>]) -> usize {
    let records = plain.iter().filter_map(|bytes| decode::<MemberRecord>(bytes).ok());
    records.map(|record| record.templates.len()).sum()
}

#[test]
fn the_whole_database_and_all_keys_give_no_template_of_a_split_tenant_and_nothing_to_search() {
    let world = World::new();
    let people: Vec<Person> = (0..20).map(|_| Person::new()).collect();
    for person in &people {
        let all = purposes([Purpose::Pay, Purpose::Roaming]);
        world.enrol(&person.split(all, START.after(DAY)));
    }
    let seen = world.seen();
    let plain = solve(&world, &seen);
    assert!(plain.len() >= 2 * people.len(), "the outer seals open: {}", plain.len());
    assert_eq!(templates(&plain), 0);
    assert!(seen.embeddings.is_empty(), "there is nothing to search in");
    // What is inside is under the key in the person's token; the cloud's keys do not open it.
    let matcher = world.layout.matcher().unwrap();
    for blob in &plain {
        let opened = palmgate_seal::envelope::open(
            &matcher,
            palmgate_seal::envelope::Label::Registration,
            world.registry.name(),
            b"",
            blob,
        );
        assert!(opened.is_err());
        assert!(world.registry.fixed.state().open(b"", blob).is_err());
    }
    let control = Person::new();
    world.enrol(&world.operator(&control));
    assert_eq!(templates(&solve(&world, &world.seen())), 1, "the solver finds what is there");
}

#[test]
fn a_copy_of_the_database_from_before_an_erasure_opens_nothing_of_who_was_erased() {
    let world = World::new();
    let (stays, goes) = (Person::new(), Person::new());
    for person in [&stays, &goes] {
        world.enrol(&world.operator(person));
    }
    let before = world.seen();
    assert_eq!(templates(&solve(&world, &before)), 2, "before");
    let erasure = Erasure { member: goes.member, claim: goes.claim, commitment: [9; 32] };
    world.registry.erase(&world.lyon, &erasure, START).unwrap();
    assert_eq!(templates(&solve(&world, &before)), 0, "the copy");
    let after = world.seen();
    let records: Vec<MemberRecord> =
        solve(&world, &after).iter().filter_map(|bytes| decode(bytes).ok()).collect();
    let members: Vec<MemberId> = records.iter().map(|record| record.member).collect();
    assert!(members == [stays.member], "now");
    // Today's keys with yesterday's records, and the other way round.
    let mixed = Seen { records: before.records, ..after };
    let records: Vec<MemberRecord> =
        solve(&world, &mixed).iter().filter_map(|bytes| decode(bytes).ok()).collect();
    assert!(records.iter().all(|record| record.member == stays.member));
}

#[test]
fn a_rotation_cut_off_at_any_step_is_finished_and_loses_nobody() {
    let world = World::new();
    let (stays, goes) = (Person::new(), Person::new());
    for person in [&stays, &goes] {
        world.enrol(&world.operator(person));
    }
    let partition: Name = "main".parse().unwrap();
    let registry = &world.registry;
    let before = world.seen();
    // The new root is durable, the transaction is not.
    let cut: Result<(), Problem> = registry.database.run(|tx| {
        registry.lock_partition(tx, &partition)?;
        let mut person =
            registry.person(tx, partition.clone(), registry.fixed.member(&goes.member), true)?;
        registry.forget(tx, person.as_mut().unwrap(), START)?;
        registry.keyrings.rotate(tx, &partition)?;
        Err(Problem::Busy.into())
    });
    assert!(cut.is_err());
    assert_eq!(templates(&solve(&world, &world.seen())), 2, "nothing happened");
    // The transaction is durable, the old root is not destroyed yet.
    let erasure = Erasure { member: goes.member, claim: goes.claim, commitment: [9; 32] };
    let row = ErasureRow::asked(&erasure, &world.lyon, &registry.fixed.tombstones);
    registry.database.run(|tx| registry.begin_erasure(tx, &erasure, &row, START)).unwrap();
    registry
        .database
        .run(|tx| {
            registry.lock_partition(tx, &partition)?;
            registry.keyrings.rotate(tx, &partition)
        })
        .unwrap();
    assert!(matches!(
        Registry::erasure(&**registry, &world.lyon, &[9; 32]),
        Err(Problem::NotFound)
    ));
    Registry::sweep(&**registry, START).unwrap();
    assert!(Registry::erasure(&**registry, &world.lyon, &[9; 32]).is_ok());
    assert_eq!(templates(&solve(&world, &before)), 0);
    assert_eq!(templates(&solve(&world, &world.seen())), 1);
}
