//! Routing: each command goes to the node that leads its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use scatterhoard_ring::Slot;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::command::{Effect, SetOptions};
use crate::link::{Link, Sent, Span};
use crate::listen::{LineId, Listener};
use crate::topology::{Address, Topology};
use crate::{Command, Config, Error, Value};

/// Redirections of one request that are followed. A cluster in peace needs one.
const HOPS_COUNT_MAX: usize = 16;

/// Redirections after which each further one waits a moment: two nodes that name each other are about to find out.
const HOPS_COUNT_AT_ONCE: usize = 2;

/// Pause before a request is sent again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long reasons for fetching the map anew are gathered.
const REFRESH_GATHERS: Duration = Duration::from_millis(100);

/// A cluster, seen from a client. Cheap to clone: all clones share connections, and what is known of the nodes.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    _ends_with_the_last: Arc<DropGuard>,
}

struct Shared {
    config: Arc<Config>,
    listener: Option<Arc<dyn Listener>>,
    topology: RwLock<Topology>,
    links: Mutex<BTreeMap<Address, Arc<Link>>>,
    /// Told when the map may be wrong.
    doubted: Notify,
    /// Where the next request without a leader goes.
    turn: AtomicUsize,
}

/// An answer, and the connection that it came over.
pub(crate) struct Answer {
    pub(crate) value: Value,
    pub(crate) line: LineId,
}

/// Who is asked, and what: each command with its position among all.
type Group = (Option<Address>, Vec<(usize, Command)>);

/// What an error of a node's means for the request.
enum Verdict {
    /// Another node leads the slot, or has the key already.
    Elsewhere(Address),
    /// The same, but that node has to be told that it is asked for this once. Redis Cluster only.
    Asking(Address),
    /// Not now.
    Later,
    Final(Error),
}

impl Cluster {
    /// Finds a cluster of which a node is at one of these addresses, each `host:port` of the port for clusters. A
    /// server that is no cluster will do, too.
    ///
    /// # Errors
    /// [`Error::NotDone`]: none of them answers. [`Error::Refused`]: they do not let us in.
    pub async fn connect(
        addresses: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, Error> {
        Self::connect_with(Config::new(addresses)).await
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(config: Config) -> Result<Self, Error> {
        Self::connect_listening(config, None).await
    }

    /// The same, with somebody who listens on all connections.
    pub(crate) async fn connect_listening(
        config: Config,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            listener,
            topology: RwLock::new(Topology::empty()),
            links: Mutex::default(),
            doubted: Notify::new(),
            turn: AtomicUsize::new(0),
        });
        shared.refresh().await?;
        let ended = CancellationToken::new();
        let guard = Arc::new(ended.clone().drop_guard());
        tokio::spawn(keep_fresh(Arc::clone(&shared), ended));
        Ok(Self { shared, _ends_with_the_last: guard })
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// See [`Error`]: each says what happened to the world.
    pub async fn run(&self, command: Command) -> Result<Value, Error> {
        let span = Span::lasting(self.shared.config.patience);
        self.shared.run_within(&command, span).await.map(|answer| answer.value)
    }

    /// What a key has.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        self.run(Command::read("GET").key(key)).await?.into_bytes()
    }

