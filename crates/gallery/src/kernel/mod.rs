//! The inner loops: for every kind of instructions one version, chosen when the program runs, and
//! a portable twin that the others equal bit for bit. Arithmetic wraps where the bounds of the
//! input rule an overflow out: a checked sum would not vectorise.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot;
pub(crate) mod equal;
mod level;
pub(crate) mod pages;
pub(crate) mod signs;

pub(crate) use level::Level;
pub use level::without_avx512;

/// Asks for the line of memory that `value` begins in, where that is a plain instruction.
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    avx2::prefetch(value);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}
