//! Inspects a gossip message before chitchat decodes it. Pure.
//!
//! chitchat trusts its peers: some messages that it would decode make it stop with a failed assertion, or
//! take memory without end. Here each number and each text must be one that our nodes write. The layout is
//! that of chitchat 0.11 (`message.rs`, `digest.rs`, `delta.rs`, `serialize.rs`), little endian.

use bytes::Buf;
use chitchat::{ChitchatId, Deserializable};

/// Lives that may be remembered. A digest names all of them, and must fit a datagram.
pub(crate) const LIVES_COUNT_MAX: usize = 900;

/// Bytes of a delta, unpacked: a kilobyte from each life.
const DELTA_BYTES_MAX: usize = 1 << 20;

/// Bytes of a packed block, unpacked.
const BLOCK_BYTES_MAX: usize = u16::MAX as usize;

/// Texts that a node says about itself, with room for those of later versions.
const TEXTS_COUNT_MAX: usize = 32;

const KEY_BYTES_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Versions and heartbeats count up from 1, a few a second at most.
const COUNT_MAX: u64 = 1 << 62;

const MAGIC: u16 = 45_139;
const VERSION: u8 = 0;

/// Why a message is not given to chitchat.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Odd {
    #[error("cut short")]
    Short,
    #[error("not a gossip message")]
    Kind,
    #[error("an odd name")]
    Name,
    #[error("an odd number")]
    Number,
    #[error("an odd text")]
    Text,
    #[error("too much at once")]
    Size,
    #[error("news of ourselves")]
    Own,
}

impl From<bytes::TryGetError> for Odd {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Short
    }
}

/// The lives that a message names in its digest, if nothing about it is odd to the node `own`.
pub(crate) fn inspect(mut input: &[u8], own: &ChitchatId) -> Result<Vec<ChitchatId>, Odd> {
    if input.try_get_u16_le()? != MAGIC || input.try_get_u8()? != VERSION {
        return Err(Odd::Kind);
    }
    match input.try_get_u8()? {
        // Syn: a digest and the cluster.
        0 => take_digest(&mut input),
        // SynAck: a digest and a delta.
        1 => {
            let lives = take_digest(&mut input)?;
            check_delta(input, own)?;
            Ok(lives)
        }
        // Ack: a delta.
        2 => check_delta(input, own).map(|()| Vec::new()),
        // BadCluster: nothing.
        3 => Ok(Vec::new()),
        _ => Err(Odd::Kind),
    }
}

fn take_digest(input: &mut &[u8]) -> Result<Vec<ChitchatId>, Odd> {
    let count = usize::from(input.try_get_u16_le()?);
    if count > LIVES_COUNT_MAX {
        return Err(Odd::Size);
    }
    let mut lives = Vec::with_capacity(count);
    for _ in 0..count {
        lives.push(take_life(input)?);
        for _ in ["heartbeat", "last collected version", "version"] {
            take_count(input)?;
        }
    }
    Ok(lives)
}

fn check_delta(input: &[u8], own: &ChitchatId) -> Result<(), Odd> {
    let delta = unpack(input)?;
    let mut input = &delta[..];
    let (mut named, mut texts, mut version) = (false, 0, 0);
    while !input.is_empty() {
        let tag = input.try_get_u8()?;
        if tag != 0 && !named {
            return Err(Odd::Kind);
        }
        match tag {
            // A node: what follows is news of it.
            0 => {
                if take_life(&mut input)? == *own {
                    return Err(Odd::Own);
                }
                take_count(&mut input)?;
                take_count(&mut input)?;
                (named, texts, version) = (true, 0, 0);
            }
            // A text, its version and whether it is deleted.
            1 => {
                take_key(&mut input)?;
                take_text(&mut input)?;
                let next = take_count(&mut input)?;
                texts += 1;
                if next <= version || texts > TEXTS_COUNT_MAX || input.try_get_u8()? > 2 {
                    return Err(Odd::Number);
                }
                version = next;
            }
            // The version, where there are no texts.
            2 => {
                let next = take_count(&mut input)?;
                if next < version {
                    return Err(Odd::Number);
                }
                version = next;
            }
            _ => return Err(Odd::Kind),
        }
    }
    Ok(())
}

/// A stream of blocks, each of them packed or not.
fn unpack(mut input: &[u8]) -> Result<Vec<u8>, Odd> {
    let mut unpacked = Vec::new();
    let mut block = vec![0; BLOCK_BYTES_MAX];
    loop {
        let kind = input.try_get_u8()?;
        if kind == 0 {
            return Ok(unpacked);
        }
        let len = usize::from(input.try_get_u16_le()?);
        let (packed, rest) = input.split_at_checked(len).ok_or(Odd::Short)?;
        input = rest;
        match kind {
            1 => {
                let len = zstd::bulk::decompress_to_buffer(packed, &mut block[..]);
                unpacked.extend_from_slice(&block[..len.map_err(|_| Odd::Size)?]);
            }
            2 => unpacked.extend_from_slice(packed),
            _ => return Err(Odd::Kind),
        }
        if unpacked.len() > DELTA_BYTES_MAX {
            return Err(Odd::Size);
        }
    }
}

