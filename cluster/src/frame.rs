//! Messages as frames on a stream, and frames as messages again. Pure: bytes in, bytes out.
//!
//! A frame is `len u32 | kind u8 | flags u8 | request u64 | body`, big endian; `len` counts what follows
//! it. A message larger than [`FRAGMENT_BYTES`] goes as several frames, each with `total u32 | offset u32`
//! before its piece, and other messages go between them. Whatever comes in is checked before memory is
//! set aside for it.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest body of one frame, and so of a message that nothing sent later on its lane overtakes. At 1 Gbit/s a message waits 2 ms behind one fragment of another.
pub const FRAGMENT_BYTES: usize = 256 * 1024;

/// Bodies from this size on are written from where they are; smaller ones are copied beside their header,
/// which is cheaper than one more piece to write.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Pieces given to one write.
const SLICES_MAX: usize = 16;

const LEN_BYTES: usize = 4;
const HEAD_BYTES: usize = 10;
const PIECE_BYTES: usize = 8;
const SHAPE: u8 = 0x0f;
const FRAGMENT: u8 = 0x10;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// Wants a reply.
    Call = 0,
    /// Wants none.
    Send = 1,
    /// Answers a call.
    Reply = 2,
    /// Answers a call that was not handled; the body says why.
    Refusal = 3,
    /// Answers a call of which nobody says what became of it.
    Lost = 4,
    /// Wants a sign of life.
    Ping = 5,
    /// Is one.
    Pong = 6,
}

impl Shape {
    fn of(flags: u8) -> Option<Self> {
        const ALL: [Shape; 7] = [
            Shape::Call,
            Shape::Send,
            Shape::Reply,
            Shape::Refusal,
            Shape::Lost,
            Shape::Ping,
            Shape::Pong,
        ];
        ALL.get(usize::from(flags & SHAPE)).copied()
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) shape: Shape,
    pub(crate) kind: u8,
    pub(crate) request: u64,
    pub(crate) body: Bytes,
}

impl Message {
    /// A message without kind, request or body.
    pub(crate) const fn bare(shape: Shape) -> Self {
        Self { shape, kind: 0, request: 0, body: Bytes::new() }
    }

    /// What it counts for while it waits to be sent.
    pub(crate) fn cost(&self) -> usize {
        LEN_BYTES + HEAD_BYTES + self.body.len()
    }
}

/// Why a stream's bytes are no frames. The stream is of no more use.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    #[error("a message of {0} bytes")]
    MessageLength(usize),
    #[error("a fragment at {offset} where {expected} was expected")]
    Offset { expected: usize, offset: usize },
    #[error("more than {0} bytes of unfinished messages")]
    Unfinished(usize),
}

/// Turns messages into the bytes of a stream.
#[derive(Default)]
pub(crate) struct Encoder {
    waiting: VecDeque<Message>,
    /// Larger than a fragment, and not begun.
    large_waiting: VecDeque<Message>,
    /// Larger than a fragment, taking turns.
    large: VecDeque<(Message, usize)>,
    large_bytes: usize,
    copied: BytesMut,
    chunks: VecDeque<Bytes>,
    /// Total of unfinished messages; the other side has to hold them.
    unfinished_bytes_max: usize,
}

impl Encoder {
    /// Keeps unfinished messages within what the other side holds.
    pub(crate) fn new(unfinished_bytes_max: usize) -> Self {
        Self { unfinished_bytes_max, ..Self::default() }
    }

    /// Puts a message behind the others.
    pub(crate) fn put(&mut self, message: Message) {
        if message.body.len() > FRAGMENT_BYTES {
            self.large_waiting.push_back(message);
        } else {
            self.waiting.push_back(message);
        }
    }

    /// Prepares what to write next, and says how much of the messages' cost is done with.
    ///
    /// About a fragment's worth of whole messages, then one fragment: neither can starve the other.
    pub(crate) fn fill(&mut self) -> usize {
        let (mut bytes, mut done) = (0, 0);
        while bytes < FRAGMENT_BYTES
            && let Some(message) = self.waiting.pop_front()
        {
            bytes += message.cost();
            done += message.cost();
            self.frame(&message, 0, message.body.clone());
        }
        done += self.fill_fragment();
        self.flush_copied();
        done
    }

