use crate::Hash;
use palmgate_protocol::{MemberId, Secret};
use sha2::{Digest, Sha256};

/// The commitment of an entry that concerns nobody known: zeros.
pub const NOBODY: Hash = [0; 32];

/// Commits to a person without naming them: SHA-256 of `palmgate/1 commitment `, the label, a zero
/// byte, the salt and the member's id.
///
/// The salt is 32 random bytes that are kept with the person, under the person's key, and destroyed
/// with it. Who holds salt and id can compute the commitment and so find the person's entries; who
/// lost the salt would have to guess 256 random bits, even knowing the id. The label must differ
/// from entry to entry ([`crate::Entry::commit`] sees to that): the commitments of one person then
/// differ as well, and nothing in the log links them, neither to the person nor to each other.
pub fn commitment(label: &str, salt: &Secret<[u8; 32]>, member: &MemberId) -> Hash {
    Sha256::new_with_prefix("palmgate/1 commitment ")
        .chain_update(label)
        .chain_update([0])
        .chain_update(salt.expose())
        .chain_update(member.as_bytes())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_depends_on_label_salt_and_member() {
        let (salt, other_salt) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let (member, other) = (MemberId::from_random([3; 16]), MemberId::from_random([4; 16]));
        let made = commitment("erasure", &salt, &member);
        assert_eq!(made, commitment("erasure", &Secret::new([1; 32]), &member));
        assert_ne!(made, commitment("scan", &salt, &member));
        assert_ne!(made, commitment("erasure", &other_salt, &member));
        assert_ne!(made, commitment("erasure", &salt, &other));
    }
}
