//! Somebody has every byte ever written, and every key that still exists. What do they learn?

use palmgate_seal::aead::Key;

use super::{
    fuse::{Fuse, Weather},
    *,
};
use crate::{
    MemoryRoot,
    keys::{KeyTable, Seed},
    people::PersonCipher,
    records::Shelf,
    slots::Slots,
    store,
    table::{KeyFiles, PAGE_BYTES, TOP_BYTES},
};

/// Every key that the box holds: the seeds themselves and what is derived from them.
fn live_keys(vault: &Vault) -> Vec<Key> {
    vault.inspect(|inner| {
        let table = &inner.table;
        let people = table.people.values().map(|person| &person.seed);
        let seeds = people.chain(table.terminals.values());
        seeds
            .chain([&table.state, &table.outbox, &table.marking, &inner.root.seed])
            .flat_map(|seed| [Key::from_bytes(*seed.expose()), seed.sealing()])
            .collect()
    })
}

/// The sealed columns of a person, as they lie in the record store now.
fn sealed_columns(vault: &Vault, number: u64) -> Vec<(Column, Vec<u8>)> {
    vault.inspect(|inner| {
        let seed = &inner.table.people[&member(number)].seed;
        let (tenant, member) = (tenant(), member(number));
        let cipher = PersonCipher::new(&tenant, &member, seed);
        let sealed = |column| inner.records.get(Shelf::People, &cipher.place(column)).unwrap();
        Column::all().filter_map(|column| Some((column, sealed(column)?.to_vec()))).collect()
    })
}

/// How many of the sealed columns some key opens.
fn opened(columns: &[(Column, Vec<u8>)], number: u64, keys: &[Key]) -> usize {
    let opens = |(column, sealed): &&(Column, Vec<u8>)| {
        let aad = column.aad(&tenant(), &member(number));
        keys.iter().any(|key| key.open(&aad, sealed).is_ok())
    };
    columns.iter().filter(opens).count()
}

