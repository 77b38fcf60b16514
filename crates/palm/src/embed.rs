//! The embedding: the sum of two networks of 0.9 million parameters together, trained on synthetic
//! palms only (`training/`).

use crate::code::{Normalised, SIDE};
use crate::model::{Model, ModelError, Operators, Source};
use palmgate_protocol::EMBEDDING_DIMENSIONS;
use zeroize::Zeroizing;

pub(crate) const SOURCE: Source<'_> = Source {
    name: "palm_embedding",
    bytes: include_bytes!("../models/palm_embedding.onnx"),
    sha256: crate::model::sha256(
        "51e6a73404b770ca4c595afcd351ba4f848f61c190883f1e7758b281c656ad12",
    ),
    input: &[1, 1, SIDE, SIDE],
    outputs: &[EMBEDDING_DIMENSIONS],
    operators: Operators::Reviewed,
    golden: &[0.539_138],
};

/// A unit vector before any protection. Wiped on drop.
pub(crate) type Vector = Zeroizing<[f32; EMBEDDING_DIMENSIONS]>;

pub(crate) fn embed(model: &Model, image: &Normalised) -> Result<Vector, ModelError> {
    let outputs = model.run(&image.0)?;
    let mut vector = Zeroizing::new([0.0; EMBEDDING_DIMENSIONS]);
    vector.copy_from_slice(&outputs[0]);
    normalise(&mut vector);
    Ok(vector)
}

/// Scales to unit length; a vector without direction becomes the first axis.
pub(crate) fn normalise(vector: &mut [f32; EMBEDDING_DIMENSIONS]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length.is_finite() && length > f32::EPSILON {
        *vector = vector.map(|value| value / length);
    } else {
        vector.fill(0.0);
        vector[0] = 1.0;
    }
}
