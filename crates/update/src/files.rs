//! Files of places that are not trusted: never through a link, never more than announced.

use crate::{
    manifest::Listed,
    refusal::{FETCH_AGAIN, Reason, Refusal},
};
use data_encoding::HEXLOWER;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
};

/// Bytes of one file at most.
pub(crate) const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
const CHUNK_BYTES: usize = 128 * 1024;

/// Opens the directory that everything else is looked up in.
pub(crate) fn directory(path: &Path) -> Result<File, Refusal> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(path);
    opened.map_err(|error| Refusal::system(path, "a directory", error))
}

/// Opens the plain file at `name` below `directory`; `shown` is its path in messages.
pub(crate) fn open(directory: impl AsFd, name: &str, shown: &Path) -> Result<File, Refusal> {
    let missing = |found: &dyn std::fmt::Display| {
        Refusal::new(Reason::Tampered, shown, "a plain file", found, FETCH_AGAIN)
    };
    // Without blocking: a pipe would wait for ever for somebody to write.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(directory, name, flags, Mode::empty(), beneath);
    let file = File::from(opened.map_err(|error| missing(&io::Error::from(error)))?);
    let kind = file.metadata().map_err(|error| Refusal::system(shown, "a plain file", error))?;
    if kind.is_file() { Ok(file) } else { Err(missing(&"something else")) }
}

/// Reads a small file whole.
pub(crate) fn read(
    directory: impl AsFd,
    name: &str,
    shown: &Path,
    most: u64,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let file = open(directory, name, shown)?;
    let done = file.take(most + 1).read_to_end(&mut bytes);
    done.map_err(|error| Refusal::system(shown, "a file that can be read", error))?;
    if bytes.len() as u64 > most {
        let wanted = format!("{most} bytes at most");
        return Err(Refusal::new(Reason::TooLarge, shown, wanted, "more", FETCH_AGAIN));
    }
    Ok(bytes)
}

/// Reads a listed file to its end, writes what it reads to `to`, and holds it against its size and hash.
pub(crate) fn copy(
    directory: impl AsFd,
    listed: &Listed,
    shown: &Path,
    to: impl Write,
) -> Result<(), Refusal> {
    let file = open(directory, &listed.path, shown)?;
    let (size, sha256) = pass(file, shown, listed.size, to)?;
    if size != listed.size {
        let found = if size > listed.size { "more".to_owned() } else { size.to_string() };
        return Err(tampered(shown, format!("{} bytes", listed.size), &found));
    }
    if sha256 == listed.sha256 {
        return Ok(());
    }
    let wanted = format!("SHA-256 {}", HEXLOWER.encode(&listed.sha256));
    Err(tampered(shown, wanted, &HEXLOWER.encode(&sha256)))
}

/// Size and SHA-256 of a file.
pub(crate) fn hash(file: File, shown: &Path) -> Result<(u64, [u8; 32]), Refusal> {
    let (size, sha256) = pass(file, shown, MAX_FILE_BYTES, io::sink())?;
    if size > MAX_FILE_BYTES {
        let wanted = format!("{MAX_FILE_BYTES} bytes at most");
        let remedy = "leave it out, or make it smaller";
        return Err(Refusal::new(Reason::TooLarge, shown, wanted, "more", remedy));
    }
    Ok((size, sha256))
}

/// Reads at most one byte more than `most`, and passes on at most `most`.
fn pass(
    file: File,
    shown: &Path,
    most: u64,
    mut to: impl Write,
) -> Result<(u64, [u8; 32]), Refusal> {
    let mut file = file.take(most + 1);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0_u64;
    loop {
        let read = file.read(&mut chunk);
        let read =
            read.map_err(|error| Refusal::system(shown, "a file that can be read", error))?;
        let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else { break };
        size += part.len() as u64;
        if size > most {
            break;
        }
        hash.update(part);
        to.write_all(part).map_err(|error| Refusal::system(shown, "room for its copy", error))?;
    }
    Ok((size, hash.finalize().into()))
}

fn tampered(path: &Path, wanted: String, found: &str) -> Refusal {
    Refusal::new(Reason::Tampered, path, wanted, found, FETCH_AGAIN)
}

/// A new file that everybody may read, with all directories above it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    if let Some(above) = path.parent() {
        create_directory(above)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts a small file in the place of another, all of it or nothing.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}
