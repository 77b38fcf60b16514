use super::{
    fuse::{Fuse, Weather},
    *,
};

#[test]
fn on_a_full_disk_people_are_still_erased() {
    let machine = furnished();
    let disk = Fuse::disk(Weather::Eager);
    let vault = machine.open_on(&disk).unwrap();
    assert!(machine.data().join("reserve").exists());
    disk.fuse.as_ref().unwrap().set_available(Some(100_000));
    for refused in [
        vault.insert(vec![person(4)]),
        vault.write(&member(1), Column::Phone, b"+33"),
        vault.put_state("lease", b"later"),
        vault.outbox_push(b"letter").map(|_| ()),
    ] {
        assert!(matches!(refused, Err(VaultError::DiskFull { .. })));
    }
    vault.put_terminal_state(&name("till-1"), b"in place").unwrap();
    vault.outbox_push_erasures(&[b"erased"]).unwrap();
    vault.erase(&[request(1)]).unwrap();
    assert!(is_whole(&vault, 2));
    drop(vault);
    assert!(!machine.open().contains(&member(1)));
}

#[test]
fn the_reserve_is_given_up_for_an_erasure_and_taken_again() {
    let machine = furnished();
    let disk = Fuse::disk(Weather::Eager);
    let vault = machine.open_on(&disk).unwrap();
    let fuse = disk.fuse.as_ref().unwrap();
    let removals = || fuse.removed(&machine.data().join("reserve"));
    vault.erase(&[request(1)]).unwrap();
    assert_eq!(removals(), 0);
    fuse.set_available(Some(1));
    vault.erase(&[request(2)]).unwrap();
    assert_eq!(removals(), 1);
    assert!(machine.data().join("reserve").exists());
}

#[test]
fn a_vault_whose_record_store_failed_wants_to_be_reopened_once_the_disk_is_back() {
    let machine = furnished();
    let disk = Fuse::disk(Weather::Eager);
    let vault = machine.open_on(&disk).unwrap();
    let fuse = disk.fuse.as_ref().unwrap();
    assert!(!vault.should_be_reopened());
    fuse.fail_records(true);
    assert!(vault.write(&member(2), Column::Phone, b"+33").is_err());
    fuse.set_available(Some(1));
    assert!(!vault.should_be_reopened(), "there is no room to start with");
    fuse.set_available(None);
    assert!(vault.should_be_reopened());
    drop(vault);
    let vault = machine.open();
    assert!(!vault.should_be_reopened() && is_furnished(&vault));
}

#[test]
fn people_are_erased_even_when_the_record_store_fails() {
    let machine = furnished();
    let disk = Fuse::disk(Weather::Eager);
    let vault = machine.open_on(&disk).unwrap();
    let fuse = disk.fuse.as_ref().unwrap();
    fuse.fail_records(true);
    assert!(vault.write(&member(2), Column::Phone, b"+33").is_err());
    vault.erase(&[request(1)]).unwrap();
    fuse.fail_records(false);
    let left = |vault: &Vault| {
        vault.inspect(|inner| inner.records.keys(crate::records::Shelf::People, b"").count())
    };
    assert_eq!(left(&vault), 9, "the rows could not be removed");
    assert!(is_gone(&vault, 1) && is_furnished(&vault));
    drop(vault);
    let vault = machine.open();
    assert_eq!(left(&vault), 6, "the next start removes them");
    assert!(is_gone(&vault, 1) && is_whole(&vault, 2) && is_furnished(&vault));
}
