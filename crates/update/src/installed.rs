//! What bundles left on a box.

use crate::{
    bundle::Bundle,
    files,
    manifest::{CONTENT, PACKAGES, version},
    packages::Dpkg,
    refusal::{Reason, Refusal},
    signed::NOTE,
};
use data_encoding::HEXLOWER;
use semver::Version;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const FLOOR: &str = "floor";
const INSTALLED: &str = "installed.note";
const STORE: &str = "content";
const STAGING: &str = "staging";
/// Bytes of the floor's file at most.
const MAX_FLOOR_BYTES: u64 = 128;

/// Refuses a program that is below the floor. `path` is where the floor stands.
///
/// # Errors
/// [`Refusal`], with [`Reason::BelowFloor`].
pub fn check_floor(program: &Version, floor: &Version, path: &Path) -> Result<(), Refusal> {
    if program >= floor {
        return Ok(());
    }
    let wanted = format!("a program of version {floor} or above, the floor of a security release");
    let remedy = "install a bundle of a newer release with `palmgate update install`";
    Err(Refusal::new(Reason::BelowFloor, path, wanted, program, remedy))
}

/// Held while something is installed. Released by name: a program that another thread starts holds
/// the open directory, too, for the moment before it runs.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The directory of what bundles brought. Only root writes there.
#[derive(Clone, Debug)]
pub struct Installed {
    directory: PathBuf,
}

impl Installed {
    /// The one at `directory`, which need not exist yet.
    pub const fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where the floor stands.
    pub fn floor_path(&self) -> PathBuf {
        self.directory.join(FLOOR)
    }

