//! A cluster of ours.
//!
//! Loads are kept apart, deadlines kept, tags compared and leases voided by the nodes, by the commands that
//! `docs/commands.md` tells of; here they are only sent.
//!
//! # How fresh copies are
//! Everything goes over connections with `CLIENT TRACKING ON`: the leader of a key's partition notes who reads it, and
//! tells of its next change before the writer has its answer. A copy is served only under a proof: while copies are in
//! use, each node is asked `HOARD.PROBE` about every quarter of the bound, which it answers with what it leads under a
//! lease *after* it was asked, behind all that it had to tell. So a copy is never older than the bound, by what was
//! acknowledged anywhere, whatever is lost, cut off, paused or deposed: a leader that is none any more has no lease,
//! and proves nothing.
//!
//! - Copies of a partition end when the connection to its leader is lost, when another leads it or the same anew, and
//!   when the leader says so.
//! - Of what was answered by another node than the one that is followed for its partition, as while a leadership moves,
//!   no copy is kept.
//! - Probes find out who leads what. They are sent only while copies are in use.
//!
//! What a Bloom filter said is kept in the same way: see [`crate::bloom`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use scatterhoard_near::{Position, Stamp};
use scatterhoard_ring::{Generation, SlotRange};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pulse::{answered_by, probe_while_used};
use super::waiters::Waiters;
use super::watch::{Asked, Leads, Watch};
use super::{
    Ask, Change, ClusterLevel, Content, Entry, Found, LEASE_MAX, Lease, LevelConfig, Look, Mark,
    Moment, Stored, Token, When,
};
use crate::cluster::Answer;
use crate::link::Sent;
use crate::listen::{LineId, Listener};
use crate::topology::Address;
use crate::{Clock, Cluster, Command, Error, Value};

mod filters;

/// A [`ClusterLevel`] in a cluster of ours. See [the module](self) for what it promises.
///
/// ```no_run
/// use std::time::Duration;
/// use scatterhoard_client::level::{Ask, ClusterLevel, Content, Entry, Found, HoardLevel, LevelConfig};
///
/// # async fn example() -> Result<(), scatterhoard_client::Error> {
/// let level = HoardLevel::connect(LevelConfig::new(["127.0.0.1:7001"])).await?;
/// let ask = Ask::Lease { lasts: Duration::from_secs(10), stale: false };
/// if let Found::Load(lease) = level.look(b"user:1", ask).await?.found {
///     let content = Content::Negative;
///     let entry = Entry { content, soft: None, hard: Some(Duration::from_secs(60)), tags: vec![] };
///     level.fill(b"user:1", lease.token, &entry).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct HoardLevel {
    nodes: Arc<Nodes>,
    _ends_with_it: DropGuard,
}

/// What the level and its prober share.
struct Nodes {
    cluster: Cluster,
    watch: Arc<Watch>,
    waiters: Arc<Waiters>,
}

/// Hears what the nodes tell.
struct Ears {
    watch: Arc<Watch>,
    waiters: Arc<Waiters>,
}

/// What a node answered to `HOARD.GET`.
enum Told {
    Found(Found),
    /// Nothing is there, and no lease was given: it went this very moment.
    Miss,
}

impl HoardLevel {
    /// Connects to the cluster that has nodes at these addresses.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn connect(config: LevelConfig) -> Result<Self, Error> {
        let watch = Arc::new(Watch::new(config.bound_within_limits()));
        let waiters = Arc::new(Waiters::new());
        let ears = Ears { watch: Arc::clone(&watch), waiters: Arc::clone(&waiters) };
        let cluster = Cluster::connect_listening(config.connections, Some(Arc::new(ears))).await?;
        let nodes = Arc::new(Nodes { cluster, watch, waiters });
        // Who leads what: only then what is loaded can be kept.
        join_all(nodes.cluster.nodes().into_iter().map(|node| nodes.probe(node))).await;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let probing = Arc::clone(&nodes);
        tokio::spawn(async move {
            let pace = probing.watch.bound() / 4;
            let probe = |node| probing.probe(node);
            probe_while_used(&probing.watch.pulse, &probing.cluster, pace, ended, probe).await;
        });
        Ok(Self { nodes, _ends_with_it: guard })
    }
}

impl std::fmt::Debug for HoardLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HoardLevel").field(&self.nodes.cluster).finish()
    }
}

