//! Replies, in the protocol that the client asked for. What RESP2 lacks is sent as what Redis sends.

use std::fmt;
use std::io::Write as _;

use crate::Args;

/// The version of the protocol that a connection speaks. `HELLO` changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every client starts with.
    #[default]
    Resp2,
    /// Has maps, sets, pushes, doubles, booleans and one null.
    Resp3,
}

/// Appends replies to a buffer. Made anew for each reply or batch; it holds nothing of its own.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Encoder<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol that is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status. Line breaks in it become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', format_args!("{text}"));
    }

    /// An error: a code in capitals that clients branch on, such as `ERR`, and a text for people. Line
    /// breaks in them become spaces.
    pub fn error(&mut self, code: &str, text: impl fmt::Display) {
        self.line(b'-', format_args!("{code} {text}"));
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        match u64::try_from(number) {
            Ok(number) => self.header(b':', number),
            Err(_) => self.signed(number),
        }
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + HEADER_BYTES_MAX + 2);
        self.header(b'$', bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Nothing, where there could be a string. RESP2: `$-1`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Nothing, where there could be an array. RESP2: `*-1`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// So many values follow.
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count as u64);
    }

    /// So many pairs of a key and a value follow. RESP2: an array of twice as many values.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', 2 * count as u64),
            Protocol::Resp3 => self.header(b'%', count as u64),
        }
    }

    /// So many values follow, none twice. RESP2: an array.
    pub fn set(&mut self, count: usize) {
        self.aggregate(b'~', count);
    }

    /// So many values follow that answer no request. RESP2: an array, which only a connection that has
    /// subscribed to something expects.
    pub fn push(&mut self, count: usize) {
        self.aggregate(b'>', count);
    }

    /// A floating-point number, in as few digits as tell it from all others. RESP2: a string.
    pub fn double(&mut self, number: f64) {
        self.number_as_text(b',', Double(number));
    }

    /// An integer of any size, in decimal. RESP2: a string.
    pub fn big_number(&mut self, digits: &str) {
        self.number_as_text(b'(', digits);
    }

    /// Yes or no. RESP2: 1 or 0.
    pub fn boolean(&mut self, truth: bool) {
        self.out.extend_from_slice(match (self.protocol, truth) {
            (Protocol::Resp2, false) => b":0\r\n".as_slice(),
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
        });
    }

    /// Text for people, which clients show as it is: `INFO` and such. RESP2: a string.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', "txt:".len() as u64 + text.len() as u64);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A command, as a client sends it. The same in both protocols.
    pub fn request(&mut self, args: Args<'_>) {
        self.array(args.len());
        for arg in args {
            self.bulk(arg);
        }
    }

    fn aggregate(&mut self, kind: u8, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(count),
            Protocol::Resp3 => self.header(kind, count as u64),
        }
    }

    fn number_as_text(&mut self, kind: u8, number: impl fmt::Display) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(number.to_string().as_bytes()),
            Protocol::Resp3 => self.line(kind, format_args!("{number}")),
        }
    }

    fn line(&mut self, kind: u8, text: fmt::Arguments<'_>) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.write_fmt(text).expect("a Vec takes what is written, and our texts can be shown");
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// A kind and a number. Most are lengths below 100, and then one write is enough.
    #[inline]
    fn header(&mut self, kind: u8, number: u64) {
        match number {
            0..=9 => self.out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
            10..=99 => {
                let (tens, ones) = (number as u8 / 10, number as u8 % 10);
                self.out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
            }
            100.. => {
                self.out.push(kind);
                self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn signed(&mut self, number: i64) {
        self.out.push(b':');
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}

/// A kind, twenty digits, a line end.
const HEADER_BYTES_MAX: usize = 23;

/// A floating-point number as RESP writes it: `inf`, `-inf`, `nan`, and an exponent where there would be
/// many zeros.
struct Double(f64);

impl fmt::Display for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number.is_nan() {
            f.write_str("nan")
        } else if number.is_infinite() {
            f.write_str(if number > 0.0 { "inf" } else { "-inf" })
        } else if number == 0.0 || (1e-5..1e17).contains(&number.abs()) {
            write!(f, "{number}")
        } else {
            write!(f, "{number:e}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_to_the_letter() {
        let check = |write: &dyn Fn(&mut Encoder<'_>), resp2: &str, resp3: &str| {
            for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
                let mut out = Vec::new();
                write(&mut Encoder::new(&mut out, protocol));
                assert_eq!(out.escape_ascii().to_string(), expected.escape_default().to_string());
            }
        };
        let same =
            |write: &dyn Fn(&mut Encoder<'_>), expected: &str| check(write, expected, expected);

        same(&|e| e.ok(), "+OK\r\n");
        same(&|e| e.simple("PO\r\nNG"), "+PO  NG\r\n");
        same(&|e| e.error("ERR", "no\nsuch\rthing"), "-ERR no such thing\r\n");
        same(
            &|e| e.error("MOVED", format_args!("{} {}", 7, "h:1")), //
            "-MOVED 7 h:1\r\n",
        );
        same(&|e| e.integer(0), ":0\r\n");
        same(&|e| e.integer(42), ":42\r\n");
        same(&|e| e.integer(-1), ":-1\r\n");
        same(&|e| e.integer(i64::MIN), ":-9223372036854775808\r\n");
        same(&|e| e.integer(i64::MAX), ":9223372036854775807\r\n");
        same(&|e| e.bulk(b""), "$0\r\n\r\n");
        same(&|e| e.bulk(&[b'x'; 100]), &format!("$100\r\n{}\r\n", "x".repeat(100)));
        same(&|e| e.array(12), "*12\r\n");
        same(
            &|e| e.request(Args::from(&[b"GET".as_slice(), b"k"])),
            "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        );
        check(&|e| e.null(), "$-1\r\n", "_\r\n");
        check(&|e| e.null_array(), "*-1\r\n", "_\r\n");
        check(&|e| e.map(3), "*6\r\n", "%3\r\n");
        check(&|e| e.set(3), "*3\r\n", "~3\r\n");
        check(&|e| e.push(2), "*2\r\n", ">2\r\n");
        check(&|e| e.boolean(true), ":1\r\n", "#t\r\n");
        check(&|e| e.boolean(false), ":0\r\n", "#f\r\n");
        check(&|e| e.verbatim("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        check(&|e| e.big_number("-123"), "$4\r\n-123\r\n", "(-123\r\n");
        check(&|e| e.double(0.1), "$3\r\n0.1\r\n", ",0.1\r\n");
        check(&|e| e.double(3.0), "$1\r\n3\r\n", ",3\r\n");
        check(&|e| e.double(-2.5e300), "$8\r\n-2.5e300\r\n", ",-2.5e300\r\n");
        check(&|e| e.double(1e-7), "$4\r\n1e-7\r\n", ",1e-7\r\n");
        check(&|e| e.double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
        check(&|e| e.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        check(&|e| e.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n");
    }
}
