//! Random histories against a model that keeps everything in maps, with clean stops, kills and
//! power cuts in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

const COLUMNS: [Column; 3] = [Column::Profile, Column::History, TEMPLATE];

#[derive(Clone, Debug)]
enum Act {
    Insert(Vec<u64>),
    Write(u64, usize, Vec<u8>),
    Erase(Vec<u64>),
    Finish(u64),
    Forget(u64, usize),
    Renew,
    PutState(u8, Vec<u8>),
    RemoveState(u8),
    PutTerminal(u8, Vec<u8>),
    RemoveTerminal(u8),
    Push(Vec<u8>),
    Done,
    Stop,
    Kill,
}

fn acts() -> impl Strategy<Value = Act> {
    let who = 0..6u64;
    let bytes = || vec(any::<u8>(), 0..40);
    prop_oneof![
        vec(who.clone(), 1..3).prop_map(Act::Insert),
        (who.clone(), 0..3usize, bytes()).prop_map(|(who, at, value)| Act::Write(who, at, value)),
        vec(who.clone(), 1..3).prop_map(Act::Erase),
        who.clone().prop_map(Act::Finish),
        (who, 0..3usize).prop_map(|(who, at)| Act::Forget(who, at)),
        Just(Act::Renew),
        (0..2u8, bytes()).prop_map(|(which, value)| Act::PutState(which, value)),
        (0..2u8).prop_map(Act::RemoveState),
        (0..2u8, bytes()).prop_map(|(which, value)| Act::PutTerminal(which, value)),
        (0..2u8).prop_map(Act::RemoveTerminal),
        bytes().prop_map(Act::Push),
        Just(Act::Done),
        Just(Act::Stop),
        Just(Act::Kill),
    ]
}

#[derive(Default)]
struct Model {
    people: BTreeMap<u64, BTreeMap<usize, Vec<u8>>>,
    erased: BTreeSet<u64>,
    unfinished: Vec<u64>,
    states: BTreeMap<u8, Vec<u8>>,
    terminals: BTreeMap<u8, Vec<u8>>,
    outbox: Vec<Vec<u8>>,
}

impl Model {
    fn insert(&mut self, vault: &Vault, numbers: &[u64]) {
        let outcome = vault.insert(numbers.iter().map(|number| newcomer(*number)).collect());
        let distinct = numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
        if numbers.iter().any(|number| self.erased.contains(number)) || !distinct {
            assert!(outcome.is_err());
        } else if numbers.iter().any(|number| self.people.contains_key(number)) {
            assert!(matches!(outcome, Err(VaultError::AlreadyStored)));
        } else {
            outcome.unwrap();
            let columns = || BTreeMap::from([(0, b"profile".to_vec())]);
            self.people.extend(numbers.iter().map(|number| (*number, columns())));
        }
    }

    fn erase(&mut self, vault: &Vault, numbers: &[u64]) {
        vault.erase(&numbers.iter().map(|number| request(*number)).collect::<Vec<_>>()).unwrap();
        for number in numbers {
            self.people.remove(number);
            self.erased.insert(*number);
            if !self.unfinished.contains(number) {
                self.unfinished.push(*number);
            }
        }
    }

    fn apply(&mut self, vault: &Vault, act: &Act) {
        match act {
            Act::Insert(numbers) => self.insert(vault, numbers),
            Act::Erase(numbers) => self.erase(vault, numbers),
            Act::Write(number, at, value) => {
                let outcome = vault.write(&member(*number), COLUMNS[*at], value);
                match self.people.get_mut(number) {
                    Some(columns) => _ = columns.insert(*at, value.clone()),
                    None => assert!(matches!(outcome, Err(VaultError::UnknownMember))),
                }
            }
            Act::Finish(number) => {
                vault.finish_erasure(&commitment(*number)).unwrap();
                self.unfinished.retain(|left| left != number);
            }
            Act::Forget(number, at) => {
                let outcome = vault.forget_columns(&[(member(*number), vec![COLUMNS[*at]])]);
                match self.people.get_mut(number) {
                    Some(columns) => _ = columns.remove(at),
                    None => assert!(matches!(outcome, Err(VaultError::UnknownMember))),
                }
            }
            _ => self.apply_to_store(vault, act),
        }
    }

