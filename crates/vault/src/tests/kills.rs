//! A second process works on a vault and says what was acknowledged; it is killed in the middle.
#![allow(clippy::disallowed_methods, reason = "the second process is told by its environment")]

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

const DIRECTORY: &str = "VAULT_OF_A_PROCESS_TO_KILL";

/// Run only by the story below, in a process of its own.
#[test]
#[ignore = "works until it is killed"]
fn work_until_killed() {
    let directory = PathBuf::from(env::var_os(DIRECTORY).expect("started by the story below"));
    let keeper = FileRoot::new(directory.join("root"));
    let vault = Vault::open(&directory.join("data"), &tenant(), Box::new(keeper)).unwrap();
    let first = vault.members().len() as u64 * 10_000 + 1;
    for number in first.. {
        vault.insert(vec![person(number)]).unwrap();
        println!("\nack insert {number}");
        vault.put_terminal_state(&name("till-1"), &number.to_be_bytes()).unwrap();
        println!("\nack session {number}");
        if number % 3 == 0 {
            vault.erase(&[request(number)]).unwrap();
            println!("\nack erase {number}");
        }
    }
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    let machine = Machine::new();
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tests::kills::work_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, machine.all())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let acks = lines.filter_map(|line| line.strip_prefix("ack ").map(str::to_owned));
        let mut seen: Vec<String> = Vec::new();
        for ack in acks {
            seen.push(ack);
            if seen.len() == 20 + 7 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen.len() >= 20, "the process ended by itself");
        check(&machine.open(), &seen);
    }
}

fn check(vault: &Vault, acknowledged: &[String]) {
    let of = |what: &str| -> Vec<u64> {
        let numbers = acknowledged.iter().filter_map(|ack| ack.strip_prefix(what));
        numbers.map(|number| number.trim().parse().unwrap()).collect()
    };
    let erased = of("erase");
    for number in of("insert") {
        if erased.contains(&number) {
            assert!(is_gone(vault, number));
        } else {
            // The erasure may have been under way, and then it has happened.
            assert!(is_whole(vault, number) || (number % 3 == 0 && is_gone(vault, number)));
        }
    }
    let session = vault.terminal_state(&name("till-1")).unwrap().unwrap();
    let session = u64::from_be_bytes(session.expose().as_slice().try_into().unwrap());
    assert!(session >= *of("session").last().unwrap());
}
