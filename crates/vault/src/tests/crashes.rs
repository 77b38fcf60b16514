//! The power is cut before, in the middle of and after every step of every operation, on a file
//! system that writes at once, tears writes, or forgets what was not synced. What is on the disk
//! then is opened, twice.

use std::sync::Arc;

use super::{
    fuse::{Fuse, Weather},
    *,
};
use crate::table::{INTENTS_AT, PAGES_AT};

fn fuse_of(disk: &Disk) -> &Arc<Fuse> {
    disk.fuse.as_ref().unwrap()
}

/// Runs `operation` with the power cut at each step in turn, and hands `check` what the next start
/// opens, and whether the operation was acknowledged.
fn at_every_step(
    base: &Machine,
    least: usize,
    operation: impl Fn(&Vault) -> Result<(), VaultError>,
    check: impl Fn(&Vault, bool, &str),
) {
    for weather in Weather::ALL {
        for nth in 0.. {
            let machine = base.copy();
            let disk = Fuse::disk(weather);
            let vault = machine.open_on(&disk).unwrap();
            fuse_of(&disk).cut_after(nth);
            let acknowledged = operation(&vault).is_ok();
            let cut = fuse_of(&disk).is_cut();
            let crashed = machine.copy();
            drop(vault);
            let place = format!("{weather:?}, step {nth}");
            for start in 1..=2 {
                let vault = crashed.try_open().unwrap_or_else(|error| panic!("{place}: {error}"));
                check(&vault, acknowledged, &format!("{place}, start {start}"));
            }
            if !cut {
                assert!(acknowledged, "{place}");
                assert!(nth >= least, "only {nth} steps were cut");
                break;
            }
        }
    }
}

/// Either whole and never asked for, or gone, refused and reported: nothing in between.
pub(crate) fn check_erasure(vault: &Vault, acknowledged: bool, place: &str) {
    if vault.contains(&member(1)) {
        assert!(!acknowledged, "acknowledged and readable: {place}");
        assert!(is_whole(vault, 1), "{place}");
        assert!(!vault.is_tombstoned(member(1).as_bytes()), "{place}");
        assert!(vault.unfinished_erasures().is_empty(), "{place}");
    } else {
        assert!(is_gone(vault, 1), "{place}");
        assert_eq!(vault.unfinished_erasures(), [commitment(1)], "{place}");
    }
    assert!(is_whole(vault, 2) && is_whole(vault, 3) && is_furnished(vault), "{place}");
}

#[test]
fn an_erasure_cut_off_anywhere_has_happened_or_not() {
    at_every_step(&furnished(), 15, |vault| vault.erase(&[request(1)]), check_erasure);
}

/// Whether an intent stands where the table keeps them.
fn intended(machine: &Machine) -> bool {
    let file = fs::read(machine.data().join("keys/table")).unwrap();
    let intents = file.get(INTENTS_AT..PAGES_AT).unwrap_or_default();
    intents.iter().any(|byte| *byte != 0)
}

#[test]
fn an_erasure_whose_intent_is_durable_happens() {
    let base = furnished();
    for weather in Weather::ALL {
        let mut carried_out = 0;
        for nth in 0.. {
            let machine = base.copy();
            let disk = Fuse::disk(weather);
            let vault = machine.open_on(&disk).unwrap();
            fuse_of(&disk).cut_after(nth);
            let acknowledged = vault.erase(&[request(1)]).is_ok();
            let crashed = machine.copy();
            let cut = fuse_of(&disk).is_cut();
            drop(vault);
            if intended(&crashed) {
                assert!(is_gone(&crashed.open(), 1), "{weather:?}, step {nth}");
                carried_out += usize::from(!acknowledged);
            }
            if !cut {
                break;
            }
        }
        assert!(carried_out > 1, "no start had anything to carry out");
    }
}

#[test]
fn a_start_that_is_itself_cut_off_loses_nothing() {
    let base = furnished();
    let disk = Fuse::disk(Weather::Eager);
    let vault = base.open_on(&disk).unwrap();
    fuse_of(&disk).cut_after(8);
    vault.erase(&[request(1)]).unwrap_err();
    let crashed = base.copy();
    drop(vault);
    assert!(intended(&crashed));

    for weather in Weather::ALL {
        for nth in 0.. {
            let machine = crashed.copy();
            let disk = Fuse::disk(weather);
            fuse_of(&disk).cut_after(nth);
            let opened = machine.open_on(&disk);
            let cut = fuse_of(&disk).is_cut();
            let again = machine.copy();
            drop(opened);
            let vault = again.open();
            assert!(is_gone(&vault, 1), "{weather:?}, step {nth}");
            check_erasure(&vault, true, "after a start that was cut off");
            if !cut {
                break;
            }
        }
    }
}

