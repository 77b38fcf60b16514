mod depthwise;
mod prelu;

use crate::wiped::Wiped;
use pulp::{Arch, Simd, WithSimd};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tract_onnx::prelude::*;

/// A model is not the reviewed one, or does not do what it did when it was reviewed: its file is
/// damaged, or this processor computes something else.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bytes are not the reviewed ones.
    #[error("the model {0} is not the reviewed one: install program and models again")]
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
    /// Its answers are not of the sizes that its part has.
    #[error("the model {model} gives {found:?} values where {expected:?} are wanted")]
    Outputs {
        /// The model.
        model: &'static str,
        /// How many each answer has.
        expected: &'static [usize],
        /// How many it has here.
        found: Vec<usize>,
    },
    /// Not one model for each part.
    #[error("the models have {found} of the part {role}, where one is wanted")]
    Missing {
        /// The part.
        role: &'static str,
        /// How many there are.
        found: usize,
    },
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
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub name: &'static str,
    pub bytes: &'a [u8],
    pub sha256: [u8; 32],
    pub input: &'static [usize],
    /// Values of each output.
    pub outputs: &'static [usize],
    /// Mean absolute value of each output for [`golden_input`].
    pub golden: &'a [f32],
    /// Operators that it may use.
    pub operators: Operators<'a>,
}

/// Names of operators.
#[derive(Clone, Copy)]
pub(crate) enum Operators<'a> {
    /// Those that the reviewed models use.
    Reviewed,
    /// Of those, the ones that a registry names.
    Registered(&'a [String]),
}

impl Operators<'_> {
    fn allow(self, operator: &str) -> bool {
        ALLOWED.contains(&operator)
            && match self {
                Self::Reviewed => true,
                Self::Registered(names) => names.iter().any(|name| name == operator),
            }
    }
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Finds hands.
    Detection,
    /// Finds the joints of a hand.
    Landmarks,
    /// Turns a palm into a vector.
    Embedding,
}

impl Role {
    /// Every part, in the order of [`models`].
    pub const ALL: [Self; 3] = [Self::Detection, Self::Landmarks, Self::Embedding];

    /// The word in a registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Landmarks => "landmarks",
            Self::Embedding => "embedding",
        }
    }

    /// Where the built-in model is from.
    pub const fn origin(self) -> &'static str {
        match self {
            Self::Detection => "MediaPipe palm detection lite, Google, converted with tf2onnx",
            Self::Landmarks => "MediaPipe hand landmark lite, Google, converted with tf2onnx",
            Self::Embedding => "trained on synthetic palms only, crates/palm/training",
        }
    }

    /// The built-in model's licence (SPDX).
    pub const fn licence(self) -> &'static str {
        "Apache-2.0"
    }

    pub(crate) const fn built_in(self) -> Source<'static> {
        match self {
            Self::Detection => crate::detect::SOURCE,
            Self::Landmarks => crate::landmarks::SOURCE,
            Self::Embedding => crate::embed::SOURCE,
        }
    }
}

/// A model that is not built in, with what was reviewed of it.
pub struct ModelFile {
    /// What it is for.
    pub role: Role,
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// ONNX names of the operators that it may use; those that no built-in model uses are refused.
    pub operators: Vec<String>,
    /// Mean absolute value of each answer to the fixed input that every start asks for.
    pub golden: Vec<f32>,
}

impl ModelFile {
    /// A model that is built in, as a registry would have it, with the operators that it uses.
    ///
    /// # Errors
    /// [`ModelError`] when it cannot be read.
    pub fn built_in(role: Role) -> Result<Self, ModelError> {
        let source = role.built_in();
        let proto = read(&source)?;
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        let used: std::collections::BTreeSet<&str> =
            nodes.map(|node| node.op_type.as_str()).collect();
        Ok(Self {
            role,
            bytes: source.bytes.to_vec(),
            sha256: source.sha256,
            operators: used.into_iter().map(str::to_owned).collect(),
            golden: source.golden.to_vec(),
        })
    }

    pub(crate) fn source(&self) -> Source<'_> {
        let built_in = self.role.built_in();
        Source {
            name: built_in.name,
            bytes: &self.bytes,
            sha256: self.sha256,
            input: built_in.input,
            outputs: built_in.outputs,
            golden: &self.golden,
            operators: Operators::Registered(&self.operators),
        }
    }
}

