//! A store and the log that made it.

use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    Expiry, Read, Reply, SetAnswer, Step, Store, UnixMillis, When, Write, encode_flush,
    encode_header, encode_invalidate_prefix, encode_invalidate_tag, encode_step,
};

pub(crate) const SEED: u64 = 42;
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

pub(crate) struct Partition {
    pub(crate) store: Store,
    /// Every entry; the first has index 1.
    pub(crate) log: Vec<Vec<u8>>,
    pub(crate) now: UnixMillis,
}

impl Partition {
    pub(crate) fn new() -> Self {
        Self::of(SlotRange::ALL)
    }

    pub(crate) fn of(slots: SlotRange) -> Self {
        let store = Store::new(slots, SEED, VALUE_BYTES_MAX);
        Self { store, log: Vec::new(), now: UnixMillis::new(1_700_000_000_000) }
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now.plus(millis);
    }

    pub(crate) fn write(&mut self, write: Write<'_>) -> Reply<'static> {
        self.write_all(vec![write]).remove(0)
    }

    /// One entry with several steps.
    pub(crate) fn write_all(&mut self, writes: Vec<Write<'_>>) -> Vec<Reply<'static>> {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        for write in writes {
            encode_step(&mut entry, &Step { slot: slot_of(&write), write });
        }
        self.log(entry)
    }

    pub(crate) fn flush(&mut self, slots: SlotRange) -> Vec<Reply<'static>> {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        encode_flush(&mut entry, slots);
        self.log(entry)
    }

    pub(crate) fn invalidate_tag(&mut self, tag: &[u8]) -> Vec<Reply<'static>> {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        encode_invalidate_tag(&mut entry, self.store.slots(), tag);
        self.log(entry)
    }

    pub(crate) fn invalidate_prefix(&mut self, prefix: &[u8]) -> Vec<Reply<'static>> {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        encode_invalidate_prefix(&mut entry, self.store.slots(), prefix);
        self.log(entry)
    }

    pub(crate) fn stamp(&mut self) {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        self.log(entry);
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) -> Reply<'static> {
        self.write(set(key, value))
    }

    pub(crate) fn set_until(&mut self, key: &[u8], value: &[u8], millis: u64) -> Reply<'static> {
        let expiry = Expiry::After(millis);
        let (when, answer) = (When::Always, SetAnswer::Done);
        self.write(Write::Set { key, value, expiry, when, answer })
    }

    pub(crate) fn read(&self, key: &[u8], read: Read<'_>) -> Reply<'_> {
        self.store.read(Slot::of(key), &read, self.now)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.read(key, Read::Get { key }) {
            Reply::Bulk(value) => Some(value.into_owned()),
            Reply::Nil => None,
            other => panic!("a read of a value answered {other:?}"),
        }
    }

    fn log(&mut self, entry: Vec<u8>) -> Vec<Reply<'static>> {
        let mut replies = Vec::new();
        let index = self.log.len() as u64 + 1;
        self.store.apply(index, &entry, Some(&mut replies)).expect("we wrote it");
        self.log.push(entry);
        replies
    }
}

pub(crate) fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Write<'a> {
    let (when, answer) = (When::Always, SetAnswer::Done);
    Write::Set { key, value, expiry: Expiry::Clear, when, answer }
}

/// The slot of this key and its neighbours: random histories look at every slot after each event.
pub(crate) fn slots_around(key: &[u8]) -> SlotRange {
    let slot = Slot::of(key).number();
    SlotRange::new(slot - 2, slot + 3).expect("no slot at the end is asked for")
}

pub(crate) fn slot_of(write: &Write<'_>) -> Slot {
    Slot::of(match write {
        Write::Set { key, .. }
        | Write::GetExpire { key, .. }
        | Write::GetDelete { key }
        | Write::Add { key, .. }
        | Write::AddFloat { key, .. }
        | Write::Append { key, .. }
        | Write::SetRange { key, .. }
        | Write::Expire { key, .. }
        | Write::Persist { key }
        | Write::SetWith { key, .. }
        | Write::Lease { key, .. }
        | Write::Fill { key, .. }
        | Write::Release { key, .. }
        | Write::ReserveFilter { key, .. }
        | Write::AddToFilter { key, .. } => key,
        Write::Rename { from, .. } | Write::Copy { from, .. } => from,
        Write::SetMany { pairs } | Write::SetManyIfAbsent { pairs } => pairs[0].0,
        Write::Delete { keys } | Write::Evict { keys } => keys[0],
    })
}

/// Every key that has not expired, with value, deadline and encoding, in order.
pub(crate) fn contents(store: &Store, now: UnixMillis) -> Vec<(Vec<u8>, Vec<Reply<'static>>)> {
    use scatterhoard_store::DeadlineForm;
    let mut keys = store.keys(&|_| true, now, usize::MAX);
    keys.sort_unstable();
    let tell = |key: &[u8]| {
        let form = DeadlineForm::AtMilli;
        [Read::Get { key }, Read::Deadline { key, form }, Read::Encoding { key }]
            .into_iter()
            .map(|read| store.read(Slot::of(key), &read, now).into_owned())
            .collect()
    };
    keys.into_iter().map(|key| (key.to_vec(), tell(key))).collect()
}
