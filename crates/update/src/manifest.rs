//! What a bundle's note says.

use crate::{
    files::MAX_FILE_BYTES,
    refusal::{FETCH_AGAIN, Reason, Refusal},
};
use data_encoding::HEXLOWER;
use palmgate_protocol::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) const HEAD: &str = "palmgate update";
/// Bytes of all files together.
pub(crate) const MAX_BUNDLE_BYTES: u64 = 2 * MAX_FILE_BYTES;
pub(crate) const PACKAGES: &str = "packages";
/// What is put in its place as it is.
pub(crate) const CONTENT: [&str; 2] = ["models", "packs"];
const MAX_PATH_PARTS: usize = 4;
const MAX_PART_BYTES: usize = 100;

/// When a bundle is good, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The release that a box has afterwards; without packages the one that it must have.
    pub version: Version,
    /// No version below may run from then on.
    pub floor: Version,
    /// When it was made.
    pub issued: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
}

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// When it is good, and for what.
    pub terms: Terms,
    pub(crate) files: Vec<Listed>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Relative, of plain parts, the first of them one of three.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: String,
    floor: String,
    issued: String,
    expires: String,
    #[serde(default)]
    file: Vec<WrittenFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    path: String,
    size: u64,
    sha256: String,
}

impl Manifest {
    /// Paths of the files, in the order of the note.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.path.as_str())
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.files.iter().any(|file| first(&file.path) == part)
    }

    pub(crate) fn parse(body: &str, at: &Path) -> Result<Self, Refusal> {
        let written: Written = toml::from_str(body).map_err(|error| {
            Refusal::malformed(at, "a manifest of this version", error.message())
        })?;
        let files =
            written.file.iter().map(|file| listed(file, at)).collect::<Result<Vec<_>, _>>()?;
        let mut known = BTreeSet::new();
        if let Some(twice) = files.iter().find(|file| !known.insert(&file.path)) {
            return Err(Refusal::malformed(at, "each path once", format!("{} twice", twice.path)));
        }
        let total = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
        let most = files.iter().map(|file| file.size).max().unwrap_or(0);
        if most > MAX_FILE_BYTES || total > MAX_BUNDLE_BYTES {
            let wanted =
                format!("{MAX_FILE_BYTES} bytes a file, {MAX_BUNDLE_BYTES} together at most");
            let found = format!("{most} and {total}");
            return Err(Refusal::new(Reason::TooLarge, at, wanted, found, FETCH_AGAIN));
        }
        let terms = Terms {
            version: version(&written.version, at)?,
            floor: version(&written.floor, at)?,
            issued: moment(&written.issued, at)?,
            expires: moment(&written.expires, at)?,
        };
        if terms.floor > terms.version {
            let found = format!("{} under {}", terms.floor, terms.version);
            return Err(Refusal::malformed(at, "a floor not above the version", found));
        }
        Ok(Self { terms, files })
    }

    /// The text that is signed, behind the head line; `None` for times outside the years 0 to 9999.
    pub(crate) fn to_text(&self) -> Option<String> {
        let file = |file: &Listed| WrittenFile {
            path: file.path.clone(),
            size: file.size,
            sha256: HEXLOWER.encode(&file.sha256),
        };
        let written = Written {
            version: self.terms.version.to_string(),
            floor: self.terms.floor.to_string(),
            issued: rfc3339(self.terms.issued)?,
            expires: rfc3339(self.terms.expires)?,
            file: self.files.iter().map(file).collect(),
        };
        toml::to_string(&written).ok()
    }
}

/// A moment as people read it; `None` outside the years 0 to 9999.
pub(crate) fn rfc3339(at: Timestamp) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(at.as_millis().div_euclid(1000)).ok()?;
    at.format(&Rfc3339).ok()
}

fn moment(text: &str, at: &Path) -> Result<Timestamp, Refusal> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed
        .map(|moment| Timestamp::from_millis(moment.unix_timestamp().saturating_mul(1000)))
        .map_err(|_| Refusal::malformed(at, "a time as in RFC 3339", format!("{text:?}")))
}

pub(crate) fn version(text: &str, at: &Path) -> Result<Version, Refusal> {
    text.parse().map_err(|_| {
        Refusal::malformed(at, "a version such as 1.2.3", format!("{:?}", shortened(text)))
    })
}

fn listed(file: &WrittenFile, at: &Path) -> Result<Listed, Refusal> {
    if !is_plain(&file.path) {
        let wanted = "paths below packages/, models/ and packs/, of letters, digits and . _ + ~ -";
        return Err(Refusal::malformed(at, wanted, format!("{:?}", shortened(&file.path))));
    }
    let sha256 = HEXLOWER.decode(file.sha256.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
    let sha256 = sha256.ok_or_else(|| {
        let found = format!("{:?} for {}", shortened(&file.sha256), file.path);
        Refusal::malformed(at, "a SHA-256 in lower-case hex", found)
    })?;
    Ok(Listed { path: file.path.clone(), size: file.size, sha256 })
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// Whether a path stays where it is put, whatever reads it.
pub(crate) fn is_plain(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let known = first(path) == PACKAGES || CONTENT.contains(&first(path));
    known && (2..=MAX_PATH_PARTS).contains(&parts.len()) && parts.iter().all(|part| is_name(part))
}

/// Whether this can be a file's name and nothing else.
pub(crate) fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    (1..=MAX_PART_BYTES).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['.', '-'])
}
