//! Distances between sign codes: in how many of some components two vectors point different ways.
//!
//! The signs stand component by component, those of [`SPAN`] rows together, so that a search reads
//! only the components that it asks about, and one bit operation serves as many rows as a register
//! has bits (bit slicing; Li and Patel 2013, *`BitWeaving`*). Counters are sliced, too: one word holds
//! one binary digit of 64 counts.
#![allow(unsafe_code, reason = "planes are looked up a quarter of a million times a search")]

use super::level::{Instructions, Level};

/// Words that hold one component's signs of a span.
pub(crate) const WORDS: usize = if cfg!(any(loom, miri)) { 1 } else { 16 };
/// Rows whose signs stand together.
pub(crate) const SPAN: usize = WORDS * 64;
/// One bit for each row of a span.
pub(crate) type Plane = [u64; WORDS];

/// Components are counted in groups of so many.
pub(crate) const GROUP: usize = 8;
/// Components of one sign, in groups.
type Groups = [[u16; GROUP]];
/// Components that can be counted.
pub(crate) const MAX_COMPONENTS: usize = 256;
/// Those that can be counted with fewer digits.
const FEW: usize = 128;
/// The largest cut that fits the digits.
pub(crate) const MAX_CUT: u32 = 127;
/// Digits of a count beyond the lowest three: of at most [`FEW`], and of more.
const DIGITS: [usize; 2] = [5, 6];

/// Components that are asked about: those that are positive in the probe, and those that are
/// negative. Each stands as the place of its plane's first word in a span.
pub(crate) struct Picks {
    places: Vec<u16>,
    positive: usize,
    planes: usize,
}

impl Picks {
    /// Of `planes` components, of which the first `positive` are positive in the probe.
    pub(crate) fn new(planes: usize, mut components: Vec<u16>, positive: usize) -> Self {
        assert!(planes * WORDS <= 1 << u16::BITS, "places that fit");
        assert!(components.len() <= MAX_COMPONENTS, "counts that fit");
        let groups = [positive, components.len() - positive];
        assert!(groups.iter().all(|each| each.is_multiple_of(GROUP)), "whole groups");
        let largest = components.iter().fold(0, |largest, each| largest.max(*each));
        assert!(usize::from(largest) < planes || components.is_empty(), "a plane for each");
        for each in &mut components {
            *each *= WORDS as u16;
        }
        Self { places: components, positive, planes }
    }

    /// The positive components and the negative ones.
    #[cfg(test)]
    pub(crate) fn components(&self) -> [Vec<u16>; 2] {
        let (positive, negative) = self.places.split_at(self.positive);
        [positive, negative].map(|each| each.iter().map(|place| place / WORDS as u16).collect())
    }
}

/// The planes of a span and the components that are asked about, all of which are among them.
#[derive(Clone, Copy)]
pub(super) struct Picked<'a> {
    planes: &'a [Plane],
    picks: &'a Picks,
}

impl<'a> Picked<'a> {
    fn new(planes: &'a [Plane], picks: &'a Picks) -> Self {
        assert_eq!(planes.len(), picks.planes, "the planes that were picked from");
        Self { planes, picks }
    }

    /// Places of those that are positive in the probe, and of those that are negative.
    pub(super) fn groups(self) -> [&'a Groups; 2] {
        let (positive, negative) = self.picks.places.split_at(self.picks.positive);
        [positive, negative].map(|each| each.as_chunks().0)
    }

    /// How many words a span has.
    #[cfg(not(any(loom, miri)))]
    pub(super) const fn words(self) -> usize {
        self.planes.len() * WORDS
    }

    /// The words `N * part` to `N * part + N` of the plane at a place.
    ///
    /// # Safety
    /// `place` is of [`Picked::groups`], and `part` is less than `WORDS / N`.
    #[cfg(not(any(loom, miri)))]
    #[inline]
    pub(super) unsafe fn part<const N: usize>(self, place: u16, part: usize) -> &'a [u64; N] {
        debug_assert!(N * part + N <= WORDS && usize::from(place) + WORDS <= self.words());
        // Wrapping, because a checked sum costs more than what is read.
        let words = self.planes.as_flattened().as_ptr().wrapping_add(N.wrapping_mul(part));
        // SAFETY: a place is the first of a plane's words, and the part is in that plane.
        unsafe { &*words.wrapping_add(usize::from(place)).cast() }
    }
}

/// Says of each row of a span whether its signs differ from the probe's in at most `cut` of the
/// picked components. `span` has one [`Plane`] a component.
pub(crate) fn near(level: Level, span: &[Plane], picks: &Picks, cut: u32) -> Plane {
    assert!(cut <= MAX_CUT, "a count that fits");
    // A count begins so that its last digit, after the first half was taken off and the second one
    // added, is a sign: that of the signs that differ, less the cut and one.
    let start = u64::from(cut).wrapping_sub(picks.positive as u64);
    let picked = Picked::new(span, picks);
    if picks.places.len() <= FEW {
        near_of::<{ DIGITS[0] }>(level, picked, start)
    } else {
        near_of::<{ DIGITS[1] }>(level, picked, start)
    }
}

