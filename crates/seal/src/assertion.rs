//! Payment assertions: the gateway's word to a point of sale that this pseudonym agreed to this
//! payment, bound to amount, currency, payee and nonce.

pub use crate::token::TokenError;

use crate::{
    sign::{SigningKey, VerifyingKey},
    token,
};
use minicbor::{Decode, Encode};
use palmgate_protocol::{Pseudonym, Timestamp, decode, encode, terminal::Payment};

const CONTENT_TYPE: &str = "application/vnd.palmgate.assertion+cbor";
/// Bytes of an assertion, at most.
const MAX_BYTES: usize = 1024;

/// What an assertion says. Compare `payment` with what was asked for, nonce included.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Assertion {
    /// The payment as the terminal asked for it.
    #[n(0)]
    pub payment: Payment,
    /// The person, as the purpose `pay` knows them.
    #[n(1)]
    pub pseudonym: Pseudonym,
    /// When the palm was recognised.
    #[n(2)]
    pub at: Timestamp,
}

/// Signs an assertion with the key of the store.
pub fn issue(assertion: &Assertion, key: &SigningKey) -> Vec<u8> {
    token::issue(CONTENT_TYPE, encode(assertion), key).expose().clone()
}

/// Reads an assertion that `key` signed.
///
/// # Errors
/// [`TokenError`] says what is wrong with it.
pub fn read(bytes: &[u8], key: &VerifyingKey) -> Result<Assertion, TokenError> {
    let payload = token::read(CONTENT_TYPE, bytes, MAX_BYTES, std::slice::from_ref(key))?;
    decode(payload.expose()).map_err(|_| TokenError::Malformed)
}
