//! The line code's raw material: how strongly each place of the palm answers to dark lines in six
//! directions (the bank of BOCV, Guo et al. 2009), on the locally normalised region.

use crate::region::{self, Region};
use crate::wiped::Wiped;
use pulp::{Arch, Simd, WithSimd};
use std::sync::LazyLock;

/// Pixels of a side of the normalised region.
pub(crate) const SIDE: usize = region::SIDE / 2;
pub(crate) const DIRECTIONS: usize = 6;
const KERNEL: usize = 17;
const PADDED: usize = SIDE + KERNEL - 1;
/// Radius of the local mean and deviation, in pixels: standard deviation of the weighting.
const LOCALITY: f32 = 6.0;

/// The region at half size with local mean and deviation taken out. Wiped on drop.
pub(crate) struct Normalised(pub Wiped<f32>);

/// The answer of each direction at each pixel, `[row][column][direction]`, dark lines positive.
/// Wiped on drop.
pub(crate) struct Responses(pub Wiped<f32>);

impl Normalised {
    pub(crate) fn of(region: &Region) -> Self {
        let mut image = halved(region.luminance());
        let mean = blurred(&image);
        for (value, mean) in image.iter_mut().zip(mean.iter()) {
            *value -= mean;
        }
        let squares = Wiped::new(image.iter().map(|value| value * value).collect());
        let variance = blurred(&squares);
        for (value, variance) in image.iter_mut().zip(variance.iter()) {
            *value /= (variance.max(0.0) + 4.0).sqrt();
        }
        Self(image)
    }
}

/// Half of a kernel's places: the other half mirrors it about the last one, the centre.
const HALF: usize = KERNEL * KERNEL / 2 + 1;

impl Responses {
    pub(crate) fn of(image: &Normalised) -> Self {
        let padded = padded(&image.0);
        let mut responses = Wiped::zeros(SIDE * SIDE * DIRECTIONS);
        Arch::new().dispatch(Lines { padded: &padded, responses: &mut responses });
        Self(responses)
    }
}

/// The sums under all kernels at every pixel, negated.
struct Lines<'a> {
    padded: &'a [f32],
    responses: &'a mut [f32],
}

impl WithSimd for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const LAST: usize = (KERNEL - 1) * (PADDED + 1);
        for row in 0..SIDE {
            for column in (0..SIDE).step_by(S::F32_LANES) {
                let from = &self.padded[row * PADDED + column..];
                let mut sums = [simd.splat_f32s(0.0); DIRECTIONS];
                // A line kernel looks the same after half a turn: two pixels that lie opposite each
                // other are added before they are weighted.
                for (place, weights) in WEIGHTS.iter().enumerate() {
                    let at = place / KERNEL * PADDED + place % KERNEL;
                    let both = simd.add_f32s(load::<S>(from, at), load::<S>(from, LAST - at));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        // Not fused: every machine gets the same bits.
                        *sum = simd.add_f32s(*sum, simd.mul_f32s(both, simd.splat_f32s(*weight)));
                    }
                }
                let out = &mut self.responses[(row * SIDE + column) * DIRECTIONS..];
                for (direction, sum) in sums.iter().enumerate() {
                    let sums: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(sum));
                    for (shift, value) in sums.iter().enumerate() {
                        out[shift * DIRECTIONS + direction] = -value;
                    }
                }
            }
        }
    }
}

/// As many values as the machine works on at once, from `at` on.
#[expect(clippy::inline_always, reason = "the caller chooses the instructions")]
#[inline(always)]
fn load<S: Simd>(values: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&values[at..at + S::F32_LANES]).0[0]
}

/// The first half of every kernel, place by place; the centre, which is added to itself, halved.
static WEIGHTS: LazyLock<[[f32; DIRECTIONS]; HALF]> = LazyLock::new(|| {
    let kernels: [[f32; KERNEL * KERNEL]; DIRECTIONS] = std::array::from_fn(gabor);
    let share = |place: usize| if place == HALF - 1 { 0.5 } else { 1.0 };
    std::array::from_fn(|place| kernels.each_ref().map(|kernel| kernel[place] * share(place)))
});

