//! AVX2, and what all newer x86-64 machines share.
#![allow(unsafe_code, reason = "vector instructions that not every machine has, and their loads")]

use super::{
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{BLOCK, BlockWord, Near, keep_portable},
};
use palmgate_protocol::{CODES_PER_TEMPLATE, QUADRANTS};
#[allow(clippy::wildcard_imports, reason = "every intrinsic is a name of this module")]
use std::arch::x86_64::*;

pub(super) fn count_unequal_avx2(
    level: Level,
    groups: &[Group; GROUPS],
    row: &Row,
    counts: &mut Counts,
) {
    assert_eq!(level.instructions(), Instructions::Avx2);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { count_unequal_256(groups, row, counts) }
}

/// Counts stay in bytes over the four words of a quadrant, of which each adds at most 8 to a byte.
#[target_feature(enable = "avx2")]
fn count_unequal_256(groups: &[Group; GROUPS], row: &Row, counts: &mut Counts) {
    let zero = _mm256_setzero_si256();
    for quadrant in 0..QUADRANTS {
        for (number, group) in groups.iter().enumerate() {
            for half in 0..2 {
                let mut sums = [zero; CODES_PER_TEMPLATE];
                for (word, [high, low]) in group.0[quadrant].iter().enumerate() {
                    let (high, low) = (load_256(high, half), load_256(low, half));
                    for (sum, code) in sums.iter_mut().zip(row) {
                        let [row_high, row_low] = code[quadrant][word];
                        let differ = _mm256_or_si256(
                            _mm256_xor_si256(high, _mm256_set1_epi64x(row_high.cast_signed())),
                            _mm256_xor_si256(low, _mm256_set1_epi64x(row_low.cast_signed())),
                        );
                        *sum = _mm256_add_epi8(*sum, ones_in_bytes(differ));
                    }
                }
                for (counts, sum) in counts.iter_mut().zip(sums) {
                    let lanes = lanes_256(_mm256_sad_epu8(sum, zero));
                    let to = &mut counts[quadrant][number].as_chunks_mut::<4>().0[half];
                    *to = lanes.map(|lane| lane as u16);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes_256(vector: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: the reference is to 32 writable bytes, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// Half of a group's word: shifts 0 to 3 or 4 to 7.
#[inline]
#[target_feature(enable = "avx2")]
fn load_256(words: &[u64; LANES], half: usize) -> __m256i {
    let words: &[[u64; 4]] = words.as_chunks().0;
    // SAFETY: the reference is to 32 readable bytes, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(words[half].as_ptr().cast()) }
}

/// The number of ones in each byte, by a table of the 16 nibbles.
#[inline]
#[target_feature(enable = "avx2")]
fn ones_in_bytes(bits: __m256i) -> __m256i {
    #[rustfmt::skip]
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
    _mm256_add_epi8(low, high)
}

pub(super) fn dot_avx2<const D: usize>(
    level: Level,
    probe: &[i8; D],
    rows: &[[i8; D]],
    products: &mut [i32],
) {
    assert_eq!(level.instructions(), Instructions::Avx2);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { dot_256(probe, rows, products) }
}

/// In 16 bits, because the instruction for bytes saturates.
#[target_feature(enable = "avx2")]
fn dot_256<const D: usize>(probe: &[i8; D], rows: &[[i8; D]], products: &mut [i32]) {
    let (probe, _) = probe.as_chunks::<32>();
    for (row, product) in rows.iter().zip(products) {
        fetch_ahead(row);
        let mut sums = [_mm256_setzero_si256(); 2];
        for (probe, row) in probe.iter().zip(row.as_chunks::<32>().0) {
            let halves = probe.as_chunks::<16>().0.iter().zip(row.as_chunks::<16>().0);
            for (sum, (probe, row)) in sums.iter_mut().zip(halves) {
                let pairs = _mm256_madd_epi16(load_wide_256(probe), load_wide_256(row));
                *sum = _mm256_add_epi32(*sum, pairs);
            }
        }
        let sum = _mm256_add_epi32(sums[0], sums[1]);
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum));
        *product = _mm_cvtsi128_si32(sum);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide_256(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the reference is to 16 readable bytes, and the load asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

pub(super) fn near_avx2<const W: usize>(
    level: Level,
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    assert_eq!(level.instructions(), Instructions::Avx2);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { near_256(probe, blocks, cut, first_row, found) }
}

/// As with AVX-512, one block at a time; a table says how to move together what is near.
#[target_feature(enable = "avx2,popcnt")]
fn near_256<const W: usize>(
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    let probe = probe.map(|word| _mm256_set1_epi64x(word.cast_signed()));
    let beyond = _mm256_set1_epi32(cut.cast_signed() + 1);
    let mut rows = _mm256_add_epi32(
        _mm256_set1_epi32(first_row.cast_signed()),
        _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7),
    );
    found.reserve((blocks.len() + 1) * BLOCK);
    let spare = found.spare_capacity_mut();
    let mut len = 0;
    for block in blocks {
        fetch_ahead(block);
        let (even, odd) = (distances_256(&probe, block, 0), distances_256(&probe, block, 1));
        let distances = _mm256_or_si256(even, _mm256_slli_epi64::<32>(odd));
        let near = _mm256_castsi256_ps(_mm256_cmpgt_epi32(beyond, distances));
        let near = _mm256_movemask_ps(near) as u8;
        let packed = _mm256_or_si256(_mm256_slli_epi32::<16>(distances), rows);
        let lanes = load_lanes_256(&TOGETHER[usize::from(near)]);
        let packed = _mm256_permutevar8x32_epi32(packed, lanes);
        let to = spare[len..][..BLOCK].as_mut_ptr();
        // SAFETY: there is room for eight values, which are plain words, and the store asks for
        // no alignment.
        unsafe { _mm256_storeu_si256(to.cast(), packed) };
        len += near.count_ones() as usize;
        rows = _mm256_add_epi32(rows, _mm256_set1_epi32(8));
    }
    let len = found.len() + len;
    // SAFETY: that many values have been stored, one after the other.
    unsafe { found.set_len(len) };
}

/// For every choice of lanes their numbers, one after the other.
static TOGETHER: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut choice = 0;
    while choice < 256 {
        let (mut lane, mut len) = (0, 0);
        while lane < 8 {
            if choice >> lane & 1 == 1 {
                table[choice][len] = lane;
                len += 1;
            }
            lane += 1;
        }
        choice += 1;
    }
    table
};

/// Distances of half of a block's rows. Counts stay in bytes over the words of a half of a code,
/// at most 16, of which each adds at most 8.
#[inline]
#[target_feature(enable = "avx2")]
fn distances_256<const W: usize>(
    probe: &[__m256i; W],
    block: &[BlockWord; W],
    half: usize,
) -> __m256i {
    const { assert!(W <= 16, "counts fit in bytes") };
    let mut counts = _mm256_setzero_si256();
    for (probe, rows) in probe.iter().zip(block) {
        let differ = _mm256_xor_si256(load_256(rows, half), *probe);
        counts = _mm256_add_epi8(counts, ones_in_bytes(differ));
    }
    _mm256_sad_epu8(counts, _mm256_setzero_si256())
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_lanes_256(lanes: &[u32; 8]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

pub(super) fn keep_popcnt<const W: usize>(
    level: Level,
    probe: &[u64; W],
    seconds: &[[u64; W]],
    cut: u32,
    candidates: &mut Vec<Near>,
) {
    #[target_feature(enable = "popcnt")]
    fn keep<const W: usize>(
        probe: &[u64; W],
        seconds: &[[u64; W]],
        cut: u32,
        candidates: &mut Vec<Near>,
    ) {
        keep_portable(probe, seconds, cut, candidates);
    }
    assert_ne!(level.instructions(), Instructions::Portable);
    // SAFETY: a level of any other kind exists only where the machine has the instruction.
    unsafe { keep(probe, seconds, cut, candidates) }
}

/// Asks for the line of memory that `value` begins in.
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    // SAFETY: the address is that of a reference, and the instruction changes no memory.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
}

/// Asks for the bytes two pages behind `value`, as many as it has. A scan does this because the
/// machine looks ahead on its own only as far as the page's end.
#[inline]
pub(super) fn fetch_ahead<T>(value: &T) {
    let ahead = std::ptr::from_ref(value).cast::<i8>().wrapping_add(8192);
    for line in (0..size_of::<T>()).step_by(64) {
        // SAFETY: the instruction reads and changes nothing, whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line)) };
    }
}
