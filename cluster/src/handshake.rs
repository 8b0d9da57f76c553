//! How two nodes find out whether they have business with each other, before the first frame.
//!
//! The caller sends its hello, the called one its welcome with a proof, the caller its proof, the called
//! one its verdict. At any step the called one may refuse instead, in words. Each packet is
//! `magic | wire version u16 | len u16 | payload`; that much, and the form of a refusal, all versions share.

use std::io;

use bytes::{Buf, BufMut};
use scatterhoard_ring::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::secret::{End, Nonce, PROOF_BYTES, Proof, proof, same};
use crate::{BoxStream, Lane, Secret};

/// The version of everything on a peer connection. Nodes of different versions do not talk.
pub(crate) const WIRE_VERSION: u16 = 1;

/// Texts in a handshake are cut to this.
pub(crate) const TEXT_BYTES_MAX: usize = 64;

const MAGIC: [u8; 4] = *b"Hrdp";
const ENVELOPE_BYTES: usize = 8;
const PAYLOAD_BYTES_MAX: usize = 1024;
const REFUSAL_BYTES_MAX: usize = 512;
const SECRETS_DIFFER: &str = "the secrets of the two nodes differ";
const WELCOME: u8 = 0;
const REFUSED: u8 = 1;

/// What one end says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Zero: not yet known.
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) has_secret: bool,
    pub(crate) message_bytes_max: u64,
    pub(crate) nonce: Nonce,
    pub(crate) build: String,
    /// Empty: not yet known.
    pub(crate) timers: String,
}

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Zero: whoever is there.
    pub(crate) node: NodeId,
    pub(crate) lane: Lane,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The other end would not have us.
    #[error("refused: {0}")]
    Refused(String),
    /// We would not have the other end.
    #[error("{0}")]
    Refusing(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The caller's side: who is there.
pub(crate) async fn call(
    stream: &mut BoxStream,
    ours: &Greeting,
    wish: Wish,
    secret: Option<&Secret>,
) -> Result<Greeting, HandshakeError> {
    let mut hello = Vec::with_capacity(256);
    put_wish(&mut hello, wish);
    put_greeting(&mut hello, ours);
    write_packet(stream, &hello).await?;

    let welcome = read_verdict(stream).await?;
    let too_short = || HandshakeError::Refusing("a welcome that is too short".to_owned());
    let (welcome, proven) = welcome.split_last_chunk::<PROOF_BYTES>().ok_or_else(too_short)?;
    let theirs = take_greeting(&mut &welcome[..])
        .ok_or_else(|| HandshakeError::Refusing("a welcome that cannot be read".to_owned()))?;
    if let Some(reason) = objection(ours, &theirs) {
        return Err(HandshakeError::Refusing(reason));
    }
    if !same(*proven, proof(secret, End::Called, &hello, welcome)) {
        // No proof in return: the other end shall know why we go, and say so where its people look.
        let told = async {
            write_packet(stream, &[]).await?;
            read_verdict(stream).await
        };
        let _whatever_it_says = told.await;
        return Err(HandshakeError::Refusing(SECRETS_DIFFER.to_owned()));
    }
    if wish.node.number() != 0 && wish.node != theirs.node {
        let reason = format!("node {} is there, not {}", theirs.node, wish.node);
        return Err(HandshakeError::Refusing(reason));
    }
    write_packet(stream, &proof(secret, End::Caller, &hello, welcome)).await?;
    read_verdict(stream).await?;
    Ok(theirs)
}

/// The called one's side: who calls, and on which lane.
pub(crate) async fn answer(
    stream: &mut BoxStream,
    ours: &Greeting,
    secret: Option<&Secret>,
) -> Result<(Greeting, Lane), HandshakeError> {
    let answered = welcome(stream, ours, secret).await;
    if let Err(HandshakeError::Refusing(reason)) = &answered {
        let mut refusal = vec![REFUSED];
        let end = reason.floor_char_boundary(REFUSAL_BYTES_MAX);
        refusal.extend_from_slice(&reason.as_bytes()[..end]);
        write_packet(stream, &refusal).await?;
    }
    answered
}

async fn welcome(
    stream: &mut BoxStream,
    ours: &Greeting,
    secret: Option<&Secret>,
) -> Result<(Greeting, Lane), HandshakeError> {
    let refusing = |reason: &str| HandshakeError::Refusing(reason.to_owned());
    let hello = read_packet(stream).await?;
    if hello.version != WIRE_VERSION {
        let version = hello.version;
        return Err(HandshakeError::Refusing(format!(
            "wire version {version} does not talk to {WIRE_VERSION} (build {})",
            ours.build
        )));
    }
    let mut input = &hello.payload[..];
    let unread = || refusing("a hello that cannot be read");
    let wish = take_wish(&mut input).ok_or_else(unread)?;
    let theirs = take_greeting(&mut input).ok_or_else(unread)?;
    if let Some(reason) = objection(&theirs, ours) {
        return Err(HandshakeError::Refusing(reason));
    }
    if wish.node.number() != 0 && wish.node != ours.node {
        let reason = format!("this is node {}, not {}", ours.node, wish.node);
        return Err(HandshakeError::Refusing(reason));
    }

    let mut welcome = Vec::with_capacity(256);
    put_greeting(&mut welcome, ours);
    let proven = proof(secret, End::Called, &hello.payload, &welcome);
    let verdict = [&[WELCOME][..], &welcome, &proven].concat();
    write_packet(stream, &verdict).await?;

    let proven = read_packet(stream).await?;
    let proven = Proof::try_from(&proven.payload[..]).map_err(|_| refusing(SECRETS_DIFFER))?;
    if !same(proven, proof(secret, End::Caller, &hello.payload, &welcome)) {
        return Err(refusing(SECRETS_DIFFER));
    }
    write_packet(stream, &[WELCOME]).await?;
    Ok((theirs, wish.lane))
}

/// Why two ends would not talk to each other, if so. Both judge alike, and say it in the same words: the
/// caller is told what the called one logs.
fn objection(caller: &Greeting, called: &Greeting) -> Option<String> {
    let known = |cluster: ClusterId| cluster.number() != 0;
    if known(caller.cluster) && known(called.cluster) && caller.cluster != called.cluster {
        return Some(format!("cluster {} does not talk to {}", called.cluster, caller.cluster));
    }
    match (caller.has_secret, called.has_secret) {
        (true, true) | (false, false) => {}
        (true, false) => {
            return Some("the caller has a secret, the called node none".to_owned());
        }
        (false, true) => {
            return Some("the called node has a secret, the caller none".to_owned());
        }
    }
    if !caller.timers.is_empty() && !called.timers.is_empty() && caller.timers != called.timers {
        return Some(format!(
            "timers differ: the caller's are {} (build {}), the called node's {} (build {})",
            caller.timers, caller.build, called.timers, called.build
        ));
    }
    let unnamed = [caller, called].into_iter().any(|end| end.node.number() == 0);
    unnamed.then(|| "a node without an id".to_owned())
}

fn put_wish(out: &mut Vec<u8>, wish: Wish) {
    out.put_u64(wish.node.number());
    out.put_u8(match wish.lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    });
}

