//! What must hold of any bytes that a client or a server sends. For tests and fuzzers only.

use crate::{
    Args, Decoded, Decoder, Encoder, Limits, Protocol, ProtocolError, ReplyDecoder, ReplyError,
    ReplyLimits, Standing, Value,
};

type Command = Vec<Vec<u8>>;

/// Small enough for short inputs to reach every limit.
const TIGHT: Limits = Limits {
    bulk_bytes_max: 40,
    args_count_max: 12,
    inline_bytes_max: 32,
    request_bytes_max: 120,
    standing: Standing::Authenticated,
};

/// Requests: the first byte chooses limits and cuts, the others are what a client sends.
///
/// However the stream is cut into reads, the same commands and the same error come out; no more is kept
/// than the limits say; and a command that was read is read again as it was from what the encoder makes
/// of it.
pub fn requests(input: &[u8]) {
    let Some((&choice, stream)) = input.split_first() else { return };
    let limits = match choice & 3 {
        0 => TIGHT,
        1 => Limits::UNAUTHENTICATED,
        _ => Limits::DEFAULT,
    };
    let whole = read_requests(stream, usize::MAX, limits);
    assert_eq!(read_requests(stream, 1, limits), whole, "byte by byte");
    let pieces = usize::from(choice >> 2) + 2;
    assert_eq!(read_requests(stream, pieces, limits), whole, "in pieces of {pieces}");
    let mut again = Vec::new();
    for command in &whole.0 {
        Encoder::new(&mut again, Protocol::Resp2).request(Args::from(command));
    }
    let back = read_requests(&again, usize::MAX, Limits::DEFAULT);
    assert_eq!(back, (whole.0, Ok(Vec::new())), "written and read again");
}

/// Replies: the first byte chooses how they are cut, the others are what a server sends.
///
/// However the stream is cut, the same values and the same error come out; and what was read is read again
/// as it was from its plainest writing.
pub fn replies(input: &[u8]) {
    let Some((&choice, stream)) = input.split_first() else { return };
    let whole = read_replies(stream, usize::MAX);
    assert_eq!(read_replies(stream, 1), whole, "byte by byte");
    let pieces = usize::from(choice) + 2;
    assert_eq!(read_replies(stream, pieces), whole, "in pieces of {pieces}");
    for value in &whole.0 {
        let mut again = Vec::new();
        put(value, &mut again);
        let back = Value::decode(&again, ReplyLimits::DEFAULT).expect("it is well formed");
        assert_eq!(told(&back), told(&Some((value, again.len()))));
    }
}

fn read_requests(
    stream: &[u8],
    piece_bytes: usize,
    limits: Limits,
) -> (Vec<Command>, Result<Vec<u8>, ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let (mut commands, mut buffer) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer) {
                Ok(Decoded::Request(request)) => {
                    assert!(!request.args().is_empty(), "a command has a name");
                    commands.push(request.args().iter().map(<[u8]>::to_vec).collect());
                    let bytes_consumed = request.bytes_consumed();
                    buffer.drain(..bytes_consumed);
                }
                Ok(Decoded::Incomplete { bytes_consumed, bytes_needed }) => {
                    buffer.drain(..bytes_consumed);
                    let bytes_max = limits.request_bytes_max + limits.inline_bytes_max;
                    assert!(buffer.len() <= bytes_max, "{} bytes are kept", buffer.len());
                    assert!((1..=limits.bulk_bytes_max + 2).contains(&bytes_needed));
                    break;
                }
                Err(error) => return (commands, Err(error)),
            }
        }
    }
    (commands, Ok(buffer))
}

