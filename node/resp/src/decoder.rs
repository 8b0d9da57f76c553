//! Requests out of a stream of bytes. Remembers how far it got in a command that is not complete, so that
//! a stream costs the same however it is cut into reads.
//!
//! What Redis tolerates is tolerated: neither the byte after the carriage return of a header nor the two
//! after an argument are looked at, a negative count is an empty command, and an inline command may end
//! in a bare line feed. Unlike in Redis, a NUL byte in a line does not hide the end of that line.

use std::fmt;

use memchr::memchr;

use crate::args::{Args, Span};
use crate::inline::{self, Source};
use crate::limits::{Limits, Standing};
use crate::number;

/// Finds the requests in what a client sends. One per connection.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Bytes of the command at the head of the buffer that are done with.
    position: usize,
    /// Bytes after `position` that are known not to hold the end of the line that starts there.
    line_searched: usize,
    /// Arguments of that command still to come; 0 if its header is.
    args_left: usize,
    /// The length of the argument at `position`, if its header is done with.
    bulk_bytes: Option<usize>,
    /// The arguments so far.
    spans: Vec<Span>,
    /// The arguments of an inline command with quotes, the quotes resolved.
    unquoted: Vec<u8>,
    #[cfg(test)]
    bytes_examined: usize,
}

/// What is at the head of a buffer.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A whole command. The next call takes what follows its [`Request::bytes_consumed`].
    Request(Request<'a>),
    /// No whole command yet. The next call takes what follows the `bytes_consumed`, and more.
    Incomplete {
        /// Bytes of empty commands at the head of the buffer. They mean nothing and must be dropped.
        bytes_consumed: usize,
        /// How many more bytes must come, at least, before another call can find more: ≥ 1. It is what
        /// the client announces, up to [`Limits::bulk_bytes_max`]: reserve in steps, as bytes do come.
        bytes_needed: usize,
    },
}

/// A command as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    args: Args<'a>,
    bytes_consumed: usize,
}

impl<'a> Request<'a> {
    /// The command's name and what follows it: never empty.
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        self.args
    }

    /// Bytes of the buffer up to the end of this command, empty commands before it included.
    #[must_use]
    pub fn bytes_consumed(&self) -> usize {
        self.bytes_consumed
    }
}

/// Why a stream of requests cannot be read on. The client is told this text with the code
/// `ERR`, and its connection closed; commands decoded before are not affected. The texts are those of
/// Redis 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The count of arguments is not a number, or above [`Limits::args_count_max`].
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// More arguments than a client may send before it authenticates.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument's header starts with another byte than `$`.
    #[error("Protocol error: expected '$', got '{}'", Shown(*.got))]
    ExpectedBulk {
        /// What it starts with.
        got: u8,
    },
    /// The length of an argument is not a number, or negative, or above [`Limits::bulk_bytes_max`].
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// A longer argument than a client may send before it authenticates.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An inline command has a quote that is not closed, or closed within a word.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline command is longer than [`Limits::inline_bytes_max`].
    #[error("Protocol error: too big inline request")]
    TooBigInline,
    /// The header with the count of arguments is longer than [`Limits::inline_bytes_max`].
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkHeader,
    /// The header with the length of an argument is longer than [`Limits::inline_bytes_max`].
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkHeader,
    /// The command would be longer than [`Limits::request_bytes_max`]. Not one of Redis's texts: it closes
    /// such connections (`client-query-buffer-limit`) without a word.
    #[error("Protocol error: too big request")]
    TooBigRequest,
}

/// A byte in the text of an error. Redis puts it there as it is, and then a space for a line break; here
/// what is not ASCII text is escaped as well, so that the text is a string.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\r' | b'\n' => f.write_str(" "),
            printable @ b' '..=b'~' => write!(f, "{}", char::from(printable)),
            other => write!(f, "\\x{other:02x}"),
        }
    }
}

/// How far a look at the head of a buffer got.
enum Progress {
    Request { source: Source, bytes: usize },
    Empty { bytes: usize },
    Needs { bytes: usize },
}

/// A header line that ended, or did not yet.
enum Header {
    Whole { number: Option<i64>, bytes: usize },
    Partial,
}

impl Decoder {
    /// Spans and bytes of scratch kept from one command to the next. A connection that once sent a huge
    /// command does not hold its memory for ever.
    const SCRATCH_KEPT_MAX: usize = 1024;

