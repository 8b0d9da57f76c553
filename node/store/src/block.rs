//! One entry of a slot: header, key and value in one heap allocation behind a pointer of 8 bytes.
//!
//! The only file of the crate with `unsafe`: a `Box<[u8]>` would cost 8 bytes more in every table, and
//! recency could not be noted by readers that share the store.
//!
//! ```text
//! 0       4          8       9              9+K                 9+K+D
//! access  value_len  flags   key_len (1|4)  deadline (0|8)      extra (few have it), key, value
//! ```
//! The allocation has the size class of what it holds, so the class follows from the header, and a
//! value may change in place as long as the class stays.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::UnixMillis;
use crate::access::Access;
use crate::extra::Extra;

/// What a block is made of.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) deadline: Option<UnixMillis>,
    pub(crate) shape: Shape,
    pub(crate) access: Access,
    pub(crate) extra: Extra<'a>,
}

/// What kind of value it is. How a string came to be is a part of it: Redis names its encoding by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Written whole.
    Whole,
    /// Changed in part (`APPEND`, `SETRANGE`): Redis keeps such a string with room to grow.
    Grown,
    /// The source says that there is nothing under this key. The value is empty.
    Negative,
    /// A Bloom filter; the value is laid out as [`crate::filter`] says.
    Filter,
}

/// An entry. Owns its allocation.
///
/// Invariants: `0` points to an allocation with [`Block::layout`] of this header; its bytes up to
/// [`Block::bytes_used`] are initialised; the first four are only ever reached as an [`AtomicU32`],
/// unless the block is borrowed mutably.
pub(crate) struct Block(NonNull<u8>);

// SAFETY: a block owns its allocation alone, and nothing in it belongs to a thread.
unsafe impl Send for Block {}
// SAFETY: through `&Block` only the access word changes, and that is an atomic.
unsafe impl Sync for Block {}

const ALIGN: usize = 4;
const VALUE_LEN_AT: usize = 4;
const FLAGS_AT: usize = 8;
const KEY_LEN_AT: usize = 9;
const DEADLINE_BYTES: usize = 8;

const FLAG_DEADLINE: u8 = 1;
const FLAG_LONG_KEY: u8 = 2;
const FLAG_GROWN: u8 = 4;
const FLAG_EXTRA: u8 = 8;
const FLAG_NEGATIVE: u8 = 16;
const FLAG_FILTER: u8 = 32;
const SHAPE_FLAGS: u8 = FLAG_GROWN | FLAG_NEGATIVE | FLAG_FILTER;

