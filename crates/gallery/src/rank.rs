use crate::RowId;
use std::{cmp::Ordering, collections::BinaryHeap};

/// A row with a score so far. Ordered from best to worst: larger scores first, then row numbers.
#[derive(Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) score: f32,
    pub(crate) row: RowId,
    /// Where the row stands in its compartment.
    pub(crate) position: usize,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// The best few of many.
pub(crate) struct Best {
    limit: usize,
    worst_first: BinaryHeap<Ranked>,
}

impl Best {
    pub(crate) fn of(limit: usize) -> Self {
        Self { limit, worst_first: BinaryHeap::new() }
    }

    /// The least score that may still get in: lets a scan skip rows without a look at the heap.
    pub(crate) fn bar(&self) -> f32 {
        if self.worst_first.len() < self.limit {
            return f32::NEG_INFINITY;
        }
        self.worst_first.peek().map_or(f32::INFINITY, |worst| worst.score)
    }

    pub(crate) fn offer(&mut self, ranked: Ranked) {
        if self.worst_first.len() < self.limit {
            self.worst_first.push(ranked);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
    }

    pub(crate) fn into_sorted(self) -> impl Iterator<Item = Ranked> {
        self.worst_first.into_sorted_vec().into_iter()
    }
}
