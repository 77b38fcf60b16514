//! AVX-512 and AVX2.
#![allow(unsafe_code, reason = "vector instructions that not every machine has, and their loads")]

use super::{
    equal::{Group, LANES, Row},
    level::{Instructions, Level},
    signs::{BLOCK, BlockWord, Near, keep_portable},
};
#[allow(clippy::wildcard_imports, reason = "every intrinsic is a name of this module")]
use std::arch::x86_64::*;

const HASHES: u32 = 1024;

pub(super) fn least_unequal_avx512(level: Level, groups: &[Group], row: &Row) -> u32 {
    assert_eq!(level.instructions(), Instructions::Avx512);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { least_unequal_512(groups, row) }
}

/// Two groups at a time: with three codes a row that is six sums in registers, and each word of
/// the row is read once for both.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn least_unequal_512(groups: &[Group], row: &Row) -> u32 {
    let mut least = _mm512_set1_epi64(i64::from(HASHES));
    for pair in groups.chunks(2) {
        let (first, second) = (&pair[0], &pair[pair.len() - 1]);
        let mut counts = [[_mm512_setzero_si512(); 3]; 2];
        for (word, (first, second)) in first.0.iter().zip(&second.0).enumerate() {
            let groups = [first, second].map(|[high, low]| [load_512(high), load_512(low)]);
            for (code, planes) in row.iter().enumerate() {
                let [high, low] = planes[word].map(|word| _mm512_set1_epi64(word.cast_signed()));
                for (counts, group) in counts.iter_mut().zip(&groups) {
                    let differ = _mm512_xor_si512(group[0], high);
                    // differ | (group[1] ^ low)
                    let differ = _mm512_ternarylogic_epi64::<0xf6>(differ, group[1], low);
                    counts[code] = _mm512_add_epi64(counts[code], _mm512_popcnt_epi64(differ));
                }
            }
        }
        for count in counts.as_flattened() {
            least = _mm512_min_epu64(least, *count);
        }
    }
    _mm512_reduce_min_epu64(least) as u32
}

#[target_feature(enable = "avx512f")]
fn load_512(words: &[u64; LANES]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

pub(super) fn least_unequal_avx2(level: Level, groups: &[Group], row: &Row) -> u32 {
    assert_eq!(level.instructions(), Instructions::Avx2);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { least_unequal_256(groups, row) }
}

/// Counts stay in bytes over the 16 words of a code, of which each adds at most 8 to a byte.
#[target_feature(enable = "avx2")]
fn least_unequal_256(groups: &[Group], row: &Row) -> u32 {
    let zero = _mm256_setzero_si256();
    let mut least = _mm256_set1_epi64x(i64::from(HASHES));
    for group in groups {
        for half in 0..2 {
            let mut counts = [zero; 3];
            for (word, [high, low]) in group.0.iter().enumerate() {
                let (high, low) = (load_256(high, half), load_256(low, half));
                for (counts, planes) in counts.iter_mut().zip(row) {
                    let [row_high, row_low] =
                        planes[word].map(|word| _mm256_set1_epi64x(word.cast_signed()));
                    let differ = _mm256_or_si256(
                        _mm256_xor_si256(high, row_high),
                        _mm256_xor_si256(low, row_low),
                    );
                    *counts = _mm256_add_epi8(*counts, ones_in_bytes(differ));
                }
            }
            for count in counts {
                // No count is above 1,024, so the lower 32 bits of each lane decide.
                least = _mm256_min_epu32(least, _mm256_sad_epu8(count, zero));
            }
        }
    }
    lanes_256(least).into_iter().fold(HASHES, |least, lane| least.min(lane as u32))
}

#[target_feature(enable = "avx2")]
fn lanes_256(vector: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: the reference is to 32 writable bytes, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// Half of a group's word: codes 0 to 3 or 4 to 7.
#[target_feature(enable = "avx2")]
fn load_256(words: &[u64; LANES], half: usize) -> __m256i {
    let words: &[[u64; 4]] = words.as_chunks().0;
    // SAFETY: the reference is to 32 readable bytes, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(words[half].as_ptr().cast()) }
}

/// The number of ones in each byte, by a table of the 16 nibbles.
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

pub(super) fn dot_avx512<const D: usize>(
    level: Level,
    probe: &[i8; D],
    rows: &[[i8; D]],
    products: &mut [i32],
) {
    assert_eq!(level.instructions(), Instructions::Avx512);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { dot_512(probe, rows, products) }
}

/// The instruction multiplies unsigned by signed bytes, so rows are moved up by 128 (which is to
/// flip their sign bit) and 128 times the sum of the probe's components is taken off.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn dot_512<const D: usize>(probe: &[i8; D], rows: &[[i8; D]], products: &mut [i32]) {
    let sign = _mm512_set1_epi8(i8::MIN);
    let moved = 128 * probe.iter().map(|&component| i32::from(component)).sum::<i32>();
    let (probe, _) = probe.as_chunks::<64>();
    for (row, product) in rows.iter().zip(products) {
        let mut sums = [_mm512_setzero_si512(); 2];
        for (i, (probe, row)) in probe.iter().zip(row.as_chunks::<64>().0).enumerate() {
            let row = _mm512_xor_si512(load_bytes_512(row), sign);
            sums[i % 2] = _mm512_dpbusd_epi32(sums[i % 2], row, load_bytes_512(probe));
        }
        *product = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])) - moved;
    }
}