    /// A carriage return and a line feed.
    const LINE_END_BYTES: usize = 2;

    /// A decoder for the first byte of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: clamped(limits),
            position: 0,
            line_searched: 0,
            args_left: 0,
            bulk_bytes: None,
            spans: Vec::new(),
            unquoted: Vec::new(),
            #[cfg(test)]
            bytes_examined: 0,
        }
    }

    /// Holds what follows to other limits: from the next header on, if a command is under way.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = clamped(limits);
    }

    /// Looks for a command at the head of the buffer.
    ///
    /// The buffer starts where the last call's consumed bytes ended, and holds at least what was left then.
    /// Allocates nothing in proportion to what a header announces, only to what is in the buffer.
    ///
    /// # Errors
    /// The stream is lost: there is no telling where the next command starts. The same bytes give the same
    /// error again.
    pub fn decode<'a>(&'a mut self, buffer: &'a [u8]) -> Result<Decoded<'a>, ProtocolError> {
        let mut head = 0;
        loop {
            let bytes = &buffer[head..];
            if self.args_left == 0 {
                self.forget_args();
            }
            let progress = match bytes.first() {
                None => Progress::Needs { bytes: 1 },
                Some(b'*') => self.array(bytes)?,
                Some(_) => self.inline(bytes)?,
            };
            match progress {
                Progress::Request { source, bytes: consumed } => {
                    let bytes = match source {
                        Source::Line => bytes,
                        Source::Unquoted => &self.unquoted,
                    };
                    let args = Args::new(bytes, &self.spans);
                    let bytes_consumed = head + consumed;
                    return Ok(Decoded::Request(Request { args, bytes_consumed }));
                }
                Progress::Empty { bytes } => head += bytes,
                Progress::Needs { bytes: bytes_needed } => {
                    return Ok(Decoded::Incomplete { bytes_consumed: head, bytes_needed });
                }
            }
        }
    }

    fn forget_args(&mut self) {
        self.spans.clear();
        if self.spans.capacity() > Self::SCRATCH_KEPT_MAX {
            self.spans.shrink_to(Self::SCRATCH_KEPT_MAX);
        }
        if self.unquoted.capacity() > Self::SCRATCH_KEPT_MAX {
            self.unquoted = Vec::new();
        }
    }

    /// An array of bulk strings: `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`.
    fn array(&mut self, bytes: &[u8]) -> Result<Progress, ProtocolError> {
        if self.args_left == 0 {
            match self.header(bytes, ProtocolError::TooBigMultibulkHeader)? {
                Header::Partial => return Ok(Progress::Needs { bytes: 1 }),
                Header::Whole { number, bytes } => {
                    let count = self.args_count(number)?;
                    if count == 0 {
                        return Ok(Progress::Empty { bytes });
                    }
                    self.args_left = count;
                    self.position = bytes;
                }
            }
        }
        while self.args_left > 0 {
            let bulk_bytes = match self.bulk_bytes {
                Some(bulk_bytes) => bulk_bytes,
                None => match self.bulk_header(&bytes[self.position..])? {
                    Some(bulk_bytes) => bulk_bytes,
                    None => return Ok(Progress::Needs { bytes: 1 }),
                },
            };
            let end = self.position + bulk_bytes;
            let next = end + Self::LINE_END_BYTES;
            if bytes.len() < next {
                self.bulk_bytes = Some(bulk_bytes);
                return Ok(Progress::Needs { bytes: next - bytes.len() });
            }
            self.spans.push(Span::new(self.position..end));
            self.bulk_bytes = None;
            self.position = next;
            self.args_left -= 1;
        }
        let bytes = std::mem::take(&mut self.position);
        Ok(Progress::Request { source: Source::Line, bytes })
    }

    /// The length in the header at `position`, which is then past it. `None`: it is not there yet.
    #[inline]
    fn bulk_header(&mut self, line: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Header::Whole { number, bytes } = self.header(line, ProtocolError::TooBigBulkHeader)?
        else {
            return Ok(None);
        };
        if line[0] != b'$' {
            return Err(ProtocolError::ExpectedBulk { got: line[0] });
        }
        let bulk_bytes = self.bulk_bytes(number)?;
        let next = self.position + bytes + bulk_bytes + Self::LINE_END_BYTES;
        if next > self.limits.request_bytes_max {
            return Err(ProtocolError::TooBigRequest);
        }
        self.position += bytes;
        Ok(Some(bulk_bytes))
    }

    fn args_count(&self, number: Option<i64>) -> Result<usize, ProtocolError> {
        let number = number.ok_or(ProtocolError::InvalidMultibulkLength)?;
        let count = usize::try_from(number.max(0)).unwrap_or(usize::MAX);
        if count > self.limits.args_count_max {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        match self.limits.standing {
            Standing::Unauthenticated if count > Standing::UNAUTHENTICATED_ARGS_COUNT_MAX => {
                Err(ProtocolError::UnauthenticatedMultibulkLength)
            }
            Standing::Unauthenticated | Standing::Authenticated => Ok(count),
        }
    }

    fn bulk_bytes(&self, number: Option<i64>) -> Result<usize, ProtocolError> {
        let bytes = number
            .and_then(|number| usize::try_from(number).ok())
            .filter(|&bytes| bytes <= self.limits.bulk_bytes_max)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        match self.limits.standing {
            Standing::Unauthenticated if bytes > Standing::UNAUTHENTICATED_BULK_BYTES_MAX => {
                Err(ProtocolError::UnauthenticatedBulkLength)
            }
            Standing::Unauthenticated | Standing::Authenticated => Ok(bytes),
        }
    }

    /// The header at the start of `line`: a type, a number, a carriage return, and whatever byte is next.
    #[inline]
    fn header(&mut self, line: &[u8], too_big: ProtocolError) -> Result<Header, ProtocolError> {
        if let Some((number, bytes)) = short_header(line) {
            self.examined(bytes);
            self.line_searched = 0;
            return Ok(Header::Whole { number: Some(number), bytes });
        }
        self.examined(line.len().min(SHORT_DIGITS_MAX + 2));
        self.long_header(line, too_big)
    }

    /// The headers that are not as usual: cut short, wrong, or very long.
    #[cold]
    fn long_header(
        &mut self,
        line: &[u8],
        too_big: ProtocolError,
    ) -> Result<Header, ProtocolError> {
        match self.line_end(b'\r', line).ok_or(too_big)? {
            Some(end) if end + 1 < line.len() => {
                self.line_searched = 0;
                Ok(Header::Whole {
                    number: number::parse(&line[1..end.max(1)]),
                    bytes: end + Self::LINE_END_BYTES,
                })
            }
            Some(_) | None => Ok(Header::Partial),
        }
    }

    /// A line of words: `GET k\r\n`.
    fn inline(&mut self, bytes: &[u8]) -> Result<Progress, ProtocolError> {
        let Some(end) = self.line_end(b'\n', bytes).ok_or(ProtocolError::TooBigInline)? else {
            return Ok(Progress::Needs { bytes: 1 });
        };
        self.line_searched = 0;
        self.examined(end);
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let source = inline::split(line, &mut self.spans, &mut self.unquoted)
            .map_err(|inline::Unbalanced| ProtocolError::UnbalancedQuotes)?;
        let bytes = end + 1;
        if self.spans.is_empty() {
            Ok(Progress::Empty { bytes })
        } else {
            Ok(Progress::Request { source, bytes })
        }
    }

    /// Where the line ends; `Some(None)` if not within these bytes, `None` if that is too far. Starts to
    /// look where the last call for the same line ended.
    fn line_end(&mut self, last: u8, line: &[u8]) -> Option<Option<usize>> {
        let window = line.len().min(self.limits.inline_bytes_max + 1);
        let from = self.line_searched.min(window);
        match memchr(last, &line[from..window]) {
            Some(at) => {
                self.examined(at + 1);
                self.line_searched = from + at;
                Some(Some(from + at))
            }
            None if window > self.limits.inline_bytes_max => None,
            None => {
                self.examined(window - from);
                self.line_searched = window;
                Some(None)
            }
        }
    }

    #[cfg(test)]
    fn examined(&mut self, bytes: usize) {
        self.bytes_examined += bytes;
    }

    #[cfg(not(test))]
    #[inline]
    #[expect(clippy::unused_self, reason = "only tests count")]
    fn examined(&mut self, _bytes: usize) {}
}