    /// The version below which no program may run; `None` where no bundle named one.
    ///
    /// # Errors
    /// The file is not what was written there.
    pub fn floor(&self) -> Result<Option<Version>, Refusal> {
        let path = self.floor_path();
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Refusal::system(&path, "a version", error)),
            Ok(_) => {}
        }
        let bytes = files::read(files::directory(&self.directory)?, FLOOR, &path, MAX_FLOOR_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        let floor = version(text.trim_end(), &path);
        floor.map(Some).map_err(|refusal| Refusal {
            remedy: "remove it: the daemon keeps a floor of its own, and the next bundle writes this \
                     one anew",
            ..refusal
        })
    }

    /// SHA-256 of the last bundle's signed text, as its file says; `None` before the first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bundle(&self) -> Result<Option<[u8; 32]>, Refusal> {
        let path = self.directory.join(INSTALLED);
        if !path.exists() {
            return Ok(None);
        }
        let most = palmgate_ledger::note::MAX_NOTE_BYTES as u64;
        let note = files::read(files::directory(&self.directory)?, INSTALLED, &path, most)?;
        let note = String::from_utf8_lossy(&note);
        let note = palmgate_ledger::note::Note::parse(&note);
        let note = note.map_err(|error| Refusal::malformed(&path, "a signed note", error))?;
        Ok(Some(Sha256::digest(note.text()).into()))
    }

    /// Installs a bundle on a box that runs `program`: copies and checks everything, then hands the
    /// packages to dpkg, then changes models and packs, then raises the floor. Cut off anywhere,
    /// programs, models and packs are each those before or the new ones, and the same call finishes it.
    ///
    /// # Errors
    /// [`Refusal`]; before dpkg was asked nothing has changed.
    pub fn install(&self, bundle: &Bundle, program: &Version, dpkg: &Dpkg) -> Result<(), Refusal> {
        let _lock = self.lock()?;
        let terms = &bundle.manifest.terms;
        // Once more under the lock: another bundle may have raised it.
        if let Some(floor) = self.floor()? {
            check_floor(&terms.version, &floor, &self.floor_path())?;
        }
        if !bundle.manifest.has(PACKAGES) && *program != terms.version {
            let wanted = format!("a box with version {}, for which it is", terms.version);
            let remedy = "install the bundle with the packages of that version first";
            return Err(Refusal::new(Reason::Foreign, &bundle.path, wanted, program, remedy));
        }
        let staging = self.stage(bundle)?;
        let packages = packages(&staging, bundle);
        dpkg.install(&dpkg.choose(&packages, &terms.version)?)?;
        self.switch(&staging, bundle)?;
        self.raise(&terms.floor)?;
        let note = fs::read(staging.join(NOTE)).and_then(|note| {
            files::replace(&self.directory.join(INSTALLED), &note)?;
            fs::remove_dir_all(&staging)
        });
        note.map_err(|error| {
            Refusal::system(&self.directory, "to note what was installed", error)
        })?;
        self.tidy();
        Ok(())
    }

    fn lock(&self) -> Result<Lock, Refusal> {
        let failed = |error: io::Error| {
            Refusal::system(&self.directory, "a directory that root may write to", error)
        };
        files::create_directory(&self.directory).map_err(failed)?;
        let directory = File::open(&self.directory).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(Lock(directory)),
            Err(TryLockError::WouldBlock) => {
                let found = "another one under way";
                Err(Refusal::system(&self.directory, "no other installation", found))
            }
            Err(TryLockError::Error(error)) => {
                Err(Refusal::system(&self.directory, "a directory that can be locked", error))
            }
        }
    }

    /// Copies what the note lists, checked on the way: what is used later is the copy, whatever
    /// becomes of the bundle.
    fn stage(&self, bundle: &Bundle) -> Result<PathBuf, Refusal> {
        let staging = self.directory.join(STAGING);
        let failed = |error: io::Error| Refusal::system(&staging, "room for the bundle", error);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => files::create_directory(&staging).map_err(failed)?,
        }
        for file in &bundle.manifest.files {
            let copy = files::create(&staging.join(&file.path)).map_err(failed)?;
            bundle.copy(file, &copy)?;
            copy.sync_all().map_err(failed)?;
        }
        let most = palmgate_ledger::note::MAX_NOTE_BYTES as u64;
        let note = files::read(&bundle.directory, NOTE, &bundle.path.join(NOTE), most)?;
        files::replace(&staging.join(NOTE), &note).map_err(failed)?;
        Ok(staging)
    }

    /// Puts models and packs in the place of those before, each in one step. What a bundle does not
    /// bring stays.
    fn switch(&self, staging: &Path, bundle: &Bundle) -> Result<(), Refusal> {
        for part in CONTENT.into_iter().filter(|part| bundle.manifest.has(part)) {
            let switched = self.switch_one(staging, part, bundle.id());
            switched.map_err(|error| {
                Refusal::system(&self.directory.join(part), "to be put in use", error)
            })?;
        }
        Ok(())
    }

    fn switch_one(&self, staging: &Path, part: &str, id: &[u8; 32]) -> io::Result<()> {
        let store = self.directory.join(STORE);
        files::create_directory(&store)?;
        let id = HEXLOWER.encode(&id[..8]);
        let free = (0..).map(|number| format!("{part}-{id}-{number}"));
        let name = free.into_iter().find(|name| !store.join(name).exists());
        let name = name.unwrap_or_default();
        sync_below(&staging.join(part))?;
        fs::rename(staging.join(part), store.join(&name))?;
        files::sync_directory(&store)?;
        let new = self.directory.join(format!("{part}.new"));
        let _ = fs::remove_file(&new);
        symlink(Path::new(STORE).join(&name), &new)?;
        fs::rename(&new, self.directory.join(part))?;
        files::sync_directory(&self.directory)
    }

    fn raise(&self, floor: &Version) -> Result<(), Refusal> {
        // What cannot be read is written anew: the daemon's own floor does not depend on it.
        if self.floor().ok().flatten().is_some_and(|known| known >= *floor) {
            return Ok(());
        }
        let path = self.floor_path();
        let written = files::replace(&path, format!("{floor}\n").as_bytes());
        written.map_err(|error| Refusal::system(&path, "to raise the floor", error))
    }

    /// Removes what no link leads to. Nothing depends on it.
    fn tidy(&self) {
        let store = self.directory.join(STORE);
        let linked = CONTENT.map(|part| fs::read_link(self.directory.join(part)).ok());
        for entry in fs::read_dir(&store).into_iter().flatten().flatten() {
            let path = Path::new(STORE).join(entry.file_name());
            if !linked.iter().flatten().any(|target| *target == path) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn packages(staging: &Path, bundle: &Bundle) -> Vec<PathBuf> {
    let below = format!("{PACKAGES}/");
    let paths = bundle.manifest.paths().filter(|path| path.starts_with(&below));
    paths.map(|path| staging.join(path)).collect()
}

fn sync_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?;
        }
    }
    files::sync_directory(directory)
}
