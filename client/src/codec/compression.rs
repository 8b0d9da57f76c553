//! Makes long values short.

use std::cell::RefCell;

use super::CodecError;

/// What long values are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// zstd: short.
    Zstd {
        /// How hard it tries, `[-7, 22]`; each step costs time. 1 by default.
        level: i8,
    },
    /// LZ4: fast.
    Lz4,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd { level: 1 }
    }
}

thread_local! {
    // Its tables take longer to set up than a short value takes to compress.
    static COMPRESSOR: RefCell<Option<(i8, zstd::bulk::Compressor<'static>)>> =
        const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// What a block of zstd stands for at most, and the fewest bytes that it takes. RFC 8878, "Blocks".
const ZSTD_BLOCK_BYTES_MAX: usize = 128 << 10;
const ZSTD_BLOCK_TAKES_MIN: usize = 4;
/// What a byte of LZ4 stands for at most: one more of 255 for a match that goes on. LZ4's "Block Format".
const LZ4_RATIO_MAX: usize = 255;

impl Compression {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd { .. } => 1,
            Self::Lz4 => 2,
        }
    }

    /// The one with that number in a header, which does not tell the level: reading needs none.
    pub(super) fn numbered(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::default()),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }

    /// `None` if it cannot be done.
    pub(super) fn compress(self, body: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::None => None,
            Self::Zstd { level } => zstd_compress(body, level),
            Self::Lz4 => Some(lz4_flex::block::compress(body)),
        }
    }

    /// What has this length and was compressed to these bytes. Allocates no more than so many bytes can stand for.
    pub(super) fn decompress(self, packed: &[u8], length: usize) -> Result<Vec<u8>, CodecError> {
        let length_max = match self {
            Self::None => packed.len(),
            Self::Zstd { .. } => {
                (packed.len() / ZSTD_BLOCK_TAKES_MIN).saturating_mul(ZSTD_BLOCK_BYTES_MAX)
            }
            Self::Lz4 => packed.len().saturating_mul(LZ4_RATIO_MAX),
        };
        if length > length_max {
            return Err(CodecError::Compressed("its length cannot be true"));
        }
        let body = match self {
            Self::None => Some(packed.to_vec()),
            Self::Zstd { .. } => zstd_decompress(packed, length),
            Self::Lz4 => lz4_flex::block::decompress(packed, length).ok(),
        };
        let body = body.ok_or(CodecError::Compressed("it is corrupt"))?;
        if body.len() != length {
            return Err(CodecError::Compressed("its length is not true"));
        }
        Ok(body)
    }
}

fn zstd_compress(body: &[u8], level: i8) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some((at, compressor)) if *at == level => compressor,
            Some(_) | None => {
                let made = zstd::bulk::Compressor::new(i32::from(level)).ok()?;
                &mut kept.insert((level, made)).1
            }
        };
        compressor.compress(body).ok()
    })
}

fn zstd_decompress(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        decompressor.decompress(packed, length).ok()
    })
}
