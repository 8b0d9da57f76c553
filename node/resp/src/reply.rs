//! Replies out of a stream of bytes. First finds where the reply ends, then takes it apart: so nothing is
//! built for a reply that never arrives, and a reply in many reads is searched through once.

use memchr::memchr;

use crate::{ReplyLimits, Value, number};

/// Finds the replies in what a server sends. One per connection.
///
/// Attributes and streamed strings or aggregates are refused: Redis does not send them.
#[derive(Debug)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Bytes of the reply at the head of the buffer that are done with.
    position: usize,
    /// Bytes after `position` that are known not to hold the end of the line that starts there.
    line_searched: usize,
    /// Values that aggregates of the reply have announced so far, at all depths.
    values_announced: usize,
    /// For each aggregate that is open, from the outermost, how many values are still to come: ≥ 1.
    open: Vec<usize>,
}

/// Why a stream of replies cannot be read on. Close the connection; replies decoded before are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A value starts with a byte that no value starts with.
    #[error("reply of unknown type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// A line or a string does not end in `\r\n`.
    #[error("reply without a line end where one must be")]
    NoLineEnd,
    /// What should be a number, a length, a boolean, a null or a format is not.
    #[error("reply with a malformed value")]
    Malformed,
    /// A part of the reply, or all of it, is above the [`ReplyLimits`].
    #[error("reply too big")]
    TooBig,
    /// More than [`ReplyLimits::NESTING_MAX`] aggregates within each other.
    #[error("reply nested too deeply")]
    TooDeep,
}

