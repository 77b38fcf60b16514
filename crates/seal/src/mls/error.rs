use crate::pki::PkiError;
use openmls::{
    framing::errors::MessageDecryptionError,
    group::{ProcessMessageError, ValidationError},
};
use std::fmt::Display;

/// Why a session did not start or a message did not open.
#[derive(Debug, thiserror::Error)]
pub enum MlsError {
    /// The other side's message is over the size limit; it was not decoded.
    #[error("the other side sent a message over the size limit")]
    TooLarge,
    /// The other side's message is no MLS message of the expected kind.
    #[error("the other side sent {0}")]
    Malformed(&'static str),
    /// The message was opened before, is outside the window of messages that may be late or lost, or
    /// comes from a state that was rolled back.
    #[error("a message was repeated, or is too old or too far ahead")]
    Replayed,
    /// The two sides are in different epochs: a change was lost, or one side lost its state. If it
    /// happens again, the terminal joins anew.
    #[error("a message of epoch {theirs} arrived in epoch {ours}")]
    Epoch {
        /// The message's epoch.
        theirs: u64,
        /// This side's epoch.
        ours: u64,
    },
    /// The message is forged, damaged or of another session.
    #[error("a message does not belong to this session, or was changed on the way")]
    Forged,
    /// The other side asked for a change that no honest one asks for.
    #[error("the other side asked for a change that is not allowed: {0}")]
    Forbidden(&'static str),
    /// The other side's certificate does not hold.
    #[error("the other side's identity: {0}")]
    Identity(#[from] PkiError),
    /// The other side's certificate is not for the key that it signs with, or not for its role.
    #[error("the other side's certificate {0}")]
    Certificate(&'static str),
    /// A `KeyPackage` or Welcome outside its short lifetime: the clocks differ, or it is repeated.
    #[error("the KeyPackage is not valid now: check the clocks of terminal and gateway")]
    NotValidNow,
    /// The session is over: one side was removed. Only joining anew helps.
    #[error("the session is over")]
    Over,
    /// This side cannot use its own state or key; joining anew helps.
    #[error("the own session state cannot be used: {0}")]
    State(String),
}

impl MlsError {
    /// Whether the other side, or somebody between, caused it; otherwise this side did.
    pub const fn is_the_other_sides_fault(&self) -> bool {
        !matches!(self, Self::Over | Self::State(_))
    }

    pub(super) fn state(error: impl Display) -> Self {
        Self::State(error.to_string())
    }

    pub(super) fn processing<E: Display>(error: ProcessMessageError<E>) -> Self {
        match error {
            ProcessMessageError::LibraryError(error) => Self::state(error),
            ProcessMessageError::StorageError(error) => Self::state(error),
            ProcessMessageError::GroupStateError(_) => Self::Over,
            ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(
                MessageDecryptionError::SecretTreeError(_)
                | MessageDecryptionError::GenerationOutOfBound,
            )) => Self::Replayed,
            ProcessMessageError::InvalidCommit(_) => Self::Forbidden("an invalid commit"),
            _ => Self::Forged,
        }
    }
}
