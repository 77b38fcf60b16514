//! What makes reading single entries and proofs cheap. Nothing here is trusted: an entry is checked
//! against the tree, a tile against its root.

use crate::{
    HistoryError, LedgerError,
    entry::MAX_ENTRY_BYTES,
    files::{Layout, io},
    lines::{Location, SEGMENT_ENTRIES},
    tree::Tile,
};
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt, sync::Arc};

/// Lines between two places that are remembered.
const STRIDE: u64 = 4;
const READ_BYTES: usize = 1 << 16;
/// Tiles that are kept: 4 KiB each.
const TILES: usize = 2_048;
/// Segments whose places are kept: 10 KiB each.
const SEGMENTS: usize = 256;

/// Where lines begin, and tiles that were read.
#[derive(Default)]
pub(crate) struct Places {
    segments: BTreeMap<u64, Segment>,
    tiles: BTreeMap<u64, Arc<Tile>>,
}

struct Segment {
    file: File,
    /// Where each `STRIDE`th line begins, as far as the file was looked through.
    starts: Vec<u32>,
    lines: u64,
    end: u64,
}

/// The place of an entry as an editor shows it.
pub(crate) fn place_of(layout: &Layout, index: u64) -> Location {
    let file = layout.segment(index / SEGMENT_ENTRIES);
    Location { file, line: index % SEGMENT_ENTRIES + 1 }
}

impl Places {
    pub(crate) fn tile(&self, number: u64) -> Option<Arc<Tile>> {
        self.tiles.get(&number).cloned()
    }

    pub(crate) fn keep(&mut self, number: u64, tile: &Arc<Tile>) {
        if self.tiles.len() >= TILES {
            self.tiles.pop_first();
        }
        self.tiles.insert(number, Arc::clone(tile));
    }

    /// The line of an entry, without its line feed; `size` entries are signed.
    pub(crate) fn line(
        &mut self,
        layout: &Layout,
        index: u64,
        size: u64,
    ) -> Result<Vec<u8>, LedgerError> {
        let (number, line) = (index / SEGMENT_ENTRIES, index % SEGMENT_ENTRIES);
        let failed = |action| move |error| io(action, &layout.segment(number))(error);
        let missing = || HistoryError::missing(place_of(layout, index), size);
        if !self.segments.contains_key(&number) {
            if self.segments.len() >= SEGMENTS {
                self.segments.pop_first();
            }
            let file = File::open(layout.segment(number)).map_err(failed("open"))?;
            self.segments.insert(number, Segment { file, starts: vec![0], lines: 0, end: 0 });
        }
        let segment = self.segments.get_mut(&number).expect("it was just put in");
        while segment.lines <= line {
            if !segment.look_on().map_err(failed("read"))? {
                return Err(missing().into());
            }
        }
        let place = (line / STRIDE) as usize;
        let start = segment.starts[place];
        let end = segment.starts.get(place + 1).map_or(segment.end, |next| u64::from(*next));
        // What is behind the last line that was looked at may be half a line.
        let bytes = usize::try_from(end.saturating_sub(start.into())).unwrap_or(usize::MAX);
        let mut text = [0; STRIDE as usize * (MAX_ENTRY_BYTES + 1)];
        let text = &mut text[..bytes.min(STRIDE as usize * (MAX_ENTRY_BYTES + 1))];
        let length = segment.file.read_at(text, start.into()).map_err(failed("read"))?;
        let mut ends = memchr::memchr_iter(b'\n', &text[..length]);
        let begins = match line % STRIDE {
            0 => Some(0),
            nth => ends.nth(nth as usize - 1).map(|end| end + 1),
        };
        let (begin, end) = begins.zip(ends.next()).ok_or_else(missing)?;
        Ok(text[begin..end].to_vec())
    }
}

impl Segment {
    /// Looks through more of the file; `false` at its end.
    fn look_on(&mut self) -> std::io::Result<bool> {
        let mut text = vec![0; READ_BYTES];
        let length = self.file.read_at(&mut text, self.end)?;
        for at in memchr::memchr_iter(b'\n', &text[..length]) {
            self.lines += 1;
            if self.lines.is_multiple_of(STRIDE) {
                let start = self.end + at as u64 + 1;
                // No whole segment is as long: what is behind is no entry, and is not found.
                self.starts.push(u32::try_from(start).unwrap_or(u32::MAX));
            }
        }
        self.end += length as u64;
        Ok(length > 0)
    }
}
