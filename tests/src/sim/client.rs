//! A Redis client inside the simulation: it follows redirections, gives up at deadlines, and records what
//! it asked and what it was told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use scatterhoard_resp::{Args, Encoder, Protocol, ReplyLimits, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use turmoil::net::TcpStream;

use scatterhoard_check::history::{Action, Answer, Recorder, When};

/// How long one request may take with everything that it needs: longer than a node keeps it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reply to a read is waited for before somebody else is asked: longer than a node takes to
/// find out that nobody leads a slot.
const READ_PATIENCE: Duration = Duration::from_millis(1500);

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// Redirections of one request that are followed. A cluster in peace needs one.
const HOPS_COUNT_MAX: usize = 16;

/// Pause before another node is tried.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A node's Redis ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Cluster mode: other nodes' keys are redirected.
    Cluster,
    /// Any key: forwarded.
    AnyKey,
}

impl Port {
    /// Its number on every simulated machine.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Cluster => 6379,
            Self::AnyKey => 7379,
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Done, with this answer.
    Done(Answer),
    /// Not done, for this reason.
    Refused(String),
    /// The outcome is not known, for this reason.
    InDoubt(String),
}

impl Told {
    /// The answer.
    ///
    /// # Panics
    /// If it was not done.
    #[track_caller]
    pub fn acked(self) -> Answer {
        match self {
            Self::Done(answer) => answer,
            Self::Refused(reason) => panic!("refused: {reason}"),
            Self::InDoubt(reason) => panic!("in doubt: {reason}"),
        }
    }

    /// The reason why it was not done.
    ///
    /// # Panics
    /// If it was done, or may have been.
    #[track_caller]
    pub fn refused(self) -> String {
        match self {
            Self::Refused(reason) => reason,
            Self::Done(answer) => panic!("done: {answer:?}"),
            Self::InDoubt(reason) => panic!("in doubt: {reason}"),
        }
    }

