//! What makes reading single entries cheap. Nothing here is trusted: an entry is checked against the
//! tree.

use crate::{
    HistoryError, LedgerError,
    entry::MAX_ENTRY_BYTES,
    files::{Layout, io},
    lines::{Location, SEGMENT_ENTRIES},
};
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt};

const READ_BYTES: usize = 1 << 16;
/// Segments whose places are kept: 40 KiB each.
const SEGMENTS: usize = 256;

/// Where lines begin.
#[derive(Default)]
pub(crate) struct Places(BTreeMap<u64, Segment>);

struct Segment {
    file: File,
    /// Where each whole line begins that was found so far, and where the last of them ends.
    starts: Vec<u32>,
    /// Where looking goes on.
    end: u64,
}

/// The place of an entry as an editor shows it.
pub(crate) fn place_of(layout: &Layout, index: u64) -> Location {
    let file = layout.segment(index / SEGMENT_ENTRIES);
    Location { file, line: index % SEGMENT_ENTRIES + 1 }
}

impl Places {
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
        if !self.0.contains_key(&number) {
            if self.0.len() >= SEGMENTS {
                self.0.pop_first();
            }
            let file = File::open(layout.segment(number)).map_err(failed("open"))?;
            self.0.insert(number, Segment { file, starts: vec![0], end: 0 });
        }
        let segment = self.0.get_mut(&number).expect("it was just put in");
        let line = line as usize;
        let (start, end) = loop {
            if let [start, end, ..] = segment.starts[line.min(segment.starts.len())..] {
                break (start, end);
            }
            if !segment.look_on().map_err(failed("read"))? {
                return Err(missing().into());
            }
        };
        // Another hand may have changed the file since it was looked through.
        let length = (end.saturating_sub(start) as usize).min(MAX_ENTRY_BYTES + 1);
        let mut text = vec![0; length];
        let read = segment.file.read_at(&mut text, start.into()).map_err(failed("read"))?;
        if read < length || text.pop() != Some(b'\n') {
            return Err(missing().into());
        }
        Ok(text)
    }
}

impl Segment {
    /// Looks through more of the file; `false` at its end.
    fn look_on(&mut self) -> std::io::Result<bool> {
        let mut text = vec![0; READ_BYTES];
        let length = self.file.read_at(&mut text, self.end)?;
        for at in memchr::memchr_iter(b'\n', &text[..length]) {
            let start = self.end + at as u64 + 1;
            // No whole segment is as long: what is behind is no entry, and is not found.
            self.starts.push(u32::try_from(start).unwrap_or(u32::MAX));
        }
        self.end += length as u64;
        Ok(length > 0)
    }
}
