use crate::Options;
use palmgate_protocol::terminal::Band;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Pictures at most: every reference meets every probe.
const MAX_PICTURES: usize = 100_000;

/// A folder's pictures.
pub struct Dataset {
    /// Names of the identities, in order.
    pub identities: Vec<String>,
    /// The pictures, by identity, session and name.
    pub samples: Vec<Sample>,
    /// Files that are no picture of this layout.
    pub ignored: Vec<String>,
}

/// One picture.
pub struct Sample {
    /// Its name, relative to the folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Position in [`Dataset::identities`].
    pub identity: usize,
    /// What stands before the first `-` of its name.
    pub session: String,
    /// The light it was taken in.
    pub band: Band,
    /// A group to report apart.
    pub subgroup: Option<String>,
}

/// The folder or its manifest is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// It cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no picture in it.
    #[error(
        "{}: no picture found; wanted are files IDENTITY/SESSION-SAMPLE.png, .jpg or .jpeg",
        path.display()
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// There are too many.
    #[error("more than {MAX_PICTURES} pictures: evaluate a part of them")]
    TooMany,
    /// The manifest is malformed.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
}

/// A line of the manifest.
#[derive(serde::Deserialize)]
struct Described {
    file: String,
    #[serde(default)]
    hand: String,
    #[serde(default)]
    band: String,
    #[serde(default)]
    subgroup: String,
}

impl Dataset {
    /// Finds the pictures; none is opened yet.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn read(directory: &Path, options: &Options) -> Result<Self, DatasetError> {
        let described = options.manifest.as_deref().map(manifest).transpose()?.unwrap_or_default();
        let (mut identities, mut samples, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for folder in sorted(directory)? {
            let name = file_name(&folder);
            if !folder.is_dir() {
                ignored.push(name);
                continue;
            }
            let before = samples.len();
            for path in sorted(&folder)? {
                let file = format!("{name}/{}", file_name(&path));
                let Some(session) = session(&path) else {
                    ignored.push(file);
                    continue;
                };
                let told = described.get(&file);
                let near_infrared = match told.map(|told| told.band.as_str()) {
                    Some("visible") => false,
                    Some("nir") => true,
                    _ => options.near_infrared,
                };
                samples.push(Sample {
                    path,
                    identity: identities.len(),
                    session,
                    band: if near_infrared { Band::NearInfrared } else { Band::Visible },
                    subgroup: told.and_then(Described::group),
                    name: file,
                });
            }
            if samples.len() > before {
                identities.push(name);
            }
            if samples.len() > MAX_PICTURES {
                return Err(DatasetError::TooMany);
            }
        }
        if samples.is_empty() {
            return Err(DatasetError::Empty { path: directory.to_owned() });
        }
        samples.sort_by(|a, b| (a.identity, &a.session).cmp(&(b.identity, &b.session)));
        Ok(Self { identities, samples, ignored })
    }
}

impl Described {
    /// Subgroup, or else the hand.
    fn group(&self) -> Option<String> {
        [&self.subgroup, &self.hand].into_iter().find(|group| !group.is_empty()).cloned()
    }
}

fn manifest(path: &Path) -> Result<BTreeMap<String, Described>, DatasetError> {
    let wrong = |reason: String| DatasetError::Manifest { path: path.to_owned(), reason };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .from_path(path)
        .map_err(|error| wrong(error.to_string()))?;
    let mut described = BTreeMap::new();
    for line in reader.deserialize::<Described>() {
        let line = line.map_err(|error| wrong(error.to_string()))?;
        if !matches!(line.band.as_str(), "" | "visible" | "nir") {
            return Err(wrong(format!(
                "{}: the band is {:?}; known are visible and nir",
                line.file, line.band
            )));
        }
        described.insert(line.file.clone(), line);
    }
    Ok(described)
}

/// The session of a picture; `None` for a file of another kind.
fn session(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    if !path.is_file() || !matches!(extension.as_str(), "png" | "jpg" | "jpeg") {
        return None;
    }
    let stem = path.file_stem()?.to_string_lossy();
    Some(stem.split('-').next().unwrap_or_default().to_owned())
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let wrong = |cause| DatasetError::Read { path: directory.to_owned(), cause };
    let entries = fs::read_dir(directory).map_err(wrong)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(wrong)?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
