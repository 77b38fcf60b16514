//! Distances between sign codes: in how many of some components two vectors point different ways.
//!
//! The signs stand component by component, those of [`SPAN`] rows together, so that a search reads
//! only the components that it asks about, and one bit operation serves as many rows as a register
//! has bits (bit slicing; Li and Patel 2013, *BitWeaving*). Counters are sliced, too: one word holds
//! one binary digit of 64 counts.

use super::level::{Instructions, Level};

/// Words that hold one component's signs of a span.
pub(crate) const WORDS: usize = if cfg!(any(loom, miri)) { 1 } else { 16 };
/// Rows whose signs stand together.
pub(crate) const SPAN: usize = WORDS * 64;
/// One bit for each row of a span.
pub(crate) type Plane = [u64; WORDS];

/// Components are counted in groups of so many.
pub(crate) const GROUP: usize = 8;
/// Components that can be counted.
pub(crate) const MAX_COMPONENTS: usize = 256;
/// Those that can be counted with fewer digits.
const FEW: usize = 128;
/// Digits of a count beyond the lowest three: of at most [`FEW`], and of more.
const DIGITS: [usize; 2] = [4, 6];

/// A component of the probe.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Pick {
    /// All ones where the probe's sign is set.
    pub(crate) sign: u64,
    /// Which component it is.
    pub(crate) component: usize,
}

/// Says of each row of a span whether its signs differ from the probe's in at most `cut` of the
/// picked components. `span` has one [`Plane`] a component.
pub(crate) fn near(level: Level, span: &[Plane], picks: &[Pick], cut: u32) -> Plane {
    let (groups, rest) = picks.as_chunks::<GROUP>();
    assert!(rest.is_empty() && picks.len() <= MAX_COMPONENTS && cut < 128, "counts that fit");
    if picks.len() <= FEW {
        near_of::<{ DIGITS[0] }>(level, span, groups, cut)
    } else {
        near_of::<{ DIGITS[1] }>(level, span, groups, cut)
    }
}

fn near_of<const DIGITS: usize>(
    level: Level,
    span: &[Plane],
    groups: &[[Pick; GROUP]],
    cut: u32,
) -> Plane {
    // A count begins so high that its last digit overflows just when it is above the cut.
    let start = (1 << (DIGITS + 3)) - 1 - u64::from(cut);
    match level.instructions() {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512 => super::avx512::near_avx512::<DIGITS>(level, span, groups, start),
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => super::avx2::near_avx2::<DIGITS>(level, span, groups, start),
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Dotprod | Instructions::Neon => {
            super::aarch64::near::<DIGITS>(level, span, groups, start)
        }
        _ => near_portable::<DIGITS>(span, groups, start),
    }
}

/// All ones where `start` has the digit.
pub(super) const fn digit(start: u64, number: usize) -> u64 {
    (start >> number & 1).wrapping_neg()
}

fn near_portable<const DIGITS: usize>(
    span: &[Plane],
    groups: &[[Pick; GROUP]],
    start: u64,
) -> Plane {
    let mut near = [0; WORDS];
    for (word, near) in near.iter_mut().enumerate() {
        let mut low: [u64; 3] = std::array::from_fn(|i| digit(start, i));
        let mut high: [u64; DIGITS] = std::array::from_fn(|i| digit(start, i + 3));
        let mut far = 0;
        for group in groups {
            let mut differ = group.map(|pick| span[pick.component][word] ^ pick.sign);
            // Eight bits become four of twice the worth, then two, then one.
            for (digit, pairs) in low.iter_mut().zip([4, 2, 1]) {
                for pair in 0..pairs {
                    let (a, b) = (differ[2 * pair], differ[2 * pair + 1]);
                    let odd = *digit ^ a;
                    differ[pair] = (*digit & a) | (odd & b);
                    *digit = odd ^ b;
                }
            }
            let mut carry = differ[0];
            for digit in &mut high {
                (*digit, carry) = (*digit ^ carry, *digit & carry);
            }
            far |= carry;
        }
        *near = !far;
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIMENSIONS: usize = 300;

    fn naive(span: &[Plane], picks: &[Pick], cut: u32) -> Plane {
        let is_set = |plane: &Plane, row: usize| plane[row / 64] >> (row % 64) & 1 == 1;
        let mut near = [0; WORDS];
        for row in 0..SPAN {
            let differs = |pick: &&Pick| is_set(&span[pick.component], row) != (pick.sign != 0);
            let differing = picks.iter().filter(differs).count();
            near[row / 64] |= u64::from(differing as u32 <= cut) << (row % 64);
        }
        near
    }

    fn check(span: &[Plane], picks: &[Pick], cut: u32) -> Result<(), TestCaseError> {
        let expected = naive(span, picks, cut);
        for level in Level::available() {
            prop_assert_eq!(near(level, span, picks, cut), expected, "{:?}", level);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        /// Cuts around the half that chance gives.
        #[test]
        fn every_kernel_finds_the_rows_that_a_look_at_each_finds(
            seed in any::<u64>(),
            groups in 1..=MAX_COMPONENTS / GROUP,
            off in -12..12_i32,
        ) {
            let mut state = seed | 1;
            let mut word = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            };
            let span: Vec<Plane> =
                (0..DIMENSIONS).map(|_| std::array::from_fn(|_| word())).collect();
            let picks: Vec<Pick> = (0..groups * GROUP)
                .map(|_| Pick {
                    sign: (word() >> 63).wrapping_neg(),
                    component: word() as usize % DIMENSIONS,
                })
                .collect();
            let cut = (picks.len() as i32 / 2 + off).clamp(0, 127);
            check(&span, &picks, cut.cast_unsigned())?;
        }
    }

    #[test]
    fn a_cut_of_nothing_and_of_everything_is_kept() {
        for bits in [0, u64::MAX, 0x0f0f_3333_5555_ffff] {
            let span = vec![[bits; WORDS]; DIMENSIONS];
            for components in [8, 64, 120, 128, 136, 256] {
                for sign in [0, u64::MAX] {
                    let picks: Vec<Pick> =
                        (0..components).map(|component| Pick { sign, component }).collect();
                    for cut in [0, 1, components.min(128) as u32 - 1, 127] {
                        check(&span, &picks, cut).unwrap();
                    }
                }
            }
        }
    }
}
