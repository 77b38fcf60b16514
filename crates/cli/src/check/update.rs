use super::{Facts, Outcome};
use palmgate_gateway::way_back::{self, Formats};
use palmgate_protocol::{DAY, Timestamp};

/// An update that changed the state's format is committed, or somebody is told since when it is not.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(state) = facts.state() else { return Outcome::skip("without a configuration") };
    match way_back::formats(state) {
        Err(error) => Outcome::fail(error.to_string(), "run this as root"),
        Ok(Formats { present: None, .. }) => Outcome::skip("there is no vault yet"),
        Ok(Formats { present: Some(format), way_back: None }) => {
            Outcome::ok(format!("the vault is in format {format}"))
        }
        Ok(Formats { present: Some(format), way_back: Some(back) }) => Outcome::warn(
            format!(
                "the vault went from format {} to {format}, which is not committed for {}",
                back.format,
                days(back.since, facts.now)
            ),
            "palmgate update commit when all works; or stop palmgated and palmgate update rollback",
        ),
    }
}

fn days(since: Timestamp, now: Timestamp) -> String {
    let passed = now.as_millis().saturating_sub(since.as_millis()).max(0);
    match passed.unsigned_abs() / (DAY.as_secs() * 1000) {
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}
