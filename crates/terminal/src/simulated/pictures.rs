use image::{ImageFormat, ImageReader};
use palmgate_protocol::{
    Biometric, limits,
    terminal::{Band, Frame},
};
use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
};

/// Endings of a file's stem that say near infrared.
const NEAR_INFRARED: [&str; 3] = ["-940", "-850", "-nir"];
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// A file cannot stand in for a sensor.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The picture is larger than a frame may be.
    #[error(
        "{path} has {bytes} bytes, a picture may have {}: make it smaller or compress it more",
        limits::MAX_FRAME_BYTES
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is neither PNG nor JPEG.
    #[error("{path} is no PNG or JPEG picture: {why}")]
    NotAPicture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory holds no pictures.
    #[error("{0} holds no .png, .jpg or .jpeg file")]
    Empty(PathBuf),
    /// A capture has more pictures than it may have frames.
    #[error("{path} belongs to a capture of more than {} pictures", limits::MAX_FRAMES_PER_CAPTURE)]
    TooMany {
        /// The first file too many.
        path: PathBuf,
    },
}

/// The files of one capture: the same hand at the same moment, in one light or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures(Vec<(PathBuf, Band)>);

impl Pictures {
    /// A capture of one picture whose band the caller knows.
    pub fn one(path: impl Into<PathBuf>, band: Band) -> Self {
        Self(vec![(path.into(), band)])
    }

    /// The files and the light they were taken in.
    pub fn files(&self) -> &[(PathBuf, Band)] {
        &self.0
    }

    /// Reads the files into frames.
    ///
    /// # Errors
    /// [`PictureError`] when one is no picture or too large.
    pub fn read(&self) -> Result<Vec<Frame>, PictureError> {
        self.0.iter().map(|(path, band)| read_frame(path, *band)).collect()
    }
}

/// Groups files into captures: `a.png` and `a-940.png` are one, in visible and near-infrared
/// light. With `near_infrared`, every picture is near infrared, whatever its name.
///
/// # Errors
/// [`PictureError::TooMany`] when more files share a name than a capture has frames.
pub fn group(files: &[PathBuf], near_infrared: bool) -> Result<Vec<Pictures>, PictureError> {
    let mut files: Vec<_> = files.iter().map(|path| (capture_of(path), path)).collect();
    files.sort();
    files
        .chunk_by(|(one, _), (other, _)| one == other)
        .map(|files| {
            if let Some((_, path)) = files.get(limits::MAX_FRAMES_PER_CAPTURE) {
                return Err(PictureError::TooMany { path: (*path).clone() });
            }
            let band = |path: &Path| {
                if near_infrared { Band::NearInfrared } else { band_of(path) }
            };
            Ok(Pictures(files.iter().map(|(_, path)| ((*path).clone(), band(path))).collect()))
        })
        .collect()
}

/// All captures in a directory, by name; the band is read from the names.
///
/// # Errors
/// [`PictureError`] when the directory cannot be read or holds no picture.
pub fn pictures_in(directory: &Path) -> Result<Vec<Pictures>, PictureError> {
    let failed = |source| PictureError::File { path: directory.into(), source };
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    let files = entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| has_picture_name(path)))
        .collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        return Err(PictureError::Empty(directory.into()));
    }
    group(&files, false)
}

/// Reads a PNG or JPEG file into a frame, unchanged.
///
/// # Errors
/// [`PictureError`] when it is neither, or larger than
/// [`MAX_FRAME_BYTES`](limits::MAX_FRAME_BYTES).
pub fn read_frame(path: &Path, band: Band) -> Result<Frame, PictureError> {
    let failed = |source| PictureError::File { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > limits::MAX_FRAME_BYTES as u64 {
        return Err(PictureError::TooLarge { path: path.into(), bytes });
    }
    let mut picture = Biometric::new(Vec::with_capacity(limits::MAX_FRAME_BYTES));
    file.take(limits::MAX_FRAME_BYTES as u64).read_to_end(picture.expose_mut()).map_err(failed)?;
    check_header(picture.expose())
        .map_err(|why| PictureError::NotAPicture { path: path.into(), why })?;
    Ok(Frame { band, picture, region_of: None })
}

/// Reads no more than the header: decoding is the gateway's work.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .expect("reading from memory does not fail");
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        Some(other) => return Err(format!("it is {other:?}")),
        None => return Err("its first bytes are of no known kind".into()),
    }
    reader.into_dimensions().map(drop).map_err(|error| error.to_string())
}

