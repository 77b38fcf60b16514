//! Shares of equal two-bit hashes, quadrant by quadrant.
//!
//! Two hashes differ when their high bits or their low bits do, so a code is taken apart into a
//! plane of high bits and one of low bits: one population count then covers as many hashes as the
//! word has bits. The probe's codes stand side by side, eight shifts in a group, so that every lane
//! of a register counts for a shift of its own and nothing is summed across lanes.
//!
//! The kernels count; what becomes of the counts is the same code for all of them.

use super::level::{Instructions, Level};
use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TEMPLATE, CODES_PER_TURN, Code, QUADRANT_BYTES, QUADRANTS, SHIFTS,
};
use std::array::from_fn;
use zeroize::{Zeroize, Zeroizing};

const HASHES: u32 = CODE_BYTES as u32 * 4;
/// Shifts of the probe in a group.
pub(super) const LANES: usize = 8;
/// Words of one plane of a quadrant.
pub(super) const WORDS: usize = QUADRANT_BYTES / 16;
/// Groups of one turn; the last shift is repeated in the last of them.
pub(super) const GROUPS: usize = CODES_PER_TURN.div_ceil(LANES);

/// The two planes of a quadrant, word by word: high bits, low bits.
type Planes = [[u64; 2]; WORDS];

/// Eight shifts of the probe: quadrant, word, plane, shift.
#[derive(Clone, Zeroize)]
#[repr(C, align(64))]
pub(super) struct Group(pub(super) [[[[u64; LANES]; 2]; WORDS]; QUADRANTS]);

/// The codes of a row: code, quadrant, word, plane.
pub(super) type Row = [[Planes; QUADRANTS]; CODES_PER_TEMPLATE];

/// Hashes that differ: code of the row, quadrant, shift of the probe.
pub(super) type Counts = [[[[u16; LANES]; GROUPS]; QUADRANTS]; CODES_PER_TEMPLATE];

/// A probe's codes, ready to be compared: the groups of each turn. Wiped on drop.
pub(crate) struct ProbeCodes(Zeroizing<Vec<Group>>);

impl ProbeCodes {
    pub(crate) fn new(codes: &[Code]) -> Self {
        let turns = codes.as_chunks::<CODES_PER_TURN>().0;
        let mut groups = Zeroizing::new(Vec::with_capacity(turns.len() * GROUPS));
        for chunk in turns.iter().flat_map(|turn| turn.chunks(LANES)) {
            groups.push(Group([[[[0; LANES]; 2]; WORDS]; QUADRANTS]));
            let group = groups.last_mut().expect("pushed above");
            for lane in 0..LANES {
                let planes = Zeroizing::new(planes(&chunk[lane.min(chunk.len() - 1)]));
                for (words, [high, low]) in
                    group.0.as_flattened_mut().iter_mut().zip(planes.as_flattened())
                {
                    (words[0][lane], words[1][lane]) = (*high, *low);
                }
            }
        }
        Self(groups)
    }

    /// The largest share of equal hashes over the probe's turns and the row's codes, each at its
    /// best shift: see [`least_unequal`].
    pub(crate) fn best_share(&self, level: Level, row: &[Code; CODES_PER_TEMPLATE]) -> f32 {
        let row = Zeroizing::new(row.each_ref().map(planes));
        let mut counts = [[[[0; LANES]; GROUPS]; QUADRANTS]; CODES_PER_TEMPLATE];
        let mut least = HASHES;
        for turn in self.0.as_chunks::<GROUPS>().0 {
            match level.instructions() {
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => {
                    super::avx512::count_unequal_avx512(level, turn, &row, &mut counts);
                }
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => {
                    super::avx2::count_unequal_avx2(level, turn, &row, &mut counts);
                }
                #[cfg(target_arch = "aarch64")]
                Instructions::Dotprod | Instructions::Neon => {
                    super::aarch64::count_unequal(level, turn, &row, &mut counts);
                }
                Instructions::Portable => count_unequal(turn, &row, &mut counts),
            }
            least = counts.iter().map(least_unequal).fold(least, u32::min);
        }
        if self.0.is_empty() { 0.0 } else { (HASHES - least) as f32 / HASHES as f32 }
    }
}