    /// Whether there is something to write.
    pub(crate) fn is_filled(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether messages wait that are not yet prepared.
    #[cfg(test)]
    pub(crate) fn has_waiting(&self) -> bool {
        !(self.waiting.is_empty() && self.large_waiting.is_empty() && self.large.is_empty())
    }

    /// What to write, in order; not necessarily all of it.
    pub(crate) fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        (slices, count)
    }

    /// Takes note that so many bytes were written.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let chunk = self.chunks.front_mut().expect("no more is written than was given");
            let step = written.min(chunk.len());
            chunk.advance(step);
            written -= step;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn fill_fragment(&mut self) -> usize {
        while let Some(next) = self.large_waiting.front()
            && (self.large.is_empty()
                || self.large_bytes + next.body.len() <= self.unfinished_bytes_max)
        {
            self.large_bytes += next.body.len();
            let next = self.large_waiting.pop_front().expect("there is a front");
            self.large.push_back((next, 0));
        }
        let Some((message, offset)) = self.large.pop_front() else { return 0 };
        let total = message.body.len();
        let end = total.min(offset + FRAGMENT_BYTES);
        let mut piece = [0; PIECE_BYTES];
        piece[..4].copy_from_slice(&wire_len(total).to_be_bytes());
        piece[4..].copy_from_slice(&wire_len(offset).to_be_bytes());
        let body = message.body.slice(offset..end);
        self.head(&message, FRAGMENT, PIECE_BYTES + body.len());
        self.copied.put_slice(&piece);
        self.body(body);
        if end < total {
            self.large.push_back((message, end));
            return 0;
        }
        self.large_bytes -= total;
        message.cost()
    }

    fn frame(&mut self, message: &Message, flags: u8, body: Bytes) {
        self.head(message, flags, body.len());
        self.body(body);
    }

    fn head(&mut self, message: &Message, flags: u8, body_bytes: usize) {
        self.copied.reserve(LEN_BYTES + HEAD_BYTES + PIECE_BYTES);
        self.copied.put_u32(wire_len(HEAD_BYTES + body_bytes));
        self.copied.put_u8(message.kind);
        self.copied.put_u8(message.shape as u8 | flags);
        self.copied.put_u64(message.request);
    }

    fn body(&mut self, body: Bytes) {
        if body.len() < COPY_BYTES_MAX {
            self.copied.extend_from_slice(&body);
        } else {
            self.flush_copied();
            self.chunks.push_back(body);
        }
    }

    fn flush_copied(&mut self) {
        if !self.copied.is_empty() {
            self.chunks.push_back(self.copied.split().freeze());
        }
    }
}

/// Messages are far smaller than 4 GiB: who queues them checks.
fn wire_len(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a message that was let in has less than 4 GiB")
}

/// Turns the bytes of a stream into messages.
pub(crate) struct Decoder {
    message_bytes_max: usize,
    unfinished: BTreeMap<(Shape, u64), Unfinished>,
    pub(crate) unfinished_bytes: usize,
}

struct Unfinished {
    total: usize,
    body: BytesMut,
}

