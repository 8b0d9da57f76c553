//! One connection after its handshake, either end: one task that writes what is queued and reads what
//! comes. One task, not two, so that a reply which is ready when its request was read leaves in the same
//! wake-up.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::BoxStream;
use crate::frame::{Decoder, Encoder, FrameError, Message, Shape};

/// Room that a read is given.
const READ_BYTES: usize = 64 * 1024;

/// Pulses of silence after which a sign of life is asked for. A pulse is a quarter of that time.
pub(crate) const PULSES_TO_PING: u32 = 4;

/// What a connection's task asks of the end that it serves.
pub(crate) trait End: Send + Sync {
    /// Moves what is queued to the encoder.
    fn take_queued(&self, encoder: &mut Encoder);

    /// Ready once something is queued, or once reading may go on.
    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// So much of what was queued needs no more room.
    fn done_with(&self, cost: usize);

    /// Whether more may be read now.
    fn may_read(&self) -> bool;

    /// Takes a message; `false` if that end never gets such messages.
    fn arrived(&self, message: Message) -> bool;
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("closed here")]
    Here,
    #[error("closed by the peer")]
    There,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer sent {0}")]
    Frame(#[from] FrameError),
    #[error("the peer sent a message that is out of place")]
    OutOfPlace,
}

/// A connection's signs of life, and the way to end it.
#[derive(Default)]
pub(crate) struct Pulse {
    heard: AtomicBool,
    /// Not reading by choice, so silence says nothing.
    deaf: AtomicBool,
    silent_pulses: AtomicU32,
    ping_due: AtomicBool,
    waker: AtomicWaker,
    pub(crate) closed: CancellationToken,
}

impl Pulse {
    pub(crate) fn new(closed: CancellationToken) -> Self {
        Self { closed, ..Self::default() }
    }

    /// Counts one more pulse. Asks for a sign of life in silence, and ends the connection when there was
    /// none for `silent_pulses_max`. Counting pulses instead of time makes a pause of this process look
    /// like one pulse, not like the silence of everyone else.
    pub(crate) fn beat(&self, silent_pulses_max: u32) {
        if self.heard.swap(false, Ordering::Relaxed) || self.deaf.load(Ordering::Relaxed) {
            self.silent_pulses.store(0, Ordering::Relaxed);
            return;
        }
        let silent = self.silent_pulses.fetch_add(1, Ordering::Relaxed) + 1;
        if silent >= silent_pulses_max {
            self.closed.cancel();
        } else if silent.is_multiple_of(PULSES_TO_PING) {
            self.ping_due.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    fn poll_ping(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.ping_due.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sizes that both ends agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Largest message that this end takes.
    pub(crate) taken_bytes_max: usize,
    /// Largest message that the other end takes.
    pub(crate) sent_bytes_max: usize,
}

/// Serves one connection until it ends.
pub(crate) async fn drive(
    mut stream: BoxStream,
    end: &impl End,
    pulse: &Pulse,
    sizes: Sizes,
) -> Ended {
    let mut encoder = Encoder::new(sizes.sent_bytes_max);
    let mut decoder = Decoder::new(sizes.taken_bytes_max);
    let mut input = BytesMut::with_capacity(READ_BYTES);
    // One pong answers all pings before it: whoever pings without reading must not fill our memory.
    let mut pong_due = false;
    let mut closed = pin!(pulse.closed.cancelled());
    loop {
        if !encoder.is_filled() {
            if pulse.ping_due.swap(false, Ordering::Relaxed) {
                encoder.put(Message::bare(Shape::Ping));
            }
            if std::mem::take(&mut pong_due) {
                encoder.put(Message::bare(Shape::Pong));
            }
            end.take_queued(&mut encoder);
            end.done_with(encoder.fill());
        }
        let may_read = end.may_read();
        pulse.deaf.store(!may_read, Ordering::Relaxed);
        let turn = poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Ended::Here));
            }
            let mut moved = poll_write(&mut stream, &mut encoder, cx)?;
            if may_read && poll_read(&mut stream, &mut input, cx)? {
                pulse.heard.store(true, Ordering::Relaxed);
                moved = true;
            }
            if !encoder.is_filled() {
                moved |= pulse.poll_ping(cx).is_ready() | end.poll_changed(cx).is_ready();
            }
            if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        if let Err(ended) = turn.await {
            return ended;
        }
        match take_arrived(&mut input, &mut decoder, end) {
            Ok(pinged) => pong_due |= pinged,
            Err(ended) => return ended,
        }
    }
}

