use crate::{
    Entry, HistoryError, LedgerError,
    entry::MAX_ENTRY_BYTES,
    files::{Layout, io},
    pruned::leaf_in,
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::PathBuf,
};

/// Entries in each file but the last.
pub const SEGMENT_ENTRIES: u64 = 10_000;

/// A place in the log as an editor shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) file: PathBuf,
    pub(crate) line: u64,
}

/// What stands at a place in the log.
pub(crate) enum Line<'a> {
    /// A line, without its line feed.
    Whole(&'a [u8]),
    /// Bytes that are no line: no line feed at the end of the file, or too long.
    Broken,
}

/// Reads the lines of all segments in order.
pub(crate) struct Lines {
    layout: Layout,
    segments: u64,
    next_segment: u64,
    reader: Option<BufReader<File>>,
    /// Number of the line read last in the current segment, from 1.
    line: u64,
    /// Where the last line read starts in its segment, and where the next one does.
    start: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// # Errors
    /// [`HistoryError`] when the directory has anything but consecutive segments.
    pub(crate) fn open(layout: &Layout) -> Result<Self, HistoryError> {
        let segments = count_segments(layout)?;
        Ok(Self {
            layout: layout.clone(),
            segments,
            next_segment: 0,
            reader: None,
            line: 0,
            start: 0,
            end: 0,
            buffer: Vec::with_capacity(MAX_ENTRY_BYTES + 1),
        })
    }

    /// Starts at the entry `index` instead of the first; a log that ends before it has no lines.
    pub(crate) fn skip_to(&mut self, index: u64) -> Result<(), HistoryError> {
        self.next_segment = index / SEGMENT_ENTRIES;
        for _ in 0..index % SEGMENT_ENTRIES {
            if self.next()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Place of the line read last, or of the first one that is missing.
    pub(crate) fn location(&self) -> Location {
        let segment = self.current_segment();
        Location { file: self.layout.segment(segment), line: self.line.max(1) }
    }

    pub(crate) const fn current_segment(&self) -> u64 {
        self.next_segment.saturating_sub(1)
    }

    /// Where the line read last starts in its segment.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Where the line read last ends.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Number of segment files.
    pub(crate) const fn segments(&self) -> u64 {
        self.segments
    }

    /// The next line; `None` at the end of the log.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, HistoryError> {
        loop {
            if self.reader.is_none() && !self.open_next()? {
                self.line += 1;
                return Ok(None);
            }
            let read = self.fill()?;
            let last = self.next_segment == self.segments;
            if read == 0 && (self.line == SEGMENT_ENTRIES || last) {
                self.reader = None;
                continue;
            }
            self.line += 1;
            self.start = self.end;
            self.end += read;
            let fits = self.line <= SEGMENT_ENTRIES && read > 0;
            return Ok(Some(match self.buffer.strip_suffix(b"\n") {
                Some(line) if fits => Line::Whole(line),
                _ => Line::Broken,
            }));
        }
    }

    fn open_next(&mut self) -> Result<bool, HistoryError> {
        if self.next_segment >= self.segments {
            return Ok(false);
        }
        let path = self.layout.segment(self.next_segment);
        let file = File::open(&path).map_err(io("open", &path))?;
        self.reader = Some(BufReader::with_capacity(1 << 17, file));
        self.next_segment += 1;
        (self.line, self.start, self.end) = (0, 0, 0);
        Ok(true)
    }

    fn fill(&mut self) -> Result<u64, HistoryError> {
        self.buffer.clear();
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let limit = MAX_ENTRY_BYTES as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        let path = self.layout.segment(self.next_segment - 1);
        Ok(read.map_err(io("read", &path))? as u64)
    }
}

fn count_segments(layout: &Layout) -> Result<u64, HistoryError> {
    let dir = layout.entries();
    let mut found = Vec::new();
    for file in fs::read_dir(&dir).map_err(io("list", &dir))? {
        found.push(file.map_err(io("list", &dir))?.path());
    }
    found.sort_by(|a, b| (a.as_os_str().len(), a).cmp(&(b.as_os_str().len(), b)));
    for (number, path) in found.iter().enumerate() {
        let expected = layout.segment(number as u64);
        if *path != expected {
            return Err(HistoryError::Files { expected, found: path.clone() });
        }
    }
    Ok(found.len() as u64)
}

/// The entries of a range, in order, read from the files as they are asked for. Pruned ones are passed
/// over.
pub struct Entries {
    lines: Lines,
    next: u64,
    end: u64,
}

impl Entries {
    pub(crate) fn new(layout: &Layout, start: u64, end: u64) -> Result<Self, LedgerError> {
        let mut lines = Lines::open(layout)?;
        lines.skip_to(start)?;
        Ok(Self { lines, next: start, end })
    }

    /// The line of the next entry.
    pub(crate) fn line(&mut self) -> Result<&[u8], LedgerError> {
        // The location is only known after the line was read, and the line is still lent then.
        match self.lines.next() {
            Ok(Some(Line::Whole(_))) => {}
            Ok(_) => return Err(HistoryError::missing(self.lines.location(), self.end).into()),
            Err(error) => return Err(error.into()),
        }
        Ok(self.lines.buffer.strip_suffix(b"\n").unwrap_or_default())
    }

    /// The next entry; `None` for a pruned one.
    fn read(&mut self) -> Result<Option<(u64, Entry)>, LedgerError> {
        let line = self.line()?;
        if leaf_in(line).is_some() {
            return Ok(None);
        }
        let entry = Entry::parse(line);
        let location = self.lines.location();
        let entry = entry.map_err(|source| HistoryError::entry(location, source))?;
        Ok(Some((self.next, entry)))
    }
}

impl Iterator for Entries {
    type Item = Result<(u64, Entry), LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let read = self.read();
            // Nothing after a failure: the place in the file is uncertain.
            self.next = if read.is_ok() { self.next + 1 } else { self.end };
            if let Some(read) = read.transpose() {
                return Some(read);
            }
        }
        None
    }
}
