//! The signature under a store's roster.

use crate::{
    sha256,
    sign::{SigningKey, VerifyingKey},
};
use palmgate_protocol::{Roster, SignedRoster, decode, encode, limits::MAX_ROSTER_BYTES};

/// Why a roster was refused: whoever sent it is not the gateway, or no honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// It was not decoded.
    #[error("the roster is over the size limit")]
    TooLarge,
    /// Somebody else signed it, or it was changed.
    #[error("the roster does not have the gateway's signature")]
    Signature,
    /// What the gateway signed is no roster.
    #[error("the roster is malformed")]
    Malformed,
}

/// Signs a roster with the key of the gateway's certificate.
pub fn sign(roster: &Roster, key: &SigningKey) -> SignedRoster {
    let bytes = encode(roster);
    let signature = key.sign(Roster::LABEL, &bytes);
    SignedRoster { roster: bytes.into(), signature }
}

/// Reads a roster that the holder of this key signed.
///
/// # Errors
/// [`RosterError`].
pub fn open(signed: &SignedRoster, key: &VerifyingKey) -> Result<Roster, RosterError> {
    if signed.roster.len() > MAX_ROSTER_BYTES {
        return Err(RosterError::TooLarge);
    }
    let verified = key.verify(Roster::LABEL, &signed.roster, &signed.signature);
    verified.map_err(|_| RosterError::Signature)?;
    decode(&signed.roster).map_err(|_| RosterError::Malformed)
}

/// What people and the ledger compare: SHA-256 of the signed bytes.
pub fn hash(signed: &SignedRoster) -> [u8; 32] {
    sha256(&signed.roster)
}

/// SHA-256 of what a roster says beside its sequence and time.
pub fn members_hash(roster: &Roster) -> [u8; 32] {
    sha256(&encode(&roster.members))
}