#[test]
fn an_old_root_is_on_no_disk_once_an_erasure_is_acknowledged() {
    let base = furnished();
    let vault = base.open();
    let root = vault.inspect(|inner| *inner.root.seed.expose());
    drop(vault);
    let holds = |machine: &Machine| {
        let found = |contents: &[u8]| contents.windows(32).any(|window| window == root);
        files(machine.all()).iter().any(|(_, contents)| found(contents))
    };
    assert!(holds(&base), "the search finds a root that is there");
    for weather in Weather::ALL {
        for nth in 0.. {
            let machine = base.copy();
            let disk = Fuse::disk(weather);
            let vault = machine.open_on(&disk).unwrap();
            fuse_of(&disk).cut_after(nth);
            let acknowledged = vault.erase(&[request(1)]).is_ok();
            let crashed = machine.copy();
            let cut = fuse_of(&disk).is_cut();
            drop(vault);
            assert!(!(acknowledged && holds(&crashed)), "{weather:?}, step {nth}");
            if is_gone_after_start(&crashed) {
                assert!(!holds(&crashed), "{weather:?}, step {nth}, after a start");
            }
            if !cut {
                break;
            }
        }
    }
}

fn is_gone_after_start(machine: &Machine) -> bool {
    !machine.open().contains(&member(1))
}

#[test]
fn an_insertion_cut_off_anywhere_stores_all_or_nobody() {
    let insert = |vault: &Vault| vault.insert(vec![person(4), person(5)]);
    at_every_step(&furnished(), 5, insert, |vault, acknowledged, place| {
        let present = vault.contains(&member(4));
        assert!(present || !acknowledged, "{place}");
        for number in [4, 5] {
            assert_eq!(is_whole(vault, number), present, "{place}");
            assert_eq!(vault.contains(&member(number)), present, "{place}");
        }
        let rows =
            vault.inspect(|inner| inner.records.keys(crate::records::Shelf::People, b"").count());
        assert_eq!(rows, if present { 15 } else { 9 }, "rows that nobody owns: {place}");
        assert!(is_whole(vault, 1) && is_furnished(vault), "{place}");
    });
}

#[test]
fn a_write_cut_off_anywhere_leaves_the_old_or_the_new_value() {
    let write = |vault: &Vault| vault.write(&member(1), TEMPLATE, b"new");
    at_every_step(&furnished(), 2, write, |vault, acknowledged, place| {
        let found = read(vault, 1, TEMPLATE).unwrap();
        assert!(found == b"new" || (!acknowledged && found == value(1, TEMPLATE)), "{place}");
    });
}

#[test]
fn forgetting_a_column_cut_off_anywhere_keeps_the_others() {
    let forget = |vault: &Vault| vault.forget_columns(&[(member(1), vec![TEMPLATE])]);
    at_every_step(&furnished(), 12, forget, |vault, acknowledged, place| {
        let found = read(vault, 1, TEMPLATE);
        assert!(found.is_none() || (!acknowledged && is_whole(vault, 1)), "{place}");
        assert_eq!(read(vault, 1, Column::Profile).unwrap(), value(1, Column::Profile), "{place}");
        assert!(is_whole(vault, 2) && is_furnished(vault), "{place}");
    });
}

#[test]
fn a_box_without_state_forgets_a_column_just_as_safely() {
    let base = Machine::new();
    base.open().insert(vec![person(1)]).unwrap();
    let forget = |vault: &Vault| vault.forget_columns(&[(member(1), vec![TEMPLATE])]);
    at_every_step(&base, 10, forget, |vault, acknowledged, place| {
        assert_eq!(read(vault, 1, Column::Profile).unwrap(), value(1, Column::Profile), "{place}");
        assert_eq!(read(vault, 1, TEMPLATE).is_some(), is_whole(vault, 1), "{place}");
        assert!(!(acknowledged && is_whole(vault, 1)), "{place}");
    });
}

#[test]
fn a_renewal_cut_off_anywhere_loses_nothing() {
    at_every_step(&furnished(), 15, Vault::renew, |vault, _, place| {
        assert!(is_furnished(vault) && is_whole(vault, 1), "{place}");
    });
}

