//! Any Redis or Valkey server, from 7.0 on, or a cluster of them.
//!
//! # What lies there
//! Values lie under their keys as they are, so other programs can read and write them. An entry with a soft deadline
//! or tags, and one that says that there is nothing, has a header of about 60 bytes before it, which begins with 16
//! bytes that no text begins with; other programs have to leave it alone, or overwrite it whole. Beside that there are
//! keys whose names begin with `scatterhoard:`: for each load that is under way its lease, which ends by itself; for
//! each tag ever used the time when it was last invalidated, about 100 bytes; and one clock for the tags. They may be
//! evicted or deleted, which costs loads. One thing is lost then: a tag that was invalidated *and* whose key was evicted
//! while a load was under way does not refuse what that load brings. With a policy of `noeviction` or `volatile-…`
//! they are not evicted; leases are, with the latter, and that does no harm.
//!
//! # How fresh copies are
//! Everything goes over connections with `CLIENT TRACKING ON`: the server notes who reads which key, and tells of its
//! next change. A copy is served only under a proof: while copies are in use, each server is asked for its role about
//! every quarter of the bound. A server answers a connection in the order of its requests, and puts what it tells of a
//! change into that order before the writer has its answer. So once an answer is there, everything that was
//! acknowledged before its question was *sent* has been told, and copies may be served until that moment plus the
//! bound. This is all there is to it: what is told late, or not at all, comes with no later proof.
//!
//! - A connection that is lost ends every copy. Of what is loaded over it nobody would tell.
//! - A server that hangs, or a network that loses everything, proves nothing: after the bound no copy is served.
//! - Where the server does not permit `ROLE`, `PING` is asked instead.
//! - **Failover.** All this is about what *that server* has. A master that was cut off and does not know yet that
//!   another was made master proves its own state: copies are as old as what `GET` there would answer, and not more
//!   than the bound older, but the other master may have acknowledged newer writes. What a server forgets when it fails
//!   over, as Redis' replication may, the level forgets too: acknowledged writes, that a tag was invalidated, that a
//!   lease was void. Once it says that it is no master, its copies end.
//! - Nodes of a Redis cluster are followed one by one. If one connection is lost, the copies of all nodes end: a little
//!   too much, and seldom. Of an entry with tags copies are kept only if the keys of its tags lie on the same node as
//!   its own, so on a single server always.
//!
//! # How loads are kept apart
//! Leases, fills and conditions are scripts, so each is one step for the server. A lease lies in the slot of its key.
//! What writes or removes through this library voids it. A program that knows nothing of leases does not, but the fill
//! finds out: it is done only if under the key there still is what there was when the lease was given. What it cannot
//! find out is that such a program has *deleted* what was not there, or has written and deleted it again while the
//! load was under way. Programs that delete keys to make caches load anew should do it through this library, or through
//! `DEL` of both the key and its lease.
//!
//! # What it costs
//! A hit: `GET` and `PTTL`. Each tag of an entry: one `GET` more when it is looked at, after the entry's. A miss with a
//! lease: a script, and a `GET`. To invalidate tags: two scripts, however many entries there are.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pulse::{answered_by, probe_while_used};
use super::waiters::Waiters;
use super::watch::{Asked, Watch};
use super::{Ask, Change, ClusterLevel, Entry, LevelConfig, Look, Mark, Moment, Token, When};
use crate::cluster::Answer;
use crate::link::Sent;
use crate::listen::{LineId, Listener};
use crate::topology::Address;
use crate::{Clock, Cluster, Command, Effect, Error, Value};
use frame::{decode_header, encode};
use look::digits;
use names::Name;
use scripts::{Call, DROP_IT, FILL_IT, RELEASE_IT, REMOVE_IT, SET_IT, Script};
use tags::{Leases, Tagged};

mod frame;
mod look;
mod names;
mod scripts;
mod tags;

