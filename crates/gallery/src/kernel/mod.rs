//! The two inner loops, in portable code that compilers turn into vector instructions. Arithmetic
//! wraps where the bounds of the input rule an overflow out: a checked sum would not vectorise.

pub(crate) mod dot;
pub(crate) mod equal;
