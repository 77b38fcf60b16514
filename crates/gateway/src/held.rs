//! Uses that a legal hold keeps when their person is erased (GDPR Art. 17(3)): when, where, for what,
//! and never of whom. They go with the last hold that covers them.

use crate::{clock, office::HeldUse};
use palmgate_policy::office::Hold;
use palmgate_protocol::{Timestamp, decode, encode_for_sealing, terminal::Use};
use palmgate_vault::Vault;

const HELD: &str = "held-uses";
/// Uses kept at once; beyond this the oldest give way.
const MAX_HELD: usize = 100_000;

type Failure = Box<dyn std::error::Error>;

/// The holds in force.
#[derive(Default)]
pub(crate) struct Held(Vec<Hold>);

impl Held {
    pub(crate) fn put(&mut self, holds: Vec<Hold>) {
        self.0 = holds;
    }

    /// Whether any hold keeps uses.
    pub(crate) fn any(&self) -> bool {
        let now = clock::now();
        self.0.iter().any(|hold| hold.keeps("use", now))
    }

    pub(crate) fn covers(&self, used: &Use) -> bool {
        let now = clock::now();
        self.0.iter().any(|hold| hold.covers(&used.terminal, used.at, now))
    }

    /// Keeps those of somebody's uses that a hold covers, durably.
    pub(crate) fn keep(&self, vault: &Vault, mut uses: Vec<Use>) -> Result<(), Failure> {
        uses.retain(|used| self.covers(used));
        if uses.is_empty() {
            return Ok(());
        }
        let mut held = read(vault)?;
        held.extend(uses);
        let surplus = held.len().saturating_sub(MAX_HELD);
        held.drain(..surplus);
        Ok(vault.put_state(HELD, encode_for_sealing(&held).expose())?)
    }

    /// Lets go of what no hold covers any more.
    pub(crate) fn release(&self, vault: &Vault) -> Result<(), Failure> {
        let held = read(vault)?;
        let covered: Vec<Use> = held.iter().filter(|used| self.covers(used)).cloned().collect();
        if covered.len() == held.len() {
            return Ok(());
        }
        if covered.is_empty() {
            return Ok(vault.remove_state(HELD)?);
        }
        Ok(vault.put_state(HELD, encode_for_sealing(&covered).expose())?)
    }
}

fn read(vault: &Vault) -> Result<Vec<Use>, Failure> {
    let held = vault.state(HELD)?;
    Ok(held.map(|held| decode(held.expose())).transpose()?.unwrap_or_default())
}

/// What is held, for whom a hold serves.
pub(crate) fn show(vault: &Vault) -> Result<Vec<HeldUse>, Failure> {
    let show = |used: Use| HeldUse {
        at_ms: Timestamp::as_millis(used.at),
        terminal: used.terminal,
        purpose: used.purpose.as_str().to_owned(),
    };
    Ok(read(vault)?.into_iter().map(show).collect())
}
