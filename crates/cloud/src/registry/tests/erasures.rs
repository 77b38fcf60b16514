//! Who is forgotten, and when that may be said.

use super::*;

registries! {
    who_expires_is_forgotten_without_anybody_asking,
    a_removal_that_no_store_confirms_is_an_alarm_after_a_day,
    a_store_that_was_away_for_weeks_learns_who_was_forgotten_and_has_none_of_them,
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
