//! Terminal ↔ gateway: one MLS group (RFC 9420) of two members for each terminal, so that no
//! terminal can read another's messages and a removed one reads nothing more.
//!
//! Suite `MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519`. A leaf carries the member's certificate
//! (X.509 credential, RFC 9420, 5.3.3) and signs with the certificate's key; both sides check it
//! against the store's device authority. The gateway founds every group; neither side accepts a
//! third member, a proposal, or a change of the other's certificate.
//!
//! **Persist before you act.** [`Session::seal`] and [`Session::open`] move the ratchets on. Store
//! [`Session::state`] after `seal` before the message is sent, and after `open` before it is
//! acknowledged or acted on. A state must never be restored twice or from a backup: the next
//! message would reuse a key, and the other side refuses it as a replay. When in doubt, join anew.

mod credential;
mod error;
mod join;
mod session;
mod state;

pub use error::MlsError;
pub use join::{Admitted, Joining, KEY_PACKAGE_LIFETIME, admit, request_to_join};
pub use session::{Opened, Session};

use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, MlsGroupJoinConfig,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, SenderRatchetConfiguration,
};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// Messages that may overtake each other and still open.
const OUT_OF_ORDER: u32 = 8;
/// Messages that may be lost in a row.
const LOST_IN_A_ROW: u32 = 1000;
/// Bytes of a `KeyPackage` or Welcome, at most: two certificates and their framing fit well.
const MAX_HANDSHAKE_BYTES: usize = 16 * 1024;

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(palmgate_protocol::limits::ANSWER_PADDING)
        .max_past_epochs(0)
        .number_of_resumption_psks(0)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(SenderRatchetConfiguration::new(OUT_OF_ORDER, LOST_IN_A_ROW))
        .build()
}

fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[SUITE]),
        Some(&[]),
        Some(&[]),
        Some(&[CredentialType::X509]),
    )
}

#[cfg(test)]
mod tests;
