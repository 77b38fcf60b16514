//! People's keys in the database. A person's key is sealed under the key of a group of at most
//! [`GROUP_MEMBERS`] people; the groups' keys are one table, sealed under the partition's root key,
//! which is in a file and not in the database.
//!
//! To destroy a person's key its group gets a new key, the rest of the group is sealed under it,
//! the table is sealed under a new root, and the old root is destroyed: what the database's pages,
//! its log and its backups still have of the old rows then opens with nothing. That costs a group
//! and a table, not everybody.

use super::{
    database::{Done, Failed},
    roots::Roots,
};
use crate::{problem::Problem, root::Root};
use palmgate_protocol::{Name, Secret};
use palmgate_seal::{
    aead::{self, Place},
    random,
};
use postgres::Transaction;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// People in a group at most.
const GROUP_MEMBERS: u16 = 128;
const ENTRY_BYTES: usize = 4 + 32;

/// The groups' keys of one partition as they were at a version.
pub(super) struct Ring {
    pub(super) generation: i64,
    version: i64,
    groups: BTreeMap<i32, aead::Key>,
}

/// The rings that this process has open. Nothing is taken from here that the database does not
/// confirm to be current, and [`Keyrings::forget_outdated`] drops the rest within a second.
pub(super) struct Keyrings {
    tenant: Name,
    roots: Roots,
    open: Mutex<HashMap<Name, Arc<Ring>>>,
}

impl Keyrings {
    pub(super) fn new(tenant: &Name, roots: Roots) -> Self {
        Self { tenant: tenant.clone(), roots, open: Mutex::default() }
    }