impl ClusterLevel for HoardLevel {
    fn look<'a>(&'a self, key: &'a [u8], ask: Ask) -> BoxFuture<'a, Result<Look, Error>> {
        async move {
            let keys = [Bytes::copy_from_slice(key)];
            let mut looks = self.nodes.look_at(&keys, ask).await;
            looks.pop().expect("each key has an outcome")
        }
        .boxed()
    }

    fn look_many<'a>(
        &'a self,
        keys: &'a [Bytes],
        ask: Ask,
    ) -> BoxFuture<'a, Vec<Result<Look, Error>>> {
        self.nodes.look_at(keys, ask).boxed()
    }

    fn wait<'a>(&'a self, key: &'a [u8], at_most: Duration) -> BoxFuture<'a, Result<(), Error>> {
        self.nodes.wait(key, at_most).boxed()
    }

    fn fill<'a>(
        &'a self,
        key: &'a [u8],
        token: Token,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            let command = Command::write("HOARD.FILL").key(key).arg(token.0.to_string());
            let command = terms(command.arg(value(entry)), entry);
            let _changing = self.nodes.watch.changing(key);
            Ok(self.nodes.cluster.run(command).await?.into_integer()? == 1)
        }
        .boxed()
    }

    fn release<'a>(&'a self, key: &'a [u8], token: Token) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            let command = Command::write("HOARD.RELEASE").key(key).arg(token.0.to_string());
            Ok(self.nodes.cluster.run(command).await?.into_integer()? == 1)
        }
        .boxed()
    }

    fn set<'a>(
        &'a self,
        key: &'a [u8],
        entry: &'a Entry,
        when: &'a When,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            let _changing = self.nodes.watch.changing(key);
            was_set(self.nodes.cluster.run(setting(key, entry, when)).await?)
        }
        .boxed()
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Bytes, Entry)],
    ) -> BoxFuture<'a, Vec<Result<(), Error>>> {
        async move {
            let watch = &self.nodes.watch;
            let _changing: Vec<_> = entries.iter().map(|(key, _)| watch.changing(key)).collect();
            let set = |(key, entry): &(Bytes, Entry)| setting(key, entry, &When::Always);
            let answers = self.nodes.cluster.run_many(entries.iter().map(set).collect()).await;
            answers.into_iter().map(|answer| was_set(answer?).map(drop)).collect()
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            let _changing = self.nodes.watch.changing(key);
            self.nodes.cluster.delete(key).await
        }
        .boxed()
    }

    fn invalidate_tags<'a>(&'a self, tags: &'a [Bytes]) -> BoxFuture<'a, Result<(), Error>> {
        self.nodes.invalidate(tags).boxed()
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.nodes.watch.may_serve(mark, now)
    }

    fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        self.nodes.watch.is_dead(mark, now)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.nodes.watch.changes()
    }
}

impl Nodes {
    async fn look_at(&self, keys: &[Bytes], ask: Ask) -> Vec<Result<Look, Error>> {
        let by = self.cluster.deadline();
        let mut outcomes: Vec<Option<Result<Look, Error>>> = keys.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        while !open.is_empty() {
            // Before anything is sent.
            let now = Clock::new().now();
            let begun: Vec<_> = open.iter().map(|&at| self.watch.begin(&keys[at], now)).collect();
            let commands: Vec<_> = open.iter().map(|&at| looking(&keys[at], ask)).collect();
            let answers = self.cluster.answers(commands, by).await;
            let mut again = Vec::new();
            for ((at, begun), answer) in open.into_iter().zip(begun).zip(answers) {
                let told = answer.and_then(|Answer { value, line }| Ok((told(value, ask)?, line)));
                outcomes[at] = match (told, ask) {
                    (Ok((Told::Miss, _)), Ask::Lease { .. }) if Instant::now() < by => {
                        again.push(at);
                        continue;
                    }
                    (Ok((Told::Miss, _)), _) => Some(Ok(Look { found: Found::Absent, mark: None })),
                    (Ok((Told::Found(found), line)), _) => {
                        let lives_for = lives_for(&found);
                        let mark = begun.zip(lives_for).and_then(|(begun, lives_for)| {
                            self.watch.keep(&begun, line, lives_for)
                        });
                        Some(Ok(Look { found, mark }))
                    }
                    (Err(error), _) => Some(Err(error)),
                };
            }
            open = again;
        }
        outcomes.into_iter().map(|outcome| outcome.expect("each key has an outcome")).collect()
    }

