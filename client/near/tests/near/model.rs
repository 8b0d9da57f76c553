//! A partition, those who lead it in turn, one reader, and a network that loses, delays, repeats and reorders.
//!
//! What is true is known at every moment here; every copy that the reader serves is compared with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scatterhoard_near::{
    Bulletin, Cells, Feed, Inbox, Interests, KeyHash, Limits, Mark, Moment, News, Position,
    Question, ReaderId, Refused, Stamp, StreamId, Taken, Ticket,
};
use scatterhoard_ring::{Generation, Slot, SlotRange};

/// Some share a slot.
pub(crate) const KEYS: [&str; 5] = ["a", "b", "{s}c", "{s}d", "{s}e"];
pub(crate) const NODES: usize = 2;
const BOUND_MS: u64 = 100;
const READER: ReaderId = ReaderId::new(1);

/// What can happen next. Numbers that choose among what is under way are taken modulo how much there is.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Wait(u64),
    Write {
        key: usize,
        ttl_ms: Option<u64>,
    },
    Flush,
    Ask,
    Load(usize),
    Deliver(usize),
    Lose(usize),
    Repeat(usize),
    Answer(usize),
    Read(usize),
    Store(usize),
    Find(usize),
    Serve(usize),
    LeaseLost,
    LeaseRegained,
    Elected(usize),
    Founded(usize),
    Follow(usize),
    GiveUp,
    /// A question and its answer, with nothing in the way but what is on its way already.
    Round,
    /// A load of a key, from its beginning to a stored copy.
    Fetch(usize),
}

#[derive(Clone, Debug)]
enum Message {
    Ask { to: usize, question: Question },
    Told { question: Question, answer: Result<Bulletin<KeyHash>, Refused> },
    Load { to: usize, load: usize },
    Loaded { load: usize, copy: Copied },
}

/// A value as it was read.
#[derive(Clone, Copy, Debug)]
struct Copied {
    version: usize,
    lives_for: Option<Duration>,
    expires_ms: u64,
}

/// What is true of a key: when each version was acknowledged, and what the newest is.
#[derive(Default)]
struct Truth {
    acknowledged_ms: Vec<u64>,
    present: bool,
    ttl_ends_ms: Option<u64>,
}

struct Load {
    key: usize,
    ticket: Ticket,
    overtaken: bool,
}

#[derive(Clone)]
struct Copy {
    key: usize,
    copied: Copied,
    mark: Mark,
}

/// A question that a leader holds back, and the stream that it goes on with.
struct Held {
    node: usize,
    question: Question,
    stream: StreamId,
}

pub(crate) struct World {
    now_ms: u64,
    stamp: Stamp,
    index: u64,
    leader: usize,
    leased: bool,
    truth: Vec<Truth>,
    nodes: Vec<Interests<KeyHash>>,
    held: Vec<Held>,
    reads: Vec<(usize, usize)>,
    network: Vec<Message>,
    feed: Arc<Feed>,
    inbox: Inbox,
    follows: usize,
    loads: Vec<Load>,
    unstored: Vec<Copy>,
    stored: BTreeMap<usize, Copy>,
    found: Vec<Copy>,
    pub(crate) served_count: usize,
    pub(crate) refused_count: usize,
}

fn hash(key: usize) -> KeyHash {
    KeyHash::of(KEYS[key].as_bytes(), 0)
}

fn slot(key: usize) -> Slot {
    Slot::of(KEYS[key].as_bytes())
}

/// Takes one out of a list by any number.
fn pick<T>(from: &mut Vec<T>, number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(number % from.len()))
}

