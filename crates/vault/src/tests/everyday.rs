use super::*;
use crate::{MAX_VALUE_BYTES, MemoryRoot, PersonColumns};

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let machine = Machine::new();
    let vault = machine.open();
    vault.insert(vec![person(1), person(2)]).unwrap();
    vault.write(&member(1), Column::Phone, b"+33 1").unwrap();
    vault.write(&member(1), Column::Profile, b"changed").unwrap();
    vault.put_state("lease", b"until noon").unwrap();
    vault.put_state("gone", b"soon").unwrap();
    vault.remove_state("gone").unwrap();
    vault.put_terminal_state(&name("till-1"), b"one").unwrap();
    vault.put_terminal_state(&name("till-1"), b"two").unwrap();
    let number = vault.outbox_push(b"letter").unwrap();
    vault.erase(&[request(2)]).unwrap();

    let vault = machine.copy().open_forgotten();
    assert_eq!(read(&vault, 1, Column::Phone).unwrap(), b"+33 1");
    assert_eq!(read(&vault, 1, Column::Profile).unwrap(), b"changed");
    assert_eq!(read(&vault, 1, TEMPLATE).unwrap(), value(1, TEMPLATE));
    assert_eq!(vault.state("lease").unwrap().unwrap().expose(), b"until noon");
    assert!(vault.state("gone").unwrap().is_none());
    assert_eq!(vault.terminal_state(&name("till-1")).unwrap().unwrap().expose(), b"two");
    assert_eq!(vault.terminals(), [name("till-1")]);
    let letters = vault.outbox_peek(9).unwrap();
    assert_eq!((letters[0].0, letters[0].1.expose().as_slice()), (number, &b"letter"[..]));
    assert!(is_gone(&vault, 2));
    assert_eq!(vault.unfinished_erasures(), [commitment(2)]);
}

impl Machine {
    /// Opens a copy that nobody else keeps.
    fn open_forgotten(self) -> Vault {
        let vault = self.open();
        std::mem::forget(self);
        vault
    }
}

#[test]
fn an_erasure_is_reported_until_the_ledger_has_it() {
    let machine = furnished();
    let vault = machine.open();
    vault.erase(&[request(1), request(2)]).unwrap();
    assert_eq!(vault.unfinished_erasures(), [commitment(1), commitment(2)]);
    vault.finish_erasure(&commitment(1)).unwrap();
    drop(vault);
    let vault = machine.open();
    assert_eq!(vault.unfinished_erasures(), [commitment(2)]);
    vault.finish_erasure(&commitment(2)).unwrap();
    drop(vault);
    assert_eq!(machine.open().unfinished_erasures(), [[0; 32]; 0]);
}

#[test]
fn an_erased_person_and_claim_never_come_back() {
    let machine = furnished();
    let vault = machine.open();
    vault.erase(&[request(1)]).unwrap();
    assert!(matches!(vault.insert(vec![person(1)]), Err(VaultError::Tombstoned)));
    let borrowed = NewPerson { claim: claim(1), ..person(4) };
    assert!(matches!(vault.insert(vec![borrowed]), Err(VaultError::Tombstoned)));
    assert!(!vault.contains(&member(4)));
    let anew = NewPerson { columns: person(1).columns, ..person(5) };
    vault.insert(vec![anew]).unwrap();
    assert!(matches!(vault.write(&member(1), Column::Phone, b""), Err(VaultError::UnknownMember)));
}

#[test]
fn somebody_who_is_not_here_can_be_erased_and_erased_again() {
    let machine = furnished();
    let vault = machine.open();
    for _ in 0..2 {
        vault.erase(&[request(7), request(7)]).unwrap();
        assert!(is_gone(&vault, 7));
        assert_eq!(vault.unfinished_erasures(), [commitment(7)]);
    }
    let with_another_claim = ErasureRequest { claim: claim(8), ..request(7) };
    vault.erase(&[with_another_claim]).unwrap();
    assert!(vault.is_tombstoned(claim(8).as_bytes()));
    assert!(is_whole(&vault, 1) && is_furnished(&vault));
}