    async fn wait(&self, key: &[u8], at_most: Duration) -> Result<(), Error> {
        let look = |until| {
            // It is not left to wait: all who share the connection would wait with it.
            let commands = vec![Command::read("HOARD.WAIT").key(key).arg("0")];
            async move {
                let by = self.cluster.deadline().min(until);
                let mut answers = self.cluster.answers(commands, by).await;
                let value = answers.pop().expect("each command has an answer")?.value;
                let Value::Array(parts) = &value else { return Err(value.unexpected("a tuple")) };
                Ok(match &parts[..] {
                    [Value::Bytes(word), Value::Integer(left)] if &**word == b"wait" => {
                        Some(Duration::from_millis(u64::try_from(*left).unwrap_or(0) + 1))
                    }
                    _ => None,
                })
            }
        };
        self.waiters.wait(key, at_most, look).await
    }

    async fn invalidate(&self, tags: &[Bytes]) -> Result<(), Error> {
        if tags.is_empty() {
            return Ok(());
        }
        let command = Command::read("HOARD.INVALIDATE").arg("TAG");
        // It may be sent again: twice does the same.
        let command = tags.iter().fold(command, Command::arg);
        if let Err(error) = self.cluster.run(command).await {
            self.watch.everything_changed();
            return Err(error);
        }
        // Which of our copies have such a tag only the nodes know. What they had to tell has come once each has
        // answered what it is asked from now on.
        let lines = self.watch.lines();
        join_all(lines.into_iter().map(|(line, node)| async move {
            let sent = self.cluster.ask(&node, &probe(), answered_by(&self.watch)).await;
            if !matches!(sent, Sent::Answered(Value::Array(_), over) if over == line) {
                self.watch.unfollow(line);
            }
        }))
        .await;
        Ok(())
    }

    /// Asks a node what it leads, and takes the answer for proof.
    async fn probe(&self, node: Address) {
        let line = self.watch.line_to(&node);
        // Before it is sent: what the answer proves counts from here.
        let asked = self.watch.ask(Clock::new().now());
        match (self.cluster.ask(&node, &probe(), answered_by(&self.watch)).await, line) {
            (Sent::Answered(value, over), _) => self.probed(&asked, over, &value),
            (Sent::Lost(_), Some(line)) => self.cluster.give_up(&node, line),
            (Sent::Lost(_), None) | (Sent::Unsent(_), _) => {}
        }
    }

    fn probed(&self, asked: &Asked, over: LineId, value: &Value) {
        let Value::Array(rows) = value else { return };
        let leads: Option<Vec<_>> = rows.iter().map(leads).collect();
        if let Some(leads) = leads {
            self.watch.node_answered(asked, over, &leads);
        }
    }
}

impl Listener for Ears {
    fn opened(&self, node: &Address, line: LineId) {
        self.watch.opened(node, line);
    }

    fn lost(&self, line: LineId) {
        self.watch.lost(line);
        self.waiters.wake_all();
    }

    fn key_changed(&self, key: Bytes) {
        self.waiters.wake(&key);
        self.watch.key_changed(key);
    }

    fn everything_changed(&self) {
        self.watch.everything_changed();
        self.waiters.wake_all();
    }
}

fn probe() -> Command {
    Command::read("HOARD.PROBE")
}

/// A row of what a node leads: first and last slot, generation, term, index.
fn leads(row: &Value) -> Option<Leads> {
    let Value::Array(row) = row else { return None };
    let numbers: Option<Vec<u64>> = row
        .iter()
        .map(|number| match number {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        })
        .collect();
    let [first, last, generation, term, index] = numbers?[..] else { return None };
    let slots =
        SlotRange::new(u16::try_from(first).ok()?, u16::try_from(last.checked_add(1)?).ok()?)?;
    let generation = Generation::new(u32::try_from(generation).ok()?);
    let stamp = Stamp { generation, term };
    Some(Leads { slots, stamp, position: Position::new(index) })
}

fn looking(key: &Bytes, ask: Ask) -> Command {
    // A lease whose answer is lost ends by itself, so it may be asked for twice.
    let command = Command::read("HOARD.GET").key(key);
    match ask {
        Ask::Peek => command,
        Ask::Lease { lasts, stale } => {
            let command = command.arg("LEASE").millis(lasts.min(LEASE_MAX));
            if stale { command.arg("STALE") } else { command }
        }
    }
}

