use crate::code::{SIDE, halved};
use crate::region::Region;
use crate::sums::{dot, sum};
use crate::wiped::Wiped;

/// Presentation attack detection (ISO/IEC 30107-3) on the frames of one capture.
///
/// With a visible and a near-infrared frame of the same moment, the two are compared: living skin
/// loses most of its creases and pigment in near infrared and gains veins, a carbon print keeps the
/// visible picture line for line, a dye print goes blank, a screen goes dark. With one picture
/// only its own signs can be judged (colour of skin, natural noise, no regular raster), so that a
/// good print or a mask passes: such a score never exceeds [`Liveness::SINGLE_PICTURE_LIMIT`].
///
/// The limits were set on modelled bands, not on an attack set: they are a first line, and no
/// error rate is claimed for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Liveness {
    /// 0 (signs of a copy) to 1 (two bands agree with living skin); 0.5 or more: no sign of a copy
    /// was found by the means there were.
    pub score: f32,
    /// Whether the score comes from two bands.
    pub multispectral: bool,
}

impl Liveness {
    /// The most that one picture alone can say.
    pub const SINGLE_PICTURE_LIMIT: f32 = 0.6;

    /// Of a region, and what near infrared shows of the same.
    pub(crate) fn of(region: &Region, infrared: Option<&Region>) -> Self {
        infrared
            .map_or_else(|| Self::single(region), |infrared| Self::multispectral(region, infrared))
    }

    fn single(region: &Region) -> Self {
        let small = halved(region.luminance());
        let score = Self::SINGLE_PICTURE_LIMIT
            * skin_colour(region)
            * natural_noise(&small)
            * aperiodic(&small);
        Self { score, multispectral: false }
    }

    fn multispectral(visible: &Region, infrared: &Region) -> Self {
        let (v, n) = (halved(visible.luminance()), halved(infrared.luminance()));
        let brightness = mean(&n) / mean(&v).max(1.0);
        let mut score = ramp(brightness, 0.15, 0.35) * skin_colour(visible);
        // Creases at two scales: present but weaker, alike but not the same.
        for (fine, coarse) in [(1, 3), (2, 6)] {
            let (a, b) = (band(&v, fine, coarse), band(&n, fine, coarse));
            let contrast =
                deviation(&b) / mean(&n).max(1.0) / (deviation(&a) / mean(&v).max(1.0)).max(1e-4);
            let alike = correlation(&a, &b);
            score *= ramp(contrast, 0.05, 0.15) * (1.0 - ramp(contrast, 1.3, 1.8));
            score *= ramp(alike, 0.02, 0.12) * (1.0 - ramp(alike, 0.93, 0.98));
        }
        Self { score, multispectral: true }
    }
}

/// 0 below `low`, 1 above `high`, straight between.
fn ramp(value: f32, low: f32, high: f32) -> f32 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

/// Skin is redder than it is blue in any tone and most lights; a grey picture says nothing.
fn skin_colour(region: &Region) -> f32 {
    let [r, g, b] = region.color().map(mean);
    let all = (r + g + b).max(1.0);
    let spread = (r.max(g).max(b) - r.min(g).min(b)) / all;
    if spread < 0.004 { 1.0 } else { ramp((r - b) / all, -0.10, -0.02) }
}

/// A sensor leaves noise; a drawing or a rendered palm has flat areas.
fn natural_noise(small: &[f32]) -> f32 {
    let rough = |w: &&[f32]| (w[0] - 2.0 * w[1] + w[2]).abs() > 0.05;
    let rows = small.chunks_exact(SIDE);
    let found: usize = rows.map(|row| row.windows(3).filter(rough).count()).sum();
    ramp(found as f32 / ((SIDE - 2) * SIDE) as f32, 0.2, 0.5)
}

/// A printing raster or a screen's grid repeats itself after a few pixels: the autocorrelation
/// falls and comes back, which that of creases does not.
fn aperiodic(small: &[f32]) -> f32 {
    let fine = inner(&band(small, 0, 2));
    let energy = dot(&fine, &fine).max(1e-3);
    let comes_back = |step: usize| {
        let mut lowest = 1.0f32;
        (1..10).fold(0.0f32, |most, lag| {
            let alike = dot(&fine, &fine[lag * step..]) / energy;
            lowest = lowest.min(alike);
            most.max(alike - lowest)
        })
    };
    1.0 - ramp(comes_back(1).max(comes_back(INNER_COLUMNS)), 0.8, 1.2)
}

/// Box-filtered band between two radii.
fn band(image: &[f32], fine: usize, coarse: usize) -> Wiped<f32> {
    let mut low = boxed(image, fine);
    let wide = boxed(image, coarse);
    low.iter_mut().zip(wide.iter()).for_each(|(value, other)| *value -= other);
    low
}

/// Mean over a square of `2 radius + 1` pixels, cut at the border.
fn boxed(image: &[f32], radius: usize) -> Wiped<f32> {
    if radius == 0 {
        return Wiped::new(image.to_vec());
    }
    // Along the rows twice, transposing each time.
    let pass = |image: &[f32]| {
        let mut out = Wiped::zeros(SIDE * SIDE);
        for (y, row) in image.chunks_exact(SIDE).enumerate() {
            for x in 0..SIDE {
                let near = &row[x.saturating_sub(radius)..(x + radius + 1).min(SIDE)];
                out[x * SIDE + y] = near.iter().sum::<f32>() / near.len() as f32;
            }
        }
        out
    };
    pass(&pass(image))
}

fn mean(values: &[f32]) -> f32 {
    sum(values) / values.len() as f32
}

/// Root mean square over the palm's middle.
fn deviation(values: &[f32]) -> f32 {
    let middle = inner(values);
    (dot(&middle, &middle) / middle.len() as f32).sqrt()
}

/// Correlation over the palm's middle.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (inner(a), inner(b));
    dot(&a, &b) / (dot(&a, &a).sqrt() * dot(&b, &b).sqrt()).max(1e-6)
}

const INNER_COLUMNS: usize = SIDE * 3 / 5;

/// The palm's middle, where there is skin on every hand.
fn inner(values: &[f32]) -> Wiped<f32> {
    let rows = values.chunks_exact(SIDE).skip(SIDE / 10).take(SIDE * 7 / 10);
    let columns = SIDE / 5..SIDE / 5 + INNER_COLUMNS;
    Wiped::new(rows.flat_map(|row| row[columns.clone()].iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(raster: f32) -> Region {
        let side = 2 * SIDE;
        let values = (0..side * side).map(|i| {
            let (x, y) = (i % side, i / side);
            let grain = ((x * 7919 + y * 104_729) % 251) as f32 / 251.0;
            140.0 + 6.0 * grain + raster * (x as f32 * std::f32::consts::TAU / 9.0).sin()
        });
        Region::gray(values.collect())
    }

    #[test]
    fn a_raster_and_a_flat_drawing_look_like_copies_and_grain_does_not() {
        let flat = Region::gray(vec![140.0; 4 * SIDE * SIDE]);
        assert!(Liveness::single(&textured(0.0)).score > 0.5);
        assert!(Liveness::single(&textured(25.0)).score < 0.1);
        assert!(Liveness::single(&flat).score < 0.1);
    }

    #[test]
    fn one_picture_never_says_more_than_its_limit() {
        assert!(Liveness::single(&textured(0.0)).score <= Liveness::SINGLE_PICTURE_LIMIT);
    }
}
