//! NEON, with the dot product instructions where the machine has them.
#![allow(unsafe_code, reason = "vector instructions and their loads")]

use super::{
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{Picked, Plane, WORDS, digit},
};
use palmgate_protocol::{CODES_PER_TEMPLATE, QUADRANTS};
#[allow(clippy::wildcard_imports, reason = "every intrinsic is a name of this module")]
use std::arch::{aarch64::*, asm};

pub(super) fn count_unequal(
    level: Level,
    groups: &[Group; GROUPS],
    row: &Row,
    counts: &mut Counts,
) {
    assert_ne!(level.instructions(), Instructions::Portable);
    // SAFETY: a level of any other kind exists only where the machine has NEON.
    unsafe { count_unequal_neon(groups, row, counts) }
}

/// Counts stay in bytes over the four words of a quadrant, of which each adds at most 8 to a byte.
#[target_feature(enable = "neon")]
fn count_unequal_neon(groups: &[Group; GROUPS], row: &Row, counts: &mut Counts) {
    for quadrant in 0..QUADRANTS {
        for (number, group) in groups.iter().enumerate() {
            for quarter in 0..LANES / 2 {
                let mut sums = [vdupq_n_u8(0); CODES_PER_TEMPLATE];
                for (word, [high, low]) in group.0[quadrant].iter().enumerate() {
                    let (high, low) = (load(high, quarter), load(low, quarter));
                    for (sum, code) in sums.iter_mut().zip(row) {
                        let [row_high, row_low] =
                            code[quadrant][word].map(|word| vdupq_n_u64(word));
                        let differ = vorrq_u64(veorq_u64(high, row_high), veorq_u64(low, row_low));
                        *sum = vaddq_u8(*sum, vcntq_u8(vreinterpretq_u8_u64(differ)));
                    }
                }
                for (counts, sum) in counts.iter_mut().zip(sums) {
                    let sums = vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(sum)));
                    let to = &mut counts[quadrant][number].as_chunks_mut::<2>().0[quarter];
                    *to = [vgetq_lane_u64::<0>(sums) as u16, vgetq_lane_u64::<1>(sums) as u16];
                }
            }
        }
    }
}

/// A quarter of a group's word: two shifts.
#[inline]
#[target_feature(enable = "neon")]
fn load(words: &[u64; LANES], quarter: usize) -> uint64x2_t {
    let words: &[[u64; 2]] = words.as_chunks().0;
    // SAFETY: the reference is to two readable words.
    unsafe { vld1q_u64(words[quarter].as_ptr()) }
}

pub(super) fn dot_dotprod<const D: usize>(
    level: Level,
    probe: &[i8; D],
    rows: &[[i8; D]],
    products: &mut [i32],
) {
    assert_eq!(level.instructions(), Instructions::Dotprod);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { dot_rows_dotprod(probe, rows, products) }
}

#[target_feature(enable = "neon,dotprod")]
fn dot_rows_dotprod<const D: usize>(probe: &[i8; D], rows: &[[i8; D]], products: &mut [i32]) {
    let (probe, _) = probe.as_chunks::<16>();
    let streamed = rows.len() > 1;
    for (row, product) in rows.iter().zip(products) {
        if streamed {
            fetch_ahead(row);
        }
        let mut sums = [vdupq_n_s32(0); 2];
        for (i, (probe, row)) in probe.iter().zip(row.as_chunks::<16>().0).enumerate() {
            sums[i % 2] = sdot(sums[i % 2], load_bytes(probe), load_bytes(row));
        }
        *product = vaddvq_s32(vaddq_s32(sums[0], sums[1]));
    }
}

/// `vdotq_s32`, which is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction only reads and writes the three registers, and the machine has it.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

pub(super) fn dot_neon<const D: usize>(
    level: Level,
    probe: &[i8; D],
    rows: &[[i8; D]],
    products: &mut [i32],
) {
    assert_eq!(level.instructions(), Instructions::Neon);
    // SAFETY: a level of this kind exists only where the machine has the instructions.
    unsafe { dot_rows_neon(probe, rows, products) }
}

