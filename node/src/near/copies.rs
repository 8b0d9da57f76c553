//! The copies themselves, bounded in bytes. What is fresh is not decided here.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;
use scatterhoard_near::Mark;

use super::correspondent::Followed;

/// What a copy takes beside its key and its value: two counted pointers, the mark, and what moka keeps for
/// an entry.
const EXTRA_BYTES: usize = 320;

/// No value takes more than this share of all copies, nor more than [`VALUE_BYTES_MAX`].
const VALUE_SHARE: u64 = 16;

/// Larger values are asked for each time: what is saved is small against what they take, and a load has to
/// wait for all values that it brings.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// What a key held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A string.
    Value(Box<[u8]>),
    /// Nothing.
    Absent,
    /// Something that no copies are kept of: it is asked for each time.
    Unfit,
}

/// What a key held when it was loaded.
pub(super) struct Copy {
    pub(super) held: Arc<Held>,
    pub(super) mark: Mark,
    /// The partition that it is of.
    pub(super) followed: Arc<Followed>,
}

/// All copies of a node.
pub(super) struct Copies {
    by_key: Cache<Bytes, Arc<Copy>>,
    value_bytes_max: u32,
}

impl Held {
    /// Bytes of the value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::Absent | Self::Unfit => 0,
        }
    }
}

impl Copies {
    pub(super) fn new(bytes_max: u64) -> Self {
        let weigh = |key: &Bytes, copy: &Arc<Copy>| {
            let bytes = key.len() + copy.held.bytes() + EXTRA_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let by_key = Cache::builder().max_capacity(bytes_max).weigher(weigh).build();
        let value_bytes_max = (bytes_max / VALUE_SHARE).min(VALUE_BYTES_MAX);
        let value_bytes_max = u32::try_from(value_bytes_max).expect("it is a megabyte at most");
        Self { by_key, value_bytes_max }
    }

    /// The largest value of which a copy is kept.
    pub(super) fn value_bytes_max(&self) -> u32 {
        self.value_bytes_max
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Copy>> {
        self.by_key.get(key)
    }

    pub(super) fn put(&self, key: Bytes, copy: Copy) {
        self.by_key.insert(key, Arc::new(copy));
    }

    pub(super) fn count(&self) -> u64 {
        self.by_key.entry_count()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.by_key.weighted_size()
    }
}
