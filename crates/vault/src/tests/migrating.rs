//! A vault of the first format, taken over, and brought back; the power cut anywhere on the way.

use super::{
    first::First,
    fuse::{Fuse, Weather},
    powercut::closed,
    *,
};
use crate::keys::Seed;

/// A box as the first format left it, with an erasure that the ledger has not been told of.
pub(crate) fn first_format(machine: &Machine) {
    furnish(machine);
    let vault = machine.open();
    vault.insert(vec![person(7)]).unwrap();
    vault.erase(&[request(7)]).unwrap();
    vault.inspect(|inner| inner.take_back().unwrap());
    drop(vault);
    closed(machine);
    assert!(!machine.data().join("keys/table").exists());
}

/// Whether everything of `first_format` is there.
pub(crate) fn is_migrated(vault: &Vault) -> bool {
    [1, 2, 3].iter().all(|number| is_whole(vault, *number))
        && is_furnished(vault)
        && is_gone(vault, 7)
        && vault.unfinished_erasures() == [commitment(7)]
}

#[test]
fn a_vault_of_the_first_format_is_taken_over_once() {
    let machine = Machine::new();
    first_format(&machine);
    let rows = |vault: &Vault| {
        vault.inspect(|inner| inner.records.keys(crate::records::Shelf::People, b"").count())
    };
    for start in 0..2 {
        let vault = machine.open();
        assert!(is_migrated(&vault), "start {start}");
        assert_eq!(rows(&vault), 9, "the rows at their old places are gone");
    }
    let names: Vec<_> =
        files(&machine.data().join("keys")).into_iter().map(|(path, _)| path).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let vault = machine.open();
    vault.erase(&[request(1)]).unwrap();
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2));
}

#[test]
fn a_half_migrated_vault_is_not_for_an_older_program() {
    let machine = Machine::new();
    first_format(&machine);
    drop(machine.open());
    let format = fs::read_to_string(machine.data().join("format")).unwrap();
    assert!(format.starts_with("palmgate vault 2\n"), "{format}");
    fs::write(machine.data().join("format"), format.replace('2', "3")).unwrap();
    let refused = machine.try_open().err().unwrap();
    assert!(matches!(refused, VaultError::NewerFormat { found: 3, known: 2, .. }));
}

#[test]
fn a_damaged_table_of_the_first_format_is_not_taken_over() {
    let machine = Machine::new();
    first_format(&machine);
    let table = machine.data().join("keys/2");
    let whole = fs::read(&table).unwrap();
    for at in (0..whole.len()).step_by(11) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&table, changed).unwrap();
        assert!(machine.try_open().is_err(), "byte {at}");
    }
    fs::write(&table, whole).unwrap();
    assert!(is_migrated(&machine.open()));
}

#[test]
fn a_root_file_of_the_first_format_is_taken_over_at_the_first_erasure() {
    let machine = furnished();
    let whole = fs::read(machine.root()).unwrap();
    let record = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(machine.root(), &whole[..record]).unwrap();
    let vault = machine.open();
    assert!(is_furnished(&vault));
    vault.erase(&[request(1)]).unwrap();
    drop(vault);
    assert_eq!(fs::metadata(machine.root()).unwrap().len(), 8192);
    let vault = machine.open();
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2));
}

/// A box that a newer program has taken over and worked with: somebody came, somebody was erased,
/// something was withdrawn and something replaced.
pub(crate) fn taken_over(machine: &Machine) {
    first_format(machine);
    let vault = machine.open();
    vault.insert(vec![person(4)]).unwrap();
    vault.write(&member(3), TEMPLATE, b"newer").unwrap();
    vault.forget_columns(&[(member(2), vec![TEMPLATE])]).unwrap();
    vault.erase(&[request(1)]).unwrap();
    vault.finish_erasure(&commitment(7)).unwrap();
    drop(vault);
    closed(machine);
}