/// Name and SHA-256 of every model in this program: what a measurement was made with.
pub fn models() -> [(&'static str, [u8; 32]); 3] {
    Role::ALL.map(|role| (role.built_in().name, role.built_in().sha256))
}

/// SHA-256 over the names and hashes of [`models`]: one value that changes with any of them.
pub fn models_hash() -> [u8; 32] {
    models_hash_of(&models().map(|(_, sha256)| sha256))
}

/// The same over models that are not built in, by their SHA-256 in the order of [`Role::ALL`].
pub fn models_hash_of(hashes: &[[u8; 32]; 3]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (role, sha256) in Role::ALL.into_iter().zip(hashes) {
        let name = role.built_in().name;
        hash.update([name.len() as u8]);
        hash.update(name);
        hash.update(sha256);
    }
    hash.finalize().into()
}

fn read(source: &Source<'_>) -> Result<tract_onnx::pb::ModelProto, ModelError> {
    let failed =
        |error: TractError| ModelError::Load { model: source.name, reason: format!("{error:#}") };
    onnx().proto_model_for_read(&mut &*source.bytes).map_err(failed)
}

/// The library with operators of our own where its are slow.
fn library() -> tract_onnx::Onnx {
    let mut library = onnx();
    library.op_register.insert("PRelu", |_, _| Ok((prelu::operator(), vec![])));
    library
}

/// With the types and shapes that follow from the fixed shape of the input.
fn typed(
    library: &tract_onnx::Onnx,
    source: &Source<'_>,
    proto: &tract_onnx::pb::ModelProto,
) -> TractResult<TypedModel> {
    library
        .model_for_proto_model(proto)?
        .with_input_fact(0, f32::fact(source.input).into())?
        .into_typed()
}

fn optimised(mut model: TypedModel) -> TractResult<Arc<TypedRunnableModel>> {
    // Before the library moves channels behind the pixels, where all that follows is slower.
    depthwise::rewrite(&mut model)?;
    model.into_optimized()?.into_runnable()
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
    pub(crate) fn load(source: &Source<'_>) -> Result<Self, ModelError> {
        let model = source.name;
        if <[u8; 32]>::from(Sha256::digest(source.bytes)) != source.sha256 {
            return Err(ModelError::Hash(model));
        }
        let failed = |error: TractError| ModelError::Load { model, reason: format!("{error:#}") };
        let proto = read(source)?;
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        // An operator of another domain could have any name and do anything.
        let strange = |node: &&tract_onnx::pb::NodeProto| {
            !source.operators.allow(&node.op_type) || !["", "ai.onnx"].contains(&&*node.domain)
        };
        if let Some(node) = nodes.into_iter().find(strange) {
            return Err(ModelError::Operator { model, operator: node.op_type.clone() });
        }
        // What lies in other files is covered by no hash.
        let constants = proto.graph.iter().flat_map(|graph| &graph.initializer);
        if constants.into_iter().any(|constant| !constant.external_data.is_empty()) {
            let reason = "it has weights in another file".into();
            return Err(ModelError::Load { model, reason });
        }
        let plan = typed(&library(), source, &proto).and_then(optimised).map_err(failed)?;
        let loaded = Self { plan, input: source.input };
        loaded.check(source).map(|()| loaded)
    }

    /// Runs the model on `input`, which has the length of the fixed shape.
    ///
    /// # Errors
    /// A fault of the inference library; it has not been seen for a fixed shape.
    pub(crate) fn run(&self, input: &[f32]) -> Result<Vec<Wiped<f32>>, ModelError> {
        let failed =
            |error: TractError| ModelError::Load { model: "running", reason: format!("{error:#}") };
        let tensor = Tensor::from_shape(self.input, input).map_err(failed)?;
        let outputs = self.plan.run(tvec!(tensor.into())).map_err(failed)?;
        let outputs: Vec<Wiped<f32>> = outputs
            .iter()
            .map(|output| {
                Ok(Wiped::new(output.to_plain_array_view::<f32>()?.iter().copied().collect()))
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

    fn check(&self, source: &Source<'_>) -> Result<(), ModelError> {
        let length = source.input.iter().product();
        let outputs = self.run(&golden_input(length))?;
        let found: Vec<usize> = outputs.iter().map(|output| output.len()).collect();
        if found != source.outputs || source.golden.len() != found.len() {
            return Err(ModelError::Outputs {
                model: source.name,
                expected: source.outputs,
                found,
            });
        }
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
    fn own_kernels_answer_as_those_of_the_library() {
        for role in Role::ALL {
            let source = role.built_in();
            let input = golden_input(source.input.iter().product());
            let plain = typed(&onnx(), &source, &read(&source).unwrap()).unwrap();
            let plain = plain.into_optimized().unwrap().into_runnable().unwrap();
            let own = Model::load(&source).unwrap().plan;
            let nodes = own.model().nodes.iter();
            assert!(nodes.filter(|node| node.op.name() == "Depthwise").count() >= 15);
            let [theirs, ours] = [plain, own].map(|plan| {
                let tensor = Tensor::from_shape(source.input, &input).unwrap();
                plan.run(tvec!(tensor.into())).unwrap()
            });
            for (theirs, ours) in theirs.iter().zip(ours) {
                theirs.close_enough(&ours, true).unwrap();
            }
        }
    }

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
