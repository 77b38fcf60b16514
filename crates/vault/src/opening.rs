//! Opening: which root and which table belong together, and what a crash left to do.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use palmgate_protocol::Name;

use crate::{
    disk::{self, Disk, at},
    error::{START_ANEW, VaultError},
    inner::Inner,
    keys::{Change, FORMAT, KeyTable},
    migration::Old,
    people::GROUP_BYTES,
    records::{Records, Shelf},
    root::{Root, RootKeeper},
    space,
    table::KeyFiles,
    tombstones::Tombstones,
    worker::Worker,
};

const FORMAT_LINE: &str = "palmgate vault";
const FORMAT_REMEDY: &str =
    "restore this file: two lines, \"palmgate vault 2\" and \"tenant NAME\"";

/// The paths of a vault, and whose it is.
struct Place<'a> {
    directory: &'a Path,
    keys: PathBuf,
    format: PathBuf,
    tenant: &'a Name,
    disk: &'a Disk,
}

impl Inner {
    pub(crate) fn open(
        directory: &Path,
        tenant: &Name,
        mut keeper: Box<dyn RootKeeper>,
        disk: Disk,
    ) -> Result<Self, VaultError> {
        let keys = directory.join("keys");
        let format = directory.join("format");
        let place = Place { directory, keys, format, tenant, disk: &disk };
        disk.create_directory(directory)?;
        disk.create_directory(&place.keys)?;
        disk.create_directory(&directory.join("terminals"))?;
        let lock = place.lock()?;
        let provisioned = place.check_format()?;
        let root = place.root(&mut *keeper, provisioned)?;
        let (table, migrating) = place.table(&root, keeper.describe(), provisioned)?;
        let mut inner = Self::assemble(&place, keeper, root, table, lock, provisioned)?;
        if let Some(people) = migrating {
            inner.migrate(people)?;
        }
        inner.prepared(provisioned)
    }

    fn assemble(
        place: &Place<'_>,
        keeper: Box<dyn RootKeeper>,
        root: Root,
        table: KeyTable,
        lock: File,
        provisioned: bool,
    ) -> Result<Self, VaultError> {
        let disk = place.disk.clone();
        let hashing = table.marking.hashing();
        let path = place.keys.join("tombstones");
        let tombstones = Tombstones::open(path, disk.clone(), hashing, &table.tombstones)?;
        let records = place.records();
        if provisioned && !records.join("db").exists() {
            return Err(VaultError::Missing { path: records.join("db"), remedy: START_ANEW });
        }
        // sled writes when it opens.
        space::make_room(&disk, place.directory, space::needed(&table))?;
        Ok(Self {
            directory: place.directory.to_path_buf(),
            keys: place.keys.clone(),
            tenant: place.tenant.clone(),
            records: Records::open(records, disk.clone())?,
            disk,
            keeper,
            root,
            table,
            table_worker: Worker::new("key table"),
            tombstones,
            slots: BTreeMap::new(),
            outbox_entries: 0,
            unsaved: false,
            stopped: false,
            untidy: true,
            #[cfg(test)]
            rotation_off: false,
            _lock: lock,
        })
    }

    /// Carries out what is left to do, and counts what is there.
    fn prepared(mut self, provisioned: bool) -> Result<Self, VaultError> {
        if !provisioned {
            self.records.sync()?;
            self.disk.sync_directory(self.records.path())?;
            self.write_format(FORMAT)?;
        }
        for intent in self.table.intents(&self.key_files())? {
            if !self.tombstones.hold(&intent.marks) && !self.table.begun.contains(&intent) {
                self.table.begun.push(intent);
            }
        }
        self.roll_forward()?;
        let tidy = self.tidy_mark();
        if tidy.exists() {
            self.disk.remove(&tidy)?;
            self.disk.sync_directory(&self.directory)?;
        } else {
            self.sweep()?;
        }
        self.untidy = false;
        self.remove_leftovers()?;
        let count = self.outbox().numbers().try_fold(0, |count, number| number.map(|_| count + 1));
        self.outbox_entries = count?;
        space::keep(&self.disk, &self.directory, space::needed(&self.table));
        Ok(self)
    }

    pub(crate) fn write_format(&self, format: u16) -> Result<(), VaultError> {
        let line = format!("{FORMAT_LINE} {format}\ntenant {}\n", self.tenant);
        self.disk.replace(&self.directory.join("format"), line.as_bytes())
    }

    /// Removes rows that no key opens: of people whose insertion or erasure was cut off.
    fn sweep(&self) -> Result<(), VaultError> {
        let wanted = self.wanted_groups();
        let owned = |key: &[u8]| {
            key.first_chunk::<GROUP_BYTES>().is_some_and(|group| wanted.contains(group))
        };
        let rows = self.records.remove_all(Shelf::People, b"", |key| !owned(key))?;
        let entries = self.sweep_store()?;
        if rows + entries > 0 {
            tracing::info!(rows, entries, "removed rows that no key opens");
        }
        Ok(())
    }

