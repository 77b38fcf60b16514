use crate::RowId;
use std::{cmp::Ordering, collections::BinaryHeap};

/// A row that a search found. Not printable: scores belong in no log. Ordered from best to worst:
/// larger cosines first, then row numbers.
#[derive(Clone, Copy)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// The cosine of the row and the probe.
    pub cosine: f32,
    /// Where the row stands in its shard.
    pub(crate) position: u32,
    /// Which of the rows that stood there it is.
    pub(crate) generation: u32,
}

impl Hit {
    /// Behind every row.
    pub(crate) const NONE: Self =
        Self { row: RowId(u64::MAX), cosine: -2.0, position: 0, generation: 0 };
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hit {}

/// Hits that memory is taken for at once.
const MOST_AT_ONCE: usize = 256;

/// The best few of many.
pub(crate) struct Best {
    limit: usize,
    worst_first: BinaryHeap<Hit>,
}

impl Best {
    pub(crate) fn of(limit: usize) -> Self {
        // A probe without a match takes as much memory as one with many.
        Self { limit, worst_first: BinaryHeap::with_capacity(limit.min(MOST_AT_ONCE)) }
    }

    /// The least score that may still get in: lets a scan skip rows without a look at the heap.
    pub(crate) fn bar(&self) -> f32 {
        if self.worst_first.len() < self.limit {
            return f32::NEG_INFINITY;
        }
        self.worst_first.peek().map_or(f32::INFINITY, |worst| worst.cosine)
    }

    pub(crate) fn offer(&mut self, hit: Hit) {
        if self.worst_first.len() < self.limit {
            self.worst_first.push(hit);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    pub(crate) fn into_sorted(self) -> Vec<Hit> {
        self.worst_first.into_sorted_vec()
    }
}
