//! The file of the key table.
//!
//! Two places for the top, written in turn, one for intents, then slots of one page each. A change
//! writes pages to slots that the table in force does not use, and the top to the place that it does
//! not use, in any order and with one sync: the new top opens under the new root, or has the higher
//! counter under the same one, and until then nothing of it counts.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use palmgate_protocol::{MemberId, Name, Secret};
use palmgate_seal::aead::{Key, Place, SEAL_BYTES};

use crate::{
    disk::{Disk, FileSync, Part, read},
    erasures::{self, Erasure},
    error::{START_ANEW, VaultError},
    keys::{
        CHECK_BYTES, Change, FORMAT, KeyTable, Page, Person, Plan, SEED_BYTES, Seed, TombstoneHead,
    },
    page_entries::PageEntries,
    root::Root,
    worker::Worker,
};

const MAGIC: &[u8; 14] = b"palmgate keys\n";
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + CHECK_BYTES + 4;
pub(crate) const TOP_BYTES: usize = 1024 * 1024;
pub(crate) const INTENTS_AT: usize = 2 * TOP_BYTES;
const INTENTS_BYTES: usize = 384 * 1024;
pub(crate) const PAGES_AT: usize = INTENTS_AT + INTENTS_BYTES;
pub(crate) const PAGE_BYTES: usize = 4096;
const PERSON_BYTES: usize = 16 + 2 + SEED_BYTES;
/// People on one page: a length, nonce and tag go with them.
pub(crate) const PAGE_PEOPLE: usize = (PAGE_BYTES - 4 - 28) / PERSON_BYTES;
/// Erasures that wait for the ledger, at most.
pub(crate) const MAX_BEGUN: usize = 4_096;

/// Where the key table lies, and whose it is.
pub(crate) struct KeyFiles<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) directory: &'a Path,
    pub(crate) tenant: &'a Name,
}

impl KeyFiles<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("table")
    }

    pub(crate) fn aad(&self, record: &[u8], column: &str) -> Vec<u8> {
        Place { tenant: self.tenant, purpose: None, record, column, version: FORMAT }.aad()
    }
}

/// What stands in one of the two places for a top.
enum Top {
    /// Nothing, or what a cut write left of it.
    None,
    /// One under the root of another generation.
    Other,
    Newer(u16),
    /// It is of this generation and not sealed under this root.
    WrongRoot,
    Damaged(&'static str),
    Open(Box<KeyTable>),
}

impl KeyTable {
    /// Writes the table with the change, sealed under `root`, and the intents. Durable. It counts once
    /// `root` does, and at once if `root` does already.
    pub(crate) fn write(
        &self,
        change: &Change,
        intents: &[Erasure],
        files: &KeyFiles<'_>,
        root: &Root,
    ) -> Result<Plan, VaultError> {
        let (plan, syncing) = self.stage(change, intents, files, root, None)?;
        syncing.finish()?;
        Ok(plan)
    }

    /// As [`write`](Self::write), but only begins to make it durable, with `worker`.
    pub(crate) fn stage(
        &self,
        change: &Change,
        intents: &[Erasure],
        files: &KeyFiles<'_>,
        root: &Root,
        worker: Option<&Worker>,
    ) -> Result<(Plan, FileSync), VaultError> {
        let mut plan = self.plan(change, PAGE_PEOPLE);
        let mut parts = Vec::with_capacity(plan.pages.len() + 2);
        for (number, page) in &mut plan.pages {
            if let Some(slot) = page.slot {
                page.rows = self.rows_of(change, *number, &page.members);
                parts.push(sealed_page(page, slot, files));
            }
        }
        if !intents.is_empty() {
            let plain = erasures::encode(intents);
            let mut bytes = Vec::with_capacity(4 + plain.len() + SEAL_BYTES);
            let aad = files.aad(b"", "intents");
            seal_with_length(&mut bytes, &self.marking.sealing(), &aad, &plain);
            parts.push(Part { offset: INTENTS_AT as u64, bytes });
        }
        let bytes = self.sealed_top(change, &plan, files, root)?;
        parts.push(Part { offset: top_at(self.counter + 1), bytes });
        let path = files.path();
        let new = !path.exists();
        files.disk.write_parts(&path, &parts)?;
        if let Some(worker) = worker
            && !new
        {
            return Ok((plan, files.disk.begin_sync(worker, &path)));
        }
        files.disk.sync(&path)?;
        if new {
            files.disk.sync_directory(files.directory)?;
        }
        Ok((plan, FileSync::none()))
    }

    /// Takes the head of the top before this one away, so that it cannot be mistaken for the last if
    /// that is damaged. Not synced: it goes along with the next write.
    pub(crate) fn settle(&self, files: &KeyFiles<'_>) -> Result<(), VaultError> {
        files.disk.write_at(&files.path(), top_at(self.counter + 1), &[0; HEAD_BYTES])
    }

