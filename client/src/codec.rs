//! How values become bytes, and bytes become values again.
//!
//! A [`Codec`] knows one encoding: [`MessagePack`], [`Json`], [`Bincode`], [`Raw`], or yours. A [`Format`] puts a
//! header before what it encodes and compresses what is long, so that whoever reads it can tell what it is. What is
//! not for this reader is an error, never a wrong value, a panic or an allocation as large as a corrupt length says.
//!
//! ```
//! use scatterhoard_client::codec::Format;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct User {
//!     name: String,
//!     visits: u32,
//! }
//!
//! # fn main() -> Result<(), scatterhoard_client::codec::CodecError> {
//! let format = Format::<User>::default();
//! let user = User { name: "Ada".to_owned(), visits: 7 };
//! let bytes = format.encode(&user)?;
//! assert_eq!(format.decode(&bytes)?, user);
//!
//! // What others wrote is no value of ours; a cache takes it for a miss.
//! assert!(format.decode(&"hello".into()).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! **What is stored**: a header of one byte, then what the codec made of the value; where that is compressed, its
//! length comes first, in 4 bytes, the lowest first. The bits of the header are `10zz cccc`: `zz` is 0 if the rest
//! is not compressed, 1 for zstd, 2 for LZ4, and 3 for what a later version may need; `cccc` is the [`CodecId`].
//! No text in UTF-8 begins with such a byte, so no text that something else has stored is taken for one of ours.
//!
//! **Equal values become equal bytes** if their codec sees to that, so they can be compared in the store. The codecs
//! here do, given a type that lists its parts always in the same order: a `BTreeMap` does, a `HashMap` does not. An
//! update of the library may bring a compression that finds shorter bytes; then the next write renews them. To
//! change what was read, compare with the bytes that were read.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod bundled;
mod compression;

pub use bundled::{Bincode, Json, MessagePack, Raw};
pub use compression::Compression;

/// One encoding of values of a type.
///
/// ```
/// use bytes::Bytes;
/// use scatterhoard_client::codec::{Codec, CodecError, CodecId, Format};
///
/// /// Numbers as 4 bytes, the highest first.
/// struct BigEndian;
///
/// impl Codec<u32> for BigEndian {
///     fn id(&self) -> CodecId {
///         CodecId::YOURS[0]
///     }
///
///     fn encode(&self, value: &u32, into: &mut Vec<u8>) -> Result<(), CodecError> {
///         into.extend(value.to_be_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, body: Bytes) -> Result<u32, CodecError> {
///         let bytes = <[u8; 4]>::try_from(&body[..]).map_err(CodecError::decode)?;
///         Ok(u32::from_be_bytes(bytes))
///     }
/// }
///
/// # fn main() -> Result<(), CodecError> {
/// let format = Format::new(BigEndian);
/// assert_eq!(&format.encode(&258)?[1..], [0, 0, 1, 2]);
/// assert_eq!(format.decode(&format.encode(&258)?)?, 258);
/// # Ok(())
/// # }
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// What tells its bytes from those of other codecs.
    fn id(&self) -> CodecId;

    /// Appends a value.
    ///
    /// # Errors
    /// [`CodecError::Encode`] if there is no such encoding of the value.
    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value that these bytes stand for, all of them. They may be anything: some may be corrupt, or from an
    /// older type of values. A value may keep a slice of them.
    ///
    /// # Errors
    /// [`CodecError::Decode`] if they stand for no value.
    fn decode(&self, body: Bytes) -> Result<V, CodecError>;
}

/// What tells codecs apart: 4 bits of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodecId(u8);

impl CodecId {
    /// [`MessagePack`].
    pub const MESSAGE_PACK: Self = Self(0);
    /// [`Json`].
    pub const JSON: Self = Self(1);
    /// [`Bincode`].
    pub const BINCODE: Self = Self(2);
    /// [`Raw`].
    pub const RAW: Self = Self(3);
    /// For codecs of your own; all that share a store have to agree on them.
    pub const YOURS: [Self; 8] =
        [Self(8), Self(9), Self(10), Self(11), Self(12), Self(13), Self(14), Self(15)];