/// The largest share of equal hashes of two references, where they lie: neither can be shifted.
pub(crate) fn share_in_place(
    one: &[Code; CODES_PER_TEMPLATE],
    other: &[Code; CODES_PER_TEMPLATE],
) -> f32 {
    let unequal = |a: &Code, b: &Code| -> u32 {
        let pairs = planes(a).into_iter().flatten().zip(planes(b).into_iter().flatten());
        pairs.map(|([a, b], [c, d])| ((a ^ c) | (b ^ d)).count_ones()).sum()
    };
    let least = one.iter().flat_map(|a| other.iter().map(|b| unequal(a, b))).min();
    (HASHES - least.unwrap_or(HASHES)) as f32 / HASHES as f32
}

/// Which bit of a plane a hash gets is free, as long as it is the same for every code.
fn planes(code: &Code) -> [Planes; QUADRANTS] {
    const LOW: u64 = 0x5555_5555_5555_5555;
    let (words, _) = code.as_chunks::<8>();
    let word = |i: usize| u64::from_ne_bytes(words[i]);
    from_fn(|quadrant| {
        from_fn(|i| {
            let at = 2 * (quadrant * WORDS + i);
            let (even, odd) = (word(at), word(at + 1));
            [((even >> 1) & LOW) | (odd & !LOW), (even & LOW) | ((odd & LOW) << 1)]
        })
    })
}

/// Counts for every code of the row, quadrant and shift.
fn count_unequal(groups: &[Group; GROUPS], row: &Row, counts: &mut Counts) {
    for (number, group) in groups.iter().enumerate() {
        for (code, counts) in row.iter().zip(counts.iter_mut()) {
            for ((planes, words), counts) in code.iter().zip(&group.0).zip(counts.iter_mut()) {
                let mut sums = [0; LANES];
                for ([high, low], words) in planes.iter().zip(words) {
                    for lane in 0..LANES {
                        let differ = (words[0][lane] ^ high) | (words[1][lane] ^ low);
                        sums[lane] += differ.count_ones() as u16;
                    }
                }
                counts[number] = sums;
            }
        }
    }
}

/// Hashes that a shift costs: the square of its length in cells. Palms are laid down where they are
/// expected far more often than elsewhere.
const COST: [u16; CODES_PER_TURN] = {
    let mut costs = [0; CODES_PER_TURN];
    let mut shift = 0;
    while shift < CODES_PER_TURN {
        let down = (shift / SHIFTS).abs_diff(SHIFTS / 2);
        let right = (shift % SHIFTS).abs_diff(SHIFTS / 2);
        costs[shift] = (down * down + right * right) as u16;
        shift += 1;
    }
    costs
};

