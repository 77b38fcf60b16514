//! What the process holds in memory stays there.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};

/// What the system allowed of [`protect_memory`]. For `palmgate check` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// No page of the process goes to swap.
    pub locked: bool,
    /// A crash leaves no core dump, and other processes of the same user may not look inside.
    pub no_dumps: bool,
}

/// Keeps keys and templates of this process out of swap and core dumps, as far as the system
/// allows. Call it once, before anything is opened.
///
/// Locking needs `LimitMEMLOCK=infinity` in the unit; with `MemorySwapMax=0` the promise holds
/// without it.
pub fn protect_memory() -> Protected {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let no_core = setrlimit(Resource::Core, none);
    let not_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // On fault only: pages that nobody touches, of thread stacks above all, take no memory.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Protected { locked: mlockall(flags).is_ok(), no_dumps: no_core.is_ok() && not_dumpable.is_ok() }
}
