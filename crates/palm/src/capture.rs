#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod parallax;

use crate::code::{Normalised, Responses, SIDE};
use crate::embed::{self, Vector};
use crate::landmarks::{self, Landmarks};
use crate::liveness::Liveness;
use crate::model::{Model, ModelError, ModelFile, Role, models, models_hash_of};
use crate::picture::Picture;
use crate::quality::{self, Quality};
use crate::region::Placement;
use crate::{detect, region::Region};
use palmgate_protocol::Hand;
use palmgate_protocol::limits::MAX_FRAMES_PER_CAPTURE;
use palmgate_protocol::terminal::{Band, CaptureProblem, Frame};
use std::time::{Duration, Instant};

/// Bytes of a picture file that is looked at. What terminals may send is bounded by the protocol,
/// far lower.
pub const MAX_PICTURE_BYTES: usize = 16 * 1024 * 1024;

/// Quarter turns after which a picture without a hand is looked at again.
const TURNS: usize = 3;

/// The models, ready to run. Share one between threads: a capture needs one thread.
pub struct Extractor {
    detector: Model,
    landmarks: Model,
    embedding: Model,
    models: [(&'static str, [u8; 32]); 3],
}

/// What one presentation of a hand gave. The features inside are wiped on drop and leave only
/// through a [`crate::Transform`].
pub struct Capture {
    /// How good it is; it has passed every limit.
    pub quality: Quality,
    /// How alive it looks: whether that is enough is for the policy to say.
    pub liveness: Liveness,
    /// Which hand, taken from the thumb's side of the palm.
    pub hand: Hand,
    /// What it cost.
    pub steps: Steps,
    pub(crate) vector: Vector,
    pub(crate) responses: Responses,
}

/// Time spent in each step, all frames together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// PNG or JPEG file to pixels.
    pub decode: Duration,
    /// Finding hands.
    pub detect: Duration,
    /// Finding joints, twice.
    pub landmarks: Duration,
    /// Cutting the region of interest out, quality, liveness.
    pub region: Duration,
    /// The embedding network.
    pub embed: Duration,
    /// Normalisation and line responses.
    pub code: Duration,
}

impl Steps {
    /// All steps together.
    pub fn total(&self) -> Duration {
        self.decode + self.detect + self.landmarks + self.region + self.embed + self.code
    }
}

/// A hand and where its palm lies, in the picture as it was turned.
struct Found {
    picture: Picture,
    beside: Option<Picture>,
    joints: Landmarks,
    placement: Placement,
}

impl Extractor {
    /// Prepares the models that are built into the program and checks each against its hash and a
    /// stored answer. Takes some tenths of a second.
    ///
    /// # Errors
    /// [`ModelError`] when a model is not the reviewed one or computes something else here.
    pub fn load() -> Result<Self, ModelError> {
        let load = |role: Role| Model::load(&role.built_in());
        Ok(Self {
            detector: load(Role::Detection)?,
            landmarks: load(Role::Landmarks)?,
            embedding: load(Role::Embedding)?,
            models: models(),
        })
    }

    /// The same with models that are not built in, one for each [`Role`].
    ///
    /// # Errors
    /// [`ModelError`] when one is missing, is not the reviewed one, uses an operator that it may not
    /// use, or computes something else here.
    pub fn load_from(models: &[ModelFile]) -> Result<Self, ModelError> {
        let load = |role: Role| {
            let mut of = models.iter().filter(|model| model.role == role);
            match (of.next(), of.count()) {
                (Some(model), 0) => Model::load(&model.source()),
                (first, more) => {
                    let found = usize::from(first.is_some()) + more;
                    Err(ModelError::Missing { role: role.as_str(), found })
                }
            }
        };
        let of = |role: Role| models.iter().find(|model| model.role == role);
        let hashed =
            |role: Role| (role.built_in().name, of(role).map_or([0; 32], |model| model.sha256));
        Ok(Self {
            detector: load(Role::Detection)?,
            landmarks: load(Role::Landmarks)?,
            embedding: load(Role::Embedding)?,
            models: Role::ALL.map(hashed),
        })
    }

    /// SHA-256 over the models, as of [`models_hash`](crate::models_hash).
    pub fn models_hash(&self) -> [u8; 32] {
        models_hash_of(&self.models.map(|(_, sha256)| sha256))
    }

