//! The 21 landmarks of a hand, from a turned square around it.

use crate::detect::Detection;
use crate::model::{Model, ModelError, Operators, Source};
use crate::picture::{Picture, Point};
use crate::wiped::Wiped;
use palmgate_protocol::Hand;
use zeroize::Zeroizing;

const SIDE: usize = 224;
/// The landmarks that stand still when fingers move, and what the next square is laid around.
const STEADY: [usize; 12] = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18];

pub(crate) const SOURCE: Source<'_> = Source {
    name: "hand_landmark_lite",
    bytes: include_bytes!("../models/hand_landmark_lite.onnx"),
    sha256: crate::model::sha256(
        "6e81ee68cb6f6898c1cf4e2ef48a2f578384c5551e7a33bccc8a898d45f74075",
    ),
    input: &[1, SIDE, SIDE, 3],
    outputs: &[63, 1, 1, 63],
    operators: Operators::Reviewed,
    golden: &[68.382_2, 0.004_646, 0.129_889, 0.011_074],
};

/// A hand's joints in picture coordinates, numbered as in `MediaPipe`: 0 wrist, 1–4 thumb, 5–8 index,
/// 9–12 middle, 13–16 ring, 17–20 little finger, root to tip.
pub(crate) struct Landmarks {
    pub points: Zeroizing<Vec<[f32; 2]>>,
    /// How sure the model is that this is a hand, 0 to 1.
    pub presence: f32,
    /// How sure the model is that this is a right hand rather than a left one, 0 to 1.
    pub right: f32,
}

impl Landmarks {
    pub(crate) fn point(&self, index: usize) -> Point {
        Point::new(self.points[index][0], self.points[index][1])
    }

    /// Whether the model takes it for a hand, and every joint is a place.
    pub(crate) fn is_hand(&self) -> bool {
        self.presence > 0.5 && self.points.iter().flatten().all(|value| value.is_finite())
    }

    /// From the wrist to the root of the middle finger, in pixels: the unit of every length here.
    pub(crate) fn palm_length(&self) -> f32 {
        self.point(0).distance(self.point(9))
    }

    /// Which hand it is: from the thumb's side of the palm.
    pub(crate) fn hand(&self) -> Hand {
        if self.thumb_right() { Hand::Right } else { Hand::Left }
    }

    /// Whether the thumb is on the right of the fingers when these point up.
    pub(crate) fn thumb_right(&self) -> bool {
        let (wrist, index, little) = (self.point(0), self.point(5), self.point(17));
        let cross =
            (index.x - wrist.x) * (little.y - wrist.y) - (index.y - wrist.y) * (little.x - wrist.x);
        cross < 0.0
    }
}

/// A square of the picture that is turned so that the fingers point up.
#[derive(Clone, Copy)]
struct Square {
    center: Point,
    side: f32,
    /// Cosine and sine of the turn.
    turn: (f32, f32),
}

impl Square {
    fn of_detection(hand: &Detection) -> Self {
        let turn = upward(hand.wrist, hand.middle);
        let palm = hand.size[0].max(hand.size[1]);
        let center =
            Point::new(hand.center.x + turn.1 * 0.5 * palm, hand.center.y - turn.0 * 0.5 * palm);
        Self { center, side: 2.6 * palm, turn }
    }

    fn of_landmarks(hand: &Landmarks) -> Self {
        let fingers = hand.point(9).middle(hand.point(5).middle(hand.point(13)));
        let turn = upward(hand.point(0), fingers);
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for index in STEADY {
            let p = hand.point(index);
            let turned = [p.x * turn.0 + p.y * turn.1, p.y * turn.0 - p.x * turn.1];
            for axis in 0..2 {
                low[axis] = low[axis].min(turned[axis]);
                high[axis] = high[axis].max(turned[axis]);
            }
        }
        let size = (high[0] - low[0]).max(high[1] - low[1]);
        let x = f32::midpoint(low[0], high[0]);
        let y = f32::midpoint(low[1], high[1]) - 0.1 * size;
        let center = Point::new(x * turn.0 - y * turn.1, x * turn.1 + y * turn.0);
        Self { center, side: 2.0 * size, turn }
    }

    fn to_picture(self, x: f32, y: f32) -> Point {
        let scale = self.side / SIDE as f32;
        let (u, v) = ((x - SIDE as f32 / 2.0) * scale, (y - SIDE as f32 / 2.0) * scale);
        Point::new(
            self.center.x + u * self.turn.0 - v * self.turn.1,
            self.center.y + u * self.turn.1 + v * self.turn.0,
        )
    }
}

/// The turn that brings the direction `from` → `to` upward.
fn upward(from: Point, to: Point) -> (f32, f32) {
    let length = from.distance(to).max(f32::EPSILON);
    ((from.y - to.y) / length, (to.x - from.x) / length)
}

/// Landmarks of a detected hand: once around the detection, then once more around what was found,
/// which halves the error of the region's place.
pub(crate) fn locate(
    model: &Model,
    picture: &Picture,
    hand: &Detection,
) -> Result<Landmarks, ModelError> {
    let first = look(model, picture, Square::of_detection(hand))?;
    look(model, picture, Square::of_landmarks(&first))
}

fn look(model: &Model, picture: &Picture, square: Square) -> Result<Landmarks, ModelError> {
    let mut input = Vec::with_capacity(SIDE * SIDE * 3);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let point = square.to_picture(column as f32 + 0.5, row as f32 + 0.5);
            let color = if picture.contains(point) { picture.at(point) } else { [0.0; 3] };
            input.extend(color.map(|value| value / 255.0));
        }
    }
    let outputs = model.run(&Wiped::new(input))?;
    let points = outputs[0].chunks_exact(3).map(|landmark| {
        let point = square.to_picture(landmark[0], landmark[1]);
        [point.x, point.y]
    });
    Ok(Landmarks {
        points: Zeroizing::new(points.collect()),
        presence: outputs[1][0],
        right: outputs[2][0],
    })
}
