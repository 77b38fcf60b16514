use pulp::{Arch, Simd, WithSimd};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tract_onnx::prelude::*;
use zeroize::Zeroizing;

/// A model that was built into the program does not do what it did when it was built: the program
/// file is damaged, or this processor computes something else.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bytes are not the reviewed ones.
    #[error("the model {0} is not the reviewed one: install the program again")]
    Hash(&'static str),
    /// An operator that none of the reviewed models uses.
    #[error("the model {model} uses the operator {operator}, which is not allowed")]
    Operator {
        /// The model.
        model: &'static str,
        /// ONNX name of the operator.
        operator: String,
    },
    /// The model cannot be prepared.
    #[error("the model {model} cannot be loaded: {reason}")]
    Load {
        /// The model.
        model: &'static str,
        /// The inference library's words.
        reason: String,
    },
    /// The answer is not made of numbers.
    #[error("a model's answer holds values that are no numbers")]
    NotFinite,
    /// The answer to a stored input differs from the stored answer.
    #[error("the model {model} computes {found} where {expected} was measured at release")]
    Golden {
        /// The model.
        model: &'static str,
        /// The stored answer.
        expected: f32,
        /// The answer now.
        found: f32,
    },
}

/// A model file and what is known about it.
pub(crate) struct Source {
    pub name: &'static str,
    pub bytes: &'static [u8],
    pub sha256: [u8; 32],
    pub input: &'static [usize],
    /// Mean absolute value of each output for [`golden_input`].
    pub golden: &'static [f32],
}

/// Name and SHA-256 of every model in this program: what a measurement was made with.
pub fn models() -> [(&'static str, [u8; 32]); 3] {
    [crate::detect::SOURCE, crate::landmarks::SOURCE, crate::embed::SOURCE]
        .map(|source| (source.name, source.sha256))
}

/// SHA-256 over the names and hashes of [`models`]: one value that changes with any of them.
pub fn models_hash() -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, sha256) in models() {
        hash.update([name.len() as u8]);
        hash.update(name);
        hash.update(sha256);
    }
    hash.finalize().into()
}

/// An optimised plan with a fixed input shape.
pub(crate) struct Model {
    plan: Arc<TypedRunnableModel>,
    input: &'static [usize],
}

const ALLOWED: [&str; 17] = [
    "Add",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MaxPool",
    "PRelu",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Squeeze",
    "Transpose",
    "BatchNormalization",
];

impl Model {
    pub(crate) fn load(source: &Source) -> Result<Self, ModelError> {
        let model = source.name;
        if <[u8; 32]>::from(Sha256::digest(source.bytes)) != source.sha256 {
            return Err(ModelError::Hash(model));
        }
        let failed = |error: TractError| ModelError::Load { model, reason: format!("{error:#}") };
        let onnx = onnx();
        let proto = onnx.proto_model_for_read(&mut &*source.bytes).map_err(failed)?;
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        if let Some(node) = nodes.into_iter().find(|node| !ALLOWED.contains(&node.op_type.as_str()))
        {
            return Err(ModelError::Operator { model, operator: node.op_type.clone() });
        }
        let plan = onnx
            .model_for_proto_model(&proto)
            .and_then(|graph| graph.with_input_fact(0, f32::fact(source.input).into()))
            .and_then(InferenceModelExt::into_optimized)
            .and_then(IntoRunnable::into_runnable)
            .map_err(failed)?;
        let loaded = Self { plan, input: source.input };
        loaded.check(source).map(|()| loaded)
    }

    /// Runs the model on `input`, which has the length of the fixed shape.
    ///
    /// # Errors
    /// A fault of the inference library; it has not been seen for a fixed shape.
    pub(crate) fn run(&self, input: &[f32]) -> Result<Vec<Zeroizing<Vec<f32>>>, ModelError> {
        let failed =
            |error: TractError| ModelError::Load { model: "running", reason: format!("{error:#}") };
        let tensor = Tensor::from_shape(self.input, input).map_err(failed)?;
        let outputs = self.plan.run(tvec!(tensor.into())).map_err(failed)?;
        let outputs: Vec<Zeroizing<Vec<f32>>> = outputs
            .iter()
            .map(|output| {
                Ok(Zeroizing::new(output.to_plain_array_view::<f32>()?.iter().copied().collect()))
            })
            .collect::<TractResult<_>>()
            .map_err(failed)?;
        // The check also serves what follows: the library's kernels leave the upper halves of
        // the vector registers in use, which makes all 128-bit code after them four times slower on
        // recent processors. What is compiled for wide registers clears them when it returns.
        let finite =
            outputs.iter().fold(true, |all, output| Arch::new().dispatch(Finite(output)) & all);
        if finite { Ok(outputs) } else { Err(ModelError::NotFinite) }
    }

    fn check(&self, source: &Source) -> Result<(), ModelError> {
        let length = source.input.iter().product();
        let outputs = self.run(&golden_input(length))?;
        for (output, &expected) in outputs.iter().zip(source.golden) {
            let found = output.iter().map(|value| value.abs()).sum::<f32>() / output.len() as f32;
            let agrees = (found - expected).abs() <= expected.abs() * 0.01 + 1e-4;
            if !agrees {
                return Err(ModelError::Golden { model: source.name, expected, found });
            }
        }
        Ok(())
    }
}

/// Whether there is neither an infinity nor a NaN.
struct Finite<'a>(&'a [f32]);

impl WithSimd for Finite<'_> {
    type Output = bool;

    #[expect(clippy::inline_always, reason = "the caller chooses the instructions")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let (head, tail) = S::as_simd_f32s(self.0);
        // The difference of a finite number and itself is 0, that of any other NaN.
        let sum = head.iter().fold(simd.splat_f32s(0.0), |sum, values| {
            simd.add_f32s(sum, simd.sub_f32s(*values, *values))
        });
        simd.reduce_sum_f32s(sum).is_finite() && tail.iter().all(|value| value.is_finite())
    }
}

/// A fixed pattern in [0, 1), the same on every machine.
pub(crate) fn golden_input(length: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 7919 + i / 331) % 256) as f32 / 256.0).collect()
}

/// Reads 64 hexadecimal digits; a wrong digit fails the build.
pub(crate) const fn sha256(text: &str) -> [u8; 32] {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("not a hexadecimal digit"),
        }
    }
    let text = text.as_bytes();
    assert!(text.len() == 64, "a SHA-256 has 64 digits");
    let mut hash = [0; 32];
    let mut i = 0;
    while i < 32 {
        hash[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_that_is_no_number_is_found_wherever_it_stands() {
        for length in [1, 7, 8, 63, 256] {
            let values = golden_input(length);
            assert!(Arch::new().dispatch(Finite(&values)));
            for at in 0..length {
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = values.clone();
                    values[at] = wrong;
                    assert!(!Arch::new().dispatch(Finite(&values)));
                }
            }
        }
    }
}
