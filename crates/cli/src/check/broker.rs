use super::{Facts, Outcome};
use palmgate_gateway::Broker;

/// Messages pass through the broker on the gateway's connection, and a new connection, made as a
/// terminal makes it, is let in and gets its message.
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
    if !told.broker {
        return Outcome::fail(format!("no message comes back through {which}"), remedy);
    }
    match &facts.probed {
        Some(Err(error)) => {
            Outcome::fail(format!("{which} serves the gateway but no newcomer: {error}"), remedy)
        }
        Some(Ok(took)) => {
            let took = took.as_secs_f64() * 1e3;
            Outcome::ok(format!("{which} connected and delivered anew in {took:.1} ms"))
        }
        None => Outcome::ok(format!("messages pass through {which}")),
    }
}
