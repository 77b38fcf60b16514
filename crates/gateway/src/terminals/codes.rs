//! One-time pairing codes: ten minutes, five tries.
//!
//! They are in memory only, and go by a clock that never jumps: a restart voids every code together
//! with its count of tries, so that neither a crash nor the system's clock gives anybody more.

use super::TerminalError;
use minicbor::bytes::ByteArray;
use palmgate_protocol::{Name, PurposeSet, Secret};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a code is good for.
const LIFETIME: Duration = Duration::from_mins(10);
/// Wrong tries before a code is void.
const TRIES: u8 = 5;
/// Codes that wait at once.
const MAX_CODES: usize = 64;

/// What a code is good for.
#[derive(Clone, Default)]
pub(super) struct Rights {
    pub(super) purposes: PurposeSet,
    pub(super) enrols: bool,
    pub(super) sensors: Vec<ByteArray<32>>,
    /// The terminal that is revoked when this one is paired.
    pub(super) replaces: Option<Name>,
}

struct Waiting {
    secret: Secret<[u8; 5]>,
    rights: Rights,
    until: Instant,
    tries: u8,
}

/// Codes that wait for their terminal, by its name.
#[derive(Default)]
pub(super) struct Codes(Mutex<BTreeMap<Name, Waiting>>);

impl Codes {
    /// Waits for a terminal; a second code for the same name takes the first one's place.
    pub(super) fn add(
        &self,
        name: Name,
        secret: [u8; 5],
        rights: Rights,
        now: Instant,
    ) -> Result<(), TerminalError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, code| now < code.until);
        if waiting.len() >= MAX_CODES && !waiting.contains_key(&name) {
            return Err(TerminalError::Full);
        }
        let (secret, until) = (Secret::new(secret), now + LIFETIME);
        waiting.insert(name, Waiting { secret, rights, until, tries: TRIES });
        Ok(())
    }

    /// Takes the code of this name, if the secret is right and in time.
    pub(super) fn redeem(&self, name: &Name, secret: [u8; 5], now: Instant) -> Option<Rights> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let code = waiting.get_mut(name)?;
        if now >= code.until || code.tries == 0 {
            return None;
        }
        let pairs = code.secret.expose().iter().zip(secret);
        let differing = pairs.fold(0, |all, (a, b)| all | (a ^ b));
        if differing != 0 {
            code.tries -= 1;
            return None;
        }
        waiting.remove(name).map(|code| code.rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 5] = [1, 2, 3, 4, 5];
    const WRONG: [u8; 5] = [1, 2, 3, 4, 4];

    fn waiting(now: Instant) -> (Codes, Name) {
        let (codes, name) = (Codes::default(), "till-1".parse::<Name>().unwrap());
        let rights = Rights { purposes: PurposeSet::default(), enrols: false, ..Rights::default() };
        codes.add(name.clone(), SECRET, rights, now).unwrap();
        (codes, name)
    }

    #[test]
    fn a_code_is_good_once() {
        let now = Instant::now();
        let (codes, name) = waiting(now);
        assert!(codes.redeem(&"till-2".parse().unwrap(), SECRET, now).is_none());
        assert!(codes.redeem(&name, SECRET, now).is_some());
        assert!(codes.redeem(&name, SECRET, now).is_none());
    }

    #[test]
    fn the_fifth_wrong_try_voids_a_code() {
        let now = Instant::now();
        let (codes, name) = waiting(now);
        for _ in 0..4 {
            assert!(codes.redeem(&name, WRONG, now).is_none());
        }
        let (kept, _) = waiting(now);
        for _ in 0..4 {
            kept.redeem(&name, WRONG, now);
        }
        assert!(kept.redeem(&name, SECRET, now).is_some(), "four are allowed");
        assert!(codes.redeem(&name, WRONG, now).is_none());
        assert!(codes.redeem(&name, SECRET, now).is_none(), "five are not");
    }

    #[test]
    fn a_code_ends_after_ten_minutes_of_real_time() {
        let now = Instant::now();
        let (codes, name) = waiting(now);
        let later = now + LIFETIME.saturating_sub(Duration::from_nanos(1));
        assert!(codes.redeem(&name, SECRET, now + LIFETIME).is_none());
        assert!(codes.redeem(&name, SECRET, later).is_some());
    }

    #[test]
    fn codes_are_few_and_old_ones_make_room() {
        let now = Instant::now();
        let codes = Codes::default();
        let rights = Rights { purposes: PurposeSet::default(), enrols: false, ..Rights::default() };
        let add = |number: usize, now| {
            codes.add(format!("till-{number}").parse().unwrap(), SECRET, rights.clone(), now)
        };
        for number in 0..MAX_CODES {
            add(number, now).unwrap();
        }
        assert!(matches!(add(MAX_CODES, now), Err(TerminalError::Full)));
        add(0, now).unwrap();
        add(MAX_CODES, now + LIFETIME).unwrap();
    }
}
