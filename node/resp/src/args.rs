//! The arguments of one command: borrowed, and cheap to pass on.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Index, Range};

/// The arguments of one command, its name first. A view: copying it copies no argument.
#[derive(Clone, Copy)]
pub struct Args<'a>(Source<'a>);

/// Where the arguments lie. A command that was received, and one that was put together by hand, look
/// alike to whoever parses them.
#[derive(Clone, Copy)]
enum Source<'a> {
    Spans { bytes: &'a [u8], spans: &'a [Span] },
    Slices(&'a [&'a [u8]]),
    Vecs(&'a [Vec<u8>]),
}

/// Where one argument lies in the bytes of its command. Half the size of a slice: a command of a million
/// small arguments takes little more memory than its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    bytes: u32,
}

impl Span {
    /// The largest offset that a span can reach.
    pub(crate) const END_MAX: usize = u32::MAX as usize;

    pub(crate) fn new(range: Range<usize>) -> Self {
        assert!(range.end <= Self::END_MAX, "the limits keep requests below 4 GiB");
        Self { start: range.start as u32, bytes: (range.end - range.start) as u32 }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &bytes[start..start + self.bytes as usize]
    }
}

impl<'a> Args<'a> {
    pub(crate) fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self(Source::Spans { bytes, spans })
    }

    /// How many arguments, the command's name included.
    #[must_use]
    pub fn len(self) -> usize {
        match self.0 {
            Source::Spans { spans, .. } => spans.len(),
            Source::Slices(slices) => slices.len(),
            Source::Vecs(vecs) => vecs.len(),
        }
    }

    /// Whether there are none. A decoded [`Request`](crate::Request) has at least one.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The argument at this index; 0 is the command's name.
    #[must_use]
    #[inline]
    pub fn get(self, index: usize) -> Option<&'a [u8]> {
        match self.0 {
            Source::Spans { bytes, spans } => spans.get(index).map(|span| span.of(bytes)),
            Source::Slices(slices) => slices.get(index).copied(),
            Source::Vecs(vecs) => vecs.get(index).map(Vec::as_slice),
        }
    }

    /// The arguments after the first `count`; none if there are not more than that.
    #[must_use]
    pub fn after(self, count: usize) -> Self {
        Self(match self.0 {
            Source::Spans { bytes, spans } => {
                Source::Spans { bytes, spans: spans.get(count..).unwrap_or_default() }
            }
            Source::Slices(slices) => Source::Slices(slices.get(count..).unwrap_or_default()),
            Source::Vecs(vecs) => Source::Vecs(vecs.get(count..).unwrap_or_default()),
        })
    }

    /// The arguments in order, the command's name first.
    #[must_use]
    pub fn iter(self) -> ArgsIter<'a> {
        ArgsIter { args: self, indexes: 0..self.len() }
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    /// # Panics
    /// If there is no such argument.
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        match self.get(index) {
            Some(arg) => arg,
            None => panic!("argument {index} of a command of {}", self.len()),
        }
    }
}

impl<'a> From<&'a [&'a [u8]]> for Args<'a> {
    fn from(slices: &'a [&'a [u8]]) -> Self {
        Self(Source::Slices(slices))
    }
}

impl<'a, const COUNT: usize> From<&'a [&'a [u8]; COUNT]> for Args<'a> {
    fn from(slices: &'a [&'a [u8]; COUNT]) -> Self {
        Self(Source::Slices(slices))
    }
}

impl<'a> From<&'a Vec<&'a [u8]>> for Args<'a> {
    fn from(slices: &'a Vec<&'a [u8]>) -> Self {
        Self(Source::Slices(slices))
    }
}

impl<'a> From<&'a [Vec<u8>]> for Args<'a> {
    fn from(vecs: &'a [Vec<u8>]) -> Self {
        Self(Source::Vecs(vecs))
    }
}

impl<'a> From<&'a Vec<Vec<u8>>> for Args<'a> {
    fn from(vecs: &'a Vec<Vec<u8>>) -> Self {
        Self(Source::Vecs(vecs))
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = ArgsIter<'a>;

    fn into_iter(self) -> ArgsIter<'a> {
        self.iter()
    }
}

impl PartialEq for Args<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Args<'_> {}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

/// The arguments of one command in order. See [`Args::iter`].
#[derive(Clone, Debug)]
pub struct ArgsIter<'a> {
    args: Args<'a>,
    indexes: Range<usize>,
}

impl<'a> Iterator for ArgsIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.args.get(self.indexes.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indexes.size_hint()
    }

    fn nth(&mut self, count: usize) -> Option<&'a [u8]> {
        self.args.get(self.indexes.nth(count)?)
    }
}

impl DoubleEndedIterator for ArgsIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.args.get(self.indexes.next_back()?)
    }
}

impl ExactSizeIterator for ArgsIter<'_> {}

impl FusedIterator for ArgsIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_and_handmade_commands_look_alike() {
        let owned = vec![b"SET".to_vec(), b"k".to_vec(), b"v".to_vec()];
        let slices: [&[u8]; 3] = [b"SET", b"k", b"v"];
        let spans = [Span::new(0..3), Span::new(4..5), Span::new(6..7)];

        for args in [Args::from(&owned), Args::from(&slices), Args::new(b"SET k v", &spans)] {
            assert_eq!(args.len(), 3);
            assert_eq!(&args[1], b"k");
            assert_eq!(args.get(3), None);
            assert_eq!(args, Args::from(&slices));
            assert_eq!(args.iter().rev().collect::<Vec<_>>(), [&b"v"[..], b"k", b"SET"]);
            assert_eq!(args.iter().nth(2), Some(&b"v"[..]));
            assert_eq!(args.after(1).iter().collect::<Vec<_>>(), [&b"k"[..], b"v"]);
            assert!(args.after(3).is_empty() && args.after(4).is_empty());
            assert_eq!(format!("{args:?}"), r#"["SET", "k", "v"]"#);
        }
    }
}
