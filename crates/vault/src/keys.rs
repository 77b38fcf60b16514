//! The key table: every key of the box, as it is in memory. [`crate::table`] has its file.
//!
//! People are spread over pages. A page is sealed under a key of its own, which stands in the top,
//! and the top is sealed under the root: whoever loses the root loses all, and a change of one person
//! touches one page and the top.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use palmgate_protocol::{MemberId, Name, Secret};
use palmgate_seal::{aead::Key, random};
use ring::hmac;

use crate::{erasures::Erasure, page_entries::PageEntries, tombstones::Mark};

/// The format of a vault's directory, and of its key table.
pub const FORMAT: u16 = 2;
/// The format of a sealed row, session or letter; the first one still holds.
pub(crate) const ROW_FORMAT: u16 = 1;

pub(crate) const CHECK_BYTES: usize = 8;
pub(crate) const SEED_BYTES: usize = 32;

/// A random 256-bit secret that other keys are derived from. Boxed, so that growing a table leaves
/// no copies in freed memory.
pub(crate) struct Seed(Box<Secret<[u8; SEED_BYTES]>>);

impl Seed {
    pub(crate) fn generate() -> Self {
        Self(Box::new(Secret::new(random::bytes())))
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Box::new(Secret::new(bytes.try_into().ok()?))))
    }

    pub(crate) const fn expose(&self) -> &[u8; SEED_BYTES] {
        self.0.expose()
    }

    /// Both keys of what this seed owns: the one that seals and the one that hashes.
    pub(crate) fn keys(&self) -> (Key, Hashing) {
        let key = self.deriving();
        let hashing = Hashing(hmac::Key::new(hmac::HMAC_SHA256, &derive(&key, "hashing")));
        (Key::from_bytes(derive(&key, "sealing")), hashing)
    }

    /// The key that seals what this seed owns.
    pub(crate) fn sealing(&self) -> Key {
        Key::from_bytes(derive(&self.deriving(), "sealing"))
    }

    /// The key that hashes names, so that places in the record store and tombstones say nothing.
    pub(crate) fn hashing(&self) -> Hashing {
        Hashing(hmac::Key::new(hmac::HMAC_SHA256, &derive(&self.deriving(), "hashing")))
    }

    /// Says whether a file was sealed under this seed, and nothing else about it.
    pub(crate) fn check(&self) -> [u8; CHECK_BYTES] {
        *derive(&self.deriving(), "check").first_chunk().expect("a hash is longer")
    }

    fn deriving(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.expose())
    }
}

fn derive(key: &hmac::Key, label: &str) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    context.update(b"palmgate vault 1 ");
    context.update(label.as_bytes());
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

/// HMAC-SHA-256 (RFC 2104), cut to 128 bits.
pub(crate) struct Hashing(hmac::Key);

impl Hashing {
    pub(crate) fn hash(&self, name: &[u8]) -> [u8; 16] {
        *hmac::sign(&self.0, name).as_ref().first_chunk().expect("a hash is longer")
    }
}

/// What the table knows about a person.
pub(crate) struct Person {
    pub(crate) seed: Seed,
    /// The columns known to be stored, one bit each; a row that is missing here is damage.
    pub(crate) columns: u16,
    /// The page that has the person; given by the table.
    pub(crate) page: u32,
}

impl Person {
    pub(crate) const fn new(seed: Seed, columns: u16) -> Self {
        Self { seed, columns, page: u32::MAX }
    }
}

/// Some of the people, sealed together.
pub(crate) struct Page {
    /// Where in the file; `None` for a page without people.
    pub(crate) slot: Option<u32>,
    /// Seals the page; new with every change of it.
    pub(crate) seed: Seed,
    pub(crate) members: Vec<MemberId>,
    /// What is sealed: the members' rows side by side, so that a change of one finds the others without
    /// looking each up. Made when the page is written.
    pub(crate) rows: Secret<Vec<u8>>,
}

/// How many tombstones there are, and the hash chain over them: the tombstone file cannot be
/// rolled back without the table, nor the table without the root.
#[derive(Clone, Copy)]
pub(crate) struct TombstoneHead {
    pub(crate) count: u64,
    pub(crate) chain: [u8; 32],
}

/// Every key of the box.
pub(crate) struct KeyTable {
    pub(crate) people: HashMap<MemberId, Person>,
    pub(crate) pages: Vec<Page>,
    /// What the top says of the pages.
    pub(crate) entries: PageEntries,
    /// Slots below `slots` that no page has.
    pub(crate) free: BTreeSet<u32>,
    pub(crate) slots: u32,
    /// How often the table was written; tells which of two tops is the later one.
    pub(crate) counter: u64,
    pub(crate) terminals: BTreeMap<Name, Seed>,
    /// Seals store-level state; changes with the root.
    pub(crate) state: Seed,
    /// Seals the outbox; changes with the root unless too much waits there.
    pub(crate) outbox: Seed,
    /// Hashes tombstones and seals intents; lives as long as the box.
    pub(crate) marking: Seed,
    pub(crate) tombstones: TombstoneHead,
    /// Erasures that are begun and not yet in the ledger.
    pub(crate) begun: Vec<Erasure>,
}

/// What the next table on disk has otherwise than the one in memory. A key that goes is `None`.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) people: HashMap<MemberId, Option<Person>>,
    pub(crate) terminals: BTreeMap<Name, Option<Seed>>,
    pub(crate) state: Option<Seed>,
    pub(crate) outbox: Option<Seed>,
    pub(crate) tombstones: Option<TombstoneHead>,
    /// The tombstones that the new head has more than the one before.
    pub(crate) marks: Vec<[Mark; 2]>,
    pub(crate) begun: Option<Vec<Erasure>>,
    /// Writes every page anew.
    pub(crate) all_pages: bool,
}