impl Decoder {
    /// Takes messages up to this size, and unfinished messages up to this size in total.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, unfinished: BTreeMap::new(), unfinished_bytes: 0 }
    }

    /// The next message in `input`, from which it is taken; `None` if more bytes are needed.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, FrameError> {
        loop {
            let Some(frame) = next_frame(input)? else { return Ok(None) };
            if let Some(message) = self.take(frame)? {
                return Ok(Some(message));
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Message>, FrameError> {
        let Frame { shape, fragment, kind, request, body } = frame;
        if fragment {
            let body = self.absorb((shape, request), body)?;
            return Ok(body.map(|body| Message { shape, kind, request, body }));
        }
        if body.len() > FRAGMENT_BYTES.min(self.message_bytes_max) {
            return Err(FrameError::MessageLength(body.len()));
        }
        Ok(Some(Message { shape, kind, request, body: own(body) }))
    }

    fn absorb(
        &mut self,
        of: (Shape, u64),
        mut piece: BytesMut,
    ) -> Result<Option<Bytes>, FrameError> {
        if piece.len() <= PIECE_BYTES {
            return Err(FrameError::Length(piece.len()));
        }
        let (total, offset) = (piece.get_u32() as usize, piece.get_u32() as usize);
        if total <= FRAGMENT_BYTES || total > self.message_bytes_max {
            return Err(FrameError::MessageLength(total));
        }
        if offset == 0 && !self.unfinished.contains_key(&of) {
            if self.unfinished_bytes + total > self.message_bytes_max {
                return Err(FrameError::Unfinished(self.message_bytes_max));
            }
            self.unfinished_bytes += total;
            let body = BytesMut::with_capacity(total);
            self.unfinished.insert(of, Unfinished { total, body });
        }
        let Some(unfinished) = self.unfinished.get_mut(&of) else {
            return Err(FrameError::Offset { expected: 0, offset });
        };
        if offset != unfinished.body.len() {
            return Err(FrameError::Offset { expected: unfinished.body.len(), offset });
        }
        if total != unfinished.total || offset + piece.len() > total {
            return Err(FrameError::MessageLength(offset + piece.len()));
        }
        unfinished.body.extend_from_slice(&piece);
        if unfinished.body.len() < total {
            return Ok(None);
        }
        self.unfinished_bytes -= total;
        Ok(self.unfinished.remove(&of).map(|whole| whole.body.freeze()))
    }
}

struct Frame {
    shape: Shape,
    fragment: bool,
    kind: u8,
    request: u64,
    body: BytesMut,
}

fn next_frame(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((len, _)) = input.split_first_chunk::<LEN_BYTES>() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    if !(HEAD_BYTES..=HEAD_BYTES + PIECE_BYTES + FRAGMENT_BYTES).contains(&len) {
        return Err(FrameError::Length(len));
    }
    if input.len() < LEN_BYTES + len {
        input.reserve(LEN_BYTES + len - input.len());
        return Ok(None);
    }
    let mut body = input.split_to(LEN_BYTES + len);
    body.advance(LEN_BYTES);
    let (kind, flags, request) = (body.get_u8(), body.get_u8(), body.get_u64());
    let shape = Shape::of(flags).filter(|_| flags & !(SHAPE | FRAGMENT) == 0);
    let shape = shape.ok_or(FrameError::Flags(flags))?;
    Ok(Some(Frame { shape, fragment: flags & FRAGMENT != 0, kind, request, body }))
}

/// A small body in memory of its own: a slice would keep all of the read buffer for as long as, say, a
/// log keeps it.
fn own(body: BytesMut) -> Bytes {
    if body.len() < COPY_BYTES_MAX { Bytes::copy_from_slice(&body) } else { body.freeze() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4 << 20;

    fn message(shape: Shape, request: u64, bytes: usize) -> Message {
        let body = (0..bytes).map(|index| (index as u64 * 31 + request) as u8).collect();
        Message { shape, kind: 7, request, body }
    }

    /// Everything the encoder writes, in the order of the frames.
    fn encoded(messages: &[Message]) -> Vec<u8> {
        let mut encoder = Encoder::new(MAX);
        messages.iter().cloned().for_each(|message| encoder.put(message));
        let (mut out, mut done) = (Vec::new(), 0);
        while encoder.has_waiting() {
            done += encoder.fill();
            while encoder.is_filled() {
                let (slices, count) = encoder.slices();
                // Cut where no frame ends, as a socket may.
                let step = slices[0].len().div_ceil(2);
                assert!(count > 0);
                out.extend_from_slice(&slices[0][..step]);
                encoder.advance(step);
            }
        }
        assert_eq!(done, messages.iter().map(Message::cost).sum());
        out
    }

    fn decoded(bytes: &[u8], chunk: usize) -> Result<Vec<Message>, FrameError> {
        let mut decoder = Decoder::new(MAX);
        let (mut input, mut messages) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(chunk.max(1)) {
            input.extend_from_slice(piece);
            while let Some(message) = decoder.decode(&mut input)? {
                messages.push(message);
            }
        }
        assert!(input.is_empty() && decoder.unfinished.is_empty());
        Ok(messages)
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let body = Bytes::from_static(b"hi");
        let message = Message { shape: Shape::Call, kind: 0x10, request: 0x0102, body };
        let golden = b"\x00\x00\x00\x0c\x10\x00\x00\x00\x00\x00\x00\x00\x01\x02hi";
        assert_eq!(encoded(std::slice::from_ref(&message)), golden);
        assert_eq!(decoded(golden, 3), Ok(vec![message]));
    }

    #[test]
    fn a_small_message_does_not_wait_for_a_large_one() {
        let (large, small) = (message(Shape::Call, 1, MAX - 1), message(Shape::Call, 2, 9));
        let arrived = decoded(&encoded(&[large.clone(), small.clone()]), 4096).unwrap();
        assert_eq!(arrived, [small, large]);
    }

    #[test]
    fn large_messages_take_turns_as_far_as_the_receiver_holds_them() {
        let third = MAX / 3;
        let sizes = [third, third, third - 9, FRAGMENT_BYTES + 1];
        let sent: Vec<_> =
            (0..).zip(sizes).map(|(n, size)| message(Shape::Call, n, size)).collect();
        let arrived = decoded(&encoded(&sent), 100_000).unwrap();
        // The short one had to wait until a third had been finished, and then overtook nobody.
        assert_eq!(arrived.iter().map(|m| m.request).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let two = [message(Shape::Call, 1, third), message(Shape::Call, 2, FRAGMENT_BYTES + 1)];
        let arrived = decoded(&encoded(&two), 100_000).unwrap();
        assert_eq!(arrived.iter().map(|m| m.request).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_is_no_frame_is_refused_before_memory_is_set_aside() {
        let check = |bytes: &[u8], error| assert_eq!(decoded(bytes, 64), Err(error));
        check(b"GET / HTTP/1.1\r\n\r\n", FrameError::Length(0x4745_5420));
        check(&[0, 0, 0, 9], FrameError::Length(9));
        check(&[0, 0, 0, 10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Flags(0x20));
        check(&[0, 0, 0, 10, 0, 0x07, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Flags(0x07));
        check(&[0, 0, 0, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Length(0));

        let fragment = |request: u8, total: u32, offset: u32| {
            let mut frame = vec![0, 0, 0, 19, 0, FRAGMENT, 0, 0, 0, 0, 0, 0, 0, request];
            frame.extend_from_slice(&total.to_be_bytes());
            frame.extend_from_slice(&offset.to_be_bytes());
            frame.push(1);
            frame
        };
        let most = u32::try_from(MAX).unwrap();
        check(&fragment(1, most + 1, 0), FrameError::MessageLength(MAX + 1));
        check(&fragment(1, 9, 0), FrameError::MessageLength(9));
        check(&fragment(1, most, 5), FrameError::Offset { expected: 0, offset: 5 });
        let two = [fragment(1, most, 0), fragment(2, most, 0)].concat();
        check(&two, FrameError::Unfinished(MAX));
        let gap = [fragment(1, most, 0), fragment(1, most, 2)].concat();
        check(&gap, FrameError::Offset { expected: 1, offset: 2 });
        let changed = [fragment(1, most, 0), fragment(1, most - 1, 1)].concat();
        check(&changed, FrameError::MessageLength(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_it_is_cut_the_same_arrives(
            sizes in prop::collection::vec(
                prop_oneof![0_usize..100, 16_000_usize..17_000, 262_000_usize..900_000], 1..6),
            chunk in 1_usize..70_000,
        ) {
            let sent: Vec<_> =
                (0..).zip(sizes).map(|(n, size)| message(Shape::Reply, n, size)).collect();
            let mut arrived = decoded(&encoded(&sent), chunk).unwrap();
            let small = |all: &[Message]| -> Vec<u64> {
                all.iter().filter(|m| m.body.len() <= FRAGMENT_BYTES).map(|m| m.request).collect()
            };
            prop_assert_eq!(small(&arrived), small(&sent));
            arrived.sort_by_key(|message| message.request);
            prop_assert_eq!(arrived, sent);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::new(MAX);
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut input) {}
        }

        #[test]
        fn damaged_frames_never_panic(
            size in 0_usize..600_000, at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let mut bytes = encoded(&[message(Shape::Call, 1, size), message(Shape::Call, 2, 5)]);
            // The heads are where damage can mislead.
            let index = at.index(bytes.len().min(64));
            bytes[index] ^= flip;
            let mut decoder = Decoder::new(MAX);
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut input) {}
        }
    }
}