/// A [`ClusterLevel`] in any Redis or Valkey server or cluster. See [the module](self) for what it promises.
///
/// ```no_run
/// use std::time::Duration;
/// use scatterhoard_client::level::{
///     Ask, ClusterLevel, Content, Entry, Found, LevelConfig, RedisLevel,
/// };
///
/// # async fn example() -> Result<(), scatterhoard_client::Error> {
/// let level = RedisLevel::connect(LevelConfig::new(["127.0.0.1:6379"])).await?;
/// let ask = Ask::Lease { lasts: Duration::from_secs(10), stale: true };
/// match level.look(b"greeting", ask).await?.found {
///     Found::Load(lease) => {
///         let entry = Entry {
///             content: Content::Value("hello".into()),
///             soft: Some(Duration::from_secs(60)),
///             hard: Some(Duration::from_secs(600)),
///             tags: vec!["greetings".into()],
///         };
///         assert!(level.fill(b"greeting", lease.token, &entry).await?);
///     }
///     found => println!("{found:?}"),
/// }
/// level.invalidate_tags(&["greetings".into()]).await?;
/// # Ok(())
/// # }
/// ```
pub struct RedisLevel {
    server: Arc<Server>,
    _ends_with_it: DropGuard,
}

/// What the level, its prober and its looks share.
struct Server {
    cluster: Cluster,
    watch: Arc<Watch>,
    tagged: Arc<Tagged>,
    waiters: Arc<Waiters>,
    leases: Leases,
    /// Makes random numbers, each once.
    random: RandomState,
    drawn_count: AtomicU64,
    /// Connections to servers of which something is known.
    notes: Mutex<BTreeMap<Address, (LineId, Note)>>,
}

/// What is known of a server, as long as a connection to it lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    /// It does not say what its role is.
    Roleless,
    /// It is no master, so it is not followed.
    Replica,
}

/// Hears what the servers tell.
struct Ears {
    watch: Arc<Watch>,
    tagged: Arc<Tagged>,
    waiters: Arc<Waiters>,
}

impl RedisLevel {
    /// Connects to the server, or the cluster, at these addresses.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn connect(config: LevelConfig) -> Result<Self, Error> {
        let watch = Arc::new(Watch::new(config.bound_within_limits()));
        let tagged = Arc::new(Tagged::default());
        let waiters = Arc::new(Waiters::new());
        let ears = Ears {
            watch: Arc::clone(&watch),
            tagged: Arc::clone(&tagged),
            waiters: Arc::clone(&waiters),
        };
        let cluster = Cluster::connect_listening(config.connections, Some(Arc::new(ears))).await?;
        let server = Arc::new(Server {
            cluster,
            watch,
            tagged,
            waiters,
            leases: Leases::new(),
            random: RandomState::new(),
            drawn_count: AtomicU64::new(0),
            notes: Mutex::default(),
        });
        // Opens a connection to each node: only then what is loaded there can be kept.
        join_all(server.cluster.nodes().into_iter().map(|node| server.probe(node))).await;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let probing = Arc::clone(&server);
        tokio::spawn(async move {
            let pace = probing.watch.bound() / 4;
            let probe = |node| probing.probe(node);
            probe_while_used(&probing.watch.pulse, &probing.cluster, pace, ended, probe).await;
        });
        Ok(Self { server, _ends_with_it: guard })
    }
}

impl std::fmt::Debug for RedisLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisLevel").field(&self.server.cluster).finish()
    }
}

impl ClusterLevel for RedisLevel {
    fn look<'a>(&'a self, key: &'a [u8], ask: Ask) -> BoxFuture<'a, Result<Look, Error>> {
        async move {
            let keys = [Bytes::copy_from_slice(key)];
            let mut looks = self.server.look_at(&keys, ask).await;
            looks.pop().expect("each key has an outcome")
        }
        .boxed()
    }

