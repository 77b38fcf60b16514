//! Memory in huge pages where the system grants them.
#![allow(unsafe_code, reason = "one advice that the mapping's own library does not know")]

use memmap2::MmapMut;

/// Bytes of a huge page on x86-64, and on aarch64 with 4 KiB pages.
const HUGE: usize = 2 << 20;

/// Zeroed memory that begins at a huge page's boundary, is left out of core dumps, and takes
/// physical memory as it is written. It is as good in plain pages, only slower to scan.
pub(crate) struct Pages {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Pages {
    pub(crate) fn new(len: usize) -> std::io::Result<Self> {
        let map = MmapMut::map_anon(len + HUGE)?;
        let start = map.as_ptr().align_offset(HUGE);
        let pages = Self { map, start, len };
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            // A kernel built without either refuses, and the memory serves all the same.
            let _ = pages.map.advise_range(memmap2::Advice::HugePage, start, len);
            let _ = pages.map.advise_range(memmap2::Advice::DontDump, start, len);
        }
        Ok(pages)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.len]
    }

    /// Has the huge pages of `range`, bytes from the beginning, put together now; how many of them
    /// stand, and out of how many. The kernel answers success for a page that is huge already, so
    /// this also verifies.
    pub(crate) fn collapse(&self, range: std::ops::Range<usize>) -> (usize, usize) {
        let pages = range.start / HUGE..range.end.div_ceil(HUGE).min(self.len / HUGE);
        let all = pages.len();
        (pages.filter(|page| self.collapse_one(*page)).count(), all)
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn collapse_one(&self, page: usize) -> bool {
        /// Since Linux 6.1.
        const MADV_COLLAPSE: libc::c_int = 25;
        let page = &self.bytes()[page * HUGE..][..HUGE];
        // SAFETY: the range is part of a private anonymous mapping that `self` keeps alive, and
        // the advice moves its physical pages without a change to what they hold.
        let done = unsafe { libc::madvise(page.as_ptr().cast_mut().cast(), HUGE, MADV_COLLAPSE) };
        done == 0
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    fn collapse_one(&self, _: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_keeps_what_is_written_while_it_moves() {
        let mut pages = Pages::new(2 * HUGE + 4096).unwrap();
        assert_eq!(pages.bytes().as_ptr().align_offset(HUGE), 0);
        assert!(pages.bytes().iter().step_by(1021).all(|byte| *byte == 0));
        pages.bytes_mut()[HUGE - 1..=HUGE].copy_from_slice(&[3, 4]);
        let (huge, all) = pages.collapse(0..HUGE + 1);
        assert!(huge <= all && all == 2, "{huge} of {all}");
        assert_eq!(pages.bytes()[HUGE - 1..=HUGE], [3, 4]);
    }
}