#[target_feature(enable = "avx512f")]
fn load_bytes_512(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
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
    let (probe, _) = probe.as_chunks::<16>();
    for (row, product) in rows.iter().zip(products) {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (i, (probe, row)) in probe.iter().zip(row.as_chunks::<16>().0).enumerate() {
            let pairs = _mm256_madd_epi16(load_wide_256(probe), load_wide_256(row));
            sums[i % 2] = _mm256_add_epi32(sums[i % 2], pairs);
        }
        let sum = _mm256_add_epi32(sums[0], sums[1]);
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum));
        *product = _mm_cvtsi128_si32(sum);
    }
}

#[target_feature(enable = "avx2")]
fn load_wide_256(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the reference is to 16 readable bytes, and the load asks for no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

pub(super) fn near_avx512<const W: usize>(
    level: Level,
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    assert_eq!(level.instructions(), Instructions::Avx512);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { near_512(probe, blocks, cut, first_row, found) }
}

/// Four blocks at a time: their sums are independent, and one comparison passes over all of them
/// when none is near.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn near_512<const W: usize>(
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    let probe = probe.map(|word| _mm512_set1_epi64(word.cast_signed()));
    let most = _mm512_set1_epi64(i64::from(cut));
    let mut row = first_row;
    let (fours, rest) = blocks.as_chunks::<4>();
    for four in fours {
        let counts = four.each_ref().map(|block| distances_512(&probe, block));
        let nearest = _mm512_min_epu64(
            _mm512_min_epu64(counts[0], counts[1]),
            _mm512_min_epu64(counts[2], counts[3]),
        );
        if _mm512_cmple_epu64_mask(nearest, most) != 0 {
            for (count, row) in counts.into_iter().zip((row..).step_by(BLOCK)) {
                push_512(count, most, row, found);
            }
        }
        row += 4 * BLOCK as u32;
    }
    for block in rest {
        push_512(distances_512(&probe, block), most, row, found);
        row += BLOCK as u32;
    }
}

/// Appends the lanes whose distance is at most `most`.
#[target_feature(enable = "avx512f")]
fn push_512(distances: __m512i, most: __m512i, first_row: u32, found: &mut Vec<Near>) {
    let near = _mm512_cmple_epu64_mask(distances, most);
    let rows = _mm512_add_epi64(
        _mm512_set1_epi64(i64::from(first_row)),
        _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0),
    );
    let packed = _mm512_or_si512(_mm512_slli_epi64::<16>(distances), rows);
    let packed = _mm512_cvtepi64_epi32(_mm512_maskz_compress_epi64(near, packed));
    found.reserve(BLOCK);
    let spare = found.spare_capacity_mut();
    // SAFETY: there is room for eight values of 32 bits, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(spare.as_mut_ptr().cast(), packed) };
    let len = found.len() + near.count_ones() as usize;
    // SAFETY: the store has written that many values, and `Near` is a plain word.
    unsafe { found.set_len(len) };
}

#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn distances_512<const W: usize>(probe: &[__m512i; W], block: &[BlockWord; W]) -> __m512i {
    let mut sums = [_mm512_setzero_si512(); 2];
    for (i, (probe, rows)) in probe.iter().zip(block).enumerate() {
        let differ = _mm512_xor_si512(load_512(rows), *probe);
        sums[i % 2] = _mm512_add_epi64(sums[i % 2], _mm512_popcnt_epi64(differ));
    }
    _mm512_add_epi64(sums[0], sums[1])
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

/// Counts stay in bytes over the words of a half, at most 16, of which each adds at most 8.
#[target_feature(enable = "avx2,popcnt")]
fn near_256<const W: usize>(
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    const { assert!(W <= 16, "counts fit in bytes") };
    let zero = _mm256_setzero_si256();
    let beyond = _mm256_set1_epi64x(i64::from(cut) + 1);
    let probe = probe.map(|word| _mm256_set1_epi64x(word.cast_signed()));
    for (block, row) in blocks.iter().zip((first_row..).step_by(BLOCK)) {
        for half in 0..2 {
            let mut counts = zero;
            for (probe, rows) in probe.iter().zip(block) {
                let differ = _mm256_xor_si256(load_256(rows, half as usize), *probe);
                counts = _mm256_add_epi8(counts, ones_in_bytes(differ));
            }
            let distances = _mm256_sad_epu8(counts, zero);
            let near = _mm256_cmpgt_epi64(beyond, distances);
            if _mm256_movemask_epi8(near) != 0 {
                for (lane, distance) in (0..).zip(lanes_256(distances)) {
                    if distance <= u64::from(cut) {
                        found.push(Near::new(row + 4 * half + lane, distance as u32));
                    }
                }
            }
        }
    }
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
pub(super) fn prefetch<T>(value: &T) {
    // SAFETY: the address is that of a reference, and the instruction changes no memory.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
}
