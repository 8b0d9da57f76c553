//! A few dozen entries whose hashes begin alike: the grain in which a slot grows, is scanned and sent.

use crate::block::Block;
use crate::slot_table::Hash;

/// Unsorted entries, found by a byte of their hash.
///
/// Two dense vectors instead of a hash table: at 61 keys a slot a table that doubles stands half empty.
pub(crate) struct Bin {
    /// `tags[i]` is [`Hash::tag`] of the key of `blocks[i]`.
    tags: Vec<u8>,
    blocks: Vec<Block>,
    /// No entry has an earlier deadline, in milliseconds; `u64::MAX` if none has any.
    pub(crate) deadline_min: u64,
    /// The version of the slot when an entry was last changed here.
    pub(crate) changed: u64,
}

/// What stands for "no deadline" where the earliest is kept.
pub(crate) const NEVER: u64 = u64::MAX;

impl Bin {
    pub(crate) const fn new(changed: u64) -> Self {
        Self { tags: Vec::new(), blocks: Vec::new(), deadline_min: NEVER, changed }
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn block_mut(&mut self, at: usize) -> &mut Block {
        &mut self.blocks[at]
    }

    pub(crate) fn find(&self, hash: Hash, key: &[u8]) -> Option<usize> {
        memchr::memchr_iter(hash.tag(), &self.tags).find(|&at| self.blocks[at].key() == key)
    }

    /// Where the entry of a key is likely to be: the first with its tag.
    pub(crate) fn likely(&self, hash: Hash) -> Option<usize> {
        memchr::memchr(hash.tag(), &self.tags)
    }

    pub(crate) fn push(&mut self, tag: u8, block: Block) {
        if self.blocks.len() == self.blocks.capacity() {
            // By a quarter and not by half the size again: what is not used is paid for in every bin.
            let more = (self.blocks.len() / 4).next_multiple_of(4).max(4);
            self.blocks.reserve_exact(more);
            self.tags.reserve_exact(more);
        }
        self.note_deadline(&block);
        self.tags.push(tag);
        self.blocks.push(block);
    }

    pub(crate) fn take(&mut self, at: usize) -> Block {
        self.tags.swap_remove(at);
        let block = self.blocks.swap_remove(at);
        if self.blocks.len() + 16 < self.blocks.capacity() / 2 {
            self.shrink();
        }
        block
    }

    /// Takes out the entries that do not pass, and what they were tagged with.
    pub(crate) fn take_unless(
        &mut self,
        mut stays: impl FnMut(&Block) -> bool,
    ) -> Vec<(u8, Block)> {
        let mut taken = Vec::new();
        for at in (0..self.blocks.len()).rev() {
            if !stays(&self.blocks[at]) {
                taken.push((self.tags.swap_remove(at), self.blocks.swap_remove(at)));
            }
        }
        if !taken.is_empty() {
            self.shrink();
            self.deadline_min = self.earliest_deadline();
        }
        taken
    }

    pub(crate) fn note_deadline(&mut self, block: &Block) {
        if let Some(deadline) = block.deadline() {
            self.deadline_min = self.deadline_min.min(deadline.millis());
        }
    }

    pub(crate) fn earliest_deadline(&self) -> u64 {
        let deadlines = self.blocks.iter().filter_map(Block::deadline);
        deadlines.map(|deadline| deadline.millis()).min().unwrap_or(NEVER)
    }

    /// What the two vectors take, without the blocks.
    pub(crate) fn vector_bytes(&self) -> usize {
        self.tags.capacity() + self.blocks.capacity() * size_of::<Block>()
    }

    fn shrink(&mut self) {
        let spare = self.blocks.len() + 4;
        self.tags.shrink_to(spare);
        self.blocks.shrink_to(spare);
    }
}
