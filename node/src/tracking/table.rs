//! Who may hold which keys, and what each is to be told. No clock, no lock, no socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use scatterhoard_ring::ReplicaId;
use scatterhoard_store::Tag;

use super::outbox::Note;
use super::{Mode, Tally, Tracker};

/// Pairs of a key and a client that may be known for each key that may be: so many clients may hold all of
/// them, or more clients fewer.
const ITEMS_PER_KEY: usize = 8;

/// What a key takes beside its bytes: the header of its memory, its place in the tree, the list of ids.
const KEY_EXTRA_BYTES: usize = 112;

/// What a client takes for a key that it holds.
const ITEM_BYTES: usize = 8;

/// What a key takes for a tag that it carries.
const TAG_BYTES: usize = 40;

/// Bytes of a key, on average, from which on there is no room for more of them.
const BYTES_PER_KEY: usize = 128;

/// What a prefix takes beside its bytes.
const PREFIX_EXTRA_BYTES: usize = 96;

/// Keys looked at, or freed, in one go: about a millisecond.
const TIDY_KEYS_MAX: usize = 4096;

/// Announcements that wait for their entry. A proposer has a few under way; those of entries that were
/// refused are never fetched, and make room for later ones.
const ANNOUNCED_COUNT_MAX: usize = 16;

type Key = Arc<[u8]>;

/// One tracking by one client, from `ON` to `OFF`. Never used twice, so that what is left of an earlier one
/// means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TrackerId(NonZeroU64);

/// An entry in which somebody writes who does not want to hear of it.
pub(crate) struct UnderWay {
    /// Its bytes.
    pub(crate) entry: Bytes,
    /// Steps at its beginning that are nobody's.
    pub(crate) skipped: usize,
    /// How many steps follow for each unit, and whose they are.
    pub(crate) units: Vec<(usize, Option<TrackerId>)>,
}

impl UnderWay {
    /// Whose step this is, if it is somebody's who tracks.
    pub(super) fn writer_of(&self, step: usize) -> Option<TrackerId> {
        let mut first = self.skipped;
        for &(count, writer) in &self.units {
            if (first..first + count).contains(&step) {
                return writer;
            }
            first += count;
        }
        None
    }
}

/// What is seen of a replica that leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) has_lease: bool,
    /// Its partition's time, in milliseconds.
    pub(super) time: u64,
}

/// Who may hold which keys.
#[derive(Default)]
pub(super) struct Table {
    trackers: BTreeMap<TrackerId, Arc<Tracker>>,
    /// Those who hear of all keys with a prefix; by the length of the prefix, then by the prefix: a key has
    /// one of each length.
    prefixes: BTreeMap<usize, BTreeMap<Key, BTreeSet<TrackerId>>>,
    /// What is held under each leadership of a replica here.
    led: BTreeMap<ReplicaId, Led>,
    last_id: u64,
    last_era: u64,
    /// All that is held, under any leadership.
    size: Size,
    /// The key that was dropped last to make room: the next one is behind it.
    evicted: Option<(ReplicaId, Key)>,
    sweep: Sweep,
    rubbish: Vec<Held>,
}

/// One leadership of a replica.
struct Led {
    era: u64,
    held: Held,
    /// Who has registered something since nobody held anything.
    readers: BTreeSet<TrackerId>,
    announced: VecDeque<UnderWay>,
}

/// Keys that somebody may hold.
#[derive(Default)]
struct Held {
    keys: BTreeMap<Key, Interest>,
    /// When keys expire, in milliseconds of their partition's time.
    deadlines: BTreeSet<(u64, Key)>,
    /// Which of them carry which tags.
    tagged: BTreeSet<(Tag, Key)>,
    size: Size,
}

/// How much is held.
#[derive(Clone, Copy, Default)]
struct Size {
    keys_count: usize,
    /// Pairs of a key and a client.
    items_count: usize,
    /// Of keys, without what they take beside.
    keys_bytes: usize,
    /// Pairs of a key and a tag.
    tags_count: usize,
}

