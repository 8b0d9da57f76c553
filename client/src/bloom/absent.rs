//! Items that are surely absent, as the cluster said, for as long as that may be repeated.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::level::Mark;

/// The longest item whose absence is kept; longer ones are asked for each time.
const ITEM_BYTES_MAX: usize = 256;

/// Keeps answers, up to a number, the newest. Any thread may use it at any time.
///
/// Items are kept whole and not as hashes: two that share one would deny each other.
#[derive(Debug)]
pub(super) struct Absent {
    kept: Mutex<Kept>,
    half_count_max: usize,
}

/// Two halves: when the newer one is full, it becomes the older one, and what that had is forgotten.
#[derive(Debug, Default)]
struct Kept {
    /// Grows when this process begins to add, and when it has added.
    adds_count: u64,
    newer: HashMap<Bytes, Mark>,
    older: HashMap<Bytes, Mark>,
}

/// From before a question was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    adds_count: u64,
}

impl Absent {
    pub(super) fn new(count_max: usize) -> Self {
        Self { kept: Mutex::default(), half_count_max: count_max / 2 }
    }

    pub(super) fn look(&self, item: &[u8]) -> Option<Mark> {
        let kept = self.kept.lock();
        kept.newer.get(item).or_else(|| kept.older.get(item)).copied()
    }

    /// A question is about to be sent.
    pub(super) fn asked(&self) -> Asked {
        Asked { adds_count: self.kept.lock().adds_count }
    }

    /// These are absent, as the answer says; nothing is kept if this process has added something since the question.
    pub(super) fn keep(&self, asked: Asked, items: impl IntoIterator<Item = Bytes>, mark: Mark) {
        let mut kept = self.kept.lock();
        if kept.adds_count != asked.adds_count || self.half_count_max == 0 {
            return;
        }
        for item in items.into_iter().filter(|item| item.len() <= ITEM_BYTES_MAX) {
            if kept.newer.len() >= self.half_count_max {
                kept.older = std::mem::take(&mut kept.newer);
            }
            kept.newer.insert(item, mark);
        }
    }

    /// This process adds these, or has added them.
    pub(super) fn adds(&self, items: &[Bytes]) {
        let mut kept = self.kept.lock();
        kept.adds_count += 1;
        for item in items {
            kept.newer.remove(item);
            kept.older.remove(item);
        }
    }
}