    /// What several keys have, in their order. One request to each node that leads some of them, all at once.
    ///
    /// # Errors
    /// See [`Error`]; the first one.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, Error> {
        let commands: Vec<_> = keys.iter().map(|key| Command::read("GET").key(key)).collect();
        let answers = self.run_many(commands).await;
        answers.into_iter().map(|answer| answer?.into_bytes()).collect()
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let _ok = self.set_with(key, value, &SetOptions::default()).await?;
        Ok(())
    }

    /// Gives a key a value under a condition, or for a time. Answers with whether it did.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &SetOptions,
    ) -> Result<bool, Error> {
        let command = options.put(Command::write("SET").key(key).arg(value));
        match self.run(command).await? {
            Value::Nil => Ok(false),
            Value::Text(_) => Ok(true),
            other => Err(other.unexpected("OK")),
        }
    }

    /// Gives several keys a value each: one request to each node that leads some of them, all at once. Each key has
    /// its own outcome, in the order of the pairs.
    pub async fn set_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: &[(K, V)],
    ) -> Vec<Result<(), Error>> {
        let set = |(key, value): &(K, V)| Command::write("SET").key(key).arg(value);
        let answers = self.run_many(pairs.iter().map(set).collect()).await;
        answers.into_iter().map(|answer| answer.map(drop)).collect()
    }

    /// Deletes a key. Answers with whether it was there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(self.run(Command::write("DEL").key(key)).await?.into_integer()? > 0)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(self.run(Command::read("EXISTS").key(key)).await?.into_integer()? > 0)
    }

    /// Lets a key live for so long from now on. Answers with whether it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn expire(&self, key: impl AsRef<[u8]>, after: Duration) -> Result<bool, Error> {
        let command = Command::write("PEXPIRE").key(key).millis(after);
        Ok(self.run(command).await?.into_integer()? > 0)
    }

    /// Adds to a number and answers with the sum; what is absent counts as 0.
    ///
    /// # Errors
    /// See [`Error`]; refused if the key has something else, or the sum is none.
    pub async fn incr_by(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.run(Command::write("INCRBY").key(key).number(by)).await?.into_integer()
    }

    /// Appends to a value and answers with its length in bytes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<i64, Error> {
        self.run(Command::write("APPEND").key(key).arg(value)).await?.into_integer()
    }

    /// Several commands at once: those for one node go to it together, and each has its own outcome.
    pub async fn run_many(&self, commands: Vec<Command>) -> Vec<Result<Value, Error>> {
        let by = Instant::now() + self.shared.config.patience;
        let answers = self.answers(commands, by).await;
        answers.into_iter().map(|answer| answer.map(|answer| answer.value)).collect()
    }

    /// The same, by a moment, with the connections that the answers came over. Commands of one slot go over one
    /// connection in their order, unless some are redirected.
    pub(crate) async fn answers(
        &self,
        commands: Vec<Command>,
        by: Instant,
    ) -> Vec<Result<Answer, Error>> {
        let mut outcomes: Vec<Option<Result<Answer, Error>>> =
            commands.iter().map(|_| None).collect();
        let sent = self.shared.groups(commands).into_iter().map(|(node, group)| async move {
            let (positions, commands): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            (positions, self.shared.run_together(node, commands, by).await)
        });
        for (positions, answers) in join_all(sent).await {
            for (position, answer) in positions.into_iter().zip(answers) {
                outcomes[position] = Some(answer);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("each is in one group")).collect()
    }

    /// By when a request that begins now has to be done.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.config.patience
    }

    /// The nodes that lead slots, as far as this client was told.
    pub(crate) fn nodes(&self) -> Vec<Address> {
        self.shared.topology.read().nodes().to_vec()
    }

    /// The node that leads a slot, as far as this client was told.
    pub(crate) fn leader(&self, slot: Slot) -> Option<Address> {
        self.shared.topology.read().leader(slot).cloned()
    }

    /// Asks one node, whoever leads what, and nobody else.
    pub(crate) async fn ask(&self, node: &Address, command: &Command, by: Instant) -> Sent<Value> {
        self.shared.link(node).send(&command.words, Span::until(by)).await
    }

    /// Gives a connection up that answers nothing any more.
    pub(crate) fn give_up(&self, node: &Address, line: LineId) {
        self.shared.link(node).give_up(line);
        self.shared.doubted.notify_one();
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.shared.topology.read().nodes().to_vec();
        f.debug_struct("Cluster").field("nodes", &nodes).finish_non_exhaustive()
    }
}

/// Fetches the map anew whenever it is doubted or old, until the last handle is gone.
async fn keep_fresh(shared: Arc<Shared>, ended: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = shared.doubted.notified() => sleep(REFRESH_GATHERS).await,
            () = sleep(shared.config.map_max_age) => {}
        }
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            refreshed = shared.refresh() => if let Err(error) = refreshed {
                debug!(%error, "the map of slots could not be fetched");
                // Whoever needs it is told so by its own request.
                sleep(AGAIN).await;
                shared.doubted.notify_one();
            }
        }
    }
}

impl Shared {
    async fn run_until(&self, command: &Command, by: Instant) -> Result<Answer, Error> {
        self.run_within(command, Span::until(by)).await
    }

