//! What reads answer. The shapes of answers are those of Redis 7.0.

use std::borrow::Cow;
use std::ops::Range;

use scatterhoard_ring::Slot;

use crate::access::roll;
use crate::block::{Block, Shape};
use crate::filter::filter_of;
use crate::lookup::Lookup;
use crate::number::parse_integer;
use crate::slot_table::{Hash, SlotTable};
use crate::{
    DeadlineForm, FilterField, FilterForm, OpError, Read, Reply, Store, Tag, UnixMillis, Wants,
};

/// Redis keeps strings up to this length in one piece with their header.
const EMBEDDED_BYTES_MAX: usize = 44;
/// A pointer to the entry and a byte of its hash.
const TABLE_BYTES_PER_ENTRY: usize = 9;

impl Store {
    /// Answers a read of one of this store's slots at this time; values are lent, not copied.
    ///
    /// A read that uses a value notes the use, for eviction. Only a leader reads, so only its notes
    /// count.
    #[must_use]
    pub fn read(&self, slot: Slot, read: &Read<'_>, now: UnixMillis) -> Reply<'_> {
        let reader = Reader { table: self.table(slot), seed: self.seed, now };
        match read {
            Read::Get { key } => reader.value(key),
            Read::GetMany { keys } => {
                // As in Redis, what is not a string is not there for `MGET`.
                let value = |key: &&[u8]| match reader.value(key) {
                    Reply::Error(_) => Reply::Nil,
                    value => value,
                };
                Reply::Array(keys.iter().map(value).collect())
            }
            Read::Length { key } => reader.string(key, |value| count(value.map_or(0, <[u8]>::len))),
            Read::GetRange { key, first, last } => reader.string(key, |value| {
                let value = value.unwrap_or_default();
                Reply::Bulk(Cow::Borrowed(&value[part(value.len(), *first, *last)]))
            }),
            Read::Exists { keys } => count(keys.iter().filter_map(|key| reader.find(key)).count()),
            Read::Touch { keys } => count(keys.iter().filter_map(|key| reader.used(key)).count()),
            Read::Type { key } => Reply::Status(reader.find(key).map_or("none", type_of)),
            Read::Deadline { key, form } => reader.deadline(key, *form),
            Read::Encoding { key } => {
                reader.tell(key, |block| Reply::Bulk(Cow::Borrowed(encoding(block).as_bytes())))
            }
            Read::IdleTime { key } => {
                reader.tell(key, |block| Reply::Int(block.access().idle_secs(now) as i64))
            }
            Read::Frequency { key } => {
                reader.tell(key, |block| Reply::Int(i64::from(block.access().frequency(now))))
            }
            Read::RefCount { key } => reader.tell(key, |_| Reply::Int(1)),
            Read::MemoryUsage { key } => {
                reader.tell(key, |block| count(block.bytes() + TABLE_BYTES_PER_ENTRY))
            }
            Read::Lookup { key, wants } => reader.lookup(key, *wants),
            Read::InFilter { key, items, form } => reader.in_filter(key, items, *form),
            Read::FilterInfo { key, field } => reader.filter_info(key, *field),
        }
    }

    /// What is under a key, and whether someone loads it: for who decides whether to log a
    /// [`crate::Write::Lease`], or to wait. A value that is found is noted as used.
    #[must_use]
    pub fn lookup(&self, slot: Slot, key: &[u8], now: UnixMillis) -> Lookup<'_> {
        let reader = Reader { table: self.table(slot), seed: self.seed, now };
        reader.used(key);
        let at = reader.table.locate(Hash::of(key, self.seed), key);
        reader.table.lookup(at, key, now)
    }

    /// What ends a value without a write of its key: its deadline, and its tags. Of what is not there, nothing.
    #[must_use]
    pub fn ends(&self, slot: Slot, key: &[u8], now: UnixMillis) -> (Option<UnixMillis>, Vec<Tag>) {
        let table = self.table(slot);
        let block = table.find(Hash::of(key, self.seed), key);
        let block = block.filter(|block| table.is_live(block, now));
        block.map_or((None, Vec::new()), |it| (it.deadline(), it.extra().tags().collect()))
    }
}

struct Reader<'s> {
    table: &'s SlotTable,
    seed: u64,
    now: UnixMillis,
}

