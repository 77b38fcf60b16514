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

/// Asks for the lines of memory that `value` stands in, where that is a plain instruction.
pub(crate) fn prefetch<const BYTES: usize>(value: &[i8; BYTES]) {
    for line in value.chunks(64) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        avx2::prefetch(&line[0]);
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        aarch64::prefetch(&line[0]);
        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
        let _ = line;
    }
}
