//! What motion between two frames of a burst could tell of a copy, measured on models: a flat one
//! moves as one homography, a hand does not.
//!
//! `cargo test --release -p palmgate-palm --lib parallax -- --ignored --nocapture`
//!
//! Only the skin is real: photographed hands are moved as flat prints before the detector and the
//! landmarks, or laid on a modelled palm and turned in front of a camera three palm lengths away.
#![allow(clippy::print_stdout, reason = "a measurement for the documentation")]

use super::{Extractor, Steps};
use crate::{
    picture::{Picture, Point},
    region::SIDE,
};
use std::{fs, path::Path};

/// Palm lengths between camera and palm.
const FAR: f64 = 3.0;
/// How far a hand turns between two frames, in degrees: held still, as hands sway, asked to tilt.
const TURNS: [f64; 3] = [1.0, 3.0, 8.0];
/// Half a patch that is found again, how far it is looked for, and how far patches are apart, in
/// pixels of the region.
const PATCH: usize = 10;
const REACH: usize = 8;
const APART: usize = 15;

/// Height of a relaxed hand's joints towards the camera, in palm lengths, in the order of
/// [`crate::landmarks::Landmarks`].
const JOINTS: [f64; 21] = [
    0.0, 0.06, 0.12, 0.18, 0.22, 0.05, 0.07, 0.11, 0.16, 0.05, 0.08, 0.13, 0.19, 0.05, 0.08, 0.13,
    0.19, 0.05, 0.07, 0.11, 0.16,
];

type Place = [f64; 2];
type Pair = (Place, Place);

/// Mounds about a hollow: about a centimetre on a palm of nine.
fn palm([x, y]: Place) -> f64 {
    let mound = |cx: f64, cy: f64, width: f64, height: f64| {
        height * (-((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * width * width)).exp()
    };
    mound(0.28, 0.22, 0.22, 0.12)
        + mound(-0.3, 0.25, 0.2, 0.09)
        + mound(-0.3, -0.38, 0.18, 0.05)
        + mound(0.2, -0.4, 0.18, 0.05)
}

/// Paper over a wrist-wide cylinder.
fn bent([x, y]: Place) -> f64 {
    -(x + 0.3 * y).powi(2) / 1.6
}

fn flat(_: Place) -> f64 {
    0.0
}

struct Dice(u64);

impl Dice {
    /// Evenly between −1 and 1.
    fn even(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    }

    /// Mean 0, deviation 1, nearly normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() / 2.0
    }

    /// A turn of this many degrees about an axis in the palm.
    fn turn(&mut self, degrees: f64) -> Place {
        let angle = self.even() * std::f64::consts::PI;
        [angle.cos() * degrees.to_radians(), angle.sin() * degrees.to_radians()]
    }
}

/// Where a point of the hand is seen after a turn, in palm lengths at the palm's distance.
fn seen([x, y]: Place, height: f64, turn: Place) -> Place {
    let depth = 1.0 - (height + x * turn[0] + y * turn[1]) / FAR;
    [(x - height * turn[0]) / depth, (y - height * turn[1]) / depth]
}

