//! One replica's readers on other nodes: who keeps copies of which keys, and what each is to be told.
//!
//! Interest is registered with the store locked, before the value is read; changes are told when an entry
//! was applied, before its writers are answered. That is what [`Interests`] asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_near::{
    Bulletin, Interests, KeyHash, Limits, Position, ReaderId, Refused, Stamp, StreamId,
};
use scatterhoard_ring::{Generation, ReplicaId, Slot};
use scatterhoard_store::{Entry, Logged, Reply};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::Core;
use crate::tracking::changed_keys;

/// What is remembered for readers of one partition. A key takes some 50 bytes, so one reader's keys take
/// less than a megabyte, and those of 64 readers 52; what waits to be told is a fraction of that.
const LIMITS: Limits = Limits { readers_max: 64, keys_max: 16_384, queue_max: 4096 };

/// A reader that has asked for no news for so long has gone: it asks twenty times a second.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// Wakes the calls for news that are held until there is something to tell.
#[derive(Default)]
pub(crate) struct Bells(Mutex<BTreeMap<ReaderId, Arc<Notify>>>);

/// The readers of one replica's partition.
pub(crate) struct Bureau {
    /// Readers with a stream. Nothing else is looked at while it is 0.
    readers_count: AtomicUsize,
    generation: Generation,
    hash_seed: u64,
    bells: Arc<Bells>,
    book: Mutex<Book>,
}

struct Book {
    /// In which this replica leads.
    term: Option<u64>,
    interests: Interests<KeyHash>,
    /// When each reader with a stream last asked.
    asked: BTreeMap<ReaderId, Instant>,
}

impl Bells {
    /// The bell of a reader, for as long as somebody waits for it.
    pub(super) fn of(&self, reader: ReaderId) -> Arc<Notify> {
        let mut bells = self.0.lock();
        bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        Arc::clone(bells.entry(reader).or_default())
    }

    fn ring(&self, readers: impl IntoIterator<Item = ReaderId>) {
        let bells = self.0.lock();
        let rung = readers.into_iter().filter_map(|reader| bells.get(&reader));
        rung.for_each(|bell| bell.notify_waiters());
    }
}

impl Bureau {
    pub(crate) fn new(
        core: &Core,
        replica: ReplicaId,
        generation: Generation,
        hash_seed: u64,
    ) -> Self {
        Self::opened(core.near.bells(), (core.node.number(), replica), generation, hash_seed)
    }

    fn opened(
        bells: Arc<Bells>,
        (life, replica): (u64, ReplicaId),
        generation: Generation,
        hash_seed: u64,
    ) -> Self {
        // No two replicas of one life have the same id, and no two lives the same number.
        let first_stream = life.wrapping_add(replica.number().rotate_left(32));
        let interests = Interests::new(LIMITS, first_stream);
        let book = Mutex::new(Book { term: None, interests, asked: BTreeMap::new() });
        Self { readers_count: AtomicUsize::new(0), generation, hash_seed, bells, book }
    }

    /// Whether anybody reads elsewhere. To be asked with the store locked: who has registered a key under
    /// that lock has been counted before.
    pub(crate) fn is_on(&self) -> bool {
        self.readers_count.load(Ordering::Relaxed) > 0
    }

    /// This replica is about to lead in a term; no lease of it has been granted since it led in it before.
    pub(crate) fn begin_to_lead(&self, term: u64) {
        let stamp = Stamp { generation: self.generation, term };
        // Whatever was applied until now is behind every stream to come: those end what was read before.
        self.change(|book| {
            book.term = Some(term);
            book.interests.lead(stamp, Position::default());
            book.forget_readers()
        });
    }

    /// This replica leads no more.
    pub(crate) fn end_to_lead(&self) {
        self.change(|book| {
            book.term = None;
            book.interests.retire();
            book.forget_readers()
        });
    }