impl ReplyDecoder {
    /// A decoder for the first byte of a stream.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        Self { limits, position: 0, line_searched: 0, values_announced: 0, open: Vec::new() }
    }

    /// The reply at the head of the buffer, and how many bytes it takes. `None`: it is not all there.
    ///
    /// The buffer starts where the last reply ended, and holds at least what it held in the last call.
    ///
    /// # Errors
    /// The stream is lost: there is no telling where the next reply starts.
    pub fn decode(&mut self, buffer: &[u8]) -> Result<Option<(Value, usize)>, ReplyError> {
        loop {
            let Some(line) = self.line(&buffer[self.position..])? else { return Ok(None) };
            match Part::of(line)? {
                Part::Null | Part::Scalar { .. } => self.pass(line.len() + LINE_END.len())?,
                Part::Text { bytes, .. } => {
                    let header_bytes = line.len() + LINE_END.len();
                    if !self.text_is_here(buffer, header_bytes, bytes)? {
                        return Ok(None);
                    }
                    self.pass(header_bytes + bytes + LINE_END.len())?;
                }
                Part::Values { values_count, .. } => {
                    self.pass(line.len() + LINE_END.len())?;
                    if self.descend(values_count)? {
                        continue;
                    }
                }
            }
            if self.ascend() {
                let bytes = std::mem::take(&mut self.position);
                self.values_announced = 0;
                let value = build(&mut &buffer[..bytes])?;
                return Ok(Some((value, bytes)));
            }
        }
    }

    /// The line at the head of `bytes`, without its end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, ReplyError> {
        let window = bytes.len().min(self.limits.line_bytes_max.saturating_add(1));
        let from = self.line_searched.min(window);
        match memchr(b'\r', &bytes[from..window]) {
            Some(at) => {
                // The line may be looked at again: what follows it may not be here yet.
                self.line_searched = from + at;
                let line = &bytes[..from + at];
                match bytes.get(from + at + 1) {
                    None => Ok(None),
                    Some(b'\n') if line.is_empty() => Err(ReplyError::UnknownType(b'\r')),
                    Some(b'\n') => Ok(Some(line)),
                    Some(_) => Err(ReplyError::NoLineEnd),
                }
            }
            None if window > self.limits.line_bytes_max => Err(ReplyError::TooBig),
            None => {
                self.line_searched = window;
                Ok(None)
            }
        }
    }

    /// Is done with so many more bytes.
    fn pass(&mut self, bytes: usize) -> Result<(), ReplyError> {
        self.line_searched = 0;
        self.position += bytes;
        if self.position <= self.limits.reply_bytes_max { Ok(()) } else { Err(ReplyError::TooBig) }
    }

    /// Whether the text whose header is at `position` is all there. Refuses one that is above the limits
    /// before it comes.
    fn text_is_here(
        &self,
        buffer: &[u8],
        header_bytes: usize,
        text_bytes: usize,
    ) -> Result<bool, ReplyError> {
        let end = self.position + header_bytes + text_bytes;
        let next = end + LINE_END.len();
        if text_bytes > self.limits.bulk_bytes_max || next > self.limits.reply_bytes_max {
            return Err(ReplyError::TooBig);
        }
        match buffer.get(end..next) {
            None => Ok(false),
            Some(LINE_END) => Ok(true),
            Some(_) => Err(ReplyError::NoLineEnd),
        }
    }

    /// Opens an aggregate. `false`: it is empty, and so complete.
    fn descend(&mut self, values_count: usize) -> Result<bool, ReplyError> {
        self.values_announced = self.values_announced.saturating_add(values_count);
        if self.values_announced > self.limits.values_count_max {
            return Err(ReplyError::TooBig);
        }
        if self.open.len() == ReplyLimits::NESTING_MAX {
            return Err(ReplyError::TooDeep);
        }
        if values_count == 0 {
            return Ok(false);
        }
        self.open.push(values_count);
        Ok(true)
    }

    /// Counts a complete value, and every aggregate that it completes. `true`: the reply is whole.
    fn ascend(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

const LINE_END: &[u8] = b"\r\n";

/// What one line says.
enum Part<'a> {
    /// There is no value.
    Null,
    /// The value is in the line.
    Scalar { kind: Scalar, text: &'a [u8] },
    /// The value is in the bytes that follow.
    Text { kind: Text, bytes: usize },
    /// The value is made of values that follow. A map's keys and values count one each.
    Values { kind: Aggregate, values_count: usize },
}

#[derive(Clone, Copy)]
enum Scalar {
    Simple,
    Error,
    Integer,
    Double,
    Boolean,
    BigNumber,
}

#[derive(Clone, Copy)]
enum Text {
    Bulk,
    Verbatim,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
}

impl<'a> Part<'a> {
    fn of(line: &'a [u8]) -> Result<Self, ReplyError> {
        let (&kind, text) = line.split_first().expect("a line is not empty");
        let scalar = |kind| Ok(Self::Scalar { kind, text });
        let values = |kind, values_each: usize| {
            let values_count = count(text)?.checked_mul(values_each).ok_or(ReplyError::TooBig)?;
            Ok(Self::Values { kind, values_count })
        };
        match kind {
            b'+' => scalar(Scalar::Simple),
            b'-' => scalar(Scalar::Error),
            b':' => scalar(Scalar::Integer),
            b',' => scalar(Scalar::Double),
            b'#' => scalar(Scalar::Boolean),
            b'(' => scalar(Scalar::BigNumber),
            b'$' | b'*' if text == b"-1" => Ok(Self::Null),
            b'_' if text.is_empty() => Ok(Self::Null),
            b'_' => Err(ReplyError::Malformed),
            b'$' => Ok(Self::Text { kind: Text::Bulk, bytes: count(text)? }),
            b'=' => Ok(Self::Text { kind: Text::Verbatim, bytes: count(text)? }),
            b'*' => values(Aggregate::Array, 1),
            b'~' => values(Aggregate::Set, 1),
            b'>' => values(Aggregate::Push, 1),
            b'%' => values(Aggregate::Map, 2),
            other => Err(ReplyError::UnknownType(other)),
        }
    }
}

/// A length or a count. Far below what would overflow when it is added to a position.
fn count(digits: &[u8]) -> Result<usize, ReplyError> {
    let number = number::parse(digits).ok_or(ReplyError::Malformed)?;
    let number = u64::try_from(number).map_err(|_| ReplyError::Malformed)?;
    u32::try_from(number).map(|number| number as usize).map_err(|_| ReplyError::TooBig)
}

/// Takes the first value off `bytes`, which hold all of it: the decoder has been over them.
///
/// Recursion is bounded by [`ReplyLimits::NESTING_MAX`], and what is reserved by the bytes that are there.
fn build(bytes: &mut &[u8]) -> Result<Value, ReplyError> {
    let end = memchr(b'\r', bytes).expect("the decoder has found the end of every line");
    let line = take(bytes, end);
    match Part::of(line)? {
        Part::Null => Ok(Value::Null),
        Part::Scalar { kind, text } => scalar(kind, text),
        Part::Text { kind: Text::Bulk, bytes: length } => {
            Ok(Value::Bulk(take(bytes, length).to_vec()))
        }
        Part::Text { kind: Text::Verbatim, bytes: length } => verbatim(take(bytes, length)),
        Part::Values { kind: Aggregate::Map, values_count } => {
            let pair = |_| Ok((build(bytes)?, build(bytes)?));
            (0..values_count / 2).map(pair).collect::<Result<_, _>>().map(Value::Map)
        }
        Part::Values { kind: Aggregate::Array, values_count } => {
            values(bytes, values_count).map(Value::Array)
        }
        Part::Values { kind: Aggregate::Set, values_count } => {
            values(bytes, values_count).map(Value::Set)
        }
        Part::Values { kind: Aggregate::Push, values_count } => {
            values(bytes, values_count).map(Value::Push)
        }
    }
}

/// Takes so many bytes and the line end after them.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let taken = &bytes[..length];
    *bytes = &bytes[length + LINE_END.len()..];
    taken
}

