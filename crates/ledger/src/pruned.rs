//! Entries whose time is up: of their lines only the hash stays, so that every proof over the others
//! still holds.

use crate::{
    Hash,
    files::{FileError, Layout, io, sync_dir},
    merkle::leaf_hash,
};
use data_encoding::HEXLOWER;
use std::{
    fs::{self, File},
    io::Write,
};

const BEFORE: &[u8] = b"{\"pruned\":\"";
const BEHIND: &[u8] = b"\"}";

/// The line that stands for a pruned one.
pub(crate) fn line_of(leaf: &Hash) -> Vec<u8> {
    [BEFORE, HEXLOWER.encode(leaf).as_bytes(), BEHIND].concat()
}

/// The leaf hash in the line of a pruned entry; `None` for any other line.
pub(crate) fn leaf_in(line: &[u8]) -> Option<Hash> {
    let hex = line.strip_prefix(BEFORE)?.strip_suffix(BEHIND)?;
    HEXLOWER.decode(hex).ok()?.try_into().ok()
}

/// The leaf hash of a line, whether its entry is there or pruned.
pub(crate) fn leaf_of(line: &[u8]) -> Hash {
    leaf_in(line).unwrap_or_else(|| leaf_hash(line))
}

/// A segment with some of its lines pruned, durably in the place of the one before.
pub(crate) fn replace_segment(
    layout: &Layout,
    number: u64,
    lines: &[Vec<u8>],
) -> Result<u64, FileError> {
    let text: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
    // Not among the segments: nothing else may lie there after a crash.
    let (draft, path) = (layout.dir().join("segment.new"), layout.segment(number));
    let mut file = File::create(&draft).map_err(io("create", &draft))?;
    file.write_all(&text).map_err(io("write", &draft))?;
    file.sync_all().map_err(io("make durable", &draft))?;
    fs::rename(&draft, &path).map_err(io("put in place", &path))?;
    sync_dir(&layout.entries())?;
    Ok(text.len() as u64)
}
