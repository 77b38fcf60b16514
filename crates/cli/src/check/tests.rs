use super::{facts::Told, *};
use palmgate_gateway::config::Config;
use palmgate_protocol::Timestamp;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn facts(state: &Path, extra: &str) -> Facts {
    if state.exists() {
        fs::set_permissions(state, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let text = format!("[store]\nstate_directory = {:?}\n{extra}", state.display().to_string());
    Facts {
        file: "palmgated.toml".into(),
        now: NOW,
        config: Config::parse(&text, "palmgated.toml", NOW).map_err(|errors| errors.to_string()),
        pack: None,
        terminals: None,
        told: None,
        probed: None,
        synchronised: None,
    }
}

fn told(broker: bool, metrics: &str) -> Told {
    Told { alive: true, broker, metrics: metrics.to_owned() }
}

fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.check == check).unwrap()
}

#[test]
fn a_wrong_configuration_fails_with_its_line_and_what_depends_on_it_is_left_out() {
    let findings = examine(&facts(Path::new("/nowhere"), "colour = \"blue\"\n"));
    let configuration = of(&findings, "configuration");
    assert_eq!(configuration.status, Status::Fail);
    assert!(configuration.found.contains("palmgated.toml:3"), "{}", configuration.found);
    assert_eq!(of(&findings, "broker").status, Status::Skip);
    let told = super::told(&findings);
    assert!(told.ends_with("begin with configuration"), "{told}");
}

#[test]
fn a_state_directory_that_others_can_read_fails_with_the_command_that_helps() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode));
    let closed = facts(directory.path(), "");
    mode(0o750).unwrap();
    let findings = examine(&closed);
    let state = of(&findings, "state");
    assert_eq!(state.status, Status::Fail);
    assert!(state.found.contains("0750") && state.found.contains("0700"), "{}", state.found);
    assert!(state.remedy.as_ref().unwrap().starts_with("chmod 0700 /"));
    mode(0o700).unwrap();
    assert_eq!(of(&examine(&closed), "state").status, Status::Ok);
}

#[test]
fn a_clock_behind_the_state_fails() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("later"), "").unwrap();
    let mut facts = facts(directory.path(), "");
    facts.now = Timestamp::from_millis(0);
    facts.synchronised = Some(true);
    assert_eq!(of(&examine(&facts), "clock").status, Status::Fail);
    facts.now = Timestamp::from_millis(i64::MAX);
    assert_eq!(of(&examine(&facts), "clock").status, Status::Ok);
    facts.told = Some(Ok(told(true, "palmgate_clock_doubted 1\n")));
    assert_eq!(of(&examine(&facts), "clock").status, Status::Fail);
    facts.told = Some(Ok(told(true, "palmgate_clock_doubted 0\n")));
    assert_eq!(of(&examine(&facts), "clock").status, Status::Ok);
}

#[test]
fn the_hop_that_fails_is_the_one_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut facts = facts(directory.path(), "[cloud]\nidentity = \"/etc/palmgate/bundle\"\n");
    facts.terminals = Some(Ok(Vec::new()));
    let metrics = "palmgate_ledger_entries 7\npalmgate_ledger_writable 1\n\
                   palmgate_cloud_last_round_timestamp_seconds 1799999990\n\
                   palmgate_shard_lease_timestamp_seconds 0\n";
    facts.told = Some(Ok(told(false, metrics)));
    let findings = examine(&facts);
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.status == Status::Fail)
        .map(|finding| finding.check)
        .collect();
    assert_eq!(failed, ["broker"]);
    assert_eq!(of(&findings, "cloud").found, "in step 10 s ago");

    facts.told = Some(Ok(told(true, &metrics.replace("1799999990", "1799990000"))));
    let findings = examine(&facts);
    assert_eq!(of(&findings, "broker").status, Status::Ok);
    assert_eq!(of(&findings, "cloud").status, Status::Fail);
    facts.probed = Some(Err("CONNECT was refused".into()));
    let findings = examine(&facts);
    let broker = of(&findings, "broker");
    assert_eq!(broker.status, Status::Fail);
    assert!(broker.found.contains("no newcomer: CONNECT was refused"), "{}", broker.found);
    facts.probed = Some(Ok(Duration::from_millis(12)));
    assert_eq!(of(&examine(&facts), "broker").status, Status::Ok);

    facts.told = Some(Ok(told(true, &metrics.replace("writable 1", "writable 0"))));
    assert_eq!(of(&examine(&facts), "ledger").status, Status::Fail);
}

#[test]
fn the_calibration_says_what_it_is_of_and_a_wrong_one_fails() {
    let directory = tempfile::tempdir().unwrap();
    let built_in = of(&examine(&facts(directory.path(), "")), "calibration").clone();
    assert_eq!(built_in.status, Status::Ok);
    assert!(built_in.found.contains("simulated") && built_in.found.contains("pay: 0."));
    let production =
        of(&examine(&facts(directory.path(), "[law]\nproduction = true\n")), "calibration").clone();
    assert_eq!(production.status, Status::Warn, "{}", production.found);
    let path = directory.path().join("calibration.json");
    fs::write(&path, "{}").unwrap();
    let named = format!("[palm]\ncalibration = {:?}\n", path.display().to_string());
    let wrong = of(&examine(&facts(directory.path(), &named)), "calibration").clone();
    assert_eq!(wrong.status, Status::Fail);
    assert!(wrong.found.contains("calibration.json"), "{}", wrong.found);
}

#[test]
fn a_gateway_with_another_law_or_other_models_is_to_be_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let mut facts = facts(directory.path(), "");
    let pack = facts::Pack { layers: vec!["fr-cnil".into()], hash: "0".repeat(64) };
    facts.pack = Some(Ok(pack));
    let running =
        |hash: &str| format!("palmgate_build_info{{models=\"{hash}\",pack=\"{hash}\"}} 1\n");
    facts.told = Some(Ok(told(true, &running(&"1".repeat(64)))));
    let findings = examine(&facts);
    assert_eq!(of(&findings, "law").status, Status::Fail);
    assert_eq!(of(&findings, "models").status, Status::Fail);
    facts.told = Some(Ok(told(true, &running(&"0".repeat(64)))));
    assert_eq!(of(&examine(&facts), "law").status, Status::Ok);
}

#[test]
fn an_update_that_is_not_committed_is_named_with_its_age_and_both_ways_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut facts = facts(directory.path(), "");
    assert_eq!(of(&examine(&facts), "update").status, Status::Skip);
    let vault = directory.path().join("vault");
    fs::create_dir(&vault).unwrap();
    fs::write(vault.join("format"), "palmgate vault 2\ntenant lyon\n").unwrap();
    assert_eq!(of(&examine(&facts), "update").status, Status::Ok);
    fs::write(vault.join("way-back"), "palmgate vault 1\n").unwrap();
    let since = fs::metadata(vault.join("way-back")).unwrap().mtime();
    facts.now = Timestamp::from_millis((since + 3 * 24 * 3600 + 60) * 1000);
    let findings = examine(&facts);
    let update = of(&findings, "update");
    assert_eq!(update.status, Status::Warn);
    assert!(update.found.ends_with("not committed for 3 days"), "{}", update.found);
    let remedy = update.remedy.as_ref().unwrap();
    assert!(remedy.contains("update commit") && remedy.contains("update rollback"), "{remedy}");
    fs::write(vault.join("format"), "palmgate vault\n").unwrap();
    assert_eq!(of(&examine(&facts), "update").status, Status::Fail);
}