    fn look_many<'a>(
        &'a self,
        keys: &'a [Bytes],
        ask: Ask,
    ) -> BoxFuture<'a, Vec<Result<Look, Error>>> {
        self.server.look_at(keys, ask).boxed()
    }

    fn wait<'a>(&'a self, key: &'a [u8], at_most: Duration) -> BoxFuture<'a, Result<(), Error>> {
        self.server.wait(key, at_most).boxed()
    }

    fn fill<'a>(
        &'a self,
        key: &'a [u8],
        token: Token,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.server.fill(key, token, entry).boxed()
    }

    fn release<'a>(&'a self, key: &'a [u8], token: Token) -> BoxFuture<'a, Result<bool, Error>> {
        self.server.release(key, token).boxed()
    }

    fn set<'a>(
        &'a self,
        key: &'a [u8],
        entry: &'a Entry,
        when: &'a When,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.server.set(key, entry, when).boxed()
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Bytes, Entry)],
    ) -> BoxFuture<'a, Vec<Result<(), Error>>> {
        self.server.set_many(entries).boxed()
    }

    fn remove<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool, Error>> {
        self.server.remove(key).boxed()
    }

    fn invalidate_tags<'a>(&'a self, tags: &'a [Bytes]) -> BoxFuture<'a, Result<(), Error>> {
        self.server.invalidate(tags).boxed()
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.server.watch.may_serve(mark, now)
    }

    fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        self.server.watch.is_dead(mark, now)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.server.watch.changes()
    }
}

impl Server {
    async fn wait(&self, key: &[u8], at_most: Duration) -> Result<(), Error> {
        let lease = names::lease(key);
        let look = |until| {
            let command = Command::read("PTTL").key(&lease);
            async move {
                let by = self.cluster.deadline().min(until);
                let left = self.ask(command, by).await?.value.into_integer()?;
                // One more: it is whole milliseconds. Negative: there is no lease.
                Ok(u64::try_from(left).ok().map(|left| Duration::from_millis(left + 1)))
            }
        };
        self.waiters.wait(&lease, at_most, look).await
    }

    async fn fill(&self, key: &[u8], token: Token, entry: &Entry) -> Result<bool, Error> {
        let by = self.cluster.deadline();
        let given = self.leases.taken(token);
        let stamp = match given {
            Some(time) => time,
            // Nobody knows what was invalidated since the lease was given.
            None if !entry.tags.is_empty() => return self.release(key, token).await.map(|_| false),
            None => 0,
        };
        let stale = !entry.tags.is_empty() && self.claim(&entry.tags, stamp, by).await? > stamp;
        if stale {
            return self.release(key, token).await.map(|_| false);
        }
        let _changing = self.watch.changing(key);
        let stored = encode(entry, stamp, self.unique());
        let filled =
            self.script(&FILL_IT, key, vec![digits(token), stored.blob, px(stored.ends_after)]);
        Ok(self.run(filled, by).await?.value.into_integer()? == 1)
    }

    async fn release(&self, key: &[u8], token: Token) -> Result<bool, Error> {
        let call = Call {
            script: &RELEASE_IT,
            effect: Effect::Writes,
            keys: vec![names::lease(key)],
            arguments: vec![digits(token)],
        };
        let by = self.cluster.deadline();
        Ok(self.run(call, by).await?.value.into_integer()? == 1)
    }

    async fn set(&self, key: &[u8], entry: &Entry, when: &When) -> Result<bool, Error> {
        let by = self.cluster.deadline();
        let stamp = self.stamp(&entry.tags, by).await?;
        let _changing = self.watch.changing(key);
        let mut live = Bytes::new();
        loop {
            let arguments = self.setting(entry, stamp, when, &live);
            let answer = self.run(self.script(&SET_IT, key, arguments), by).await?.value;
            match answer {
                Value::Integer(done) => return Ok(done == 1),
                Value::Bytes(header) => {
                    if self.is_header_stale(&header, by).await? {
                        self.drop_entry(key, header, by).await?;
                    } else {
                        live = header;
                    }
                }
                other => return Err(other.unexpected("whether it was set")),
            }
            if Instant::now() >= by {
                return Err(Error::NotDone("the key changes all the time".to_owned()));
            }
        }
    }

