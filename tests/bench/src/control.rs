//! One question at a time to a Redis-protocol server, for what is not load: readiness, slots, roles.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long a server may take for one answer before it counts as not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deeper answers are not what was asked for. `CLUSTER SLOTS` needs four.
const DEPTH_MAX: usize = 8;

/// More is not an answer to a question about a server.
const BYTES_MAX: usize = 64 << 20;

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A simple string.
    Simple(String),
    /// An error, without the minus.
    Error(String),
    /// An integer.
    Int(i64),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several answers.
    Array(Vec<Answer>),
}

/// A connection for questions.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<TcpStream>,
}

impl Control {
    /// Connects to a server.
    ///
    /// # Errors
    /// If it does not accept within seconds.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// If the connection breaks, times out, or carries no Redis protocol; then it must not be used again.
    pub fn ask(&mut self, words: &[&str]) -> anyhow::Result<Answer> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut self.stream, DEPTH_MAX)
            .with_context(|| format!("asked {}", words.join(" ")))
    }
}

fn read_answer(stream: &mut impl BufRead, depth: usize) -> anyhow::Result<Answer> {
    let mut line = String::new();
    stream.take(BYTES_MAX as u64).read_line(&mut line)?;
    let text = line.strip_suffix("\r\n").context("the connection ended")?;
    let (kind, rest) = text.split_at_checked(1).context("an empty line")?;
    Ok(match kind {
        "+" => Answer::Simple(rest.to_owned()),
        "-" => Answer::Error(rest.to_owned()),
        ":" => Answer::Int(rest.parse()?),
        "_" => Answer::Nil,
        "$" if rest == "-1" => Answer::Nil,
        "$" => {
            let bytes: usize = rest.parse()?;
            ensure!(bytes <= BYTES_MAX, "an answer of {bytes} bytes");
            let mut body = vec![0; bytes + 2];
            stream.read_exact(&mut body)?;
            body.truncate(bytes);
            Answer::Bulk(body)
        }
        "*" if rest == "-1" => Answer::Nil,
        "*" => {
            ensure!(depth > 0, "an answer nested too deeply");
            let count: usize = rest.parse()?;
            (0..count)
                .map(|_| read_answer(stream, depth - 1))
                .collect::<Result<_, _>>()
                .map(Answer::Array)?
        }
        _ => bail!("not a reply: {text:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_answers_are_read_whole() {
        let mut stream = &b"*2\r\n*2\r\n:1\r\n$2\r\nab\r\n-ERR no\r\n"[..];
        let inner = Answer::Array(vec![Answer::Int(1), Answer::Bulk(b"ab".to_vec())]);
        let whole = Answer::Array(vec![inner, Answer::Error("ERR no".into())]);
        assert_eq!(read_answer(&mut stream, DEPTH_MAX).unwrap(), whole);
    }

    #[test]
    fn an_end_in_the_middle_is_an_error() {
        for mut stream in [&b""[..], b"$5\r\nab", b"*2\r\n:1\r\n", b"%1\r\n"] {
            assert!(read_answer(&mut stream, DEPTH_MAX).is_err());
        }
    }
}
