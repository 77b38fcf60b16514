use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Why something of an update was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The disk, or a program that was asked for help, failed.
    System,
    /// Not what a bundle or a registry looks like.
    Malformed,
    /// Not signed by two of the trusted people.
    Unsigned,
    /// Its time is over.
    Expired,
    /// Below the version floor.
    BelowFloor,
    /// Not for this box.
    Foreign,
    /// A file is not the signed one.
    Tampered,
    /// More than what is ever taken in.
    TooLarge,
}

/// Something of an update was refused: where, what was wanted, what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: wanted {wanted}, found {found}; {remedy}", path.display())]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// The file or directory.
    pub path: PathBuf,
    /// What would have been right.
    pub wanted: String,
    /// What was there.
    pub found: String,
    /// What to do.
    pub remedy: &'static str,
}

pub(crate) const FETCH_AGAIN: &str = "fetch the bundle again from where it was published";

impl Refusal {
    pub(crate) fn new(
        reason: Reason,
        path: &Path,
        wanted: impl fmt::Display,
        found: impl fmt::Display,
        remedy: &'static str,
    ) -> Self {
        Self {
            reason,
            path: path.to_owned(),
            wanted: wanted.to_string(),
            found: found.to_string(),
            remedy,
        }
    }

    pub(crate) fn system(path: &Path, wanted: &str, found: impl fmt::Display) -> Self {
        Self::new(Reason::System, path, wanted, found, "make it possible, and do it again")
    }

    pub(crate) fn malformed(path: &Path, wanted: &str, found: impl fmt::Display) -> Self {
        Self::new(Reason::Malformed, path, wanted, found, FETCH_AGAIN)
    }
}
