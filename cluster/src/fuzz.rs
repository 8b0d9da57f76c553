//! What must hold of any bytes from a peer or a stranger. For tests and fuzzers only.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_ring::{
    ClusterId, Endpoints, Epoch, Generation, GroupId, NodeId, PartitionId, Standing,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::advert::Key;
use crate::frame::{Decoder, Encoder, FRAGMENT_BYTES, FrameError, Message, Shape};
use crate::handshake::{Greeting, Wish, answer, call};
use crate::secret::Seal;
use crate::{
    Advert, BoxStream, Datagrams, Gossip, GossipConfig, Lane, Leadership, Listener, Network, Secret,
};

/// Largest message in these runs.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Frames: the first byte chooses how they are cut, the others are a stream's bytes. If it is odd, each
/// frame is filled up to the length it announces: inputs are short, and fragments long.
///
/// However the stream is cut, the same messages and the same error come out; no more is held than the
/// decoder is told; and what was read is read again as it was from the encoder's writing.
pub fn frames(input: &[u8]) {
    let Some((&choice, stream)) = input.split_first() else { return };
    let stream = if choice & 1 == 0 { stream.to_vec() } else { filled(stream) };
    let (messages, end) = read_frames(&stream, usize::MAX);
    let piece_bytes = if stream.len() > 8192 { 4093 } else { usize::from(choice >> 1) + 1 };
    let cut = read_frames(&stream, piece_bytes);
    assert_eq!(cut, (messages.clone(), end), "in pieces of {piece_bytes}");

    let (small, mut large) = by_size(messages);
    // Two of one number are never under way at once.
    if large.windows(2).all(|pair| number_of(&pair[0]) != number_of(&pair[1])) {
        let (back, end) = read_frames(&write_frames(&[&small[..], &large].concat()), usize::MAX);
        assert_eq!(end, Ok(0));
        let back = by_size(back);
        large.sort_by_key(number_of);
        assert_eq!(back, (small, large), "written and read again");
    }
}

/// Messages of one frame in their order, and those of several by number: they take turns.
fn by_size(messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    let (small, mut large): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.body.len() <= FRAGMENT_BYTES);
    large.sort_by_key(number_of);
    (small, large)
}

fn number_of(message: &Message) -> (Shape, u64) {
    (message.shape, message.request)
}

/// Each frame's head and the first bytes of its body as they are, and the rest of what it announces.
fn filled(input: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), input);
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let announced = u32::from_be_bytes(*head) as usize;
        // Kind, flags, request, total and offset.
        let here = announced.min(after.len()).min(18);
        out.extend_from_slice(head);
        out.extend_from_slice(&after[..here]);
        if announced <= 2 * FRAGMENT_BYTES && out.len() < 2 * MESSAGE_BYTES_MAX {
            out.resize(out.len() + announced - here, 7);
        }
        rest = &after[here..];
    }
    out.extend_from_slice(rest);
    out
}

fn read_frames(stream: &[u8], piece_bytes: usize) -> (Vec<Message>, Result<usize, FrameError>) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => {
                    assert!(message.body.len() <= MESSAGE_BYTES_MAX);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
            assert!(decoder.unfinished_bytes <= MESSAGE_BYTES_MAX);
        }
    }
    (messages, Ok(input.len()))
}

fn write_frames(messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new(MESSAGE_BYTES_MAX);
    messages.iter().cloned().for_each(|message| encoder.put(message));
    let mut out = Vec::new();
    loop {
        encoder.fill();
        if !encoder.is_filled() {
            return out;
        }
        while encoder.is_filled() {
            let (slices, count) = encoder.slices();
            let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
            slices[..count].iter().for_each(|slice| out.extend_from_slice(slice));
            encoder.advance(bytes);
        }
    }
}

/// What one end of a handshake is sent by the other. The first byte chooses the end, and whether there is a
/// secret.
///
/// Nothing panics, however it is cut; and nobody who does not know the secret is let in.
pub fn handshakes(input: &[u8]) {
    let Some((&choice, sent)) = input.split_first() else { return };
    let (whole, _) = meet(choice, sent, usize::MAX);
    assert_eq!(meet(choice, sent, 1).0, whole, "byte by byte");
    if let Ok(theirs) = whole {
        assert!(choice & WITH_SECRET == 0, "without the secret nobody is let in");
        assert!(theirs.node.number() != 0 && !theirs.has_secret);
        assert!(!theirs.build.chars().chain(theirs.timers.chars()).any(char::is_control));
    }
}

const WITH_SECRET: u8 = 1;
const OF_NO_CLUSTER: u8 = 2;
const CALLING: u8 = 4;