#[test]
fn a_batch_with_one_refused_person_stores_nobody() {
    let machine = furnished();
    let vault = machine.open();
    for second in [person(1), person(4)] {
        let refused = vault.insert(vec![person(4), second]);
        assert!(matches!(refused, Err(VaultError::AlreadyStored)));
    }
    let large = vec![(Column::Profile, Secret::new(vec![0; MAX_VALUE_BYTES + 1]))];
    let refused = vault.insert(vec![person(5), NewPerson { columns: large, ..person(4) }]);
    assert!(matches!(refused, Err(VaultError::TooLarge { .. })));
    assert_eq!(vault.members().len(), 3);
    assert!(read(&vault, 4, Column::Profile).is_none());
}

#[test]
fn many_columns_are_written_at_once() {
    let machine = furnished();
    let vault = machine.open();
    let value = |number: u64, round: u8| (member(number), TEMPLATE, Secret::new(vec![round; 99]));
    let stranger = vault.write_many(vec![value(1, 1), value(9, 1)]);
    assert!(matches!(stranger, Err(VaultError::UnknownMember)));
    assert!(is_whole(&vault, 1));
    let long = (member(1), TEMPLATE, Secret::new(vec![1; 100_000]));
    vault.write_many(vec![long, value(2, 2), value(1, 3)]).unwrap();
    let vault = machine.copy().open_forgotten();
    assert_eq!(read(&vault, 1, TEMPLATE).unwrap(), [3; 99]);
    assert_eq!(read(&vault, 2, TEMPLATE).unwrap(), [2; 99]);
}

#[test]
fn many_people_are_read_at_once_in_the_order_asked() {
    let machine = furnished();
    let vault = machine.open();
    vault.insert((10..610).map(person).collect()).unwrap();
    vault.erase(&[request(300)]).unwrap();
    let columns = [TEMPLATE, Column::Profile, Column::History];
    let numbers: Vec<_> = (1..700).rev().collect();
    let asked: Vec<_> = numbers.iter().map(|number| member(*number)).collect();
    let plain = |value: Option<Secret<Vec<u8>>>| value.map(|value| value.expose().clone());
    let all = |person: &PersonColumns<'_>| {
        let values = columns.map(|column| person.read(column).map(plain));
        let values: Result<Vec<_>, VaultError> = values.into_iter().collect();
        Ok::<_, VaultError>((person.member(), values?))
    };
    for some in [&asked[..], &asked[..1], &[]] {
        let many = vault.read_people(some, all).unwrap();
        let here = numbers[..some.len()].iter().filter(|number| vault.contains(&member(**number)));
        let singly: Vec<_> = here
            .map(|number| (member(*number), columns.map(|at| read(&vault, *number, at)).to_vec()))
            .collect();
        assert!(many == singly);
    }
    assert!(read(&vault, 300, TEMPLATE).is_none() && read(&vault, 301, TEMPLATE).is_some());
}

#[test]
fn forgotten_columns_are_gone_and_the_others_stay() {
    let machine = furnished();
    let vault = machine.open();
    vault.write(&member(1), Column::History, b"first").unwrap();
    vault.write(&member(1), Column::History, b"second").unwrap();
    let of = |columns: &[Column]| vec![(member(1), columns.to_vec())];
    vault.forget_columns(&of(&[TEMPLATE])).unwrap();
    drop(vault);
    let vault = machine.open();
    assert!(read(&vault, 1, TEMPLATE).is_none());
    assert_eq!(read(&vault, 1, Column::Profile).unwrap(), value(1, Column::Profile));
    assert_eq!(read(&vault, 1, Column::History).unwrap(), b"second");
    assert!(is_whole(&vault, 2) && is_furnished(&vault));
    let stranger = vault.forget_columns(&[(member(1), vec![]), (member(9), vec![])]);
    assert!(matches!(stranger, Err(VaultError::UnknownMember)));
}

#[test]
fn values_of_every_size_come_back_whole() {
    let machine = furnished();
    let vault = machine.open();
    for length in [0, 1, 16 * 1024 - 28, 16 * 1024, 100_000, 1_000_000, 5, 40_000, 0] {
        let long: Vec<u8> = (0..length).map(|index: usize| (index * 7 + length) as u8).collect();
        vault.write(&member(1), Column::SealedRecord, &long).unwrap();
        vault.put_state("long", &long).unwrap();
        assert_eq!(read(&vault, 1, Column::SealedRecord).unwrap(), long);
        assert_eq!(vault.state("long").unwrap().unwrap().expose(), &long);
    }
    assert_eq!(fs::read_dir(machine.data().join("records/blobs")).unwrap().count(), 0);
}

