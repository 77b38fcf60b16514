use super::{Facts, Outcome};
use palmgate_protocol::{DAY, Timestamp};

/// A certificate that ends within this time should be looked after.
const SOON: std::time::Duration = std::time::Duration::from_hours(21 * 24);
const METRIC: &str = "palmgate_certificate_expiry_timestamp_seconds";

/// Certificates have time left: the gateway's, its authority's, the cloud's for this store, an
/// external broker's, and the terminal's that ends first.
pub(super) fn check(facts: &Facts) -> Outcome {
    // Terminals are told with their names.
    let kinds = facts.labels(METRIC, "certificate").into_iter().filter(|kind| *kind != "terminal");
    let of_gateway = kinds.filter_map(|which| {
        let ends = facts.metric(&format!("{METRIC}{{certificate=\"{which}\"}}"))?;
        Some((format!("of the {which}"), Timestamp::from_millis((ends * 1e3) as i64)))
    });
    let listed = facts.terminals.iter().flatten().flatten();
    let of_terminals = listed.map(|terminal| {
        let ends = Timestamp::from_millis(terminal.certificate_ends_ms);
        (format!("of terminal {}", terminal.name), ends)
    });
    let first = of_gateway.chain(of_terminals).min_by_key(|(_, ends)| *ends);
    let Some((which, ends)) = first else { return Outcome::skip("the daemon does not tell") };
    judge(&which, ends, facts.now)
}

fn judge(which: &str, ends: Timestamp, now: Timestamp) -> Outcome {
    let remedy = "the gateway and a connected terminal renew their own long before: journalctl -u \
                  palmgated tells why they did not. A terminal whose certificate has ended is paired \
                  anew; `palmgate-cloud store renew` gives the cloud's, `palmgate broker` an external \
                  broker's";
    if ends <= now {
        return Outcome::fail(format!("the certificate {which} has ended"), remedy);
    }
    let left = ends.since(now);
    let found = format!("the one {which} ends first, in {} days", left.as_secs() / DAY.as_secs());
    if left < SOON { Outcome::warn(found, remedy) } else { Outcome::ok(found) }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn a_certificate_is_looked_after_before_it_ends() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let status = |ends| judge("of the gateway", ends, now).status;
        assert_eq!(status(now), Status::Fail);
        assert_eq!(status(now.after(SOON / 2)), Status::Warn);
        assert_eq!(status(now.after(SOON)), Status::Ok);
    }
}