fn poll_write(
    stream: &mut BoxStream,
    encoder: &mut Encoder,
    cx: &mut Context<'_>,
) -> Result<bool, Ended> {
    if !encoder.is_filled() {
        return Ok(false);
    }
    let (slices, count) = encoder.slices();
    let Poll::Ready(written) = Pin::new(stream).poll_write_vectored(cx, &slices[..count]) else {
        return Ok(false);
    };
    match written? {
        0 => Err(Ended::There),
        bytes => {
            encoder.advance(bytes);
            Ok(true)
        }
    }
}

fn poll_read(
    stream: &mut BoxStream,
    input: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Result<bool, Ended> {
    if input.capacity() - input.len() < READ_BYTES / 4 {
        input.reserve(READ_BYTES);
    }
    match pin!(stream.read_buf(input)).poll(cx) {
        Poll::Pending => Ok(false),
        Poll::Ready(read) => match read? {
            0 => Err(Ended::There),
            _ => Ok(true),
        },
    }
}

/// Hands on what has arrived, as far as it may; says whether a sign of life is asked for.
fn take_arrived(
    input: &mut BytesMut,
    decoder: &mut Decoder,
    end: &impl End,
) -> Result<bool, Ended> {
    let mut pinged = false;
    while !input.is_empty()
        && end.may_read()
        && let Some(message) = decoder.decode(input)?
    {
        match message.shape {
            Shape::Ping => pinged = true,
            Shape::Pong => {}
            Shape::Call | Shape::Send | Shape::Reply | Shape::Refusal | Shape::Lost => {
                if !end.arrived(message) {
                    return Err(Ended::OutOfPlace);
                }
            }
        }
    }
    Ok(pinged)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};
    use parking_lot::Mutex;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;

    const SIZES: Sizes = Sizes { taken_bytes_max: 1 << 20, sent_bytes_max: 1 << 20 };

    /// Takes calls and says nothing.
    #[derive(Default)]
    struct Ear(Mutex<Vec<Bytes>>);

    impl End for Ear {
        fn take_queued(&self, _encoder: &mut Encoder) {}

        fn poll_changed(&self, _cx: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn done_with(&self, _cost: usize) {}

        fn may_read(&self) -> bool {
            true
        }

        fn arrived(&self, message: Message) -> bool {
            self.0.lock().push(message.body);
            message.shape == Shape::Call
        }
    }

    fn frame(shape: Shape, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.put_u32(u32::try_from(10 + body.len()).unwrap());
        frame.put_slice(&[1, shape as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.put_slice(body);
        frame
    }

    /// How a connection ends on which this is written, and how many messages arrived before.
    async fn ended_by(written: &[u8]) -> (String, usize) {
        let (ear, pulse) = (Ear::default(), Pulse::default());
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(written).await.unwrap();
        near.shutdown().await.unwrap();
        let ended = drive(Box::new(far), &ear, &pulse, SIZES).await;
        (ended.to_string(), ear.0.into_inner().len())
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection_after_what_was_one() {
        let call = frame(Shape::Call, b"hello");
        let check = async |written: Vec<u8>, ended: &str, arrived: usize| {
            assert_eq!(ended_by(&written).await, (ended.to_owned(), arrived));
        };
        check([&call[..], &call[..9]].concat(), "closed by the peer", 1).await;
        check(call[..2].to_vec(), "closed by the peer", 0).await;
        let garbage = [&call[..], &b"*1\r\n$4\r\nPING\r\n"[..]].concat();
        check(garbage, "the peer sent a frame of 707857674 bytes", 1).await;
        let reply = frame(Shape::Reply, b"to nothing");
        check(reply, "the peer sent a message that is out of place", 1).await;
    }

    #[tokio::test]
    async fn a_sign_of_life_is_given_and_asked_for() {
        let (ear, pulse) = (Ear::default(), Pulse::default());
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let next = async |near: &mut DuplexStream| {
            let mut frame = [0; 14];
            near.read_exact(&mut frame).await.unwrap();
            frame[5]
        };
        let talking = async {
            near.write_all(&frame(Shape::Ping, b"")).await.unwrap();
            assert_eq!(next(&mut near).await, Shape::Pong as u8);
            // The first beat finds that something was heard, the fourth after it asks.
            (0..=PULSES_TO_PING).for_each(|_| pulse.beat(12));
            assert_eq!(next(&mut near).await, Shape::Ping as u8);
            (0..12).for_each(|_| pulse.beat(12));
        };
        let driven = drive(Box::new(far), &ear, &pulse, SIZES);
        let (ended, ()) = tokio::join!(driven, talking);
        assert!(matches!(ended, Ended::Here), "{ended}");
    }
}