/// Root mean square of what the best homography leaves, after the worst tenth is left out.
fn left_over(pairs: &[Pair]) -> Option<f64> {
    let mut errors: Vec<_> = errors(pairs)?.into_iter().zip(pairs.iter().copied()).collect();
    errors.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    errors.truncate(pairs.len() * 9 / 10);
    let kept: Vec<Pair> = errors.into_iter().map(|(_, pair)| pair).collect();
    let errors = self::errors(&kept)?;
    Some((errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt())
}

/// How far each pair is from the homography that fits all best.
fn errors(pairs: &[Pair]) -> Option<Vec<f64>> {
    const UNKNOWN: usize = 8;
    if pairs.len() < 2 * UNKNOWN {
        return None;
    }
    let mut system = [[0.0; UNKNOWN + 1]; UNKNOWN];
    for ([x, y], [u, v]) in pairs {
        for row in [
            [*x, *y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y, *u],
            [0.0, 0.0, 0.0, *x, *y, 1.0, -v * x, -v * y, *v],
        ] {
            for (i, line) in system.iter_mut().enumerate() {
                line.iter_mut().zip(row).for_each(|(sum, value)| *sum += row[i] * value);
            }
        }
    }
    let h = solve(system)?;
    let error = |([x, y], [u, v]): &Pair| {
        let depth = h[6] * x + h[7] * y + 1.0;
        let there = [h[0] * x + h[1] * y + h[2], h[3] * x + h[4] * y + h[5]];
        (there[0] / depth - u).hypot(there[1] / depth - v)
    };
    Some(pairs.iter().map(error).collect())
}

/// Gauss's elimination with pivots.
fn solve<const N: usize, const M: usize>(mut system: [[f64; M]; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot = (column..N)
            .max_by(|a, b| system[*a][column].abs().total_cmp(&system[*b][column].abs()))?;
        system.swap(column, pivot);
        let line = system[column];
        if line[column].abs() < 1e-12 {
            return None;
        }
        for (_, other) in system.iter_mut().enumerate().filter(|(row, _)| *row != column) {
            let share = other[column] / line[column];
            other.iter_mut().zip(line).for_each(|(value, of)| *value -= share * of);
        }
    }
    Some(std::array::from_fn(|i| system[i][N] / system[i][i]))
}

/// Photographs in 480 × 480 pixels.
fn photographs() -> Vec<Picture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hands");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    let open = |path: &std::path::PathBuf| {
        let small = image::open(path).unwrap().to_rgb8();
        let large =
            image::imageops::resize(&small, 480, 480, image::imageops::FilterType::CatmullRom);
        Picture::from_rgb(480, 480, large.into_raw())
    };
    files.iter().step_by(4).map(open).collect()
}

/// A photograph as a flat print that was turned, moved and brought nearer, with a sensor's noise.
fn moved(photograph: &Picture, degrees: f64, dice: &mut Dice) -> Picture {
    let (w, h) = (photograph.width as f64, photograph.height as f64);
    let (turn, roll) = (dice.turn(degrees), (dice.even() * degrees).to_radians());
    let (scale, shift) = (1.0 + 0.02 * dice.even(), [0.02 * dice.even(), 0.02 * dice.even()]);
    let mut rgb = Vec::with_capacity(photograph.rgb().len());
    for at in 0..photograph.width * photograph.height {
        let (x, y) = ((at % photograph.width) as f64, (at / photograph.width) as f64);
        let (x, y) = ((x + 0.5) / w - 0.5 - shift[0], (y + 0.5) / h - 0.5 - shift[1]);
        let depth = scale * (1.0 - (x * turn[0] + y * turn[1]) / FAR);
        let (x, y) = (x / depth, y / depth);
        let (u, v) = (x * roll.cos() - y * roll.sin(), x * roll.sin() + y * roll.cos());
        let color = photograph.at(Point::new(((u + 0.5) * w) as f32, ((v + 0.5) * h) as f32));
        rgb.extend(color.map(|value| (f64::from(value) + 2.0 * dice.normal()).round() as u8));
    }
    Picture::from_rgb(photograph.width, photograph.height, rgb)
}