fn take_wish(input: &mut &[u8]) -> Option<Wish> {
    let node = NodeId::new(input.try_get_u64().ok()?);
    let lane = match input.try_get_u8().ok()? {
        0 => Lane::Control,
        1 => Lane::Bulk,
        _ => return None,
    };
    Some(Wish { node, lane })
}

fn put_greeting(out: &mut Vec<u8>, greeting: &Greeting) {
    out.put_u128(greeting.cluster.number());
    out.put_u64(greeting.node.number());
    out.put_u8(u8::from(greeting.has_secret));
    out.put_u64(greeting.message_bytes_max);
    out.put_slice(&greeting.nonce);
    for text in [&greeting.build, &greeting.timers] {
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        out.put_u8(u8::try_from(end).expect("a text is cut to 64 bytes"));
        out.put_slice(&text.as_bytes()[..end]);
    }
}

fn take_greeting(input: &mut &[u8]) -> Option<Greeting> {
    let cluster = ClusterId::new(input.try_get_u128().ok()?);
    let node = NodeId::new(input.try_get_u64().ok()?);
    let has_secret = input.try_get_u8().ok()? != 0;
    let message_bytes_max = input.try_get_u64().ok()?;
    let (nonce, rest) = input.split_first_chunk::<PROOF_BYTES>()?;
    *input = rest;
    let (build, timers) = (take_text(input)?, take_text(input)?);
    Some(Greeting { cluster, node, has_secret, message_bytes_max, nonce: *nonce, build, timers })
}