/// A product of two bytes has 15 bits and a sign, so products are summed in 32 bits at once.
#[target_feature(enable = "neon")]
fn dot_rows_neon<const D: usize>(probe: &[i8; D], rows: &[[i8; D]], products: &mut [i32]) {
    let (probe, _) = probe.as_chunks::<16>();
    let streamed = rows.len() > 1;
    for (row, product) in rows.iter().zip(products) {
        if streamed {
            fetch_ahead(row);
        }
        let mut sums = [vdupq_n_s32(0); 2];
        for (probe, row) in probe.iter().zip(row.as_chunks::<16>().0) {
            let (probe, row) = (load_bytes(probe), load_bytes(row));
            sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(probe), vget_low_s8(row)));
            sums[1] = vpadalq_s16(sums[1], vmull_high_s8(probe, row));
        }
        *product = vaddvq_s32(vaddq_s32(sums[0], sums[1]));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

pub(super) fn near<const DIGITS: usize>(level: Level, picked: Picked<'_>, start: u64) -> Plane {
    assert_ne!(level.instructions(), Instructions::Portable);
    // SAFETY: a level of any other kind exists only where the machine has NEON.
    unsafe { near_neon::<DIGITS>(picked, start) }
}

/// 128 rows at a time, for which all digits of a count stay in registers.
#[target_feature(enable = "neon")]
fn near_neon<const DIGITS: usize>(picked: Picked<'_>, start: u64) -> Plane {
    let splat = |number| vdupq_n_u64(digit(start, number));
    let ones = vdupq_n_u64(u64::MAX);
    let mut near = [0; WORDS];
    for (part, near) in near.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let mut low: [uint64x2_t; 3] = std::array::from_fn(splat);
        let mut high: [uint64x2_t; DIGITS] = std::array::from_fn(|i| splat(i + 3));
        for groups in picked.groups() {
            for group in groups {
                let two = |low: &mut _, first: usize| {
                    let a = signs(picked, group[first], part);
                    add(low, a, signs(picked, group[first + 1], part))
                };
                let (ab, cd) = (two(&mut low[0], 0), two(&mut low[0], 2));
                let (ef, gh) = (two(&mut low[0], 4), two(&mut low[0], 6));
                let (abcd, efgh) = (add(&mut low[1], ab, cd), add(&mut low[1], ef, gh));
                let mut carry = add(&mut low[2], abcd, efgh);
                for digit in &mut high {
                    let next = vandq_u64(*digit, carry);
                    *digit = veorq_u64(*digit, carry);
                    carry = next;
                }
            }
            for digit in &mut low {
                *digit = veorq_u64(*digit, ones);
            }
            for digit in &mut high {
                *digit = veorq_u64(*digit, ones);
            }
        }
        let far = high[DIGITS - 1];
        *near = [!vgetq_lane_u64::<0>(far), !vgetq_lane_u64::<1>(far)];
    }
    near
}

/// A component's signs of 128 rows.
#[inline]
#[target_feature(enable = "neon")]
fn signs(picked: Picked<'_>, place: u16, part: usize) -> uint64x2_t {
    // SAFETY: the place is of the picked groups, and the part of one of a plane's pairs of words.
    let words = unsafe { picked.part::<2>(place, part) };
    if part.is_multiple_of(4) {
        fetch_span_ahead(words, picked.words());
    }
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { vld1q_u64(words.as_ptr()) }
}

/// Adds two bits to one digit of 128 counts; what is carried is worth twice as much.
#[inline]
#[target_feature(enable = "neon")]
fn add(digit: &mut uint64x2_t, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    let odd = veorq_u64(*digit, a);
    // Where the first two differ, the third decides.
    let carry = vbslq_u64(odd, b, a);
    *digit = veorq_u64(odd, b);
    carry
}

/// Asks for the line of memory that `value` begins in.
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    fetch(std::ptr::from_ref(value).cast());
}

/// Asks for what stands where `line` does, one span of so many `words` on. A machine cannot know
/// on its own which components a search picks.
#[inline]
fn fetch_span_ahead<const N: usize>(line: &[u64; N], words: usize) {
    fetch(std::ptr::from_ref(line).cast::<u8>().wrapping_add(words * size_of::<u64>()));
}

/// Asks for the bytes two pages behind `value`, as many as it has.
#[inline]
fn fetch_ahead<T>(value: &T) {
    let ahead = std::ptr::from_ref(value).cast::<u8>().wrapping_add(8192);
    (0..size_of::<T>()).step_by(64).for_each(|line| fetch(ahead.wrapping_add(line)));
}

/// `_prefetch`, which is not stable yet.
#[inline]
fn fetch(at: *const u8) {
    // SAFETY: the instruction reads and changes nothing, whatever the address is.
    unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags)) };
}
