use super::{Facts, Outcome};
use palmgate_protocol::Timestamp;
use std::time::Duration;

/// Rounds that may fail before it counts.
const ROUNDS: u32 = 3;
/// The lease should be longer than this.
const LEASE: Duration = Duration::from_hours(24);

/// The store is in step with its cloud, and the shard's lease has time left.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(config) = facts.config() else { return Outcome::skip("without a configuration") };
    let Some(cloud) = &config.options.cloud else { return Outcome::ok("none: the store is alone") };
    if facts.metrics().is_none() {
        return Outcome::skip("the daemon does not tell");
    }
    let since = |metric| {
        let at = facts.metric(metric).filter(|seconds| *seconds > 0.0)?;
        Some(Timestamp::from_millis((at * 1e3) as i64))
    };
    let last = since("palmgate_cloud_last_round_timestamp_seconds").map(|at| facts.now.since(at));
    let late = cloud.refresh * ROUNDS + cloud.timeout;
    let unreachable = "the store goes on until the lease ends. Is there a way out, does the bundle \
                       hold (`palmgate-cloud store list`)? journalctl -u palmgated tells";
    let lease = since("palmgate_shard_lease_timestamp_seconds");
    if lease.is_some_and(|ends| ends <= facts.now) {
        return Outcome::fail("the shard's lease has ended: it is locked", unreachable);
    }
    match (last, lease) {
        (None, _) => Outcome::fail("no round with the cloud since the daemon started", unreachable),
        (Some(ago), _) if ago > late => {
            Outcome::fail(format!("the last round was {} s ago", ago.as_secs()), unreachable)
        }
        (Some(_), Some(ends)) if ends.since(facts.now) < LEASE => {
            let hours = ends.since(facts.now).as_secs() / 3600;
            let remedy = "the cloud renews it with every shard: see palmgate-cloud's log";
            Outcome::warn(format!("the lease ends in {hours} hours"), remedy)
        }
        (Some(ago), _) => Outcome::ok(format!("in step {} s ago", ago.as_secs())),
    }
}