fn take_text(input: &mut &[u8]) -> Option<String> {
    let len = usize::from(input.try_get_u8().ok()?);
    let (text, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(printable(text))
}

/// What a stranger wrote, fit for a log.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

struct Packet {
    version: u16,
    payload: Vec<u8>,
}

async fn write_packet(stream: &mut BoxStream, payload: &[u8]) -> io::Result<()> {
    let mut packet = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    packet.put_slice(&MAGIC);
    packet.put_u16(WIRE_VERSION);
    packet.put_u16(u16::try_from(payload.len()).expect("our packets have at most 1 KiB"));
    packet.put_slice(payload);
    stream.write_all(&packet).await?;
    stream.flush().await
}

async fn read_packet(stream: &mut BoxStream) -> Result<Packet, HandshakeError> {
    let mut envelope = [0; ENVELOPE_BYTES];
    stream.read_exact(&mut envelope).await?;
    let mut input = &envelope[..];
    if !input.starts_with(&MAGIC) {
        return Err(HandshakeError::Refusing("not a Scatterhoard peer".to_owned()));
    }
    input.advance(MAGIC.len());
    let (version, len) = (input.get_u16(), usize::from(input.get_u16()));
    if len > PAYLOAD_BYTES_MAX {
        return Err(HandshakeError::Refusing(format!("a packet of {len} bytes")));
    }
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await?;
    Ok(Packet { version, payload })
}

/// What comes with a welcome. A refusal can be read whatever the version.
async fn read_verdict(stream: &mut BoxStream) -> Result<Vec<u8>, HandshakeError> {
    let Packet { version, mut payload } = read_packet(stream).await?;
    match payload.first() {
        Some(&REFUSED) => Err(HandshakeError::Refused(printable(&payload[1..]))),
        Some(&WELCOME) if version == WIRE_VERSION => {
            payload.remove(0);
            Ok(payload)
        }
        _ => {
            let reason = format!("wire version {version} does not talk to {WIRE_VERSION}");
            Err(HandshakeError::Refusing(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting(cluster: u128, node: u64) -> Greeting {
        Greeting {
            cluster: ClusterId::new(cluster),
            node: NodeId::new(node),
            has_secret: false,
            message_bytes_max: 1 << 20,
            nonce: [9; PROOF_BYTES],
            build: "0.1.0".to_owned(),
            timers: String::new(),
        }
    }

    /// What the caller and the called one make of each other.
    async fn meet(
        caller: (&Greeting, Option<&Secret>),
        wish: u64,
        called: (&Greeting, Option<&Secret>),
    ) -> (Result<Greeting, String>, Result<(Greeting, Lane), String>) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (mut ours, mut theirs): (BoxStream, BoxStream) = (Box::new(ours), Box::new(theirs));
        let wish = Wish { node: NodeId::new(wish), lane: Lane::Bulk };
        let calling = async move { call(&mut ours, caller.0, wish, caller.1).await };
        let answering = async move { answer(&mut theirs, called.0, called.1).await };
        let (a, b) = tokio::join!(calling, answering);
        (a.map_err(|error| error.to_string()), b.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_hello_has_these_bytes() {
        let (left, mut right) = tokio::io::duplex(4096);
        let mut left: BoxStream = Box::new(left);
        let ours = Greeting { timers: "t".to_owned(), ..greeting(5, 1) };
        let wish = Wish { node: NodeId::new(2), lane: Lane::Bulk };
        let reading = async move {
            let mut hello = vec![0; 8 + 82];
            right.read_exact(&mut hello).await.unwrap();
            hello
        };
        let (_, hello) = tokio::join!(call(&mut left, &ours, wish, None), reading);
        let numbers = [0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        let golden = [
            &b"Hrdp\x00\x01\x00\x52"[..],
            &numbers,
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0, 0],
            &[9; 32],
            b"\x050.1.0\x01t",
        ];
        assert_eq!(hello, golden.concat());
    }

    #[tokio::test]
    async fn nodes_of_one_cluster_meet() {
        let (a, b) = (greeting(5, 1), greeting(5, 2));
        let (called, caller) = meet((&a, None), 2, (&b, None)).await;
        assert_eq!(called.unwrap(), b);
        assert_eq!(caller.unwrap(), (a.clone(), Lane::Bulk));
        // One that has no cluster yet may ask anyone.
        let newcomer = greeting(0, 3);
        assert!(meet((&newcomer, None), 0, (&b, None)).await.0.is_ok());
    }

    #[tokio::test]
    async fn strangers_are_told_why_they_are_refused() {
        let (a, b) = (greeting(5, 1), greeting(5, 2));
        let told = |(called, _): (Result<Greeting, String>, _)| called.unwrap_err();
        let other = greeting(6, 1);
        let text = told(meet((&other, None), 0, (&b, None)).await);
        assert!(text.starts_with("refused: cluster 0"), "{text}");
        let text = told(meet((&a, None), 3, (&b, None)).await);
        assert!(text.starts_with("refused: this is node"), "{text}");
        let slow = Greeting { timers: "250/750".to_owned(), ..a.clone() };
        let quick = Greeting { timers: "100/300".to_owned(), ..b.clone() };
        let text = told(meet((&slow, None), 2, (&quick, None)).await);
        assert!(text.contains("timers differ: the caller's are 250/750"), "{text}");
    }

    #[tokio::test]
    async fn who_does_not_know_the_secret_is_refused() {
        let (ours, theirs) = (Secret::parse(b"a").unwrap(), Secret::parse(b"b").unwrap());
        let knowing = |node| Greeting { has_secret: true, ..greeting(5, node) };
        let (a, b) = (knowing(1), knowing(2));
        assert!(meet((&a, Some(&ours)), 2, (&b, Some(&ours))).await.1.is_ok());
        let (called, caller) = meet((&a, Some(&theirs)), 2, (&b, Some(&ours))).await;
        let differ = "the secrets of the two nodes differ";
        assert_eq!(
            (called.unwrap_err(), caller.unwrap_err()),
            (differ.to_owned(), differ.to_owned())
        );
        // A caller that does not mind the called one's proof is refused by its own.
        let (left, right) = tokio::io::duplex(4096);
        let (mut left, mut right): (BoxStream, BoxStream) = (Box::new(left), Box::new(right));
        let forger = async move {
            let mut hello = Vec::new();
            put_wish(&mut hello, Wish { node: NodeId::new(2), lane: Lane::Control });
            put_greeting(&mut hello, &knowing(1));
            write_packet(&mut left, &hello).await.unwrap();
            read_verdict(&mut left).await.unwrap();
            write_packet(&mut left, &[0; PROOF_BYTES]).await.unwrap();
            read_verdict(&mut left).await.unwrap_err().to_string()
        };
        let (told, answered) = tokio::join!(forger, answer(&mut right, &b, Some(&ours)));
        assert_eq!(told, format!("refused: {differ}"));
        assert!(answered.is_err());
        let (called, caller) = meet((&greeting(5, 1), None), 2, (&b, Some(&ours))).await;
        let text = "the called node has a secret, the caller none";
        assert_eq!(called.unwrap_err(), format!("refused: {text}"));
        assert_eq!(caller.unwrap_err(), text);
        let (called, _) = meet((&a, Some(&ours)), 2, (&greeting(5, 2), None)).await;
        let text = "the caller has a secret, the called node none";
        assert_eq!(called.unwrap_err(), format!("refused: {text}"));
    }

    #[tokio::test]
    async fn another_wire_version_is_refused_in_words() {
        let (mut left, right) = tokio::io::duplex(4096);
        let mut right: BoxStream = Box::new(right);
        let b = greeting(5, 2);
        let old = async move {
            left.write_all(b"Hrdp\x00\x63\x00\x01?").await.unwrap();
            let mut told = Vec::new();
            left.read_to_end(&mut told).await.unwrap();
            String::from_utf8_lossy(&told).into_owned()
        };
        let answering = async {
            let answered = answer(&mut right, &b, None).await;
            drop(right);
            answered
        };
        let (told, answered) = tokio::join!(old, answering);
        assert!(told.contains("wire version 99 does not talk to 1"), "{told}");
        assert!(answered.is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_greeting_and_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = take_wish(&mut &bytes[..]);
            let _ = take_greeting(&mut &bytes[..]);
        }
    }
}
