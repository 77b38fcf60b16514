use crate::code::{DIRECTIONS, Responses, SIDE};
use crate::landmarks::Landmarks;
use crate::picture::Picture;
use crate::region::{self, Placement, Region};
use palmgate_protocol::terminal::CaptureProblem;

/// How good a capture is (ISO/IEC 29794-1: a prediction of how well it will compare). A capture
/// below a limit is refused with the [`CaptureProblem`] that the person can do something about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Mean answer of the strongest line direction: about 0.1 for a sharp palm, towards 0 when
    /// nothing is left of the lines.
    pub sharpness: f32,
    /// Mean luminance of the palm, 0 to 1.
    pub exposure: f32,
    /// The share of the palm's pixels that are neither black nor white.
    pub range: f32,
    /// The share of the region of interest that lies inside the picture, 0 to 1.
    pub coverage: f32,
    /// Distance from the wrist to the root of the middle finger in pixels of the picture.
    pub palm_pixels: f32,
    /// How far the hand's proportions are from a flat palm's: root mean square distance of five
    /// landmarks, in palm lengths.
    pub tilt: f32,
}

const MIN_SHARPNESS: f32 = 0.035;
const MIN_EXPOSURE: f32 = 0.1;
const MAX_EXPOSURE: f32 = 0.93;
const MIN_RANGE: f32 = 0.7;
const MIN_COVERAGE: f32 = 0.8;
const MIN_PALM_PIXELS: f32 = 26.0;
const MAX_TILT: f32 = 0.085;
/// Shortest finger from root to tip, in palm lengths: less is a closed or bent hand.
const MIN_FINGER: f32 = 0.4;
/// Landmarks, and how far each may lie outside the picture, in palm lengths: the finger roots bound
/// the region of interest, the wrist lies beyond it.
const NEEDED: [(usize, f32); 4] = [(0, 0.25), (5, 0.1), (9, 0.1), (17, 0.1)];
/// Below this certainty that the seen hand is a palm and not a back, it is taken for a back.
const MIN_PALM_SIDE: f32 = 0.2;

/// Which side of the hand is seen: how sure it is the palm, 0 to 1.
///
/// A right palm and a left back have the thumb on the same side; the landmark model tells right
/// from left hands by their look. Where both disagree, the back is seen. Measured: at least 0.42 on
/// 207 photographed palms, 0.79 on rendered palms, at most 0.04 on rendered backs.
fn palm_side(hand: &Landmarks) -> f32 {
    if hand.thumb_right() { hand.right } else { 1.0 - hand.right }
}

/// Checks that enough of a region lies inside the picture.
pub(crate) fn covered(region: &Region) -> Result<(), CaptureProblem> {
    if region.coverage >= MIN_COVERAGE { Ok(()) } else { Err(CaptureProblem::CutOff) }
}

/// Checks the pose before anything is cut out.
pub(crate) fn pose(
    hand: &Landmarks,
    placement: &Placement,
    picture: &Picture,
) -> Result<(), CaptureProblem> {
    let length = hand.palm_length();
    let finger = |root: usize| hand.point(root).distance(hand.point(root + 3)) / length;
    let shortest = [5, 9, 13, 17].map(finger).into_iter().fold(f32::MAX, f32::min);
    if palm_side(hand) < MIN_PALM_SIDE {
        Err(CaptureProblem::BackOfHand)
    } else if NEEDED.iter().any(|&(index, out)| !picture.near(hand.point(index), length * out)) {
        Err(CaptureProblem::CutOff)
    } else if length >= MIN_PALM_PIXELS && placement.residual <= MAX_TILT && shortest >= MIN_FINGER
    {
        Ok(())
    } else {
        Err(CaptureProblem::Pose)
    }
}

impl Quality {
    pub(crate) fn of(
        hand: &Landmarks,
        placement: &Placement,
        region: &Region,
        responses: &Responses,
    ) -> Self {
        Self {
            palm_pixels: hand.palm_length(),
            tilt: placement.residual,
            ..Self::of_region(region, responses)
        }
    }

    pub(crate) fn of_region(region: &Region, responses: &Responses) -> Self {
        let palm = || central(region::SIDE, region.luminance());
        let usable = |value: f32| f32::from(u8::from(value > 8.0 && value < 250.0));
        let (answers, _) = responses.0.as_chunks::<DIRECTIONS>();
        let strongest =
            central(SIDE, answers).map(|answers| answers.iter().copied().fold(0.0, f32::max));
        Self {
            sharpness: mean(strongest),
            exposure: mean(palm().copied()) / 255.0,
            range: mean(palm().copied().map(usable)),
            coverage: region.coverage,
            palm_pixels: region::SIDE as f32,
            tilt: 0.0,
        }
    }

    /// The first limit that is not met.
    pub(crate) fn check(&self) -> Result<(), CaptureProblem> {
        let limits = [
            (self.coverage >= MIN_COVERAGE, CaptureProblem::CutOff),
            (self.exposure >= MIN_EXPOSURE, CaptureProblem::TooDark),
            (self.exposure <= MAX_EXPOSURE, CaptureProblem::TooBright),
            (self.range >= MIN_RANGE, CaptureProblem::TooBright),
            (self.sharpness >= MIN_SHARPNESS, CaptureProblem::Blurred),
        ];
        limits.into_iter().find(|(met, _)| !met).map_or(Ok(()), |(_, problem)| Err(problem))
    }
}

/// The middle of a square plane, where there is palm on every hand.
fn central<T>(side: usize, plane: &[T]) -> impl Iterator<Item = &T> {
    let rows = plane.chunks_exact(side).skip(side / 10).take(side * 7 / 10);
    rows.flat_map(move |row| &row[side / 5..side * 4 / 5])
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f32::max(count, 1.0)
}
