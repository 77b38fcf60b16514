//! What is missing, cut or changed is named, with a remedy; nothing is taken for a new box.

use std::ops::Range;

use super::*;
use crate::table::{TOP_BYTES, page_at};

fn refusal(machine: &Machine) -> String {
    machine.try_open().err().expect("it must not open").to_string()
}

#[test]
fn a_lost_root_is_not_taken_for_a_new_box() {
    let machine = furnished();
    fs::remove_file(machine.root()).unwrap();
    assert!(matches!(machine.try_open(), Err(VaultError::RootMissing { .. })));
    assert!(refusal(&machine).contains("root file holds no root"));
    fs::remove_file(machine.data().join("format")).unwrap();
    assert!(matches!(machine.try_open(), Err(VaultError::RootMissing { .. })));
}

#[test]
fn lost_data_is_not_taken_for_a_new_box() {
    let machine = furnished();
    for lost in ["keys/table", "records", "records/db", "format", "keys/tombstones"] {
        let copy = machine.copy();
        let vault = copy.open();
        vault.erase(&[request(3)]).unwrap();
        drop(vault);
        let path = copy.data().join(lost);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let refused = refusal(&copy);
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    }
    fs::remove_dir_all(machine.data()).unwrap();
    assert!(refusal(&machine).contains("remove the root from its keeper first"));
}

#[test]
fn the_root_of_another_box_is_refused() {
    let (machine, other) = (furnished(), furnished());
    fs::copy(other.root(), machine.root()).unwrap();
    assert!(matches!(machine.try_open(), Err(VaultError::WrongRoot { .. })));
}

#[test]
fn an_older_root_is_refused() {
    let machine = furnished();
    let old = fs::read(machine.root()).unwrap();
    machine.open().renew().unwrap();
    fs::write(machine.root(), old).unwrap();
    assert!(matches!(
        machine.try_open(),
        Err(VaultError::OtherGeneration { root: 1, table: 2, .. })
    ));
}

#[test]
fn another_tenant_and_a_newer_format_are_refused() {
    let machine = furnished();
    let keeper = FileRoot::new(machine.root());
    let other = Vault::open(&machine.data(), &name("paris"), Box::new(keeper)).err().unwrap();
    assert!(matches!(other, VaultError::OtherTenant { ref found, .. } if found == "lyon"));
    fs::write(machine.data().join("format"), "palmgate vault 3\ntenant lyon\nmore\n").unwrap();
    let refused = refusal(&machine);
    assert!(refused.contains("format 3") && refused.contains("install the newer"), "{refused}");
}

#[test]
fn a_root_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let machine = furnished();
    fs::set_permissions(machine.root(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refusal(&machine).contains("set its mode to 600"));
}

#[test]
fn a_root_under_a_credential_opens_with_that_credential_only() {
    use crate::{Promise, RootError};
    let machine = Machine::new();
    let credential = |byte| Secret::new(vec![byte; 32]);
    let sealed = |byte| FileRoot::sealed(machine.root(), &credential(byte)).unwrap();
    let vault = machine.open_with(sealed(1)).unwrap();
    assert_eq!(vault.keeper(), ("root file", Promise::OverwrittenSealed));
    assert!(!vault.keeper().1.is_strong());
    vault.insert(vec![person(1), person(2)]).unwrap();
    vault.erase(&[request(1)]).unwrap();
    let root = vault.inspect(|inner| *inner.root.seed.expose());
    drop(vault);
    let file = fs::read(machine.root()).unwrap();
    assert!(!file.windows(32).any(|window| window == root), "the root is on the disk");
    let vault = machine.open_with(sealed(1)).unwrap();
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2));
    drop(vault);
    let other = machine.open_with(sealed(2)).err().unwrap();
    assert!(other.to_string().contains("does not open under this credential"), "{other}");
    assert!(machine.try_open().is_err(), "nor without one");
    let short = FileRoot::sealed(machine.root(), &Secret::new(vec![1; 31])).err();
    assert!(matches!(short, Some(RootError::Credential { needed: 32 })));
}

/// Opens copies with one file changed; each must be refused with the file's name.
fn every_change_is_noticed(file: &str, changes: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let machine = furnished();
    let vault = machine.open();
    vault.erase(&[request(3)]).unwrap();
    drop(vault);
    let path = machine.all().join(file);
    let whole = fs::read(&path).unwrap();
    for (number, changed) in changes(&whole).into_iter().enumerate() {
        fs::write(&path, changed).unwrap();
        let refused = refusal(&machine);
        assert!(refused.contains(path.to_str().unwrap()), "change {number}: {refused}");
    }
    fs::write(&path, whole).unwrap();
    assert!(is_whole(&machine.open(), 1));
}

