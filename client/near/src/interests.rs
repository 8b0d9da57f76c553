//! The leader's side: who has to be told what, of one partition.

use std::collections::{BTreeMap, BTreeSet};

use scatterhoard_ring::Slot;

use crate::{Bulletin, News, Position, Stamp, StreamId};

/// Who reads: a node, or a client's connection. The leader chooses the numbers; no two readers share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(u64);

impl ReaderId {
    const FIRST: Self = Self(0);
    const LAST: Self = Self(u64::MAX);

    /// The reader with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a leader remembers for its readers at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Readers with a stream. No stream is opened beyond.
    pub readers_max: usize,
    /// Keys registered for one reader. Beyond, whole slots are registered, so any change in them is told.
    pub keys_max: usize,
    /// Changes that wait for one reader to fetch them. Beyond, it is told that everything changed.
    pub queue_max: usize,
}

/// What was registered for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The next change of the key will be told.
    Key,
    /// The next change in the slot will be told.
    Slot,
    /// Nothing: the reader has no stream, so nothing would reach it. What it loads is not served later: its
    /// next stream begins with a reset.
    Nothing,
}

/// Why a question is not answered. Nothing was taken out of any queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This replica does not lead. Ask the leader, after a reset.
    #[error("the partition is led elsewhere")]
    NotLeading,
    /// The stream has ended, or never was. Ask for a new one, after a reset.
    #[error("the stream has ended")]
    NoStream,
    /// The reader has not taken all that it was sent. If it waits for nothing, an answer was lost: ask for a
    /// new stream, after a reset.
    #[error("{taken} bulletins were taken, and {sent} were sent")]
    Behind {
        /// How many the reader took.
        taken: u64,
        /// How many were sent.
        sent: u64,
    },
}

/// Who has to be told of which changes in one partition, and what waits to be told.
///
/// There is one for a replica as long as it lives. Its owner serializes the calls with the partition's
/// writes: [`Self::register`] before the read of a load, [`Self::changed`] and then [`Self::applied`] after an
/// entry was applied and before any write in it is acknowledged. It asks for an answer after it saw that the
/// lease holds, and looks at the lease after the question has come.
///
/// A change costs a search in a tree of the keys that readers are interested in; memory is bounded by
/// [`Limits`].
#[derive(Debug)]
pub struct Interests<K> {
    limits: Limits,
    next_stream: u64,
    stamp: Option<Stamp>,
    position: Position,
    readers: BTreeMap<ReaderId, Reader<K>>,
    by_key: BTreeSet<(K, ReaderId)>,
    by_slot: BTreeSet<(Slot, ReaderId)>,
}

/// One reader's stream.
#[derive(Debug)]
struct Reader<K> {
    stream: StreamId,
    sent: u64,
    keys: BTreeSet<K>,
    slots: BTreeSet<Slot>,
    queue: Queue<K>,
}

/// What changed since the last bulletin.
#[derive(Debug)]
enum Queue<K> {
    Changed { keys: BTreeSet<K>, slots: BTreeSet<Slot> },
    Everything,
}

impl<K: Ord + Clone> Interests<K> {
    /// No reader, and not leading.
    ///
    /// Streams are numbered from `first_stream`: a random number, so that a reader does not take the streams
    /// of two lives of a replica for one.
    #[must_use]
    pub fn new(limits: Limits, first_stream: u64) -> Self {
        Self {
            limits,
            next_stream: first_stream,
            stamp: None,
            position: Position::default(),
            readers: BTreeMap::new(),
            by_key: BTreeSet::new(),
            by_slot: BTreeSet::new(),
        }
    }

    /// Leadership was gained under a stamp, with everything up to `position` applied. All streams end. Must
    /// come before the first lease under this stamp.
    pub fn lead(&mut self, stamp: Stamp, position: Position) {
        self.retire();
        (self.stamp, self.position) = (Some(stamp), position);
    }

    /// Leadership was lost. All streams end.
    pub fn retire(&mut self) {
        self.stamp = None;
        self.readers.clear();
        self.by_key.clear();
        self.by_slot.clear();
    }

    /// Opens a stream to a reader, in place of the one it had; `None` if this replica does not lead, or there
    /// are too many readers.
    pub fn open(&mut self, reader: ReaderId) -> Option<StreamId> {
        self.stamp?;
        self.close(reader);
        if self.readers.len() >= self.limits.readers_max {
            return None;
        }
        let stream = StreamId::new(self.next_stream);
        self.next_stream = self.next_stream.wrapping_add(1);
        let (keys, slots) = (BTreeSet::new(), BTreeSet::new());
        self.readers.insert(reader, Reader { stream, sent: 0, keys, slots, queue: Queue::empty() });
        Some(stream)
    }

    /// Ends a reader's stream, if it has one, and forgets what it was interested in.
    pub fn close(&mut self, reader: ReaderId) {
        if let Some(gone) = self.readers.remove(&reader) {
            forget(reader, gone.keys, &mut self.by_key);
            forget(reader, gone.slots, &mut self.by_slot);
        }
    }

