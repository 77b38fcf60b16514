use super::{Facts, Outcome};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Entries looked at, so that a check ends.
const MAX_ENTRIES: usize = 20_000;

/// The state directory belongs to one user, who alone can read it.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(state) = facts.state() else { return Outcome::skip("without a configuration") };
    let at = state.display();
    let meta = match fs::metadata(state) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "systemctl start palmgated: the unit makes it";
            return Outcome::warn(format!("{at} is not there yet"), remedy);
        }
        Err(error) => return Outcome::fail(format!("{at}: {error}"), "run this as root"),
    };
    if !meta.is_dir() {
        let remedy = "name a directory in [store] state_directory";
        return Outcome::fail(format!("{at} is not a directory"), remedy);
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let found = format!("{at} has mode {mode:04o}, 0700 is wanted: others can look into it");
        return Outcome::fail(found, format!("chmod 0700 {at}"));
    }
    match stranger(state, meta.uid()) {
        Err((path, error)) => {
            Outcome::fail(format!("{}: {error}", path.display()), "run this as root")
        }
        Ok(Some((path, owner))) => {
            let found =
                format!("{} belongs to user {owner}, {at} to {}", path.display(), meta.uid());
            Outcome::fail(found, format!("stop palmgated, then chown -R --reference={at} {at}"))
        }
        Ok(None) => Outcome::ok(format!("{at}, mode 0700")),
    }
}

/// The first entry below `state` that belongs to somebody else, as after a daemon was started by
/// root once.
fn stranger(state: &Path, owner: u32) -> Result<Option<(PathBuf, u32)>, (PathBuf, io::Error)> {
    let mut places = vec![state.to_owned()];
    let mut left = MAX_ENTRIES;
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).map_err(|error| (place.clone(), error))? {
            let path = entry.map_err(|error| (place.clone(), error))?.path();
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                // A running gateway removes files, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err((path, error)),
            };
            left = left.saturating_sub(1);
            if meta.uid() != owner {
                return Ok(Some((path, meta.uid())));
            }
            if meta.is_dir() && left > 0 {
                places.push(path);
            }
        }
    }
    Ok(None)
}
