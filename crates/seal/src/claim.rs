//! Claim tokens: what a shopper carries on a card, a phone or paper, so that one record and no
//! other is compared with their palm.

pub use crate::token::TokenError;

use crate::{
    aead::Key,
    sign::{SigningKey, VerifyingKey},
    token,
};
use minicbor::{Decode, Encode, bytes::ByteVec};
use palmgate_protocol::{
    ClaimHandle, Custody, Name, PurposeSet, Secret, Timestamp, decode, encode, limits,
    terminal::PossessionKey,
};
use zeroize::Zeroize;

const CONTENT_TYPE: &str = "application/vnd.palmgate.claim+cbor";

/// What a token says. Holding it proves possession of the medium, not who holds it.
pub struct Claim {
    /// Where it counts.
    pub tenant: Name,
    /// The store that issued it.
    pub store: Name,
    /// Who holds what of the enrolment.
    pub custody: Custody,
    /// The enrolment.
    pub handle: ClaimHandle,
    /// What it may be used for.
    pub purposes: PurposeSet,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// `split` custody: the only key to the record that the box holds.
    pub key: Option<Key>,
    /// `subject` custody: the sealed record itself.
    pub sealed_record: Option<Vec<u8>>,
    /// The key whose holder proves that the medium is there, if it can.
    pub possession: Option<VerifyingKey>,
}

/// Why a token is not a claim here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not a genuine token of a store of this tenant.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Genuine, but for another tenant.
    #[error("the token belongs to another tenant")]
    OtherTenant,
    /// Genuine, but without what its custody needs: the issuer's fault.
    #[error("the token lacks the key or the record that its custody needs")]
    Incomplete,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Payload {
    #[n(0)]
    tenant: Name,
    #[n(1)]
    store: Name,
    #[n(2)]
    custody: Custody,
    #[n(3)]
    handle: ClaimHandle,
    #[n(4)]
    purposes: PurposeSet,
    #[n(5)]
    issued_at: Timestamp,
    #[n(6)]
    expires_at: Timestamp,
    #[n(7)]
    key: Option<Secret<Vec<u8>>>,
    #[n(8)]
    sealed_record: Option<ByteVec>,
    #[n(9)]
    possession: Option<PossessionKey>,
}

/// Signs a claim with the key of the store. The caller refuses a result over
/// [`limits::MAX_CLAIM_BYTES`]: it would fit no medium and no reader accepts it.
pub fn issue(claim: &Claim, key: &SigningKey) -> Secret<Vec<u8>> {
    let payload = Payload {
        tenant: claim.tenant.clone(),
        store: claim.store.clone(),
        custody: claim.custody,
        handle: claim.handle,
        purposes: claim.purposes,
        issued_at: claim.issued_at,
        expires_at: claim.expires_at,
        key: claim.key.as_ref().map(|key| Secret::new(key.expose().to_vec())),
        sealed_record: claim.sealed_record.clone().map(ByteVec::from),
        possession: claim.possession.map(|VerifyingKey(key)| PossessionKey { key }),
    };
    token::issue(CONTENT_TYPE, encode(&payload), key)
}

/// Reads a claim of this tenant that one of `issuers` signed. Its expiry is for the policy.
///
/// # Errors
/// [`ClaimError`] says what is wrong with the token that was shown.
pub fn read(token: &[u8], issuers: &[VerifyingKey], tenant: &Name) -> Result<Claim, ClaimError> {
    let bytes = token::read(CONTENT_TYPE, token, limits::MAX_CLAIM_BYTES, issuers)?;
    let payload: Payload = decode(bytes.expose()).map_err(|_| TokenError::Malformed)?;
    if payload.tenant != *tenant {
        return Err(ClaimError::OtherTenant);
    }
    let key = payload.key.as_ref().map(read_key).transpose()?;
    let incomplete = match payload.custody {
        Custody::Subject => payload.sealed_record.is_none(),
        Custody::Split => key.is_none(),
        Custody::Operator => false,
    };
    if incomplete {
        return Err(ClaimError::Incomplete);
    }
    Ok(Claim {
        tenant: payload.tenant,
        store: payload.store,
        custody: payload.custody,
        handle: payload.handle,
        purposes: payload.purposes,
        issued_at: payload.issued_at,
        expires_at: payload.expires_at,
        key,
        sealed_record: payload.sealed_record.map(Vec::from),
        possession: payload.possession.map(|possession| VerifyingKey(possession.key)),
    })
}

fn read_key(bytes: &Secret<Vec<u8>>) -> Result<Key, TokenError> {
    let mut key: [u8; 32] =
        bytes.expose().as_slice().try_into().map_err(|_| TokenError::Malformed)?;
    let read = Key::from_bytes(key);
    key.zeroize();
    Ok(read)
}

#[cfg(test)]
mod tests;
