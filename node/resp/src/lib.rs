//! The Redis protocol: an incremental, bounded decoder and an encoder for RESP2 and RESP3.
//!
//! [`Decoder`] turns what a client sent into [`Request`]s without copying it, [`Encoder`] writes
//! replies, [`ReplyDecoder`] reads replies. Nothing here knows what a command means, or has a socket, a
//! clock, or a buffer of its own to read into. Redis, "Redis serialization protocol specification".
//!
//! Invariants: how the bytes were cut into reads never changes what is decoded from them; each byte is
//! looked at a bounded number of times; memory is only taken in proportion to bytes that have arrived,
//! whatever a header announces; no input panics.
//!
//! ```
//! use scatterhoard_resp::{Decoded, Decoder, Encoder, Limits, Protocol};
//!
//! let received = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n*2\r\n$4\r\nEC";
//! let mut decoder = Decoder::new(Limits::DEFAULT);
//! let (mut start, mut out) = (0, Vec::new());
//! let bytes_needed = loop {
//!     match decoder.decode(&received[start..])? {
//!         Decoded::Request(request) => {
//!             let mut encoder = Encoder::new(&mut out, Protocol::Resp2);
//!             match &request.args()[0] {
//!                 b"ECHO" => encoder.bulk(&request.args()[1]),
//!                 _ => encoder.simple("PONG"),
//!             }
//!             start += request.bytes_consumed();
//!         }
//!         Decoded::Incomplete { bytes_consumed, bytes_needed } => {
//!             start += bytes_consumed;
//!             break bytes_needed;
//!         }
//!     }
//! };
//! assert_eq!(out, b"$2\r\nhi\r\n+PONG\r\n");
//! assert_eq!(&received[start..], b"*2\r\n$4\r\nEC");
//! assert_eq!(bytes_needed, 4, "the rest of ECHO and its line end");
//! # Ok::<(), scatterhoard_resp::ProtocolError>(())
//! ```

mod args;
mod decoder;
mod encoder;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inline;
mod limits;
mod number;
mod reply;
mod value;

pub use args::{Args, ArgsIter};
pub use decoder::{Decoded, Decoder, ProtocolError, Request};
pub use encoder::{Encoder, Protocol};
pub use limits::{Limits, ReplyLimits, Standing};
pub use reply::{ReplyDecoder, ReplyError};
pub use value::Value;