/// The pages that a change rewrites, as they are once it counts.
#[derive(Default)]
pub(crate) struct Plan {
    /// By their place among the table's pages; beyond the last for new ones.
    pub(crate) pages: BTreeMap<u32, Page>,
    /// Who is new, and on which page.
    pub(crate) placed: Vec<(MemberId, u32)>,
}

impl KeyTable {
    /// A table for a box that stores nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            people: HashMap::new(),
            pages: Vec::new(),
            entries: PageEntries::default(),
            free: BTreeSet::new(),
            slots: 0,
            counter: 0,
            terminals: BTreeMap::new(),
            state: Seed::generate(),
            outbox: Seed::generate(),
            marking: Seed::generate(),
            tombstones: TombstoneHead { count: 0, chain: [0; 32] },
            begun: Vec::new(),
        }
    }

    /// Which pages a change touches, who of the newcomers goes where, and which slots they take: none
    /// that the table in force has. `room` people fit on a page.
    pub(crate) fn plan(&self, change: &Change, room: usize) -> Plan {
        let mut members: BTreeMap<u32, Vec<MemberId>> = BTreeMap::new();
        let of = |page: u32| self.pages[page as usize].members.clone();
        if change.all_pages {
            members.extend((0..self.pages.len() as u32).map(|page| (page, of(page))));
        }
        let mut new = Vec::new();
        for (member, person) in &change.people {
            match (self.people.get(member), person) {
                (Some(held), person) => {
                    let list = members.entry(held.page).or_insert_with(|| of(held.page));
                    if person.is_none() {
                        list.retain(|one| one != member);
                    }
                }
                (None, Some(_)) => new.push(*member),
                (None, None) => {}
            }
        }
        let placed = self.place(&mut members, new, room);
        let mut free = self.free.iter().copied().chain(self.slots..);
        let page = |(page, members): (u32, Vec<MemberId>)| {
            let slot = if members.is_empty() { None } else { free.next() };
            let rows = Secret::new(Vec::new());
            (page, Page { slot, seed: Seed::generate(), members, rows })
        };
        Plan { pages: members.into_iter().map(page).collect(), placed }
    }

    /// Fills the pages that are written anyway, then the emptiest others, then new ones.
    fn place(
        &self,
        members: &mut BTreeMap<u32, Vec<MemberId>>,
        mut new: Vec<MemberId>,
        room: usize,
    ) -> Vec<(MemberId, u32)> {
        let mut placed = Vec::with_capacity(new.len());
        let mut fill = |page: u32, list: &mut Vec<MemberId>, new: &mut Vec<MemberId>| {
            let some = new.split_off(new.len() - new.len().min(room.saturating_sub(list.len())));
            placed.extend(some.iter().map(|member| (*member, page)));
            list.extend(some);
        };
        for (page, list) in members.iter_mut() {
            fill(*page, list, &mut new);
        }
        if new.is_empty() {
            return placed;
        }
        let mut others: Vec<(usize, u32)> = (0..self.pages.len() as u32)
            .filter(|page| !members.contains_key(page))
            .map(|page| (self.pages[page as usize].members.len(), page))
            .filter(|(held, _)| *held < room)
            .collect();
        others.sort_unstable();
        let beyond = self.pages.len() as u32..;
        for page in others.into_iter().map(|(_, page)| page).chain(beyond) {
            if new.is_empty() {
                break;
            }
            let held = self.pages.get(page as usize);
            let mut list = held.map(|page| page.members.clone()).unwrap_or_default();
            fill(page, &mut list, &mut new);
            members.insert(page, list);
        }
        placed
    }

    /// Makes in memory the change that is durable on disk. Replaced keys are wiped, but for those of
    /// state and outbox, which are given back to find what they sealed.
    pub(crate) fn apply(&mut self, change: Change, plan: Plan) -> Vec<Seed> {
        self.counter += 1;
        for (member, person) in change.people {
            match person {
                Some(mut person) => {
                    person.page = self.people.get(&member).map_or(u32::MAX, |held| held.page);
                    self.people.insert(member, person)
                }
                None => self.people.remove(&member),
            };
        }
        for (member, page) in plan.placed {
            if let Some(person) = self.people.get_mut(&member) {
                person.page = page;
            }
        }
        let mut freed = Vec::new();
        for (number, page) in plan.pages {
            self.entries.set(number, &page);
            if let Some(slot) = page.slot {
                self.free.remove(&slot);
                self.free.extend(self.slots..slot);
                self.slots = self.slots.max(slot + 1);
            }
            match self.pages.get_mut(number as usize) {
                Some(held) => freed.extend(mem::replace(held, page).slot),
                None => self.pages.push(page),
            }
        }
        self.free.extend(freed);
        for (terminal, seed) in change.terminals {
            match seed {
                Some(seed) => self.terminals.insert(terminal, seed),
                None => self.terminals.remove(&terminal),
            };
        }
        self.tombstones = change.tombstones.unwrap_or(self.tombstones);
        self.begun = change.begun.unwrap_or_else(|| mem::take(&mut self.begun));
        let state = change.state.map(|new| mem::replace(&mut self.state, new));
        let outbox = change.outbox.map(|new| mem::replace(&mut self.outbox, new));
        state.into_iter().chain(outbox).collect()
    }
}