    async fn run_within(&self, command: &Command, mut span: Span) -> Result<Answer, Error> {
        let mut to = self.node_for(command.slot, None);
        let (mut hops_count, mut asking) = (0, false);
        loop {
            let Some(node) = to else {
                return Err(Error::NotDone("no node is known".to_owned()));
            };
            let attempt = match command.effect {
                Effect::Reads => span.within(self.config.read_patience),
                Effect::Writes => span,
            };
            let reason = match self.send(&node, command, asking, attempt).await {
                Sent::Answered(Value::Error(code, text), _) => {
                    let reason = format!("{node:?}: {code} {text}");
                    match self.judge(&node, code, text) {
                        Verdict::Final(error) => return Err(error),
                        Verdict::Elsewhere(other) => {
                            hops_count += 1;
                            (to, asking) = (Some(other), false);
                        }
                        Verdict::Asking(other) => {
                            hops_count += 1;
                            (to, asking) = (Some(other), true);
                        }
                        Verdict::Later => {
                            (to, asking) = (self.node_for(command.slot, None), false);
                            hops_count = hops_count.max(HOPS_COUNT_AT_ONCE + 1);
                        }
                    }
                    reason
                }
                Sent::Answered(value, line) => return Ok(Answer { value, line }),
                Sent::Lost(reason) if command.effect == Effect::Writes => {
                    self.doubted.notify_one();
                    return Err(Error::InDoubt(reason));
                }
                Sent::Unsent(reason) | Sent::Lost(reason) => {
                    self.doubted.notify_one();
                    (to, asking) = (self.node_for(command.slot, Some(&node)), false);
                    hops_count = hops_count.max(HOPS_COUNT_AT_ONCE + 1);
                    reason
                }
            };
            span = Span::until(span.by);
            if span.begins >= span.by || hops_count > HOPS_COUNT_MAX {
                return Err(Error::NotDone(reason));
            }
            if hops_count > HOPS_COUNT_AT_ONCE {
                sleep_until(span.within(AGAIN).by).await;
                span = Span::until(span.by);
            }
        }
    }

    /// Commands by who leads their slots, each with its position among all; those that go anywhere together.
    fn groups(&self, commands: Vec<Command>) -> Vec<Group> {
        let topology = self.topology.read();
        let mut groups = BTreeMap::<_, Vec<(usize, Command)>>::new();
        for (position, command) in commands.into_iter().enumerate() {
            let leader = command.slot.and_then(|slot| topology.leader_at(slot));
            groups.entry(leader).or_default().push((position, command));
        }
        let named = groups
            .into_iter()
            .map(|(leader, group)| (leader.map(|leader| topology.node(leader).clone()), group));
        named.collect()
    }

