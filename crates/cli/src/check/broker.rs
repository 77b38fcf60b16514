use super::{Facts, Outcome};
use palmgate_gateway::Broker;

/// A message went through the broker and came back.
pub(super) fn check(facts: &Facts) -> Outcome {
    let (Some(config), Some(Ok(told))) = (facts.config(), &facts.told) else {
        return Outcome::skip("the daemon does not tell");
    };
    let (which, remedy) = match &config.options.broker {
        Broker::Embedded { .. } => (
            "the embedded broker".to_owned(),
            "systemctl restart palmgated, and report what journalctl -u palmgated says".to_owned(),
        ),
        Broker::External { host, port } => (
            format!("the broker {host}:{port}"),
            format!(
                "is {host}:{port} reachable, does it show the certificate of `palmgate broker`, \
                 and do its rules admit `gateway`? journalctl -u palmgated tells"
            ),
        ),
    };
    if told.broker {
        return Outcome::ok(format!("messages pass through {which}"));
    }
    Outcome::fail(format!("no message comes back through {which}"), remedy)
}