impl Block {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let key_len = u32::try_from(parts.key.len()).expect("a key came in one entry of 32 bits");
        let value_len = value_len_of(parts.value.len());
        let long_key = key_len > u32::from(u8::MAX);
        let flags = (if parts.deadline.is_some() { FLAG_DEADLINE } else { 0 })
            | (if long_key { FLAG_LONG_KEY } else { 0 })
            | (if parts.extra.is_none() { 0 } else { FLAG_EXTRA })
            | flag_of(parts.shape);
        let extra = parts.extra.as_bytes();
        let key_at = head_bytes(flags) + extra.len();
        let total = key_at + parts.key.len() + parts.value.len();
        let mut block = Self(allocate(layout_of(total)));
        block.write(0, &parts.access.0.to_ne_bytes());
        block.write(VALUE_LEN_AT, &value_len.to_ne_bytes());
        block.write(FLAGS_AT, &[flags]);
        let key_len = key_len.to_le_bytes();
        block.write(KEY_LEN_AT, if long_key { &key_len } else { &key_len[..1] });
        if let Some(deadline) = parts.deadline {
            block.write(head_bytes(flags) - DEADLINE_BYTES, &deadline.millis().to_le_bytes());
        }
        block.write(head_bytes(flags), extra);
        block.write(key_at, parts.key);
        block.write(key_at + parts.key.len(), parts.value);
        block
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.slice(self.key_at(), self.key_len())
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.slice(self.value_at(), self.value_len())
    }

    pub(crate) fn value_len(&self) -> usize {
        // SAFETY: within the initialised header, and aligned: the offset is a multiple of ALIGN.
        unsafe { self.0.as_ptr().add(VALUE_LEN_AT).cast::<u32>().read() as usize }
    }

    pub(crate) fn deadline(&self) -> Option<UnixMillis> {
        if self.flags() & FLAG_DEADLINE == 0 {
            return None;
        }
        let bytes = self.slice(head_bytes(self.flags()) - DEADLINE_BYTES, DEADLINE_BYTES);
        Some(UnixMillis::new(u64::from_le_bytes(bytes.try_into().expect("eight bytes"))))
    }

    /// Whether the key is gone at this time.
    pub(crate) fn is_expired(&self, now: UnixMillis) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(crate) fn shape(&self) -> Shape {
        match self.flags() & SHAPE_FLAGS {
            FLAG_GROWN => Shape::Grown,
            FLAG_NEGATIVE => Shape::Negative,
            FLAG_FILTER => Shape::Filter,
            _ => Shape::Whole,
        }
    }

    /// Whether it says that there is nothing.
    pub(crate) fn is_negative(&self) -> bool {
        self.flags() & FLAG_NEGATIVE != 0
    }

    /// Whether time and tags cannot make it absent: so are most.
    pub(crate) fn is_lasting(&self) -> bool {
        self.flags() & (FLAG_DEADLINE | FLAG_EXTRA) == 0
    }

    pub(crate) fn extra(&self) -> Extra<'_> {
        if self.flags() & FLAG_EXTRA == 0 {
            return Extra::NONE;
        }
        let at = head_bytes(self.flags());
        Extra::of_written(self.slice(at, self.extra_bytes()))
    }

    pub(crate) fn access(&self) -> Access {
        Access(self.access_word().load(Ordering::Relaxed))
    }

    /// Notes a use. Writes only where something changes, so that readers do not fight over the line.
    pub(crate) fn set_access(&self, access: Access) {
        if self.access() != access {
            self.access_word().store(access.0, Ordering::Relaxed);
        }
    }

    /// What the allocation takes.
    pub(crate) fn bytes(&self) -> usize {
        class_of(self.bytes_used())
    }

    /// Tells two blocks apart that live at the same time.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            key: self.key(),
            value: self.value(),
            deadline: self.deadline(),
            shape: self.shape(),
            access: self.access(),
            extra: self.extra(),
        }
    }

    /// Makes an entry with tags one that was written before any index of a log.
    pub(crate) fn forget_written(&mut self) {
        if let Some(written) = self.extra().written_at() {
            let at = head_bytes(self.flags()) + written.start;
            self.write(at, &[0; 8]);
        }
    }

    /// The value, to be changed in place.
    pub(crate) fn value_mut(&mut self) -> &mut [u8] {
        let (at, len) = (self.value_at(), self.value_len());
        // SAFETY: within what is initialised, as for `slice`; borrowed as long as `self` is, mutably.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(at), len) }
    }

    /// Makes the value longer: by these bytes, and by zeros after them.
    pub(crate) fn extend_value(&mut self, bytes: &[u8], zeros_count: usize) {
        let before = self.value_len();
        self.resize_value(before + bytes.len() + zeros_count);
        let at = self.value_at() + before;
        self.write(at, bytes);
        self.write_zeros(at + bytes.len(), zeros_count);
    }

    pub(crate) fn set_value(&mut self, value: &[u8], shape: Shape) {
        self.resize_value(value.len());
        let at = self.value_at();
        self.write(at, value);
        self.set_shape(shape);
    }

    /// Writes `bytes` at `offset` of the value, which grows as needed, by zeros where nothing is given.
    pub(crate) fn write_value(&mut self, offset: usize, bytes: &[u8]) {
        let before = self.value_len();
        if offset + bytes.len() > before {
            self.resize_value(offset + bytes.len());
            let at = self.value_at() + before;
            self.write_zeros(at, offset.saturating_sub(before));
        }
        let at = self.value_at() + offset;
        self.write(at, bytes);
        self.set_shape(Shape::Grown);
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<UnixMillis>) {
        let had = self.flags() & FLAG_DEADLINE != 0;
        match deadline {
            Some(deadline) if had => {
                let at = head_bytes(self.flags()) - DEADLINE_BYTES;
                self.write(at, &deadline.millis().to_le_bytes());
            }
            None if !had => {}
            Some(_) | None => *self = Self::new(Parts { deadline, ..self.parts() }),
        }
    }

    fn set_shape(&mut self, shape: Shape) {
        let flags = self.flags() & !SHAPE_FLAGS | flag_of(shape);
        self.write(FLAGS_AT, &[flags]);
    }

    /// Changes the length of the value, and the allocation with it. What is new of the value is not
    /// initialised: the caller writes all of it before anyone looks.
    fn resize_value(&mut self, value_len: usize) {
        let (before, after) =
            (layout_of(self.bytes_used()), layout_of(self.value_at() + value_len));
        if before != after {
            // SAFETY: the block was allocated with `before` (invariant), whose alignment is that of
            // `after`; the new size is not zero, and `layout_of` has checked it.
            let moved = unsafe { realloc(self.0.as_ptr(), before, after.size()) };
            self.0 = NonNull::new(moved).unwrap_or_else(|| handle_alloc_error(after));
        }
        self.write(VALUE_LEN_AT, &value_len_of(value_len).to_ne_bytes());
    }

    fn flags(&self) -> u8 {
        // SAFETY: within the initialised header.
        unsafe { self.0.as_ptr().add(FLAGS_AT).read() }
    }

    fn key_len(&self) -> usize {
        if self.flags() & FLAG_LONG_KEY == 0 {
            // SAFETY: within the initialised header.
            return usize::from(unsafe { self.0.as_ptr().add(KEY_LEN_AT).read() });
        }
        let bytes = self.slice(KEY_LEN_AT, 4);
        u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
    }

    fn key_at(&self) -> usize {
        let flags = self.flags();
        let extra_bytes = if flags & FLAG_EXTRA == 0 { 0 } else { self.extra_bytes() };
        head_bytes(flags) + extra_bytes
    }

    /// How long the extra of a block that has one is; its first byte says so.
    #[cold]
    fn extra_bytes(&self) -> usize {
        Extra::bytes_by_head(self.slice(head_bytes(self.flags()), 1)[0])
    }

    fn value_at(&self) -> usize {
        self.key_at() + self.key_len()
    }

    fn bytes_used(&self) -> usize {
        self.value_at() + self.value_len()
    }

    fn access_word(&self) -> &AtomicU32 {
        // SAFETY: aligned to four, alive as long as the block, and by the invariant reached as an
        // atomic only while the block is shared.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().cast()) }
    }

    /// Bytes behind the access word. `offset` and `len` follow from the header.
    fn slice(&self, offset: usize, len: usize) -> &[u8] {
        debug_assert!(offset >= VALUE_LEN_AT);
        // SAFETY: the callers take offset and length from the header, so the range lies within what
        // is initialised; it leaves out the access word, so nothing in it changes while borrowed.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(offset), len) }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        // SAFETY: the callers keep offset + length within the size they have just allocated for; the
        // source cannot overlap, since `self` is borrowed mutably.
        unsafe { self.0.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn write_zeros(&mut self, offset: usize, count: usize) {
        // SAFETY: as for `write`.
        unsafe { self.0.as_ptr().add(offset).write_bytes(0, count) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let layout = layout_of(self.bytes_used());
        // SAFETY: allocated with this layout (invariant), and not used afterwards.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

const fn flag_of(shape: Shape) -> u8 {
    match shape {
        Shape::Whole => 0,
        Shape::Grown => FLAG_GROWN,
        Shape::Negative => FLAG_NEGATIVE,
        Shape::Filter => FLAG_FILTER,
    }
}

/// Where the extra begins, and the key if there is none.
fn head_bytes(flags: u8) -> usize {
    let key_len_bytes = if flags & FLAG_LONG_KEY == 0 { 1 } else { 4 };
    let deadline_bytes = if flags & FLAG_DEADLINE == 0 { 0 } else { DEADLINE_BYTES };
    KEY_LEN_AT + key_len_bytes + deadline_bytes
}

fn value_len_of(len: usize) -> u32 {
    u32::try_from(len).expect("the limit of values is below 4 GiB")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: a layout of a block is never of size zero.
    let pointer = unsafe { alloc(layout) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}

fn layout_of(bytes: usize) -> Layout {
    Layout::from_size_align(class_of(bytes), ALIGN).expect("an entry is smaller than isize::MAX")
}

/// The size class that holds so many bytes: steps of 16 up to 128, then four to each doubling. These
/// are jemalloc's, so nothing is lost between what is counted and what is taken.
pub(crate) fn class_of(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16).max(16);
    }
    let step = (bytes - 1).ilog2() - 2;
    bytes.next_multiple_of(1 << step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(key: &'a [u8], value: &'a [u8], deadline: Option<u64>) -> Parts<'a> {
        Parts {
            key,
            value,
            deadline: deadline.map(UnixMillis::new),
            shape: Shape::Whole,
            access: Access(7),
            extra: Extra::NONE,
        }
    }

    #[track_caller]
    fn check(block: &Block, expected: Parts<'_>) {
        assert_eq!(block.key(), expected.key);
        assert_eq!(block.value(), expected.value);
        assert_eq!(block.deadline(), expected.deadline);
        assert_eq!(block.shape(), expected.shape);
        assert_eq!(block.access(), expected.access);
    }

    #[test]
    fn the_classes_of_jemalloc() {
        for (bytes, class) in [
            (0, 16),
            (16, 16),
            (17, 32),
            (126, 128),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (14 << 10, 14 << 10),
            ((14 << 10) + 1, 16 << 10),
        ] {
            assert_eq!(class_of(bytes), class, "{bytes}");
        }
    }

    #[test]
    fn a_block_gives_back_what_was_put_in() {
        for key_len in [0, 1, 16, 255, 256, 70_000] {
            for value_len in [0, 1, 100, 5000] {
                for deadline in [None, Some(0), Some(u64::MAX)] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let parts = parts(&key, &value, deadline);
                    check(&Block::new(parts), parts);
                }
            }
        }
    }

    #[test]
    fn a_value_changes_in_place_while_its_class_stays() {
        let mut block = Block::new(parts(b"key", &[1; 100], None));
        let address = block.address();
        block.set_value(&[2; 90], Shape::Whole);
        assert_eq!(block.address(), address);
        check(&block, parts(b"key", &[2; 90], None));
        block.set_value(&[3; 4000], Shape::Whole);
        check(&block, parts(b"key", &[3; 4000], None));
        block.set_value(b"", Shape::Whole);
        check(&block, parts(b"key", b"", None));
        assert_eq!(block.bytes(), 16);
    }

    #[test]
    fn a_value_grows_by_zeros_and_bytes() {
        let mut block = Block::new(parts(b"key", b"ab", Some(5)));
        block.write_value(5, b"xy");
        let grown = |value| Parts { shape: Shape::Grown, ..parts(b"key", value, Some(5)) };
        check(&block, grown(b"ab\0\0\0xy"));
        block.write_value(1, b"B");
        check(&block, grown(b"aB\0\0\0xy"));
        let long = vec![b'z'; 300];
        block.write_value(6, &long);
        assert_eq!(block.value()[..6], *b"aB\0\0\0x");
        assert_eq!(block.value()[6..], long);
    }

    #[test]
    fn a_deadline_comes_and_goes() {
        let mut block = Block::new(parts(b"key", b"value", None));
        for deadline in [None, Some(7), Some(8), None, Some(9)] {
            block.set_deadline(deadline.map(UnixMillis::new));
            check(&block, parts(b"key", b"value", deadline));
        }
        assert!(block.is_expired(UnixMillis::new(9)));
        assert!(!block.is_expired(UnixMillis::new(8)));
    }

    #[test]
    fn readers_of_one_block_may_note_uses_at_once() {
        let block = Block::new(parts(b"key", b"value", None));
        std::thread::scope(|scope| {
            for word in 0..4 {
                let block = &block;
                scope.spawn(move || {
                    for _ in 0..100 {
                        block.set_access(Access(word));
                        assert_eq!(block.value(), b"value");
                    }
                });
            }
        });
        assert!(block.access().0 < 4);
    }
}
