use super::{Facts, Outcome};
use palmgate_palm::Extractor;
use std::os::unix::net::UnixStream;

/// The models are the reviewed ones, compute on this processor what they did at release, and are
/// those of the running gateway; a matcher of its own listens.
pub(super) fn check(facts: &Facts) -> Outcome {
    if let Err(error) = Extractor::load() {
        return Outcome::fail(
            error.to_string(),
            "install the package again, or report the processor",
        );
    }
    let hash = data_encoding::HEXLOWER.encode(&palmgate_palm::models_hash());
    let names = palmgate_palm::models().map(|(name, _)| name).join(", ");
    let found = format!("{names}; SHA-256 {}", &hash[..16]);
    if let Some(socket) = facts.config().and_then(|config| config.options.matcher.as_ref())
        && let Err(error) = UnixStream::connect(socket)
    {
        return Outcome::fail(
            format!("no matcher at {}: {error}", socket.display()),
            "systemctl start palmgate-matcher.socket, or leave [palm] matcher out",
        );
    }
    match facts.labels("palmgate_build_info", "models").first() {
        Some(running) if *running != hash => {
            let found = format!("{found}; the gateway runs with {}", &running[..16]);
            Outcome::fail(found, "systemctl restart palmgated: it is of another version")
        }
        _ => Outcome::ok(found),
    }
}