/// What an end makes of what it is sent in pieces of this length, and what it says.
fn meet(choice: u8, sent: &[u8], piece_bytes: usize) -> (Result<Greeting, String>, Vec<u8>) {
    let secret = Secret::parse(b"open sesame").expect("it is not empty");
    let secret = (choice & WITH_SECRET != 0).then_some(&secret);
    let ours = Greeting {
        cluster: ClusterId::new(if choice & OF_NO_CLUSTER == 0 { 5 } else { 0 }),
        node: NodeId::new(1),
        has_secret: secret.is_some(),
        message_bytes_max: 1 << 20,
        // Follows from the input, so that no input can hold the proof that answers it.
        nonce: *blake3::hash(sent).as_bytes(),
        build: "0.1.0".to_owned(),
        timers: "t".to_owned(),
    };
    let said = Arc::new(Mutex::new(Vec::new()));
    let script = Script { rest: sent.to_vec(), piece_bytes, said: Arc::clone(&said) };
    let mut stream: BoxStream = Box::new(script);
    let theirs = if choice & CALLING == 0 {
        ready(answer(&mut stream, &ours, secret)).map(|(theirs, _)| theirs)
    } else {
        let wish = Wish { node: NodeId::new(u64::from(choice >> 4)), lane: Lane::Bulk };
        ready(call(&mut stream, &ours, wish, secret))
    };
    let said = std::mem::take(&mut *said.lock());
    (theirs.map_err(|error| error.to_string()), said)
}

/// A peer that says what it says, whatever it hears.
struct Script {
    rest: Vec<u8>,
    piece_bytes: usize,
    /// What the other end says.
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.rest.len().min(buffer.remaining()).min(self.piece_bytes);
        buffer.put_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.said.lock().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A future that waits for nobody.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a script is always ready"),
    }
}

/// Datagrams, each after its length in two bytes, little-endian; handed to a node's gossip as they are, and
/// sealed as a member seals them.
///
/// What is not sealed by a member is not opened, and what is, opens to what was sealed. Whatever members
/// say, chitchat goes on, and whoever is seen alive has an advert that is read as it was written.
pub fn gossip(input: &[u8]) {
    let mut rest = input;
    let mut datagrams = Vec::new();
    let seal = Seal::new(None, CLUSTER);
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (payload, next) = after.split_at(length);
        rest = next;
        let mut sealed = Vec::new();
        seal.seal(payload, &mut sealed);
        assert_eq!(seal.open(&sealed), Ok(payload));
        if let Ok(opened) = seal.open(payload) {
            let mut again = Vec::new();
            seal.seal(opened, &mut again);
            assert_eq!(again, payload, "only what a member sealed is opened");
        }
        datagrams.extend([payload.to_vec(), sealed]);
    }
    hear(1, datagrams, Duration::ZERO);
}

const CLUSTER: ClusterId = ClusterId::new(7);

/// Runs a node's gossip until it has heard all of the datagrams, and so much longer. Answers what it sent.
fn hear(node: u16, datagrams: Vec<Vec<u8>>, longer: Duration) -> Vec<Vec<u8>> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time();
    #[cfg(test)]
    builder.start_paused(true);
    let runtime = builder.build().expect("a runtime without I/O needs nothing");
    let (count, ether) = (datagrams.len(), Ether::of(datagrams));
    runtime.block_on(async {
        let net = Arc::new(ether.clone());
        let gossip = Gossip::start(net, config(node), advert(node)).await.expect("it is free");
        // Each datagram takes one turn of chitchat's loop, which is a few of the runtime's.
        for _ in 0..100 + 10 * count {
            tokio::task::yield_now().await;
        }
        if !longer.is_zero() {
            tokio::time::sleep(longer).await;
        }
        assert!(ether.heard.load(Ordering::Relaxed) > count, "chitchat has stopped");
        let view = gossip.views().borrow().clone();
        for seen in view.alive.values() {
            let texts: BTreeMap<_, _> =
                Key::ALL.into_iter().map(|key| (key, seen.advert.text(key))).collect();
            let again = Advert::parse(|key| texts.get(&key).map(String::as_str));
            assert_eq!(again.as_ref(), Some(&seen.advert));
        }
    });
    std::mem::take(&mut *ether.sent.lock())
}

