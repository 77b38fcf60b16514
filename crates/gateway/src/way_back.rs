//! The state's way back to the format before: given up while the gateway runs, taken while it does not.

use crate::{
    clock,
    decision_log::DecisionLog,
    identity, in_use,
    run::{Options, StartError},
    scribe::CHECKPOINT,
};
use palmgate_ledger::{Entry, EntryKind, Ledger, NOBODY};
use palmgate_update::{Reason, Refusal, Version};
use palmgate_vault::{Vault, VaultError};
use std::path::{Path, PathBuf};

pub use palmgate_vault::{FORMAT, RolledBack, WayBack};

/// The last release with the vault's format before the present one.
const LAST_BEFORE: Version = Version::new(0, 1, 0);

/// The format of a state, and where it can go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The vault's; `None` before the first start.
    pub present: Option<u16>,
    /// The one before, until it is given up.
    pub way_back: Option<WayBack>,
}

/// Looks at the state of a gateway, which may be running.
///
/// # Errors
/// The state cannot be read.
pub fn formats(state: &Path) -> Result<Formats, anyhow::Error> {
    let vault = vault(state);
    let (present, way_back) = (Vault::format_in(&vault)?, Vault::way_back_in(&vault)?);
    Ok(Formats { present, way_back })
}

fn vault(state: &Path) -> PathBuf {
    state.join("vault")
}

/// Brings the state of a gateway that does not run to the format before, for an older program; `None`
/// where it has an older format already. What happened since the update stays, erasures above all. The
/// ledger says so.
///
/// # Errors
/// [`VaultError::NoWayBack`] where the migration is committed; a version floor above every program that
/// reads that format; the gateway runs; the disk or the keeper of the root.
pub fn roll_back(options: &Options) -> Result<Option<RolledBack>, StartError> {
    let (state, directory) = (&options.state_directory, vault(&options.state_directory));
    let found = formats(state)?;
    let refused = match (found.present, found.way_back) {
        (Some(_), Some(_)) => None,
        (Some(format), None) if format < FORMAT => return Ok(None),
        (Some(format), None) => Some(VaultError::NoWayBack { path: directory.clone(), format }),
        (None, _) => {
            let (path, remedy) = (directory.join("format"), "name the box's own configuration");
            Some(VaultError::Missing { path, remedy })
        }
    };
    if let Some(refused) = refused {
        return Err(anyhow::Error::from(refused).into());
    }
    let announced = in_use::announced_floor(&options.updates)?;
    // The keys of everybody are about to be in memory, as far as the system protects that.
    let _ = palmgate_vault::protect_memory();
    let keeper = options.root.keeper(state)?;
    let vault = Vault::open(&directory, &options.tenant, keeper).map_err(anyhow::Error::from)?;
    in_use::keep_floor(&vault, announced, state)?;
    if let Some(floor) = in_use::kept_floor(&vault)? {
        check_floor(&floor, &directory)?;
    }
    log(options, &vault)?;
    Ok(Some(vault.roll_back().map_err(anyhow::Error::from)?))
}

/// The floor is the only thing that keeps an older program from a state; those of before it do not ask.
fn check_floor(floor: &Version, path: &Path) -> Result<(), Refusal> {
    if *floor <= LAST_BEFORE {
        return Ok(());
    }
    Err(Refusal {
        reason: Reason::BelowFloor,
        path: path.to_owned(),
        wanted: format!("a state for version {floor} or above, the floor of a security release"),
        found: format!("no such version that reads the format before: the last is {LAST_BEFORE}"),
        remedy: "stay with this release, or install a newer one",
    })
}