    /// Whether it was done.
    #[must_use]
    pub const fn is_acked(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// A client. Lives on a host of the simulation.
pub struct Client {
    number: u32,
    entries: Vec<SocketAddr>,
    /// Which entry is asked first.
    first: usize,
    /// Whether redirections are followed, and other nodes tried.
    roams: bool,
    /// Whether it has what it reads tracked.
    tracks: bool,
    /// What was pushed to it.
    pushes_count: u64,
    connections: BTreeMap<SocketAddr, Connection>,
    recorder: Recorder,
    hops_most: usize,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    pushes_count: u64,
}

/// Why there is no reply.
enum Lost {
    /// Nothing was sent.
    Unsent(String),
    /// The request may have arrived.
    Sent(String),
}

impl Client {
    /// A client that knows all nodes.
    #[must_use]
    pub fn new(number: u32, nodes: &[IpAddr], port: Port, recorder: Recorder) -> Self {
        let entries = nodes.iter().map(|&ip| SocketAddr::new(ip, port.number())).collect();
        Self {
            number,
            entries,
            first: 0,
            roams: true,
            tracks: false,
            pushes_count: 0,
            connections: BTreeMap::new(),
            recorder,
            hops_most: 0,
        }
    }

    /// A client that knows one node and asks no other.
    #[must_use]
    pub fn of_one(number: u32, node: IpAddr, port: Port, recorder: Recorder) -> Self {
        Self { roams: false, ..Self::new(number, &[node], port, recorder) }
    }

    /// A client that has everything tracked that it reads (`CLIENT TRACKING ON`), in RESP3. It keeps no copies: what it
    /// is told must not get in the way of anything.
    #[must_use]
    pub fn tracking(self) -> Self {
        Self { tracks: true, ..self }
    }

    /// How often something was pushed to it.
    #[must_use]
    pub const fn pushes_count(&self) -> u64 {
        self.pushes_count
    }

    /// The most redirections that one request needed.
    #[must_use]
    pub const fn hops_most(&self) -> usize {
        self.hops_most
    }

    /// Asks the node at this position first from now on.
    pub fn prefer(&mut self, position: usize) {
        self.first = position % self.entries.len();
    }

    /// Asks, and records what was asked and told.
    pub async fn ask(&mut self, action: Action) -> Told {
        let pending = self.recorder.begin(self.number, action.clone(), now());
        let told = self.serve(&action).await;
        match &told {
            Told::Done(answer) => pending.done(answer.clone(), now()),
            Told::Refused(_) => pending.refused(now()),
            Told::InDoubt(_) => pending.unknown(),
        }
        told
    }

    /// Asks once and waits no longer than `patience`; follows nothing.
    pub async fn glance(&mut self, action: Action, patience: Duration) {
        let pending = self.recorder.begin(self.number, action.clone(), now());
        let by = Instant::now() + patience;
        let replies = self.call(self.entries[self.first], &encoded(&action), 1, by).await;
        match replies.map(|mut replies| told(&action, replies.remove(0))) {
            Ok(Told::Done(answer)) => pending.done(answer, now()),
            Ok(Told::Refused(_)) | Err(Lost::Unsent(_)) => pending.refused(now()),
            Ok(Told::InDoubt(_)) | Err(Lost::Sent(_)) => pending.unknown(),
        }
    }

    /// Asks without recording it.
    pub async fn ask_unseen(&mut self, action: Action) -> Told {
        self.serve(&action).await
    }

    /// Asks for several things at once, of one node and on one connection, and follows no redirection.
    pub async fn pipeline(&mut self, actions: Vec<Action>) -> Vec<Told> {
        let begin = |action: &Action| self.recorder.begin(self.number, action.clone(), now());
        let pending: Vec<_> = actions.iter().map(begin).collect();
        let requests: Vec<u8> = actions.iter().flat_map(encoded).collect();
        let to = self.entries[self.first];
        let by = Instant::now() + PATIENCE;
        let replies = self.call(to, &requests, actions.len(), by).await;
        let mut replies = replies.map(Vec::into_iter);
        let mut all_told = Vec::with_capacity(actions.len());
        for (action, pending) in actions.iter().zip(pending) {
            let told = match &mut replies {
                Ok(replies) => told(action, replies.next().expect("one for each")),
                Err(Lost::Unsent(reason)) => Told::Refused(reason.clone()),
                Err(Lost::Sent(reason)) => Told::InDoubt(reason.clone()),
            };
            match &told {
                Told::Done(answer) => pending.done(answer.clone(), now()),
                Told::Refused(_) => pending.refused(now()),
                Told::InDoubt(_) => pending.unknown(),
            }
            all_told.push(told);
        }
        all_told
    }

    /// Asks for several keys that are not in one slot, of a port for any key. Such a command is not done at one
    /// moment: each key counts as an operation of its own, all with the same outcome.
    pub async fn scatter(&mut self, action: Action) {
        let parts: Vec<_> = match &action {
            Action::SetMany { pairs } => {
                pairs.iter().map(|(key, value)| Action::set(key.clone(), value.clone())).collect()
            }
            Action::GetMany { keys } => keys.iter().cloned().map(Action::get).collect(),
            other => panic!("{other:?} is about one key"),
        };
        let pending: Vec<_> =
            parts.into_iter().map(|it| self.recorder.begin(self.number, it, now())).collect();
        let told = self.serve(&action).await;
        for (at, pending) in pending.into_iter().enumerate() {
            match &told {
                Told::Done(Answer::Values(values)) => {
                    pending.done(Answer::Value(values[at].clone()), now());
                }
                Told::Done(answer) => pending.done(answer.clone(), now()),
                Told::Refused(_) => pending.refused(now()),
                Told::InDoubt(_) => pending.unknown(),
            }
        }
    }

    /// Whether it asks at a port for any key.
    #[must_use]
    pub fn takes_any_key(&self) -> bool {
        self.entries.iter().all(|entry| entry.port() == Port::AnyKey.number())
    }

    /// Which client it is.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    async fn serve(&mut self, action: &Action) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let request = encoded(action);
        let mut to = self.entries[self.first];
        let mut hops = 0;
        loop {
            let by = match action.is_read() {
                true => deadline.min(Instant::now() + READ_PATIENCE),
                false => deadline,
            };
            let replies = self.call(to, &request, 1, by).await;
            let again = match replies.map(|mut replies| replies.remove(0)) {
                // A read that got lost can be asked again: it changes nothing.
                Err(Lost::Sent(reason)) if !action.is_read() || Instant::now() >= deadline => {
                    return Told::InDoubt(reason);
                }
                Err(Lost::Sent(reason) | Lost::Unsent(reason)) => {
                    self.first = (self.first + 1) % self.entries.len();
                    to = self.entries[self.first];
                    tokio::time::sleep(ASK_AGAIN).await;
                    reason
                }
                Ok(Value::Error(text)) if text.starts_with("MOVED ") && self.roams => {
                    hops += 1;
                    self.hops_most = self.hops_most.max(hops);
                    let target = text.rsplit(' ').next().and_then(|addr| addr.parse().ok());
                    to = target.unwrap_or_else(|| panic!("{text:?} names no address"));
                    text
                }
                Ok(reply) => return told(action, reply),
            };
            if hops > HOPS_COUNT_MAX || Instant::now() >= deadline || !self.roams {
                return Told::Refused(again);
            }
        }
    }

    /// So many requests and their replies on a connection that is kept if all goes well.
    async fn call(
        &mut self,
        to: SocketAddr,
        requests: &[u8],
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, Lost> {
        let mut connection = match self.connections.remove(&to) {
            Some(connection) => connection,
            None => connect(to, self.tracks, deadline).await.map_err(Lost::Unsent)?,
        };
        let replied = timeout_at(deadline, connection.exchange(requests, count)).await;
        self.pushes_count += std::mem::take(&mut connection.pushes_count);
        match replied {
            Ok(Ok(values)) => {
                self.connections.insert(to, connection);
                Ok(values)
            }
            Ok(Err(error)) => Err(Lost::Sent(format!("connection to {to}: {error}"))),
            Err(_) => Err(Lost::Sent(format!("no reply from {to}"))),
        }
    }
}

impl Connection {
    async fn exchange(&mut self, requests: &[u8], count: usize) -> std::io::Result<Vec<Value>> {
        self.stream.write_all(requests).await?;
        let mut values = Vec::with_capacity(count);
        loop {
            let decoded = Value::decode(&self.received, ReplyLimits::DEFAULT);
            if let Some((value, length)) = decoded.map_err(std::io::Error::other)? {
                self.received.drain(..length);
                if matches!(value, Value::Push(_)) {
                    self.pushes_count += 1;
                    continue;
                }
                values.push(value);
                if values.len() == count {
                    return Ok(values);
                }
                continue;
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn connect(to: SocketAddr, tracks: bool, deadline: Instant) -> Result<Connection, String> {
    let by = deadline.min(Instant::now() + CONNECT_PATIENCE);
    let connected = async {
        let stream = TcpStream::connect(to).await?;
        let mut connection = Connection { stream, received: Vec::new(), pushes_count: 0 };
        if tracks {
            let mut requests = Vec::new();
            let mut encoder = Encoder::new(&mut requests, Protocol::Resp2);
            encoder.request(Args::from(&[&b"HELLO"[..], b"3"]));
            encoder.request(Args::from(&[&b"CLIENT"[..], b"TRACKING", b"ON"]));
            let replies = connection.exchange(&requests, 2).await?;
            if let Some(Value::Error(text)) =
                replies.into_iter().find(|it| matches!(it, Value::Error(_)))
            {
                return Err(std::io::Error::other(text));
            }
        }
        Ok(connection)
    };
    match timeout_at(by, connected).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("cannot connect to {to}: {error}")),
        Err(_) => Err(format!("cannot connect to {to} in time")),
    }
}

/// Simulated time, in nanoseconds: the same on every host.
fn now() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("a client runs on a simulated host");
    u64::try_from(elapsed.as_nanos()).expect("a simulation is shorter than five hundred years")
}

/// What a reply means.
fn told(action: &Action, reply: Value) -> Told {
    let Value::Error(text) = reply else { return Told::Done(answer_of(action, reply)) };
    match text.split(' ').next().unwrap_or_default() {
        "MOVED" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" | "OOM" | "CROSSSLOT" => {
            Told::Refused(text)
        }
        "INDOUBT" => Told::InDoubt(text),
        "ERR" if text.contains("not an integer") || text.contains("overflow") => {
            Told::Done(Answer::Failed)
        }
        _ => panic!("{action:?} was answered with {text:?}"),
    }
}

fn answer_of(action: &Action, reply: Value) -> Answer {
    match (action, reply) {
        (Action::Get { .. } | Action::Swap { .. } | Action::GetDelete { .. }, reply) => {
            Answer::Value(value_of(reply))
        }
        (Action::GetMany { .. }, Value::Array(values)) => {
            Answer::Values(values.into_iter().map(value_of).collect())
        }
        (Action::Set { when: When::Always, .. } | Action::SetMany { .. }, Value::Simple(_)) => {
            Answer::Done
        }
        (Action::Set { .. }, Value::Simple(_)) => Answer::Bool(true),
        (Action::Set { .. }, Value::Null) => Answer::Bool(false),
        (Action::Incr { .. } | Action::Append { .. }, Value::Integer(number)) => {
            Answer::Number(number)
        }
        (Action::Delete { .. }, Value::Integer(number)) => Answer::Bool(number > 0),
        (action, reply) => panic!("{action:?} was answered with {reply:?}"),
    }
}

fn value_of(reply: Value) -> Option<Bytes> {
    match reply {
        Value::Bulk(bytes) => Some(bytes.into()),
        Value::Null => None,
        other => panic!("{other:?} is no value"),
    }
}

/// The command, as it is sent.
fn encoded(action: &Action) -> Vec<u8> {
    let words = words_of(action);
    let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
    let mut request = Vec::new();
    Encoder::new(&mut request, Protocol::Resp2).request(Args::from(&words));
    request
}

/// The words of the command.
fn words_of(action: &Action) -> Vec<Bytes> {
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let number = |number: String| Bytes::from(number);
    match action {
        Action::Get { key } => vec![word("GET"), key.clone()],
        Action::GetMany { keys } => {
            std::iter::once(word("MGET")).chain(keys.iter().cloned()).collect()
        }
        Action::Set { key, value, when, ttl } => {
            let mut words = vec![word("SET"), key.clone(), value.clone()];
            match when {
                When::Always => {}
                When::Absent => words.push(word("NX")),
                When::Present => words.push(word("XX")),
                When::Equal(expected) => words.extend([word("IFEQ"), expected.clone()]),
            }
            if let Some(ttl) = ttl {
                words.extend([word("PX"), number((ttl / 1_000_000).to_string())]);
            }
            words
        }
        Action::SetMany { pairs } => {
            let words = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
            std::iter::once(word("MSET")).chain(words).collect()
        }
        Action::Swap { key, value } => {
            vec![word("SET"), key.clone(), value.clone(), word("GET")]
        }
        Action::Incr { key, by } => vec![word("INCRBY"), key.clone(), number(by.to_string())],
        Action::Append { key, value } => vec![word("APPEND"), key.clone(), value.clone()],
        Action::Delete { key } => vec![word("DEL"), key.clone()],
        Action::GetDelete { key } => vec![word("GETDEL"), key.clone()],
    }
}
