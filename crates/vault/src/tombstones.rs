//! Who was erased, as keyed hashes: nobody can be named from them, and nobody in them comes back.

use std::{collections::HashSet, path::PathBuf};

use ring::digest::{Context, SHA256};

use crate::{
    disk::{Disk, FileSync, length, parent, read},
    error::{START_ANEW, VaultError},
    keys::{Hashing, TombstoneHead},
    worker::Worker,
};

/// The keyed hash of a member or claim.
pub(crate) type Mark = [u8; 16];

/// Bytes of one tombstone: the marks of a member and of the claim.
const BYTES: usize = 32;

/// The file grows by so much at once: a sync that changes no length has less to write.
const GROWS_BY_BYTES: u64 = 64 * 1024;

/// The tombstone file and its mirror in memory. The file only grows; what stands behind the head's
/// count is zero, or was never acknowledged, and is overwritten by the next erasure.
pub(crate) struct Tombstones {
    path: PathBuf,
    disk: Disk,
    hashing: Hashing,
    marks: HashSet<Mark>,
    worker: Worker,
}

impl Tombstones {
    /// Reads the file and checks it against the head from the key table.
    pub(crate) fn open(
        path: PathBuf,
        disk: Disk,
        hashing: Hashing,
        head: &TombstoneHead,
    ) -> Result<Self, VaultError> {
        let damaged = |what| VaultError::Damaged { path: path.clone(), what, remedy: START_ANEW };
        let file = read(&path)?;
        let bytes = file.as_ref().map_or(&[][..], |file| file.expose());
        let known = usize::try_from(head.count)
            .ok()
            .and_then(|count| bytes.get(..count.checked_mul(BYTES)?))
            .ok_or_else(|| damaged("tombstones are missing"))?;
        if known.chunks_exact(BYTES).fold([0; 32], |chain, one| link(&chain, one)) != head.chain {
            return Err(damaged("its hash chain does not fit the key table"));
        }
        let marks = known.chunks_exact(16).map(|mark| mark.try_into().expect("16 bytes")).collect();
        let worker = Worker::new("tombstones");
        Ok(Self { path, disk, hashing, marks, worker })
    }

    /// The mark of 16 random bytes: a member, a claim.
    pub(crate) fn mark(&self, id: &[u8; 16]) -> Mark {
        self.hashing.hash(id)
    }

    /// Whether what has this mark was erased.
    pub(crate) fn contains(&self, mark: &Mark) -> bool {
        self.marks.contains(mark)
    }

    /// Whether both, a member and the claim, were erased.
    pub(crate) fn hold(&self, marks: &[Mark; 2]) -> bool {
        marks.iter().all(|mark| self.contains(mark))
    }

    /// The head once these stand behind `head`.
    pub(crate) fn head_with(head: &TombstoneHead, new: &[[Mark; 2]]) -> TombstoneHead {
        let bytes = new.as_flattened().as_flattened();
        TombstoneHead {
            count: head.count + new.len() as u64,
            chain: bytes.chunks_exact(BYTES).fold(head.chain, |chain, one| link(&chain, one)),
        }
    }

    /// Writes tombstones behind `head` and begins to make them durable; they count once a key table
    /// has the head with them.
    pub(crate) fn stage(
        &self,
        head: &TombstoneHead,
        new: &[[Mark; 2]],
    ) -> Result<FileSync, VaultError> {
        let bytes = new.as_flattened().as_flattened();
        if bytes.is_empty() {
            return Ok(FileSync::none());
        }
        let at = head.count * BYTES as u64;
        let held = length(&self.path)?;
        let mut bytes = bytes.to_vec();
        let end = at + bytes.len() as u64;
        if held.is_none_or(|held| held < end) {
            bytes.resize((end.next_multiple_of(GROWS_BY_BYTES) - at) as usize, 0);
        }
        self.disk.write_at(&self.path, at, &bytes)?;
        if held.is_none() {
            self.disk.sync(&self.path)?;
            self.disk.sync_directory(parent(&self.path))?;
            return Ok(FileSync::none());
        }
        Ok(self.disk.begin_sync(&self.worker, &self.path))
    }

    /// Mirrors what is now durable.
    pub(crate) fn admit(&mut self, new: &[[Mark; 2]]) {
        self.marks.extend(new.as_flattened());
    }
}

fn link(chain: &[u8; 32], tombstone: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(chain);
    context.update(tombstone);
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
