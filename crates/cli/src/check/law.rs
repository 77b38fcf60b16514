use super::{Facts, Outcome};

/// The law pack can be read, lets the store open, and is the one that the running gateway goes by.
pub(super) fn check(facts: &Facts) -> Outcome {
    let pack = match &facts.pack {
        None => return Outcome::skip("without a configuration there is no law pack"),
        Some(Err(refusal)) => {
            let remedy = "see to what the rules ask for in [law], or declare less in [store]; \
                          `palmgate policy coverage` shows every rule";
            return Outcome::fail(refusal, remedy);
        }
        Some(Ok(pack)) => pack,
    };
    let found = format!("{}, SHA-256 {}", pack.layers.join(", "), &pack.hash[..16]);
    match facts.labels("palmgate_build_info", "pack").first() {
        Some(running) if *running != pack.hash => {
            let found = format!("{found}; the gateway was started with {}", &running[..16]);
            Outcome::fail(found, "systemctl restart palmgated")
        }
        _ => Outcome::ok(found),
    }
}