impl World {
    pub(crate) fn new(limits: Limits, cell_bits: u32) -> Self {
        let feed = Arc::new(Feed::new(SlotRange::ALL, Arc::new(Cells::new(cell_bits))));
        let node = |number| Interests::new(limits, number as u64 * 1_000_000);
        let mut world = Self {
            now_ms: 1000,
            stamp: Stamp { generation: Generation::new(1), term: 0 },
            index: 0,
            leader: 0,
            leased: false,
            truth: KEYS.iter().map(|_| Truth::default()).collect(),
            nodes: (0..NODES).map(node).collect(),
            held: Vec::new(),
            reads: Vec::new(),
            network: Vec::new(),
            inbox: Inbox::new(feed.clone(), Duration::from_millis(BOUND_MS)),
            feed,
            follows: 0,
            loads: Vec::new(),
            unstored: Vec::new(),
            stored: BTreeMap::new(),
            found: Vec::new(),
            served_count: 0,
            refused_count: 0,
        };
        world.elect(0);
        (0..KEYS.len()).for_each(|key| world.write(key, None));
        world
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        match *event {
            Event::Wait(millis) => self.now_ms += millis,
            Event::Write { key, ttl_ms } => self.write(key, ttl_ms),
            Event::Flush => self.flush(),
            Event::Ask => self.ask(),
            Event::Load(key) => self.load(key),
            Event::Deliver(number) => {
                if let Some(message) = pick(&mut self.network, number) {
                    self.deliver(message);
                }
            }
            Event::Lose(number) => drop(pick(&mut self.network, number)),
            Event::Repeat(number) => {
                if let Some(message) = pick(&mut self.network, number) {
                    self.network.extend([message.clone(), message]);
                }
            }
            Event::Answer(number) => self.answer(number),
            Event::Read(number) => self.read(number),
            Event::Store(number) => self.store(number),
            Event::Find(key) => self.found.extend(self.stored.get(&key).cloned()),
            Event::Serve(number) => self.serve(number),
            Event::LeaseLost => self.leased = false,
            Event::LeaseRegained => self.leased = true,
            Event::Elected(node) => self.elect(node),
            Event::Founded(node) => self.found_anew(node),
            Event::Follow(node) => {
                self.follows = node;
                self.give_up();
            }
            Event::GiveUp => self.give_up(),
            Event::Round => self.round(),
            Event::Fetch(key) => self.fetch(key),
        }
    }

    /// Nothing is in the way any more: the reader hears everything, and serves nothing that is old.
    pub(crate) fn heal(&mut self) {
        self.network.clear();
        self.held.clear();
        self.reads.clear();
        self.leased = true;
        self.follows = self.leader;
        self.give_up();
        self.round();
        for key in 0..KEYS.len() {
            self.write(key, None);
            self.load(key);
        }
        self.settle();
        self.serve_all();
        assert_eq!(self.served_count, KEYS.len(), "with nothing in the way, all is served");
        (0..3).for_each(|key| self.write(key, None));
        self.round();
        self.serve_all();
        for key in 0..3 {
            let old = &self.stored[&key];
            assert!(self.feed.is_dead(&old.mark, self.now()), "it heard of the change");
        }
    }

    fn now(&self) -> Moment {
        Moment::default().after(Duration::from_millis(self.now_ms))
    }

    // The partition.

    fn elect(&mut self, node: usize) {
        self.stamp.term += 1;
        (self.leader, self.leased) = (node, true);
        self.nodes[node].lead(self.stamp, Position::new(self.index));
    }

    /// The next generation, whose log and terms begin again.
    fn found_anew(&mut self, node: usize) {
        let generation = Generation::new(self.stamp.generation.number() + 1);
        (self.stamp, self.index) = (Stamp { generation, term: 0 }, 0);
        self.elect(node);
    }

    fn write(&mut self, key: usize, ttl_ms: Option<u64>) {
        if !self.leased {
            return;
        }
        self.index += 1;
        let truth = &mut self.truth[key];
        (truth.present, truth.ttl_ends_ms) = (true, ttl_ms.map(|ttl| self.now_ms + ttl));
        self.nodes[self.leader].changed(slot(key), &hash(key));
        self.nodes[self.leader].applied(Position::new(self.index));
        truth.acknowledged_ms.push(self.now_ms);
    }

    fn flush(&mut self) {
        if !self.leased {
            return;
        }
        self.index += 1;
        self.nodes[self.leader].everything_changed();
        self.nodes[self.leader].applied(Position::new(self.index));
        for truth in &mut self.truth {
            truth.present = false;
            truth.acknowledged_ms.push(self.now_ms);
        }
    }

    fn holds_lease(&self, node: usize) -> bool {
        self.leased && self.leader == node
    }

    /// A leader answers a question that it held back.
    fn answer(&mut self, number: usize) {
        let Some(Held { node, question, stream }) = pick(&mut self.held, number) else { return };
        let answer = if self.holds_lease(node) {
            self.nodes[node].answer(READER, stream, question.taken)
        } else {
            Err(Refused::NotLeading)
        };
        self.network.push(Message::Told { question, answer });
    }

    /// A leader reads for a load that it has registered.
    fn read(&mut self, number: usize) {
        let Some((node, load)) = pick(&mut self.reads, number) else { return };
        let truth = &self.truth[self.loads[load].key];
        let expired = truth.ttl_ends_ms.is_some_and(|ends| ends <= self.now_ms);
        if !self.holds_lease(node) || !truth.present || expired {
            return;
        }
        let copy = Copied {
            version: truth.acknowledged_ms.len(),
            lives_for: truth.ttl_ends_ms.map(|ends| Duration::from_millis(ends - self.now_ms)),
            expires_ms: truth.ttl_ends_ms.unwrap_or(u64::MAX),
        };
        self.network.push(Message::Loaded { load, copy });
    }

