//! Commands as people type them into telnet: words and quoted strings on one line.

use memchr::memchr2;

use crate::args::Span;

/// Where the spans of a line that was split point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// To the line itself.
    Line,
    /// To the scratch, where the quotes are resolved.
    Unquoted,
}

/// A quote was not closed, or something other than a blank followed the closing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced;

/// Splits a line into words and appends their spans. Redis, `sdssplitargs`, to the letter except that a
/// NUL byte is a byte like others (there it ends the line).
///
/// `unquoted` is overwritten if the line has quotes, and left alone otherwise.
pub(crate) fn split(
    line: &[u8],
    spans: &mut Vec<Span>,
    unquoted: &mut Vec<u8>,
) -> Result<Source, Unbalanced> {
    if memchr2(b'"', b'\'', line).is_none() {
        split_plain(line, spans);
        return Ok(Source::Line);
    }
    unquoted.clear();
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let start = unquoted.len();
        rest = skip_blanks(take_word(rest, unquoted)?);
        spans.push(Span::new(start..unquoted.len()));
    }
    Ok(Source::Unquoted)
}

fn split_plain(line: &[u8], spans: &mut Vec<Span>) {
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let start = line.len() - rest.len();
        let bytes = rest.iter().position(|&byte| ends_word(byte)).unwrap_or(rest.len());
        spans.push(Span::new(start..start + bytes));
        rest = skip_blanks(&rest[bytes..]);
    }
}

/// Appends the word at the start of `rest`, and returns what comes after it. Quotes may start anywhere in
/// a word and end it: `a"b c"` is `ab c`.
fn take_word<'a>(rest: &'a [u8], unquoted: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    let mut rest = rest;
    loop {
        match rest {
            [] => return Ok(rest),
            [b'"', quoted @ ..] => return take_double_quoted(quoted, unquoted),
            [b'\'', quoted @ ..] => return take_single_quoted(quoted, unquoted),
            [byte, ..] if ends_word(*byte) => return Ok(rest),
            [byte, after @ ..] => {
                unquoted.push(*byte);
                rest = after;
            }
        }
    }
}

fn take_double_quoted<'a>(
    quoted: &'a [u8],
    unquoted: &mut Vec<u8>,
) -> Result<&'a [u8], Unbalanced> {
    let mut rest = quoted;
    loop {
        let (byte, after) = match rest {
            [] => return Err(Unbalanced),
            [b'"', after @ ..] => return closed(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        unquoted.push(byte);
        rest = after;
    }
}

fn take_single_quoted<'a>(
    quoted: &'a [u8],
    unquoted: &mut Vec<u8>,
) -> Result<&'a [u8], Unbalanced> {
    let mut rest = quoted;
    loop {
        let (byte, after) = match rest {
            [] => return Err(Unbalanced),
            [b'\'', after @ ..] => return closed(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        unquoted.push(byte);
        rest = after;
    }
}

/// What follows a closing quote must be a blank or nothing.
fn closed(after: &[u8]) -> Result<&[u8], Unbalanced> {
    match after.first() {
        Some(&byte) if !is_blank(byte) => Err(Unbalanced),
        Some(_) | None => Ok(after),
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => unreachable!("the caller has checked that it is a hexadecimal digit"),
    }
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().position(|&byte| !is_blank(byte)).unwrap_or(line.len());
    &line[blanks..]
}

/// C's `isspace`: what separates words.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What ends a word outside quotes. Vertical tab and form feed do not, though they may precede one.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Args;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let (mut spans, mut unquoted) = (Vec::new(), Vec::new());
        let source = split(line, &mut spans, &mut unquoted)?;
        let bytes = match source {
            Source::Line => line,
            Source::Unquoted => &unquoted,
        };
        Ok(Args::new(bytes, &spans).iter().map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn words_and_quotes_as_redis_splits_them() {
        let check = |line: &[u8], expected: &[&[u8]]| {
            assert_eq!(words(line).unwrap(), expected, "{}", line.escape_ascii());
        };
        check(b"", &[]);
        check(b" \t \x0b\x0c\r", &[]);
        check(b"PING", &[b"PING"]);
        check(b"  SET\tk  v ", &[b"SET", b"k", b"v"]);
        check(br"a\n b\", &[br"a\n", br"b\"]);
        check(b"a\x0bb", &[b"a\x0bb"]);
        check(b"a\0b \0", &[b"a\0b", b"\0"]);
        check(br#"SET k "a b" 'c d'"#, &[b"SET", b"k", b"a b", b"c d"]);
        check(br#""" ''"#, &[b"", b""]);
        check(br#"a"b c""#, &[b"ab c"]);
        check(br#"a'b"c'"#, &[b"ab\"c"]);
        check(br#""\x00\xfF\xg1\x1""#, &[b"\x00\xffxg1x1"]);
        check(
            br#""\n\r\t\b\a\\\"\'\q""#,
            b"\n\r\t\x08\x07\\\"'q".chunks(9).collect::<Vec<_>>().as_slice(),
        );
        check(br#"'\n\'\x41\"'"#, &[br#"\n'\x41\""#]);
        check(b"'a'\x0b\"b\"", &[b"a", b"b"]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#"""#, "'", r#""a"#, "'a", r#""a"b"#, "'a'b", r#""a\""#, r"'a\'", r#"a """"#]
        {
            assert_eq!(words(line.as_bytes()), Err(Unbalanced), "{line}");
        }
    }
}