fn hits(machine: &Machine, pattern: &[u8]) -> usize {
    let files = files(machine.all());
    let count = |contents: &[u8]| contents.windows(pattern.len()).filter(|w| *w == pattern).count();
    files.iter().map(|(_, contents)| count(contents)).sum()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// What would give a person away in the clear.
fn traces(vault: &Vault, number: u64) -> Vec<Vec<u8>> {
    let (id, claim) = (*member(number).as_bytes(), *claim(number).as_bytes());
    let seed = vault.inspect(|inner| *inner.table.people[&member(number)].seed.expose());
    let key = *Seed::from_slice(&seed).unwrap().sealing().expose();
    let ids = [&id[..], &claim, &seed, &key].map(|bytes| [bytes.to_vec(), hex(bytes)]);
    let plain = [Column::Profile, Column::CardToken, TEMPLATE]
        .map(|column| value(number, column)[..24].to_vec());
    ids.into_iter().flatten().chain(plain).collect()
}

#[test]
fn no_key_that_remains_opens_anything_of_an_erased_person() {
    let machine = Machine::new();
    let vault = machine.open_with(MemoryRoot::new()).unwrap();
    vault.insert((0..40).map(person).collect()).unwrap();
    vault.put_terminal_state(&name("till-1"), b"session").unwrap();
    let mut columns = sealed_columns(&vault, 7);
    for round in 0..5u8 {
        vault.write(&member(7), Column::History, &[round; 300]).unwrap();
        columns.extend(sealed_columns(&vault, 7));
    }
    let traces = traces(&vault, 7);
    assert_eq!(opened(&columns, 7, &live_keys(&vault)), columns.len(), "the solver opens them now");
    let on_disk = |columns: &[(Column, Vec<u8>)]| -> usize {
        columns.iter().map(|(_, sealed)| usize::from(hits(&machine, sealed) > 0)).sum()
    };
    assert_eq!(on_disk(&columns), columns.len(), "the search finds them now");

    vault.erase(&[request(7)]).unwrap();

    assert!(on_disk(&columns) > 0, "sled keeps removed bytes, or there is nothing to prove");
    assert_eq!(opened(&columns, 7, &live_keys(&vault)), 0);
    for trace in &traces {
        assert_eq!(hits(&machine, trace), 0);
    }
    drop(vault);
    fs::write(machine.all().join("planted"), traces.concat()).unwrap();
    assert!(traces.iter().all(|trace| hits(&machine, trace) > 0), "the search finds what is there");
}

#[test]
fn no_table_ever_written_opens_under_the_root_that_remains() {
    let (machine, keeper) = (Machine::new(), MemoryRoot::new());
    let disk = Fuse::disk(Weather::Eager);
    let open =
        || Vault::open_on(&machine.data(), &tenant(), Box::new(keeper.clone()), disk.clone());
    let vault = open().unwrap();
    vault.insert((0..5).map(person).collect()).unwrap();
    vault.insert((5..9).map(person).collect()).unwrap();
    let seeds: Vec<[u8; 32]> = vault.inspect(|inner| {
        (0..9).map(|number| *inner.table.people[&member(number)].seed.expose()).collect()
    });
    let old_root = keeper.clone().load().unwrap().unwrap();
    vault.erase(&[request(1), request(2)]).unwrap();
    vault.insert(vec![person(10)]).unwrap();
    vault.erase(&[request(6)]).unwrap();
    vault.renew().unwrap();
    drop(vault);

    let root = keeper.clone().load().unwrap().unwrap();
    let history = disk.fuse.as_ref().unwrap().history();
    let tops: Vec<_> =
        history.iter().filter(|(_, bytes)| bytes.starts_with(b"palmgate keys")).collect();
    assert_eq!(tops.len(), 7);
    let pages: Vec<_> = history.iter().filter(|(_, bytes)| bytes.len() == PAGE_BYTES).collect();
    let readable = |root: &crate::Root| -> Vec<KeyTable> {
        let (disk, tenant) = (Disk::default(), tenant());
        let files = KeyFiles { disk: &disk, directory: Path::new(""), tenant: &tenant };
        let mut tables: Vec<KeyTable> =
            tops.iter().flat_map(|(_, top)| KeyTable::open_tops(top, &files, root)).collect();
        for table in &mut tables {
            for number in 0..table.pages.len() as u32 {
                let opened =
                    pages.iter().filter_map(|(_, page)| table.read_page(number, page, &files));
                assert!(opened.count() > 0, "the page of a table that opens is there");
            }
        }
        tables
    };
    let holds = |tables: &[KeyTable], number: u64| {
        let seed = seeds[number as usize];
        tables.iter().any(|t| t.people.values().any(|person| *person.seed.expose() == seed))
    };
    let now = readable(&root);
    assert_eq!(now.len(), 1);
    for number in 0..9 {
        assert_eq!(holds(&now, number), ![1, 2, 6].contains(&number));
    }
    let before = readable(&old_root);
    assert_eq!(before.len(), 3, "with a root that was not destroyed, nothing is erased");
    assert!((0..9).all(|number| holds(&before, number)));
}

#[test]
fn a_backup_from_before_the_erasure_stays_closed() {
    let machine = furnished();
    let backup = machine.copy();
    let vault = machine.open();
    vault.erase(&[request(1)]).unwrap();
    drop(vault);

    assert!(is_whole(&backup.copy().open(), 1), "with the old root the backup opens");
    fs::copy(machine.root(), backup.root()).unwrap();
    assert!(matches!(
        backup.try_open(),
        Err(VaultError::OtherGeneration { root: 2, table: 1, .. })
    ));
    // A head that claims the new root does not open an old table.
    let forged = backup.copy();
    let mut table = fs::read(forged.data().join("keys/table")).unwrap();
    let new = fs::read(machine.data().join("keys/table")).unwrap();
    let top = |file: &[u8]| [0, TOP_BYTES].into_iter().find(|at| file[*at] != 0).unwrap();
    let (old_top, new_top) = (top(&table), top(&new));
    table[old_top..old_top + 32].copy_from_slice(&new[new_top..new_top + 32]);
    fs::write(forged.data().join("keys/table"), table).unwrap();
    assert!(matches!(forged.try_open(), Err(VaultError::Damaged { .. })));
}

#[test]
fn a_backup_of_the_rows_serves_again_and_brings_nobody_back() {
    let machine = furnished();
    let saved = machine.all().join("saved");
    let vault = machine.open();
    vault.backup(&saved).unwrap();
    assert!(vault.backup(&saved).is_err(), "no backup is written over another");
    assert!(Vault::restore(&machine.data(), &saved).is_err(), "it is in use");
    let sessions = hits(&machine, b"session of till 1");
    vault.erase(&[request(1)]).unwrap();
    vault.insert(vec![person(4)]).unwrap();
    drop(vault);
    fs::remove_dir_all(machine.data().join("records")).unwrap();
    assert!(machine.try_open().is_err());

    Vault::restore(&machine.data(), &saved).unwrap();
    let vault = machine.open();
    assert!(is_gone(&vault, 1), "erased after the backup was made");
    assert!(is_whole(&vault, 2) && is_whole(&vault, 3));
    assert!(matches!(vault.read(&member(4), TEMPLATE), Err(VaultError::Damaged { .. })));
    let rows = vault.inspect(|inner| inner.records.keys(Shelf::People, b"").count());
    assert_eq!(rows, 6, "rows without a key are swept");
    assert!(vault.state("lease").unwrap().is_none(), "state is as old as the root");
    drop(vault);
    assert_eq!(sessions, 0, "sessions lie sealed, and in no backup");
    assert!(files(&saved).iter().all(|(path, _)| !path.ends_with("till-1")));
    let nothing = machine.all().join("nothing");
    assert!(matches!(Vault::restore(&machine.data(), &nothing), Err(VaultError::Missing { .. })));
}

#[test]
fn old_rows_and_old_tombstones_put_back_bring_nobody_back() {
    let machine = furnished();
    let backup = machine.copy();
    let vault = machine.open();
    vault.erase(&[request(1)]).unwrap();
    drop(vault);

    let rows = machine.copy();
    fs::remove_dir_all(rows.data().join("records")).unwrap();
    copy_directory(&backup.data().join("records"), &rows.data().join("records"));
    let vault = rows.open();
    assert!(is_gone(&vault, 1));
    assert!(is_whole(&vault, 2));

    fs::write(machine.data().join("keys/tombstones"), b"").unwrap();
    assert!(matches!(machine.try_open(), Err(VaultError::Damaged { .. })));
}

#[test]
fn forgotten_columns_and_earlier_values_do_not_open() {
    let machine = furnished();
    let vault = machine.open();
    vault.write(&member(1), Column::History, b"early").unwrap();
    let columns = sealed_columns(&vault, 1);
    vault.write(&member(1), Column::History, b"late").unwrap();
    assert_eq!(opened(&columns, 1, &live_keys(&vault)), columns.len());
    vault.forget_columns(&[(member(1), vec![TEMPLATE])]).unwrap();
    assert_eq!(opened(&columns, 1, &live_keys(&vault)), 0);
    let now = sealed_columns(&vault, 1);
    assert_eq!(opened(&now, 1, &live_keys(&vault)), 3);
    assert!(now.iter().all(|(column, _)| *column != TEMPLATE));
}

#[test]
fn replaced_state_and_sent_letters_do_not_open_after_an_erasure() {
    let machine = furnished();
    let vault = machine.open();
    let letter = store::number(vault.outbox_peek(1).unwrap()[0].0);
    let sealed = |inner: &Inner| -> Vec<Vec<u8>> {
        let keys = inner.records.keys(Shelf::Store, b"").map(Result::unwrap);
        keys.map(|key| inner.records.get(Shelf::Store, &key).unwrap().unwrap().to_vec()).collect()
    };
    let old = vault.inspect(|inner| sealed(inner));
    assert_eq!(old.len(), 2);
    let readable = |vault: &Vault| {
        vault.inspect(|inner| {
            let lease = inner.state_entry("lease");
            let state = |one: &&Vec<u8>| inner.state().open(&lease, one).is_some();
            let outbox = |one: &&Vec<u8>| inner.outbox().open(&letter, one).is_some();
            (old.iter().filter(state).count(), old.iter().filter(outbox).count())
        })
    };
    vault.put_state("lease", b"until midnight").unwrap();
    vault.outbox_done(u64::from_be_bytes(letter)).unwrap();
    assert_eq!(readable(&vault), (1, 1), "until the root changes both can be opened");
    vault.inspect(|inner| inner.outbox_entries = 2_000);
    vault.erase(&[request(1)]).unwrap();
    assert_eq!(readable(&vault), (0, 1), "a long outbox keeps its key until it is shorter");
    vault.inspect(|inner| inner.outbox_entries = 0);
    vault.renew().unwrap();
    assert_eq!(readable(&vault), (0, 0));
    assert_eq!(vault.inspect(|inner| sealed(inner)).len(), 1);
    assert_eq!(vault.state("lease").unwrap().unwrap().expose(), b"until midnight");
}

#[test]
fn of_a_terminals_sessions_only_the_last_is_in_its_file_and_renewal_ends_the_others() {
    let (machine, till) = (Machine::new(), name("till-1"));
    let disk = Fuse::disk(Weather::Eager);
    let vault = machine.open_on(&disk).unwrap();
    for round in 0..5u8 {
        vault.put_terminal_state(&till, &[round; 9_000]).unwrap();
    }
    let path = machine.data().join("terminals/till-1");
    // Each write that a flash controller may have kept, alone in a file.
    let readable = |vault: &Vault| {
        let key = vault.inspect(|inner| inner.table.terminals[&till].sealing());
        let opens = |contents: &[u8]| {
            let scratch = tempfile::NamedTempFile::new().unwrap();
            fs::write(scratch.path(), contents).unwrap();
            let path = scratch.path().to_path_buf();
            let slots = Slots::open(path, Disk::default(), &tenant(), &till, &key).unwrap();
            slots.get(&key).unwrap().map(|state| state.expose()[0])
        };
        let history = disk.fuse.as_ref().unwrap().history();
        let kept = history.iter().filter(|(written, _)| *written == path);
        let kept: Vec<u8> = kept.filter_map(|(_, bytes)| opens(bytes)).collect();
        let file = fs::read(&path).unwrap();
        let (one, other) = file.split_at(64 * 1024);
        let in_file: Vec<u8> = [one, other].into_iter().filter_map(opens).collect();
        (in_file, kept)
    };
    assert_eq!(readable(&vault), (vec![4], vec![0, 1, 2, 3, 4]));
    vault.renew().unwrap();
    assert_eq!(readable(&vault), (vec![4], vec![4]));
    assert_eq!(vault.terminal_state(&till).unwrap().unwrap().expose()[0], 4);
    vault.remove_terminal(&till).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_root_file_overwrites_the_root_before() {
    use std::io::{Read, Seek};
    let machine = furnished();
    let mut old = fs::File::open(machine.root()).unwrap();
    let vault = machine.open();
    vault.erase(&[request(1)]).unwrap();
    let mut contents = Vec::new();
    old.rewind().unwrap();
    old.read_to_end(&mut contents).unwrap();
    assert_eq!(contents, fs::read(machine.root()).unwrap(), "the same blocks");
    assert!(contents[..4096].iter().all(|byte| *byte == 0), "nothing of the first root");
    assert!(contents[4096..].starts_with(b"palmgate root"), "the second one beside it");
}
