//! The root in a TPM: a real one in software (swtpm), behind a wire that can be cut.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use palmgate_protocol::{ClaimHandle, MemberId, Name, Secret};
use palmgate_vault::{
    Column, ErasureRequest, NewPerson, Promise, Root, RootError, RootKeeper, TpmRoot, Vault,
    VaultError,
};
use tempfile::TempDir;
use tss_esapi::{
    Context, TctiNameConf,
    handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle},
    interface_types::{resource_handles::NvAuth, session_handles::AuthSession},
    structures::{Auth, MaxNvBuffer},
};

const AUTH: &[u8] = b"from a systemd credential";

/// A software TPM with its state in a directory. It serves one connection at a time.
struct Tpm {
    process: Child,
    port: u16,
    state: TempDir,
}

impl Tpm {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (process, port) = Self::run(state.path());
        Self { process, port, state }
    }

    fn run(state: &Path) -> (Child, u16) {
        loop {
            let port = free_ports();
            let mut process = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .args(["--server", &format!("type=tcp,port={port}")])
                .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
                .args(["--tpmstate", &format!("dir={}", state.display())])
                .stderr(Stdio::null())
                .spawn()
                .expect("swtpm is installed (Debian package swtpm)");
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                    return (process, port);
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Power off and on again.
    fn reset(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        (self.process, self.port) = Self::run(self.state.path());
    }

    fn keeper(&self) -> TpmRoot {
        connect(self.port).unwrap()
    }

    fn root(&self) -> Secret<[u8; Root::BYTES]> {
        self.keeper().load().unwrap().unwrap().to_bytes()
    }

    /// Everything that the TPM keeps on its medium.
    fn medium(&self) -> Vec<u8> {
        let files = fs::read_dir(self.state.path()).unwrap();
        files.flat_map(|file| fs::read(file.unwrap().path()).unwrap_or_default()).collect()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn connect(port: u16) -> Result<TpmRoot, RootError> {
    let auth = Secret::new(AUTH.to_vec());
    TpmRoot::connect(&format!("swtpm:host=127.0.0.1,port={port}"), &auth)
}

/// A port that is free together with the one behind it.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// Passes commands on, and cuts the wire at one of them.
struct Wire {
    port: u16,
    passed: Arc<AtomicUsize>,
}

/// What becomes of the command at which the wire is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    BeforeTheCommand,
    BeforeTheAnswer,
}

impl Wire {
    fn new(tpm: u16, at: usize, cut: Cut) -> Self {
        let port = free_ports();
        let passed = Arc::new(AtomicUsize::new(0));
        let commands = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let control = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
        let counter = Arc::clone(&passed);
        thread::spawn(move || {
            while let Ok((near, _)) = commands.accept() {
                if counter.load(Ordering::SeqCst) <= at {
                    let far = TcpStream::connect(("127.0.0.1", tpm)).unwrap();
                    relay(near, far, at, cut, &counter);
                }
            }
        });
        thread::spawn(move || {
            while let Ok((near, _)) = control.accept() {
                let far = TcpStream::connect(("127.0.0.1", tpm + 1)).unwrap();
                pump(near.try_clone().unwrap(), far.try_clone().unwrap());
                pump(far, near);
            }
        });
        Self { port, passed }
    }
}

fn relay(mut near: TcpStream, mut far: TcpStream, at: usize, cut: Cut, passed: &AtomicUsize) {
    loop {
        let Some(command) = message(&mut near) else { return };
        let last = passed.fetch_add(1, Ordering::SeqCst) == at;
        if last && matches!(cut, Cut::BeforeTheCommand) {
            break;
        }
        far.write_all(&command).unwrap();
        let Some(answer) = message(&mut far) else { return };
        if last || near.write_all(&answer).is_err() {
            break;
        }
    }
    let _ = near.shutdown(Shutdown::Both);
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// A command or an answer: tag, size, the rest.
fn message(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 6];
    from.read_exact(&mut bytes).ok()?;
    let size = u32::from_be_bytes(*bytes.last_chunk()?) as usize;
    bytes.resize(size, 0);
    from.read_exact(&mut bytes[6..]).ok()?;
    Some(bytes)
}

fn open(directory: &Path, keeper: TpmRoot) -> Result<Vault, VaultError> {
    let tenant: Name = "lyon".parse().unwrap();
    Vault::open(&directory.join("data"), &tenant, Box::new(keeper))
}

fn member(number: u8) -> MemberId {
    MemberId::from_random([number; 16])
}

fn person(number: u8) -> NewPerson {
    let columns = vec![(Column::Profile, Secret::new(vec![number; 100]))];
    let claim = ClaimHandle::from_random([100 + number; 16]);
    NewPerson { member: member(number), claim, columns }
}

fn request(number: u8) -> ErasureRequest {
    let claim = ClaimHandle::from_random([100 + number; 16]);
    ErasureRequest { member: member(number), claim, commitment: [number; 32] }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn holds(medium: &[u8], secret: &[u8]) -> bool {
    medium.windows(secret.len()).any(|window| window == secret)
}

#[test]
fn a_vault_forgets_through_a_tpm_and_a_directory_from_before_stays_closed() {
    let mut tpm = Tpm::start();
    let disk = tempfile::tempdir().unwrap();
    let vault = open(disk.path(), tpm.keeper()).unwrap();
    assert_eq!(vault.keeper(), ("TPM", Promise::Destroyed));
    vault.insert(vec![person(1), person(2)]).unwrap();
    drop(vault);
    let backup = tempfile::tempdir().unwrap();
    copy(disk.path(), backup.path());

    let vault = open(disk.path(), tpm.keeper()).unwrap();
    vault.erase(&[request(1)]).unwrap();
    drop(vault);
    tpm.reset();

    let vault = open(disk.path(), tpm.keeper()).unwrap();
    assert!(!vault.contains(&member(1)) && vault.contains(&member(2)));
    drop(vault);
    let refused = open(backup.path(), tpm.keeper()).err().unwrap();
    assert!(matches!(refused, VaultError::OtherGeneration { root: 2, table: 1, .. }), "{refused}");
}

#[test]
fn a_way_back_under_a_tpm_counts_on_and_opens_no_directory_from_before() {
    let tpm = Tpm::start();
    let (directory, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join("vault");
    let vault = open(&path, tpm.keeper()).unwrap();
    vault.insert(vec![person(1), person(2)]).unwrap();
    drop(vault);
    copy(&path, before.path());
    let vault = open(&path, tpm.keeper()).unwrap();
    vault.erase(&[request(1)]).unwrap();
    let generation = vault.root_generation();
    fs::write(path.join("data/way-back"), "palmgate vault 1\n").unwrap();
    assert_eq!(vault.roll_back().unwrap().format, 1);
    assert_eq!(tpm.keeper().load().unwrap().unwrap().generation(), generation);
    assert!(matches!(
        open(before.path(), tpm.keeper()),
        Err(VaultError::OtherGeneration { root, table, .. }) if root == generation && table < root
    ));
    let vault = open(&path, tpm.keeper()).unwrap();
    assert!(vault.members() == [member(2)]);
    assert!(vault.is_tombstoned(member(1).as_bytes()));
    vault.erase(&[request(2)]).unwrap();
    assert_eq!(vault.root_generation(), generation + 1);
}

#[test]
fn of_all_roots_there_ever_were_the_tpm_keeps_the_last() {
    let tpm = Tpm::start();
    assert!(tpm.keeper().load().unwrap().is_none());
    let disk = tempfile::tempdir().unwrap();
    drop(open(disk.path(), tpm.keeper()).unwrap());
    let mut before = tpm.root();
    for _ in 0..3 {
        assert!(holds(&tpm.medium(), before.expose()), "the search finds a root that is there");
        open(disk.path(), tpm.keeper()).unwrap().renew().unwrap();
        let now = tpm.root();
        assert!(!holds(&tpm.medium(), &before.expose()[8..]), "an old root is left");
        before = now;
    }
}

#[test]
fn the_wire_cut_at_any_command_leaves_the_old_root_or_the_new_one() {
    let mut tpm = Tpm::start();
    let disk = tempfile::tempdir().unwrap();
    drop(open(disk.path(), tpm.keeper()).unwrap());
    let mut changed = [0, 0];
    for cut in [Cut::BeforeTheCommand, Cut::BeforeTheAnswer] {
        for at in 0.. {
            let before = tpm.keeper().load().unwrap().unwrap().generation();
            let wire = Wire::new(tpm.port, at, cut);
            let done = connect(wire.port).map(|keeper| open(disk.path(), keeper));
            let renewed = match done {
                Ok(Ok(vault)) => vault.renew().is_ok(),
                _ => false,
            };
            tpm.reset();
            let after = tpm.keeper().load().unwrap().unwrap().generation();
            assert!(after == before + 1 || (after == before && !renewed), "{cut:?} {at}");
            changed[usize::from(after > before)] += 1;
            let vault = open(disk.path(), tpm.keeper()).unwrap();
            assert_eq!(vault.root_generation(), after, "{cut:?} {at}");
            if wire.passed.load(Ordering::SeqCst) <= at {
                assert!(renewed && at > 20, "only {at} commands were cut");
                break;
            }
        }
    }
    assert!(changed[0] > 20 && changed[1] > 2, "{changed:?}");
}

/// Who has the authorisation can write an old root back, but not the counter.
#[test]
fn an_old_root_written_back_is_refused() {
    let tpm = Tpm::start();
    let disk = tempfile::tempdir().unwrap();
    drop(open(disk.path(), tpm.keeper()).unwrap());
    let backup = tempfile::tempdir().unwrap();
    copy(disk.path(), backup.path());
    let mut thief = Thief::new(tpm.port);
    let old = thief.read(TpmRoot::FIRST_INDEX).unwrap();
    drop(thief);
    open(disk.path(), tpm.keeper()).unwrap().renew().unwrap();
    let mut thief = Thief::new(tpm.port);
    assert!(thief.read(TpmRoot::FIRST_INDEX).is_err(), "it is removed");
    thief.write(TpmRoot::FIRST_INDEX + 1, &old);
    drop(thief);
    let refused = tpm.keeper().load().err().unwrap();
    assert!(matches!(refused, RootError::RolledBack { .. }), "{refused}");
    assert!(matches!(open(backup.path(), tpm.keeper()), Err(VaultError::Keeper { .. })));
}

/// Somebody who has the authorisation of the indices.
struct Thief(Context);

impl Thief {
    fn new(port: u16) -> Self {
        let tcti = format!("swtpm:host=127.0.0.1,port={port}");
        let mut context = Context::new(TctiNameConf::from_str(&tcti).unwrap()).unwrap();
        context.set_sessions((Some(AuthSession::Password), None, None));
        Self(context)
    }

    fn index(&mut self, index: u32) -> tss_esapi::Result<NvIndexHandle> {
        let name = TpmHandle::NvIndex(NvIndexTpmHandle::new(index)?);
        let object = self.0.execute_without_session(|c| c.tr_from_tpm_public(name))?;
        self.0.tr_set_auth(object, Auth::try_from(AUTH.to_vec())?)?;
        Ok(object.into())
    }

    fn read(&mut self, index: u32) -> tss_esapi::Result<MaxNvBuffer> {
        let handle = self.index(index)?;
        self.0.nv_read(NvAuth::NvIndex(handle), handle, 48, 0)
    }

    fn write(&mut self, index: u32, bytes: &MaxNvBuffer) {
        let handle = self.index(index).unwrap();
        self.0.nv_write(NvAuth::NvIndex(handle), handle, bytes.clone(), 0).unwrap();
    }
}
