//! Simulated captures, for demonstrations and tests where there is one photograph of each hand.
//!
//! What comes out is a simulation and must be called one: the same skin is seen by another
//! simulated sensor, but no crease has opened or closed, no day has passed.

use crate::picture::{Picture, Point};
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use palmgate_protocol::{Biometric, limits::MAX_FRAME_BYTES};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use zeroize::Zeroizing;

/// Another capture of the hand in `picture`: turned by up to 6°, moved by up to 4 % and scaled by up
/// to 6 %, tilted, bent a little, under other light, blurred, with sensor noise, as a JPEG file of
/// the same size in pixels, or of 1,024 pixels a side if that was more. The same seed gives the same file. A file that cannot be read comes
/// back unchanged.
pub fn second_capture(picture: &[u8], seed: u64) -> Biometric<Vec<u8>> {
    let Ok(picture) = Picture::decode(picture) else {
        return Biometric::new(picture.to_vec());
    };
    let mut dice = Dice::new(seed, "second capture");
    let view = View::draw(&mut dice, &picture);
    let light = Light::draw(&mut dice);
    let radius = dice.between(0.0, 0.1 + 0.003 * picture.width.max(picture.height) as f32);
    let noise = dice.between(0.8, 2.5);
    let mut pixels = Zeroizing::new(Vec::with_capacity(picture.rgb().len()));
    for row in 0..picture.height {
        for column in 0..picture.width {
            let here = Point::new(column as f32 + 0.5, row as f32 + 0.5);
            let color = light.fall(here, &picture, soft(&picture, view.source(here), radius));
            pixels
                .extend(color.map(|value| (value + noise * dice.normal()).clamp(0.0, 255.0) as u8));
        }
    }
    encode(&picture, &pixels, dice.between(86.0, 96.0) as u8)
}

/// What a near-infrared camera beside the visible one could have seen of the hand in `picture`:
/// creases and pigment fade, veins appear, the background falls back. Same view, same size, a
/// JPEG file. The same seed gives the same veins.
pub fn near_infrared(picture: &[u8], seed: u64) -> Biometric<Vec<u8>> {
    let Ok(picture) = Picture::decode(picture) else {
        return Biometric::new(picture.to_vec());
    };
    let mut veins = Dice::new(seed, "veins");
    let waves: [[f32; 3]; 6] = std::array::from_fn(|_| {
        [veins.between(-26.0, 26.0), veins.between(-26.0, 26.0), veins.between(0.0, 6.3)]
    });
    let mut dice = Dice::new(seed, "near infrared noise");
    let side = picture.width.max(picture.height) as f32;
    let mut pixels = Zeroizing::new(Vec::with_capacity(picture.rgb().len()));
    for row in 0..picture.height {
        for column in 0..picture.width {
            let here = Point::new(column as f32 + 0.5, row as f32 + 0.5);
            let [red, ..] = picture.at(here);
            let near = soft(&picture, here, 0.02 * side);
            let far = soft(&picture, here, 0.045 * side);
            let smooth = f32::midpoint(near[0], far[0]);
            let skin = (far[0] / far[1].max(1.0) - 0.2).clamp(0.5, 1.1);
            let wave =
                waves.iter().map(|[x, y, phase]| ((x * here.x + y * here.y) / side + phase).sin());
            let vein = 7.0 * (1.0 - wave.sum::<f32>().abs()).max(0.0);
            let value = (smooth + 0.45 * (red - smooth) - vein) * skin + 1.5 * dice.normal();
            pixels.extend([value.clamp(0.0, 255.0) as u8; 3]);
        }
    }
    encode(&picture, &pixels, 93)
}

/// The mapping from the new picture's pixels to the old one's.
struct View {
    center: Point,
    side: f32,
    turn: (f32, f32),
    shift: Point,
    tilt: Point,
    bend: [f32; 4],
}

impl View {
    fn draw(dice: &mut Dice, picture: &Picture) -> Self {
        let side = picture.width.max(picture.height) as f32;
        let angle = dice.between(-6.0, 6.0).to_radians();
        let scale = dice.between(0.94, 1.06);
        Self {
            center: Point::new(picture.width as f32 / 2.0, picture.height as f32 / 2.0),
            side,
            turn: (angle.cos() * scale, angle.sin() * scale),
            shift: Point::new(dice.between(-0.04, 0.04) * side, dice.between(-0.04, 0.04) * side),
            tilt: Point::new(dice.between(-0.08, 0.08), dice.between(-0.08, 0.08)),
            bend: std::array::from_fn(|_| dice.between(-3.2, 3.2)),
        }
    }