    /// Reads the table of `root`; `None` where there is no file, or none for this generation.
    pub(crate) fn read(
        files: &KeyFiles<'_>,
        root: &Root,
        keeper: &'static str,
    ) -> Result<Option<Self>, VaultError> {
        let path = files.path();
        let Some(file) = read(&path)? else { return Ok(None) };
        let mut worst = None;
        let mut found: Option<Box<Self>> = None;
        for top in tops(file.expose()).map(|top| open_top(top, file.expose(), files, root)) {
            match top {
                Top::Open(table) if found.as_ref().is_none_or(|f| f.counter < table.counter) => {
                    found = Some(table);
                }
                Top::Open(_) | Top::None | Top::Other => {}
                Top::Newer(found) => {
                    return Err(VaultError::NewerFormat { path, found, known: FORMAT });
                }
                Top::WrongRoot => worst = worst.or(Some(None)),
                Top::Damaged(what) => worst = Some(Some(what)),
            }
        }
        match (found, worst) {
            (Some(table), _) => Ok(Some(*table)),
            (None, Some(None)) => Err(VaultError::WrongRoot { path, keeper }),
            (None, Some(Some(what))) => Err(VaultError::Damaged { path, what, remedy: START_ANEW }),
            (None, None) => Ok(None),
        }
    }

    /// The generations whose tops stand in the file.
    pub(crate) fn generations(files: &KeyFiles<'_>) -> Result<Vec<u64>, VaultError> {
        let file = read(&files.path())?;
        let file = file.as_ref().map_or(&[][..], |file| file.expose());
        let generation = |top: &[u8]| {
            let rest = top.strip_prefix(MAGIC)?;
            Some(u64::from_be_bytes(*rest.get(2..)?.first_chunk()?))
        };
        Ok(tops(file).filter_map(generation).collect())
    }

    /// Intents that were written last: what a crash may have left to do. A write of them that was cut
    /// was never acknowledged.
    pub(crate) fn intents(&self, files: &KeyFiles<'_>) -> Result<Vec<Erasure>, VaultError> {
        let Some(file) = read(&files.path())? else { return Ok(Vec::new()) };
        let sealed = file.expose().get(INTENTS_AT..).and_then(without_length);
        let plain = sealed.and_then(|sealed| {
            self.marking.sealing().open(&files.aad(b"", "intents"), sealed).ok()
        });
        Ok(plain.and_then(|plain| erasures::decode(plain.expose())).unwrap_or_default())
    }

    /// Bytes of the table's file that are in use.
    pub(crate) fn bytes(&self) -> u64 {
        let top = self.pages.len() * (4 + SEED_BYTES) + self.terminals.len() * 65;
        (2 * top + self.slots as usize * PAGE_BYTES) as u64
    }

    /// What a page with these members holds once the change counts. Members keep their order, and
    /// newcomers stand at the end, so that one pass over the page in force is enough.
    fn rows_of(&self, change: &Change, number: u32, members: &[MemberId]) -> Secret<Vec<u8>> {
        let mut rows = Secret::new(Vec::with_capacity(members.len() * PERSON_BYTES));
        let held = self.pages.get(number as usize).map_or(&[][..], |page| page.rows.expose());
        let (held, _) = held.as_chunks::<PERSON_BYTES>();
        let mut held = held.iter();
        for member in members {
            let row = held.find(|row| row.starts_with(member.as_bytes()));
            let changed = change.people.get(member).and_then(Option::as_ref);
            match (changed, row) {
                (None, Some(row)) => rows.expose_mut().extend_from_slice(row),
                (None, None) => put_row(rows.expose_mut(), member, &self.people[member]),
                (Some(person), _) => put_row(rows.expose_mut(), member, person),
            }
        }
        rows
    }

    /// Notes that a column of a person is stored; the next change of the page writes it down.
    pub(crate) fn note_column(&mut self, member: &MemberId, bit: u16) {
        let Some(person) = self.people.get_mut(member).filter(|one| one.columns & bit == 0) else {
            return;
        };
        person.columns |= bit;
        let columns = person.columns.to_be_bytes();
        let Some(page) = self.pages.get_mut(person.page as usize) else { return };
        let (rows, _) = page.rows.expose_mut().as_chunks_mut::<PERSON_BYTES>();
        if let Some(row) = rows.iter_mut().find(|row| row.starts_with(member.as_bytes())) {
            row[16..18].copy_from_slice(&columns);
        }
    }