    /// Its number, `[0, 15]`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Why there are no bytes for a value, or no value for these bytes.
///
/// To a cache that reads, all of them mean that there is nothing: it loads and stores anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// These bytes were not stored by this library, or by a later version of it.
    #[error("what is stored is not of this library, or of a later version")]
    Foreign,
    /// They were stored with another codec.
    #[error("what is stored was encoded with codec {}, not {}", found.number(), expected.number())]
    OtherCodec {
        /// The one that they were encoded with.
        found: CodecId,
        /// The one that they should be decoded with.
        expected: CodecId,
    },
    /// The value is longer than the format allows.
    #[error("a value of {bytes} bytes, of which {bytes_max} are allowed")]
    TooLong {
        /// The length, encoded but not compressed.
        bytes: u64,
        /// The limit.
        bytes_max: u32,
    },
    /// What is stored cannot be decompressed.
    #[error("what is stored cannot be decompressed: {0}")]
    Compressed(&'static str),
    /// The codec could not encode the value.
    #[error("a value that cannot be encoded: {0}")]
    Encode(#[source] Reason),
    /// The codec could not decode what is stored.
    #[error("what is stored cannot be decoded: {0}")]
    Decode(#[source] Reason),
}

/// What a codec has to say about a failure.
pub type Reason = Box<dyn std::error::Error + Send + Sync>;

impl CodecError {
    /// The codec could not encode the value, for this reason.
    pub fn encode(reason: impl Into<Reason>) -> Self {
        Self::Encode(reason.into())
    }

    /// The codec could not decode what is stored, for this reason.
    pub fn decode(reason: impl Into<Reason>) -> Self {
        Self::Decode(reason.into())
    }
}

/// What is stored for a value: a header, and what a codec makes of it, compressed if it is long.
///
/// The one by default uses [`MessagePack`], and zstd from 2 KiB on. What it reads may be compressed in any way or in
/// none: only the codec has to be the same.
///
/// ```
/// use scatterhoard_client::codec::{Compression, Format, Json};
///
/// # fn main() -> Result<(), scatterhoard_client::codec::CodecError> {
/// let format = Format::new(Json).compressed(Compression::Lz4).compressed_from(100);
/// let text = "la ".repeat(1000);
/// assert!(format.encode(&text)?.len() < 100);
/// assert_eq!(Format::<String>::new(Json).decode(&format.encode(&text)?)?, text);
/// # Ok(())
/// # }
/// ```
pub struct Format<V> {
    codec: Arc<dyn Codec<V>>,
    compression: Compression,
    compressed_from: usize,
    bytes_max: u32,
}

/// The bits of the header that say that it is one.
const OURS: u8 = 0b1000_0000;
const OURS_MASK: u8 = 0b1100_0000;
const COMPRESSION_SHIFT: u32 = 4;
const COMPRESSION_MASK: u8 = 0b11;
const CODEC_MASK: u8 = 0b1111;
const HEADER_BYTES: usize = 1;
/// Of the length before what is compressed.
const LENGTH_BYTES: usize = 4;

impl<V: 'static> Format<V> {
    /// The longest value that is encoded or decoded unless [`Self::bytes_max`] says less, and what the nodes of a
    /// cluster take at most by default: 64 MiB.
    pub const BYTES_MAX: u32 = 64 << 20;

    /// With this codec, and otherwise as by default.
    pub fn new(codec: impl Codec<V>) -> Self {
        Self::shared(Arc::new(codec))
    }

    /// The same, with a codec that is used elsewhere too.
    pub fn shared(codec: Arc<dyn Codec<V>>) -> Self {
        let compression = Compression::default();
        Self { codec, compression, compressed_from: 2048, bytes_max: Self::BYTES_MAX }
    }

    /// What long values are compressed with.
    #[must_use]
    pub fn compressed(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// From how many bytes on it is tried to compress a value. It is stored as it is if it gets no shorter.
    #[must_use]
    pub fn compressed_from(self, bytes: usize) -> Self {
        Self { compressed_from: bytes, ..self }
    }

    /// How long a value may be, in bytes and not compressed; no more than [`Self::BYTES_MAX`].
    #[must_use]
    pub fn bytes_max(self, bytes: u32) -> Self {
        Self { bytes_max: bytes.min(Self::BYTES_MAX), ..self }
    }

    /// What to store for a value.
    ///
    /// # Errors
    /// [`CodecError::Encode`] and [`CodecError::TooLong`].
    pub fn encode(&self, value: &V) -> Result<Bytes, CodecError> {
        let mut plain = vec![self.header(Compression::None)];
        self.codec.encode(value, &mut plain)?;
        let body = &plain[HEADER_BYTES..];
        let length = self.length(body.len() as u64)?;
        if body.len() < self.compressed_from {
            return Ok(plain.into());
        }
        let mut packed = BytesMut::new();
        packed.put_u8(self.header(self.compression));
        packed.put_u32_le(length);
        match self.compression.compress(body) {
            Some(short) if packed.len() + short.len() < plain.len() => {
                packed.extend_from_slice(&short);
                Ok(packed.freeze())
            }
            Some(_) | None => Ok(plain.into()),
        }
    }

    /// The value for which this is stored.
    ///
    /// # Errors
    /// See [`CodecError`].
    pub fn decode(&self, stored: &Bytes) -> Result<V, CodecError> {
        let (compression, codec) = parse(stored)?;
        let expected = self.codec.id();
        if codec != expected {
            return Err(CodecError::OtherCodec { found: codec, expected });
        }
        let body = stored.slice(HEADER_BYTES..);
        match compression {
            Compression::None => {
                self.length(body.len() as u64)?;
                self.codec.decode(body)
            }
            Compression::Zstd { .. } | Compression::Lz4 => {
                let (length, packed) = body
                    .split_first_chunk::<LENGTH_BYTES>()
                    .ok_or(CodecError::Compressed("it is cut short"))?;
                let length = self.length(u64::from(u32::from_le_bytes(*length)))?;
                self.codec.decode(compression.decompress(packed, length as usize)?.into())
            }
        }
    }

    fn header(&self, compression: Compression) -> u8 {
        OURS | compression.number() << COMPRESSION_SHIFT | self.codec.id().0
    }

    fn length(&self, bytes: u64) -> Result<u32, CodecError> {
        let bytes_max = self.bytes_max;
        let fits = u32::try_from(bytes).ok().filter(|&bytes| bytes <= bytes_max);
        fits.ok_or(CodecError::TooLong { bytes, bytes_max })
    }
}

impl<V: Serialize + DeserializeOwned + 'static> Default for Format<V> {
    fn default() -> Self {
        Self::new(MessagePack)
    }
}

impl<V> Clone for Format<V> {
    fn clone(&self) -> Self {
        Self { codec: Arc::clone(&self.codec), ..*self }
    }
}

impl<V: 'static> fmt::Debug for Format<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Format")
            .field("codec", &self.codec.id())
            .field("compression", &self.compression)
            .field("compressed_from", &self.compressed_from)
            .field("bytes_max", &self.bytes_max)
            .finish()
    }
}

fn parse(stored: &[u8]) -> Result<(Compression, CodecId), CodecError> {
    let header = *stored.first().ok_or(CodecError::Foreign)?;
    if header & OURS_MASK != OURS {
        return Err(CodecError::Foreign);
    }
    let compression = Compression::numbered(header >> COMPRESSION_SHIFT & COMPRESSION_MASK);
    Ok((compression.ok_or(CodecError::Foreign)?, CodecId(header & CODEC_MASK)))
}
