use std::sync::atomic::{AtomicBool, Ordering};

/// Which instructions this machine has, from best to worst. A value other than
/// [`Instructions::Portable`] exists only where the machine has them, which is what the safety of
/// the kernels rests on: that is why the field of [`Level`] is private to this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// AVX-512 with VNNI, VPOPCNTDQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with the dot product instructions.
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain Rust: the twin that the others must equal.
    Portable,
}

/// Proof that the machine has the instructions of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Instructions);

impl Level {
    /// The fastest kernels that this machine can run.
    pub(crate) fn best() -> Self {
        let skipped = usize::from(NARROW.load(Ordering::Relaxed));
        Self::available().nth(skipped).expect("the portable kernels run everywhere")
    }

    /// The kernels that this machine can run, fastest first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        ALL.iter().copied().filter(|each| detected(*each)).map(Self)
    }

    pub(super) const fn instructions(self) -> Instructions {
        self.0
    }
}

/// Whether AVX-512 is passed over.
static NARROW: AtomicBool = AtomicBool::new(false);

/// Has searches do without AVX-512 where the machine has it, to measure what it is worth.
#[doc(hidden)]
pub fn without_avx512(narrow: bool) {
    #[cfg(target_arch = "x86_64")]
    NARROW.store(narrow && detected(Instructions::Avx512), Ordering::Relaxed);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = narrow;
}

const ALL: &[Instructions] = &[
    #[cfg(target_arch = "x86_64")]
    Instructions::Avx512,
    #[cfg(target_arch = "x86_64")]
    Instructions::Avx2,
    #[cfg(target_arch = "aarch64")]
    Instructions::Dotprod,
    #[cfg(target_arch = "aarch64")]
    Instructions::Neon,
    Instructions::Portable,
];

/// The standard library asks the machine once and remembers. Miri has no such machine.
fn detected(instructions: Instructions) -> bool {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => {
            !cfg!(miri)
                && std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni")
                && std::arch::is_x86_feature_detected!("avx512vpopcntdq")
                && std::arch::is_x86_feature_detected!("popcnt")
        }
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => {
            !cfg!(miri)
                && std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("popcnt")
        }
        #[cfg(target_arch = "aarch64")]
        Instructions::Dotprod => {
            !cfg!(miri)
                && std::arch::is_aarch64_feature_detected!("neon")
                && std::arch::is_aarch64_feature_detected!("dotprod")
        }
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => !cfg!(miri) && std::arch::is_aarch64_feature_detected!("neon"),
        Instructions::Portable => true,
    }
}