    /// Names and SHA-256 of the models, as of [`models`](crate::models) where they are built in.
    pub const fn models(&self) -> [(&'static str, [u8; 32]); 3] {
        self.models
    }

    /// Features of the one hand in `frames`. Visible frames are preferred, near-infrared ones serve
    /// when there is no other; of a burst the first good frame is used. A near-infrared frame
    /// beside a visible one must show the same view and is used for liveness. Either all frames
    /// show the whole hand, or all are regions of interest of one hand that the terminal cut out.
    ///
    /// # Errors
    /// The [`CaptureProblem`] of the first frame when none is good; never
    /// [`CaptureProblem::NotLive`] or [`CaptureProblem::Inconsistent`].
    pub fn capture(&self, frames: &[Frame]) -> Result<Capture, CaptureProblem> {
        let frames = &frames[..frames.len().min(MAX_FRAMES_PER_CAPTURE)];
        let region_of = frames.first().and_then(|frame| frame.region_of);
        if frames.iter().any(|frame| frame.region_of != region_of) {
            return Err(CaptureProblem::Unreadable);
        }
        let of = |band: Band| frames.iter().filter(move |frame| frame.band == band);
        let infrared = of(Band::NearInfrared).next();
        let visible = of(Band::Visible).count() > 0;
        let band = if visible { Band::Visible } else { Band::NearInfrared };
        let beside = infrared.filter(|_| visible);
        let mut steps = Steps::default();
        let mut first_problem = None;
        for frame in of(band) {
            let looked = match region_of {
                None => self.look(frame, beside, &mut steps),
                Some(hand) => self.take(frame, beside, hand, &mut steps),
            };
            match looked {
                Ok(capture) => return Ok(Capture { steps, ..capture }),
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        Err(first_problem.unwrap_or(CaptureProblem::NoHand))
    }

    /// The region of interest of the one hand in `frame`, as a frame of its own, 160 × 160 pixels: for
    /// a terminal that keeps the rest of the picture to itself.
    ///
    /// # Errors
    /// The [`CaptureProblem`] of the frame. Sharpness and exposure are judged when the region is
    /// captured.
    pub fn cut(&self, frame: &Frame) -> Result<Frame, CaptureProblem> {
        let steps = &mut Steps::default();
        let Found { picture, joints, placement, .. } = self.search(decode(frame)?, None, steps)?;
        let region = placement.cut(&picture);
        quality::covered(&region)?;
        let (band, region_of) = (frame.band, Some(joints.hand()));
        Ok(Frame { band, picture: region.png(), region_of })
    }

    /// A region of interest that the terminal cut out.
    fn take(
        &self,
        frame: &Frame,
        infrared: Option<&Frame>,
        hand: Hand,
        steps: &mut Steps,
    ) -> Result<Capture, CaptureProblem> {
        let picture = timed(&mut steps.decode, || decode(frame))?;
        let beside = timed(&mut steps.decode, || infrared.map(decode).transpose())?;
        let region = timed(&mut steps.region, || Region::ready(&picture))?;
        let beside = timed(&mut steps.region, || beside.as_ref().map(Region::ready).transpose())?;
        let capture = self.of_region(&region, beside.as_ref(), steps)?;
        capture.quality.check()?;
        Ok(Capture { hand, ..capture })
    }

    fn of_region(
        &self,
        region: &Region,
        infrared: Option<&Region>,
        steps: &mut Steps,
    ) -> Result<Capture, CaptureProblem> {
        let image = timed(&mut steps.code, || Normalised::of(region));
        let responses = timed(&mut steps.code, || Responses::of(&image));
        let vector = timed(&mut steps.embed, || embed::embed(&self.embedding, &image));
        let vector = vector.map_err(broken)?;
        let quality = Quality::of_region(region, &responses);
        let (liveness, steps) = (Liveness::of(region, infrared), *steps);
        Ok(Capture { quality, liveness, hand: Hand::Right, steps, vector, responses })
    }

    /// Features of a ready region of interest: 80 × 80 grey pixels in the canonical frame. Only for
    /// calibration with synthetic palms, which have no hand around them.
    #[doc(hidden)]
    pub fn capture_region(&self, gray: &[u8; SIDE * SIDE]) -> Result<Capture, CaptureProblem> {
        self.of_region(&Region::from_small(gray), None, &mut Steps::default())
    }

    fn look(
        &self,
        frame: &Frame,
        infrared: Option<&Frame>,
        steps: &mut Steps,
    ) -> Result<Capture, CaptureProblem> {
        let picture = timed(&mut steps.decode, || decode(frame))?;
        let beside = timed(&mut steps.decode, || infrared.map(decode).transpose())?;
        let Found { picture, beside, joints, placement } = self.search(picture, beside, steps)?;
        let region = timed(&mut steps.region, || placement.cut(&picture));
        let other = timed(&mut steps.region, || {
            beside.map(|other| placement.rescaled(&picture, &other).cut(&other))
        });
        self.features(&joints, &placement, &region, other.as_ref(), steps)
    }

    /// The one hand in a picture, which may be dark or lie on its side.
    fn search(
        &self,
        mut picture: Picture,
        mut beside: Option<Picture>,
        steps: &mut Steps,
    ) -> Result<Found, CaptureProblem> {
        let mut found = self.find(&picture, steps);
        // The detector has learnt from upright hands in good light.
        if found.is_err()
            && let Some(lifted) = picture.lifted()
        {
            found = self.find(&lifted, steps).or(found);
        }
        for _ in 0..TURNS {
            if !matches!(found, Err(CaptureProblem::NoHand | CaptureProblem::Pose)) {
                break;
            }
            picture = picture.turned();
            beside = beside.map(|beside| beside.turned());
            found = self.find(&picture, steps).or(found);
        }
        let (joints, placement) = found?;
        Ok(Found { picture, beside, joints, placement })
    }

    /// The one hand in the picture, and where its palm lies.
    fn find(
        &self,
        picture: &Picture,
        steps: &mut Steps,
    ) -> Result<(Landmarks, Placement), CaptureProblem> {
        let hands = timed(&mut steps.detect, || detect::hands(&self.detector, picture));
        let hand = match hands.map_err(broken)?.as_slice() {
            [] => return Err(CaptureProblem::NoHand),
            [hand] => hand.clone(),
            _ => return Err(CaptureProblem::SeveralHands),
        };
        let joints = timed(&mut steps.landmarks, || {
            landmarks::locate(&self.landmarks, picture, &hand).map_err(broken)
        })?;
        if !joints.is_hand() {
            return Err(CaptureProblem::NoHand);
        }
        let placement = Placement::fit(&joints, !joints.thumb_right());
        quality::pose(&joints, &placement, picture)?;
        Ok((joints, placement))
    }

    fn features(
        &self,
        joints: &Landmarks,
        placement: &Placement,
        region: &Region,
        infrared: Option<&Region>,
        steps: &mut Steps,
    ) -> Result<Capture, CaptureProblem> {
        let (image, responses) = timed(&mut steps.code, || {
            let image = Normalised::of(region);
            let responses = Responses::of(&image);
            (image, responses)
        });
        let (quality, liveness) = timed(&mut steps.region, || {
            let quality = Quality::of(joints, placement, region, &responses);
            (quality, Liveness::of(region, infrared))
        });
        quality.check()?;
        let vector =
            timed(&mut steps.embed, || embed::embed(&self.embedding, &image)).map_err(broken)?;
        let (hand, steps) = (joints.hand(), Steps::default());
        Ok(Capture { quality, liveness, hand, steps, vector, responses })
    }
}

fn decode(frame: &Frame) -> Result<Picture, CaptureProblem> {
    let file = frame.picture.expose();
    if file.len() > MAX_PICTURE_BYTES {
        return Err(CaptureProblem::Unreadable);
    }
    Picture::decode(file)
}

/// Whether a frame is a picture that can be read, for fuzzing.
#[doc(hidden)]
pub fn is_readable(frame: &Frame) -> bool {
    decode(frame).is_ok()
}

/// The inference library failed on a picture: for the person, one that cannot be used.
fn broken(_: ModelError) -> CaptureProblem {
    CaptureProblem::Unreadable
}

/// Measures only: nothing in this crate depends on the time.
fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *spent += start.elapsed();
    result
}