/// The skin on a surface that is turned, seen from [`FAR`], with a sensor's noise.
fn view(skin: &[f32], surface: fn(Place) -> f64, turn: Place, dice: &mut Dice) -> Vec<f32> {
    let side = SIDE as f64;
    let mut picture = Vec::with_capacity(SIDE * SIDE);
    for at in 0..SIDE * SIDE {
        let here =
            [((at % SIDE) as f64 + 0.5) / side - 0.5, ((at / SIDE) as f64 + 0.5) / side - 0.5];
        // Which point is seen here, by going back and forth.
        let mut point = here;
        for _ in 0..5 {
            let there = seen(point, surface(point), turn);
            point = [point[0] + here[0] - there[0], point[1] + here[1] - there[1]];
        }
        let [x, y] = point.map(|value| ((value + 0.5) * side - 0.5).clamp(0.0, side - 1.01));
        let corner = y as usize * SIDE + x as usize;
        let (fx, fy) = (x.fract() as f32, y.fract() as f32);
        let line = |from: usize| skin[from] * (1.0 - fx) + skin[from + 1] * fx;
        let value = line(corner) * (1.0 - fy) + line(corner + SIDE) * fy;
        picture.push(value + 2.0 * dice.normal() as f32);
    }
    picture
}

/// How alike two patches are, from −1 to 1.
fn alike(one: &[f32], other: &[f32], (x, y): (usize, usize), (u, v): (usize, usize)) -> f64 {
    let mut sums = [0.0f64; 5];
    for line in 0..=2 * PATCH {
        let row = |x: usize, y: usize| (y + line - PATCH) * SIDE + x - PATCH..;
        let pairs = one[row(x, y)].iter().zip(&other[row(u, v)]).take(2 * PATCH + 1);
        for (a, b) in pairs.map(|(a, b)| (f64::from(*a), f64::from(*b))) {
            let terms = [a, b, a * a, b * b, a * b];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }
    let (n, [a, b, aa, bb, ab]) = (((2 * PATCH + 1) * (2 * PATCH + 1)) as f64, sums);
    (ab - a * b / n) / ((aa - a * a / n) * (bb - b * b / n)).max(1e-6).sqrt()
}

/// Where the patch around a place lies in the other view, to a part of a pixel.
fn found_again(one: &[f32], other: &[f32], (x, y): (usize, usize)) -> Option<Pair> {
    let score = |u: usize, v: usize| alike(one, other, (x, y), (u, v));
    let best = |middle: (usize, usize), reach: usize, step: usize| {
        let along = |middle: usize| (middle - reach..=middle + reach).step_by(step);
        let places = along(middle.1).flat_map(|v| along(middle.0).map(move |u| (u, v)));
        places.map(|(u, v)| (score(u, v), u, v)).max_by(|(a, ..), (b, ..)| a.total_cmp(b))
    };
    let (_, u, v) = best((x, y), REACH, 2)?;
    let (top, u, v) = best((u, v), 1, 1)?;
    if top < 0.7 || x.abs_diff(u) >= REACH || y.abs_diff(v) >= REACH {
        return None;
    }
    let peak = |low: f64, high: f64| 0.5 * (low - high) / (low - 2.0 * top + high).min(-1e-6);
    let fine = [peak(score(u - 1, v), score(u + 1, v)), peak(score(u, v - 1), score(u, v + 1))];
    let place = |x: f64, y: f64| [x / SIDE as f64 - 0.5, y / SIDE as f64 - 0.5];
    let there = place(u as f64 + fine[0], v as f64 + fine[1]);
    Some((place(x as f64, y as f64), there))
}

/// What patches leave when this surface turns.
fn of_patches(
    skin: &[f32],
    surface: fn(Place) -> f64,
    degrees: f64,
    dice: &mut Dice,
) -> Option<f64> {
    let turn = dice.turn(degrees / 2.0);
    let one = view(skin, surface, turn, dice);
    let other = view(skin, surface, turn.map(|part| -part), dice);
    let margin = PATCH + REACH + 4;
    let along = || (margin..SIDE - margin).step_by(APART);
    let places = along().flat_map(|y| along().map(move |x| (x, y)));
    left_over(&places.filter_map(|place| found_again(&one, &other, place)).collect::<Vec<_>>())
}

/// One in twenty below, the median, one in twenty above, in thousandths of a palm length, and how many
/// are taken for living where one in twenty living hands is not.
fn report(name: &str, degrees: f64, values: &[f64], living: &[f64]) {
    let sorted = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        move |share: usize| sorted[(sorted.len() - 1) * share / 20]
    };
    let (at, limit) = (sorted(values), sorted(living)(1));
    let [low, middle, high] = [1, 10, 19].map(|share| 1e3 * at(share));
    let (passed, all) = (values.iter().filter(|value| **value >= limit).count(), values.len());
    println!("| {degrees}° | {name} | {low:.1} | {middle:.1} | {high:.1} | {passed} of {all} |");
}

