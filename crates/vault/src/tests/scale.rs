//! The times that the documentation promises, printed: a busy machine must not fail them.

use std::time::{Duration, Instant};

use super::*;

/// Prints the time on the clock and the time of this thread on a processor.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), on_processor());
    let result = work();
    let (time, work) = (start.elapsed(), on_processor().saturating_sub(before));
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    eprintln!("{what}: {:.1} ms, of which {:.1} ms are work", millis(time), millis(work));
    result
}

fn on_processor() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn ten_thousand_people_are_imported_in_seconds() {
    let machine = Machine::on_disk();
    let vault = machine.open();
    let people: Vec<_> = (0..10_000).map(person).collect();
    timed("insert 10,000 people, 3 columns of 1 KiB", || vault.insert(people)).unwrap();
    timed("insert one more", || vault.insert(vec![person(10_001)])).unwrap();
    timed("erase one of 10,000", || vault.erase(&[request(5)])).unwrap();
    let many: Vec<_> = (100..600).map(request).collect();
    timed("erase 500 of 10,000 at once", || vault.erase(&many)).unwrap();
    timed("write one column", || vault.write(&member(7), Column::History, &[1; 2_000])).unwrap();
    let newer = |number| (member(number), TEMPLATE, Secret::new(value(number, TEMPLATE)));
    let newer: Vec<_> = (1_000..6_000).map(newer).collect();
    timed("write 5,000 columns at once", || vault.write_many(newer)).unwrap();
    drop(vault);
    let vault = timed("open after a clean stop", || machine.open());
    let killed = machine.copy();
    let after_kill = timed("open after a kill", || killed.open());
    assert!(is_whole(&vault, 9_999) && is_whole(&after_kill, 9_999));
    assert!(is_gone(&vault, 5) && is_gone(&after_kill, 333));
}

#[test]
fn one_of_a_hundred_thousand_people_is_erased_at_once() {
    let machine = Machine::on_disk();
    let vault = machine.open();
    let newcomer = |number| {
        let columns = vec![(Column::Profile, Secret::new(vec![7; 64]))];
        NewPerson { member: member(number), claim: claim(number), columns }
    };
    timed("insert 100,000 people, 1 column of 64 bytes", || {
        vault.insert((0..100_000).map(newcomer).collect())
    })
    .unwrap();
    for number in 0..9 {
        timed("erase one of 100,000", || vault.erase(&[request(number)])).unwrap();
    }
    assert!(is_gone(&vault, 3) && vault.contains(&member(50_000)));
    drop(vault);
    let killed = machine.copy();
    timed("open 100,000 after a clean stop", || machine.open());
    fs::remove_file(killed.data().join("tidy")).unwrap();
    timed("open 100,000 after a kill", || killed.open());
}

#[test]
fn a_session_is_durable_in_one_sync() {
    let machine = Machine::on_disk();
    let vault = machine.open();
    vault.put_terminal_state(&name("till-1"), b"first").unwrap();
    let (mut slots, mut records) = (Vec::new(), Vec::new());
    for round in 0..100u8 {
        let state = vec![round; 10_000];
        let start = Instant::now();
        vault.put_terminal_state(&name("till-1"), &state).unwrap();
        slots.push(start.elapsed());
        let start = Instant::now();
        vault.put_state("session", &state).unwrap();
        records.push(start.elapsed());
    }
    let (slots, records) = (median(slots), median(records));
    eprintln!("10 KB of state, median: slots {slots:?}, record store {records:?}");
    assert!(vault.terminal_state(&name("till-1")).unwrap().unwrap().expose()[0] == 99);
}

#[test]
fn an_erasure_does_not_wait_for_a_full_outbox() {
    let machine = Machine::on_disk();
    let vault = machine.open();
    vault.insert(vec![person(1)]).unwrap();
    vault.inspect(|inner| {
        inner.outbox_entries = crate::MAX_OUTBOX_ENTRIES;
        let outbox = inner.outbox();
        for number in 0..crate::MAX_OUTBOX_ENTRIES as u64 {
            outbox.put(&crate::store::number(number), &[9; 300]).unwrap();
        }
    });
    timed("erase with 100,000 letters waiting", || vault.erase(&[request(1)])).unwrap();
    assert!(is_gone(&vault, 1));
    assert_eq!(vault.outbox_peek(1).unwrap()[0].1.expose(), &[9; 300]);
}
