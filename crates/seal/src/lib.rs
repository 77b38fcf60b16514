//! Envelopes and keys: the only crate that touches cryptography.
//!
//! | what | how |
//! |---|---|
//! | records at rest | [`aead`]: AES-256-GCM, bound to their place |
//! | cloud ↔ gateway | [`envelope`] and [`shard`]: HPKE (RFC 9180), signed manifests |
//! | terminal ↔ gateway | [`mls`]: two-member groups (RFC 9420), leaves bound to certificates |
//! | what people and tills carry away | [`claim`], [`assertion`]: `COSE_Sign1` (RFC 9052) |
//! | a phone or card that proves it is there | [`possession`]: Ed25519 over one act |
//! | what a sensor vouches for | [`sensor`]: `COSE_Sign1` over challenge and pictures |
//! | ids that are recognised, not read | [`hidden_id`]: HMAC-SHA-256 |
//! | who is who on the network | [`pki`]: certificates, TLS 1.3; [`pairing`]: first contact |
//!
//! Keys have no `Debug`, `Display`, `Clone` or serde, and are wiped when dropped as far as the
//! libraries below allow: ring, openmls and coset keep working copies that are out of reach here.
//! Time is an argument; randomness comes from the operating system.

pub mod aead;
pub mod assertion;
pub mod claim;
pub mod envelope;
pub mod hidden_id;
pub mod mls;
pub mod pairing;
pub mod pki;
pub mod possession;
pub mod random;
pub mod roster;
pub mod sensor;
pub mod shard;
pub mod sign;
#[cfg(test)]
mod testing;
mod token;

/// Every label of this crate starts with it, so that no key of ours ever signs or opens the bytes
/// of another protocol.
const PREFIX: &[u8] = b"palmgate/1 ";

/// `prefix label 0 (length part)*`: two different lists of parts never give the same bytes.
fn labelled(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| 8 + part.len()).sum();
    let mut bytes = Vec::with_capacity(PREFIX.len() + label.len() + 1 + length);
    bytes.extend_from_slice(PREFIX);
    bytes.extend_from_slice(label.as_bytes());
    bytes.push(0);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::labelled;

    #[test]
    fn labelled_bytes_are_unambiguous() {
        let lists: [&[&[u8]]; 6] =
            [&[], &[b""], &[b"", b""], &[b"ab"], &[b"a", b"b"], &[b"", b"ab"]];
        for (i, one) in lists.iter().enumerate() {
            for (j, other) in lists.iter().enumerate() {
                assert_eq!(i == j, labelled("x", one) == labelled("x", other));
            }
            assert_ne!(labelled("x", one), labelled("y", one));
        }
    }
}