/// A life's name is a node id: sixteen hexadecimal digits.
fn take_life(input: &mut &[u8]) -> Result<ChitchatId, Odd> {
    let id = ChitchatId::deserialize(input).map_err(|_| Odd::Name)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.node_id.len() == 16 && id.node_id.bytes().all(is_digit) { Ok(id) } else { Err(Odd::Name) }
}

fn take_count(input: &mut &[u8]) -> Result<u64, Odd> {
    let count = input.try_get_u64_le()?;
    if count < COUNT_MAX { Ok(count) } else { Err(Odd::Number) }
}

fn take_key(input: &mut &[u8]) -> Result<(), Odd> {
    let key = take_bytes(input)?;
    let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
    if fits && key.iter().all(u8::is_ascii_lowercase) { Ok(()) } else { Err(Odd::Text) }
}

fn take_text(input: &mut &[u8]) -> Result<(), Odd> {
    if take_bytes(input)?.len() <= TEXT_BYTES_MAX { Ok(()) } else { Err(Odd::Text) }
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Odd> {
    let len = usize::from(input.try_get_u16_le()?);
    let (bytes, rest) = input.split_at_checked(len).ok_or(Odd::Short)?;
    *input = rest;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use chitchat::Serializable;
    use proptest::prelude::*;

    use super::*;

    fn life(number: u64) -> ChitchatId {
        ChitchatId::new(format!("{number:016x}"), 1, SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    struct Delta(Vec<u8>);

    impl Delta {
        fn of(number: u64) -> Self {
            let mut delta = vec![0];
            life(number).serialize(&mut delta);
            delta.extend_from_slice(&[0; 16]);
            Self(delta)
        }

        fn text(mut self, key: &str, version: u64) -> Self {
            self.0.push(1);
            key.serialize(&mut self.0);
            "text".serialize(&mut self.0);
            self.version_at_end(version);
            self.0.push(0);
            self
        }

        fn version(mut self, version: u64) -> Self {
            self.0.push(2);
            self.version_at_end(version);
            self
        }

        fn version_at_end(&mut self, version: u64) {
            self.0.extend_from_slice(&version.to_le_bytes());
        }

        /// As an Ack, unpacked.
        fn message(&self) -> Vec<u8> {
            let len = u16::try_from(self.0.len()).unwrap().to_le_bytes();
            [&[0x53, 0xb0, 0, 2, 2][..], &len, &self.0, &[0]].concat()
        }
    }

    #[test]
    fn what_our_nodes_write_is_not_odd() {
        let delta = Delta::of(2).text("epoch", 1).text("leads", 5).message();
        assert_eq!(inspect(&delta, &life(1)), Ok(Vec::new()));
        let mut syn = vec![0x53, 0xb0, 0, 0, 1, 0];
        life(7).serialize(&mut syn);
        syn.extend_from_slice(&[1; 24]);
        "cluster".serialize(&mut syn);
        assert_eq!(inspect(&syn, &life(1)), Ok(vec![life(7)]));
    }

    #[test]
    fn what_would_stop_chitchat_is_odd() {
        let check = |delta: Delta, odd| assert_eq!(inspect(&delta.message(), &life(1)), Err(odd));
        check(Delta::of(1).text("epoch", 1), Odd::Own);
        check(Delta::of(2).text("epoch", 2).text("leads", 2), Odd::Number);
        check(Delta::of(2).text("epoch", 2).version(1), Odd::Number);
        check(Delta::of(2).text("epoch", u64::MAX), Odd::Number);
        check(Delta::of(2).text("ö", 1), Odd::Text);
        check(Delta(Vec::new()).text("epoch", 1), Odd::Kind);
    }

    #[test]
    fn a_little_that_unpacks_to_a_lot_is_odd() {
        let block = zstd::bulk::compress(&[0; BLOCK_BYTES_MAX], 0).unwrap();
        let mut message = vec![0x53, 0xb0, 0, 2];
        for _ in 0..40 {
            message.push(1);
            message.extend_from_slice(&u16::try_from(block.len()).unwrap().to_le_bytes());
            message.extend_from_slice(&block);
        }
        assert!(message.len() < 4096);
        assert_eq!(inspect(&message, &life(1)), Err(Odd::Size));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = inspect(&bytes, &life(1));
            let _ = inspect(&[&[0x53, 0xb0, 0, 1][..], &bytes].concat(), &life(1));
            let _ = inspect(&Delta(bytes).message(), &life(1));
        }
    }
}
