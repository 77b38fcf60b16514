use crate::kernel::{Level, dot};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Words of the signs of the longest vector.
const MAX_WORDS: usize = 16;

/// A direction in `D` dimensions: 256, 512 or 1,024. Similarity is the cosine. Wiped on drop; not
/// printable.
///
/// The signs of the components serve as a code, so the vectors must have been turned by one random
/// orthonormal transform, as every [`palmgate_protocol::Embedding`] has been.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Vector<const D: usize> {
    pub(crate) components: [i8; D],
    pub(crate) inverse_norm: f32,
    /// Which components are positive.
    signs: [u64; MAX_WORDS],
}

/// The numbers are no direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// Not the number of components that this index was made for.
    #[error("a vector of {found} components where {expected} are compared: wrong model")]
    Dimension {
        /// What the index compares.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A component is not a finite number.
    #[error("component {at} of a vector is not a finite number: the model or its input is broken")]
    NotFinite {
        /// Which, from 0.
        at: usize,
    },
    /// No component differs from 0, so the vector points nowhere.
    #[error("a vector of length zero is like nothing: the model or its input is broken")]
    ZeroLength,
}

impl<const D: usize> Vector<D> {
    const VALID: () = assert!(D == 256 || D == 512 || D == 1024, "256, 512 or 1,024 dimensions");

    /// A vector of any length other than 0, rounded to 8 bits a component.
    ///
    /// # Errors
    /// [`VectorError`].
    pub fn from_floats(components: &[f32]) -> Result<Self, VectorError> {
        let () = Self::VALID;
        let components: &[f32; D] = components
            .try_into()
            .map_err(|_| VectorError::Dimension { expected: D, found: components.len() })?;
        if let Some(at) = components.iter().position(|component| !component.is_finite()) {
            return Err(VectorError::NotFinite { at });
        }
        let largest = components.iter().fold(0_f32, |largest, each| largest.max(each.abs()));
        if largest == 0.0 {
            return Err(VectorError::ZeroLength);
        }
        // In two steps, because 127 over a subnormal number would be infinite.
        let rounded = |each: &f32| {
            let scaled = each / largest * 127.0;
            (scaled + 0.5_f32.copysign(scaled)) as i8
        };
        let mut vector = Self::empty();
        for (to, from) in vector.components.iter_mut().zip(components) {
            *to = rounded(from);
        }
        vector.inverse_norm = dot::inverse_norm(Level::best(), &vector.components);
        vector.set_signs(|at| components[at] > 0.0);
        Ok(vector)
    }

    /// A vector of quantised components, of any length other than 0.
    ///
    /// # Errors
    /// [`VectorError::ZeroLength`].
    pub fn from_components(components: &[i8; D]) -> Result<Self, VectorError> {
        let () = Self::VALID;
        let inverse_norm = dot::inverse_norm(Level::best(), components);
        if inverse_norm == 0.0 {
            return Err(VectorError::ZeroLength);
        }
        let mut vector = Self::empty();
        vector.components = *components;
        vector.inverse_norm = inverse_norm;
        vector.set_signs(|at| components[at] > 0);
        Ok(vector)
    }

    const fn empty() -> Self {
        Self { components: [0; D], inverse_norm: 0.0, signs: [0; MAX_WORDS] }
    }

    fn set_signs(&mut self, is_positive: impl Fn(usize) -> bool) {
        for (number, word) in self.signs[..D / 64].iter_mut().enumerate() {
            let first = number * 64;
            *word = (0..64).fold(0, |word, bit| word | u64::from(is_positive(first + bit)) << bit);
        }
    }

    pub(crate) const fn sign_words(&self) -> &[u64; MAX_WORDS] {
        &self.signs
    }

    /// 1 where the component is positive.
    pub(crate) const fn sign(&self, component: usize) -> u64 {
        self.signs[component / 64] >> (component % 64) & 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_direction_is_refused_by_its_fault() {
        let refused = |components: &[f32]| Vector::<256>::from_floats(components).err();
        assert_eq!(
            refused(&[1.0; 255]),
            Some(VectorError::Dimension { expected: 256, found: 255 })
        );
        assert_eq!(refused(&[]), Some(VectorError::Dimension { expected: 256, found: 0 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut components = [1.0; 256];
            components[200] = bad;
            assert_eq!(refused(&components), Some(VectorError::NotFinite { at: 200 }));
        }
        assert_eq!(refused(&[0.0; 256]), Some(VectorError::ZeroLength));
        assert_eq!(refused(&[-0.0; 256]), Some(VectorError::ZeroLength));
        let zero = Vector::<256>::from_components(&[0; 256]).err();
        assert_eq!(zero, Some(VectorError::ZeroLength));
    }

    #[test]
    fn the_smallest_and_largest_numbers_point_where_their_signs_say() {
        for size in [f32::from_bits(1), f32::MIN_POSITIVE, 1.0, f32::MAX] {
            let mut components = [size; 512];
            components[3] = -size;
            components[400] = 0.0;
            let vector = Vector::<512>::from_floats(&components).unwrap();
            assert_eq!(vector.components[2..5], [127, -127, 127], "{size}");
            assert_eq!(vector.components[400], 0);
            assert_eq!(vector.signs[0], !(1 << 3));
            assert_eq!(vector.signs[6], !(1 << 16));
            assert_eq!(vector.signs[8], 0, "no word beyond the dimension");
            assert_eq!((vector.sign(2), vector.sign(3), vector.sign(400)), (1, 0, 0));
        }
    }
}