impl Size {
    fn grow(&mut self, by: Self) {
        self.keys_count += by.keys_count;
        self.items_count += by.items_count;
        self.keys_bytes += by.keys_bytes;
        self.tags_count += by.tags_count;
    }

    fn shrink(&mut self, by: Self) {
        self.keys_count -= by.keys_count;
        self.items_count -= by.items_count;
        self.keys_bytes -= by.keys_bytes;
        self.tags_count -= by.tags_count;
    }
}

struct Interest {
    /// In order.
    trackers: Vec<TrackerId>,
    /// The earliest that was seen.
    deadline: Option<u64>,
    /// All that were seen.
    tags: Vec<Tag>,
}

/// A walk over all keys that takes out who has left.
#[derive(Default)]
enum Sweep {
    #[default]
    Done,
    /// The last key looked at; `None` at the beginning.
    Behind(Option<(ReplicaId, Key)>),
    /// As `Behind`; once it is through, another one: somebody left meanwhile.
    Twice(Option<(ReplicaId, Key)>),
}

impl Table {
    pub(super) fn next_id(&mut self) -> TrackerId {
        self.last_id += 1;
        TrackerId(NonZeroU64::new(self.last_id).expect("it is above 0"))
    }

    pub(super) fn trackers_count(&self) -> usize {
        self.trackers.len()
    }

    /// Adds somebody, or changes what they hear of.
    pub(super) fn put(&mut self, tracker: Arc<Tracker>) {
        self.forget_prefixes(tracker.id);
        for prefix in tracker.prefixes() {
            let of_length = self.prefixes.entry(prefix.len()).or_default();
            of_length.entry(Arc::clone(prefix)).or_default().insert(tracker.id);
        }
        self.trackers.insert(tracker.id, tracker);
    }

    pub(super) fn remove(&mut self, id: TrackerId) {
        self.forget_prefixes(id);
        self.trackers.remove(&id);
        if self.trackers.is_empty() {
            let replicas: Vec<_> = self.led.keys().copied().collect();
            replicas.into_iter().for_each(|replica| self.forget(replica));
            self.sweep = Sweep::Done;
            return;
        }
        self.sweep = match std::mem::take(&mut self.sweep) {
            Sweep::Done => Sweep::Behind(None),
            Sweep::Behind(last) | Sweep::Twice(last) => Sweep::Twice(last),
        };
    }

    fn forget_prefixes(&mut self, id: TrackerId) {
        let Some(tracker) = self.trackers.get(&id) else { return };
        for prefix in tracker.prefixes() {
            let Some(of_length) = self.prefixes.get_mut(&prefix.len()) else { continue };
            if let Some(ids) = of_length.get_mut(prefix) {
                ids.remove(&id);
                if ids.is_empty() {
                    of_length.remove(prefix);
                }
            }
            if of_length.is_empty() {
                self.prefixes.remove(&prefix.len());
            }
        }
    }

    pub(super) fn leads(&self, replica: ReplicaId) -> bool {
        self.led.contains_key(&replica)
    }

    pub(super) fn begin_to_lead(&mut self, replica: ReplicaId) {
        if self.led.contains_key(&replica) {
            self.reset(replica);
        }
        self.last_era += 1;
        let era = self.last_era;
        let (readers, announced) = (BTreeSet::new(), VecDeque::new());
        self.led.insert(replica, Led { era, held: Held::default(), readers, announced });
    }

