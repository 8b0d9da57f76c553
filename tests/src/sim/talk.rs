//! A connection to one node, for what is said outside histories: any command, and what is pushed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use scatterhoard_resp::{Args, Encoder, Protocol, ReplyLimits, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use turmoil::net::TcpStream;

use super::cluster::TELLER;
use super::{Cluster, Port, Running};

/// How long a reply is waited for: longer than any command takes that is not told to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that stays, in RESP3.
#[derive(Clone)]
pub struct Talk(Rc<RefCell<Option<Line>>>);

struct Line {
    stream: TcpStream,
    received: Vec<u8>,
    pushed: VecDeque<String>,
}

impl Cluster {
    /// Opens a connection from the teller to a node.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn talk(&mut self, node: usize, port: Port) -> Talk {
        let to = SocketAddr::new(self.ip_of(node), port.number());
        let stream = self.run(TELLER, async move { TcpStream::connect(to).await });
        let stream = stream.unwrap_or_else(|error| panic!("node {node} does not listen: {error}"));
        let line = Line { stream, received: Vec::new(), pushed: VecDeque::new() };
        let talk = Talk(Rc::new(RefCell::new(Some(line))));
        self.say(&talk, "HELLO 3");
        talk
    }

    /// Says something, in words between blanks, and answers with the reply; `"lost"` if there is none. Several lines go at
    /// once, and so do their replies. What is
    /// pushed before it can be [heard](Self::hear) later.
    pub fn say(&mut self, talk: &Talk, words: &str) -> String {
        let running = self.spawn_say(talk, words);
        self.finish(&running)
    }

    /// The same, while the story goes on.
    pub fn spawn_say(&mut self, talk: &Talk, words: &str) -> Running<String> {
        let (talk, words) = (talk.clone(), words.to_owned());
        self.spawn(TELLER, async move {
            let Some(mut line) = talk.0.take() else { return "lost".to_owned() };
            let Ok(Ok(reply)) = timeout(PATIENCE, line.say(&words)).await else {
                return "lost".to_owned();
            };
            talk.0.replace(Some(line));
            reply
        })
    }

    /// The next push, if there is one within this time; `"lost"` if the connection ended instead.
    pub fn hear(&mut self, talk: &Talk, within: Duration) -> Option<String> {
        let talk = talk.clone();
        self.run(TELLER, async move {
            let Some(mut line) = talk.0.take() else { return Some("lost".to_owned()) };
            let heard = timeout(within, line.hear()).await;
            if matches!(heard, Ok(Err(_))) {
                return Some("lost".to_owned());
            }
            talk.0.replace(Some(line));
            heard.ok().and_then(Result::ok)
        })
    }
}

impl Line {
    async fn say(&mut self, lines: &str) -> std::io::Result<String> {
        let mut requests = Vec::new();
        for line in lines.lines() {
            let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            Encoder::new(&mut requests, Protocol::Resp2).request(Args::from(&words));
        }
        self.stream.write_all(&requests).await?;
        let mut replies = Vec::new();
        while replies.len() < lines.lines().count() {
            match self.next().await? {
                Value::Push(parts) => self.pushed.push_back(shown(&Value::Array(parts))),
                reply => replies.push(shown(&reply)),
            }
        }
        Ok(replies.join("\n"))
    }

    async fn hear(&mut self) -> std::io::Result<String> {
        if let Some(pushed) = self.pushed.pop_front() {
            return Ok(pushed);
        }
        match self.next().await? {
            Value::Push(parts) => Ok(shown(&Value::Array(parts))),
            other => Err(Error::other(format!("nobody asked for {other:?}"))),
        }
    }

    async fn next(&mut self) -> std::io::Result<Value> {
        loop {
            let decoded = Value::decode(&self.received, ReplyLimits::DEFAULT);
            if let Some((value, length)) = decoded.map_err(Error::other)? {
                self.received.drain(..length);
                return Ok(value);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// As a person would write it down.
fn shown(value: &Value) -> String {
    let list =
        |values: &[Value]| format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(" "));
    match value {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => format!("-{text}"),
        Value::Integer(number) => number.to_string(),
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Null => "nil".to_owned(),
        Value::Array(values) | Value::Push(values) | Value::Set(values) => list(values),
        Value::Boolean(is) => is.to_string(),
        Value::Map(_) | Value::Double(_) | Value::BigNumber(_) | Value::Verbatim { .. } => {
            format!("{value:?}")
        }
    }
}