/// The values as text: a number that is none does not equal itself.
fn read_replies(stream: &[u8], piece_bytes: usize) -> Replies {
    let limits = ReplyLimits { bulk_bytes_max: 40, reply_bytes_max: 400, ..ReplyLimits::DEFAULT };
    let mut decoder = ReplyDecoder::new(limits);
    let (mut values, mut buffer) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer) {
                Ok(Some((value, bytes_consumed))) => {
                    values.push(value);
                    buffer.drain(..bytes_consumed);
                }
                Ok(None) => break,
                Err(error) => return Replies(values, Err(error)),
            }
        }
    }
    Replies(values, Ok(buffer))
}

/// What was read of a stream, and what is left of it.
#[derive(Debug)]
struct Replies(Vec<Value>, Result<Vec<u8>, ReplyError>);

impl PartialEq for Replies {
    fn eq(&self, other: &Self) -> bool {
        told(&self.0) == told(&other.0) && self.1 == other.1
    }
}

/// As text, since a number that is none does not equal itself.
fn told(of: &impl std::fmt::Debug) -> String {
    format!("{of:?}")
}

/// Writes a value in RESP3 without the encoder, which need not be able to write all that can be read.
fn put(value: &Value, out: &mut Vec<u8>) {
    let line = |out: &mut Vec<u8>, kind: char, text: &str| {
        out.extend_from_slice(format!("{kind}{text}\r\n").as_bytes());
    };
    let count = |out: &mut Vec<u8>, kind, count: usize| line(out, kind, &count.to_string());
    let bytes = |out: &mut Vec<u8>, kind, bytes: &[u8]| {
        count(out, kind, bytes.len());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    };
    let all = |out: &mut Vec<u8>, kind, values: &[Value]| {
        count(out, kind, values.len());
        values.iter().for_each(|value| put(value, out));
    };
    match value {
        Value::Simple(text) => line(out, '+', text),
        Value::Error(text) => line(out, '-', text),
        Value::Integer(number) => line(out, ':', &number.to_string()),
        Value::Bulk(text) => bytes(out, '$', text),
        Value::Null => line(out, '_', ""),
        Value::Array(values) => all(out, '*', values),
        Value::Set(values) => all(out, '~', values),
        Value::Push(values) => all(out, '>', values),
        Value::Map(pairs) => {
            count(out, '%', pairs.len());
            for (key, value) in pairs {
                put(key, out);
                put(value, out);
            }
        }
        Value::Double(number) => line(out, ',', &number.to_string()),
        Value::Boolean(truth) => line(out, '#', if *truth { "t" } else { "f" }),
        Value::BigNumber(digits) => line(out, '(', digits),
        Value::Verbatim { format, text } => {
            bytes(out, '=', &[format, &b":"[..], text].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_fuzz::bounded;

    use super::*;

    #[test]
    fn any_requests_are_read_alike_however_cut() {
        let seeds = [
            &b"\0*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*0\r\n*-1\r\n"[..],
            b"\x01*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nabc\0\r\n\xffdefgh\r\n",
            b"\x16SET \"a\\x00\\n\" 'b\\'c'\r\n\r\nECHO hi\n*1\r\n$4\r\nQUIT\r\n",
            b"\x02*1048577\r\n",
            b"\x02*1\r\n$67108865\r\n",
            b"\0*1\r\n!",
        ];
        bounded("requests", &seeds.map(<[u8]>::to_vec), requests);
    }

    #[test]
    fn any_replies_are_read_alike_however_cut() {
        let seeds = [
            &b"\0+OK\r\n-ERR no\r\n:-12\r\n$2\r\nhi\r\n$-1\r\n*-1\r\n*2\r\n:1\r\n*0\r\n"[..],
            b"\x07%1\r\n+a\r\n~1\r\n#t\r\n>2\r\n+p\r\n,1.5\r\n_\r\n(123\r\n=6\r\ntxt:hi\r\n",
            b"\x01,nan\r\n,inf\r\n,-inf\r\n#f\r\n*1\r\n*1\r\n*1\r\n+x\r\n",
        ];
        bounded("replies", &seeds.map(<[u8]>::to_vec), replies);
    }
}
