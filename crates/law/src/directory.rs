use palmgate_policy::{
    Pack,
    pack::{LayerSource, PackError, embedded_layer},
};
use std::{fs, io, path::Path};

const MANIFEST: &str = "pack.toml";
/// Bytes of one file at most.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Layers of one pack at most.
const MAX_LAYERS: usize = 8;

/// A pack cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("{path}: {cause}")]
    File {
        /// The path.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// More layers than a pack has, or layers that stack on each other.
    #[error("{0} stacks on too many layers: {MAX_LAYERS} are the most")]
    Layers(String),
    /// What is wrong with it.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Reads the pack in a directory with the layers that it stacks on: each from the directory beside
/// it, or else the one that is built in.
///
/// # Errors
/// [`ReadError`] with the path, or everything that is wrong with file, line and rule.
pub fn read(directory: &Path) -> Result<Pack, ReadError> {
    let mut layers: Vec<(String, LayerSource)> = Vec::new();
    let directory = fs::canonicalize(directory).map_err(|cause| file_error(directory, cause))?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    gather(&directory, &name, &mut layers, 0)?;
    let sources: Vec<LayerSource> = layers.into_iter().map(|(_, source)| source).collect();
    Ok(Pack::load(&sources)?)
}

/// The layers below come first. One that is nowhere is reported with its line when the pack is
/// loaded.
fn gather(
    directory: &Path,
    name: &str,
    layers: &mut Vec<(String, LayerSource)>,
    depth: usize,
) -> Result<(), ReadError> {
    if layers.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    if depth >= MAX_LAYERS {
        return Err(ReadError::Layers(name.into()));
    }
    let there = depth == 0 || (is_plain(name) && directory.join(MANIFEST).is_file());
    let source = if there { Some(layer(directory, name)?) } else { embedded_layer(name) };
    let Some(source) = source else { return Ok(()) };
    for below in source.announced().map(|(below, _)| below).unwrap_or_default() {
        gather(&directory.with_file_name(&below), &below, layers, depth + 1)?;
    }
    layers.push((name.into(), source));
    Ok(())
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
}

fn layer(directory: &Path, name: &str) -> Result<LayerSource, ReadError> {
    let manifest = text(&directory.join(MANIFEST))?;
    let first = LayerSource::new(name, [(MANIFEST, manifest.clone())]);
    let mut files = vec![(MANIFEST.to_owned(), manifest)];
    for file in first.announced().map(|(_, files)| files).unwrap_or_default() {
        // One that is not there, or elsewhere, is reported with its line when the pack is loaded.
        if is_plain(&file) && directory.join(&file).is_file() {
            files.push((file.clone(), text(&directory.join(&file))?));
        }
    }
    Ok(LayerSource::new(name, files))
}

fn text(path: &Path) -> Result<String, ReadError> {
    let length = fs::metadata(path).map_err(|cause| file_error(path, cause))?.len();
    if length > MAX_FILE_BYTES {
        let cause = io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes"));
        return Err(file_error(path, cause));
    }
    fs::read_to_string(path).map_err(|cause| file_error(path, cause))
}

fn file_error(path: &Path, cause: io::Error) -> ReadError {
    ReadError::File { path: path.display().to_string(), cause }
}
