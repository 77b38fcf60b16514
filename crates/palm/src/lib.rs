//! Pictures of hands to protected templates.
//!
//! [`Extractor::capture`] takes the frames of one presentation: it decodes them, finds the one hand,
//! its landmarks and the palm's region of interest, judges quality and liveness, and keeps two
//! features: an embedding (a small network trained on synthetic palms only) and a line code (Gabor
//! responses). Neither can leave the crate as it is: a [`Transform`], keyed by tenant and purpose,
//! turns a [`Capture`] into a [`palmgate_protocol::Probe`] or a [`palmgate_protocol::Template`].
//!
//! Nothing here knows people, consent, time or files, and nothing is random: the same frames under
//! the same key give the same bytes. Pixels and features are wiped when dropped; what the inference
//! and picture libraries allocate inside one call is freed but not wiped.

#![allow(
    clippy::many_single_char_names,
    reason = "coordinates, colours and matrix entries go by their usual letters"
)]

mod calibration;
mod capture;
mod code;
mod detect;
mod embed;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod inversion;
mod landmarks;
mod liveness;
mod model;
mod picture;
mod quality;
mod region;
mod scoring;
pub mod simulate;
mod sums;
mod transform;
mod wiped;

pub use calibration::{
    Calibration, CalibrationError, DataSet, MAX_CALIBRATION_BYTES, OperatingPoint, Origin, Scored,
};
#[doc(hidden)]
pub use capture::is_readable;
pub use capture::{Capture, Extractor, MAX_PICTURE_BYTES, Steps};
pub use liveness::Liveness;
pub use model::{ModelError, ModelFile, Role, models, models_hash, models_hash_of};
pub use quality::Quality;
#[doc(hidden)]
pub use scoring::parts;
pub use scoring::{Scoring, scoring};
pub use transform::Transform;
