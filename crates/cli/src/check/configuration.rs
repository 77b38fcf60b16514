use super::{Facts, Outcome};
use std::os::unix::fs::PermissionsExt;

/// The file is there, nobody else can change it, and every value in it is allowed.
pub(super) fn check(facts: &Facts) -> Outcome {
    let file = facts.file.display();
    let config = match &facts.config {
        Ok(config) => config,
        Err(problem) => {
            let remedy = "correct what is named here, or pass another file with --config";
            return Outcome::fail(problem.trim_end(), remedy);
        }
    };
    let mode = std::fs::metadata(&facts.file).map_or(0, |file| file.permissions().mode());
    if mode & 0o022 != 0 {
        let found = format!("{file} has mode {:04o}: others can change it", mode & 0o7777);
        return Outcome::fail(found, format!("chmod 0640 {file}"));
    }
    let options = &config.options;
    let (store, custody) = (&options.store, options.settings.custody);
    let found = format!("{file}: store {store} of {}, custody {custody}", options.tenant);
    if options.settings.production {
        return Outcome::ok(found);
    }
    let remedy = "set [law] production = true before real people enrol here";
    Outcome::warn(format!("{found}, not for production"), remedy)
}