/// Whether everything that `taken_over` did is in force.
pub(crate) fn is_as_worked_with(vault: &Vault) -> bool {
    is_gone(vault, 1)
        && is_gone(vault, 7)
        && is_whole(vault, 4)
        && read(vault, 2, TEMPLATE).is_none()
        && read(vault, 2, Column::Profile) == Some(value(2, Column::Profile))
        && read(vault, 3, TEMPLATE).as_deref() == Some(b"newer")
        && vault.members().len() == 3
        && is_furnished(vault)
        && vault.unfinished_erasures() == [commitment(1)]
}

/// The same, for a program of the first format.
fn is_as_worked_with_before(first: &First) -> bool {
    first.is_gone(1)
        && first.is_gone(7)
        && first.is_whole(4)
        && first.value(2, TEMPLATE).is_none()
        && first.value(2, Column::Profile) == Some(value(2, Column::Profile))
        && first.value(3, TEMPLATE).as_deref() == Some(b"newer")
        && first.people.len() == 3
        && first.is_furnished()
        && first.begun == [commitment(1)]
}

#[test]
fn a_vault_goes_back_with_all_that_came_since_and_nobody_who_went() {
    let machine = Machine::new();
    taken_over(&machine);
    let rolled_back = machine.open().roll_back().unwrap();
    assert_eq!(rolled_back, crate::RolledBack { format: 1, releases: 0 });
    closed(&machine);
    let first = First::open(&machine);
    assert!(is_as_worked_with_before(&first));
    let table = first.generation.to_string();
    assert_eq!(first.key_files(), [table.as_str(), "erasures", "tombstones"]);
    assert_eq!(Vault::way_back_in(&machine.data()).unwrap(), None, "the mark went along");
    drop(first);
    closed(&machine);

    // Forward again, back again, and forward for good.
    let vault = machine.open();
    assert!(is_as_worked_with(&vault));
    vault.erase(&[request(4)]).unwrap();
    vault.roll_back().unwrap();
    closed(&machine);
    let first = First::open(&machine);
    assert!(first.is_gone(4) && first.is_gone(1) && !first.is_whole(3) && first.people.len() == 2);
    drop(first);
    closed(&machine);
    let vault = machine.open();
    assert!(vault.commit_format().unwrap() && !vault.commit_format().unwrap());
    let refused = vault.roll_back().unwrap_err();
    assert!(matches!(refused, VaultError::NoWayBack { format: 2, .. }));
    assert!(refused.to_string().contains("was committed"), "{refused}");
    closed(&machine);
    assert!(is_gone(&machine.open(), 4) && is_furnished(&machine.open()));
}

#[test]
fn only_a_migration_that_is_not_committed_has_a_way_back() {
    let machine = Machine::new();
    first_format(&machine);
    assert_eq!(Vault::way_back_in(&machine.data()).unwrap(), None);
    assert_eq!(Vault::format_in(&machine.data()).unwrap(), Some(1));
    drop(machine.open());
    let since = Vault::way_back_in(&machine.data()).unwrap().unwrap();
    assert_eq!(since.format, 1);
    drop(machine.open());
    assert_eq!(
        Vault::way_back_in(&machine.data()).unwrap(),
        Some(since),
        "it counts from the first"
    );
    machine.open().commit_format().unwrap();
    assert_eq!(Vault::way_back_in(&machine.data()).unwrap(), None);
    let refused = furnished().open().roll_back().unwrap_err();
    assert!(matches!(refused, VaultError::NoWayBack { .. }), "it began in this format");
}

#[test]
fn what_was_kept_from_before_opens_nobody_who_was_erased_since() {
    let machine = Machine::new();
    first_format(&machine);
    let before = machine.copy();
    let disk = Disk { rows: Some(std::sync::Arc::default()), ..Disk::default() };
    let vault = machine.open_on(&disk).unwrap();
    vault.erase(&[request(1)]).unwrap();
    vault.roll_back().unwrap();
    closed(&machine);
    // The rows of before, sealed, are still about: in sled's log and in whatever was copied.
    let old_table = |machine: &Machine| {
        let names = files(&machine.data().join("keys"));
        names.into_iter().find(|(path, _)| path.file_name().unwrap() == "2").unwrap()
    };
    let rows = disk.rows.unwrap().lock().unwrap().clone();
    let first = First::open(&machine);
    assert_eq!((first.generation, first.people.len()), (3, 2));
    let opens = |seed: &Seed, number: u64, sealed: &[u8]| {
        let aad = TEMPLATE.aad(&tenant(), &member(number));
        seed.sealing().open(&aad, sealed).is_ok()
    };
    for number in [1, 2] {
        let of = |(_, seed): &(u16, Seed)| rows.iter().any(|(_, row)| opens(seed, number, row));
        assert_eq!(first.people.values().any(of), number == 2, "person {number}");
    }
    drop(first);
    closed(&machine);
    let (path, table) = old_table(&before);
    fs::write(machine.data().join("keys").join(path.file_name().unwrap()), table).unwrap();
    let vault = machine.open();
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2), "the root is of after the erasure");
}