#[test]
fn a_session_cut_off_anywhere_is_the_old_or_the_new_one() {
    let put = |vault: &Vault| vault.put_terminal_state(&name("till-1"), b"next");
    at_every_step(&furnished(), 3, put, |vault, acknowledged, place| {
        let found = vault.terminal_state(&name("till-1")).unwrap().unwrap();
        let old = !acknowledged && found.expose() == b"session of till 1";
        assert!(old || found.expose() == b"next", "{place}");
    });
}

#[test]
fn a_first_session_cut_off_anywhere_is_there_or_not() {
    let put = |vault: &Vault| vault.put_terminal_state(&name("till-2"), b"first");
    at_every_step(&furnished(), 8, put, |vault, acknowledged, place| {
        match vault.terminal_state(&name("till-2")).unwrap() {
            Some(found) => assert_eq!(found.expose(), b"first", "{place}"),
            None => assert!(!acknowledged, "{place}"),
        }
        assert!(is_furnished(vault), "{place}");
    });
}

#[test]
fn the_removal_of_a_terminal_cut_off_anywhere_has_happened_or_not() {
    let remove = |vault: &Vault| vault.remove_terminal(&name("till-1"));
    at_every_step(&furnished(), 12, remove, |vault, acknowledged, place| {
        let found = vault.terminal_state(&name("till-1")).unwrap();
        assert!(found.is_none() || (!acknowledged && is_furnished(vault)), "{place}");
    });
}

#[test]
fn a_finished_erasure_cut_off_anywhere_is_at_worst_reported_again() {
    let base = furnished();
    let vault = base.open();
    vault.erase(&[request(1)]).unwrap();
    drop(vault);
    let finish = |vault: &Vault| vault.finish_erasure(&commitment(1));
    at_every_step(&base, 0, finish, |vault, _, place| {
        let left = vault.unfinished_erasures();
        assert!(left.is_empty() || left == [commitment(1)], "{place}");
        assert!(is_gone(vault, 1), "{place}");
    });
}

#[test]
fn a_first_start_cut_off_anywhere_can_be_repeated() {
    for weather in Weather::ALL {
        for nth in 0.. {
            let machine = Machine::new();
            let disk = Fuse::disk(weather);
            fuse_of(&disk).cut_after(nth);
            let opened = machine.open_on(&disk);
            let crashed = machine.copy();
            let cut = fuse_of(&disk).is_cut();
            drop(opened);
            let place = format!("{weather:?}, step {nth}");
            let vault = crashed.try_open().unwrap_or_else(|error| panic!("{place}: {error}"));
            vault.insert(vec![person(1)]).unwrap();
            drop(vault);
            assert!(is_whole(&crashed.open(), 1), "{place}");
            if !cut {
                assert!(nth >= 12, "only {nth} steps were cut");
                break;
            }
        }
    }
}

#[test]
fn a_keeper_that_fails_stops_the_vault_until_the_next_start() {
    use crate::{Root, RootError};
    struct Unsure(crate::MemoryRoot, bool);
    impl RootKeeper for Unsure {
        fn load(&mut self) -> Result<Option<Root>, RootError> {
            self.0.load()
        }
        fn replace(&mut self, new: &Root) -> Result<(), RootError> {
            if new.generation() == 1 {
                return self.0.replace(new);
            }
            if self.1 {
                self.0.replace(new)?;
            }
            Err(RootError::Device("no answer".into()))
        }
        fn describe(&self) -> &'static str {
            "unsure device"
        }
        fn promise(&self) -> crate::Promise {
            self.0.promise()
        }
    }
    for took_it in [false, true] {
        let (machine, keeper) = (Machine::new(), crate::MemoryRoot::new());
        let vault = machine.open_with(Unsure(keeper.clone(), took_it)).unwrap();
        vault.insert(vec![person(1), person(2)]).unwrap();
        let failed = vault.erase(&[request(1)]);
        assert!(matches!(failed, Err(VaultError::Keeper { .. })));
        let stopped = vault.read(&member(2), TEMPLATE).err().unwrap();
        assert!(matches!(stopped, VaultError::Stopped));
        drop(vault);
        let vault = machine.open_with(keeper).unwrap();
        assert!(is_gone(&vault, 1) && is_whole(&vault, 2));
        assert_eq!(vault.unfinished_erasures(), [commitment(1)]);
    }
}
