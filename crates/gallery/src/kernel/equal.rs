//! Shares of equal two-bit hashes.
//!
//! Two hashes differ when their high bits or their low bits do, so a code is taken apart into a
//! plane of high bits and one of low bits: one population count then covers as many hashes as the
//! word has bits. The probe's codes stand side by side, eight in a group, so that every lane of a
//! register counts for a code of its own and nothing is summed across lanes.

use super::level::{Instructions, Level};
use palmgate_protocol::{CODE_BYTES, CODES_PER_TEMPLATE, Code};
use std::array::from_fn;
use zeroize::{Zeroize, Zeroizing};

const HASHES: u32 = CODE_BYTES as u32 * 4;
/// Codes of the probe in a group.
pub(super) const LANES: usize = 8;
/// Words of one plane of a code.
const WORDS: usize = CODE_BYTES / 16;

/// The two planes of a code, word by word: high bits, low bits.
type Planes = [[u64; 2]; WORDS];

/// Eight codes of the probe: word, plane, code.
#[derive(Clone, Zeroize)]
#[repr(C, align(64))]
pub(super) struct Group(pub(super) [[[u64; LANES]; 2]; WORDS]);

/// The codes of a row: code, word, plane.
pub(super) type Row = [Planes; CODES_PER_TEMPLATE];

/// A probe's codes, ready to be compared. Wiped on drop.
pub(crate) struct ProbeCodes(Zeroizing<Vec<Group>>);

impl ProbeCodes {
    pub(crate) fn new(codes: &[Code]) -> Self {
        let mut groups = Zeroizing::new(Vec::with_capacity(codes.len().div_ceil(LANES)));
        for chunk in codes.chunks(LANES) {
            groups.push(Group([[[0; LANES]; 2]; WORDS]));
            let group = groups.last_mut().expect("pushed above");
            for lane in 0..LANES {
                // The last code again where there are fewer: it changes no minimum.
                let planes = Zeroizing::new(planes(&chunk[lane.min(chunk.len() - 1)]));
                for (words, [high, low]) in group.0.iter_mut().zip(*planes) {
                    (words[0][lane], words[1][lane]) = (high, low);
                }
            }
        }
        Self(groups)
    }

    /// The largest share of equal hashes between any code of the probe and any code of the row.
    pub(crate) fn best_share(&self, level: Level, row: &[Code; CODES_PER_TEMPLATE]) -> f32 {
        let row = Zeroizing::new(row.each_ref().map(planes));
        let least = match level.instructions() {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => super::avx512::least_unequal_avx512(level, &self.0, &row),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => super::avx2::least_unequal_avx2(level, &self.0, &row),
            #[cfg(target_arch = "aarch64")]
            Instructions::Dotprod | Instructions::Neon => {
                super::aarch64::least_unequal(level, &self.0, &row)
            }
            Instructions::Portable => least_unequal(&self.0, &row),
        };
        if self.0.is_empty() { 0.0 } else { (HASHES - least) as f32 / HASHES as f32 }
    }
}

/// Which bit of a plane a hash gets is free, as long as it is the same for every code.
fn planes(code: &Code) -> Planes {
    const LOW: u64 = 0x5555_5555_5555_5555;
    let (words, _) = code.as_chunks::<8>();
    let word = |i: usize| u64::from_ne_bytes(words[i]);
    from_fn(|i| {
        let (even, odd) = (word(2 * i), word(2 * i + 1));
        [((even >> 1) & LOW) | (odd & !LOW), (even & LOW) | ((odd & LOW) << 1)]
    })
}

/// The fewest hashes that differ between any code of `groups` and any code of `row`; all of them
/// when there is no group.
fn least_unequal(groups: &[Group], row: &Row) -> u32 {
    let mut least = HASHES;
    for group in groups {
        for code in row {
            let mut counts = [0; LANES];
            for ([high, low], words) in code.iter().zip(&group.0) {
                for lane in 0..LANES {
                    let differ = (words[0][lane] ^ high) | (words[1][lane] ^ low);
                    counts[lane] = differ.count_ones().wrapping_add(counts[lane]);
                }
            }
            least = counts.into_iter().fold(least, u32::min);
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_by_one(a: &Code, b: &Code) -> u32 {
        let hash = |code: &Code, i: usize| (code[i / 4] >> (2 * (i % 4))) & 3;
        (0..HASHES as usize).filter(|&i| hash(a, i) != hash(b, i)).count() as u32
    }

    fn share(unequal: u32) -> f32 {
        (HASHES - unequal) as f32 / HASHES as f32
    }

    #[test]
    fn every_count_from_none_to_all_is_exact() {
        let zeros = [0; CODE_BYTES];
        for differing in (0..=HASHES).step_by(if cfg!(miri) { 64 } else { 1 }) {
            let mut code = zeros;
            for i in 0..differing as usize {
                code[i / 4] |= (1 + (i % 3) as u8) << (2 * (i % 4));
            }
            for level in Level::available() {
                let found = ProbeCodes::new(&[code]).best_share(level, &[zeros; 3]);
                assert_eq!(found.to_bits(), share(differing).to_bits(), "{level:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        /// `mask` makes codes that are near each other.
        #[test]
        fn every_kernel_counts_what_a_look_at_each_hash_does(
            seeds in proptest::collection::vec((proptest::array::uniform32(any::<u64>()), any::<u64>()), 0..40),
            row in proptest::array::uniform32(any::<u64>()),
        ) {
            let code = |words: [u64; 32]| -> Code {
                from_fn(|i| words[i / 8].to_ne_bytes()[i % 8])
            };
            let near = |words: [u64; 32], mask: u64| {
                code(from_fn(|i| (words[i] & mask) | (row[i] & !mask)))
            };
            let probe: Vec<Code> = seeds.iter().map(|(words, mask)| near(*words, *mask)).collect();
            let turned = from_fn(|i| row[i].rotate_left(2));
            let row = [code(row), code(turned), code(row.map(|word| !word))];
            let pairs = probe.iter().flat_map(|a| row.iter().map(|b| one_by_one(a, b)));
            let expected = pairs.min().map_or(0.0, share);
            for level in Level::available() {
                let found = ProbeCodes::new(&probe).best_share(level, &row);
                prop_assert_eq!(found.to_bits(), expected.to_bits(), "{:?}", level);
            }
        }
    }
}