/// A zero-mean line kernel of unit absolute sum.
fn gabor(direction: usize) -> [f32; KERNEL * KERNEL] {
    const SIGMA: f32 = 2.3;
    const WAVELENGTH: f32 = 6.0;
    const ASPECT: f32 = 0.4;
    let (sin, cos) = (std::f32::consts::PI * direction as f32 / DIRECTIONS as f32).sin_cos();
    let half = (KERNEL / 2) as f32;
    let mut kernel: [f32; KERNEL * KERNEL] = std::array::from_fn(|i| {
        let (x, y) = ((i % KERNEL) as f32 - half, (i / KERNEL) as f32 - half);
        let (across, along) = (x * cos + y * sin, y * cos - x * sin);
        let envelope = (-(across.powi(2) + (ASPECT * along).powi(2)) / (2.0 * SIGMA * SIGMA)).exp();
        envelope * (std::f32::consts::TAU * across / WAVELENGTH).cos()
    });
    let mean = kernel.iter().sum::<f32>() / kernel.len() as f32;
    kernel = kernel.map(|value| value - mean);
    let scale = kernel.iter().map(|value| value.abs()).sum::<f32>();
    kernel.map(|value| value / scale)
}

pub(crate) fn halved(plane: &[f32]) -> Wiped<f32> {
    let mut small = Vec::with_capacity(SIDE * SIDE);
    for rows in plane.chunks_exact(2 * region::SIDE) {
        let (upper, lower) = rows.split_at(region::SIDE);
        let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        small.extend(pairs.map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) / 4.0));
    }
    Wiped::new(small)
}

/// Index into a line of `SIDE` values that goes on mirrored for `margin` values before and after;
/// `position` counts from the start of the margin.
const fn mirrored(position: usize, margin: usize) -> usize {
    if position < margin {
        margin - 1 - position
    } else if position < margin + SIDE {
        position - margin
    } else {
        2 * SIDE - 1 - (position - margin)
    }
}

fn padded(image: &[f32]) -> Wiped<f32> {
    const HALF: usize = KERNEL / 2;
    let mut padded = Vec::with_capacity(PADDED * PADDED);
    for row in 0..PADDED {
        let line = &image[mirrored(row, HALF) * SIDE..][..SIDE];
        padded.extend((0..PADDED).map(|column| line[mirrored(column, HALF)]));
    }
    Wiped::new(padded)
}

/// Gaussian blur of standard deviation [`LOCALITY`] with mirrored borders.
fn blurred(image: &[f32]) -> Wiped<f32> {
    let mut out = Wiped::zeros(SIDE * SIDE);
    Arch::new().dispatch(Columns { image, out: &mut out });
    let mut back = Wiped::zeros(SIDE * SIDE);
    Arch::new().dispatch(Columns { image: &out, out: &mut back });
    back
}

/// Blurs down the columns and hands back the transpose.
struct Columns<'a> {
    image: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "the caller chooses the instructions")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in 0..SIDE {
            // Several sums side by side: each waits for itself.
            for column in (0..SIDE).step_by(AT_ONCE * S::F32_LANES) {
                let mut sums = [simd.splat_f32s(0.0); AT_ONCE];
                for (offset, weight) in BLUR.iter().enumerate() {
                    let from = mirrored(row + offset, RADIUS) * SIDE + column;
                    let values = &self.image[from..][..AT_ONCE * S::F32_LANES];
                    for (sum, values) in sums.iter_mut().zip(S::as_simd_f32s(values).0) {
                        *sum =
                            simd.add_f32s(*sum, simd.mul_f32s(*values, simd.splat_f32s(*weight)));
                    }
                }
                let sums: &[f32] = pulp::bytemuck::cast_slice(&sums);
                for (shift, value) in sums.iter().enumerate() {
                    self.out[(column + shift) * SIDE + row] = *value;
                }
            }
        }
    }
}