    /// The ring in force in this transaction.
    pub(super) fn ring(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<Arc<Ring>> {
        let row = tx.query_opt(
            "SELECT generation, version FROM key_table WHERE tenant = $1 AND partition = $2",
            &[&self.tenant.as_str(), &partition.as_str()],
        )?;
        let Some(row) = row else {
            return Ok(Arc::new(Ring { generation: 0, version: 0, groups: BTreeMap::new() }));
        };
        let current: (i64, i64) = (row.get(0), row.get(1));
        let held = self.lock().get(partition).cloned();
        if let Some(ring) = held.filter(|ring| (ring.generation, ring.version) == current) {
            return Ok(ring);
        }
        let ring = Arc::new(self.load(tx, partition)?);
        self.lock().insert(partition.clone(), ring.clone());
        Ok(ring)
    }

    fn load(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<Ring> {
        let row = tx.query_one(
            "SELECT generation, version, sealed FROM key_table WHERE tenant = $1 AND partition = $2",
            &[&self.tenant.as_str(), &partition.as_str()],
        )?;
        let (generation, version) = (row.get::<_, i64>(0), row.get(1));
        // A root that is gone was replaced since the row was read.
        let root = self.roots.read(partition, generation.cast_unsigned());
        let root = root.map_err(Problem::internal)?.ok_or(Failed::Again)?;
        let aad = self.table_place(partition, generation);
        let table = root.key.open(&aad, row.get(2)).map_err(|_| Failed::Again)?;
        let groups = unpack(table.expose()).ok_or(Problem::Internal)?;
        Ok(Ring { generation, version, groups })
    }

    /// A copy of a table, opened with a root that somebody tries.
    #[cfg(test)]
    pub(super) fn opened_by(
        &self,
        root: &Root,
        partition: &Name,
        generation: i64,
        table: &[u8],
    ) -> Option<Ring> {
        let opened = root.key.open(&self.table_place(partition, generation), table).ok()?;
        Some(Ring { generation, version: 0, groups: unpack(opened.expose())? })
    }

    /// A new key for a person, in a group with room, as a row to be written with the person. The
    /// partition's row is locked.
    pub(super) fn add(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        member: &[u8; 32],
    ) -> Done<aead::Key> {
        let tenant = self.tenant.as_str();
        let known = tx.query_opt(
            "SELECT key_group FROM person_key WHERE tenant = $1 AND partition = $2 \
             AND member_hash = $3",
            &[&tenant, &partition.as_str(), &member.as_slice()],
        )?;
        let group: i32 = match known {
            // The key before this one is destroyed with the group's.
            Some(row) => {
                let group = row.get(0);
                self.count(tx, partition, group, 0, true)?;
                group
            }
            None => self.group_with_room(tx, partition)?,
        };
        let ring = self.ring(tx, partition)?;
        let key = aead::Key::generate();
        let sealing = ring.groups.get(&group).ok_or(Failed::Again)?;
        let sealed = sealing.seal(&self.key_place(member), key.expose());
        tx.execute(
            "INSERT INTO person_key (tenant, partition, member_hash, key_group, sealed) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, partition, member_hash) \
             DO UPDATE SET sealed = excluded.sealed",
            &[&tenant, &partition.as_str(), &member.as_slice(), &group, &sealed],
        )?;
        Ok(key)
    }

    /// Keys for many new people at once, in groups of their own: each with its group and the
    /// group's key. The partition's row is locked.
    pub(super) fn add_many(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        people: usize,
    ) -> Done<Vec<(i32, aead::Key, aead::Key)>> {
        let mut sizes = vec![i32::from(GROUP_MEMBERS); people / usize::from(GROUP_MEMBERS)];
        sizes.extend(
            i32::try_from(people % usize::from(GROUP_MEMBERS)).ok().filter(|rest| *rest > 0),
        );
        let groups = self.new_groups(tx, partition, &sizes)?;
        let ring = self.ring(tx, partition)?;
        let mut keys = Vec::with_capacity(people);
        for (group, size) in groups.into_iter().zip(sizes) {
            let sealing = ring.groups.get(&group).ok_or(Failed::Again)?;
            keys.extend((0..size).map(|_| (group, aead::Key::generate(), sealing.duplicate())));
        }
        Ok(keys)
    }

    /// A person's key under that of the group.
    pub(super) fn sealed(&self, group: &aead::Key, member: &[u8], key: &aead::Key) -> Vec<u8> {
        group.seal(&self.key_place(member), key.expose())
    }

    fn group_with_room(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<i32> {
        let with_room = tx.query_opt(
            "SELECT key_group FROM key_group WHERE tenant = $1 AND partition = $2 AND members < $3 \
             ORDER BY members DESC LIMIT 1",
            &[&self.tenant.as_str(), &partition.as_str(), &i32::from(GROUP_MEMBERS)],
        )?;
        if let Some(row) = with_room {
            let group = row.get(0);
            self.count(tx, partition, group, 1, false)?;
            return Ok(group);
        }
        Ok(self.new_groups(tx, partition, &[1])?[0])
    }

    /// New groups that already count so many people each.
    fn new_groups(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        sizes: &[i32],
    ) -> Done<Vec<i32>> {
        let ring = self.ring(tx, partition)?;
        let first = ring.groups.last_key_value().map_or(0, |(last, _)| last + 1);
        let new: Vec<i32> = (first..).take(sizes.len()).collect();
        tx.execute(
            "INSERT INTO key_group (tenant, partition, key_group, members) \
             SELECT $1, $2, g, m FROM unnest($3::integer[], $4::integer[]) AS new (g, m)",
            &[&self.tenant.as_str(), &partition.as_str(), &new, &sizes],
        )?;
        let mut groups = duplicated(&ring.groups);
        groups.extend(new.iter().map(|group| (*group, aead::Key::generate())));
        let (generation, version) = (ring.generation.max(1), fresh_version());
        let root = if ring.generation == 0 {
            let root = Root::fresh(1);
            self.roots.add(partition, &root).map_err(Problem::internal)?;
            root
        } else {
            let root = self.roots.read(partition, ring.generation.cast_unsigned());
            root.map_err(Problem::internal)?.ok_or(Failed::Again)?
        };
        self.write(tx, partition, &Ring { generation, version, groups }, &root)?;
        Ok(new)
    }

    fn count(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        group: i32,
        difference: i32,
        dirty: bool,
    ) -> Done<()> {
        tx.execute(
            "UPDATE key_group SET members = members + $4, dirty = dirty OR $5 \
             WHERE tenant = $1 AND partition = $2 AND key_group = $3",
            &[&self.tenant.as_str(), &partition.as_str(), &group, &difference, &dirty],
        )?;
        Ok(())
    }

    /// Deletes a person's key; it is destroyed by the next [`Keyrings::rotate`]. The partition's row
    /// is locked.
    pub(super) fn remove(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        member: &[u8; 32],
    ) -> Done<()> {
        let deleted = tx.query_opt(
            "DELETE FROM person_key WHERE tenant = $1 AND partition = $2 AND member_hash = $3 \
             RETURNING key_group",
            &[&self.tenant.as_str(), &partition.as_str(), &member.as_slice()],
        )?;
        match deleted {
            Some(row) => self.count(tx, partition, row.get(0), -1, true),
            None => Ok(()),
        }
    }

    /// Opens a person's key as the row has it. [`Failed::Again`] when the row is older than the
    /// ring, or younger.
    pub(super) fn open(
        &self,
        ring: &Ring,
        member: &[u8],
        group: i32,
        sealed: &[u8],
    ) -> Done<aead::Key> {
        let group = ring.groups.get(&group).ok_or(Failed::Again)?;
        let key = group.open(&self.key_place(member), sealed).map_err(|_| Failed::Again)?;
        let key = key.expose().as_slice().try_into().map_err(|_| Problem::Internal)?;
        Ok(aead::Key::from_bytes(key))
    }

    /// Gives every group that somebody left a new key and the table a new root. The partition's row
    /// is locked; the new root is durable when this returns, and the old one is destroyed by
    /// [`Keyrings::destroy_old_roots`] after the commit. The generation in force then.
    pub(super) fn rotate(&self, tx: &mut Transaction<'_>, partition: &Name) -> Done<i64> {
        let ring = self.ring(tx, partition)?;
        let tenant = self.tenant.as_str();
        let dirty = tx.query(
            "SELECT key_group FROM key_group WHERE tenant = $1 AND partition = $2 AND dirty",
            &[&tenant, &partition.as_str()],
        )?;
        if dirty.is_empty() {
            return Ok(ring.generation);
        }
        let mut groups = duplicated(&ring.groups);
        for row in dirty {
            let group: i32 = row.get(0);
            let key = aead::Key::generate();
            self.seal_group_anew(tx, partition, (group, &ring), &key)?;
            groups.insert(group, key);
        }
        tx.execute(
            "UPDATE key_group SET dirty = false WHERE tenant = $1 AND partition = $2 AND dirty",
            &[&tenant, &partition.as_str()],
        )?;
        let generation = ring.generation + 1;
        let next = Ring { generation, version: fresh_version(), groups };
        let root = Root::fresh(generation.cast_unsigned());
        self.roots.add(partition, &root).map_err(Problem::internal)?;
        self.write(tx, partition, &next, &root)?;
        Ok(generation)
    }

    fn seal_group_anew(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        (group, ring): (i32, &Ring),
        key: &aead::Key,
    ) -> Done<()> {
        let tenant = self.tenant.as_str();
        let rows = tx.query(
            "SELECT member_hash, sealed FROM person_key \
             WHERE tenant = $1 AND partition = $2 AND key_group = $3",
            &[&tenant, &partition.as_str(), &group],
        )?;
        let (mut members, mut sealed) = (Vec::new(), Vec::new());
        for row in &rows {
            let member: &[u8] = row.get(0);
            let opened = self.open(ring, member, group, row.get(1))?;
            sealed.push(key.seal(&self.key_place(member), opened.expose()));
            members.push(member);
        }
        tx.execute(
            "UPDATE person_key SET sealed = anew.sealed \
             FROM unnest($3::bytea[], $4::bytea[]) AS anew (member_hash, sealed) \
             WHERE tenant = $1 AND partition = $2 AND person_key.member_hash = anew.member_hash",
            &[&tenant, &partition.as_str(), &members, &sealed],
        )?;
        Ok(())
    }

    /// Destroys what is left of replaced roots. The partition's row is locked, so that no
    /// replacement is under way.
    pub(super) fn destroy_old_roots(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
    ) -> Done<bool> {
        let row = tx.query_opt(
            "SELECT generation FROM key_table WHERE tenant = $1 AND partition = $2",
            &[&self.tenant.as_str(), &partition.as_str()],
        )?;
        let Some(row) = row else { return Ok(false) };
        let generation: i64 = row.get(0);
        let destroyed = self.roots.keep_only(partition, generation.cast_unsigned());
        Ok(destroyed.map_err(Problem::internal)?)
    }

    /// Drops rings that were replaced.
    pub(super) fn forget_outdated(&self, tx: &mut Transaction<'_>) -> Done<()> {
        let rows = tx.query(
            "SELECT partition, generation, version FROM key_table WHERE tenant = $1",
            &[&self.tenant.as_str()],
        )?;
        let current: HashMap<&str, (i64, i64)> =
            rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        self.lock().retain(|partition, ring| {
            current.get(partition.as_str()) == Some(&(ring.generation, ring.version))
        });
        Ok(())
    }

    /// Drops all rings: nobody knows whether they are current.
    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        ring: &Ring,
        root: &Root,
    ) -> Done<()> {
        let sealed = root
            .key
            .seal(&self.table_place(partition, ring.generation), packed(&ring.groups).expose());
        tx.execute(
            "INSERT INTO key_table (tenant, partition, generation, version, sealed) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, partition) DO UPDATE SET \
             generation = excluded.generation, version = excluded.version, sealed = excluded.sealed",
            &[
                &self.tenant.as_str(),
                &partition.as_str(),
                &ring.generation,
                &ring.version,
                &sealed,
            ],
        )?;
        Ok(())
    }

    fn key_place(&self, member: &[u8]) -> Vec<u8> {
        let (tenant, column) = (&self.tenant, "person-key");
        Place { tenant, purpose: None, record: member, column, version: 1 }.aad()
    }

    fn table_place(&self, partition: &Name, generation: i64) -> Vec<u8> {
        let record = [partition.as_str().as_bytes(), &[0], &generation.to_be_bytes()].concat();
        let (tenant, column) = (&self.tenant, "key-table");
        Place { tenant, purpose: None, record: &record, column, version: 1 }.aad()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Ring>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random, since a table that was never committed must not be taken for the one that was.
fn fresh_version() -> i64 {
    i64::from_be_bytes(random::bytes())
}

fn duplicated(groups: &BTreeMap<i32, aead::Key>) -> BTreeMap<i32, aead::Key> {
    groups.iter().map(|(group, key)| (*group, key.duplicate())).collect()
}

fn packed(groups: &BTreeMap<i32, aead::Key>) -> Secret<Vec<u8>> {
    let mut bytes = Secret::new(Vec::with_capacity(groups.len() * ENTRY_BYTES));
    for (group, key) in groups {
        bytes.expose_mut().extend_from_slice(&group.to_be_bytes());
        bytes.expose_mut().extend_from_slice(key.expose());
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<BTreeMap<i32, aead::Key>> {
    let (entries, []) = bytes.as_chunks::<ENTRY_BYTES>() else { return None };
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (group, key) = entry.split_first_chunk()?;
        Some((i32::from_be_bytes(*group), aead::Key::from_bytes(key.try_into().ok()?)))
    };
    entries.iter().map(entry).collect()
}
