//! What few entries have besides a value and a deadline: a soft deadline, and tags.
//!
//! ```text
//! extra   head u8: soft? 0x80 | how many tags, [soft deadline u64], [written u64, (tag u64)+]
//! ```
//! It lies in the entry itself, behind a flag, so that whatever moves, copies, evicts, sends or counts
//! entries does so with all of it; an entry without such things has no byte of it. Rejected: a table beside
//! the entries, which each of these would have to keep in step.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::UnixMillis;
use crate::op::TAGS_COUNT_MAX;

/// What a value can be invalidated by, as it is kept. Two names that share one are invalidated together: what is
/// stale is then only loaded once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub(crate) u64);

impl Tag {
    /// The tag with this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(xxh3_64(name))
    }
}

/// For each tag the index of the entry of the log that invalidated it last.
pub(crate) type Invalidated = BTreeMap<Tag, u64>;

const HAS_SOFT: u8 = 0x80;
const _: () = assert!(TAGS_COUNT_MAX < HAS_SOFT as usize, "a count of tags leaves that bit free");

/// Room for the longest one.
const BYTES_MAX: usize = 1 + 8 + 8 + TAGS_COUNT_MAX * 8;

/// Nothing if it is empty.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extra<'a>(&'a [u8]);

/// One that was made here. Without an allocation of its own.
pub(crate) struct ExtraBuf {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl ExtraBuf {
    /// `written` is the index of the entry of the log that wrote the value. Tags beyond
    /// [`TAGS_COUNT_MAX`] are left out: whoever reads requests or logs refuses them.
    pub(crate) fn new(soft: Option<UnixMillis>, written: u64, tags: &[&[u8]]) -> Self {
        let mut extra = Self { bytes: [0; BYTES_MAX], len: 0 };
        if soft.is_none() && tags.is_empty() {
            return extra;
        }
        let tags = &tags[..tags.len().min(TAGS_COUNT_MAX)];
        extra.push(&[if soft.is_some() { HAS_SOFT } else { 0 } | tags.len() as u8]);
        if let Some(soft) = soft {
            extra.push(&soft.millis().to_le_bytes());
        }
        if !tags.is_empty() {
            extra.push(&written.to_le_bytes());
            tags.iter().for_each(|tag| extra.push(&Tag::of(tag).0.to_le_bytes()));
        }
        extra
    }

    pub(crate) fn as_extra(&self) -> Extra<'_> {
        Extra(&self.bytes[..self.len])
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl<'a> Extra<'a> {
    pub(crate) const NONE: Self = Self(&[]);

    /// `None` if the bytes are not one, or one of nothing.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let extra = Self(bytes);
        let fits = extra.len_said() == bytes.len()
            && extra.tags_count() <= TAGS_COUNT_MAX
            && extra.soft_bytes() + extra.tags_count() > 0;
        fits.then_some(extra)
    }

    /// The one that these bytes are, which were written as one.
    pub(crate) fn of_written(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_none(self) -> bool {
        self.0.is_empty()
    }

    /// From this time on the value is to be loaded anew, though it may still be given.
    pub(crate) fn soft(self) -> Option<UnixMillis> {
        let soft = (self.soft_bytes() > 0).then(|| self.0.get(1..).and_then(<[u8]>::first_chunk));
        soft.flatten().map(|bytes| UnixMillis::new(u64::from_le_bytes(*bytes)))
    }

    pub(crate) fn tags(self) -> impl Iterator<Item = Tag> {
        let (chunks, _) = self.tags_part().get(8..).unwrap_or_default().as_chunks();
        chunks.iter().map(|bytes| Tag(u64::from_le_bytes(*bytes)))
    }

    pub(crate) fn has_tags(self) -> bool {
        self.tags_count() > 0
    }

    /// Whether one of its tags was invalidated after the value was written.
    pub(crate) fn is_stale(self, invalidated: &Invalidated) -> bool {
        let Some(written) = self.tags_part().first_chunk().map(|it| u64::from_le_bytes(*it)) else {
            return false;
        };
        self.tags().any(|tag| invalidated.get(&tag).is_some_and(|&index| index > written))
    }

    /// How long one is that begins with this byte.
    pub(crate) fn bytes_by_head(head: u8) -> usize {
        let soft_bytes = if head & HAS_SOFT == 0 { 0 } else { 8 };
        let tags_count = usize::from(head & !HAS_SOFT);
        let tags_bytes = if tags_count > 0 { 8 + tags_count * 8 } else { 0 };
        1 + soft_bytes + tags_bytes
    }

    /// Where the index lies of the entry of the log that wrote the value, if tags go with it.
    pub(crate) fn written_at(self) -> Option<std::ops::Range<usize>> {
        let start = 1 + self.soft_bytes();
        self.has_tags().then_some(start..start + 8)
    }

    fn len_said(self) -> usize {
        Self::bytes_by_head(self.head())
    }

    fn head(self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn tags_count(self) -> usize {
        usize::from(self.head() & !HAS_SOFT)
    }

    fn soft_bytes(self) -> usize {
        if self.head() & HAS_SOFT == 0 { 0 } else { 8 }
    }

    fn tags_part(self) -> &'a [u8] {
        self.0.get(1 + self.soft_bytes()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_read() {
        let many: Vec<&[u8]> = vec![b"t"; TAGS_COUNT_MAX];
        let cases: [(Option<u64>, &[&[u8]]); 5] =
            [(None, &[]), (Some(5), &[]), (None, &[b"a"]), (Some(9), &[b"a", b""]), (None, &many)];
        for (soft, tags) in cases {
            let extra = ExtraBuf::new(soft.map(UnixMillis::new), 77, tags);
            let read = extra.as_extra();
            assert_eq!(read.soft().map(UnixMillis::millis), soft);
            let named: Vec<_> = tags.iter().map(|tag| Tag::of(tag)).collect();
            assert_eq!(read.tags().collect::<Vec<_>>(), named);
            assert_eq!(read.is_none(), soft.is_none() && tags.is_empty());
            assert_eq!(Extra::parse(read.as_bytes()).is_none(), read.is_none());
            let longer = [read.as_bytes(), b"more"].concat();
            assert!(Extra::parse(&longer).is_none());
            if let Some(&head) = read.as_bytes().first() {
                assert_eq!(Extra::bytes_by_head(head), read.as_bytes().len());
            }
        }
    }

    #[test]
    fn only_what_was_invalidated_after_it_was_written_is_stale() {
        let extra = ExtraBuf::new(None, 10, &[b"a", b"b"]);
        for (tag, index, is_stale) in [("a", 10, false), ("b", 11, true), ("c", 99, false)] {
            let invalidated = Invalidated::from([(Tag::of(tag.as_bytes()), index)]);
            assert_eq!(extra.as_extra().is_stale(&invalidated), is_stale, "{tag} {index}");
        }
    }
}