fn setting(key: &[u8], entry: &Entry, when: &When) -> Command {
    let command = Command::write("HOARD.SET").key(key).arg(value(entry));
    let command = match when {
        When::Always => command,
        When::Absent => command.arg("NX"),
        When::Present => command.arg("XX"),
        When::Equal(value) => command.arg("IFEQ").arg(value),
    };
    terms(command, entry)
}

fn was_set(answer: Value) -> Result<bool, Error> {
    match answer {
        Value::Nil => Ok(false),
        Value::Text(_) => Ok(true),
        other => Err(other.unexpected("OK")),
    }
}

fn value(entry: &Entry) -> &[u8] {
    match &entry.content {
        Content::Value(value) => value,
        Content::Negative => b"",
    }
}

fn terms(mut command: Command, entry: &Entry) -> Command {
    if entry.content == Content::Negative {
        command = command.arg("NEGATIVE");
    }
    if let Some(hard) = entry.hard {
        command = command.arg("PX").millis(hard);
    }
    if let Some(soft) = entry.soft {
        command = command.arg("SOFT").millis(soft);
    }
    if !entry.tags.is_empty() {
        command = command.arg("TAGS").arg(entry.tags.len().to_string());
        command = entry.tags.iter().fold(command, Command::arg);
    }
    command
}

/// How long a copy may be kept; `None` if there is nothing to keep.
#[expect(clippy::option_option, reason = "there may be a copy that lives for ever")]
fn lives_for(found: &Found) -> Option<Option<Duration>> {
    match found {
        Found::Value(stored) => Some(stored.lives_for),
        Found::Negative { lives_for } => Some(*lives_for),
        Found::Absent | Found::Load(_) | Found::Wait { .. } => None,
    }
}

fn told(value: Value, ask: Ask) -> Result<Told, Error> {
    read(&value, ask).ok_or_else(|| value.unexpected("what HOARD.GET answers"))
}

fn read(value: &Value, ask: Ask) -> Option<Told> {
    let Value::Array(parts) = value else { return None };
    let (Value::Bytes(word), rest) = parts.split_first()? else { return None };
    let found = match (&**word, rest) {
        (b"value", [Value::Bytes(bytes), fresh, lives]) => {
            let lives_for = time(lives)?;
            let fresh_for = time(fresh)?.filter(|fresh| Some(*fresh) != lives_for);
            let bytes = bytes.clone();
            Found::Value(Stored { bytes, fresh_for, lives_for, refresh: None })
        }
        (b"stale", [Value::Bytes(bytes), by, lives]) => {
            let refresh = match (by, ask) {
                (Value::Nil, _) => None,
                (by, Ask::Lease { lasts, .. }) => {
                    Some(Lease { token: token(by)?, lasts: lasts.min(LEASE_MAX) })
                }
                (_, Ask::Peek) => return None,
            };
            let (bytes, fresh_for) = (bytes.clone(), Some(Duration::ZERO));
            Found::Value(Stored { bytes, fresh_for, lives_for: time(lives)?, refresh })
        }
        (b"negative", [lives]) => Found::Negative { lives_for: time(lives)? },
        (b"load", [by, lasts]) => Found::Load(Lease { token: token(by)?, lasts: time(lasts)?? }),
        (b"wait", [left]) => match ask {
            Ask::Peek => return Some(Told::Miss),
            Ask::Lease { .. } => Found::Wait { at_most: time(left)?? },
        },
        (b"miss", []) => return Some(Told::Miss),
        _ => return None,
    };
    Some(Told::Found(found))
}

/// Milliseconds; -1: for ever.
#[expect(clippy::option_option, reason = "it may be no time, or for ever")]
fn time(value: &Value) -> Option<Option<Duration>> {
    let Value::Integer(millis) = value else { return None };
    match u64::try_from(*millis) {
        Ok(millis) => Some(Some(Duration::from_millis(millis))),
        Err(_) => (*millis == -1).then_some(None),
    }
}

fn token(value: &Value) -> Option<Token> {
    match value {
        Value::Bytes(digits) => std::str::from_utf8(digits).ok()?.parse().ok().map(Token),
        Value::Integer(number) => u64::try_from(*number).ok().map(Token),
        _ => None,
    }
}