impl<'s> Reader<'s> {
    fn find(&self, key: &[u8]) -> Option<&'s Block> {
        let block = self.table.find(Hash::of(key, self.seed), key)?;
        self.table.is_shown(block, self.now).then_some(block)
    }

    fn used(&self, key: &[u8]) -> Option<&'s Block> {
        let hash = Hash::of(key, self.seed);
        let block = self.table.find(hash, key)?;
        if !self.table.is_shown(block, self.now) {
            return None;
        }
        block.set_access(block.access().touched(self.now, roll(hash.0, self.now)));
        Some(block)
    }

    fn value(&self, key: &[u8]) -> Reply<'s> {
        self.string(key, |value| value.map_or(Reply::Nil, |it| Reply::Bulk(Cow::Borrowed(it))))
    }

    /// What there is to say about a string, or about none.
    fn string(&self, key: &[u8], tell: impl FnOnce(Option<&'s [u8]>) -> Reply<'s>) -> Reply<'s> {
        match self.used(key) {
            Some(block) if block.shape() == Shape::Filter => Reply::Error(OpError::WrongType),
            block => tell(block.map(Block::value)),
        }
    }

    fn lookup(&self, key: &[u8], wants: Wants) -> Reply<'s> {
        self.used(key);
        let at = self.table.locate(Hash::of(key, self.seed), key);
        let answer = |wants| self.table.lookup(at, key, self.now).answer(wants);
        let missed = || Lookup::Missing.answer(Wants::Look);
        answer(wants).or_else(missed).expect("who only looks is answered")
    }

    fn in_filter(&self, key: &[u8], items: &[&[u8]], form: FilterForm) -> Reply<'s> {
        let block = self.used(key).filter(|block| block.shape() == Shape::Filter);
        let filter = block.map(filter_of);
        let mut answers =
            items.iter().map(|item| Reply::Bool(filter.is_some_and(|filter| filter.has(item))));
        match form {
            FilterForm::One => answers.next().unwrap_or(Reply::Bool(false)),
            FilterForm::Many => Reply::Tuple(answers.collect()),
        }
    }

    fn filter_info(&self, key: &[u8], field: Option<FilterField>) -> Reply<'s> {
        match (self.find(key), field) {
            (None, _) => Reply::Error(OpError::NoFilter),
            (Some(block), _) if block.shape() != Shape::Filter => Reply::Error(OpError::WrongType),
            (Some(block), None) => filter_of(block).info(),
            (Some(block), Some(field)) => Reply::Tuple(vec![filter_of(block).field(field)]),
        }
    }

    fn tell(&self, key: &[u8], tell: impl FnOnce(&'s Block) -> Reply<'s>) -> Reply<'s> {
        self.find(key).map_or(Reply::Nil, tell)
    }

    fn deadline(&self, key: &[u8], form: DeadlineForm) -> Reply<'s> {
        let Some(block) = self.find(key) else {
            return Reply::Int(-2);
        };
        let Some(deadline) = block.deadline() else {
            return Reply::Int(-1);
        };
        let millis = match form {
            DeadlineForm::SecondsLeft | DeadlineForm::MillisLeft => {
                deadline.millis() - self.now.millis()
            }
            DeadlineForm::AtSecond | DeadlineForm::AtMilli => deadline.millis(),
        };
        Reply::Int(match form {
            DeadlineForm::SecondsLeft | DeadlineForm::AtSecond => ((millis + 500) / 1000) as i64,
            DeadlineForm::MillisLeft | DeadlineForm::AtMilli => millis as i64,
        })
    }
}

fn count(number: usize) -> Reply<'static> {
    Reply::Int(i64::try_from(number).expect("memory is smaller than 2^63 bytes"))
}

fn encoding(block: &Block) -> &'static str {
    match block.shape() {
        Shape::Grown => "raw",
        Shape::Whole if parse_integer(block.value()).is_some() => "int",
        Shape::Whole if block.value_len() <= EMBEDDED_BYTES_MAX => "embstr",
        Shape::Whole | Shape::Negative | Shape::Filter => "raw",
    }
}

fn type_of(block: &Block) -> &'static str {
    match block.shape() {
        Shape::Whole | Shape::Grown => "string",
        Shape::Filter => "MBbloom--",
        Shape::Negative => "none",
    }
}

/// Both ends included, negative ones counted from the end, what lies outside cut off. Redis,
/// `getrangeCommand`.
fn part(length: usize, first: i64, last: i64) -> Range<usize> {
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let place = |position: i64| {
        if position >= 0 {
            return usize::try_from(position).unwrap_or(usize::MAX);
        }
        let back = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
        length.saturating_sub(back)
    };
    let (first, end) = (place(first), place(last).saturating_add(1).min(length));
    if first < end { first..end } else { 0..0 }
}
