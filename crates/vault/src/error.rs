use std::{error::Error, io, path::PathBuf};

/// What the vault answers when it cannot do as asked. No variant says who was concerned.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk failed, is full, or a file has the wrong owner or mode.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// sled failed; the keys and tombstones are not touched by that.
    #[error(
        "the record store {path} failed: {source}; restart, and if it stays so move the whole data \
         directory and the root away and let the cloud fill a new one"
    )]
    Records {
        /// The directory of the record store.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// A file has changed since it was written.
    #[error("{path} is damaged: {what}; {remedy}")]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A file that must be there is not.
    #[error("{path} is missing; {remedy}")]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// There is data, but the keeper has no root for it.
    #[error(
        "{path} holds data but the {keeper} holds no root: put the root back; without it nothing \
         here can be opened by anybody, so otherwise move the directory away and start anew"
    )]
    RootMissing {
        /// The data directory.
        path: PathBuf,
        /// Who should hold the root.
        keeper: &'static str,
    },
    /// The keeper's root is of another box, or the key table's head was changed.
    #[error(
        "{path} was not sealed under the root that the {keeper} holds: is the root of another box, \
         or the directory from one?"
    )]
    WrongRoot {
        /// The key table.
        path: PathBuf,
        /// Who holds the root.
        keeper: &'static str,
    },
    /// Root and key table are of different times: one of them came from a backup.
    #[error(
        "the {keeper} holds root {root} but {path} is of root {table}: one of them was restored \
         from a backup; what was erased since cannot come back, so put the newer one in its place, \
         or move both away and let the cloud fill a new directory"
    )]
    OtherGeneration {
        /// The key table found.
        path: PathBuf,
        /// Who holds the root.
        keeper: &'static str,
        /// Generation of the keeper's root.
        root: u64,
        /// Generation of the key table found.
        table: u64,
    },
    /// A newer Palmgate wrote this.
    #[error("{path} has format {found}, this version reads up to {known}: install the newer one")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
    /// The vault is committed to its format, or never had another.
    #[error(
        "{path} has format {format} for good: its migration was committed, or it began in that format; \
         install a program that reads format {format}"
    )]
    NoWayBack {
        /// The vault's directory.
        path: PathBuf,
        /// The format that it has and keeps.
        format: u16,
    },
    /// The directory belongs to another tenant.
    #[error("{path} belongs to tenant {found}: set that tenant or another data directory")]
    OtherTenant {
        /// The format file.
        path: PathBuf,
        /// The tenant written there.
        found: String,
    },
    /// Another process has the directory open.
    #[error("{path} is locked by another process: stop it first")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The root keeper failed.
    #[error("the {keeper} failed: {source}")]
    Keeper {
        /// Which keeper.
        keeper: &'static str,
        /// What it said.
        source: RootError,
    },
    /// The caller wants to store somebody who was erased.
    #[error("this person or claim was erased and cannot come back; enrol under a new identity")]
    Tombstoned,
    /// The caller inserts somebody who is there, or twice in one batch.
    #[error("this person is already stored; write single columns instead")]
    AlreadyStored,
    /// The caller writes for somebody who is not there.
    #[error("this person is not stored here")]
    UnknownMember,
    /// More entries wait for the cloud than the outbox may hold.
    #[error("the outbox holds {limit} entries, its limit: reconnect the cloud")]
    OutboxFull {
        /// The limit.
        limit: usize,
    },
    /// A value or the number of people is over its bound.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes or people.
        limit: usize,
    },
    /// The last free space is kept for erasures.
    #[error(
        "only {available} bytes are free at {path} and {needed} are kept for erasures: free some \
         space; erasing still works"
    )]
    DiskFull {
        /// The data directory.
        path: PathBuf,
        /// Bytes free.
        available: u64,
        /// Bytes kept.
        needed: u64,
    },
    /// An earlier change of the root ended without an answer, so memory and disk may differ.
    #[error("the vault stopped after a failed change of the root: restart to finish or undo it")]
    Stopped,
}

/// What a [`RootKeeper`](crate::RootKeeper) answers when it fails.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] Box<VaultError>),
    /// What the keeper holds is no root.
    #[error("{path} is no root: {what}; restore it from where it was provisioned")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// Others than the owner may read the root.
    #[error("{path} may be read by others (mode {mode:o}): set its mode to 600")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The credential that should seal the root is too short to be a random secret.
    #[error(
        "the credential for the root has fewer than {needed} bytes: make one with \
         systemd-creds from 32 random bytes"
    )]
    Credential {
        /// Bytes wanted.
        needed: usize,
    },
    /// The keeper holds a root that it had destroyed: somebody wrote it back.
    #[error(
        "the {keeper} holds a root whose time is over, so somebody put an old one back: it opens \
         only what should be forgotten; move the data directory away and let the cloud fill anew"
    )]
    RolledBack {
        /// Which keeper.
        keeper: &'static str,
    },
    /// The hardware or service behind the keeper failed.
    #[error("{0}")]
    Device(#[source] Box<dyn Error + Send + Sync>),
}

/// The remedy for damage that only a new start mends.
pub(crate) const START_ANEW: &str =
    "restore this file, or move the data directory and the root away and let the cloud fill anew";