    /// Several commands to one node together. Those that it does not serve are sent again one by one.
    async fn run_together(
        &self,
        node: Option<Address>,
        mut commands: Vec<Command>,
        by: Instant,
    ) -> Vec<Result<Answer, Error>> {
        let (Some(node), true) = (node, commands.len() > 1) else {
            return join_all(commands.iter().map(|command| self.run_until(command, by))).await;
        };
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for command in &mut commands {
            pipeline.add_command(command.words.take());
        }
        let only_reads = commands.iter().all(|command| command.effect == Effect::Reads);
        let span = Span::until(by);
        let attempt = if only_reads { span.within(self.config.read_patience) } else { span };
        let sent = self.link(&node).send_all(&pipeline, attempt).await;
        let mut outcomes = self.became(&node, sent, &commands);
        for ((command, outcome), words) in
            commands.iter_mut().zip(&outcomes).zip(pipeline.cmd_iter())
        {
            if outcome.is_none() {
                command.words = words.clone();
            }
        }
        let unanswered = commands.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let alone: Vec<_> = unanswered.map(|(command, _)| self.run_until(command, by)).collect();
        let mut alone = join_all(alone).await.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = alone.next();
        }
        outcomes.into_iter().map(|outcome| outcome.expect("it was sent alone")).collect()
    }

    /// What became of commands that were sent together; nothing of those that may be sent again.
    fn became(
        &self,
        node: &Address,
        sent: Sent<Vec<Value>>,
        commands: &[Command],
    ) -> Vec<Option<Result<Answer, Error>>> {
        let is_served = |answer| match answer {
            Value::Error(code, text) => match self.judge(node, code, text) {
                Verdict::Final(error) => Some(Err(error)),
                Verdict::Elsewhere(_) | Verdict::Asking(_) | Verdict::Later => None,
            },
            value => Some(Ok(value)),
        };
        let in_doubt = |command: &Command| match command.effect {
            Effect::Reads => None,
            Effect::Writes => Some(Err(Error::InDoubt(format!("{node:?}: no reply")))),
        };
        match sent {
            Sent::Answered(answers, line) if answers.len() == commands.len() => {
                let answer = |value| Answer { value, line };
                answers.into_iter().map(|it| Some(is_served(it)?.map(answer))).collect()
            }
            Sent::Answered(..) | Sent::Lost(_) => {
                self.doubted.notify_one();
                commands.iter().map(in_doubt).collect()
            }
            Sent::Unsent(_) => {
                self.doubted.notify_one();
                commands.iter().map(|_| None).collect()
            }
        }
    }

    async fn send(
        &self,
        node: &Address,
        command: &Command,
        asking: bool,
        span: Span,
    ) -> Sent<Value> {
        let link = self.link(node);
        if !asking {
            return link.send(&command.words, span).await;
        }
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(command.words.clone());
        match link.send_all(&pipeline, span).await {
            Sent::Answered(mut answers, line) => match answers.pop() {
                Some(answer) => Sent::Answered(answer, line),
                None => Sent::Lost(format!("{node:?}: no answer")),
            },
            Sent::Unsent(reason) => Sent::Unsent(reason),
            Sent::Lost(reason) => Sent::Lost(reason),
        }
    }

    /// What an error that came from `node` means.
    fn judge(&self, node: &Address, code: String, text: String) -> Verdict {
        match &*code {
            "MOVED" | "ASK" => match (node.redirected(&text), &*code) {
                (Some((slot, to)), "MOVED") => {
                    self.topology.write().moved(slot, to.clone());
                    self.doubted.notify_one();
                    Verdict::Elsewhere(to)
                }
                (Some((_, to)), _) => Verdict::Asking(to),
                (None, _) => Verdict::Final(Error::BadReply(format!("{code} {text}"))),
            },
            "CLUSTERDOWN" | "TRYAGAIN" | "LOADING" | "MASTERDOWN" | "READONLY" => {
                self.doubted.notify_one();
                Verdict::Later
            }
            "INDOUBT" => Verdict::Final(Error::InDoubt(format!("{node:?}: {text}"))),
            _ => Verdict::Final(Error::Refused { code, text }),
        }
    }

    /// Whom to ask about a slot: its leader, unless that is who has just failed; then any other, who knows better.
    fn node_for(&self, slot: Option<Slot>, failed: Option<&Address>) -> Option<Address> {
        let topology = self.topology.read();
        let leader = slot.and_then(|slot| topology.leader(slot)).filter(|it| Some(*it) != failed);
        if let Some(leader) = leader {
            return Some(leader.clone());
        }
        let mut known: Vec<_> = topology.nodes().to_vec();
        drop(topology);
        known.extend(self.config.addresses.iter().map(|address| Address::new(address)));
        let others: Vec<_> = known.iter().filter(|it| Some(*it) != failed).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match others.get(turn % others.len().max(1)) {
            Some(&other) => Some(other.clone()),
            None => known.into_iter().next(),
        }
    }

    fn link(&self, node: &Address) -> Arc<Link> {
        let mut links = self.links.lock();
        let new = || {
            let listener = self.listener.clone();
            Arc::new(Link::new(node.clone(), Arc::clone(&self.config), listener))
        };
        Arc::clone(links.entry(node.clone()).or_insert_with(new))
    }

    /// Fetches the map of slots from whoever answers first, in turn.
    async fn refresh(&self) -> Result<(), Error> {
        let mut known = self.topology.read().nodes().to_vec();
        let seeds = self.config.addresses.iter().map(|address| Address::new(address));
        known.extend(seeds.filter(|seed| !known.contains(seed)).collect::<Vec<_>>());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = known.len();
        let mut failed = Error::NotDone("no address was given".to_owned());
        for position in 0..count {
            let node = &known[(turn + position) % count];
            match self.fetch_from(node).await {
                Ok(topology) => {
                    self.forget_all_but(&topology);
                    *self.topology.write() = topology;
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn fetch_from(&self, node: &Address) -> Result<Topology, Error> {
        let command = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
        let span = Span::lasting(self.config.read_patience);
        match self.link(node).send(&command, span).await {
            Sent::Answered(Value::Error(code, text), _) if code == "ERR" => {
                debug!(?node, text, "this server is no cluster");
                Ok(Topology::of_one(node.clone()))
            }
            Sent::Answered(Value::Error(code, text), _) => Err(Error::Refused { code, text }),
            Sent::Answered(reply, _) => Topology::of_slots(node, &reply),
            Sent::Unsent(reason) | Sent::Lost(reason) => Err(Error::NotDone(reason)),
        }
    }

    /// Connections to nodes that are no longer there end once nobody uses them.
    fn forget_all_but(&self, topology: &Topology) {
        let seeds = &self.config.addresses;
        self.links.lock().retain(|address, _| {
            topology.nodes().contains(address) || seeds.iter().any(|seed| seed == address.as_str())
        });
    }
}
