//! The inner loops: for every kind of instructions one version, chosen when the program runs, and
//! a portable twin that the others equal bit for bit. Arithmetic wraps where the bounds of the
//! input rule an overflow out: a checked sum would not vectorise.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod dot;
pub(crate) mod equal;
mod level;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use level::Level;
