//! Updates that two people signed: bundles of packages, models and law packs, the version floor, and
//! the registry of models.
//!
//! # A bundle
//!
//! ```text
//! BUNDLE/update.note     what is in it, signed (C2SP signed note)
//! BUNDLE/packages/*.deb  programs, by architecture
//! BUNDLE/models/…        models with their registry
//! BUNDLE/packs/…         law packs with their notes
//! ```
//!
//! The note's text is the line `palmgate update`, then TOML: `version`, `floor`, `issued`, `expires`,
//! and a `[[file]]` with `path`, `size` and `sha256` for each file. Nothing else of the directory
//! is looked at.
//!
//! # What is installed
//!
//! ```text
//! DIR/floor              no version below may run; only rises
//! DIR/installed.note     of the last bundle that was installed to the end
//! DIR/models, DIR/packs  links to what is in use, changed in one step each
//! DIR/content/…          what bundles brought
//! ```
//!
//! Whatever is refused is refused with the path, what was wanted, what was found, and the remedy.

mod bundle;
mod files;
mod installed;
mod manifest;
mod packages;
mod refusal;
mod registry;
mod signed;

pub use bundle::{Bundle, describe};
pub use installed::{Installed, check_floor};
pub use manifest::{Manifest, Terms};
pub use packages::Dpkg;
pub use refusal::{Reason, Refusal};
pub use registry::{Checked, REGISTRY, Registered, read_models, sign_models, unsigned_registry};
pub use semver::Version;
pub use signed::{NOTE, add_signature};
