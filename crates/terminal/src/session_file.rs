use crate::{TerminalError, files};
use palmgate_protocol::{Name, Secret};
use palmgate_seal::aead::{Key, Place};
use std::path::{Path, PathBuf};

/// Version of the file's content.
const VERSION: u16 = 1;

/// The MLS session on disk, sealed so that a torn, swapped or damaged file is noticed.
pub(crate) struct SessionFile {
    path: PathBuf,
    key: Key,
    tenant: Name,
    terminal: Name,
}

impl SessionFile {
    /// Opens it; the first time makes its key.
    pub(crate) fn open(
        directory: &Path,
        tenant: &Name,
        terminal: &Name,
    ) -> Result<Self, TerminalError> {
        let key_path = directory.join("session.key");
        let key = if let Some(bytes) = files::read(&key_path)? {
            files::refuse_exposed(&key_path, 0o600)?;
            let bytes = Secret::new(bytes);
            let exact = <[u8; 32]>::try_from(bytes.expose().as_slice()).map_err(|_| {
                TerminalError::Damaged { path: key_path, why: "it is not 32 bytes".into() }
            })?;
            Key::from_bytes(exact)
        } else {
            let key = Key::generate();
            files::write(&key_path, key.expose())?;
            key
        };
        let path = directory.join("session.sealed");
        Ok(Self { path, key, tenant: tenant.clone(), terminal: terminal.clone() })
    }

    /// Replaces the stored session durably.
    pub(crate) fn save(&self, state: &Secret<Vec<u8>>) -> Result<(), TerminalError> {
        files::write(&self.path, &self.key.seal(&self.place(), state.expose()))
    }

    /// Deletes the stored session durably, if there is one.
    pub(crate) fn delete(&self) -> Result<(), TerminalError> {
        files::delete(&self.path)
    }

    /// The stored session; `None` when there is none or it is damaged, since joining anew costs
    /// less than anything that could be saved of it.
    pub(crate) fn load(&self) -> Result<Option<Secret<Vec<u8>>>, TerminalError> {
        let Some(sealed) = files::read(&self.path)? else { return Ok(None) };
        let opened = self.key.open(&self.place(), &sealed);
        if opened.is_err() {
            tracing::warn!(path = %self.path.display(), "the stored session is damaged: joining anew");
        }
        Ok(opened.ok())
    }

    fn place(&self) -> Vec<u8> {
        let record = self.terminal.as_str().as_bytes();
        let column = "terminal session";
        Place { tenant: &self.tenant, purpose: None, record, column, version: VERSION }.aad()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path, terminal: &str) -> SessionFile {
        let tenant = "grocer".parse().unwrap();
        SessionFile::open(directory, &tenant, &terminal.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_session_outlives_its_process() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path(), "till-1").load().unwrap().is_none());
        open(root.path(), "till-1").save(&Secret::new(b"state".to_vec())).unwrap();
        assert_eq!(open(root.path(), "till-1").load().unwrap().unwrap().expose(), b"state");
        let stored = std::fs::read(root.path().join("session.sealed")).unwrap();
        assert!(!stored.windows(5).any(|window| window == b"state"));
        (0..2).for_each(|_| open(root.path(), "till-1").delete().unwrap());
        assert!(open(root.path(), "till-1").load().unwrap().is_none());
    }

    #[test]
    fn a_damaged_or_foreign_session_is_as_good_as_none() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("session.sealed");
        open(root.path(), "till-1").save(&Secret::new(b"state".to_vec())).unwrap();
        assert!(open(root.path(), "till-2").load().unwrap().is_none());
        let whole = std::fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(open(root.path(), "till-1").load().unwrap().is_none(), "byte {position}");
            std::fs::write(&path, &whole[..position]).unwrap();
            assert!(open(root.path(), "till-1").load().unwrap().is_none(), "cut at {position}");
        }
    }
}