#[test]
fn a_sealed_root_goes_back_as_well() {
    let machine = furnished();
    let plain = FileRoot::new(machine.root()).load().unwrap().unwrap();
    fs::remove_file(machine.root()).unwrap();
    let credential = Secret::new(vec![7; 32]);
    let keeper = || FileRoot::sealed(machine.root(), &credential).unwrap();
    keeper().replace(&plain).unwrap();
    assert_eq!(fs::metadata(machine.root()).unwrap().len(), 8192);
    let mut sealed = keeper();
    sealed.step_back().unwrap();
    assert_eq!(fs::metadata(machine.root()).unwrap().len(), 16 + 12 + 40 + 16 + 8);
    sealed.step_back().unwrap();
    assert_eq!(keeper().load().unwrap().unwrap().generation(), plain.generation());
    let vault = machine.open_with(keeper()).unwrap();
    vault.erase(&[request(1)]).unwrap();
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2));
}

/// Does something to copies of a box with the power cut at each step in turn.
fn cut_at_every_step(
    base: &Machine,
    least: usize,
    act: impl Fn(&Machine, &Disk) -> Result<(), VaultError>,
    check: impl Fn(&Machine, bool, &str),
) {
    for weather in Weather::ALL {
        for nth in 0.. {
            let machine = base.copy();
            let disk = Fuse::disk(weather);
            let fuse = disk.fuse.clone().unwrap();
            fuse.cut_after(nth);
            let done = act(&machine, &disk).is_ok();
            let cut = fuse.is_cut();
            let crashed = machine.copy();
            check(&crashed, done, &format!("{weather:?}, step {nth}"));
            if !cut {
                assert!(done && nth >= least, "{weather:?}: only {nth} steps were cut");
                break;
            }
        }
    }
}

#[test]
fn a_migration_cut_off_anywhere_begins_again() {
    let base = Machine::new();
    first_format(&base);
    let open = |machine: &Machine, disk: &Disk| machine.open_on(disk).map(drop);
    cut_at_every_step(&base, 15, open, |crashed, _, place| {
        // The older program takes it whole, or not at all.
        if First::is_offered(crashed) {
            let first = First::open(crashed);
            assert!([1, 2, 3].iter().all(|number| first.is_whole(*number)), "{place}");
            drop(first);
            closed(crashed);
        }
        assert!(is_migrated(&crashed.open()), "{place}");
        assert!(Vault::way_back_in(&crashed.data()).unwrap().is_some(), "{place}");
    });
}

#[test]
fn a_way_back_cut_off_anywhere_leaves_one_whole_format() {
    let base = Machine::new();
    taken_over(&base);
    let back = |machine: &Machine, disk: &Disk| machine.open_on(disk)?.roll_back().map(drop);
    cut_at_every_step(&base, 25, back, |crashed, done, place| {
        let offered = First::is_offered(crashed);
        assert!(offered || !done, "{place}");
        if offered {
            let first = First::open(crashed);
            assert!(is_as_worked_with_before(&first), "{place}");
            drop(first);
            closed(crashed);
        }
        let again = crashed.copy();
        assert!(is_as_worked_with(&crashed.open()), "{place}");
        let vault = again.open();
        assert!(is_as_worked_with(&vault), "{place}");
        vault.roll_back().unwrap();
        closed(&again);
        assert!(is_as_worked_with_before(&First::open(&again)), "a second time: {place}");
    });
}
