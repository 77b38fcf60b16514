//! AVX-512 with VNNI and VPOPCNTDQ.
#![allow(unsafe_code, reason = "vector instructions that not every machine has, and their loads")]

use super::{
    avx2::{fetch_ahead, fetch_span_ahead},
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{Picked, Plane, WORDS, digit},
};
use palmgate_protocol::QUADRANTS;
#[allow(clippy::wildcard_imports, reason = "every intrinsic is a name of this module")]
use std::arch::x86_64::*;

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
    let streamed = rows.len() > 1;
    for (row, product) in rows.iter().zip(products) {
        if streamed {
            fetch_ahead(row);
        }
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

pub(super) fn near_avx512<const DIGITS: usize>(
    level: Level,
    picked: Picked<'_>,
    start: u64,
) -> Plane {
    assert_eq!(level.instructions(), Instructions::Avx512);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { near_512::<DIGITS>(picked, start) }
}

/// 512 rows at a time, for which all digits of a count stay in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vpopcntdq")]
fn near_512<const DIGITS: usize>(picked: Picked<'_>, start: u64) -> Plane {
    let splat = |number| _mm512_set1_epi64(digit(start, number).cast_signed());
    let ones = _mm512_set1_epi64(-1);
    let mut near = [0; WORDS];
    for (part, near) in near.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut low: [__m512i; 3] = std::array::from_fn(splat);
        let mut high: [__m512i; DIGITS] = std::array::from_fn(|i| splat(i + 3));
        for groups in picked.groups() {
            for group in groups {
                let two = |low: &mut _, first: usize| {
                    let a = signs_512(picked, group[first], part);
                    add_512(low, a, signs_512(picked, group[first + 1], part))
                };
                let (ab, cd) = (two(&mut low[0], 0), two(&mut low[0], 2));
                let (ef, gh) = (two(&mut low[0], 4), two(&mut low[0], 6));
                let abcd = add_512(&mut low[1], ab, cd);
                let efgh = add_512(&mut low[1], ef, gh);
                let mut carry = add_512(&mut low[2], abcd, efgh);
                for digit in &mut high {
                    let next = _mm512_and_si512(*digit, carry);
                    *digit = _mm512_xor_si512(*digit, carry);
                    carry = next;
                }
            }
            for digit in &mut low {
                *digit = _mm512_xor_si512(*digit, ones);
            }
            for digit in &mut high {
                *digit = _mm512_xor_si512(*digit, ones);
            }
        }
        store_512(near, _mm512_xor_si512(high[DIGITS - 1], ones));
    }
    near
}

/// A component's signs of 512 rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn signs_512(picked: Picked<'_>, place: u16, part: usize) -> __m512i {
    // SAFETY: the place is of the picked groups, and the part of one of a plane's lines.
    let line = unsafe { picked.part::<LANES>(place, part) };
    fetch_span_ahead(line, picked.words());
    load_512(line)
}

/// Adds two bits to one digit of 512 counts; what is carried is worth twice as much.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_512(digit: &mut __m512i, a: __m512i, b: __m512i) -> __m512i {
    // At least two of the three, and an odd number of them.
    let carry = _mm512_ternarylogic_epi64::<0xe8>(*digit, a, b);
    *digit = _mm512_ternarylogic_epi64::<0x96>(*digit, a, b);
    carry
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(words: &mut [u64; LANES], value: __m512i) {
    // SAFETY: the reference is to 64 writable bytes, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) };
}