    /// A reader is about to be given what a key holds. To be called with the store locked, before the read.
    pub(super) fn register(&self, reader: ReaderId, slot: Slot, key: &[u8]) {
        let key = KeyHash::of(key, self.hash_seed);
        let _whatever_is_told = self.book.lock().interests.register(reader, slot, &key);
    }

    /// An entry was applied: notes what it changed. To be called before its writers are answered.
    pub(crate) fn applied(&self, index: u64, entry: &[u8], replies: &[Reply<'_>]) {
        let Ok(entry) = Entry::parse(entry) else { return };
        self.change(|book| {
            let mut woken = Vec::new();
            for (step, reply) in entry.steps().map_while(Result::ok).zip(replies) {
                match step {
                    Logged::Flush { .. }
                    | Logged::InvalidateTag { .. }
                    | Logged::InvalidatePrefix { .. } => {
                        woken.extend(book.interests.everything_changed());
                    }
                    Logged::Write(step) => {
                        for key in changed_keys(&step.write, reply) {
                            let key = KeyHash::of(key, self.hash_seed);
                            woken.extend(book.interests.changed(step.slot, &key));
                        }
                    }
                }
            }
            book.interests.applied(Position::new(index));
            woken
        });
    }

    /// The state was replaced by another.
    pub(crate) fn everything_changed(&self) {
        self.change(|book| book.interests.everything_changed());
    }

    /// Whether an answer need not wait: there is something to tell, if only that nothing is told here.
    pub(super) fn has_news(&self, reader: ReaderId) -> bool {
        let book = self.book.lock();
        !book.asked.contains_key(&reader) || book.interests.has_news(reader)
    }

    /// Answers a reader that goes on with a stream and has taken so many bulletins of it, or wants a new
    /// one. `term` is that of a lease which held at `now`, after the question had come.
    ///
    /// # Errors
    /// The reader has to be reset, as [`Refused`] tells.
    pub(super) fn answer(
        &self,
        reader: ReaderId,
        (stream, taken): (Option<StreamId>, u64),
        (term, now): (u64, Instant),
    ) -> Result<Bulletin<KeyHash>, Refused> {
        let mut book = self.book.lock();
        if book.term != Some(term) {
            return Err(Refused::NotLeading);
        }
        let stream = match stream {
            Some(stream) => stream,
            None => {
                let opened = book.interests.open(reader).ok_or(Refused::NotLeading);
                // The one that it had ended, whether there is another or not.
                book.asked.remove(&reader);
                self.count(&book);
                opened?
            }
        };
        let answer = book.interests.answer(reader, stream, taken)?;
        book.asked.insert(reader, now);
        self.count(&book);
        Ok(answer)
    }

    /// Forgets readers that have gone.
    pub(crate) fn tidy(&self, now: Instant) {
        if !self.is_on() {
            return;
        }
        let mut book = self.book.lock();
        let gone: Vec<_> =
            book.asked.iter().filter(|&(_, &at)| now >= at + READER_PATIENCE).collect();
        let gone: Vec<_> = gone.into_iter().map(|(&reader, _)| reader).collect();
        for reader in gone {
            book.asked.remove(&reader);
            book.interests.close(reader);
        }
        self.count(&book);
    }

    /// Readers with a stream.
    pub(crate) fn readers_count(&self) -> usize {
        self.readers_count.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Book) -> Vec<ReaderId>) {
        let mut book = self.book.lock();
        let woken = change(&mut book);
        self.count(&book);
        drop(book);
        if !woken.is_empty() {
            self.bells.ring(woken);
        }
    }

    fn count(&self, book: &Book) {
        self.readers_count.store(book.asked.len(), Ordering::Relaxed);
    }
}

impl Book {
    /// All streams have ended. Answers whose, so that they hear of it.
    fn forget_readers(&mut self) -> Vec<ReaderId> {
        std::mem::take(&mut self.asked).into_keys().collect()
    }
}

#[cfg(test)]
mod tests;
