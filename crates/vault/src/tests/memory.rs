//! A second process holds people, erases them, and has its memory searched.
#![allow(clippy::disallowed_methods, reason = "the second process is told by its environment")]

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
};

use super::*;

const DIRECTORY: &str = "VAULT_OF_A_PROCESS_TO_SEARCH";
const PEOPLE: u64 = 40;

fn part(number: u64, index: u64) -> [u8; 32] {
    digest(&SHA256, format!("in memory {number} {index}").as_bytes()).as_ref().try_into().unwrap()
}

/// A template in one allocation, so that only what the vault does can leave a copy.
fn template(number: u64) -> Secret<Vec<u8>> {
    let mut bytes = Secret::new(Vec::with_capacity(640));
    (0..20).for_each(|index| bytes.expose_mut().extend_from_slice(&part(number, index)));
    bytes
}

fn newcomer(number: u64) -> NewPerson {
    let columns = vec![(TEMPLATE, template(number))];
    NewPerson { member: member(number), claim: claim(number), columns }
}

fn wait() {
    stdin().lock().read_line(&mut String::new()).unwrap();
}

/// Run only by the story below, in a process of its own.
#[test]
#[ignore = "works for the story below"]
fn hold_and_forget() {
    let directory = PathBuf::from(env::var_os(DIRECTORY).expect("started by the story below"));
    let keeper = FileRoot::new(directory.join("root"));
    let vault = Vault::open(&directory.join("data"), &tenant(), Box::new(keeper)).unwrap();
    vault.insert((0..PEOPLE).map(newcomer).collect()).unwrap();
    let read = |number| vault.read(&member(number), TEMPLATE).unwrap().unwrap();
    let held: Vec<_> = (0..PEOPLE).map(read).collect();
    println!("\nack held");
    wait();
    drop(held);
    vault.erase(&(0..PEOPLE).map(request).collect::<Vec<_>>()).unwrap();
    println!("\nack forgotten");
    wait();
}

/// How many templates stand in the memory of a process: 64 bytes that are nowhere else together.
fn in_memory(child: &Child) -> usize {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let maps = fs::read_to_string(process.join("maps")).unwrap();
    let memory = fs::File::open(process.join("mem")).unwrap();
    let patterns: Vec<Vec<u8>> =
        (0..PEOPLE).map(|number| template(number).expose()[16..80].to_vec()).collect();
    let search = aho_corasick::AhoCorasick::new(&patterns).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let at = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
        let mut bytes = vec![0; (at(end) - at(start)) as usize];
        if memory.read_exact_at(&mut bytes, at(start)).is_ok() {
            found += search.find_iter(&bytes).count();
        }
    }
    found
}

#[test]
fn nothing_of_the_erased_is_left_in_memory() {
    let machine = Machine::new();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::memory::hold_and_forget", "--ignored", "--nocapture"])
        .env(DIRECTORY, machine.all())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |ack: &str| assert!(lines.any(|line| line == ack), "the process ended");
    let mut go_on = child.stdin.take().unwrap();
    until("ack held");
    let held = in_memory(&child);
    assert!(held >= PEOPLE as usize, "control: {held}");
    go_on.write_all(b"\n").unwrap();
    until("ack forgotten");
    let left = in_memory(&child);
    go_on.write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(left, 0, "of {held}");
}

#[test]
#[ignore = "works for the story below"]
fn protect() {
    println!("\nack {:?}", crate::protect_memory());
}

#[test]
fn a_protected_process_leaves_no_core_dump() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::memory::protect", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("no_dumps: true"), "{text}");
}
