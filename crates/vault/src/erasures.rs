//! Erasures that were begun: the intent before, the unwritten ledger entry after.

use crate::tombstones::Mark;

/// Bytes of one erasure on disk.
pub(crate) const BYTES: usize = 64;

/// One erasure, from its intent until its ledger entry is written. Names nobody: the marks are
/// keyed hashes, and the commitment's salt goes with the person's data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// Of the member and of the claim.
    pub(crate) marks: [Mark; 2],
    pub(crate) commitment: [u8; 32],
}

/// The bytes of some erasures, one behind the other.
pub(crate) fn encode(erasures: &[Erasure]) -> Vec<u8> {
    let both = |one: &Erasure| [one.marks.as_flattened(), &one.commitment].concat();
    erasures.iter().flat_map(both).collect()
}

/// What [`encode`] wrote; `None` for a last one that is cut off.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Erasure>> {
    let (whole, cut) = bytes.as_chunks::<BYTES>();
    let one = |bytes: &[u8; BYTES]| {
        let (marks, commitment) = bytes.split_at(32);
        let (marks, _) = marks.as_chunks();
        let commitment = commitment.try_into().expect("32 of 64 bytes are left");
        Erasure { marks: [marks[0], marks[1]], commitment }
    };
    cut.is_empty().then(|| whole.iter().map(one).collect())
}