fn near_of<const DIGITS: usize>(level: Level, picked: Picked<'_>, start: u64) -> Plane {
    match level.instructions() {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx512 => super::avx512::near_avx512::<DIGITS>(level, picked, start),
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        Instructions::Avx2 => super::avx2::near_avx2::<DIGITS>(level, picked, start),
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        Instructions::Dotprod | Instructions::Neon => {
            super::aarch64::near::<DIGITS>(level, picked, start)
        }
        _ => near_portable::<DIGITS>(picked, start),
    }
}

/// All ones where `start` has the digit.
pub(super) const fn digit(start: u64, number: usize) -> u64 {
    (start >> number & 1).wrapping_neg()
}

/// Has bit `b` of word `a` and bit `a` of word `b` change places: halves, quarters, down to bits.
pub(crate) fn transpose(words: &mut [u64; 64]) {
    let (mut width, mut mask) = (32, u64::MAX >> 32);
    while width > 0 {
        for a in (0..64).filter(|a| a & width == 0) {
            let changed = (words[a] >> width ^ words[a + width]) & mask;
            words[a] ^= changed << width;
            words[a + width] ^= changed;
        }
        width /= 2;
        mask ^= mask << width;
    }
}

fn near_portable<const DIGITS: usize>(picked: Picked<'_>, start: u64) -> Plane {
    let mut near = [0; WORDS];
    for (word, near) in near.iter_mut().enumerate() {
        let mut low: [u64; 3] = std::array::from_fn(|i| digit(start, i));
        let mut high: [u64; DIGITS] = std::array::from_fn(|i| digit(start, i + 3));
        for groups in picked.groups() {
            for group in groups {
                let words = picked.planes.as_flattened();
                let mut bits = group.map(|place| words[usize::from(place) + word]);
                // Eight bits become four of twice the worth, then two, then one.
                for (digit, pairs) in low.iter_mut().zip([4, 2, 1]) {
                    for pair in 0..pairs {
                        let (a, b) = (bits[2 * pair], bits[2 * pair + 1]);
                        let odd = *digit ^ a;
                        bits[pair] = (*digit & a) | (odd & b);
                        *digit = odd ^ b;
                    }
                }
                let mut carry = bits[0];
                for digit in &mut high {
                    (*digit, carry) = (*digit ^ carry, *digit & carry);
                }
            }
            // From a count to its negative, less one; and once more after the second half.
            low.iter_mut().chain(&mut high).for_each(|digit| *digit = !*digit);
        }
        *near = !high[DIGITS - 1];
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIMENSIONS: usize = 300;

    fn naive(span: &[Plane], picks: [&[u16]; 2], cut: u32) -> Plane {
        let mut near = [0; WORDS];
        for row in 0..SPAN {
            let is_set = |each: &&u16| span[usize::from(**each)][row / 64] >> (row % 64) & 1 == 1;
            let set = picks.map(|each| each.iter().filter(is_set).count());
            let differing = picks[0].len() - set[0] + set[1];
            near[row / 64] |= u64::from(differing as u32 <= cut) << (row % 64);
        }
        near
    }

    fn check(span: &[Plane], picks: [&[u16]; 2], cut: u32) -> Result<(), TestCaseError> {
        let expected = naive(span, picks, cut);
        let picks = Picks::new(span.len(), picks.concat(), picks[0].len());
        for level in Level::available() {
            prop_assert_eq!(near(level, span, &picks, cut), expected, "{:?}", level);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        /// Cuts around the half that chance gives.
        #[test]
        fn every_kernel_finds_the_rows_that_a_look_at_each_finds(
            seed in any::<u64>(),
            positive in 0..=MAX_COMPONENTS / GROUP / 2,
            negative in 0..=MAX_COMPONENTS / GROUP / 2,
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
            let mut pick = |groups: usize| -> Vec<u16> {
                (0..groups * GROUP).map(|_| (word() % DIMENSIONS as u64) as u16).collect()
            };
            let (positive, negative) = (pick(positive), pick(negative));
            let all = (positive.len() + negative.len()) as u32;
            let cut = (all / 2).saturating_add_signed(off).min(MAX_CUT);
            check(&span, [&positive, &negative], cut)?;
        }
    }

    #[test]
    fn a_block_of_bits_is_turned_over() {
        let words: [u64; 64] =
            std::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.wrapping_pow(i as u32 + 1));
        let mut turned = words;
        transpose(&mut turned);
        for (a, word) in words.iter().enumerate() {
            assert!((0..64).all(|b| word >> b & 1 == turned[b] >> a & 1));
        }
    }

    #[test]
    fn a_cut_of_nothing_and_of_everything_is_kept() {
        let picks: Vec<u16> = (0..MAX_COMPONENTS as u16).collect();
        for bits in [0, u64::MAX, 0x0f0f_3333_5555_ffff] {
            let span = vec![[bits; WORDS]; DIMENSIONS];
            for (positive, negative) in [(0, 8), (8, 0), (64, 64), (128, 0), (0, 128), (128, 128)] {
                let picks = [&picks[..positive], &picks[128..128 + negative]];
                for cut in [0, 1, 7, 8, 63, 64, 65, MAX_CUT] {
                    check(&span, picks, cut).unwrap();
                }
            }
        }
    }
}
