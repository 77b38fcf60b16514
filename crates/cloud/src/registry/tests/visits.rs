//! Visitors of other stores.

use super::*;

registries! {
    who_stops_roaming_leaves_the_visited_stores_and_stays_at_home,
    a_roaming_consent_that_ends_ends_the_visit,
    a_full_shard_gives_up_visitors_first_and_who_came_first,
    a_visit_ends_and_begins_anew,
    who_takes_their_record_out_of_the_clouds_sight_leaves_every_shard,
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