    /// Notes that somebody is about to read a key.
    pub(super) fn register(
        &mut self,
        (replica, id): (ReplicaId, TrackerId),
        key: &[u8],
        deadline: Option<u64>,
        tags: &[Tag],
    ) {
        let Some(tracker) = self.trackers.get(&id) else { return };
        let Some(led) = self.led.get_mut(&replica) else {
            // It was led when the read began, and is not any more: nobody would tell of changes.
            return tracker.tell(&Note::All);
        };
        led.readers.insert(id);
        let Held { keys, deadlines, tagged, size } = &mut led.held;
        let mut more = Size::default();
        if !keys.contains_key(key) {
            let (trackers, tags) = (Vec::new(), Vec::new());
            keys.insert(key.into(), Interest { trackers, deadline: None, tags });
            more = Size { keys_count: 1, keys_bytes: key.len(), ..Size::default() };
        }
        let kept = keys.get_key_value(key).map(|(kept, _)| Arc::clone(kept));
        let (Some(interest), Some(key)) = (keys.get_mut(key), kept) else { return };
        if let Err(place) = interest.trackers.binary_search(&id) {
            interest.trackers.insert(place, id);
            more.items_count = 1;
        }
        for tag in tags {
            if !interest.tags.contains(tag) {
                interest.tags.push(*tag);
                tagged.insert((*tag, Arc::clone(&key)));
                more.tags_count += 1;
            }
        }
        size.grow(more);
        self.size.grow(more);
        // Never a later one: who read the key before it expired is still to be told.
        if let Some(at) = deadline.filter(|&at| interest.deadline.is_none_or(|held| at < held)) {
            if let Some(held) = interest.deadline.replace(at) {
                deadlines.remove(&(held, Arc::clone(&key)));
            }
            deadlines.insert((at, key));
        }
    }

    /// Drops keys, and tells who holds them, until there may be one more.
    pub(super) fn make_room(&mut self, keys_count_max: usize) {
        while self.is_full(keys_count_max) && self.evict() {}
    }

    fn is_full(&self, keys_count_max: usize) -> bool {
        self.size.keys_count >= keys_count_max
            || self.size.keys_bytes >= keys_count_max.saturating_mul(BYTES_PER_KEY)
            || self.size.items_count >= keys_count_max.saturating_mul(ITEMS_PER_KEY)
    }

    fn evict(&mut self) -> bool {
        let next = self.behind(self.evicted.as_ref()).or_else(|| self.behind(None));
        let Some((replica, key)) = next else { return false };
        self.change_held(replica, &key, None);
        self.evicted = Some((replica, key));
        true
    }

    /// The next key in order; the first of all behind nothing.
    fn behind(&self, last: Option<&(ReplicaId, Key)>) -> Option<(ReplicaId, Key)> {
        let from = last.map_or(Bound::Unbounded, |(replica, _)| Bound::Included(*replica));
        self.led.range((from, Bound::Unbounded)).find_map(|(&replica, led)| {
            let from: Bound<&[u8]> = match last {
                Some((passed, key)) if *passed == replica => Bound::Excluded(&**key),
                Some(_) | None => Bound::Unbounded,
            };
            let (key, _) = led.held.keys.range::<[u8], _>((from, Bound::Unbounded)).next()?;
            Some((replica, Arc::clone(key)))
        })
    }

    pub(super) fn announce(&mut self, replica: ReplicaId, under_way: UnderWay) {
        let Some(led) = self.led.get_mut(&replica) else { return };
        if led.announced.len() >= ANNOUNCED_COUNT_MAX {
            led.announced.pop_front();
        }
        led.announced.push_back(under_way);
    }

    pub(super) fn take_announced(&mut self, replica: ReplicaId, entry: &[u8]) -> Option<UnderWay> {
        let announced = &mut self.led.get_mut(&replica)?.announced;
        let place = announced.iter().position(|it| it.entry == entry)?;
        announced.remove(place)
    }

    /// A key has been changed, by somebody who tracks or not.
    pub(super) fn change(&mut self, replica: ReplicaId, key: &[u8], writer: Option<TrackerId>) {
        let shared = self.change_held(replica, key, writer);
        if self.prefixes.is_empty() {
            return;
        }
        let note = Note::Key(shared.unwrap_or_else(|| key.into()));
        for (&length, of_length) in self.prefixes.range(..=key.len()) {
            for id in of_length.get(&key[..length]).into_iter().flatten() {
                tell(&self.trackers, *id, writer, &note);
            }
        }
    }

