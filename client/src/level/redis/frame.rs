//! How entries lie in a Redis server.
//!
//! A value that has neither a soft deadline nor tags is stored as it is. Any other entry, and any value that begins as
//! a frame does, has a header:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | [`MAGIC`], which no text begins with |
//! | 8 | the length of the header in bytes, in hexadecimal digits |
//! | 1 | `v`: a value follows; `n`: the source said that there is nothing |
//! | 1 | `t`: it has tags; `-`: it has none |
//! | 8 | how long before its end the soft deadline is, in milliseconds; all ones: there is none |
//! | 1 | 1: it has no end, the one that it has in Redis stands for none |
//! | 8 | the time of its tags' clock when it was loaded |
//! | 8 | a random number: no two entries have the same header |
//! | 2, then 4 + n each | how many tags, and each with its length |
//!
//! Numbers are big-endian. What begins with the magic and is no frame is taken for a plain value. The first 26 bytes
//! are what scripts look at.
//!
//! The soft deadline is counted from the end, so that only the server's `PTTL` is needed to know whether it has
//! passed, and nobody's clock.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::level::{Content, Entry};

/// What frames begin with. Random, and no text in UTF-8.
pub(super) const MAGIC: [u8; 16] = *b"\x9aHOARD\xf7\x8b\x1d\xc4\xe0\x93\x5f\xb2\x06\xd8";

/// Where what scripts do not look at begins.
const REST: usize = 26;

/// There is no soft deadline.
const NEVER: u64 = u64::MAX;

/// The end that an entry has in Redis which has a soft deadline, and no end: 100 years after the soft deadline.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What `PTTL` says of a key that is gone.
pub(super) const GONE: i64 = -2;

/// An entry as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) content: Content,
    /// How long before its end its soft deadline is, in milliseconds.
    soft_before_end: Option<u64>,
    endless: bool,
    /// The time of its tags' clock when it was loaded.
    pub(super) stamp: u64,
    pub(super) tags: Vec<Bytes>,
    /// As it is stored; empty: a plain value.
    pub(super) header: Bytes,
}

/// An entry as it is to be stored.
pub(super) struct Stored {
    pub(super) blob: Bytes,
    /// When it ends in Redis, in milliseconds.
    pub(super) ends_after: Option<u64>,
}

/// How long an entry still lives, and need not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) lives_for: Option<Duration>,
    pub(super) fresh_for: Option<Duration>,
}

/// How an entry is stored. `stamp` is the time of the tags' clock, `unique` a random number.
pub(super) fn encode(entry: &Entry, stamp: u64, unique: u64) -> Stored {
    let hard = entry.hard.map(millis);
    let soft = entry.soft.map(millis).filter(|soft| hard.is_none_or(|hard| *soft < hard));
    let ends_after = match (soft, hard) {
        (Some(soft), None) => Some(soft.saturating_add(millis(FOREVER))),
        (_, hard) => hard,
    };
    let (kind, value) = match &entry.content {
        Content::Value(value) => (b'v', value.clone()),
        Content::Negative => (b'n', Bytes::new()),
    };
    let plain = kind == b'v' && soft.is_none() && entry.tags.is_empty();
    if plain && !value.starts_with(&MAGIC) {
        return Stored { blob: value, ends_after };
    }
    let mut rest = BytesMut::new();
    let before_end = ends_after.zip(soft).map(|(end, soft)| end - soft);
    rest.put_u64(before_end.unwrap_or(NEVER));
    rest.put_u8(u8::from(hard.is_none()));
    rest.put_u64(stamp);
    rest.put_u64(unique);
    rest.put_u16(u16::try_from(entry.tags.len()).unwrap_or(u16::MAX));
    for tag in entry.tags.iter().take(usize::from(u16::MAX)) {
        rest.put_u32(u32::try_from(tag.len()).expect("a tag is shorter than 4 GiB"));
        rest.put_slice(tag);
    }
    let mut blob = BytesMut::with_capacity(REST + rest.len() + value.len());
    blob.put_slice(&MAGIC);
    blob.put_slice(format!("{:08x}", REST + rest.len()).as_bytes());
    blob.put_u8(kind);
    blob.put_u8(if entry.tags.is_empty() { b'-' } else { b't' });
    blob.put_slice(&rest);
    blob.put_slice(&value);
    Stored { blob: blob.freeze(), ends_after }
}

/// What was stored.
pub(super) fn decode(blob: Bytes) -> Frame {
    framed(&blob).unwrap_or(Frame {
        content: Content::Value(blob),
        soft_before_end: None,
        endless: false,
        stamp: 0,
        tags: Vec::new(),
        header: Bytes::new(),
    })
}

/// What was stored, if only the header of it is there.
pub(super) fn decode_header(header: Bytes) -> Option<Frame> {
    framed(&header)
}

