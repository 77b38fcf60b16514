//! What the tests of several modules need.
#![allow(
    clippy::disallowed_methods,
    reason = "openmls looks at the system clock, so the tests must"
)]

use crate::pki::{Authority, Identity, Role};
use palmgate_protocol::{DAY, Name, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn authority() -> Authority {
    Authority::generate("devices of a store", now()).unwrap()
}

pub(crate) fn identity(authority: &Authority, text: &str, role: Role) -> Identity {
    identity_from(authority, text, role, now())
}

/// With a certificate that ended yesterday.
pub(crate) fn expired(authority: &Authority, text: &str, role: Role) -> Identity {
    let before = now().as_millis() - 2 * DAY.as_millis() as i64;
    identity_from(authority, text, role, Timestamp::from_millis(before))
}

/// With a certificate for the day after `issued_at`.
fn identity_from(authority: &Authority, text: &str, role: Role, issued_at: Timestamp) -> Identity {
    let pending = Identity::generate();
    let issued = authority.issue(&pending.csr_der(), &name(text), role, issued_at, DAY).unwrap();
    pending.certified(vec![issued.der, authority.certificate_der().clone()]).unwrap()
}

/// Names a gateway's certificate as the tests dial it.
pub(crate) fn gateway(authority: &Authority) -> Identity {
    identity(authority, "gateway", Role::Both { hosts: vec!["127.0.0.1".into()] })
}

pub(crate) fn terminal(authority: &Authority, text: &str) -> Identity {
    identity(authority, text, Role::Client)
}

pub(crate) fn serial(identity: &Identity) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(identity.certificate_der()).unwrap();
    parsed.raw_serial().to_vec()
}
