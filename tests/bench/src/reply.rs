//! Tells replies of the Redis protocol apart in a stream of bytes, without keeping their bodies.
//!
//! Only what a load generator asks for: no arrays, no RESP3. Never buffers more than one line.

use std::fmt;

/// A longer line is not a reply to anything that was asked. Redis cuts its errors far below that.
const LINE_BYTES_MAX: usize = 4096;

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+…`
    Simple,
    /// `:…`
    Int(i64),
    /// `$…`, with the length of the body.
    Bulk(usize),
    /// `$-1` or `_`
    Nil,
    /// `-…`, without the minus.
    Error(&'a str),
}

/// The peer does not speak the protocol; the connection is of no use any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Gibberish(String);

impl fmt::Display for Gibberish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a reply: {}", self.0)
    }
}

impl std::error::Error for Gibberish {}

/// Where in a stream of replies we are.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The first part of a line whose end has not arrived.
    line: Vec<u8>,
    /// The bulk string we are in.
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    bytes: usize,
    /// With the line ending after it.
    bytes_left: usize,
}

impl Scanner {
    /// Calls `reply` for each reply that these bytes complete, in order.
    ///
    /// # Errors
    /// [`Gibberish`] if they are no replies; those before it were given.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut reply: impl FnMut(Reply<'_>),
    ) -> Result<(), Gibberish> {
        loop {
            if let Some(body) = &mut self.body {
                let skipped = body.bytes_left.min(bytes.len());
                body.bytes_left -= skipped;
                bytes = &bytes[skipped..];
                if body.bytes_left > 0 {
                    return Ok(());
                }
                reply(Reply::Bulk(body.bytes));
                self.body = None;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                return if self.line.len() > LINE_BYTES_MAX {
                    Err(gibberish(&self.line))
                } else {
                    Ok(())
                };
            };
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.line.is_empty() {
                self.body = read_line(line, &mut reply)?;
            } else {
                self.line.extend_from_slice(line);
                let line = std::mem::take(&mut self.line);
                self.body = read_line(&line, &mut reply)?;
            }
        }
    }
}

/// Reads a line with its ending: a whole reply, or the head of a bulk string.
fn read_line(line: &[u8], reply: &mut impl FnMut(Reply<'_>)) -> Result<Option<Body>, Gibberish> {
    let text = line.strip_suffix(b"\r\n").ok_or_else(|| gibberish(line))?;
    let (kind, rest) = text.split_first().ok_or_else(|| gibberish(line))?;
    match kind {
        b'+' => reply(Reply::Simple),
        b'-' => reply(Reply::Error(&String::from_utf8_lossy(rest))),
        b':' => reply(Reply::Int(number(rest).ok_or_else(|| gibberish(line))?)),
        b'_' => reply(Reply::Nil),
        b'$' => match number(rest) {
            Some(-1) => reply(Reply::Nil),
            Some(length) => {
                let bytes = usize::try_from(length).map_err(|_| gibberish(line))?;
                return Ok(Some(Body { bytes, bytes_left: bytes + 2 }));
            }
            None => return Err(gibberish(line)),
        },
        _ => return Err(gibberish(line)),
    }
    Ok(None)
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn gibberish(line: &[u8]) -> Gibberish {
    let shown = &line[..line.len().min(40)];
    Gibberish(String::from_utf8_lossy(shown).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reply: Reply<'_>) -> String {
        format!("{reply:?}")
    }

    #[test]
    fn replies_are_the_same_however_the_stream_is_cut() {
        let stream = b"+OK\r\n$5\r\nhe\r\nl\r\n:-3\r\n$-1\r\n-MOVED 1 a:2\r\n$0\r\n\r\n_\r\n";
        let whole =
            ["Simple", "Bulk(5)", "Int(-3)", "Nil", "Error(\"MOVED 1 a:2\")", "Bulk(0)", "Nil"];
        for piece in 1..=stream.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                scanner.feed(bytes, |reply| seen.push(told(reply))).unwrap();
            }
            assert_eq!(seen, whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for stream in
            [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"$x\r\n", b"$-2\r\n", b"+OK\n", &[b'+'; 5000]]
        {
            assert!(Scanner::default().feed(stream, |_| ()).is_err());
        }
    }
}