    async fn set_many(&self, entries: &[(Bytes, Entry)]) -> Vec<Result<(), Error>> {
        let by = self.cluster.deadline();
        let mut tags: Vec<_> = entries.iter().flat_map(|(_, entry)| entry.tags.clone()).collect();
        tags.sort_unstable();
        tags.dedup();
        let stamp = match self.stamp(&tags, by).await {
            Ok(stamp) => stamp,
            Err(error) => return entries.iter().map(|_| Err(error.clone())).collect(),
        };
        let _changing: Vec<_> = entries.iter().map(|(key, _)| self.watch.changing(key)).collect();
        let calls = entries.iter().map(|(key, entry)| {
            let arguments = self.setting(entry, stamp, &When::Always, &Bytes::new());
            self.script(&SET_IT, key, arguments)
        });
        let answers = self.run_all(calls.collect(), by).await;
        answers.into_iter().map(|answer| answer.map(drop)).collect()
    }

    async fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        let by = self.cluster.deadline();
        let changing = self.watch.changing(key);
        let removed = self.run(self.script(&REMOVE_IT, key, Vec::new()), by).await?.value;
        drop(changing);
        match removed {
            Value::Integer(there) => Ok(there == 1),
            // It is gone; what fails from here on is not the removal.
            Value::Bytes(header) => Ok(!self.is_header_stale(&header, by).await.unwrap_or(false)),
            other => Err(other.unexpected("whether it was there")),
        }
    }

    async fn invalidate(&self, tags: &[Bytes]) -> Result<(), Error> {
        if tags.is_empty() {
            return Ok(());
        }
        let _changing = ChangingTags::begin(self, tags);
        self.raise(tags, self.cluster.deadline()).await
    }

    /// Whether an entry with this header is stale by a tag.
    async fn is_header_stale(&self, header: &Bytes, by: Instant) -> Result<bool, Error> {
        let Some(frame) = decode_header(header.clone()) else { return Ok(false) };
        let read = |tag: &Bytes| Command::read("GET").key(names::tag(tag));
        let commands: Vec<_> = frame.tags.iter().map(read).collect();
        let answers = self.cluster.answers(commands, by).await;
        let times = answers.into_iter().map(|answer| answer.map(|answer| answer.value));
        Ok(Self::is_stale(frame.stamp, &times.collect::<Result<Vec<_>, _>>()?))
    }

    async fn drop_entry(&self, key: &[u8], header: Bytes, by: Instant) -> Result<(), Error> {
        let call = Call {
            script: &DROP_IT,
            effect: Effect::Reads,
            keys: vec![Bytes::copy_from_slice(key)],
            arguments: vec![header],
        };
        self.run(call, by).await.map(drop)
    }

    /// The arguments with which a key is set. `live`: the header of an entry whose tags are live.
    fn setting(&self, entry: &Entry, stamp: u64, when: &When, live: &Bytes) -> Vec<Bytes> {
        let stored = encode(entry, stamp, self.unique());
        let (condition, of) = match when {
            When::Always => ("always", Bytes::new()),
            When::Absent => ("absent", Bytes::new()),
            When::Present => ("present", Bytes::new()),
            When::Equal(value) => ("equal", value.clone()),
        };
        vec![stored.blob, px(stored.ends_after), condition.into(), of, live.clone()]
    }

    /// A script that writes a key, and has to do with its lease.
    fn script(&self, script: &'static Script, key: &[u8], arguments: Vec<Bytes>) -> Call {
        let keys = vec![Bytes::copy_from_slice(key), names::lease(key)];
        Call { script, effect: Effect::Writes, keys, arguments }
    }

    async fn run(&self, call: Call, by: Instant) -> Result<Answer, Error> {
        self.run_all(vec![call], by).await.pop().expect("each call has an answer")
    }

    /// Runs scripts by their names, and those that a server does not know in full.
    async fn run_all(&self, calls: Vec<Call>, by: Instant) -> Vec<Result<Answer, Error>> {
        let commands: Vec<_> = calls.iter().map(|call| call.script.by_name(call)).collect();
        let mut answers = self.cluster.answers(commands, by).await;
        let unknown = |answer: &Result<Answer, Error>| matches!(answer, Err(Error::Refused { code, .. }) if code == "NOSCRIPT");
        let again: Vec<_> = (0..calls.len()).filter(|&at| unknown(&answers[at])).collect();
        if again.is_empty() {
            return answers;
        }
        let in_full: Vec<_> =
            again.iter().map(|&at| calls[at].script.in_full(&calls[at])).collect();
        let second = self.cluster.answers(in_full, by).await;
        for (at, answer) in again.into_iter().zip(second) {
            answers[at] = answer;
        }
        answers
    }

    async fn ask(&self, command: Command, by: Instant) -> Result<Answer, Error> {
        self.cluster.answers(vec![command], by).await.pop().expect("each command has an answer")
    }

    /// A random number that was not drawn before.
    fn unique(&self) -> u64 {
        self.random.hash_one(self.drawn_count.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks a server whether it is a master, and takes the answer for proof.
    async fn probe(&self, node: Address) {
        let line = self.watch.line_to(&node);
        let noted = self.notes.lock().get(&node).copied();
        let note = noted.filter(|(of, _)| Some(*of) == line).map(|(_, note)| note);
        let name = if note == Some(Note::Roleless) { "PING" } else { "ROLE" };
        // Before it is sent: what the answer proves counts from here.
        let asked = self.watch.ask(Clock::new().now());
        let sent = self.cluster.ask(&node, &Command::read(name), answered_by(&self.watch)).await;
        match (sent, line) {
            (Sent::Answered(Value::Array(role), over), _) => {
                let is_master =
                    matches!(role.first(), Some(Value::Bytes(role)) if &**role == b"master");
                self.role_known(node, over, is_master, note, &asked);
            }
            (Sent::Answered(Value::Error(code, _), over), _) => {
                // Not while it is loading its data, and the like.
                if code == "NOPERM" || code == "ERR" {
                    self.notes.lock().insert(node, (over, Note::Roleless));
                }
            }
            (Sent::Answered(_, over), _) => self.watch.server_answered(&asked, over),
            (Sent::Lost(_), Some(line)) => self.cluster.give_up(&node, line),
            (Sent::Lost(_), None) | (Sent::Unsent(_), _) => {}
        }
    }

    fn role_known(
        &self,
        node: Address,
        over: LineId,
        is_master: bool,
        note: Option<Note>,
        asked: &Asked,
    ) {
        match (is_master, note) {
            (true, Some(Note::Replica)) => {
                // It is one again. What it told in between was heard by nobody.
                self.notes.lock().remove(&node);
                self.cluster.give_up(&node, over);
            }
            (true, _) => self.watch.server_answered(asked, over),
            (false, _) => {
                // What is loaded there may be old.
                self.watch.unfollow(over);
                self.notes.lock().insert(node, (over, Note::Replica));
            }
        }
    }
}

/// We are invalidating tags. The copies of their entries end when it begins, and again when it is over.
struct ChangingTags<'a> {
    server: &'a Server,
    tags: &'a [Bytes],
}

