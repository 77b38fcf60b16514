use super::{Facts, Outcome};

/// Decisions can be written down, and no erasure waits.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(entries) = facts.metric("palmgate_ledger_entries") else {
        return Outcome::skip("the daemon does not tell");
    };
    if facts.metric("palmgate_ledger_writable") != Some(1.0) {
        let remedy = "make room on the disk, or see to it: journalctl -u palmgated; then restart";
        return Outcome::fail("the ledger cannot be written: scans are refused", remedy);
    }
    let waiting = facts.metric("palmgate_erasures_unfinished").unwrap_or_default();
    let found = format!("{entries} entries, {waiting} erasures not yet durable");
    if waiting == 0.0 {
        return Outcome::ok(found);
    }
    Outcome::warn(found, "look again in a minute; if they stay, journalctl -u palmgated tells why")
}
