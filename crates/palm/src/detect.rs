//! Where hands are: the palm detector's anchors, boxes and their merging.

use crate::model::{Model, ModelError, Operators, Source};
use crate::picture::{Picture, Point};
use crate::wiped::Wiped;

const SIDE: usize = 192;
/// Anchors: feature maps of stride 8 (two a cell) and 16 (six a cell), row by row.
const MAPS: [(usize, usize); 2] = [(SIDE / 8, 2), (SIDE / 16, 6)];
const BOX_VALUES: usize = 18;
const MIN_SCORE: f32 = 0.5;
/// Boxes that overlap more than this are one hand (intersection over union).
const SAME_HAND: f32 = 0.3;

pub(crate) const SOURCE: Source<'_> = Source {
    name: "palm_detection_lite",
    bytes: include_bytes!("../models/palm_detection_lite.onnx"),
    sha256: crate::model::sha256(
        "7a34886cdbb6be1388605a18fe739dca6a1cfc0226f168db0b8e080e5aa8688f",
    ),
    input: &[1, SIDE, SIDE, 3],
    outputs: &[36_288, 2_016],
    operators: Operators::Reviewed,
    golden: &[9.617_704, 11.621_894],
};

/// A hand found, in picture coordinates.
#[derive(Clone, Debug)]
pub(crate) struct Detection {
    pub score: f32,
    pub center: Point,
    /// Width and height of the palm's box.
    pub size: [f32; 2],
    pub wrist: Point,
    /// Root of the middle finger.
    pub middle: Point,
}

/// The hands in the picture, best first.
pub(crate) fn hands(model: &Model, picture: &Picture) -> Result<Vec<Detection>, ModelError> {
    let (input, frame) = letterbox(picture);
    let outputs = model.run(&input)?;
    let (boxes, scores) = (&outputs[0], &outputs[1]);
    let mut found: Vec<Detection> = anchors()
        .zip(boxes.chunks_exact(BOX_VALUES))
        .zip(scores.iter())
        .filter_map(|((anchor, values), &logit)| {
            let score = 1.0 / (1.0 + (-logit).exp());
            (score > MIN_SCORE).then(|| read_box(anchor, values, score))
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(merge(found).into_iter().map(|detection| frame.to_picture(&detection)).collect())
}

/// How the picture lies in the square that the detector sees.
struct Frame {
    /// Square pixels for each picture pixel.
    scale: f32,
    left: f32,
    top: f32,
}

impl Frame {
    fn to_picture(&self, found: &Detection) -> Detection {
        let place =
            |p: Point| Point::new((p.x - self.left) / self.scale, (p.y - self.top) / self.scale);
        Detection {
            score: found.score,
            center: place(found.center),
            size: found.size.map(|side| side / self.scale),
            wrist: place(found.wrist),
            middle: place(found.middle),
        }
    }
}

fn letterbox(picture: &Picture) -> (Wiped<f32>, Frame) {
    let scale = SIDE as f32 / picture.width.max(picture.height) as f32;
    let width = ((picture.width as f32 * scale).round() as usize).max(1);
    let height = ((picture.height as f32 * scale).round() as usize).max(1);
    let (left, top) = ((SIDE - width) / 2, (SIDE - height) / 2);
    let mut input = Wiped::zeros(SIDE * SIDE * 3);
    // Each point is read between four pixels, so half as many points as pixels fall together do.
    let taps = (0.5 / scale).ceil().max(1.0) as usize;
    let share = 1.0 / (taps * taps) as f32 / 255.0;
    for row in 0..height {
        for column in 0..width {
            let at = ((row + top) * SIDE + column + left) * 3;
            for tap in 0..taps * taps {
                let inside = |index: usize| (index as f32 + 0.5) / taps as f32;
                let x = (column as f32 + inside(tap % taps)) / scale;
                let y = (row as f32 + inside(tap / taps)) / scale;
                let color = picture.at(Point::new(x, y));
                for (sum, value) in input[at..at + 3].iter_mut().zip(color) {
                    *sum += value * share;
                }
            }
        }
    }
    (input, Frame { scale, left: left as f32, top: top as f32 })
}

/// Centres of the anchors in pixels of the square.
fn anchors() -> impl Iterator<Item = Point> {
    MAPS.into_iter().flat_map(|(cells, each)| {
        (0..cells * cells * each).map(move |i| {
            let cell = i / each;
            let place = |index: usize| (index as f32 + 0.5) * (SIDE / cells) as f32;
            Point::new(place(cell % cells), place(cell / cells))
        })
    })
}

fn read_box(anchor: Point, values: &[f32], score: f32) -> Detection {
    let point = |at: usize| Point::new(anchor.x + values[at], anchor.y + values[at + 1]);
    Detection {
        score,
        center: point(0),
        size: [values[2], values[3]],
        wrist: point(4),
        middle: point(8),
    }
}

/// Weighted non-maximum suppression: boxes of one hand become their mean, weighted by score.
fn merge(mut sorted: Vec<Detection>) -> Vec<Detection> {
    let mut hands = Vec::new();
    while let Some(best) = sorted.first().cloned() {
        let (same, rest): (Vec<_>, Vec<_>) = sorted
            .into_iter()
            .enumerate()
            .partition(|(i, other)| *i == 0 || overlap(&best, other) > SAME_HAND);
        let total: f32 = same.iter().map(|(_, d)| d.score).sum();
        let mean = |value: &dyn Fn(&Detection) -> f32| {
            same.iter().map(|(_, d)| value(d) * d.score).sum::<f32>() / total
        };
        hands.push(Detection {
            score: best.score,
            center: Point::new(mean(&|d| d.center.x), mean(&|d| d.center.y)),
            size: [mean(&|d| d.size[0]), mean(&|d| d.size[1])],
            wrist: Point::new(mean(&|d| d.wrist.x), mean(&|d| d.wrist.y)),
            middle: Point::new(mean(&|d| d.middle.x), mean(&|d| d.middle.y)),
        });
        sorted = rest.into_iter().map(|(_, detection)| detection).collect();
    }
    hands
}

/// Intersection over union of two boxes.
fn overlap(a: &Detection, b: &Detection) -> f32 {
    let along = |from: f32, to: f32, size_a: f32, size_b: f32| {
        let reach = f32::midpoint(size_a, size_b) - (from - to).abs();
        reach.min(size_a).min(size_b).max(0.0)
    };
    let inner = along(a.center.x, b.center.x, a.size[0], b.size[0])
        * along(a.center.y, b.center.y, a.size[1], b.size[1]);
    inner / (a.size[0] * a.size[1] + b.size[0] * b.size[1] - inner + f32::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, score: f32) -> Detection {
        let center = Point::new(x, 50.0);
        Detection { score, center, size: [20.0, 20.0], wrist: center, middle: center }
    }

    #[test]
    fn boxes_of_one_hand_merge_and_hands_apart_stay_apart() {
        let hands = merge(vec![at(50.0, 0.9), at(90.0, 0.8), at(53.0, 0.6)]);
        assert_eq!(hands.len(), 2);
        assert!((hands[0].center.x - (50.0 * 0.9 + 53.0 * 0.6) / 1.5).abs() < 1e-4);
        assert_eq!(hands[1].center, Point::new(90.0, 50.0));
    }

    #[test]
    fn there_is_one_anchor_for_each_box_that_the_model_gives() {
        assert_eq!(anchors().count(), 2016);
        assert_eq!(anchors().next(), Some(Point::new(4.0, 4.0)));
        assert_eq!(anchors().last(), Some(Point::new(184.0, 184.0)));
    }
}
