//! Distances between sign codes: how many signs differ.
//!
//! The first half of the codes stands eight rows to a block, word by word, so that every lane of a
//! register counts for a row of its own. The second half stands row by row, because it is read for
//! few rows.

use super::level::{Instructions, Level};

/// Rows in a block of first halves.
pub(crate) const BLOCK: usize = 8;
/// One word of a first half, for the eight rows of a block.
pub(crate) type BlockWord = [u64; BLOCK];

/// A row, below 2¹⁶, and in how many signs its first half differs, packed into one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Near(pub(super) u32);

impl Near {
    pub(super) const fn new(row: u32, distance: u32) -> Self {
        Self(distance << 16 | row)
    }

    /// A row that is too far away to be kept.
    pub(crate) const fn filler(row: usize) -> Self {
        Self::new(row as u32, 0x7fff)
    }

    pub(crate) const fn row(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    const fn distance(self) -> u32 {
        self.0 >> 16
    }
}

/// Appends to `found` every row of `blocks` whose first half differs from `probe` in at most `cut`
/// signs, in no order. `blocks` has one [`BlockWord`] for each of the `W` words of every block; the
/// row that is first in it is called `first_row`.
pub(crate) fn near<const W: usize>(
    level: Level,
    probe: &[u64; W],
    blocks: &[BlockWord],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    let (blocks, rest) = blocks.as_chunks::<W>();
    assert!(rest.is_empty(), "whole blocks");
    assert!(first_row as usize + blocks.len() * BLOCK <= 1 << 16, "rows of 16 bits");
    found.reserve(blocks.len() * BLOCK);
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => {
            super::avx512::near_avx512(level, probe, blocks, cut, first_row, found);
        }
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => {
            super::avx2::near_avx2(level, probe, blocks, cut, first_row, found);
        }
        #[cfg(target_arch = "aarch64")]
        Instructions::Dotprod | Instructions::Neon => {
            super::aarch64::near(level, probe, blocks, cut, first_row, found);
        }
        Instructions::Portable => {
            for (number, block) in blocks.iter().enumerate() {
                let mut counts = [0_u32; BLOCK];
                for (probe, word) in probe.iter().zip(block) {
                    for (count, row) in counts.iter_mut().zip(word) {
                        *count = count.wrapping_add((row ^ probe).count_ones());
                    }
                }
                push_near(&counts, cut, first_row + (number * BLOCK) as u32, found);
            }
        }
    }
}

pub(super) fn push_near(counts: &[u32; BLOCK], cut: u32, first_row: u32, found: &mut Vec<Near>) {
    for (row, count) in (first_row..).zip(counts) {
        if *count <= cut {
            found.push(Near::new(row, *count));
        }
    }
}

/// Keeps those of `candidates` whose whole code differs from the probe's in at most `cut` signs.
/// Candidates come from [`near`], of the same probe, and are rows of `seconds`.
pub(crate) fn keep<const W: usize>(
    level: Level,
    probe: &[u64; W],
    seconds: &[[u64; W]],
    cut: u32,
    candidates: &mut Vec<Near>,
) {
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 | Instructions::Avx2 => {
            super::avx2::keep_popcnt(level, probe, seconds, cut, candidates);
        }
        _ => keep_portable(probe, seconds, cut, candidates),
    }
}

/// Asks for the second halves that [`keep`] will look at, well before it does.
pub(crate) fn fetch<const W: usize>(seconds: &[[u64; W]], candidates: &[Near]) {
    for candidate in candidates {
        super::prefetch(&seconds[candidate.row()]);
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "to be compiled with its caller's instructions")]
pub(super) fn keep_portable<const W: usize>(
    probe: &[u64; W],
    seconds: &[[u64; W]],
    cut: u32,
    candidates: &mut Vec<Near>,
) {
    let mut kept = 0;
    for at in 0..candidates.len() {
        let candidate = candidates[at];
        let mut distance = candidate.distance();
        for (word, second) in probe.iter().zip(&seconds[candidate.row()]) {
            distance = distance.wrapping_add((word ^ second).count_ones());
        }
        // Without a branch, which would be predicted badly.
        candidates[kept] = candidate;
        kept += usize::from(distance <= cut);
    }
    candidates.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn differing<const W: usize>(a: &[u64; W], b: &[u64; W]) -> u32 {
        a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

    fn check<const W: usize>(words: &[u64], cut: u32) -> Result<(), TestCaseError> {
        let (codes, _) = words.as_chunks::<W>();
        let (probe, rows) = codes.split_first_chunk::<2>().expect("a probe");
        let rows = &rows[..rows.len() / 16 * 16];
        let (firsts, seconds) = rows.split_at(rows.len() / 2);
        let blocks: Vec<BlockWord> = firsts
            .chunks(BLOCK)
            .flat_map(|block| (0..W).map(|word| std::array::from_fn(|row| block[row][word])))
            .collect();
        let at = |row: usize| differing(&probe[0], &firsts[row]);
        let both = |row: usize| at(row) + differing(&probe[1], &seconds[row]);
        let near_rows = (0..firsts.len()).filter(|&row| at(row) <= cut);
        let expected: Vec<Near> =
            near_rows.clone().map(|row| Near::new(row as u32 + 1000, at(row))).collect();
        let close = near_rows.filter(|&row| both(row) <= 2 * cut - 3);
        let kept: Vec<usize> = close.collect();
        for level in Level::available() {
            let mut found = vec![Near::new(7, 9)];
            near(level, &probe[0], &blocks, cut, 1000, &mut found);
            found[1..].sort_by_key(|near| near.row());
            prop_assert_eq!(&found[1..], &expected, "{:?}", level);
            let mut found = Vec::new();
            near(level, &probe[0], &blocks, cut, 0, &mut found);
            keep(level, &probe[1], seconds, 2 * cut - 3, &mut found);
            let mut found: Vec<usize> = found.into_iter().map(Near::row).collect();
            found.sort_unstable();
            prop_assert_eq!(&found, &kept, "{:?}", level);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        /// Cuts around the half that chance gives.
        #[test]
        fn every_kernel_finds_the_rows_that_a_look_at_each_finds(
            words in proptest::collection::vec(any::<u64>(), 16..1200),
            off in 0..20_u32,
        ) {
            check::<2>(&words, 54 + off)?;
            check::<4>(&words, 118 + off)?;
            check::<8>(&words, 246 + off)?;
        }
    }

    #[test]
    fn a_cut_of_nothing_and_of_everything_is_kept() {
        for words in [[0_u64; 96], [u64::MAX; 96]] {
            check::<4>(&words, 2).unwrap();
            check::<2>(&words, 128).unwrap();
        }
    }
}
