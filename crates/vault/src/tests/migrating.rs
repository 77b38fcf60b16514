//! A vault of the first format, taken over; the power cut anywhere on the way.

use super::{powercut::closed, *};
use crate::migration::first::take_back;

/// A box as the first format left it, with an erasure that the ledger has not been told of.
pub(crate) fn first_format(machine: &Machine) {
    furnish(machine);
    let vault = machine.open();
    vault.insert(vec![person(7)]).unwrap();
    vault.erase(&[request(7)]).unwrap();
    vault.inspect(|inner| take_back(inner));
    // The last writes of this vault would be in the new format.
    vault.inspect(|inner| inner.stopped = true);
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