fn has_picture_name(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn band_of(path: &Path) -> Band {
    let stem = stem(path);
    if NEAR_INFRARED.iter().any(|ending| stem.ends_with(ending)) {
        Band::NearInfrared
    } else {
        Band::Visible
    }
}

/// Directory and stem without the ending that names the band.
fn capture_of(path: &Path) -> PathBuf {
    let stem = stem(path);
    let bare = NEAR_INFRARED.iter().find_map(|ending| stem.strip_suffix(ending));
    path.with_file_name(bare.unwrap_or(&stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, GrayImage};

    fn picture(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        DynamicImage::from(GrayImage::from_pixel(32, 24, image::Luma([90]))).save(&path).unwrap();
        path
    }

    #[test]
    fn pictures_of_one_moment_make_one_capture_with_bands_from_the_names() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.jpg", "a-940.png", "a.png", "c-nir.png"] {
            picture(root.path(), name);
        }
        std::fs::write(root.path().join("LICENSE"), "no picture").unwrap();
        let captures = pictures_in(root.path()).unwrap();
        let bands = |pictures: &Pictures| -> Vec<Band> {
            pictures.read().unwrap().iter().map(|frame| frame.band).collect()
        };
        let bands: Vec<_> = captures.iter().map(bands).collect();
        let (visible, infrared) = (Band::Visible, Band::NearInfrared);
        assert_eq!(bands, [vec![infrared, visible], vec![visible], vec![infrared]]);
    }

    #[test]
    fn a_flag_overrules_the_names() {
        let files = [PathBuf::from("a.png"), PathBuf::from("b.png")];
        let captures = group(&files, true).unwrap();
        assert!(captures.iter().all(|capture| capture.0[0].1 == Band::NearInfrared));
        assert_eq!(captures.len(), 2);
    }

    #[test]
    fn more_files_than_frames_are_refused() {
        let names = ["a.png", "a.jpg", "a-940.png", "a-850.png", "a-nir.png"];
        let refused = group(&names.map(PathBuf::from), false).unwrap_err();
        assert!(matches!(refused, PictureError::TooMany { .. }), "{refused}");
    }

    #[test]
    fn a_frame_is_the_file_unchanged() {
        let root = tempfile::tempdir().unwrap();
        let path = picture(root.path(), "a.png");
        let frame = read_frame(&path, Band::Visible).unwrap();
        assert_eq!(frame.picture.expose(), &std::fs::read(path).unwrap());
    }

    #[test]
    fn a_picture_over_the_limit_is_refused_with_name_and_size() {
        let root = tempfile::tempdir().unwrap();
        let path = picture(root.path(), "large.png");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(limits::MAX_FRAME_BYTES + 1, 0);
        std::fs::write(&path, bytes).unwrap();
        let refused = read_frame(&path, Band::Visible).err().unwrap().to_string();
        assert!(refused.contains("large.png has 196609 bytes"), "{refused}");
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("a.png", &b"GIF89a\x01\x00\x01\x00"[..]), ("b.png", b"hello"), ("c.png", b"")]
        {
            let path = root.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let refused = read_frame(&path, Band::Visible).err().unwrap();
            assert!(matches!(refused, PictureError::NotAPicture { .. }), "{refused}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(pictures_in(empty.path()), Err(PictureError::Empty(_))));
    }
}
