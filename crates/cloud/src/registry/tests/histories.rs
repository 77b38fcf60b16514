//! What stays over a restart, and what random histories leave.

use super::*;

registries! {
    everything_is_there_after_opening_again,
    random_histories_agree_with_a_model,
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
