use super::{Facts, Outcome};
use palmgate_matcher::Models;
use palmgate_palm::Extractor;
use std::os::unix::net::UnixStream;

/// The models are the reviewed ones, compute on this processor what they did at release, and are
/// those of the running gateway; a matcher of its own listens.
pub(super) fn check(facts: &Facts) -> Outcome {
    let hash = match extractor(facts) {
        Ok(extractor) => data_encoding::HEXLOWER.encode(&extractor.models_hash()),
        Err(error) => {
            let remedy = "install package or bundle again, or report the processor";
            return Outcome::fail(error.to_string(), remedy);
        }
    };
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

/// Hash of the models in use.
pub(super) fn hash(facts: &Facts) -> anyhow::Result<[u8; 32]> {
    let options = facts.config().map(|config| &config.options);
    match options.and_then(|options| Some((options.models.as_ref()?, &options.updates.signers))) {
        Some((directory, signers)) => Ok(Models::read(directory, signers)?.hash()),
        None => Ok(palmgate_palm::models_hash()),
    }
}

/// Those that the configuration names, or those that are built in.
fn extractor(facts: &Facts) -> anyhow::Result<Extractor> {
    let options = facts.config().map(|config| &config.options);
    match options.and_then(|options| Some((options.models.as_ref()?, &options.updates.signers))) {
        Some((directory, signers)) => Ok(Models::read(directory, signers)?.extractor()?),
        None => Ok(Extractor::load()?),
    }
}