#[test]
fn the_outbox_keeps_order_and_numbers_never_repeat() {
    let machine = Machine::new();
    let vault = machine.open();
    let mut last = None;
    for round in 0..3u8 {
        for letter in 0..20 {
            let number = vault.outbox_push(&[round, letter]).unwrap();
            assert!(Some(number) > last);
            last = Some(number);
        }
        let letters = vault.outbox_peek(15).unwrap();
        let sent: Vec<u8> = letters.iter().map(|(_, letter)| letter.expose()[1]).collect();
        assert_eq!(sent, (0..15).collect::<Vec<u8>>());
        for (number, _) in vault.outbox_peek(100).unwrap() {
            vault.outbox_done(number).unwrap();
            vault.outbox_done(number).unwrap();
        }
        assert!(vault.outbox_peek(1).unwrap().is_empty());
        vault.renew().unwrap();
    }
}

#[test]
fn a_full_outbox_refuses_and_says_so() {
    let machine = Machine::new();
    let vault = machine.open();
    vault.inspect(|inner| inner.outbox_entries = crate::MAX_OUTBOX_ENTRIES - 1);
    let number = vault.outbox_push(b"last").unwrap();
    assert!(matches!(vault.outbox_push(b"over"), Err(VaultError::OutboxFull { .. })));
    vault.outbox_done(number).unwrap();
    vault.outbox_push(b"again").unwrap();
}

#[test]
fn renewal_keeps_sessions_state_and_letters() {
    let machine = furnished();
    let vault = machine.open();
    for _ in 0..3 {
        vault.renew().unwrap();
        assert!(is_furnished(&vault) && is_whole(&vault, 1));
    }
    drop(vault);
    assert!(is_furnished(&machine.open()));
}

#[test]
fn a_removed_terminal_can_join_anew() {
    let machine = furnished();
    let vault = machine.open();
    let till = name("till-1");
    vault.remove_terminal(&till).unwrap();
    assert!(vault.terminal_state(&till).unwrap().is_none());
    assert!(!machine.data().join("terminals/till-1").exists());
    vault.put_terminal_state(&till, b"new").unwrap();
    drop(vault);
    assert_eq!(machine.open().terminal_state(&till).unwrap().unwrap().expose(), b"new");
}

#[test]
fn two_processes_do_not_share_a_vault() {
    let machine = furnished();
    let _vault = machine.open();
    assert!(matches!(machine.try_open(), Err(VaultError::InUse { .. })));
}

#[test]
fn a_root_in_memory_serves_as_long_as_its_clones() {
    let (machine, keeper) = (Machine::new(), MemoryRoot::new());
    let vault = machine.open_with(keeper.clone()).unwrap();
    vault.insert(vec![person(1), person(2)]).unwrap();
    vault.erase(&[request(2)]).unwrap();
    drop(vault);
    assert!(is_whole(&machine.open_with(keeper).unwrap(), 1));
    let other = machine.open_with(MemoryRoot::new());
    assert!(matches!(other, Err(VaultError::RootMissing { .. })));
}

#[test]
fn a_vault_can_be_opened_at_once_after_it_was_closed() {
    let machine = furnished();
    for _ in 0..20 {
        let vault = machine.open();
        vault.put_state("lease", b"until noon").unwrap();
        drop(vault);
    }
    assert!(is_furnished(&machine.open()));
}

#[test]
fn a_vault_can_be_shared_between_threads() {
    let machine = furnished();
    let vault = machine.open();
    std::thread::scope(|scope| {
        for number in 10..14 {
            let vault = &vault;
            scope.spawn(move || {
                vault.insert(vec![person(number)]).unwrap();
                vault.outbox_push(b"more").unwrap();
            });
        }
        scope.spawn(|| vault.erase(&[request(2)]).unwrap());
    });
    assert!((10..14).all(|number| is_whole(&vault, number)) && is_gone(&vault, 2));
    assert_eq!(vault.outbox_peek(9).unwrap().len(), 5);
}
