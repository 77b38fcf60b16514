use super::{Facts, Outcome};

const MEBIBYTE: u64 = 1 << 20;
/// Below this the next erasures and the ledger are in danger.
const LEAST: u64 = 64 * MEBIBYTE;
/// Below this somebody should make room.
const ENOUGH: u64 = 512 * MEBIBYTE;

/// The disk has room for what must be written.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(state) = facts.state() else { return Outcome::skip("without a configuration") };
    let Some(place) = state.ancestors().find(|place| place.exists()) else {
        return Outcome::skip("no directory above the state directory exists");
    };
    let at = place.display();
    let free = match rustix::fs::statvfs(place) {
        Ok(disk) => disk.f_bavail * disk.f_frsize,
        Err(error) => return Outcome::fail(format!("{at}: {error}"), "run this as root"),
    };
    judge(&format!("{} MiB free at {at}", free / MEBIBYTE), free)
}

fn judge(found: &str, free: u64) -> Outcome {
    let remedy = "make room: journalctl --vacuum-size=200M, remove old packages, a larger disk";
    match free {
        0..LEAST => Outcome::fail(format!("{found}: scans will be refused"), remedy),
        LEAST..ENOUGH => Outcome::warn(found, remedy),
        _ => Outcome::ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn little_room_is_to_be_looked_after_and_none_is_a_failure() {
        let status = |free| judge("", free).status;
        assert_eq!(status(LEAST - 1), Status::Fail);
        assert_eq!(status(LEAST), Status::Warn);
        assert_eq!(status(ENOUGH), Status::Ok);
    }
}
