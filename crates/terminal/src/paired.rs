use crate::{TerminalError, files, roster::Kept, session_file::SessionFile};
use palmgate_protocol::{Name, Secret, Timestamp, decode, encode};
use palmgate_seal::pki::Identity;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

const SETTINGS: &str = "settings.toml";
/// Key and certificates in one file, so that a renewal replaces them together or not at all.
const IDENTITY: &str = "identity.pem";
const ROSTER: &str = "roster";

/// A terminal's identity and where its gateway is, from its state directory.
///
/// The directory (mode 0700, files 0600, one process at a time) holds the terminal's key and its
/// certificate with the authority's in `identity.pem`, `settings.toml`, the number and hash of the
/// store's last roster in `roster`, and the current MLS session sealed under `session.key`. A terminal has no TPM that this library could count on: whoever
/// copies the whole directory can act as this terminal until it is removed at the gateway or has
/// renewed its certificate, with another key. They cannot read any earlier message with it, since
/// used message keys are gone, and no template is ever in it. Do not put the directory into backups:
/// a session that comes back from one is refused by the gateway, and the terminal joins anew.
pub struct Paired {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) session: SessionFile,
    pub(crate) lock: File,
    pub(crate) directory: PathBuf,
    clock_error: Duration,
}

/// `settings.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(with = "as_text")]
    pub(crate) terminal: Name,
    #[serde(with = "as_text")]
    pub(crate) store: Name,
    #[serde(with = "as_text")]
    pub(crate) tenant: Name,
    pub(crate) broker_host: String,
    pub(crate) broker_port: u16,
}

/// A [`Name`] as TOML text.
mod as_text {
    use palmgate_protocol::Name;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Paired {
    /// Opens the state directory of a paired terminal.
    ///
    /// # Errors
    /// [`TerminalError::NotPaired`], [`TerminalError::InUse`], [`TerminalError::Exposed`],
    /// [`TerminalError::Damaged`] or [`TerminalError::File`].
    ///
    /// ```no_run
    /// use palmgate_terminal::Paired;
    /// use std::path::Path;
    ///
    /// let paired = Paired::open(Path::new("/var/lib/till/palmgate"))?;
    /// println!("{} of {}", paired.name(), paired.store());
    /// # Ok::<(), palmgate_terminal::TerminalError>(())
    /// ```
    pub fn open(directory: &Path) -> Result<Self, TerminalError> {
        let settings = directory.join(SETTINGS);
        let Some(text) = files::read(&settings)? else {
            return Err(TerminalError::NotPaired(directory.into()));
        };
        files::refuse_exposed(directory, 0o700)?;
        let lock = files::lock(directory)?;
        let settings = parse_settings(&settings, &text)?;
        let identity = read_identity(directory, &settings.terminal)?;
        let session = SessionFile::open(directory, &settings.tenant, &settings.terminal)?;
        let directory = directory.into();
        let clock_error = Duration::ZERO;
        Ok(Self { settings, identity, session, lock, directory, clock_error })
    }

    /// Writes what pairing gave, the settings last: they make the directory a paired one.
    pub(crate) fn create(
        directory: &Path,
        settings: &Settings,
        identity: &Identity,
        clock_error: Duration,
    ) -> Result<Self, TerminalError> {
        keep_identity(directory, identity)?;
        let text = toml::to_string(settings).expect("names, a host and a port are TOML");
        files::write(&directory.join(SETTINGS), text.as_bytes())?;
        Ok(Self { clock_error, ..Self::open(directory)? })
    }

    /// Makes the directory, and refuses one that a terminal lives in.
    pub(crate) fn prepare(directory: &Path) -> Result<(), TerminalError> {
        files::private_directory(directory)?;
        match files::read(&directory.join(SETTINGS))? {
            None => Ok(()),
            Some(_) => Err(TerminalError::AlreadyPaired(directory.into())),
        }
    }

    /// The terminal's name.
    pub const fn name(&self) -> &Name {
        &self.settings.terminal
    }

    /// The store that the terminal stands in.
    pub const fn store(&self) -> &Name {
        &self.settings.store
    }

    /// The tenant that the store belongs to.
    pub const fn tenant(&self) -> &Name {
        &self.settings.tenant
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When the terminal's certificate ends. A connected terminal renews it by itself when a third of
    /// its life is left; one that was away for longer is paired anew.
    ///
    /// ```no_run
    /// use palmgate_terminal::Paired;
    /// use std::path::Path;
    ///
    /// let paired = Paired::open(Path::new("/var/lib/till/palmgate"))?;
    /// println!("ends at {} ms after 1970", paired.certificate_ends().as_millis());
    /// # Ok::<(), palmgate_terminal::TerminalError>(())
    /// ```
    pub const fn certificate_ends(&self) -> Timestamp {
        self.identity.validity().until
    }

    /// How far this terminal's clock was from the gateway's when it was paired just now; zero
    /// after [`Paired::open`]. Requests are refused when the clocks are more than
    /// [`MAX_CLOCK_SKEW`](palmgate_protocol::limits::MAX_CLOCK_SKEW) apart.
    pub const fn clock_error(&self) -> Duration {
        self.clock_error
    }
}

/// Writes the terminal's key and certificates; a power cut leaves those before or these.
pub(crate) fn keep_identity(directory: &Path, identity: &Identity) -> Result<(), TerminalError> {
    let mut text = Secret::new(String::with_capacity(4096));
    let key: Secret<String> = identity.key_pem();
    text.expose_mut().push_str(key.expose());
    text.expose_mut().push_str(&identity.chain_pem());
    files::write(&directory.join(IDENTITY), text.expose().as_bytes())
}

/// What an earlier run kept of the store's roster.
pub(crate) fn read_roster(directory: &Path) -> Result<Option<Kept>, TerminalError> {
    let path = directory.join(ROSTER);
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    let damaged = |why: String| TerminalError::Damaged { path: path.clone(), why };
    decode(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Keeps it: from then on no earlier roster is believed.
pub(crate) fn keep_roster(directory: &Path, kept: Kept) -> Result<(), TerminalError> {
    files::write(&directory.join(ROSTER), &encode(&kept))
}

fn parse_settings(path: &Path, text: &[u8]) -> Result<Settings, TerminalError> {
    let damaged = |why: String| TerminalError::Damaged { path: path.into(), why };
    let text = str::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    toml::from_str(text).map_err(|error| damaged(error.to_string()))
}

fn read_identity(directory: &Path, name: &Name) -> Result<Identity, TerminalError> {
    let path = directory.join(IDENTITY);
    let damaged = |why: String| TerminalError::Damaged { path: path.clone(), why };
    let bytes = required(&path)?;
    files::refuse_exposed(&path, 0o600)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text".into()))?;
    let text = Secret::new(text);
    let identity = Identity::from_pem(text.expose(), text.expose())
        .map_err(|error| damaged(error.to_string()))?;
    if identity.name() != *name {
        return Err(damaged(format!("it belongs to {}, the settings to {name}", identity.name())));
    }
    Ok(identity)
}

fn required(path: &Path) -> Result<Vec<u8>, TerminalError> {
    files::read(path)?.ok_or_else(|| TerminalError::Damaged {
        path: path.into(),
        why: "the file is missing".into(),
    })
}