    /// A reader is about to be given what the key holds now. Has to come before the read.
    pub fn register(&mut self, reader: ReaderId, slot: Slot, key: &K) -> Registered {
        let Some(interested) = self.readers.get_mut(&reader) else { return Registered::Nothing };
        if interested.slots.contains(&slot) {
            return Registered::Slot;
        }
        if interested.keys.contains(key) {
            return Registered::Key;
        }
        if interested.keys.len() >= self.limits.keys_max {
            interested.slots.insert(slot);
            self.by_slot.insert((slot, reader));
            return Registered::Slot;
        }
        interested.keys.insert(key.clone());
        self.by_key.insert((key.clone(), reader));
        Registered::Key
    }

    /// What a read of the key gives has changed. Readers that have something to fetch now and had not before,
    /// to wake them.
    pub fn changed(&mut self, slot: Slot, key: &K) -> Vec<ReaderId> {
        let by_key = (key.clone(), ReaderId::FIRST)..=(key.clone(), ReaderId::LAST);
        let of_key: Vec<_> = self.by_key.range(by_key).map(|&(_, reader)| reader).collect();
        let by_slot = (slot, ReaderId::FIRST)..=(slot, ReaderId::LAST);
        let of_slot: Vec<_> = self.by_slot.range(by_slot).map(|&(_, reader)| reader).collect();
        let mut woken = Vec::new();
        for reader in of_slot {
            self.by_slot.remove(&(slot, reader));
            self.tell(reader, &mut woken, |told| {
                told.slots.remove(&slot);
                told.queue.add_slot(slot);
            });
        }
        for reader in of_key {
            self.by_key.remove(&(key.clone(), reader));
            self.tell(reader, &mut woken, |told| {
                told.keys.remove(key);
                told.queue.add_key(slot, key);
            });
        }
        woken
    }

    /// What any read of the partition gives may have changed. Readers that have something to fetch now and had
    /// not before, to wake them.
    pub fn everything_changed(&mut self) -> Vec<ReaderId> {
        self.by_key.clear();
        self.by_slot.clear();
        let mut woken = Vec::new();
        for (&reader, told) in &mut self.readers {
            if told.queue.is_empty() {
                woken.push(reader);
            }
            told.keys.clear();
            told.slots.clear();
            told.queue = Queue::Everything;
        }
        woken
    }

    /// All changes up to this position have been told here.
    pub fn applied(&mut self, position: Position) {
        assert!(self.position <= position, "a log is applied in order");
        self.position = position;
    }

    /// Whether the reader has something to fetch.
    #[must_use]
    pub fn has_news(&self, reader: ReaderId) -> bool {
        self.readers.get(&reader).is_some_and(|told| !told.queue.is_empty())
    }

    /// Answers a reader that has taken so many bulletins of its stream: all that waits for it, or nothing but
    /// the position.
    ///
    /// # Errors
    /// The reader has to be reset, as [`Refused`] tells.
    pub fn answer(
        &mut self,
        reader: ReaderId,
        stream: StreamId,
        taken: u64,
    ) -> Result<Bulletin<K>, Refused> {
        let stamp = self.stamp.ok_or(Refused::NotLeading)?;
        let told = self.readers.get_mut(&reader).filter(|told| told.stream == stream);
        let told = told.ok_or(Refused::NoStream)?;
        if told.sent != taken {
            return Err(Refused::Behind { taken, sent: told.sent });
        }
        told.sent += 1;
        let news = told.queue.take();
        Ok(Bulletin { stream, number: told.sent, stamp, position: self.position, news })
    }

    /// Adds to a reader's queue; one that grows too long becomes everything.
    fn tell(
        &mut self,
        reader: ReaderId,
        woken: &mut Vec<ReaderId>,
        add: impl FnOnce(&mut Reader<K>),
    ) {
        let told =
            self.readers.get_mut(&reader).expect("only readers with a stream are registered");
        if told.queue.is_empty() {
            woken.push(reader);
        }
        add(told);
        if told.queue.len() > self.limits.queue_max {
            told.queue = Queue::Everything;
            forget(reader, std::mem::take(&mut told.keys), &mut self.by_key);
            forget(reader, std::mem::take(&mut told.slots), &mut self.by_slot);
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    fn empty() -> Self {
        Self::Changed { keys: BTreeSet::new(), slots: BTreeSet::new() }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Changed { keys, slots } => keys.is_empty() && slots.is_empty(),
            Self::Everything => false,
        }
    }

    /// How many changes wait; that everything changed takes no room.
    fn len(&self) -> usize {
        match self {
            Self::Changed { keys, slots } => keys.len() + slots.len(),
            Self::Everything => 0,
        }
    }

    fn add_key(&mut self, slot: Slot, key: &K) {
        match self {
            Self::Changed { keys, slots } => {
                if !slots.contains(&slot) {
                    keys.insert(key.clone());
                }
            }
            Self::Everything => {}
        }
    }

    fn add_slot(&mut self, slot: Slot) {
        match self {
            Self::Changed { slots, .. } => {
                slots.insert(slot);
            }
            Self::Everything => {}
        }
    }

    fn take(&mut self) -> News<K> {
        match std::mem::replace(self, Self::empty()) {
            Self::Changed { keys, slots } => News::Changed {
                keys: keys.into_iter().collect(),
                slots: slots.into_iter().collect(),
            },
            Self::Everything => News::Everything,
        }
    }
}

/// Takes a reader out of an index.
fn forget<T: Ord>(reader: ReaderId, of: BTreeSet<T>, index: &mut BTreeSet<(T, ReaderId)>) {
    for what in of {
        index.remove(&(what, reader));
    }
}