    fn sealed_top(
        &self,
        change: &Change,
        plan: &Plan,
        files: &KeyFiles<'_>,
        root: &Root,
    ) -> Result<Vec<u8>, VaultError> {
        let generation = root.generation().to_be_bytes();
        let plain = self.encode_top(change, plan);
        let length = HEAD_BYTES + plain.expose().len() + SEAL_BYTES;
        if length > TOP_BYTES {
            return Err(VaultError::TooLarge { what: "the key table", limit: TOP_BYTES });
        }
        let mut top = Vec::with_capacity(length);
        top.extend_from_slice(MAGIC);
        top.extend_from_slice(&FORMAT.to_be_bytes());
        top.extend_from_slice(&generation);
        top.extend_from_slice(&root.seed.check());
        let aad = files.aad(&generation, "keys");
        seal_with_length(&mut top, &root.seed.sealing(), &aad, plain.expose());
        Ok(top)
    }

    fn encode_top(&self, change: &Change, plan: &Plan) -> Secret<Vec<u8>> {
        let begun = change.begun.as_ref().unwrap_or(&self.begun);
        let pages = self.entries.bytes(plan.pages.len());
        let terminals = self.terminals.len() + change.terminals.len();
        // One allocation: a vector that grows would leave keys in freed memory.
        let mut secret = Secret::new(Vec::with_capacity(
            3 * SEED_BYTES + 64 + terminals * 65 + pages + begun.len() * 64,
        ));
        let out = secret.expose_mut();
        out.extend_from_slice(&(self.counter + 1).to_be_bytes());
        out.extend_from_slice(change.state.as_ref().unwrap_or(&self.state).expose());
        out.extend_from_slice(change.outbox.as_ref().unwrap_or(&self.outbox).expose());
        out.extend_from_slice(self.marking.expose());
        let tombstones = change.tombstones.unwrap_or(self.tombstones);
        out.extend_from_slice(&tombstones.count.to_be_bytes());
        out.extend_from_slice(&tombstones.chain);

        let kept = self.terminals.iter().filter(|(name, _)| !change.terminals.contains_key(name));
        let new = change.terminals.iter().filter_map(|(name, seed)| Some((name, seed.as_ref()?)));
        counted(out, kept.chain(new), |out, (name, seed)| {
            out.push(name.as_str().len() as u8);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(seed.expose());
        });
        out.extend_from_slice(&(begun.len() as u32).to_be_bytes());
        out.extend_from_slice(&erasures::encode(begun));
        self.entries.write(out, plan.pages.iter().map(|(number, page)| (*number, page)));
        secret
    }

    /// A table without its people, who are on the pages.
    fn decode_top(bytes: &[u8]) -> Option<Self> {
        let mut left = bytes;
        let counter = take_number(&mut left)?;
        let state = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let outbox = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let marking = Seed::from_slice(take(&mut left, SEED_BYTES)?)?;
        let count = take_number(&mut left)?;
        let chain = take(&mut left, 32)?.try_into().ok()?;
        let mut table = Self::new();
        for _ in 0..take_count(&mut left)? {
            let length = usize::from(take(&mut left, 1)?[0]);
            let name = std::str::from_utf8(take(&mut left, length)?).ok()?.parse().ok()?;
            table.terminals.insert(name, Seed::from_slice(take(&mut left, SEED_BYTES)?)?);
        }
        let begun = take_count(&mut left)?.checked_mul(erasures::BYTES)?;
        table.begun = erasures::decode(take(&mut left, begun)?)?;
        let pages = take_count(&mut left)?;
        let (entries, found) = PageEntries::decode(left)?;
        let used: HashSet<u32> = found.iter().map(|(slot, _)| *slot).collect();
        table.slots = used.iter().max().map_or(0, |last| last + 1);
        table.free = (0..table.slots).filter(|slot| !used.contains(slot)).collect();
        let page = |(slot, seed)| {
            let (members, rows) = (Vec::new(), Secret::new(Vec::new()));
            Page { slot: Some(slot), seed, members, rows }
        };
        table.pages = found.into_iter().map(page).collect();
        table.entries = entries;
        let tombstones = TombstoneHead { count, chain };
        let whole = table.pages.len() == pages;
        whole.then_some(Self { counter, state, outbox, marking, tombstones, ..table })
    }

    /// Takes in everybody on one page; `None` if it does not open or is malformed.
    pub(crate) fn read_page(
        &mut self,
        number: u32,
        sealed: &[u8],
        files: &KeyFiles<'_>,
    ) -> Option<()> {
        let page = &mut self.pages[number as usize];
        let aad = files.aad(&page.slot?.to_be_bytes(), "keys page");
        let plain = page.seed.sealing().open(&aad, without_length(sealed)?).ok()?;
        let (people, cut) = plain.expose().as_chunks::<PERSON_BYTES>();
        for one in people {
            let mut left = &one[..];
            let member = MemberId::from_random(take(&mut left, 16)?.try_into().ok()?);
            let columns = u16::from_be_bytes(take(&mut left, 2)?.try_into().ok()?);
            let seed = Seed::from_slice(left)?;
            page.members.push(member);
            self.people.insert(member, Person { seed, columns, page: number });
        }
        let whole = cut.is_empty();
        page.rows = plain;
        whole.then_some(())
    }

