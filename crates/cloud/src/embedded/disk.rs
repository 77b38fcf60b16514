//! The one place that knows the database: sealed rows under hidden names, in tables, changed all
//! at once. sled today; a server's database has to offer these four functions and no more.

use std::path::{Path, PathBuf};

/// The kinds of rows. The byte is part of the format.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Table {
    /// Who a person is to the cloud, under the person's key.
    Member = b'm',
    /// The record that stores exchange, under the person's key.
    Record = b'r',
    /// Who was forgotten.
    Tombstone = b't',
    /// What was done about an erasure.
    Erasure = b'e',
    /// Who must leave a store's shard.
    Removal = b'x',
    /// What is known of a store's gateway and its chain of shards.
    Holder = b'h',
    /// The checkpoint of a ledger that was cosigned last.
    Witnessed = b'w',
    /// The revision counter.
    Revision = b'v',
}

impl Table {
    /// The name that rows are bound to when sealed.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Record => "record",
            Self::Tombstone => "tombstone",
            Self::Erasure => "erasure",
            Self::Removal => "removal",
            Self::Holder => "holder",
            Self::Witnessed => "witnessed",
            Self::Revision => "revision",
        }
    }

    fn key(self, row: &[u8]) -> Vec<u8> {
        [&[self as u8], row].concat()
    }
}

/// The database said no.
#[derive(Debug, thiserror::Error)]
#[error("the database in {} failed: {source}", path.display())]
pub struct DiskError {
    path: PathBuf,
    source: sled::Error,
}

/// The name of a row and what is sealed in it.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Changes that take effect together or not at all.
#[derive(Default)]
pub(crate) struct Changes(sled::Batch);

impl Changes {
    pub(crate) fn put(&mut self, table: Table, row: &[u8], sealed: Vec<u8>) {
        self.0.insert(table.key(row), sealed);
    }

    pub(crate) fn delete(&mut self, table: Table, row: &[u8]) {
        self.0.remove(table.key(row));
    }
}

pub(crate) struct Disk {
    path: PathBuf,
    database: sled::Db,
}

impl Disk {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let database = sled::Config::new()
            .path(path)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(|source| DiskError { path: path.into(), source })?;
        Ok(Self { path: path.into(), database })
    }

    pub(crate) fn get(&self, table: Table, row: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let found = self.database.get(table.key(row)).map_err(|source| self.error(source))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    /// Every row of a table with its name.
    pub(crate) fn rows(&self, table: Table) -> Result<Vec<Row>, DiskError> {
        self.database
            .scan_prefix([table as u8])
            .map(|row| row.map(|(name, sealed)| (name[1..].to_vec(), sealed.to_vec())))
            .collect::<Result<_, _>>()
            .map_err(|source| self.error(source))
    }

    /// Applies the changes; they are durable when this returns.
    pub(crate) fn commit(&self, changes: Changes) -> Result<(), DiskError> {
        self.database
            .apply_batch(changes.0)
            .and_then(|()| self.database.flush().map(drop))
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: sled::Error) -> DiskError {
        DiskError { path: self.path.clone(), source }
    }
}
