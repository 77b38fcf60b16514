//! What the top of the key table says of its pages: a slot and a key for each, side by side, so that a
//! new top is a copy with a few of them changed.

use palmgate_protocol::Secret;

use crate::keys::{Page, SEED_BYTES, Seed};

const ENTRY_BYTES: usize = 4 + SEED_BYTES;
/// Stands in the place of a page without people, which is not written.
const NO_SLOT: [u8; 4] = [0xff; 4];

/// The entries by the pages' numbers.
pub(crate) struct PageEntries(Secret<Vec<u8>>);

impl Default for PageEntries {
    fn default() -> Self {
        Self(Secret::new(Vec::new()))
    }
}

impl PageEntries {
    /// What stands in a top: `None` where one is cut off or named a slot that no page has.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, Vec<(u32, Seed)>)> {
        let (entries, cut) = bytes.as_chunks::<ENTRY_BYTES>();
        let page = |entry: &[u8; ENTRY_BYTES]| {
            let (slot, seed) = entry.split_first_chunk()?;
            (*slot != NO_SLOT).then_some((u32::from_be_bytes(*slot), Seed::from_slice(seed)?))
        };
        let pages = entries.iter().map(page).collect::<Option<_>>()?;
        cut.is_empty().then(|| (Self(Secret::new(bytes.to_vec())), pages))
    }

    /// Notes a page, in the place of what had its number.
    pub(crate) fn set(&mut self, number: u32, page: &Page) {
        let end = (number as usize + 1) * ENTRY_BYTES;
        if end > self.0.expose().capacity() {
            // A vector that grew by itself would leave keys in freed memory.
            let mut larger = Secret::new(Vec::with_capacity(2 * end));
            larger.expose_mut().extend_from_slice(self.0.expose());
            self.0 = larger;
        }
        put(self.0.expose_mut(), 0, number, page);
    }

    /// Bytes that [`write`](Self::write) takes at most, with so many pages changed.
    pub(crate) fn bytes(&self, changed: usize) -> usize {
        4 + self.0.expose().len() + changed * ENTRY_BYTES
    }

    /// Appends how many pages there are, and their entries, with these changed; pages without people
    /// are left out.
    pub(crate) fn write<'a>(
        &self,
        to: &mut Vec<u8>,
        changed: impl Iterator<Item = (u32, &'a Page)>,
    ) {
        let count_at = to.len();
        let begin = count_at + 4;
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(self.0.expose());
        for (number, page) in changed {
            put(to, begin, number, page);
        }
        let mut kept = begin;
        for at in (begin..to.len()).step_by(ENTRY_BYTES) {
            if !to[at..].starts_with(&NO_SLOT) {
                if at != kept {
                    to.copy_within(at..at + ENTRY_BYTES, kept);
                }
                kept += ENTRY_BYTES;
            }
        }
        // What is cut off here lies behind the end of a secret, which is wiped as a whole.
        to.truncate(kept);
        let count = ((kept - begin) / ENTRY_BYTES) as u32;
        to[count_at..begin].copy_from_slice(&count.to_be_bytes());
    }
}

/// Puts the entry of a page among those that begin at `begin`, or behind the last of them.
fn put(to: &mut Vec<u8>, begin: usize, number: u32, page: &Page) {
    let at = begin + number as usize * ENTRY_BYTES;
    let end = at + ENTRY_BYTES;
    if to.len() < end {
        to.resize(end, NO_SLOT[0]);
    }
    let (slot, seed) = to[at..end].split_at_mut(NO_SLOT.len());
    slot.copy_from_slice(&page.slot.map_or(NO_SLOT, u32::to_be_bytes));
    seed.copy_from_slice(page.seed.expose());
}
