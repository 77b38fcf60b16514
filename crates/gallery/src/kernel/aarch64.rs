//! NEON, with the dot product instructions where the machine has them.
#![allow(unsafe_code, reason = "vector instructions and their loads")]

use super::{
    equal::{Counts, GROUPS, Group, LANES, Row},
    level::{Instructions, Level},
    signs::{BLOCK, BlockWord, Near, push_near},
};
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
    for (row, product) in rows.iter().zip(products) {
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
    for (row, product) in rows.iter().zip(products) {
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

pub(super) fn near<const W: usize>(
    level: Level,
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    assert_ne!(level.instructions(), Instructions::Portable);
    // SAFETY: a level of any other kind exists only where the machine has NEON.
    unsafe { near_neon(probe, blocks, cut, first_row, found) }
}

/// Counts stay in bytes over the words of a half, at most 16, of which each adds at most 8.
#[target_feature(enable = "neon")]
fn near_neon<const W: usize>(
    probe: &[u64; W],
    blocks: &[[BlockWord; W]],
    cut: u32,
    first_row: u32,
    found: &mut Vec<Near>,
) {
    const { assert!(W <= 16, "counts fit in bytes") };
    let probe = probe.map(|word| vdupq_n_u64(word));
    for (block, row) in blocks.iter().zip((first_row..).step_by(BLOCK)) {
        let mut counts = [0_u32; BLOCK];
        for (quarter, counts) in counts.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut bytes = vdupq_n_u8(0);
            for (probe, rows) in probe.iter().zip(block) {
                let differ = veorq_u64(load(rows, quarter), *probe);
                bytes = vaddq_u8(bytes, vcntq_u8(vreinterpretq_u8_u64(differ)));
            }
            let sums = vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes)));
            *counts = [vgetq_lane_u64::<0>(sums) as u32, vgetq_lane_u64::<1>(sums) as u32];
        }
        push_near(&counts, cut, row, found);
    }
}