    /// Opens one of the two tops without its pages.
    #[cfg(test)]
    pub(crate) fn open_tops(file: &[u8], files: &KeyFiles<'_>, root: &Root) -> Vec<Self> {
        let open = |top: &[u8]| {
            let generation = top.strip_prefix(MAGIC)?.get(2..)?.first_chunk()?;
            let tried = root.numbered(u64::from_be_bytes(*generation));
            unseal_top(top, files, &tried).ok()
        };
        tops(file).filter_map(open).collect()
    }
}

pub(crate) fn put_row(rows: &mut Vec<u8>, member: &MemberId, person: &Person) {
    rows.extend_from_slice(member.as_bytes());
    rows.extend_from_slice(&person.columns.to_be_bytes());
    rows.extend_from_slice(person.seed.expose());
}

fn sealed_page(page: &Page, slot: u32, files: &KeyFiles<'_>) -> Part {
    let aad = files.aad(&slot.to_be_bytes(), "keys page");
    let mut bytes = Vec::with_capacity(PAGE_BYTES);
    seal_with_length(&mut bytes, &page.seed.sealing(), &aad, page.rows.expose());
    bytes.resize(PAGE_BYTES, 0);
    Part { offset: page_at(slot), bytes }
}

fn open_top(top: &[u8], file: &[u8], files: &KeyFiles<'_>, root: &Root) -> Top {
    let mut table = match unseal_top(top, files, root) {
        Ok(table) => table,
        Err(other) => return other,
    };
    table.people = HashMap::with_capacity(table.pages.len() * PAGE_PEOPLE);
    for number in 0..table.pages.len() as u32 {
        let slot = table.pages[number as usize].slot.unwrap_or_default();
        let page = file.get(page_at(slot) as usize..).unwrap_or_default();
        if table.read_page(number, page, files).is_none() {
            return Top::Damaged("a page does not open under its key");
        }
    }
    Top::Open(Box::new(table))
}

fn unseal_top(top: &[u8], files: &KeyFiles<'_>, root: &Root) -> Result<KeyTable, Top> {
    let Some((head, _)) = top.split_first_chunk::<HEAD_BYTES>() else {
        return Err(if top.is_empty() { Top::None } else { Top::Damaged("it is cut off") });
    };
    if head.iter().all(|byte| *byte == 0) {
        return Err(Top::None);
    }
    let Some(rest) = head.strip_prefix(MAGIC) else {
        return Err(Top::Damaged("its head is not known"));
    };
    let found = u16::from_be_bytes([rest[0], rest[1]]);
    if found != FORMAT {
        return Err(Top::Newer(found));
    }
    let generation = root.generation().to_be_bytes();
    if rest[2..10] != generation {
        return Err(Top::Other);
    }
    if rest[10..10 + CHECK_BYTES] != root.seed.check() {
        return Err(Top::WrongRoot);
    }
    let sealed = without_length(&top[HEAD_BYTES - 4..]).ok_or(Top::Damaged("it is cut off"))?;
    let plain = root.seed.sealing().open(&files.aad(&generation, "keys"), sealed);
    let plain = plain.map_err(|_| Top::Damaged("it does not open under its root"))?;
    KeyTable::decode_top(plain.expose()).ok_or(Top::Damaged("its contents are cut off"))
}

fn tops(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let top = |number: usize| {
        let start = (number * TOP_BYTES).min(file.len());
        &file[start..(start + TOP_BYTES).min(file.len())]
    };
    [top(0), top(1)].into_iter()
}

const fn top_at(counter: u64) -> u64 {
    counter % 2 * TOP_BYTES as u64
}

pub(crate) const fn page_at(slot: u32) -> u64 {
    (PAGES_AT + slot as usize * PAGE_BYTES) as u64
}

/// Appends the length of what is sealed, and that.
fn seal_with_length(to: &mut Vec<u8>, key: &Key, aad: &[u8], plain: &[u8]) {
    to.extend_from_slice(&((plain.len() + SEAL_BYTES) as u32).to_be_bytes());
    key.seal_onto(to, aad, plain);
}

fn without_length(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

/// Writes how many items there are, as four bytes, and the items.
pub(crate) fn counted<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for item in items {
        write(out, item);
        count += 1;
    }
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
}

pub(crate) fn take_count(left: &mut &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(take(left, 4)?.try_into().ok()?) as usize)
}

fn take_number(left: &mut &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(take(left, 8)?.try_into().ok()?))
}

pub(crate) fn take<'a>(left: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(taken)
}