/// Vectors of a row that are worked on at once: 4, 8 and 16 values make whole rows of them.
const AT_ONCE: usize = 5;
/// Pixels on either side that a blur looks at.
const RADIUS: usize = 18;

static BLUR: LazyLock<[f32; 2 * RADIUS + 1]> = LazyLock::new(|| {
    let weights: [f32; 2 * RADIUS + 1] =
        std::array::from_fn(|i| (-((i as f32 - RADIUS as f32) / LOCALITY).powi(2) / 2.0).exp());
    let sum: f32 = weights.iter().sum();
    weights.map(|weight| weight / sum)
});

#[cfg(test)]
mod tests {
    use super::*;

    fn line(angle: f32) -> Responses {
        let half = region::SIDE as f32 / 2.0;
        let (sin, cos) = angle.sin_cos();
        let values: Vec<f32> = (0..region::SIDE * region::SIDE)
            .map(|i| {
                let x = (i % region::SIDE) as f32 - half;
                let y = (i / region::SIDE) as f32 - half;
                if (x * cos + y * sin).abs() < 3.0 { 90.0 } else { 150.0 }
            })
            .collect();
        Responses::of(&Normalised::of(&Region::gray(values)))
    }

    #[test]
    fn a_dark_line_is_answered_most_by_its_own_direction() {
        for direction in 0..DIRECTIONS {
            let angle = std::f32::consts::PI * direction as f32 / DIRECTIONS as f32;
            let responses = line(angle);
            let centre = (SIDE / 2 * SIDE + SIDE / 2) * DIRECTIONS;
            let here = &responses.0[centre..centre + DIRECTIONS];
            let best = (0..DIRECTIONS).max_by(|a, b| here[*a].total_cmp(&here[*b])).unwrap();
            assert_eq!(best, direction);
            assert!(here[best] > 0.0);
        }
    }

    #[test]
    fn tiles_say_what_whole_kernels_say_place_by_place() {
        let values: Vec<f32> = (0..SIDE * SIDE).map(|i| ((i * 7919 % 1009) as f32).sin()).collect();
        let image = Normalised(Wiped::new(values));
        let (responses, padded) = (Responses::of(&image), padded(&image.0));
        for (row, column) in [(0, 0), (0, SIDE - 1), (31, 44), (SIDE - 1, 7), (SIDE - 1, SIDE - 1)]
        {
            for direction in 0..DIRECTIONS {
                let kernel = gabor(direction);
                let sum: f32 = (0..KERNEL * KERNEL)
                    .map(|i| kernel[i] * padded[(row + i / KERNEL) * PADDED + column + i % KERNEL])
                    .sum();
                let answer = responses.0[(row * SIDE + column) * DIRECTIONS + direction];
                assert!((answer + sum).abs() < 1e-5, "{row} {column} {direction}");
            }
        }
    }

    #[test]
    fn light_and_contrast_change_the_responses_little() {
        let values: Vec<f32> = (0..region::SIDE * region::SIDE)
            .map(|i| 100.0 + 30.0 * ((i % region::SIDE) as f32 / 5.0).sin())
            .collect();
        let brighter: Vec<f32> = values.iter().map(|value| value * 1.4 + 10.0).collect();
        let [a, b] = [values, brighter].map(|v| Responses::of(&Normalised::of(&Region::gray(v))));
        let middle = SIDE * SIDE / 2 * DIRECTIONS..(SIDE * SIDE / 2 + SIDE) * DIRECTIONS;
        for (x, y) in a.0[middle.clone()].iter().zip(&b.0[middle]) {
            assert!((x - y).abs() < 0.02, "{x} {y}");
        }
    }
}