/// What joints leave of a flat print's motion as they are found, of a living hand's if they were found
/// exactly, and of a living hand's with the errors of the print's.
fn of_joints(extractor: &Extractor, photographs: &[Picture], degrees: f64) -> [Vec<f64>; 3] {
    let (mut dice, mut left) = (Dice(7), [(); 3].map(|()| Vec::new()));
    let found = |picture: Picture| {
        let found = extractor.search(picture, None, &mut Steps::default()).ok()?;
        let length = f64::from(found.joints.palm_length());
        let joints = found.joints.points.iter().map(|at| at.map(|at| f64::from(at) / length));
        let joints: Vec<Place> = joints.collect();
        let middle = joints[9];
        Some(joints.iter().map(|at| [at[0] - middle[0], at[1] - middle[1]]).collect::<Vec<Place>>())
    };
    for photograph in photographs {
        let frames = [(); 2].map(|()| found(moved(photograph, degrees / 2.0, &mut dice)));
        let [Some(one), Some(other)] = frames else { continue };
        let turn = dice.turn(degrees / 2.0);
        let turns = [turn, turn.map(|part| -part)];
        let mut pairs = [(); 3].map(|()| Vec::new());
        for ((at, there), height) in one.iter().zip(&other).zip(JOINTS) {
            let rise = |at: Place, turn: Place| {
                let ([x, y], [u, v]) = (seen(at, height, turn), seen(at, 0.0, turn));
                [x - u, y - v]
            };
            let add = |at: &Place, more: Place| [at[0] + more[0], at[1] + more[1]];
            let living = (add(at, rise(*at, turns[0])), add(there, rise(*at, turns[1])));
            pairs[0].push((*at, *there));
            pairs[1].push((seen(*at, height, turns[0]), seen(*at, height, turns[1])));
            pairs[2].push(living);
        }
        left.iter_mut().zip(&pairs).for_each(|(left, pairs)| left.extend(left_over(pairs)));
    }
    left
}

#[test]
#[ignore = "a measurement of a minute, for the documentation"]
fn what_is_left_of_motion_when_a_homography_is_taken_out() {
    let (extractor, photographs) = (Extractor::load().unwrap(), photographs());
    let skins: Vec<_> = photographs
        .iter()
        .filter_map(|photograph| {
            let again = Picture::from_rgb(480, 480, photograph.rgb().to_vec());
            let found = extractor.search(again, None, &mut Steps::default()).ok()?;
            Some(found.placement.cut(&found.picture).luminance().to_vec())
        })
        .collect();
    println!(
        "| turn | what moves | 5 % | median | 95 % | taken for living |\n|---|---|---|---|---|---|"
    );
    for degrees in TURNS {
        let [print, exact, living] = of_joints(&extractor, &photographs, degrees);
        report("flat print, joints", degrees, &print, &living);
        report("living hand, joints found without error", degrees, &exact, &living);
        report("living hand, joints", degrees, &living, &living);
        let left = |surface: fn(Place) -> f64| -> Vec<f64> {
            let mut dice = Dice(11);
            skins.iter().filter_map(|skin| of_patches(skin, surface, degrees, &mut dice)).collect()
        };
        let living = left(palm);
        report("flat print, patches", degrees, &left(flat), &living);
        report("bent print, patches", degrees, &left(bent), &living);
        report("living palm, patches", degrees, &living, &living);
    }
}