    // The reader.

    fn ask(&mut self) {
        let question = self.inbox.ask(self.now());
        self.network.push(Message::Ask { to: self.follows, question });
    }

    fn load(&mut self, key: usize) {
        let ticket = self.feed.begin(slot(key), hash(key), self.now());
        let ticket = ticket.expect("the feed has all slots");
        self.network.push(Message::Load { to: self.leader, load: self.loads.len() });
        self.loads.push(Load { key, ticket, overtaken: false });
    }

    fn give_up(&mut self) {
        self.inbox.lost();
        self.overtake(|_| true);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask { to, question } => {
                let stream = question.stream.or_else(|| self.nodes[to].open(READER));
                self.held.extend(stream.map(|stream| Held { node: to, question, stream }));
            }
            Message::Told { question, answer: Ok(bulletin) } => self.hear(question, &bulletin),
            Message::Told { answer: Err(_), .. } => {
                self.follows = self.leader;
                self.give_up();
            }
            Message::Load { to, load } => {
                let key = self.loads[load].key;
                self.nodes[to].register(READER, slot(key), &hash(key));
                self.reads.push((to, load));
            }
            Message::Loaded { load, copy } => {
                let Load { key, ticket, overtaken } = self.loads[load];
                if let Some(mark) = self.feed.keep(ticket, copy.lives_for) {
                    assert!(!overtaken, "{} is kept though its load was overtaken", KEYS[key]);
                    self.unstored.push(Copy { key, copied: copy, mark });
                }
            }
        }
    }

    fn hear(&mut self, question: Question, bulletin: &Bulletin<KeyHash>) {
        match self.inbox.take(question, bulletin) {
            Taken::News => match &bulletin.news {
                News::Changed { keys, slots } => {
                    self.overtake(|key| keys.contains(&hash(key)) || slots.contains(&slot(key)))
                }
                News::Everything => self.overtake(|_| true),
            },
            Taken::Begun | Taken::Gap | Taken::Foreign => self.overtake(|_| true),
            Taken::Repeated | Taken::Late => {}
        }
    }

    fn overtake(&mut self, which: impl Fn(usize) -> bool) {
        for load in &mut self.loads {
            load.overtaken |= which(load.key);
        }
    }

    fn store(&mut self, number: usize) {
        if let Some(copy) = pick(&mut self.unstored, number) {
            self.stored.insert(copy.key, copy);
        }
    }

    /// The reader found a copy, possibly long ago, and serves it if it may now.
    fn serve(&mut self, number: usize) {
        let Some(Copy { key, copied, mark }) = pick(&mut self.found, number) else { return };
        if !self.feed.may_serve(&mark, self.now()) {
            self.refused_count += 1;
            return;
        }
        self.served_count += 1;
        assert!(self.now_ms < copied.expires_ms, "{} expired", KEYS[key]);
        if let Some(newer_ms) = self.truth[key].acknowledged_ms.get(copied.version) {
            let age_ms = self.now_ms - newer_ms;
            assert!(age_ms < BOUND_MS, "{} is {age_ms} ms too old", KEYS[key]);
        }
    }

    // Where nothing goes wrong.

    fn round(&mut self) {
        self.ask();
        self.deliver_last();
        self.answer(self.held.len().saturating_sub(1));
        self.deliver_last();
    }

    fn fetch(&mut self, key: usize) {
        self.load(key);
        self.deliver_last();
        self.read(self.reads.len().saturating_sub(1));
        self.deliver_last();
        self.store(self.unstored.len().saturating_sub(1));
    }

    fn deliver_last(&mut self) {
        if let Some(message) = self.network.pop() {
            self.deliver(message);
        }
    }

    fn settle(&mut self) {
        while !(self.network.is_empty() && self.held.is_empty() && self.reads.is_empty()) {
            self.happen(&Event::Deliver(0));
            self.happen(&Event::Answer(0));
            self.happen(&Event::Read(0));
        }
        (0..self.unstored.len()).for_each(|_| self.store(0));
    }

    fn serve_all(&mut self) {
        self.found = self.stored.values().cloned().collect();
        self.served_count = 0;
        (0..self.found.len()).for_each(|_| self.serve(0));
    }
}
