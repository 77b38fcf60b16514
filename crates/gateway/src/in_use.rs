//! What this box runs: never below the version floor, and in the ledger when it changes.

use crate::{
    clock,
    decision_log::DecisionLog,
    run::{Options, StartError},
};
use palmgate_ledger::{Entry, EntryKind, NOBODY, note::Signer};
use palmgate_update::{Installed, Version, check_floor};
use palmgate_vault::Vault;
use std::path::{Path, PathBuf};

const FLOOR: &str = "version-floor";
const PROGRAM: &str = "in-use-program";
const BUNDLE: &str = "in-use-bundle";
const MODELS: &str = "in-use-models";
const PACK: &str = "in-use-pack";

/// Whose updates are taken, and where what they brought lies: table `[update]`.
#[derive(Clone, Debug)]
pub struct Updates {
    /// What bundles left.
    pub directory: PathBuf,
    /// People trusted to sign bundles and registries of models.
    pub signers: Vec<Signer>,
}

impl Updates {
    /// What bundles left.
    pub fn installed(&self) -> Installed {
        Installed::at(self.directory.clone())
    }
}

/// The version of this program.
fn program() -> Result<Version, anyhow::Error> {
    Ok(env!("CARGO_PKG_VERSION").parse()?)
}

/// The floor that the last bundles left: asked before anything of the state is opened, so that an older
/// program changes nothing of it.
pub(crate) fn announced_floor(updates: &Updates) -> Result<Option<Version>, StartError> {
    let installed = updates.installed();
    let floor = installed.floor()?;
    if let Some(floor) = &floor {
        check_floor(&program()?, floor, &installed.floor_path())?;
    }
    Ok(floor)
}

/// The floor that the vault knows, which nobody lowers by removing a file; it rises to `announced`.
pub(crate) fn keep_floor(
    vault: &Vault,
    announced: Option<Version>,
    directory: &Path,
) -> Result<(), StartError> {
    let kept = kept_floor(vault)?;
    if let Some(floor) = &kept {
        check_floor(&program()?, floor, &directory.join("vault"))?;
    }
    if let Some(floor) = announced.filter(|floor| kept.as_ref().is_none_or(|kept| floor > kept)) {
        vault.put_state(FLOOR, floor.to_string().as_bytes()).map_err(anyhow::Error::from)?;
        tracing::info!(%floor, "no version below runs on this state from now on");
    }
    Ok(())
}

/// The highest floor that this vault has seen.
pub(crate) fn kept_floor(vault: &Vault) -> Result<Option<Version>, anyhow::Error> {
    let Some(kept) = vault.state(FLOOR)? else { return Ok(None) };
    Ok(Some(std::str::from_utf8(kept.expose())?.parse()?))
}

/// The pack that was in force last; zeros before the first.
pub(crate) fn kept_pack(vault: &Vault) -> Result<[u8; 32], anyhow::Error> {
    let kept = vault.state(PACK)?;
    Ok(kept.and_then(|pack| pack.expose().as_slice().try_into().ok()).unwrap_or_default())
}

/// Logs what is not as at the last start. What cannot be logged now is logged at the next start.
pub(crate) fn note(
    options: &Options,
    (pack, models): ([u8; 32], [u8; 32]),
    log: &mut DecisionLog,
    vault: &Vault,
) {
    let bundle = options.updates.installed().bundle().unwrap_or_else(|refusal| {
        tracing::warn!(%refusal, "which bundle was installed last is not known");
        None
    });
    let version = env!("CARGO_PKG_VERSION");
    let entry = |kind, outcome: String, commitment| Entry {
        at: clock::now(),
        kind,
        terminal: None,
        purpose: None,
        outcome,
        rules: Vec::new(),
        pack,
        commitment,
    };
    let mut things = vec![
        (PROGRAM, version.as_bytes().to_vec(), entry(EntryKind::Update, outcome(version), NOBODY)),
        (MODELS, models.to_vec(), entry(EntryKind::Model, "in-use".into(), models)),
        (PACK, pack.to_vec(), entry(EntryKind::Pack, "in-force".into(), NOBODY)),
    ];
    if let Some(id) = bundle {
        let installed = entry(EntryKind::Update, "bundle-installed".into(), id);
        things.push((BUNDLE, id.to_vec(), installed));
    }
    for (name, value, entry) in things {
        if let Err(error) = note_one(name, &value, entry, log, vault) {
            tracing::warn!(name, %error, "what is in use could not be put on record");
        }
    }
}