/// Keeps offsets within what a [`Span`] holds, and the limits from contradicting each other.
fn clamped(limits: Limits) -> Limits {
    let inline_bytes_max = limits.inline_bytes_max.clamp(LINE_BYTES_MIN, Span::END_MAX / 2);
    let request_bytes_min = inline_bytes_max + Decoder::LINE_END_BYTES;
    Limits {
        inline_bytes_max,
        bulk_bytes_max: limits.bulk_bytes_max.min(Span::END_MAX),
        request_bytes_max: limits.request_bytes_max.clamp(request_bytes_min, Span::END_MAX),
        ..limits
    }
}

/// Lines of this length are always read, so that [`short_header`] need not know the limits.
const LINE_BYTES_MIN: usize = 32;

const _: () = assert!(SHORT_DIGITS_MAX + 2 <= LINE_BYTES_MIN, "no short header is beyond a limit");
const _: () = assert!(usize::BITS >= 64, "sums of a few limits do not overflow");

/// Digits of a header that is read in one go. Nine cannot overflow anything, and are enough for 1 GB.
const SHORT_DIGITS_MAX: usize = 9;

/// The headers that clients do send, up to the byte after the carriage return. `None`: look closer.
///
/// Most have one or two digits, and then are told by their shape at once.
#[inline]
fn short_header(line: &[u8]) -> Option<(i64, usize)> {
    match *line {
        [b'$' | b'*', ones @ b'0'..=b'9', b'\r', _, ..] => Some((i64::from(ones - b'0'), 4)),
        [b'$' | b'*', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..] => {
            Some((i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), 5))
        }
        [b'$' | b'*', b'1'..=b'9', ..] => middling_header(line),
        _ => None,
    }
}

