//! The palm's region of interest in its canonical frame: a right palm, fingers up.

use crate::landmarks::Landmarks;
use crate::picture::{Picture, Point};
use crate::wiped::Wiped;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use palmgate_protocol::{Biometric, terminal::CaptureProblem};

/// Pixels of a side of the region.
pub(crate) const SIDE: usize = 160;
/// Pixels of a side of a region that comes ready-made, at least.
const MIN_READY_SIDE: usize = 64;
/// Side and centre of the region in palm lengths, in the frame of [`ANCHORS`].
const LENGTH: f32 = 1.0;
const CENTER: Point = Point::new(-0.03, -0.44);
/// Wrist and finger roots (landmarks 0, 5, 9, 13, 17) of the mean right palm: origin at the wrist,
/// y down, unit the palm length. Procrustes mean over 207 photographed hands.
const ANCHORS: [(usize, Point); 5] = [
    (0, Point::new(0.0, 0.0)),
    (5, Point::new(0.2271, -0.9712)),
    (9, Point::new(0.0, -1.0)),
    (13, Point::new(-0.2047, -0.9287)),
    (17, Point::new(-0.3919, -0.7804)),
];

/// Where the region lies in a picture.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    /// Picture = matrix × canonical + offset.
    matrix: [f32; 4],
    offset: Point,
    /// Root mean square distance of the landmarks from the mean palm's, in palm lengths.
    pub residual: f32,
}

/// The region: red, green, blue and luminance, one plane each, 0 to 255. Wiped on drop.
pub(crate) struct Region {
    planes: Wiped<f32>,
    /// The share of the region that lies inside the picture.
    pub coverage: f32,
}

impl Placement {
    /// The least-squares similarity that lays the mean palm on the landmarks; a left hand is
    /// mirrored first.
    pub(crate) fn fit(hand: &Landmarks, mirrored: bool) -> Self {
        let flip = if mirrored { -1.0 } else { 1.0 };
        let pairs = ANCHORS.map(|(index, p)| (Point::new(p.x * flip, p.y), hand.point(index)));
        let mean = |pick: fn(&(Point, Point)) -> Point| {
            let sum = pairs.iter().map(pick).fold((0.0, 0.0), |s, p| (s.0 + p.x, s.1 + p.y));
            Point::new(sum.0 / pairs.len() as f32, sum.1 / pairs.len() as f32)
        };
        let (from, to) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let (mut dot, mut cross, mut norm) = (0.0, 0.0, 0.0);
        for (a, b) in &pairs {
            let (ax, ay, bx, by) = (a.x - from.x, a.y - from.y, b.x - to.x, b.y - to.y);
            dot += ax * bx + ay * by;
            cross += ax * by - ay * bx;
            norm += ax * ax + ay * ay;
        }
        let (c, s) = (dot / norm, cross / norm);
        // The mirror is part of the map, so that the region itself is always a right palm's.
        let matrix = [c * flip, -s, s * flip, c];
        let offset = Point::new(to.x - c * from.x + s * from.y, to.y - s * from.x - c * from.y);
        let mut placement = Self { matrix, offset, residual: 0.0 };
        let error: f32 = ANCHORS
            .iter()
            .map(|&(index, p)| placement.place(p).distance(hand.point(index)).powi(2))
            .sum();
        placement.residual = (error / ANCHORS.len() as f32).sqrt() / c.hypot(s).max(f32::EPSILON);
        placement
    }

    /// Where a canonical point lies in the picture.
    fn place(&self, p: Point) -> Point {
        let [a, b, c, d] = self.matrix;
        Point::new(a * p.x + b * p.y + self.offset.x, c * p.x + d * p.y + self.offset.y)
    }

    /// The same place in a picture of the same view with another number of pixels.
    pub(crate) fn rescaled(&self, from: &Picture, to: &Picture) -> Self {
        let (x, y) = (to.width as f32 / from.width as f32, to.height as f32 / from.height as f32);
        let [a, b, c, d] = self.matrix;
        let offset = Point::new(self.offset.x * x, self.offset.y * y);
        Self { matrix: [a * x, b * x, c * y, d * y], offset, ..*self }
    }

    pub(crate) fn cut(&self, picture: &Picture) -> Region {
        let mut planes = Wiped::zeros(4 * SIDE * SIDE);
        let mut inside = 0usize;
        let step = LENGTH / SIDE as f32;
        for row in 0..SIDE {
            for column in 0..SIDE {
                let u = CENTER.x - LENGTH / 2.0 + (column as f32 + 0.5) * step;
                let v = CENTER.y - LENGTH / 2.0 + (row as f32 + 0.5) * step;
                let point = self.place(Point::new(u, v));
                inside += usize::from(picture.contains(point));
                let [r, g, b] = picture.at(point);
                let at = row * SIDE + column;
                let luminance = 0.299 * r + 0.587 * g + 0.114 * b;
                for (plane, value) in [r, g, b, luminance].into_iter().enumerate() {
                    planes[plane * SIDE * SIDE + at] = value;
                }
            }
        }
        Region { planes, coverage: inside as f32 / (SIDE * SIDE) as f32 }
    }
}