fn note_one(
    name: &str,
    value: &[u8],
    entry: Entry,
    log: &mut DecisionLog,
    vault: &Vault,
) -> Result<(), anyhow::Error> {
    if vault.state(name)?.is_some_and(|known| known.expose() == value) {
        return Ok(());
    }
    log.log(entry)?;
    log.flush()?;
    Ok(vault.put_state(name, value)?)
}

/// A pack that was put in force while the gateway runs, and is in the ledger already.
pub(crate) fn keep_pack(vault: &Vault, pack: [u8; 32]) -> Result<(), anyhow::Error> {
    Ok(vault.put_state(PACK, &pack)?)
}

/// The ledger's words hold no more than four digits, lest one could be a number of somebody.
fn outcome(version: &str) -> String {
    let fits = version.bytes().filter(u8::is_ascii_digit).count() <= 4
        && version.len() < 32
        && !version.contains('+');
    if fits { format!("program:{}", version.to_lowercase()) } else { "program:other".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_vault::MemoryRoot;

    fn vault(directory: &Path) -> Vault {
        let root = Box::new(MemoryRoot::new());
        Vault::open(directory, &"chain".parse().unwrap(), root).unwrap()
    }

    fn kept(vault: &Vault) -> Option<String> {
        let kept = vault.state(FLOOR).unwrap();
        kept.map(|kept| String::from_utf8(kept.expose().clone()).unwrap())
    }

    #[test]
    fn the_floor_in_the_vault_only_rises_and_does_not_need_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let vault = vault(&directory.path().join("vault"));
        let at = |floor: &str| Some(floor.parse().unwrap());
        keep_floor(&vault, None, directory.path()).unwrap();
        assert_eq!(kept(&vault), None);
        for (announced, then) in [("0.0.2", "0.0.2"), ("0.0.1", "0.0.2"), ("0.0.10", "0.0.10")] {
            keep_floor(&vault, at(announced), directory.path()).unwrap();
            assert_eq!(kept(&vault).as_deref(), Some(then));
        }
        vault.put_state(FLOOR, b"99.0.0").unwrap();
        let refused = keep_floor(&vault, None, directory.path()).unwrap_err();
        assert!(refused.is_configuration() && refused.to_string().contains("99.0.0"), "{refused}");
        assert_eq!(kept(&vault).as_deref(), Some("99.0.0"));
    }

    #[test]
    fn a_floor_above_this_program_is_found_before_the_state_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let updates = Updates { directory: directory.path().to_owned(), signers: Vec::new() };
        assert!(announced_floor(&updates).unwrap().is_none());
        std::fs::write(directory.path().join("floor"), "99.0.0\n").unwrap();
        assert!(announced_floor(&updates).unwrap_err().is_configuration());
        std::fs::write(directory.path().join("floor"), "0.0.1\n").unwrap();
        assert_eq!(announced_floor(&updates).unwrap(), Some("0.0.1".parse().unwrap()));
    }

    #[test]
    fn every_version_has_words_that_the_ledger_takes() {
        for version in ["0.1.0", "10.20.30", "1.2.3-rc.1", "1.2.3-RC", "1.2.3+build"] {
            let outcome = outcome(version);
            let entry = Entry {
                at: palmgate_protocol::Timestamp::from_millis(0),
                kind: EntryKind::Update,
                terminal: None,
                purpose: None,
                outcome: outcome.clone(),
                rules: Vec::new(),
                pack: [0; 32],
                commitment: NOBODY,
            };
            assert!(entry.to_line().is_ok(), "{version}: {outcome}");
        }
    }
}
