use super::{Facts, Outcome};

/// The daemon runs, and answers those who may control it.
pub(super) fn process(facts: &Facts) -> Outcome {
    match &facts.terminals {
        None => Outcome::skip("without a configuration"),
        Some(Ok(terminals)) => {
            let count = terminals.len();
            let found = format!("palmgated answers at its control socket; {count} terminals");
            if count > 0 {
                return Outcome::ok(found);
            }
            Outcome::warn(found, "palmgate terminal add NAME --purpose pay")
        }
        Some(Err(error)) => {
            let remedy = "systemctl start palmgated; journalctl -u palmgated tells why it ended";
            Outcome::fail(error, remedy)
        }
    }
}

/// Terminals and monitoring can reach it.
pub(super) fn https(facts: &Facts) -> Outcome {
    match &facts.told {
        None => Outcome::skip("the daemon does not run"),
        Some(Ok(told)) if told.alive => Outcome::ok("pairing, health and metrics are served"),
        Some(Ok(_)) => {
            let remedy =
                "systemctl restart palmgated, and report what journalctl -u palmgated says";
            Outcome::fail("the event loop does not tick", remedy)
        }
        Some(Err(error)) => {
            let remedy =
                "see [listen] https: is another program at that port, or a firewall before it?";
            Outcome::fail(error, remedy)
        }
    }
}