    fn apply_to_store(&mut self, vault: &Vault, act: &Act) {
        match act {
            Act::Renew => vault.renew().unwrap(),
            Act::PutState(which, value) => {
                vault.put_state(&format!("state-{which}"), value).unwrap();
                self.states.insert(*which, value.clone());
            }
            Act::RemoveState(which) => {
                vault.remove_state(&format!("state-{which}")).unwrap();
                self.states.remove(which);
            }
            Act::PutTerminal(which, value) => {
                vault.put_terminal_state(&till(*which), value).unwrap();
                self.terminals.insert(*which, value.clone());
            }
            Act::RemoveTerminal(which) => {
                vault.remove_terminal(&till(*which)).unwrap();
                self.terminals.remove(which);
            }
            Act::Push(value) => {
                vault.outbox_push(value).unwrap();
                self.outbox.push(value.clone());
            }
            Act::Done => {
                if let Some((number, _)) = vault.outbox_peek(1).unwrap().first() {
                    vault.outbox_done(*number).unwrap();
                    self.outbox.remove(0);
                }
            }
            _ => {}
        }
    }

    fn check(&self, vault: &Vault) {
        for number in 0..6 {
            let columns = self.people.get(&number);
            assert_eq!(vault.contains(&member(number)), columns.is_some());
            for (at, column) in COLUMNS.into_iter().enumerate() {
                let expected = columns.and_then(|columns| columns.get(&at));
                assert_eq!(read(vault, number, column).as_ref(), expected);
            }
            let erased = self.erased.contains(&number);
            assert_eq!(vault.is_tombstoned(member(number).as_bytes()), erased);
            assert_eq!(vault.is_tombstoned(claim(number).as_bytes()), erased);
        }
        assert_eq!(vault.members().len(), self.people.len());
        let unfinished: Vec<_> = self.unfinished.iter().map(|one| commitment(*one)).collect();
        assert_eq!(vault.unfinished_erasures(), unfinished);
        for which in 0..2 {
            let state = vault.state(&format!("state-{which}")).unwrap();
            assert_eq!(state.map(|value| value.expose().clone()), self.states.get(&which).cloned());
            let state = vault.terminal_state(&till(which)).unwrap();
            let expected = self.terminals.get(&which).cloned();
            assert_eq!(state.map(|value| value.expose().clone()), expected);
        }
        let letters = vault.outbox_peek(100).unwrap();
        let letters: Vec<_> = letters.iter().map(|(_, value)| value.expose().clone()).collect();
        assert_eq!(letters, self.outbox);
    }
}

fn till(which: u8) -> Name {
    name(&format!("till-{which}"))
}

fn newcomer(number: u64) -> NewPerson {
    let columns = vec![(Column::Profile, Secret::new(b"profile".to_vec()))];
    NewPerson { columns, ..person(number) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_vault_does_what_maps_would_do(history in vec(acts(), 1..40)) {
        let mut machine = Machine::new();
        let mut vault = machine.open();
        let mut model = Model::default();
        for act in &history {
            match act {
                Act::Stop => {
                    drop(vault);
                    vault = machine.open();
                }
                Act::Kill => {
                    // Sent letters and finished erasures may not be known after a kill; that is documented.
                    vault.inspect(|inner| inner.records.sync().and_then(|()| inner.save())).unwrap();
                    let left = machine.copy();
                    drop(vault);
                    machine = left;
                    vault = machine.open();
                }
                _ => model.apply(&vault, act),
            }
            model.check(&vault);
        }
    }
}