fn framed(blob: &Bytes) -> Option<Frame> {
    let digits = blob.strip_prefix(&MAGIC)?.get(..8)?;
    let length = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    if length < REST || blob.len() < length {
        return None;
    }
    let content = match blob[24] {
        b'v' => Content::Value(blob.slice(length..)),
        b'n' => Content::Negative,
        _ => return None,
    };
    let header = blob.slice(..length);
    let mut rest = header.slice(REST..);
    let before_end = rest.try_get_u64().ok()?;
    let endless = rest.try_get_u8().ok()? == 1;
    let stamp = rest.try_get_u64().ok()?;
    let _unique = rest.try_get_u64().ok()?;
    let count = rest.try_get_u16().ok()?;
    let mut tags = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
        if rest.len() < length {
            return None;
        }
        tags.push(rest.split_to(length));
    }
    let soft_before_end = (before_end != NEVER).then_some(before_end);
    Some(Frame { content, soft_before_end, endless, stamp, tags, header })
}

impl Frame {
    /// What is left of its time, by what `PTTL` said: -1 if it does not end, -2 if it is gone by now.
    pub(super) fn left(&self, pttl: i64) -> Left {
        let Ok(left) = u64::try_from(pttl) else {
            let gone = (pttl == GONE).then_some(Duration::ZERO);
            return Left { lives_for: gone, fresh_for: gone };
        };
        let lives_for = (!self.endless).then_some(Duration::from_millis(left));
        let fresh = self.soft_before_end.map(|before_end| left.saturating_sub(before_end));
        Left { lives_for, fresh_for: fresh.map(Duration::from_millis) }
    }
}

/// Whole milliseconds, at least one.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(content: Content, soft: Option<u64>, hard: Option<u64>, tags: &[&str]) -> Entry {
        let time = |millis: Option<u64>| millis.map(Duration::from_millis);
        let tags = tags.iter().map(|tag| Bytes::copy_from_slice(tag.as_bytes())).collect();
        Entry { content, soft: time(soft), hard: time(hard), tags }
    }

    fn value(bytes: &'static [u8]) -> Content {
        Content::Value(Bytes::from_static(bytes))
    }

    fn left(frame: &Frame, pttl: i64) -> (Option<u64>, Option<u64>) {
        let millis =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap());
        let left = frame.left(pttl);
        (millis(left.lives_for), millis(left.fresh_for))
    }

    #[test]
    fn a_plain_value_is_stored_as_it_is() {
        let stored = encode(&entry(value(b"text"), None, Some(50), &[]), 1, 2);
        assert_eq!((&*stored.blob, stored.ends_after), (&b"text"[..], Some(50)));
        let frame = decode(stored.blob);
        assert_eq!(frame.content, value(b"text"));
        assert_eq!(left(&frame, 40), (Some(40), None));
        assert_eq!(left(&frame, -1), (None, None));
    }

    #[test]
    fn a_value_that_looks_like_a_frame_is_not_taken_for_one() {
        let framed = encode(&entry(Content::Negative, None, None, &[]), 1, 2).blob;
        let stored = encode(&entry(Content::Value(framed.clone()), None, None, &[]), 1, 3);
        assert_eq!(decode(stored.blob).content, Content::Value(framed.clone()));
        let cut = framed.slice(..30);
        assert_eq!(decode(cut.clone()).content, Content::Value(cut));
    }

    #[test]
    fn a_soft_deadline_is_counted_from_the_end() {
        let both = encode(&entry(value(b"v"), Some(300), Some(1000), &[]), 0, 1);
        assert_eq!(both.ends_after, Some(1000));
        let frame = decode(both.blob);
        assert_eq!(left(&frame, 1000), (Some(1000), Some(300)));
        assert_eq!(left(&frame, 700), (Some(700), Some(0)));
        let soft = encode(&entry(value(b"v"), Some(300), None, &[]), 0, 1);
        let end = i64::try_from(soft.ends_after.unwrap()).unwrap();
        let frame = decode(soft.blob);
        assert_eq!(left(&frame, end), (None, Some(300)));
        assert_eq!(left(&frame, end - 1000), (None, Some(0)));
    }

    proptest! {
        #[test]
        fn what_was_stored_is_found(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            tags in prop::collection::vec("[a-z]{0,5}", 0..4),
            negative: bool,
            soft in prop::option::of(1_u64..1000),
        ) {
            let bytes = Bytes::from(bytes);
            let content = if negative { Content::Negative } else { Content::Value(bytes) };
            let tags: Vec<_> = tags.iter().map(|tag| &**tag).collect();
            let entry = entry(content, soft, Some(2000), &tags);
            let frame = decode(encode(&entry, 77, 5).blob);
            prop_assert_eq!(&frame.content, &entry.content);
            prop_assert_eq!(&frame.tags, &entry.tags);
            prop_assert_eq!(decode_header(frame.header.clone()).map(|it| it.tags), (!frame.header.is_empty()).then_some(entry.tags));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _whatever = decode(Bytes::from([&MAGIC[..], &bytes[..]].concat()));
        }
    }
}
