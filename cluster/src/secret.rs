//! The cluster's secret and the proofs made from it. Knows nothing of sockets; never prints a secret.
//!
//! It authenticates who opens a connection and who sends a datagram. It does not encrypt, and it does not
//! protect a connection that was opened from someone who can write into it.

use std::fmt;

use scatterhoard_ring::{ClusterId, NodeId};

/// Bytes of a proof, and of the number only used once that it answers.
pub(crate) const PROOF_BYTES: usize = 32;

/// A proof of knowing the secret.
pub(crate) type Proof = [u8; PROOF_BYTES];

/// A number used once.
pub(crate) type Nonce = [u8; PROOF_BYTES];

/// What all members know and nobody else.
#[derive(Clone)]
pub struct Secret {
    handshake: [u8; 32],
    gossip: [u8; 32],
    nonce: [u8; 32],
}

/// Why bytes are no secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// There is nothing in it but white space.
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// The secret in a file with this content. White space around it does not count, so that an editor's
    /// newline does no harm.
    pub fn parse(content: &[u8]) -> Result<Self, SecretError> {
        let content = content.trim_ascii();
        if content.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self {
            handshake: blake3::derive_key("scatterhoard peer handshake v1", content),
            gossip: blake3::derive_key("scatterhoard gossip datagram v1", content),
            nonce: blake3::derive_key("scatterhoard handshake nonce v1", content),
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which end of a connection proves itself. The ends' proofs differ, so that none can be sent back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Caller,
    Called,
}

/// What this end sends to prove that it knows the secret: over both ends' first messages, with their
/// nonces. Zeroes where the cluster has no secret.
pub(crate) fn proof(secret: Option<&Secret>, end: End, hello: &[u8], welcome: &[u8]) -> Proof {
    let Some(secret) = secret else { return [0; PROOF_BYTES] };
    let mut hasher = blake3::Hasher::new_keyed(&secret.handshake);
    hasher.update(&[match end {
        End::Caller => 1,
        End::Called => 2,
    }]);
    hasher.update(&(hello.len() as u64).to_be_bytes());
    hasher.update(hello);
    hasher.update(welcome);
    *hasher.finalize().as_bytes()
}

/// Compares without telling by the time it takes where two proofs differ.
pub(crate) fn same(a: Proof, b: Proof) -> bool {
    blake3::Hash::from_bytes(a) == blake3::Hash::from_bytes(b)
}

/// A number that this process uses once. Nobody without the secret can foresee it: it hashes the secret,
/// the id of this life of the process, and a count.
pub(crate) fn nonce(secret: Option<&Secret>, node: NodeId, count: u64) -> Nonce {
    let key = secret.map_or([0; 32], |secret| secret.nonce);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&node.number().to_be_bytes());
    hasher.update(&count.to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// Seals and opens the gossip datagrams of one cluster.
///
/// A datagram is `magic | version | tag of the cluster | MAC | payload`. Without a secret the MAC's key
/// follows from the cluster id, which keeps strangers and damaged packets out, but no enemy.
#[derive(Clone)]
pub(crate) struct Seal {
    tag: [u8; 8],
    key: [u8; 32],
}

/// Why a datagram was not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SealError {
    #[error("not a gossip datagram")]
    Foreign,
    #[error("gossip version {0}, here {VERSION}")]
    Version(u8),
    #[error("from another cluster")]
    Cluster,
    #[error("damaged, or sealed with another secret")]
    Mac,
}

const MAGIC: [u8; 4] = *b"Hrdg";
const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;

impl Seal {
    /// Bytes that sealing adds.
    #[cfg(test)]
    const OVERHEAD: usize = MAGIC.len() + 1 + 8 + MAC_BYTES;

    pub(crate) fn new(secret: Option<&Secret>, cluster: ClusterId) -> Self {
        let id = cluster.number().to_be_bytes();
        let outer = secret.map_or([0; 32], |secret| secret.gossip);
        let mut tag = [0; 8];
        tag.copy_from_slice(&blake3::derive_key("scatterhoard gossip tag v1", &id)[..8]);
        Self { tag, key: *blake3::keyed_hash(&outer, &id).as_bytes() }
    }

    /// Puts the sealed payload into `out`, which is cleared first.
    pub(crate) fn seal(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.tag);
        out.extend_from_slice(&self.mac(payload));
        out.extend_from_slice(payload);
    }

    /// The payload of a datagram that a member of this cluster sealed.
    pub(crate) fn open<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], SealError> {
        let rest = datagram.strip_prefix(&MAGIC).ok_or(SealError::Foreign)?;
        let (&version, rest) = rest.split_first().ok_or(SealError::Foreign)?;
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        let (tag, rest) = rest.split_first_chunk::<8>().ok_or(SealError::Foreign)?;
        if *tag != self.tag {
            return Err(SealError::Cluster);
        }
        let (mac, payload) = rest.split_first_chunk::<MAC_BYTES>().ok_or(SealError::Foreign)?;
        // Padded to whole hashes, whose comparison takes the same time wherever they differ.
        let padded = |mac: &[u8; MAC_BYTES]| {
            let mut whole = [0; PROOF_BYTES];
            whole[..MAC_BYTES].copy_from_slice(mac);
            whole
        };
        if !same(padded(mac), padded(&self.mac(payload))) {
            return Err(SealError::Mac);
        }
        Ok(payload)
    }

    fn mac(&self, payload: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&blake3::keyed_hash(&self.key, payload).as_bytes()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(content: &str) -> Secret {
        Secret::parse(content.as_bytes()).unwrap()
    }

    #[test]
    fn white_space_around_a_secret_does_not_count() {
        let (a, b) = (secret("open sesame"), secret("  open sesame\r\n"));
        assert_eq!(a.handshake, b.handshake);
        assert_eq!(Secret::parse(b" \n").unwrap_err(), SecretError::Empty);
        assert!(!format!("{a:?}").contains("sesame"));
    }

    #[test]
    fn a_proof_holds_for_one_end_of_one_handshake_with_one_secret() {
        let (ours, theirs) = (secret("a"), secret("b"));
        let proven = proof(Some(&ours), End::Caller, b"hello", b"welcome");
        assert!(same(proven, proof(Some(&ours), End::Caller, b"hello", b"welcome")));
        assert!(!same(proven, proof(Some(&ours), End::Called, b"hello", b"welcome")));
        assert!(!same(proven, proof(Some(&ours), End::Caller, b"hell", b"owelcome")));
        assert!(!same(proven, proof(Some(&theirs), End::Caller, b"hello", b"welcome")));
        let (node, other) = (NodeId::new(1), NodeId::new(2));
        assert_ne!(nonce(None, node, 1), nonce(None, node, 2));
        assert_ne!(nonce(None, node, 1), nonce(None, other, 1));
    }

    #[test]
    fn only_members_open_a_datagram() {
        let cluster = ClusterId::new(7);
        let seal = Seal::new(Some(&secret("a")), cluster);
        let mut datagram = Vec::new();
        seal.seal(b"alive", &mut datagram);
        assert_eq!(datagram.len(), b"alive".len() + Seal::OVERHEAD);
        assert_eq!(seal.open(&datagram), Ok(&b"alive"[..]));

        let check = |seal: Seal, error| assert_eq!(seal.open(&datagram), Err(error));
        check(Seal::new(Some(&secret("b")), cluster), SealError::Mac);
        check(Seal::new(None, cluster), SealError::Mac);
        check(Seal::new(Some(&secret("a")), ClusterId::new(8)), SealError::Cluster);

        for cut in 0..datagram.len() {
            assert!(seal.open(&datagram[..cut]).is_err(), "cut to {cut} bytes");
        }
        for index in 0..datagram.len() {
            let mut damaged = datagram.clone();
            damaged[index] ^= 1;
            assert!(seal.open(&damaged).is_err(), "byte {index} damaged");
        }
    }
}
