//! The line code's raw material: how strongly each place of the palm answers to dark lines in six
//! directions (the bank of BOCV, Guo et al. 2009), on the locally normalised region.

use crate::region::{self, Region};
use zeroize::Zeroizing;

/// Pixels of a side of the normalised region.
pub(crate) const SIDE: usize = region::SIDE / 2;
pub(crate) const DIRECTIONS: usize = 6;
const KERNEL: usize = 17;
const PADDED: usize = SIDE + KERNEL - 1;
/// Radius of the local mean and deviation, in pixels: standard deviation of the weighting.
const LOCALITY: f32 = 6.0;

/// The region at half size with local mean and deviation taken out. Wiped on drop.
pub(crate) struct Normalised(pub Zeroizing<Vec<f32>>);

/// The answer of each direction at each pixel, `[row][column][direction]`, dark lines positive.
/// Wiped on drop.
pub(crate) struct Responses(pub Zeroizing<Vec<f32>>);

impl Normalised {
    pub(crate) fn of(region: &Region) -> Self {
        let mut image = halved(region.luminance());
        let mean = blurred(&image);
        for (value, mean) in image.iter_mut().zip(mean.iter()) {
            *value -= mean;
        }
        let squares = Zeroizing::new(image.iter().map(|value| value * value).collect::<Vec<_>>());
        let variance = blurred(&squares);
        for (value, variance) in image.iter_mut().zip(variance.iter()) {
            *value /= (variance.max(0.0) + 4.0).sqrt();
        }
        Self(image)
    }
}

impl Responses {
    pub(crate) fn of(image: &Normalised) -> Self {
        let padded = padded(&image.0);
        let mut responses = Zeroizing::new(vec![0.0; SIDE * SIDE * DIRECTIONS]);
        let mut row_sums = Zeroizing::new([0.0; SIDE]);
        for direction in 0..DIRECTIONS {
            let kernel = gabor(direction);
            for row in 0..SIDE {
                row_sums.fill(0.0);
                for (offset, weights) in kernel.chunks_exact(KERNEL).enumerate() {
                    let line = &padded[(row + offset) * PADDED..][..PADDED];
                    for (shift, weight) in weights.iter().enumerate() {
                        for (sum, value) in row_sums.iter_mut().zip(&line[shift..]) {
                            *sum += weight * value;
                        }
                    }
                }
                for (column, sum) in row_sums.iter().enumerate() {
                    responses[(row * SIDE + column) * DIRECTIONS + direction] = -sum;
                }
            }
        }
        Self(responses)
    }
}

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

pub(crate) fn halved(plane: &[f32]) -> Zeroizing<Vec<f32>> {
    let mut small = Zeroizing::new(Vec::with_capacity(SIDE * SIDE));
    for rows in plane.chunks_exact(2 * region::SIDE) {
        let (upper, lower) = rows.split_at(region::SIDE);
        let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        small.extend(pairs.map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) / 4.0));
    }
    small
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

fn padded(image: &[f32]) -> Zeroizing<Vec<f32>> {
    const HALF: usize = KERNEL / 2;
    let mut padded = Zeroizing::new(Vec::with_capacity(PADDED * PADDED));
    for row in 0..PADDED {
        let line = &image[mirrored(row, HALF) * SIDE..][..SIDE];
        padded.extend((0..PADDED).map(|column| line[mirrored(column, HALF)]));
    }
    padded
}

/// Gaussian blur of standard deviation [`LOCALITY`] with mirrored borders.
fn blurred(image: &[f32]) -> Zeroizing<Vec<f32>> {
    const RADIUS: usize = 18;
    let weights: [f32; 2 * RADIUS + 1] =
        std::array::from_fn(|i| (-((i as f32 - RADIUS as f32) / LOCALITY).powi(2) / 2.0).exp());
    let sum: f32 = weights.iter().sum();
    let weights = weights.map(|weight| weight / sum);
    // One direction, then the other: a pass blurs down the columns and hands back the transpose.
    let pass = |image: &[f32]| {
        let mut out = Zeroizing::new(vec![0.0; SIDE * SIDE]);
        let mut line = [0.0; SIDE];
        for row in 0..SIDE {
            line.fill(0.0);
            for (offset, weight) in weights.iter().enumerate() {
                let from = mirrored(row + offset, RADIUS);
                for (sum, value) in line.iter_mut().zip(&image[from * SIDE..][..SIDE]) {
                    *sum += weight * value;
                }
            }
            for (column, value) in line.iter().enumerate() {
                out[column * SIDE + row] = *value;
            }
        }
        out
    };
    pass(&pass(image))
}

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
