//! The real program: killed, stopped, misconfigured, provisioned.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Gateway, found, pay_and_roam, people::Person};
use palmgate_protocol::{Purpose, encode};
use reqwest::StatusCode;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_palmgate-cloud");

fn start(state: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.rsplit("address=").next().unwrap().parse().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn operator(arguments: &[&str], state: &Path) -> (i32, String) {
    let output = Command::new(PROGRAM).args(arguments).arg("--state").arg(state).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_a_repetition_changes_nothing() {
    let directory = found("");
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    let added = operator(&["store", "add", "lyon", "--out", bundle.to_str().unwrap()], &state);
    assert_eq!(added, (0, String::new()));
    let (mut child, address) = start(&state);
    let mut lyon = Gateway::read(&bundle, address);
    lyon.hello().await;
    let (stays, goes) = (Person::new(), Person::new());
    let registration = lyon.operator(&stays, pay_and_roam());
    lyon.register(&registration).await;
    lyon.enrol(&goes, pay_and_roam()).await;
    lyon.fetch().await;
    let erased = lyon.erase(&goes).await;
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, address) = start(&state);
    lyon.address = address;
    assert_eq!(lyon.erasure(&goes).await.erased_at, erased.erased_at);
    lyon.register(&registration).await;
    assert!(lyon.fetch().await);
    assert!(lyon.has(&stays) && !lyon.has(&goes));
    assert!(!lyon.fetch().await, "the repeated registration was no change");
    assert!(lyon.finds(&stays).await);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn it_stops_on_sigterm_after_answering() {
    let directory = found("");
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    operator(&["store", "add", "lyon", "--out", bundle.to_str().unwrap()], &state);
    let (mut child, address) = start(&state);
    let lyon = Gateway::read(&bundle, address);
    lyon.hello().await;
    let person = Person::new();
    let query = encode(&lyon.query(&person, Purpose::Pay, &person));
    let answer = async {
        // The answer is held back for its slot, so the signal comes in between.
        lyon.post("/v1/resolve/probe", query).await.status()
    };
    let signal = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap()
    };
    let (status, sent) = tokio::join!(answer, signal);
    assert!(sent.success());
    assert_eq!(status, StatusCode::OK);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_wrong_choice_is_named_and_starting_again_is_said_to_be_useless() {
    let directory = found("lease_hous = 3\n");
    let state = directory.path().join("state");
    let (code, text) = operator(&["serve", "--listen", "127.0.0.1:0"], &state);
    assert_eq!(code, 64, "{text}");
    assert!(text.contains("cloud.toml") && text.contains("lease_hous"), "{text}");
}

#[test]
fn a_state_directory_serves_one_process_and_an_address_one_service() {
    let directory = found("");
    let state = directory.path().join("state");
    let (mut child, address) = start(&state);
    let (code, text) = operator(&["serve", "--listen", "127.0.0.1:0"], &state);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("database"), "{text}");
    let other = found("");
    let listen = address.to_string();
    let (code, text) = operator(&["serve", "--listen", &listen], &other.path().join("state"));
    assert_eq!(code, 1);
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn provisioning_writes_private_files_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    let out = bundle.to_str().unwrap();
    let init = ["init", "--tenant", "acme", "--host", "cloud.example"];
    assert_eq!(operator(&init, &state).0, 0);
    assert_ne!(operator(&init, &state).0, 0, "founded already");
    assert_ne!(operator(&["store", "renew", "lyon", "--out", out], &state).0, 0);
    assert_eq!(operator(&["store", "add", "lyon", "--out", out], &state).0, 0);
    assert_ne!(operator(&["store", "add", "lyon", "--out", out], &state).0, 0);
    assert_ne!(operator(&["store", "renew", "lyon", "--out", out], &state).0, 0, "a full bundle");
    assert_ne!(operator(&["store", "add", "Lyon!", "--out", out], &state).0, 0);
    assert_eq!(operator(&["store", "reset", "lyon"], &state).0, 0);
    let listed = operator(&["store", "list"], &state);
    assert_eq!(listed, (0, "lyon: 1 certificates, 1 resets\n".into()));
    let toml = std::fs::read_to_string(bundle.join("bundle.toml")).unwrap();
    assert_eq!(toml, "tenant = \"acme\"\nstore = \"lyon\"\nurl = \"https://cloud.example:7443\"\n");
    private(directory.path().join("state").as_path());
    private(&bundle);
}

fn private(path: &Path) {
    let metadata = std::fs::metadata(path).unwrap();
    let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            private(&entry.unwrap().path());
        }
    }
}

#[tokio::test]
async fn the_service_runs_without_the_provisioning_directory_and_admits_nobody_then() {
    let directory = found("");
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    let out = bundle.to_str().unwrap();
    operator(&["store", "add", "lyon", "--out", out], &state);
    std::fs::rename(state.join("provisioning"), directory.path().join("away")).unwrap();
    let (mut child, address) = start(&state);
    let lyon = Gateway::read(&bundle, address);
    lyon.hello().await;
    let other = directory.path().join("other");
    let (code, text) =
        operator(&["store", "add", "paris", "--out", other.to_str().unwrap()], &state);
    assert_eq!(code, 1);
    assert!(text.contains("provisioning"), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_new_start() {
    let directory = found("");
    let (state, bundle) = (directory.path().join("state"), directory.path().join("bundle"));
    operator(&["store", "add", "lyon", "--out", bundle.to_str().unwrap()], &state);
    let (mut child, address) = start(&state);
    let lyon = Gateway::read(&bundle, address);
    let before = lyon.server_certificate().await;
    assert_eq!(operator(&["renew-server"], &state), (0, String::new()));
    let mut shown = lyon.server_certificate().await;
    for _ in 0..100 {
        if shown != before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        shown = lyon.server_certificate().await;
    }
    assert_ne!(shown, before);
    lyon.hello().await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn metrics_count_and_name_nobody() {
    let cloud = common::Cloud::start();
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    assert!(paris.finds(&person).await);
    lyon.erase(&person).await;
    let authority = std::fs::read_to_string(cloud.state().join("authority.pem")).unwrap();
    let anybody = common::client(None, &authority);
    let monitor = async |path: &str| {
        anybody.get(format!("http://{}{path}", cloud.monitor)).send().await.unwrap()
    };
    let plain = monitor("/metrics").await;
    let text = plain.text().await.unwrap();
    for line in [
        "palmgate_registry_members{custody=\"operator\"} 0",
        "palmgate_registry_stores 2",
        "palmgate_registry_unconfirmed_removals 2",
        "palmgate_registry_tombstones 2",
        "palmgate_registry_requests_total{endpoint=\"registrations\",outcome=\"ok\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let id = data_encoding::HEXLOWER.encode(person.member.as_bytes());
    let claim = data_encoding::HEXLOWER.encode(person.claim.as_bytes());
    assert!(!text.contains(&id) && !text.contains(&claim));
    let store = lyon.get("/metrics").await;
    assert_eq!(store.status(), StatusCode::OK);
    assert_eq!(monitor("/v1/directory").await.status(), StatusCode::NOT_FOUND);
}