/// Up to [`SHORT_DIGITS_MAX`] digits, the first of which is not 0.
fn middling_header(line: &[u8]) -> Option<(i64, usize)> {
    let mut number = 0;
    for (index, &byte) in line.iter().enumerate().take(SHORT_DIGITS_MAX + 2).skip(1) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            number = number * 10 + i64::from(digit);
        } else {
            let whole = byte == b'\r' && index + 1 < line.len();
            return whole.then_some((number, index + 2));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Command = Vec<Vec<u8>>;

    /// What comes out of a stream: its commands, then an error if it is not well-formed, and what is left.
    fn read(input: &[u8], limits: Limits) -> (Vec<Command>, Result<usize, ProtocolError>) {
        let mut decoder = Decoder::new(limits);
        let (mut commands, mut start) = (Vec::new(), 0);
        loop {
            match decoder.decode(&input[start..]) {
                Ok(Decoded::Request(request)) => {
                    commands.push(request.args().iter().map(<[u8]>::to_vec).collect());
                    start += request.bytes_consumed();
                }
                Ok(Decoded::Incomplete { bytes_consumed, .. }) => {
                    return (commands, Ok(input.len() - start - bytes_consumed));
                }
                Err(error) => return (commands, Err(error)),
            }
        }
    }

    fn words(commands: &[&str]) -> Vec<Command> {
        let command = |line: &&str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        commands.iter().map(command).collect()
    }

    /// Feeds a stream in pieces of one byte, and tells the commands, and how many bytes were looked at.
    fn trickle(input: &[u8]) -> (usize, usize) {
        let mut decoder = Decoder::new(Limits::DEFAULT);
        let (mut commands, mut start) = (0, 0);
        for end in 1..=input.len() {
            match decoder.decode(&input[start..end]).unwrap() {
                Decoded::Request(request) => {
                    commands += 1;
                    start += request.bytes_consumed();
                }
                Decoded::Incomplete { bytes_consumed, .. } => start += bytes_consumed,
            }
        }
        assert_eq!(start, input.len(), "all was consumed");
        (commands, decoder.bytes_examined)
    }

    #[test]
    fn commands_in_all_their_forms() {
        let check = |input: &str, commands: &[&str], left: usize| {
            let found = read(input.as_bytes(), Limits::DEFAULT);
            assert_eq!(found, (words(commands), Ok(left)), "{input:?}");
        };
        check("", &[], 0);
        check("*1\r\n$4\r\nPING\r\n", &["PING"], 0);
        check("*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\nGET k\n", &["GET k", "PING", "GET k"], 0);
        check("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &["ECHO "], 0);
        check("*1\r\n$12\r\nabcdefghijkl\r\n", &["abcdefghijkl"], 0);
        check("*2\r\n$3\r\nGET\r\n$1\r\nk", &[], 18);
        check("*2\r\n$3\r\nGET\r\n$", &[], 14);
        check("PING\r\n*1\r\n$4\r\nPI", &["PING"], 10);
        check("PING", &[], 4);
        // What Redis does not look at either: the line feed, and the line end of an argument.
        check("*1\rx$4\ryPINGzz", &["PING"], 0);
        check("  GET\tk \r\r\n", &["GET k"], 0);
    }

    #[test]
    fn empty_commands_are_dropped_even_when_nothing_follows() {
        for input in ["\r\n", "\n", " \r\n\r\n", "*0\r\n", "*-1\r\n*-9\r\n\n*0\r\n"] {
            let mut decoder = Decoder::new(Limits::DEFAULT);
            let Decoded::Incomplete { bytes_consumed, bytes_needed } =
                decoder.decode(input.as_bytes()).unwrap()
            else {
                panic!("{input:?} is no command");
            };
            assert_eq!((bytes_consumed, bytes_needed), (input.len(), 1), "{input:?}");
        }
        assert_eq!(read(b"\n*0\r\n \nPING\n*0\r\n", Limits::DEFAULT), (words(&["PING"]), Ok(0)));
        assert_eq!(read(b"\r\n*0\r\n*1\r\n$4", Limits::DEFAULT), (vec![], Ok(6)));
    }

    #[test]
    fn every_error_says_what_redis_says() {
        let limits = Limits { inline_bytes_max: 100, request_bytes_max: 1000, ..Limits::DEFAULT };
        let check = |limits: Limits, input: &str, text: &str| {
            let (_, result) = read(input.as_bytes(), limits);
            let error = result.expect_err(input);
            assert_eq!(error.to_string(), format!("Protocol error: {text}"), "{input:?}");
        };
        let counts = [
            "",
            "x",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "1048577",
            "2147483648",
            "99999999999999999999",
        ];
        for count in counts {
            check(limits, &format!("*{count}\r\n"), "invalid multibulk length");
        }
        for bulk in ["", "x", "+1", " 1", "1 ", "00", "-1", "67108865", "99999999999999999999"] {
            check(limits, &format!("*1\r\n${bulk}\r\n"), "invalid bulk length");
        }
        check(limits, "*1\r\nx\r\n", "expected '$', got 'x'");
        check(limits, "*1\r\n\r\n", "expected '$', got ' '");
        check(limits, "*1\r\n*1\r\n", "expected '$', got '*'");
        check(limits, "*1\r\n\u{7f}1\r\n", "expected '$', got '\\x7f'");
        check(limits, "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "expected '$', got 'f'");
        check(limits, "SET k \"v\r\n", "unbalanced quotes in request");
        check(limits, "SET k 'v'x\r\n", "unbalanced quotes in request");
        check(limits, &"x".repeat(101), "too big inline request");
        check(limits, &format!("*{}", "1".repeat(100)), "too big mbulk count string");
        check(limits, &format!("*1\r\n${}", "1".repeat(100)), "too big bulk count string");
        check(limits, "*1\r\n$989\r\n", "too big request");
        let first = format!("*2\r\n$900\r\n{}\r\n", "x".repeat(900));
        check(limits, &format!("{first}$82\r\n"), "too big request");
        check(Limits::UNAUTHENTICATED, "*11\r\n", "unauthenticated multibulk length");
        check(Limits::UNAUTHENTICATED, "*1\r\n$16385\r\n", "unauthenticated bulk length");
        check(Limits::UNAUTHENTICATED, "*1048577\r\n", "invalid multibulk length");
        check(Limits::UNAUTHENTICATED, "*1\r\n$67108865\r\n", "invalid bulk length");
    }

    #[test]
    fn what_is_just_within_the_limits_is_read() {
        let limits = Limits { inline_bytes_max: 100, request_bytes_max: 1000, ..Limits::DEFAULT };
        let inline = format!("{}\n", "x".repeat(100));
        assert_eq!(read(inline.as_bytes(), limits), (words(&[&inline[..100]]), Ok(0)));
        let bulk = format!("*1\r\n$988\r\n{}\r\n", "x".repeat(988));
        assert_eq!(bulk.len(), limits.request_bytes_max);
        assert_eq!(read(bulk.as_bytes(), limits).1, Ok(0));
        let ten = format!("*10\r\n{}", "$1\r\nx\r\n".repeat(10));
        assert_eq!(read(ten.as_bytes(), Limits::UNAUTHENTICATED).1, Ok(0));
        let bulk = format!("*1\r\n$16384\r\n{}\r\n", "x".repeat(16384));
        assert_eq!(read(bulk.as_bytes(), Limits::UNAUTHENTICATED).1, Ok(0));
    }

    #[test]
    fn a_client_that_authenticated_may_send_more_at_once() {
        let input = b"*1\r\n$4\r\nAUTH\r\n*1\r\n$20000\r\n";
        let mut decoder = Decoder::new(Limits::UNAUTHENTICATED);
        let Ok(Decoded::Request(auth)) = decoder.decode(input) else { panic!("AUTH is short") };
        let rest = &input[auth.bytes_consumed()..];
        decoder.set_limits(Limits::DEFAULT);
        let Ok(Decoded::Incomplete { bytes_needed, .. }) = decoder.decode(rest) else {
            panic!("the argument is yet to come");
        };
        assert_eq!(bytes_needed, 20_002);
    }

    #[test]
    fn an_announcement_takes_no_memory() {
        let mut decoder = Decoder::new(Limits::DEFAULT);
        let Ok(Decoded::Incomplete { bytes_consumed: 0, bytes_needed }) =
            decoder.decode(b"*1000000\r\n$67108864\r\n")
        else {
            panic!("nothing of it has come");
        };
        assert_eq!(bytes_needed, 67_108_864 + 2);
        assert_eq!(decoder.spans.capacity() + decoder.unquoted.capacity(), 0);
    }

    #[test]
    fn a_huge_command_does_not_keep_its_memory() {
        let mut decoder = Decoder::new(Limits::DEFAULT);
        let many = format!("*100000\r\n{}", "$1\r\nx\r\n".repeat(100_000));
        let quoted = format!("'{}'\n", "x".repeat(60_000));
        for input in [many, quoted] {
            assert!(matches!(decoder.decode(input.as_bytes()), Ok(Decoded::Request(_))));
            assert!(matches!(decoder.decode(b""), Ok(Decoded::Incomplete { .. })));
            assert!(decoder.spans.capacity() <= Decoder::SCRATCH_KEPT_MAX);
            assert!(decoder.unquoted.capacity() <= Decoder::SCRATCH_KEPT_MAX);
        }
    }

    #[test]
    fn a_stream_of_single_bytes_costs_its_length() {
        let value = format!("*2\r\n$3\r\nSET\r\n$1048576\r\n{}\r\n", "x".repeat(1 << 20));
        let (commands, examined) = trickle(value.as_bytes());
        assert_eq!(commands, 1);
        assert!(examined < 200, "a value is not looked at, but {examined} bytes were");

        let many = format!("*50000\r\n{}", "$3\r\nabc\r\n".repeat(50_000));
        let (commands, examined) = trickle(many.as_bytes());
        assert_eq!(commands, 1);
        assert!(examined < 5 * many.len(), "{examined} of {}", many.len());

        let line = format!("{}\r\n", "word ".repeat(13_000));
        let (commands, examined) = trickle(line.as_bytes());
        assert_eq!(commands, 1);
        assert!(examined < 3 * line.len(), "{examined} of {}", line.len());

        let (commands, examined) = trickle(&b"\r\n".repeat(50_000));
        assert_eq!(commands, 0);
        assert!(examined <= 4 * 100_000, "{examined}");
    }

    #[test]
    fn an_endless_header_is_searched_once() {
        let mut decoder = Decoder::new(Limits::DEFAULT);
        let header = format!("*{}", "1".repeat(65_535));
        for end in 1..=header.len() {
            assert!(matches!(
                decoder.decode(&header.as_bytes()[..end]),
                Ok(Decoded::Incomplete { bytes_consumed: 0, bytes_needed: 1 })
            ));
        }
        assert!(decoder.bytes_examined <= (SHORT_DIGITS_MAX + 3) * header.len());
        let over = format!("{header}1");
        let error = ProtocolError::TooBigMultibulkHeader;
        assert_eq!(decoder.decode(over.as_bytes()).unwrap_err(), error);
        assert_eq!(decoder.decode(over.as_bytes()).unwrap_err(), error, "again");
    }
}
