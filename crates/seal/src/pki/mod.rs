//! Certificates: who is who on the network of a store and towards the cloud.
//!
//! Every key is Ed25519, every connection TLS 1.3 without resumption (a resumed session would skip
//! the revocation check). A certificate's common name is a [`Name`]; the authority alone decides
//! it, whatever a request asks for.

mod authority;
mod identity;
mod presented;
mod tls;
mod validity;

pub use authority::{Authority, Certificate, Role};
pub(crate) use identity::MAX_CERTIFICATE_BYTES;
pub use identity::{Identity, PendingIdentity};
pub use presented::Presented;
pub use rustls::time_provider::TimeProvider;
pub use tls::{
    ClientAuth, client_config, client_config_at, server_config, server_config_at, verify,
};
pub use validity::Validity;

pub(crate) use tls::{accepts_server, provider, roots, verify_client, verify_server};

use crate::sign::{KeyError, VerifyingKey};
use palmgate_protocol::{InvalidName, Name, Timestamp};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;
use x509_parser::oid_registry::OID_SIG_ED25519;

/// SHA-256 of a certificate as DER: names it for people and in lists.
pub fn fingerprint(certificate_der: &[u8]) -> [u8; 32] {
    crate::sha256(certificate_der)
}

/// Why a certificate, a request or a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The requester's certificate request is unusable.
    #[error("the certificate request {0}")]
    Request(&'static str),
    /// A presented or stored certificate is unusable.
    #[error("the certificate {0}")]
    Certificate(&'static str),
    /// A presented certificate does not hold under the authority it was checked against.
    #[error("the certificate is not valid under this authority: {0}")]
    Untrusted(rustls::Error),
    /// A certificate's common name is no name of ours.
    #[error("the certificate's common name: {0}")]
    Name(#[from] InvalidName),
    /// A host name in our own configuration cannot stand in a certificate.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// A stored private key is unusable.
    #[error("the private key is {0}")]
    Key(#[from] KeyError),
    /// A private key and a certificate do not belong together.
    #[error("the private key is not the one in the certificate")]
    KeyMismatch,
    /// PEM text is unusable.
    #[error("not the PEM text of {0}")]
    Pem(&'static str),
    /// TLS refuses the certificates, the key or the revocation list.
    #[error("TLS configuration: {0}")]
    Tls(String),
}

/// What this crate reads from a certificate. Nothing in it is trusted before the chain is checked.
pub(crate) struct Parsed {
    pub(crate) name: Name,
    pub(crate) key: VerifyingKey,
    pub(crate) serial: Vec<u8>,
    pub(crate) validity: Validity,
}

impl Parsed {
    pub(crate) fn from_der(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| PkiError::Certificate("cannot be parsed"))?;
        if !rest.is_empty() {
            return Err(PkiError::Certificate("is followed by other bytes"));
        }
        let mut names = parsed.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(PkiError::Certificate("has not exactly one common name"));
        };
        let name = name.as_str().map_err(|_| PkiError::Certificate("has an unreadable name"))?;
        let (name, key) = (name.parse()?, public_key(&parsed)?);
        let time = |at: x509_parser::time::ASN1Time| {
            Timestamp::from_millis(at.timestamp().saturating_mul(1000))
        };
        let dates = parsed.validity();
        let validity = Validity { from: time(dates.not_before), until: time(dates.not_after) };
        Ok(Self { name, key, serial: parsed.raw_serial().to_vec(), validity })
    }
}

fn public_key(
    certificate: &x509_parser::certificate::X509Certificate<'_>,
) -> Result<VerifyingKey, PkiError> {
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(PkiError::Certificate("has a key that is not Ed25519"));
    }
    let bytes = info.subject_public_key.data.as_ref().try_into();
    Ok(VerifyingKey(bytes.map_err(|_| PkiError::Certificate("has a malformed key"))?))
}

/// X.509 counts seconds, and years up to 9999.
fn seconds(time: Timestamp) -> OffsetDateTime {
    const LAST: i64 = 253_402_300_799;
    OffsetDateTime::from_unix_timestamp(time.as_millis().div_euclid(1000).clamp(0, LAST))
        .expect("the range of X.509 times is within the range of dates")
}

#[cfg(test)]
mod tests;