impl<'a> ChangingTags<'a> {
    fn begin(server: &'a Server, tags: &'a [Bytes]) -> Self {
        let changing = Self { server, tags };
        changing.tell();
        changing
    }

    fn tell(&self) {
        for tag in self.tags {
            self.server.tagged.changed(&self.server.watch, tag);
        }
    }
}

impl Drop for ChangingTags<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Listener for Ears {
    fn opened(&self, node: &Address, line: LineId) {
        self.watch.opened_to_server(node, line);
    }

    fn lost(&self, line: LineId) {
        self.watch.lost(line);
        // Nobody will be told by it.
        self.waiters.wake_all();
    }

    fn key_changed(&self, key: Bytes) {
        match names::name(&key) {
            None => self.watch.key_changed(key),
            Some(Name::Lease) => {
                self.watch.own_key_changed(&key);
                self.waiters.wake(&key);
            }
            Some(Name::Tag(tag)) => {
                self.watch.own_key_changed(&key);
                self.tagged.changed(&self.watch, &tag);
            }
            Some(Name::Clock) => self.watch.own_key_changed(&key),
        }
    }

    fn everything_changed(&self) {
        self.tagged.everything_changed(&self.watch);
        self.waiters.wake_all();
    }
}

/// The last argument of scripts that set: milliseconds, or nothing.
fn px(ends_after: Option<u64>) -> Bytes {
    ends_after.map_or(Bytes::new(), |millis| millis.to_string().into())
}