fn log(options: &Options, vault: &Vault) -> Result<(), anyhow::Error> {
    let Some(key) = identity::signing_key(vault)? else { return Ok(()) };
    let origin = palmgate_ledger::origin(&options.tenant, &options.store);
    let ledger = Ledger::open(&options.state_directory.join("ledger"), &origin, key)?;
    if let Some(note) = vault.state(CHECKPOINT)? {
        ledger.continues(&String::from_utf8_lossy(note.expose()))?;
    }
    let mut log = DecisionLog::new(ledger);
    log.log(entry("state-rolled-back", in_use::kept_pack(vault)?))?;
    log.flush()?;
    Ok(vault.put_state(CHECKPOINT, log.ledger().checkpoint().as_bytes())?)
}

/// Gives up the way back, on record first; what it was.
pub(crate) fn commit(
    vault: &Vault,
    (log, pack): (&mut DecisionLog, [u8; 32]),
) -> Result<Option<WayBack>, anyhow::Error> {
    let Some(given_up) = vault.way_back()? else { return Ok(None) };
    log.log(entry("state-committed", pack))?;
    log.flush()?;
    vault.commit_format()?;
    Ok(Some(given_up))
}

/// A floor above every older program that could read the format before ends the way back. What fails
/// now is done at the next start.
pub(crate) fn end_below_floor(
    options: &Options,
    vault: &Vault,
    (log, pack): (&mut DecisionLog, [u8; 32]),
) {
    let directory = self::vault(&options.state_directory);
    let ended = in_use::kept_floor(vault).and_then(|floor| {
        let is_above = floor.is_some_and(|floor| check_floor(&floor, &directory).is_err());
        if is_above { commit(vault, (log, pack)) } else { Ok(None) }
    });
    if let Err(error) = ended {
        tracing::warn!(%error, "the state's way back could not be ended");
    }
}

/// An operator's act: no decision about anybody, and no rule asks for it.
fn entry(outcome: &str, pack: [u8; 32]) -> Entry {
    Entry {
        at: clock::now(),
        kind: EntryKind::Operation,
        terminal: None,
        purpose: None,
        outcome: outcome.into(),
        rules: Vec::new(),
        pack,
        commitment: NOBODY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_seal::sign::SigningKey;
    use palmgate_vault::MemoryRoot;

    #[test]
    fn no_state_goes_back_below_the_floor_of_a_security_release() {
        let path = Path::new("/var/lib/palmgate/vault");
        for floor in ["0.0.9", "0.1.0"] {
            check_floor(&floor.parse().unwrap(), path).unwrap();
        }
        let refused = check_floor(&"0.1.1".parse().unwrap(), path).unwrap_err().to_string();
        assert!(
            refused.contains("palmgate/vault: wanted") && refused.contains("0.1.1"),
            "{refused}"
        );
        assert!(refused.contains("the last is 0.1.0; stay with"), "{refused}");
    }

    #[test]
    fn a_way_back_is_given_up_once_and_on_record() {
        let directory = tempfile::tempdir().unwrap();
        let (state, root) = (directory.path(), Box::new(MemoryRoot::new()));
        let vault = Vault::open(&vault(state), &"chain".parse().unwrap(), root).unwrap();
        let key = SigningKey::generate();
        let ledger = Ledger::open(&state.join("ledger"), "palmgate.test/store", key).unwrap();
        let mut log = DecisionLog::new(ledger);
        assert_eq!(commit(&vault, (&mut log, [1; 32])).unwrap(), None);
        std::fs::write(state.join("vault/way-back"), "palmgate vault 1\n").unwrap();
        assert_eq!(formats(state).unwrap().way_back.unwrap().format, 1);
        assert_eq!(commit(&vault, (&mut log, [1; 32])).unwrap().unwrap().format, 1);
        assert_eq!(commit(&vault, (&mut log, [1; 32])).unwrap(), None);
        assert_eq!(formats(state).unwrap(), Formats { present: Some(FORMAT), way_back: None });
        let entry = log.ledger().entries(0..1).unwrap().next().unwrap().unwrap().1;
        assert_eq!((entry.outcome.as_str(), entry.pack), ("state-committed", [1; 32]));
        assert_eq!(log.ledger().signed_len(), 1);
    }
}
