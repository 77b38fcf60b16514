//! A bundle that was verified, and what it takes to make one.

use crate::{
    files,
    manifest::{CONTENT, HEAD, Listed, Manifest, PACKAGES, Terms, is_plain, rfc3339},
    refusal::{Reason, Refusal},
    signed::{self, NOTE},
};
use palmgate_ledger::note::{NoteError, Signer};
use palmgate_protocol::Timestamp;
use palmgate_seal::sign::SigningKey;
use semver::Version;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A bundle whose note two trusted people signed. Its files are checked whenever they are read.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) directory: File,
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    id: [u8; 32],
    signers: Vec<String>,
}

impl Bundle {
    /// Reads a bundle's note: signed by two of `trusted`, in time, and not below `floor`.
    ///
    /// # Errors
    /// [`Refusal`] with the path, what was wanted, what was found, and the remedy.
    pub fn open(
        path: &Path,
        trusted: &[Signer],
        now: Timestamp,
        floor: Option<&Version>,
    ) -> Result<Self, Refusal> {
        let directory = files::directory(path)?;
        let read = signed::read(&directory, path, NOTE, HEAD, trusted)?;
        let note = path.join(NOTE);
        let manifest = Manifest::parse(&read.body, &note)?;
        let terms = &manifest.terms;
        if now >= terms.expires {
            let wanted = format!("a bundle that is good on {}", shown(now));
            let found = format!("one that was until {}", shown(terms.expires));
            let remedy = "fetch a newer bundle, or set the clock if it is wrong";
            return Err(Refusal::new(Reason::Expired, &note, wanted, found, remedy));
        }
        if let Some(floor) = floor.filter(|floor| terms.version < **floor) {
            let wanted = format!("version {floor} or above, the floor of a security release");
            let remedy = "use a bundle of a newer release";
            let found = &terms.version;
            return Err(Refusal::new(Reason::BelowFloor, &note, wanted, found, remedy));
        }
        let (id, signers) = (read.id, read.signers);
        Ok(Self { directory, path: path.to_owned(), manifest, id, signers })
    }

    /// Reads every file that the note lists.
    ///
    /// # Errors
    /// The first that is not as it was signed.
    pub fn verify_files(&self) -> Result<(), Refusal> {
        self.manifest.files.iter().try_for_each(|file| self.copy(file, io::sink()))
    }

    pub(crate) fn copy(&self, file: &Listed, to: impl io::Write) -> Result<(), Refusal> {
        files::copy(&self.directory, file, &self.path.join(&file.path), to)
    }

    /// What is in it.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the signed text.
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Who signed it.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

fn shown(at: Timestamp) -> String {
    rfc3339(at).unwrap_or_else(|| "no date".into())
}

/// Lists what lies in `directory` and signs the list: the text of the note, with one signature.
///
/// # Errors
/// [`Refusal`] when a name cannot stand in a bundle, or there is more than fits into one.
pub fn describe(
    directory: &Path,
    terms: Terms,
    name: &str,
    key: &SigningKey,
) -> Result<String, Refusal> {
    let mut files = Vec::new();
    for part in [PACKAGES, CONTENT[0], CONTENT[1]] {
        gather(directory, part, &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let note = directory.join(NOTE);
    let unfit = |found: NoteError| Refusal::malformed(&note, "a list that fits into a note", found);
    let text = Manifest { terms, files }.to_text();
    let text = text.ok_or_else(|| Refusal::malformed(&note, "times up to 9999", "later ones"))?;
    Manifest::parse(&text, &note)?;
    signed::sign(None, HEAD, &text, name, key).map_err(unfit)
}

fn gather(directory: &Path, below: &str, files: &mut Vec<Listed>) -> Result<(), Refusal> {
    let path = directory.join(below);
    let failed = |error: io::Error| Refusal::system(&path, "files to list", error);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            gather(directory, &name, files)?;
            continue;
        }
        if !is_plain(&name) || !kind.is_file() {
            let wanted = "plain files with names of letters, digits and . _ + ~ -";
            let remedy = "rename it, or take it out of the bundle";
            return Err(Refusal::new(Reason::Malformed, &entry.path(), wanted, name, remedy));
        }
        files.push(list(directory, name)?);
    }
    Ok(())
}

fn list(directory: &Path, name: String) -> Result<Listed, Refusal> {
    let path = directory.join(&name);
    let file = files::open(files::directory(directory)?, &name, &path)?;
    let (size, sha256) = files::hash(file, &path)?;
    Ok(Listed { path: name, size, sha256 })
}