fn config(node: u16) -> GossipConfig {
    GossipConfig {
        cluster: CLUSTER,
        node: NodeId::new(node.into()),
        incarnation_ms: 1,
        advertise: at(node),
        listen: at(node),
        seeds: vec![at(9)],
        interval: GossipConfig::INTERVAL,
        secret: None,
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn advert(node: u16) -> Advert {
    let group = GroupId::Partition(PartitionId::new(3));
    Advert {
        name: format!("n{node}"),
        zone: "z".to_owned(),
        version: "0.1.0".to_owned(),
        endpoints: Endpoints { peer: at(node), listen: at(2), any_key: at(3), http: at(4) },
        epoch: Epoch { generation: Generation::new(1), index: 1 },
        leaderships: vec![Leadership { group, generation: Generation::new(1), term: 4 }],
        budget_bytes: 1 << 20,
        standing: Standing::Active,
    }
}

/// A network in which datagrams come from nowhere, and go nowhere.
#[derive(Clone)]
struct Ether {
    datagrams: Arc<Vec<Vec<u8>>>,
    /// How often someone has asked for one.
    heard: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Ether {
    fn of(datagrams: Vec<Vec<u8>>) -> Self {
        Self { datagrams: Arc::new(datagrams), heard: Arc::default(), sent: Arc::default() }
    }
}

impl Network for Ether {
    fn bind_tcp(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        unreachable!("gossip speaks UDP")
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        unreachable!("gossip speaks UDP")
    }

    fn bind_udp(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let datagrams: Box<dyn Datagrams> = Box::new(self.clone());
        Box::pin(async { Ok(datagrams) })
    }

    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        unreachable!("gossip is given addresses")
    }
}

impl Datagrams for Ether {
    fn send_to<'a>(&'a self, payload: &'a [u8], _: SocketAddr) -> BoxFuture<'a, io::Result<usize>> {
        self.sent.lock().push(payload.to_vec());
        Box::pin(async { Ok(payload.len()) })
    }

    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            let number = self.heard.fetch_add(1, Ordering::Relaxed);
            let Some(datagram) = self.datagrams.get(number) else {
                return std::future::pending().await;
            };
            let count = datagram.len().min(buffer.len());
            buffer[..count].copy_from_slice(&datagram[..count]);
            Ok((count, at(9)))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(at(1))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use scatterhoard_fuzz::{bounded, joined};

    use super::*;

    #[test]
    fn any_frames_are_read_alike_however_cut() {
        let message = |shape, request, bytes| Message {
            shape,
            kind: 0x10,
            request,
            body: Bytes::from(vec![7; bytes]),
        };
        let mixed = [
            message(Shape::Call, 1, 20),
            message(Shape::Ping, 0, 0),
            message(Shape::Reply, 258, 3),
            message(Shape::Refusal, u64::MAX, 40),
        ];
        // The heads of the fragments of two messages that take turns, and of one between them.
        let heads = |total: u32, request: u8, offset: u32| {
            let body = (total - offset).min(FRAGMENT_BYTES as u32);
            let mut head = (18 + body).to_be_bytes().to_vec();
            head.extend_from_slice(&[0x10, 0x10, 0, 0, 0, 0, 0, 0, 0, request]);
            head.extend_from_slice(&[total.to_be_bytes(), offset.to_be_bytes()].concat());
            head
        };
        let (whole, rest) = (300_000, FRAGMENT_BYTES as u32);
        let turns = [heads(whole, 1, 0), heads(whole, 2, 0), heads(whole, 2, rest)];
        let ping = write_frames(&mixed[1..2]);
        let turns = [&[1][..], &turns.concat(), &ping, &heads(whole, 1, rest)].concat();
        let seeds = [[&[6][..], &write_frames(&mixed)].concat(), turns];
        let (messages, end) = read_frames(&filled(&seeds[1][1..]), usize::MAX);
        assert_eq!((messages.len(), end), (3, Ok(0)), "the seed is what it should be");
        bounded("frames", &seeds, frames);
    }

    #[test]
    fn any_handshake_ends_and_lets_no_stranger_in() {
        let mut seeds = Vec::new();
        for choice in [0, WITH_SECRET, OF_NO_CLUSTER] {
            // Each end hears what the other says to what it has heard so far.
            let mut called = Vec::new();
            for _ in 0..3 {
                let caller = meet(choice | CALLING, &called, usize::MAX).1;
                called = meet(choice, &caller, usize::MAX).1;
                seeds.push([&[choice | CALLING][..], &called].concat());
                seeds.push([&[choice][..], &caller].concat());
            }
        }
        bounded("handshakes", &seeds, handshakes);
    }

    #[test]
    fn any_datagrams_leave_gossip_alive() {
        let seal = Seal::new(None, CLUSTER);
        let payload = |sealed: &Vec<u8>| seal.open(sealed).expect("we sealed it").to_vec();
        let mut seeds = Vec::new();
        let mut heard = Vec::new();
        // A question, the answer to it, and the answer to that.
        for node in [1, 2, 1, 2] {
            heard = hear(node, heard, 2 * GossipConfig::INTERVAL);
            assert!(!heard.is_empty(), "it says something");
            let payloads: Vec<_> = heard.iter().map(payload).collect();
            seeds.push(joined(payloads.iter().map(Vec::as_slice)));
        }
        bounded("gossip", &seeds, gossip);
    }
}
