//! `PRelu` in one pass over memory, where the inference library makes three of it.

use pulp::{Arch, Simd, WithSimd};
#[allow(clippy::wildcard_imports, reason = "the library's macros need names of it")]
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::internal::{Expansion, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::expand;

/// What [`tract_onnx::Onnx::op_register`] makes of the operator.
pub(super) fn operator() -> Box<dyn InferenceOp> {
    expand(Prelu)
}

/// Values below zero times the slope of their channel: `[1, channels, ..]` and `[1, channels, 1, ..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prelu;

impl Prelu {
    /// Values of a channel, where the slopes are as wanted.
    fn plane(image: &[usize], slopes: &[usize]) -> TractResult<usize> {
        let [1, channels, rest @ ..] = image else { bail!("channels of one picture are wanted") };
        let own = slopes.iter().product::<usize>() == *channels
            && slopes.len() >= rest.len()
            && slopes[slopes.len() - rest.len()..].iter().all(|side| *side == 1);
        ensure!(own, "one slope for each channel is wanted");
        Ok(rest.iter().product())
    }
}

impl Expansion for Prelu {
    fn name(&self) -> StaticName {
        "Prelu".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        name: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(name, Self, inputs)
    }
}

impl Op for Prelu {
    fn name(&self) -> StaticName {
        "Prelu".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Prelu {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let slopes = inputs.pop().context("two inputs are wanted")?;
        let mut image = inputs.pop().context("two inputs are wanted")?.into_tensor();
        let plane = Self::plane(image.shape(), slopes.shape())?;
        let slopes = slopes.try_as_plain_ram()?;
        let mut values = image.try_as_plain_ram_mut()?;
        let planes = values.as_slice_mut()?.chunks_exact_mut(plane);
        for (values, slope) in planes.zip(slopes.as_slice::<f32>()?) {
            Arch::new().dispatch(Plane { values, slope: *slope });
        }
        Ok(tvec!(image.into()))
    }
}

impl TypedOp for Prelu {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [image, slopes] = inputs else { bail!("two inputs are wanted") };
        let concrete = |fact: &TypedFact| fact.shape.as_concrete().map(<[usize]>::to_vec);
        let shapes = concrete(image).zip(concrete(slopes)).context("fixed shapes are wanted")?;
        Self::plane(&shapes.0, &shapes.1)?;
        Ok(tvec!(f32::fact(&shapes.0)))
    }

    as_op!();
}

struct Plane<'a> {
    values: &'a mut [f32],
    slope: f32,
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "the caller chooses the instructions")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (zero, slope) = (simd.splat_f32s(0.0), simd.splat_f32s(self.slope));
        let (head, tail) = S::as_mut_simd_f32s(self.values);
        for value in head {
            let below = simd.mul_f32s(simd.min_f32s(*value, zero), slope);
            *value = simd.add_f32s(simd.max_f32s(*value, zero), below);
        }
        for value in tail {
            *value = value.max(0.0) + value.min(0.0) * self.slope;
        }
    }
}