    /// Tells those who have read the key, and forgets that they have.
    fn change_held(
        &mut self,
        replica: ReplicaId,
        key: &[u8],
        writer: Option<TrackerId>,
    ) -> Option<Key> {
        let held = &mut self.led.get_mut(&replica)?.held;
        let (key, interest) = held.keys.remove_entry(key)?;
        if let Some(at) = interest.deadline {
            held.deadlines.remove(&(at, Arc::clone(&key)));
        }
        for tag in &interest.tags {
            held.tagged.remove(&(*tag, Arc::clone(&key)));
        }
        let (items_count, tags_count) = (interest.trackers.len(), interest.tags.len());
        let less = Size { keys_count: 1, items_count, keys_bytes: key.len(), tags_count };
        held.size.shrink(less);
        self.size.shrink(less);
        let note = Note::Key(Arc::clone(&key));
        for id in interest.trackers {
            tell(&self.trackers, id, writer, &note);
        }
        Some(key)
    }

    /// What carries a tag is stale. Who hears of prefixes is told to forget all: which keys those are is not known
    /// without a look at every key.
    pub(super) fn change_tagged(&mut self, replica: ReplicaId, tag: Tag) {
        let Some(led) = self.led.get(&replica) else { return };
        let from = (tag, Key::from([]));
        let of_tag = led.held.tagged.range(from..).take_while(|(other, _)| *other == tag);
        let keys: Vec<_> = of_tag.map(|(_, key)| Arc::clone(key)).collect();
        keys.iter().for_each(|key| drop(self.change_held(replica, key, None)));
        self.tell_broadcast(&Note::All);
    }

    /// What begins so is gone. Who hears of such prefixes is told to forget all, as of tags.
    pub(super) fn change_prefixed(&mut self, replica: ReplicaId, prefix: &[u8]) {
        let Some(led) = self.led.get(&replica) else { return };
        let behind = led.held.keys.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let keys = behind.map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
        let keys: Vec<_> = keys.map(Arc::clone).collect();
        keys.iter().for_each(|key| drop(self.change_held(replica, key, None)));
        self.tell_broadcast(&Note::All);
    }

    fn tell_broadcast(&self, note: &Note) {
        let hears = |tracker: &&Arc<Tracker>| matches!(tracker.mode, Mode::Broadcast(_));
        self.trackers.values().filter(hears).for_each(|tracker| tracker.tell(note));
    }

    /// All keys of a partition are gone. As in Redis everybody is told, whatever they hold.
    pub(super) fn flush(&mut self, replica: ReplicaId) {
        self.forget(replica);
        self.trackers.values().for_each(|tracker| tracker.tell(&Note::All));
    }

    /// Nothing that is held under a leadership is to be trusted any more.
    fn reset(&mut self, replica: ReplicaId) {
        let Some(led) = self.led.get_mut(&replica) else { return };
        let readers = std::mem::take(&mut led.readers);
        for tracker in self.trackers.values() {
            let concerned = match tracker.mode {
                Mode::Reads(_) => readers.contains(&tracker.id),
                // Which keys it has read, over this connection or another, is not known.
                Mode::Broadcast(_) => true,
            };
            if concerned {
                tracker.tell(&Note::All);
            }
        }
        self.forget(replica);
    }

    fn forget(&mut self, replica: ReplicaId) {
        let Some(led) = self.led.get_mut(&replica) else { return };
        led.readers.clear();
        let held = std::mem::take(&mut led.held);
        self.size.shrink(held.size);
        if !held.keys.is_empty() {
            self.rubbish.push(held);
        }
    }

    /// Which leadership each replica is in.
    pub(super) fn eras(&self) -> Vec<(ReplicaId, u64)> {
        self.led.iter().map(|(&replica, led)| (replica, led.era)).collect()
    }

    /// Ends leaderships that are over, doubts those without a lease, and tells of keys that have expired.
    /// `seen` are those that lead, looked at after `eras`; whoever has begun to lead since is left alone.
    pub(super) fn look(&mut self, eras: &[(ReplicaId, u64)], seen: &BTreeMap<ReplicaId, Seen>) {
        for &(replica, era) in eras {
            if self.led.get(&replica).is_none_or(|led| led.era != era) {
                continue;
            }
            match seen.get(&replica) {
                Some(Seen { has_lease: true, time }) => self.expire(replica, *time),
                // Each time anew: without a lease reads are still answered when a quorum confirms them.
                Some(Seen { has_lease: false, .. }) => self.reset(replica),
                None => {
                    self.reset(replica);
                    self.led.remove(&replica);
                }
            }
        }
    }

