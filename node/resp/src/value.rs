//! A reply, as whoever asked sees it.

use crate::{ReplyDecoder, ReplyError, ReplyLimits};

/// A reply of either protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A status such as `OK`. Bytes that are no UTF-8 were replaced.
    Simple(String),
    /// An error, its code included, without the `-`. Bytes that are no UTF-8 were replaced.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// Nothing. In RESP2 either that of strings or that of arrays.
    Null,
    /// Values in order.
    Array(Vec<Value>),
    /// Keys and values, in the order sent.
    Map(Vec<(Value, Value)>),
    /// Values none of which should be there twice.
    Set(Vec<Value>),
    /// Values that answer no request.
    Push(Vec<Value>),
    /// A floating-point number.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// An integer of any size: digits, after a `-` if it is negative.
    BigNumber(String),
    /// Text for people.
    Verbatim {
        /// `txt`, or `mkd` for Markdown.
        format: [u8; 3],
        /// The text, of any bytes.
        text: Vec<u8>,
    },
}

impl Value {
    /// The reply at the head of the buffer, and how many bytes it takes. `None`: it is not all there.
    ///
    /// Starts from the first byte each time. Where a large reply comes in many reads, [`ReplyDecoder`]
    /// saves that.
    ///
    /// # Errors
    /// The stream is lost: there is no telling where the next reply starts.
    pub fn decode(buffer: &[u8], limits: ReplyLimits) -> Result<Option<(Self, usize)>, ReplyError> {
        ReplyDecoder::new(limits).decode(buffer)
    }
}

const _: () = assert!(size_of::<Value>() <= 40, "what ReplyLimits says of a value");
