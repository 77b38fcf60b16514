//! Key packages that were used already. They outlive a restart, because a recorded one is good for
//! as long as its lifetime says.

use minicbor::{Decode, Encode};
use palmgate_protocol::Timestamp;
use palmgate_seal::mls::KEY_PACKAGE_LIFETIME;
use std::{collections::VecDeque, time::Duration};

/// A key package holds this long before and after the time that its maker's clock showed.
const REMEMBERED: Duration = KEY_PACKAGE_LIFETIME.saturating_mul(2);
/// More than a terminal makes in that time: it asks every two seconds at most.
const MOST: usize = 640;
/// Bytes of a reference that are kept: second preimages of that many are out of reach.
const KEPT: usize = 16;

/// References of one terminal's used key packages, oldest first.
#[derive(Default, Encode, Decode)]
pub(super) struct Joins {
    #[n(0)]
    used: VecDeque<Used>,
}

#[derive(Encode, Decode)]
struct Used {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    reference: [u8; KEPT],
    #[n(1)]
    at: Timestamp,
}

/// Why a key package is not accepted, as the metrics' label.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAgain(pub(super) &'static str);

impl Joins {
    /// Notes a key package. Refuses one that was used before, and any when a terminal asks so often
    /// that one would have to be forgotten too early.
    pub(super) fn note(&mut self, reference: &[u8; 32], now: Timestamp) -> Result<(), NotAgain> {
        self.used.retain(|used| now.since(used.at) < REMEMBERED);
        let reference: [u8; KEPT] = std::array::from_fn(|at| reference[at]);
        if self.used.iter().any(|used| used.reference == reference) {
            return Err(NotAgain("join-replayed"));
        }
        if self.used.len() >= MOST {
            return Err(NotAgain("join-too-often"));
        }
        self.used.push_back(Used { reference, at: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::{decode, encode};

    fn reference(number: usize) -> [u8; 32] {
        std::array::from_fn(|at| (number >> (8 * (at % 8))) as u8)
    }

    #[test]
    fn a_key_package_is_used_once_also_after_a_restart() {
        let (mut joins, now) = (Joins::default(), Timestamp::from_millis(1_800_000_000_000));
        assert_eq!(joins.note(&reference(1), now), Ok(()));
        let mut joins: Joins = decode(&encode(&joins)).unwrap();
        let late = now.after(REMEMBERED.saturating_sub(Duration::from_millis(1)));
        assert_eq!(joins.note(&reference(1), late), Err(NotAgain("join-replayed")));
        assert_eq!(joins.note(&reference(2), late), Ok(()));
        assert_eq!(joins.note(&reference(1), now.after(REMEMBERED)), Ok(()), "expired by itself");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_fits_its_place() {
        let (mut joins, now) = (Joins::default(), Timestamp::from_millis(1_800_000_000_000));
        for number in 0..MOST {
            assert_eq!(joins.note(&reference(number), now), Ok(()));
        }
        assert_eq!(joins.note(&reference(MOST), now), Err(NotAgain("join-too-often")));
        assert_eq!(joins.note(&reference(0), now), Err(NotAgain("join-replayed")));
        assert!(encode(&joins).len() < 24 * 1024);
        assert_eq!(joins.note(&reference(MOST), now.after(REMEMBERED)), Ok(()));
    }
}
