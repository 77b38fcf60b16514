//! What a store is given, and what it confirms.

use super::*;

registries! {
    a_lease_is_renewed_once_half_of_it_is_over,
    a_lost_answer_is_sent_again_byte_by_byte_unless_somebody_had_to_leave,
    only_the_last_version_can_be_confirmed,
    a_store_that_lost_its_shard_gets_a_whole_one,
    a_replaced_box_begins_with_a_whole_shard_and_its_own_keys,
    no_shard_asked_for_after_an_erasure_has_the_person_however_busy_the_cloud_is,
}

fn a_lease_is_renewed_once_half_of_it_is_over(world: World) {
    let mut lyon = world.store("lyon");
    assert!(lyon.fetch(&world, START));
    assert!(!lyon.fetch(&world, START.after(35 * HOUR)));
    assert!(lyon.fetch(&world, START.after(36 * HOUR)));
    assert_eq!(lyon.held.unwrap().0, 2);
    assert!(!lyon.fetch(&world, START.after(37 * HOUR)));
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
