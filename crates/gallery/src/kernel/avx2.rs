//! AVX2, and what all newer x86-64 machines share.
#![allow(unsafe_code, reason = "vector instructions that not every machine has, and their loads")]

use super::{
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{GROUP, Picked, Plane, WORDS, digit},
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
    let streamed = rows.len() > 1;
    for (row, product) in rows.iter().zip(products) {
        if streamed {
            fetch_ahead(row);
        }
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

pub(super) fn near_avx2<const DIGITS: usize>(
    level: Level,
    picked: Picked<'_>,
    start: u64,
) -> Plane {
    assert_eq!(level.instructions(), Instructions::Avx2);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { near_256::<DIGITS>(picked, start) }
}

/// 256 rows at a time, 16 components where there are as many: without an instruction that takes
/// three registers, an adder of five bits that come in pairs is cheaper than two of three (Demenkov,
/// Kojevnikov, Kulikov, Yaroslavtsev 2010, *New upper bounds on the Boolean circuit complexity of
/// symmetric functions*).
#[target_feature(enable = "avx2")]
fn near_256<const DIGITS: usize>(picked: Picked<'_>, start: u64) -> Plane {
    let splat = |number| _mm256_set1_epi64x(digit(start, number).cast_signed());
    let ones = _mm256_set1_epi64x(-1);
    let mut near = [0; WORDS];
    for (part, near) in near.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut low: [__m256i; 3] = std::array::from_fn(splat);
        let mut high: [__m256i; DIGITS] = std::array::from_fn(|i| splat(i + 3));
        for groups in picked.groups() {
            let (pairs, rest) = groups.as_chunks::<2>();
            for pair in pairs {
                let [first, second] = pair;
                fetch_half_ahead(picked, first, part);
                let a = twos_256(&mut low[0], picked, first, 0, part);
                let b = twos_256(&mut low[0], picked, first, 4, part);
                let first = add_pairs_256(&mut low[1], a, b);
                fetch_half_ahead(picked, second, part);
                let a = twos_256(&mut low[0], picked, second, 0, part);
                let b = twos_256(&mut low[0], picked, second, 4, part);
                let second = add_pairs_256(&mut low[1], a, b);
                let eights = add_pairs_256(&mut low[2], first, second);
                let carry = add_pair_256(&mut high[0], eights);
                carry_256(&mut high[1..], carry);
            }
            for group in rest {
                fetch_half_ahead(picked, group, part);
                let a = twos_256(&mut low[0], picked, group, 0, part);
                let b = twos_256(&mut low[0], picked, group, 4, part);
                let fours = add_pairs_256(&mut low[1], a, b);
                let carry = add_pair_256(&mut low[2], fours);
                carry_256(&mut high, carry);
            }
            for digit in &mut low {
                *digit = _mm256_xor_si256(*digit, ones);
            }
            for digit in &mut high {
                *digit = _mm256_xor_si256(*digit, ones);
            }
        }
        *near = lanes_256(_mm256_xor_si256(high[DIGITS - 1], ones));
    }
    near
}

/// Two bits of the same worth, for each of 256 rows: the first of them, and whether they differ.
#[derive(Clone, Copy)]
struct Pair(__m256i, __m256i);

/// Adds four of a group's signs to the lowest digit; what is carried is worth two.
#[inline]
#[target_feature(enable = "avx2")]
fn twos_256(
    digit: &mut __m256i,
    picked: Picked<'_>,
    group: &[u16; GROUP],
    first: usize,
    part: usize,
) -> Pair {
    let a = signs_256(picked, group[first], part);
    let a_odd = _mm256_xor_si256(a, signs_256(picked, group[first + 1], part));
    let b = signs_256(picked, group[first + 2], part);
    let b_odd = _mm256_xor_si256(b, signs_256(picked, group[first + 3], part));
    add_pairs_256(digit, Pair(a, a_odd), Pair(b, b_odd))
}

/// A component's signs of 256 rows.
#[inline]
#[target_feature(enable = "avx2")]
fn signs_256(picked: Picked<'_>, place: u16, part: usize) -> __m256i {
    // SAFETY: the place is of the picked groups, and the part of one of a plane's quarters.
    let words = unsafe { picked.part::<4>(place, part) };
    // SAFETY: the reference is to 32 readable bytes, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Asks for half of a group's lines in the next span. Two parts of a plane share a line, so each
/// of them asks for one half.
#[inline]
fn fetch_half_ahead(picked: Picked<'_>, group: &[u16; GROUP], part: usize) {
    for place in &group.as_chunks::<{ GROUP / 2 }>().0[part % 2] {
        // SAFETY: the place is of the picked groups, and the part of one of a plane's lines.
        fetch_span_ahead(unsafe { picked.part::<LANES>(*place, part / 2) }, picked.words());
    }
}

/// Adds four bits to one digit of 256 counts; what is carried is worth twice as much.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs_256(digit: &mut __m256i, Pair(a, a_odd): Pair, Pair(b, b_odd): Pair) -> Pair {
    // The sum is odd before the second pair, and the first pair's carry.
    let odd = _mm256_xor_si256(*digit, a_odd);
    let any = _mm256_or_si256(a_odd, _mm256_xor_si256(a, *digit));
    let carry = _mm256_xor_si256(any, odd);
    // Where the second carry is another one than the first.
    let second = _mm256_andnot_si256(b_odd, _mm256_xor_si256(b, odd));
    *digit = _mm256_xor_si256(odd, b_odd);
    Pair(carry, _mm256_xor_si256(any, second))
}

/// Adds two bits to one digit of 256 counts; what is carried is worth twice as much.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pair_256(digit: &mut __m256i, Pair(a, odd): Pair) -> __m256i {
    let any = _mm256_or_si256(odd, _mm256_xor_si256(a, *digit));
    *digit = _mm256_xor_si256(*digit, odd);
    _mm256_xor_si256(any, *digit)
}

/// Adds one bit to 256 counts.
#[inline]
#[target_feature(enable = "avx2")]
fn carry_256(digits: &mut [__m256i], mut carry: __m256i) {
    for digit in digits {
        let next = _mm256_and_si256(*digit, carry);
        *digit = _mm256_xor_si256(*digit, carry);
        carry = next;
    }
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

/// Asks for what stands where `line` does, one span of so many `words` on. A machine cannot know
/// on its own which components a search picks.
#[inline]
pub(super) fn fetch_span_ahead<const N: usize>(line: &[u64; N], words: usize) {
    let ahead = std::ptr::from_ref(line).cast::<i8>().wrapping_add(words * size_of::<u64>());
    // SAFETY: the instruction reads and changes nothing, whatever the address is.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
}
