//! The Redis protocol from the client's side, written apart from the product's own decoder so that a
//! mistake in that one does not go unseen. Blocking, one connection; RESP2, and of RESP3 what such replies need that
//! a client gets who has keys tracked.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, without the minus.
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 …`, or nil, which RESP3 has as `_`.
    Bulk(Option<Bytes>),
    /// `*2 …`, or nil; what RESP3 has as `%1 …` or `~2 …` too.
    Array(Option<Vec<Value>>),
}

impl Value {
    /// A bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(Some(bytes.into()))
    }

    /// `+OK`.
    #[must_use]
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(None) | Self::Array(None) => f.write_str("nil"),
            Self::Bulk(Some(bytes)) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Array(Some(values)) => f.debug_list().entries(values).finish(),
        }
    }
}

/// What was pushed is kept so far: most clients never ask for it.
const PUSHED_COUNT_MAX: usize = 100;

/// A connection to a Redis port.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    pushed: VecDeque<Vec<Value>>,
}

impl Connection {
    /// Connects. `patience` bounds this and, later, each wait for bytes.
    ///
    /// # Errors
    /// Nobody listens there, or nobody answers in time.
    pub fn open(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        Self::open_within(addr, patience, patience)
    }

    /// Connects, with another bound for that than for later waits.
    ///
    /// # Errors
    /// Nobody listens there, or nobody answers in time.
    pub fn open_within(
        addr: SocketAddr,
        connect_patience: Duration,
        patience: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, connect_patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream), pushed: VecDeque::new() })
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// The connection was lost, time is up, or the reply is malformed. The command may have been done.
    pub fn call(&mut self, words: &[&[u8]]) -> io::Result<Value> {
        self.send_raw(&encoded(words))?;
        self.receive()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection was lost, or nobody takes the bytes in time.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Says that it understands RESP3, and has everything tracked that is read from now on (`CLIENT TRACKING ON`).
    ///
    /// # Errors
    /// The connection was lost, time is up, or the other end will not.
    pub fn track(&mut self) -> io::Result<()> {
        for words in [&[&b"HELLO"[..], b"3"][..], &[b"CLIENT", b"TRACKING", b"ON"]] {
            if let Value::Error(text) = self.call(words)? {
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }

    /// What was pushed before the replies that came until now, and was not taken yet: the last hundred.
    pub fn pushed(&mut self) -> impl Iterator<Item = Vec<Value>> {
        self.pushed.drain(..)
    }

    /// The next reply. What is pushed before it is kept for [`Self::pushed`].
    ///
    /// # Errors
    /// The connection was lost, time is up, or the reply is malformed.
    pub fn receive(&mut self) -> io::Result<Value> {
        let mut line = self.line()?;
        while let Some(count) = line.strip_prefix('>') {
            let pushed = self.several(count.parse().map_err(|_| odd(&line))?)?;
            self.pushed.push_back(pushed);
            if self.pushed.len() > PUSHED_COUNT_MAX {
                self.pushed.pop_front();
            }
            line = self.line()?;
        }
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| odd(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| odd(&line));
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()?),
            "$" => Value::Bulk(match number()? {
                -1 => None,
                length => Some(self.bulk(length)?),
            }),
            "*" => Value::Array(match number()? {
                -1 => None,
                count => Some(self.several(count)?),
            }),
            "%" => Value::Array(Some(self.several(2 * number()?)?)),
            "~" => Value::Array(Some(self.several(number()?)?)),
            "_" => Value::Bulk(None),
            _ => return Err(odd(&line)),
        })
    }

    fn several(&mut self, count: i64) -> io::Result<Vec<Value>> {
        (0..count).map(|_| self.receive()).collect()
    }

    /// Everything that comes until the other end closes, errors included; empty if it closed without a
    /// word.
    ///
    /// # Errors
    /// It does not close in time.
    pub fn drain(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            // Closed while bytes of ours were unread: as final as an orderly end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
            Err(error) => Err(error),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let whole = line.strip_suffix("\r\n").ok_or_else(|| odd(&line))?.len();
        line.truncate(whole);
        Ok(line)
    }

    fn bulk(&mut self, length: i64) -> io::Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| odd("$ with a negative length"))?;
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        if !bytes.ends_with(b"\r\n") {
            return Err(odd("a bulk string without its end"));
        }
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

/// A command as it goes over the wire.
#[must_use]
pub fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn odd(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn replies_are_read_as_they_were_meant() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let reply = b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*0\r\n";
        let server = thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 22];
                stream.read_exact(&mut asked).unwrap();
                stream.write_all(reply).unwrap();
                asked
            });
            let mut connection = Connection::open(addr, Duration::from_secs(5)).unwrap();
            let Value::Array(Some(values)) = connection.call(&[b"GET", b"kee"]).unwrap() else {
                panic!("an array was sent");
            };
            let said: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
            assert_eq!(said, ["+OK", "-ERR no", ":-7", r#""a\r\nb""#, "nil", "[]"]);
            assert_eq!(connection.drain().unwrap(), b"");
            server.join().unwrap()
        });
        assert_eq!(&server, b"*2\r\n$3\r\nGET\r\n$3\r\nkee\r\n");
    }
}
