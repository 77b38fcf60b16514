//! AVX-512 with VNNI and VPOPCNTDQ.
#![allow(unsafe_code, reason = "vector instructions that not every machine has, and their loads")]

use super::{
    avx2::fetch_ahead,
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{BLOCK, BlockWord, Near},
};
use palmgate_protocol::QUADRANTS;
#[allow(clippy::wildcard_imports, reason = "every intrinsic is a name of this module")]
use std::{arch::x86_64::*, mem::MaybeUninit};

pub(super) fn count_unequal_avx512(
    level: Level,
    groups: &[Group; GROUPS],
    row: &Row,
    counts: &mut Counts,
) {
    assert_eq!(level.instructions(), Instructions::Avx512);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { count_unequal_512(groups, row, counts) }
}

/// Quadrant by quadrant: its words of the row's three codes stay in registers while the groups go
/// by.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn count_unequal_512(groups: &[Group; GROUPS], row: &Row, counts: &mut Counts) {
    for quadrant in 0..QUADRANTS {
        let row = row.each_ref().map(|code| {
            code[quadrant].map(|planes| planes.map(|word| _mm512_set1_epi64(word.cast_signed())))
        });
        for (number, group) in groups.iter().enumerate() {
            let group =
                group.0[quadrant].each_ref().map(|[high, low]| [load_512(high), load_512(low)]);
            for (code, planes) in row.iter().enumerate() {
                let mut sum = _mm512_setzero_si512();
                for ([high, low], [row_high, row_low]) in group.iter().zip(planes) {
                    let differ = _mm512_xor_si512(*high, *row_high);
                    // differ | (low ^ row_low)
                    let differ = _mm512_ternarylogic_epi64::<0xf6>(differ, *low, *row_low);
                    sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differ));
                }
                let to = counts[code][quadrant][number].as_mut_ptr().cast();
                let sum = _mm512_cvtepi64_epi16(sum);
                // SAFETY: there is room for the eight counts, and the store asks for no alignment.
                unsafe { _mm_storeu_si128(to, sum) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(words: &[u64; LANES]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
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
/// flip their sign bit) and 128 times the sum of the probe's components is taken off. Row after
/// row, because memory is fastest when it is read strictly forwards.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn dot_512<const D: usize>(probe: &[i8; D], rows: &[[i8; D]], products: &mut [i32]) {
    let (probe, _) = probe.as_chunks::<128>();
    let ones = _mm512_set1_epi8(1);
    let mut moved = _mm512_setzero_si512();
    for half in probe.as_flattened().as_chunks::<64>().0 {
        moved = _mm512_dpbusd_epi32(moved, ones, load_bytes_512(half));
    }
    let moved = 128 * _mm512_reduce_add_epi32(moved);
    for (row, product) in rows.iter().zip(products) {
        fetch_ahead(row);
        let mut sums = [_mm512_setzero_si512(); 2];
        for (probe, row) in probe.iter().zip(row.as_chunks::<128>().0) {
            let halves = probe.as_chunks::<64>().0.iter().zip(row.as_chunks::<64>().0);
            for (sum, (probe, row)) in sums.iter_mut().zip(halves) {
                let row = _mm512_xor_si512(load_bytes_512(row), _mm512_set1_epi8(i8::MIN));
                *sum = _mm512_dpbusd_epi32(*sum, row, load_bytes_512(probe));
            }
        }
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
        *product = sum.wrapping_sub(moved);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes_512(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
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

/// Two blocks at a time, whose distances go to the even and the odd halves of the lanes; what is
/// near is moved together and stored without a branch, which would often be predicted badly.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq,popcnt")]
fn near_512<const W: usize>(
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    let probe = probe.map(|word| _mm512_set1_epi64(word.cast_signed()));
    let most = _mm512_set1_epi32(cut.cast_signed());
    let mut rows = _mm512_add_epi32(
        _mm512_set1_epi32(first_row.cast_signed()),
        _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0),
    );
    let (pairs, rest) = blocks.as_chunks::<2>();
    found.reserve((blocks.len() + 3) * BLOCK);
    let spare = found.spare_capacity_mut();
    let mut len = 0;
    for pair in pairs {
        fetch_ahead(pair);
        let (even, odd) = (distances_512(&probe, &pair[0]), distances_512(&probe, &pair[1]));
        let distances = _mm512_or_si512(even, _mm512_slli_epi64::<32>(odd));
        len += store_near_512(
            _mm512_cmple_epu32_mask(distances, most),
            distances,
            rows,
            &mut spare[len..],
        );
        rows = _mm512_add_epi32(rows, _mm512_set1_epi32(16));
    }
    for block in rest {
        let distances = distances_512(&probe, block);
        let even = _mm512_mask_cmple_epu32_mask(0x5555, distances, most);
        len += store_near_512(even, distances, rows, &mut spare[len..]);
    }
    let len = found.len() + len;
    // SAFETY: that many values have been stored, one after the other.
    unsafe { found.set_len(len) };
}

/// Stores the lanes of `near`, row and distance together, and says how many they are.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn store_near_512(
    near: __mmask16,
    distances: __m512i,
    rows: __m512i,
    spare: &mut [MaybeUninit<Near>],
) -> usize {
    let packed = _mm512_or_si512(_mm512_slli_epi32::<16>(distances), rows);
    let packed = _mm512_maskz_compress_epi32(near, packed);
    let to = spare[..16].as_mut_ptr();
    // SAFETY: there is room for 16 values, which are plain words, and the store asks for no
    // alignment.
    unsafe { _mm512_storeu_si512(to.cast(), packed) };
    near.count_ones() as usize
}

#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn distances_512<const W: usize>(probe: &[__m512i; W], block: &[BlockWord; W]) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (probe, rows) in probe.iter().zip(block) {
        let differ = _mm512_xor_si512(load_512(rows), *probe);
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differ));
    }
    sum
}