impl Region {
    /// A picture that is a region of interest already: its middle square.
    pub(crate) fn ready(picture: &Picture) -> Result<Self, CaptureProblem> {
        let side = picture.width.min(picture.height);
        if side < MIN_READY_SIDE || picture.width.max(picture.height) > side * 3 / 2 {
            return Err(CaptureProblem::CutOff);
        }
        let scale = side as f32 / SIDE as f32;
        let corner =
            Point::new((picture.width - side) as f32 / 2.0, (picture.height - side) as f32 / 2.0);
        if side == SIDE && corner.x.fract() + corner.y.fract() == 0.0 {
            return Ok(Self::of_pixels(picture, corner.x as usize, corner.y as usize));
        }
        // Where pixels are merged, each is the mean of as many places as it covers.
        let places = (scale.ceil() as usize).max(1);
        let mut planes = Wiped::zeros(4 * SIDE * SIDE);
        for at in 0..SIDE * SIDE {
            let mut sum = [0.0; 3];
            for place in 0..places * places {
                let within = |i: usize| (i as f32 + 0.5) / places as f32;
                let (x, y) = (within(place % places), within(place / places));
                let (x, y) = ((at % SIDE) as f32 + x, (at / SIDE) as f32 + y);
                let color = picture.at(Point::new(corner.x + x * scale, corner.y + y * scale));
                sum.iter_mut().zip(color).for_each(|(sum, value)| *sum += value);
            }
            let [r, g, b] = sum.map(|sum| sum / (places * places) as f32);
            let luminance = 0.299 * r + 0.587 * g + 0.114 * b;
            for (plane, value) in [r, g, b, luminance].into_iter().enumerate() {
                planes[plane * SIDE * SIDE + at] = value;
            }
        }
        Ok(Self { planes, coverage: 1.0 })
    }

    /// The pixels from this corner on as they are: what reading between them would give.
    fn of_pixels(picture: &Picture, left: usize, top: usize) -> Self {
        let mut planes = Wiped::zeros(4 * SIDE * SIDE);
        let rows = picture.rgb().chunks_exact(3 * picture.width).skip(top);
        for (row, pixels) in rows.take(SIDE).enumerate() {
            let (pixels, _) = pixels[3 * left..].as_chunks::<3>();
            for (at, pixel) in (row * SIDE..(row + 1) * SIDE).zip(pixels) {
                let [r, g, b] = pixel.map(f32::from);
                let luminance = 0.299 * r + 0.587 * g + 0.114 * b;
                for (plane, value) in [r, g, b, luminance].into_iter().enumerate() {
                    planes[plane * SIDE * SIDE + at] = value;
                }
            }
        }
        Self { planes, coverage: 1.0 }
    }

    /// A grey region of half the pixels a side, each doubled.
    pub(crate) fn from_small(gray: &[u8]) -> Self {
        let place = |i: usize| i / (2 * SIDE) * (SIDE / 2) + i % SIDE / 2;
        let values: Vec<f32> = (0..SIDE * SIDE).map(|i| f32::from(gray[place(i)])).collect();
        Self::gray(values)
    }

    pub(crate) fn gray(values: Vec<f32>) -> Self {
        let values = Wiped::new(values);
        Self { planes: Wiped::new(values.repeat(4)), coverage: 1.0 }
    }

    /// Red, green and blue planes.
    pub(crate) fn color(&self) -> [&[f32]; 3] {
        std::array::from_fn(|i| &self.planes[i * SIDE * SIDE..(i + 1) * SIDE * SIDE])
    }

    /// As a PNG file.
    pub(crate) fn png(&self) -> Biometric<Vec<u8>> {
        let byte = |value: f32| value.round().clamp(0.0, 255.0) as u8;
        let [red, green, blue] = self.color();
        let pixels = red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [*r, *g, *b]);
        let pixels = Wiped::new(pixels.map(byte).collect());
        let mut file = Vec::with_capacity(pixels.len());
        PngEncoder::new(&mut file)
            .write_image(&pixels, SIDE as u32, SIDE as u32, ExtendedColorType::Rgb8)
            .expect("memory takes every picture");
        Biometric::new(file)
    }

    /// The luminance plane, row by row.
    pub(crate) fn luminance(&self) -> &[f32] {
        &self.planes[3 * SIDE * SIDE..]
    }
}