fn values(bytes: &mut &[u8], count: usize) -> Result<Vec<Value>, ReplyError> {
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(build(bytes)?);
    }
    Ok(values)
}

fn scalar(kind: Scalar, text: &[u8]) -> Result<Value, ReplyError> {
    match kind {
        Scalar::Simple => Ok(Value::Simple(String::from_utf8_lossy(text).into_owned())),
        Scalar::Error => Ok(Value::Error(String::from_utf8_lossy(text).into_owned())),
        Scalar::Integer => number::parse(text).map(Value::Integer).ok_or(ReplyError::Malformed),
        Scalar::Double => double(text).map(Value::Double).ok_or(ReplyError::Malformed),
        Scalar::Boolean => match text {
            b"t" => Ok(Value::Boolean(true)),
            b"f" => Ok(Value::Boolean(false)),
            _ => Err(ReplyError::Malformed),
        },
        Scalar::BigNumber => {
            let digits = text.strip_prefix(b"-").unwrap_or(text);
            let text = str::from_utf8(text).map_err(|_| ReplyError::Malformed)?;
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(ReplyError::Malformed);
            }
            Ok(Value::BigNumber(text.to_owned()))
        }
    }
}

fn double(text: &[u8]) -> Option<f64> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn verbatim(text: &[u8]) -> Result<Value, ReplyError> {
    match text {
        &[first, second, third, b':', ref text @ ..] => {
            Ok(Value::Verbatim { format: [first, second, third], text: text.to_vec() })
        }
        _ => Err(ReplyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &str) -> Result<Option<(Value, usize)>, ReplyError> {
        Value::decode(input.as_bytes(), ReplyLimits::DEFAULT)
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_in_all_their_forms() {
        let check = |input: &str, expected: Value| {
            assert_eq!(decode(input), Ok(Some((expected.clone(), input.len()))), "{input:?}");
            assert_eq!(
                decode(&format!("{input}+")),
                Ok(Some((expected, input.len()))),
                "{input:?}"
            );
            for end in 0..input.len() {
                assert_eq!(decode(&input[..end]), Ok(None), "{:?}", &input[..end]);
            }
        };
        check("+OK\r\n", Value::Simple("OK".to_owned()));
        check("+\r\n", Value::Simple(String::new()));
        check("-ERR no\r\n", Value::Error("ERR no".to_owned()));
        check(":-7\r\n", Value::Integer(-7));
        check("$3\r\na\r\n\r\n", bulk("a\r\n"));
        check("$0\r\n\r\n", bulk(""));
        check("$-1\r\n", Value::Null);
        check("*-1\r\n", Value::Null);
        check("_\r\n", Value::Null);
        check("*0\r\n", Value::Array(vec![]));
        check("*2\r\n*1\r\n:1\r\n$1\r\nx\r\n", {
            Value::Array(vec![Value::Array(vec![Value::Integer(1)]), bulk("x")])
        });
        check("%1\r\n+k\r\n~0\r\n", {
            Value::Map(vec![(Value::Simple("k".to_owned()), Value::Set(vec![]))])
        });
        check(">1\r\n#t\r\n", Value::Push(vec![Value::Boolean(true)]));
        check("~1\r\n#f\r\n", Value::Set(vec![Value::Boolean(false)]));
        check(",-1.5e3\r\n", Value::Double(-1500.0));
        check(",inf\r\n", Value::Double(f64::INFINITY));
        check("(-123456789012345678901234567890\r\n", {
            Value::BigNumber("-123456789012345678901234567890".to_owned())
        });
        check("=6\r\ntxt:hi\r\n", Value::Verbatim { format: *b"txt", text: b"hi".to_vec() });
    }

    #[test]
    fn malformed_replies_are_refused() {
        let check = |input: &str, error: ReplyError| {
            assert_eq!(decode(input), Err(error), "{input:?}");
        };
        for input in [":\r\n", ":x\r\n", ":+1\r\n", "$-2\r\n", "*x\r\n", "%-1\r\n", "_x\r\n"] {
            check(input, ReplyError::Malformed);
        }
        for input in ["#x\r\n", ",\r\n", ",1,5\r\n", "(\r\n", "(-\r\n", "(1x\r\n", "=2\r\nxx\r\n"] {
            check(input, ReplyError::Malformed);
        }
        check("x\r\n", ReplyError::UnknownType(b'x'));
        check("\r\n", ReplyError::UnknownType(b'\r'));
        check("|1\r\n", ReplyError::UnknownType(b'|'));
        check("+OK\rx", ReplyError::NoLineEnd);
        check("$1\r\nxyz", ReplyError::NoLineEnd);
    }

    #[test]
    fn what_is_above_the_limits_is_refused_when_it_is_announced() {
        let check = |input: &str, limits: ReplyLimits, error: ReplyError| {
            assert_eq!(Value::decode(input.as_bytes(), limits), Err(error), "{input:?}");
        };
        let limits = ReplyLimits {
            bulk_bytes_max: 100,
            values_count_max: 10,
            line_bytes_max: 50,
            reply_bytes_max: 110,
        };
        check("$101\r\n", limits, ReplyError::TooBig);
        check("=99999999999999999\r\n", limits, ReplyError::TooBig);
        check("*11\r\n", limits, ReplyError::TooBig);
        check("%6\r\n", limits, ReplyError::TooBig);
        check("%9223372036854775807\r\n", limits, ReplyError::TooBig);
        check(&format!("+{}", "x".repeat(50)), limits, ReplyError::TooBig);
        check("*2\r\n$100\r\n", limits, ReplyError::TooBig);
        check("*3\r\n*8\r\n", limits, ReplyError::TooBig);
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = |levels: usize| format!("{}_\r\n", "*1\r\n".repeat(levels));
        assert!(matches!(decode(&deep(ReplyLimits::NESTING_MAX)), Ok(Some(_))));
        assert_eq!(decode(&deep(ReplyLimits::NESTING_MAX + 1)), Err(ReplyError::TooDeep));
        assert_eq!(decode(&"*1\r\n".repeat(100_000)), Err(ReplyError::TooDeep));
    }

    #[test]
    fn a_reply_in_many_reads_is_searched_once() {
        let mut decoder = ReplyDecoder::new(ReplyLimits::DEFAULT);
        let reply = format!("*1000\r\n{}", "$3\r\nabc\r\n".repeat(1000));
        for end in 0..reply.len() {
            assert_eq!(decoder.decode(&reply.as_bytes()[..end]), Ok(None));
            assert!(end - decoder.position <= 9, "only the last value is still open");
        }
        let (value, bytes) = decoder.decode(reply.as_bytes()).unwrap().unwrap();
        assert_eq!(bytes, reply.len());
        assert_eq!(value, Value::Array(vec![bulk("abc"); 1000]));
    }
}
