//! What every Palmgate crate agrees on: identifiers, purposes, times, topics, wire messages,
//! limits, and containers for data that must never be printed.
//!
//! No input or output, no cryptography, no runtime: this crate only says what things are.

mod biometric;
mod challenge;
pub mod cloud;
mod ids;
pub mod limits;
pub mod pairing;
mod purpose;
mod roster;
mod template;
pub mod terminal;
mod time;
pub mod topic;

pub use biometric::{Biometric, Secret};
pub use challenge::{Challenges, ScanChallenge};
pub use ids::{CaptureId, ClaimHandle, InvalidName, MemberId, Name, Pseudonym};
pub use purpose::{Custody, Hand, Purpose, PurposeSet};
pub use roster::{Roster, RosterMember, SignedRoster};
pub use template::{
    CODE_BYTES, CODES_PER_TEMPLATE, CODES_PER_TURN, Code, EMBEDDING_DIMENSIONS, Embedding,
    MAX_PROBE_CODES, MAX_PROBE_TURNS, Probe, QUADRANT_BYTES, QUADRANTS, SHIFTS, TEMPLATE_BYTES,
    TEMPLATE_FORMAT, Template, TemplateError,
};
pub use time::{DAY, Timestamp};

/// Encodes a message that is not biometric.
///
/// # Panics
/// Never: encoding into memory cannot fail for the message types of this crate.
pub fn encode<T: minicbor::Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("encoding into a vector is infallible")
}

/// Encodes a message that carries biometric or secret data; the buffer is wiped when dropped.
/// The only place for the result is a sealed envelope.
///
/// # Panics
/// Never, for the same reason as [`encode`].
pub fn encode_for_sealing<T: minicbor::Encode<()>>(message: &T) -> Secret<Vec<u8>> {
    Secret::new(encode(message))
}

/// Decodes a message; trailing bytes are an error, unknown fields are skipped.
///
/// # Errors
/// [`Malformed`] says what was wrong and never repeats the bytes.
pub fn decode<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Malformed> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode().map_err(|error| Malformed(error.to_string()))?;
    if decoder.position() != bytes.len() {
        return Err(Malformed("bytes follow the message".into()));
    }
    Ok(message)
}

/// The sender's message does not follow the wire format.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(String);