    fn expire(&mut self, replica: ReplicaId, time: u64) {
        while let Some(led) = self.led.get_mut(&replica)
            && let Some((at, key)) = led.held.deadlines.first()
            && *at <= time
        {
            let key = Arc::clone(key);
            self.change_held(replica, &key, None);
        }
    }

    /// Takes out some of what is left of those who have gone, and keys beyond the limit. Answers whether
    /// there is more.
    pub(super) fn tidy(&mut self, keys_count_max: usize) -> bool {
        for _ in 0..TIDY_KEYS_MAX {
            let over = self.is_full(keys_count_max.saturating_add(1));
            if !(over && self.evict() || self.sweep_one()) {
                return false;
            }
        }
        true
    }

    fn sweep_one(&mut self) -> bool {
        let (last, twice) = match std::mem::take(&mut self.sweep) {
            Sweep::Done => return false,
            Sweep::Behind(last) => (last, false),
            Sweep::Twice(last) => (last, true),
        };
        let Some((replica, key)) = self.behind(last.as_ref()) else {
            self.sweep = if twice { Sweep::Behind(None) } else { Sweep::Done };
            return twice;
        };
        if let Some(led) = self.led.get_mut(&replica)
            && let Some(interest) = led.held.keys.get_mut(&key)
        {
            let before = interest.trackers.len();
            interest.trackers.retain(|id| self.trackers.contains_key(id));
            let items_count = before - interest.trackers.len();
            let less = Size { items_count, ..Size::default() };
            led.held.size.shrink(less);
            self.size.shrink(less);
            if interest.trackers.is_empty() {
                self.change_held(replica, &key, None);
            } else {
                interest.trackers.shrink_to_fit();
            }
        }
        let last = Some((replica, key));
        self.sweep = if twice { Sweep::Twice(last) } else { Sweep::Behind(last) };
        true
    }

    /// A part of what is not needed any more, to be dropped without the lock.
    pub(super) fn take_rubbish(&mut self) -> Option<impl Sized + use<>> {
        let heap = self.rubbish.last_mut()?;
        let mut part = Vec::with_capacity(TIDY_KEYS_MAX.min(heap.keys.len()));
        while part.len() < TIDY_KEYS_MAX
            && let Some(key) = heap.keys.pop_first()
        {
            let deadline = heap.deadlines.pop_first();
            part.push((key, deadline, heap.tagged.pop_first()));
        }
        if heap.keys.is_empty() {
            self.rubbish.pop();
        }
        Some(part)
    }

    pub(super) fn tally(&self) -> Tally {
        let prefixes = || self.prefixes.values().flat_map(BTreeMap::iter);
        let prefix_bytes = |(prefix, ids): (&Key, &BTreeSet<TrackerId>)| {
            prefix.len() + PREFIX_EXTRA_BYTES + ids.len() * ITEM_BYTES
        };
        Tally {
            trackers_count: self.trackers.len(),
            keys_count: self.size.keys_count,
            items_count: self.size.items_count,
            prefixes_count: prefixes().count(),
            bytes: self.size.keys_bytes
                + self.size.keys_count * KEY_EXTRA_BYTES
                + self.size.items_count * ITEM_BYTES
                + self.size.tags_count * TAG_BYTES
                + prefixes().map(prefix_bytes).sum::<usize>(),
        }
    }
}

/// Tells somebody, unless they have left or did it themselves and do not want to hear of that.
fn tell(
    trackers: &BTreeMap<TrackerId, Arc<Tracker>>,
    id: TrackerId,
    writer: Option<TrackerId>,
    note: &Note,
) {
    if let Some(tracker) = trackers.get(&id)
        && !(tracker.no_loop && writer == Some(id))
    {
        tracker.tell(note);
    }
}

#[cfg(test)]
mod tests;
