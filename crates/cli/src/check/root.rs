use super::{Facts, Outcome};
use palmgate_gateway::RootKeeping;
use std::path::Path;

/// Where `systemd-creds` puts what the unit is given.
const CREDENTIAL: &str = "/etc/credstore.encrypted/palmgate-root";

/// The key above all keys is kept as configured, and what that promises to the erased.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(config) = facts.config() else { return Outcome::skip("without a configuration") };
    let missing = missing(&config.options.root);
    let running = facts.labels("palmgate_root_promise", "promise");
    match (missing, running.first()) {
        (Some(outcome), None) => outcome,
        (None, None) => Outcome::ok(format!("{}; not running", kept(&config.options.root))),
        (_, Some(&"destroyed")) => Outcome::ok("a TPM: replaced keys are destroyed"),
        (_, Some(promise)) => Outcome::warn(
            format!("replaced keys are {promise}: the disk may keep what was overwritten"),
            "[root] keeper = \"tpm\", with the drop-ins in palmgated.service.d",
        ),
    }
}

const fn kept(root: &RootKeeping) -> &'static str {
    match root {
        RootKeeping::File => "a file",
        RootKeeping::Credential => "a file under a systemd credential",
        RootKeeping::Tpm { .. } => "a TPM",
    }
}

/// What the keeper needs and does not have.
fn missing(root: &RootKeeping) -> Option<Outcome> {
    if matches!(root, RootKeeping::File) {
        let remedy = "[root] keeper = \"tpm\" or \"credential\"";
        return Some(Outcome::warn("a file: a copy of the disk opens everything", remedy));
    }
    if let RootKeeping::Tpm { tcti } = root
        && let Some(device) = tcti.strip_prefix("device:")
        && !Path::new(device).exists()
    {
        let remedy = "enable the TPM 2.0 in the firmware, or correct [root] tpm";
        return Some(Outcome::fail(format!("there is no TPM at {device}"), remedy));
    }
    if !Path::new(CREDENTIAL).exists() {
        let found = format!("the credential palmgate-root is not at {CREDENTIAL}");
        let remedy = "make it: head -c 32 /dev/urandom | systemd-creds encrypt \
                      --name=palmgate-root - /etc/credstore.encrypted/palmgate-root";
        return Some(Outcome::fail(found, remedy));
    }
    None
}