    fn source(&self, p: Point) -> Point {
        let (x, y) = (p.x - self.center.x, p.y - self.center.y);
        let depth = 1.0 + (self.tilt.x * x + self.tilt.y * y) / self.side;
        let (u, v) = (x * depth, y * depth);
        let [a, b, c, d] = self.bend;
        let bend =
            |phase: f32, along: f32| 0.004 * self.side * (6.0 * along / self.side + phase).sin();
        Point::new(
            self.center.x + self.shift.x + u * self.turn.0 - v * self.turn.1
                + bend(a, v)
                + bend(b, u),
            self.center.y
                + self.shift.y
                + u * self.turn.1
                + v * self.turn.0
                + bend(c, u)
                + bend(d, v),
        )
    }
}

/// Strength, direction, colour and gamma of the light.
struct Light {
    gain: [f32; 3],
    slope: Point,
    gamma: f32,
}

impl Light {
    fn draw(dice: &mut Dice) -> Self {
        let strength = dice.between(0.86, 1.14);
        Self {
            gain: std::array::from_fn(|_| strength * dice.between(0.97, 1.03)),
            slope: Point::new(dice.between(-0.2, 0.2), dice.between(-0.2, 0.2)),
            gamma: dice.between(0.9, 1.1),
        }
    }

    fn fall(&self, p: Point, picture: &Picture, color: [f32; 3]) -> [f32; 3] {
        let across = (p.x / picture.width as f32 - 0.5) * self.slope.x;
        let down = (p.y / picture.height as f32 - 0.5) * self.slope.y;
        std::array::from_fn(|i| {
            255.0 * (color[i] / 255.0 * self.gain[i] * (1.0 + across + down)).powf(self.gamma)
        })
    }
}

/// The mean of nine points around `p`: a blur of about `radius`.
fn soft(picture: &Picture, p: Point, radius: f32) -> [f32; 3] {
    let mut sum = [0.0; 3];
    for i in 0..9u8 {
        let (x, y) = (f32::from(i % 3) - 1.0, f32::from(i / 3) - 1.0);
        let color = picture.at(Point::new(p.x + x * radius, p.y + y * radius));
        sum.iter_mut().zip(color).for_each(|(total, value)| *total += value / 9.0);
    }
    sum
}

/// A JPEG file that a terminal may send: the quality is lowered until it is small enough.
fn encode(picture: &Picture, pixels: &[u8], mut quality: u8) -> Biometric<Vec<u8>> {
    let (width, height) = (picture.width as u32, picture.height as u32);
    loop {
        let mut file = Biometric::new(Vec::new());
        JpegEncoder::new_with_quality(file.expose_mut(), quality)
            .encode(pixels, width, height, ExtendedColorType::Rgb8)
            .expect("a picture of this size always fits a JPEG file in memory");
        if file.expose().len() <= MAX_FRAME_BYTES || quality <= 10 {
            return file;
        }
        quality -= 8;
    }
}

struct Dice(ChaCha20Rng);

impl Dice {
    fn new(seed: u64, label: &str) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..8 + label.len()].copy_from_slice(label.as_bytes());
        Self(ChaCha20Rng::from_seed(bytes))
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.next_u32() as f32 / u32::MAX as f32
    }

    /// Near-normal with mean 0 and deviation 1.
    fn normal(&mut self) -> f32 {
        let word = self.0.next_u64();
        let sum: u32 = word.to_le_bytes().into_iter().map(u32::from).sum();
        (sum as f32 - 8.0 * 127.5) / 209.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_is_the_same_for_a_seed_and_another_for_another() {
        let picture = include_bytes!("../data/hands/IMG_1123.JPG");
        let first = second_capture(picture, 1);
        assert!(first.expose() == second_capture(picture, 1).expose());
        assert!(first.expose() != second_capture(picture, 2).expose());
        let decoded = Picture::decode(first.expose()).unwrap();
        assert_eq!((decoded.width, decoded.height), (100, 100));
    }

    #[test]
    fn what_cannot_be_read_comes_back_unchanged() {
        assert!(second_capture(b"no picture", 1).expose() == b"no picture");
    }
}