    /// Removes key tables of other roots, unfinished files, and sessions of removed terminals.
    fn remove_leftovers(&self) -> Result<(), VaultError> {
        for name in disk::names(&self.keys)? {
            if !["table", "tombstones"].contains(&name.as_str()) {
                self.disk.remove(&self.keys.join(name))?;
            }
        }
        for name in disk::names(&self.terminals_directory())? {
            if !name.parse().is_ok_and(|name: Name| self.table.terminals.contains_key(&name)) {
                self.disk.destroy(&self.terminals_directory().join(name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn tidy_mark(&self) -> PathBuf {
        self.directory.join("tidy")
    }
}

impl Drop for Inner {
    /// Spares the next start its sweep. Nothing depends on it.
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.save()
        {
            tracing::warn!(%error, "finished erasures will be reported again");
        }
        let removed = self.records.finish_removal().is_ok();
        if !self.stopped && !self.untidy && removed && self.records.sync().is_ok() {
            let _ = self.disk.replace(&self.tidy_mark(), b"");
        }
    }
}

impl Place<'_> {
    fn records(&self) -> PathBuf {
        self.directory.join("records")
    }

    fn lock(&self) -> Result<File, VaultError> {
        lock_directory(self.directory)
    }

    /// Whether the vault was set up before; the format file is the last thing that is written then.
    fn check_format(&self) -> Result<bool, VaultError> {
        let Some((found, tenant)) = read_format(&self.format)? else { return Ok(false) };
        if found > FORMAT {
            return Err(VaultError::NewerFormat {
                path: self.format.clone(),
                found,
                known: FORMAT,
            });
        }
        let tenant = tenant.ok_or_else(|| damaged_format(&self.format))?;
        if tenant != *self.tenant {
            let path = self.format.clone();
            return Err(VaultError::OtherTenant { path, found: tenant.to_string() });
        }
        Ok(true)
    }

    /// The keeper's root; a new one only where there is neither root nor data.
    fn root(&self, keeper: &mut dyn RootKeeper, provisioned: bool) -> Result<Root, VaultError> {
        let described = keeper.describe();
        let failed = |source| VaultError::Keeper { keeper: described, source };
        if let Some(root) = keeper.load().map_err(failed)? {
            return Ok(root);
        }
        if provisioned || self.holds_data()? {
            let path = self.directory.to_path_buf();
            return Err(VaultError::RootMissing { path, keeper: described });
        }
        let root = Root::first();
        KeyTable::new().write(&Change::default(), &[], &self.key_files(), &root)?;
        keeper.replace(&root).map_err(failed)?;
        Ok(root)
    }

    /// The table that belongs to the root; and the people of one in the first format, which has to be
    /// migrated.
    fn table(
        &self,
        root: &Root,
        keeper: &'static str,
        provisioned: bool,
    ) -> Result<(KeyTable, Option<Change>), VaultError> {
        let files = self.key_files();
        let found = KeyTable::read(&files, root, keeper);
        let torn = matches!(found, Err(VaultError::Damaged { .. } | VaultError::WrongRoot { .. }));
        // A migration that was cut leaves a torn table, and the old one counts.
        if (torn || matches!(found, Ok(None)))
            && let Some(old) = Old::read(&files, root, keeper)?
        {
            return Ok((old.table, Some(old.change)));
        }
        let Some(table) = found? else { return Err(self.no_table(root, keeper)?) };
        let used = !table.people.is_empty() || table.tombstones.count > 0;
        if !provisioned && (used || root.generation() > 1) {
            return Err(VaultError::Missing { path: self.format.clone(), remedy: FORMAT_REMEDY });
        }
        Ok((table, None))
    }

    fn no_table(&self, root: &Root, keeper: &'static str) -> Result<VaultError, VaultError> {
        let old = disk::names(&self.keys)?.into_iter().filter_map(|name| name.parse().ok());
        let generations = KeyTable::generations(&self.key_files())?;
        Ok(match generations.into_iter().chain(old).max() {
            Some(table) => VaultError::OtherGeneration {
                path: self.key_files().path(),
                keeper,
                root: root.generation(),
                table,
            },
            None => VaultError::Missing {
                path: self.key_files().path(),
                remedy: "restore the data directory; if this box shall start anew, remove the root \
                         from its keeper first",
            },
        })
    }

    /// Whether there is more than an interrupted first start can leave.
    fn holds_data(&self) -> Result<bool, VaultError> {
        let first_start = ["1", "1.new", "table"];
        let keys = disk::names(&self.keys)?;
        let sessions = disk::names(&self.directory.join("terminals"))?;
        let other = keys.iter().any(|name| !first_start.contains(&name.as_str()));
        Ok(other || !sessions.is_empty() || self.records().exists())
    }

    fn key_files(&self) -> KeyFiles<'_> {
        KeyFiles { disk: self.disk, directory: &self.keys, tenant: self.tenant }
    }
}

/// The format that this file names, and the tenant, if it is written as in a known format; `None`
/// where there is no such file.
pub(crate) fn read_format(path: &Path) -> Result<Option<(u16, Option<Name>)>, VaultError> {
    let Some(bytes) = disk::read(path)? else { return Ok(None) };
    let damaged = || damaged_format(path);
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| damaged())?;
    let (format, rest) = text.split_once('\n').ok_or_else(damaged)?;
    let format = format.strip_prefix(FORMAT_LINE).and_then(|found| found.trim().parse().ok());
    let tenant = rest.strip_prefix("tenant ").and_then(|tenant| tenant.trim_end().parse().ok());
    let format = format.filter(|format| *format > 0).ok_or_else(damaged)?;
    Ok(Some((format, tenant)))
}

fn damaged_format(path: &Path) -> VaultError {
    VaultError::Damaged {
        path: path.to_path_buf(),
        what: "it does not say a format and a tenant",
        remedy: FORMAT_REMEDY,
    }
}

/// Keeps other processes out of a vault's directory.
pub(crate) fn lock_directory(directory: &Path) -> Result<File, VaultError> {
    let path = directory.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(at("open", &path))?;
    // A process that this one is just starting holds it, too, until it has its own program.
    disk::lock(&file, &path, Duration::from_secs(1))?;
    Ok(file)
}