/// The fewest hashes that differ when the whole palm is laid at its best shift, which is not one at
/// the border, and each quadrant then at the best of the nine around it; of equal shifts the first.
/// The shift's cost is added.
fn least_unequal(counts: &[[[u16; LANES]; GROUPS]; QUADRANTS]) -> u32 {
    let quadrants = counts.each_ref().map(|quadrant| quadrant.as_flattened());
    let mut whole = COST;
    for quadrant in quadrants {
        whole.iter_mut().zip(quadrant).for_each(|(sum, count)| *sum += count);
    }
    let mut best = (u16::MAX, 0);
    for row in 1..SHIFTS - 1 {
        let at = row * SHIFTS + 1;
        for (column, count) in whole[at..at + SHIFTS - 2].iter().enumerate() {
            if *count < best.0 {
                best = (*count, at + column);
            }
        }
    }
    let around = |quadrant: &[u16]| {
        let first = best.1 - SHIFTS - 1;
        let rows = (0..3).flat_map(|row| &quadrant[first + row * SHIFTS..][..3]);
        rows.copied().min().map_or(0, u32::from)
    };
    quadrants.into_iter().map(around).sum::<u32>() + u32::from(COST[best.1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_by_one(a: &[u8], b: &[u8]) -> u32 {
        let hash = |code: &[u8], i: usize| (code[i / 4] >> (2 * (i % 4))) & 3;
        (0..a.len() * 4).filter(|&i| hash(a, i) != hash(b, i)).count() as u32
    }

    /// As the documentation says it, hash by hash.
    fn naive(turn: &[Code], code: &Code) -> u32 {
        let quadrant = |shift: usize, q: usize| {
            let part = q * QUADRANT_BYTES..(q + 1) * QUADRANT_BYTES;
            one_by_one(&turn[shift][part.clone()], &code[part])
        };
        let inner = (0..CODES_PER_TURN).filter(|shift| {
            let inside = |place: usize| place > 0 && place < SHIFTS - 1;
            inside(shift / SHIFTS) && inside(shift % SHIFTS)
        });
        let middle = |place: usize| (place as u32).abs_diff(SHIFTS as u32 / 2).pow(2);
        let cost = |shift: usize| middle(shift / SHIFTS) + middle(shift % SHIFTS);
        let whole =
            |shift: &usize| (0..QUADRANTS).map(|q| quadrant(*shift, q)).sum::<u32>() + cost(*shift);
        let best = inner.min_by_key(whole).unwrap();
        let mut near = Vec::new();
        for middle in [best - SHIFTS, best, best + SHIFTS] {
            near.extend(middle - 1..=middle + 1);
        }
        let of_nearest = |q| near.iter().map(|shift| quadrant(*shift, q)).min().unwrap();
        let quadrants = (0..QUADRANTS).map(of_nearest);
        (quadrants.sum::<u32>() + cost(best)).min(HASHES)
    }

    fn share(unequal: u32) -> f32 {
        (HASHES - unequal) as f32 / HASHES as f32
    }

    #[test]
    fn every_count_from_none_to_all_is_exact() {
        let zeros = [0; CODE_BYTES];
        for differing in (0..=HASHES).step_by(if cfg!(miri) { 256 } else { 1 }) {
            let mut code = zeros;
            for i in 0..differing as usize {
                code[i / 4] |= (1 + (i % 3) as u8) << (2 * (i % 4));
            }
            for level in Level::available() {
                let found =
                    ProbeCodes::new(&vec![code; CODES_PER_TURN]).best_share(level, &[zeros; 3]);
                assert_eq!(found.to_bits(), share(differing).to_bits(), "{level:?}");
            }
        }
    }

    #[test]
    fn a_quadrant_may_move_by_one_cell_and_no_further() {
        let code: Code = from_fn(|i| (i * 37 % 251) as u8);
        let other: Code = code.map(|byte| !byte);
        let middle = CODES_PER_TURN / 2;
        let with = |shift: usize| {
            let mut turn = vec![other; CODES_PER_TURN];
            turn[middle][..3 * QUADRANT_BYTES].copy_from_slice(&code[..3 * QUADRANT_BYTES]);
            turn[shift][3 * QUADRANT_BYTES..].copy_from_slice(&code[3 * QUADRANT_BYTES..]);
            ProbeCodes::new(&turn).best_share(Level::best(), &[code; 3])
        };
        assert!((with(middle + SHIFTS + 1) - 1.0).abs() < 1e-6);
        assert!((with(middle + 2) - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_probe_without_a_whole_turn_is_like_nothing() {
        for codes in [0, 1, CODES_PER_TURN - 1] {
            let probe = ProbeCodes::new(&vec![[7; CODE_BYTES]; codes]);
            assert!(probe.best_share(Level::best(), &[[7; CODE_BYTES]; 3]).abs() < 1e-9);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

        /// `mask` makes codes that are near each other.
        #[test]
        fn every_kernel_finds_what_a_look_at_each_hash_does(
            seeds in proptest::collection::vec((any::<u64>(), any::<u64>()), CODES_PER_TURN..=2 * CODES_PER_TURN),
            row in proptest::array::uniform32(any::<u64>()),
        ) {
            let code = |words: [u64; 32]| -> Code {
                from_fn(|i| words[i / 8].to_ne_bytes()[i % 8])
            };
            let near = |seed: u64, mask: u64| {
                let mixed = |i: usize| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32);
                code(from_fn(|i| (mixed(i) & mask.rotate_left(7 * i as u32)) | (row[i] & !mask.rotate_left(7 * i as u32))))
            };
            let probe: Vec<Code> = seeds.iter().map(|(seed, mask)| near(*seed, *mask)).collect();
            let turned = from_fn(|i| row[i].rotate_left(2));
            let row = [code(row), code(turned), code(row.map(|word| !word))];
            let turns = probe.as_chunks::<CODES_PER_TURN>().0;
            let least = turns.iter().flat_map(|turn| row.iter().map(|code| naive(turn, code))).min();
            let expected = least.map_or(0.0, share);
            for level in Level::available() {
                let found = ProbeCodes::new(&probe).best_share(level, &row);
                prop_assert_eq!(found.to_bits(), expected.to_bits(), "{:?}", level);
            }
        }
    }
}
