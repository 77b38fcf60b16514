use super::{Facts, Outcome};
use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

/// How far files may be from the future: file systems count in seconds.
const SLACK: Duration = Duration::from_secs(2);

/// The clock is kept right, was not set back behind what the state directory has seen, and has not
/// jumped ahead since.
pub(super) fn check(facts: &Facts) -> Outcome {
    let set = "set the clock and keep it: apt install systemd-timesyncd, or chrony";
    let now = Duration::from_millis(facts.now.as_millis().unsigned_abs());
    let newest = facts.state().and_then(newest);
    if let Some(ahead) = newest.and_then(|newest| newest.checked_sub(now + SLACK)) {
        let found =
            format!("the clock is {} s behind the newest file of the state", ahead.as_secs());
        return Outcome::fail(found, set);
    }
    if facts.metric("palmgate_clock_doubted") == Some(1.0) {
        let found = "the clock jumped, and nobody has confirmed it";
        return Outcome::fail(
            found,
            format!("{set}; then `palmgate clock` tells how to confirm it"),
        );
    }
    match facts.synchronised {
        Some(true) => Outcome::ok("synchronised"),
        Some(false) => Outcome::warn("the system says that its clock is not synchronised", set),
        None => Outcome::warn("nobody says whether the clock is synchronised", set),
    }
}

/// The last change of an entry of the state directory, since 1970.
fn newest(state: &std::path::Path) -> Option<Duration> {
    let entries = fs::read_dir(state).ok()?.flatten();
    let changed = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    changed.filter_map(|at| at.duration_since(UNIX_EPOCH).ok()).max()
}