fn flipped(whole: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn each_length(whole: &[u8], step: usize) -> Vec<Vec<u8>> {
    (0..whole.len()).step_by(step).map(|length| whole[..length].to_vec()).collect()
}

#[test]
fn every_flipped_byte_and_cut_of_the_key_table_is_noticed() {
    // The top in force and the page in force; the rest of the file is free or padding.
    let in_force = |whole: &[u8]| -> Vec<Range<usize>> {
        let tops = [0, TOP_BYTES].into_iter().filter(|at| whole[*at..].starts_with(b"palmgate"));
        let top = tops.max_by_key(|at| whole[at + 16..at + 24].to_vec()).unwrap();
        let length = |at: usize| u32::from_be_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
        // Two insertions and an erasure: the page is back in the first slot.
        let page = page_at(0) as usize;
        vec![top..top + 36 + length(top + 32), page..page + 4 + length(page)]
    };
    every_change_is_noticed("data/keys/table", |whole| {
        let places = in_force(whole).into_iter().flatten().step_by(3);
        places.map(|at| flipped(whole, at * 8 + at % 8)).collect()
    });
    every_change_is_noticed("data/keys/table", |whole| {
        let places = in_force(whole).into_iter().flatten().step_by(29);
        places.map(|at| whole[..at].to_vec()).collect()
    });
}

#[test]
fn every_flipped_byte_and_cut_of_the_tombstones_is_noticed() {
    // One erasure was made; what stands behind its tombstone is room for more.
    every_change_is_noticed("data/keys/tombstones", |whole| {
        assert!(whole[..32] != [0; 32] && whole[32..].iter().all(|byte| *byte == 0));
        (0..32 * 8).step_by(3).map(|bit| flipped(whole, bit)).collect()
    });
    every_change_is_noticed("data/keys/tombstones", |whole| each_length(&whole[..32], 1));
}

#[test]
fn every_flipped_byte_and_cut_of_the_root_is_noticed() {
    // One erasure was made: the second place is in force, the first is empty.
    every_change_is_noticed("root", |whole| {
        (4096 * 8..4160 * 8).step_by(5).map(|bit| flipped(whole, bit)).collect()
    });
    every_change_is_noticed("root", |whole| each_length(whole, 41));
}

#[test]
fn a_changed_session_is_refused_and_the_terminal_joins_anew() {
    let machine = furnished();
    let path = machine.data().join("terminals/till-1");
    let mut contents = fs::read(&path).unwrap();
    let vault = machine.open();
    assert!(vault.terminal_state(&name("till-1")).unwrap().is_some());
    contents[30] ^= 1;
    fs::write(&path, &contents).unwrap();
    let refused = vault.terminal_state(&name("till-1")).err().unwrap().to_string();
    assert!(refused.contains("joins again"), "{refused}");
    drop(vault);
    let vault = machine.open();
    assert!(vault.terminal_state(&name("till-1")).unwrap().is_none());
    vault.renew().unwrap();
    vault.put_terminal_state(&name("till-1"), b"anew").unwrap();
    assert_eq!(vault.terminal_state(&name("till-1")).unwrap().unwrap().expose(), b"anew");
}

#[test]
fn a_row_that_vanished_is_damage_and_not_absence() {
    let machine = furnished();
    let vault = machine.open();
    vault.inspect(|inner| {
        inner.records.remove_all(crate::records::Shelf::People, b"", |_| true).unwrap();
    });
    assert!(matches!(vault.read(&member(1), TEMPLATE), Err(VaultError::Damaged { .. })));
    let many: Vec<_> = (1..=500).rev().map(member).collect();
    let all = vault.read_people(&many, |columns| columns.read(TEMPLATE));
    assert!(matches!(all, Err(VaultError::Damaged { .. })));
    assert!(read(&vault, 1, Column::Phone).is_none());
}

#[test]
fn a_damaged_column_keeps_nobody_from_withdrawing_another() {
    let machine = furnished();
    let vault = machine.open();
    vault.inspect(|inner| {
        inner.records.remove_all(crate::records::Shelf::People, b"", |_| true).unwrap();
    });
    vault.forget_columns(&[(member(1), vec![TEMPLATE])]).unwrap();
    assert!(read(&vault, 1, TEMPLATE).is_none());
    let profile = vault.read(&member(1), Column::Profile);
    assert!(matches!(profile, Err(VaultError::Damaged { .. })));
}

#[test]
fn a_row_moved_to_another_place_does_not_open() {
    use crate::{people::PersonCipher, records::Shelf};
    let for_another_purpose = Column::Template(Purpose::Loyalty, Hand::Left);
    let moves = [
        ((1, Column::Profile), (1, Column::CardToken)),
        ((1, Column::Profile), (2, Column::Profile)),
        ((1, TEMPLATE), (1, for_another_purpose)),
    ];
    let machine = furnished();
    let vault = machine.open();
    for (from, to) in moves {
        vault.inspect(|inner| {
            let tenant = tenant();
            let place = |(number, column)| {
                let member = member(number);
                let seed = &inner.table.people[&member].seed;
                PersonCipher::new(&tenant, &member, seed).place(column)
            };
            let row = inner.records.get(Shelf::People, &place(from)).unwrap().unwrap();
            inner.records.put(Shelf::People, &[(place(to), row.to_vec())]).unwrap();
        });
        assert!(matches!(vault.read(&member(to.0), to.1), Err(VaultError::Damaged { .. })));
    }
}

/// sled notices less than we do: the least is that it never invents a value.
#[test]
fn a_record_store_with_flipped_bytes_never_gives_a_wrong_value() {
    let machine = furnished();
    let path = machine.data().join("records/db");
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut lost, mut served) = (0, 0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 400 + 1) {
        let copy = machine.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(copy.data().join("records/db"), bytes).unwrap();
        let Ok(vault) = copy.try_open() else {
            refused += 1;
            continue;
        };
        for number in 1..=3 {
            for (column, written) in person(number).columns {
                match vault.read(&member(number), column) {
                    Ok(Some(found)) => {
                        assert_eq!(found.expose(), written.expose());
                        served += 1;
                    }
                    Ok(None) => panic!("a column that was stored counts as never stored"),
                    Err(_) => lost += 1,
                }
            }
        }
    }
    eprintln!("{refused} starts refused; {served} columns served, {lost} reported as damaged");
    assert!(refused + lost > 0 && served > 0);
}
