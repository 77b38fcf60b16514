//! What the store's task keeps in the vault beside people: the office, time, visitors' payments,
//! failed tries.

use crate::scribe::Deed;
use palmgate_policy::{FailedTries, TimeSeen, Visitor, office::Desk};
use palmgate_protocol::{decode, encode_for_sealing};
use palmgate_vault::Vault;
use tokio::sync::oneshot;

const OFFICE: &str = "office";
const TIME: &str = "time";
const VISITORS: &str = "visitors";
const TRIES: &str = "tries";

/// What an earlier run kept.
pub(crate) struct Kept {
    pub(crate) desk: Desk,
    pub(crate) time: Option<TimeSeen>,
    pub(crate) visitors: Vec<Visitor>,
    pub(crate) tries: FailedTries,
}

impl Kept {
    /// Reads what the vault keeps.
    pub(crate) fn load(vault: &Vault) -> Result<Self, anyhow::Error> {
        let desk = vault.state(OFFICE)?.map(|kept| decode(kept.expose())).transpose()?;
        let time = time_seen(vault)?;
        let visitors = vault.state(VISITORS)?.map(|kept| decode(kept.expose())).transpose()?;
        let tries = vault.state(TRIES)?.map(|kept| decode(kept.expose())).transpose()?;
        Ok(Self {
            desk: desk.unwrap_or_default(),
            time,
            visitors: visitors.unwrap_or_default(),
            tries: tries.unwrap_or_default(),
        })
    }
}

/// The latest time that an earlier run saw.
pub(crate) fn time_seen(vault: &Vault) -> Result<Option<TimeSeen>, anyhow::Error> {
    Ok(vault.state(TIME)?.map(|kept| decode(kept.expose())).transpose()?)
}

/// To keep the desk; `kept` hears when it is durable.
pub(crate) fn desk(desk: &Desk, kept: Option<oneshot::Sender<bool>>) -> Deed {
    Deed::Keep { name: OFFICE, value: encode_for_sealing(desk), kept }
}

pub(crate) fn time(seen: &TimeSeen) -> Deed {
    Deed::Keep { name: TIME, value: encode_for_sealing(seen), kept: None }
}

pub(crate) fn visitors(visitors: &Vec<Visitor>) -> Deed {
    Deed::Keep { name: VISITORS, value: encode_for_sealing(visitors), kept: None }
}

pub(crate) fn tries(tries: &FailedTries) -> Deed {
    Deed::Keep { name: TRIES, value: encode_for_sealing(tries), kept: None }
}
