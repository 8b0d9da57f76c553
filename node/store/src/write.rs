//! What writes do to a slot. The shapes of answers and the order of checks are those of Redis 7.0.

use std::borrow::Cow;

use crate::access::{Access, roll};
use crate::block::{Block, Parts, Shape};
use crate::extra::Extra;
use crate::number::{add_float, parse_integer};
use crate::slot_table::{At, Hash, SlotTable};
use crate::{Expiry, OpError, Reply, SetAnswer, UnixMillis, When, WhenExpire, Write};

/// Writes to one slot at one time. A key whose deadline is not after the stamp is absent, as is one that a
/// tag made stale; their remains are removed where they are met. Whatever changes what a read of a key would
/// give, and each delete of it, voids the lease on it.
pub(crate) struct Writer<'s> {
    pub(crate) table: &'s mut SlotTable,
    pub(crate) seed: u64,
    /// Of the entry of the log.
    pub(crate) index: u64,
    /// What it says to who asks.
    pub(crate) version: i64,
    pub(crate) stamp: UnixMillis,
    pub(crate) value_bytes_max: usize,
}

/// A key, its hash, and where it is, if it is there.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'k> {
    pub(crate) key: &'k [u8],
    pub(crate) hash: Hash,
    /// Where the value is.
    pub(crate) at: Option<At>,
    /// Where the entry is, be it a value or a negative one.
    pub(crate) held: Option<At>,
}

/// What is put under a key.
#[derive(Clone, Copy)]
pub(crate) struct Put<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) deadline: Option<UnixMillis>,
    pub(crate) shape: Shape,
    pub(crate) extra: Extra<'a>,
}

impl<'a> Put<'a> {
    fn plain(value: &'a [u8], deadline: Option<UnixMillis>) -> Self {
        Self { value, deadline, shape: Shape::Whole, extra: Extra::NONE }
    }
}

pub(crate) type Outcome = Result<Reply<'static>, OpError>;

impl Writer<'_> {
    pub(crate) fn write(&mut self, write: &Write<'_>) -> Reply<'static> {
        let outcome = match write {
            Write::Set { key, value, expiry, when, answer } => {
                self.set(key, value, *expiry, *when, *answer)
            }
            Write::SetMany { pairs } => Ok(self.set_many(pairs)),
            Write::SetManyIfAbsent { pairs } => Ok(self.set_many_if_absent(pairs)),
            Write::GetExpire { key, expiry } => self.take_note_of_expiry(key, *expiry),
            Write::GetDelete { key } => self.take(key),
            Write::Add { key, delta } => self.add(key, *delta),
            Write::AddFloat { key, delta } => self.add_float(key, *delta),
            Write::Append { key, value } => self.append(key, value),
            Write::SetRange { key, offset, value } => self.set_range(key, *offset as usize, value),
            Write::Delete { keys } | Write::Evict { keys } => Ok(self.delete(keys)),
            Write::Expire { key, expiry, when } => self.expire(key, *expiry, *when),
            Write::Persist { key } => self.expire(key, Expiry::Clear, WhenExpire::Always),
            Write::Rename { from, to, only_if_absent } => self.rename(from, to, *only_if_absent),
            Write::Copy { from, to, replace } => self.copy(from, to, *replace),
            Write::SetWith { key, content, terms, when, answer } => {
                self.set_with(key, (*content, terms), *when, *answer)
            }
            Write::Lease { key, token, millis, wants } => {
                self.give_lease(key, *token, *millis, *wants)
            }
            Write::Fill { key, token, content, terms } => self.fill(key, *token, *content, terms),
            Write::Release { key, token } => Ok(self.release(key, *token)),
            Write::ReserveFilter { key, layout } => self.reserve_filter(key, *layout),
            Write::AddToFilter { key, items, form } => self.add_to_filter(key, items, *form),
        };
        outcome.unwrap_or_else(Reply::Error)
    }

    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
        when: When<'_>,
        answer: SetAnswer,
    ) -> Outcome {
        let spot = self.spot(key);
        let deadline = self.deadline_after(spot, expiry)?;
        let may = self.allows(spot, when)?;
        let reply = self.set_reply(spot, may, answer)?;
        if may {
            self.put(spot, Put::plain(value, deadline));
        }
        Ok(reply)
    }

    /// What is answered to who sets this key, before it is set.
    pub(crate) fn set_reply(&self, spot: Spot<'_>, may: bool, answer: SetAnswer) -> Outcome {
        Ok(match answer {
            SetAnswer::Done if may => Reply::Ok,
            SetAnswer::Version if may => Reply::Int(self.version),
            SetAnswer::Done | SetAnswer::Version => Reply::Nil,
            SetAnswer::Before => self.value_reply(spot)?,
            SetAnswer::Count => Reply::Int(i64::from(may)),
        })
    }

    pub(crate) fn allows(&self, spot: Spot<'_>, when: When<'_>) -> Result<bool, OpError> {
        Ok(match when {
            When::Always => true,
            When::Absent => spot.at.is_none(),
            When::Present => spot.at.is_some(),
            When::Equal(value) => {
                self.string_at(spot)?.is_some_and(|at| self.table.block(at).value() == value)
            }
        })
    }

    fn set_many(&mut self, pairs: &[(&[u8], &[u8])]) -> Reply<'static> {
        for (key, value) in pairs {
            let spot = self.spot(key);
            self.put(spot, Put::plain(value, None));
        }
        Reply::Ok
    }

    fn set_many_if_absent(&mut self, pairs: &[(&[u8], &[u8])]) -> Reply<'static> {
        if pairs.iter().any(|(key, _)| self.spot(key).at.is_some()) {
            return Reply::Int(0);
        }
        self.set_many(pairs);
        Reply::Int(1)
    }

    fn take_note_of_expiry(&mut self, key: &[u8], expiry: Expiry) -> Outcome {
        let spot = self.spot(key);
        let deadline = self.deadline_after(spot, expiry)?;
        let reply = self.value_reply(spot)?;
        self.put_deadline(spot, deadline);
        Ok(reply)
    }

    fn take(&mut self, key: &[u8]) -> Outcome {
        let spot = self.spot(key);
        let reply = self.value_reply(spot)?;
        self.remove(spot);
        Ok(reply)
    }

    fn add(&mut self, key: &[u8], delta: i64) -> Outcome {
        let spot = self.spot(key);
        let before = match self.string_at(spot)? {
            Some(at) => parse_integer(self.table.block(at).value()).ok_or(OpError::NotAnInteger)?,
            None => 0,
        };
        let sum = before.checked_add(delta).ok_or(OpError::Overflow)?;
        self.put_value(spot, itoa::Buffer::new().format(sum).as_bytes());
        Ok(Reply::Int(sum))
    }

    fn add_float(&mut self, key: &[u8], delta: f64) -> Outcome {
        let spot = self.spot(key);
        let at = self.string_at(spot)?;
        let before = at.map_or(&b"0"[..], |at| self.table.block(at).value());
        let sum = add_float(before, delta)?;
        self.put_value(spot, sum.as_bytes());
        Ok(Reply::Bulk(Cow::Owned(sum.into_bytes())))
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Outcome {
        let spot = self.spot(key);
        let Some(at) = self.string_at(spot)? else {
            self.put_value(spot, value);
            return Ok(length_reply(value.len()));
        };
        let before = self.table.block(at).value_len();
        self.check_length(before, value.len())?;
        self.modify(spot, at, |block| block.write_value(before, value));
        Ok(length_reply(before + value.len()))
    }

    fn set_range(&mut self, key: &[u8], offset: usize, value: &[u8]) -> Outcome {
        let spot = self.spot(key);
        let at = self.string_at(spot)?;
        let before = at.map_or(0, |at| self.table.block(at).value_len());
        if value.is_empty() {
            return Ok(length_reply(before));
        }
        self.check_length(offset, value.len())?;
        match at {
            Some(at) => self.modify(spot, at, |block| block.write_value(offset, value)),
            None => {
                let mut block = self.block(key, Put::plain(b"", None));
                block.write_value(offset, value);
                self.place(spot, block);
            }
        }
        Ok(length_reply(before.max(offset + value.len())))
    }

    fn delete(&mut self, keys: &[&[u8]]) -> Reply<'static> {
        let existed = keys.iter().filter(|key| {
            let spot = self.spot(key);
            self.remove(spot);
            spot.at.is_some()
        });
        length_reply(existed.count())
    }

    fn expire(&mut self, key: &[u8], expiry: Expiry, when: WhenExpire) -> Outcome {
        let spot = self.spot(key);
        let after = self.deadline_after(spot, expiry)?;
        let Some(at) = spot.at else {
            return Ok(Reply::Int(0));
        };
        let before = self.table.block(at).deadline();
        // No deadline is later than any.
        let is_later = before.is_some_and(|before| after.is_none_or(|after| after > before));
        let is_earlier = after.is_some_and(|after| before.is_none_or(|before| after < before));
        let may = match when {
            WhenExpire::Always => after.is_some() || before.is_some(),
            WhenExpire::Absent => before.is_none(),
            WhenExpire::Present => before.is_some(),
            WhenExpire::Later => is_later,
            WhenExpire::Earlier => is_earlier,
            WhenExpire::PresentEarlier => before.is_some() && is_earlier,
        };
        if may {
            self.put_deadline(spot, after);
        }
        Ok(Reply::Int(i64::from(may)))
    }

    fn rename(&mut self, from: &[u8], to: &[u8], only_if_absent: bool) -> Outcome {
        // The target first: removing what is expired there would move the source.
        let target_exists = self.spot(to).at.is_some();
        let source = self.spot(from).at.ok_or(OpError::NoSuchKey)?;
        if from != to && !(only_if_absent && target_exists) {
            self.table.void(from);
            let source = self.table.remove(source);
            self.put_parts(to, source.parts());
        }
        Ok(if only_if_absent { Reply::Int(i64::from(!target_exists)) } else { Reply::Ok })
    }

    fn copy(&mut self, from: &[u8], to: &[u8], replace: bool) -> Outcome {
        if from == to {
            return Err(OpError::SameKey);
        }
        let target = self.spot(to);
        let Some(source) = self.spot(from).at else {
            return Ok(Reply::Int(0));
        };
        if target.at.is_some() && !replace {
            return Ok(Reply::Int(0));
        }
        let source = Block::new(self.table.block(source).parts());
        self.put_parts(to, source.parts());
        Ok(Reply::Int(1))
    }

    /// Looks a key up; if it is expired or stale, removes it.
    pub(crate) fn spot<'k>(&mut self, key: &'k [u8]) -> Spot<'k> {
        let hash = Hash::of(key, self.seed);
        let at = self.table.locate(hash, key);
        let held = at.filter(|&at| self.table.is_live(self.table.block(at), self.stamp));
        if let (Some(remains), None) = (at, held) {
            self.table.remove(remains);
        }
        let at = held.filter(|&at| !self.table.block(at).is_negative());
        Spot { key, hash, at, held }
    }

    /// Where the value is, which has to be a string.
    fn string_at(&self, spot: Spot<'_>) -> Result<Option<At>, OpError> {
        match spot.at.map(|at| self.table.block(at).shape()) {
            Some(Shape::Filter) => Err(OpError::WrongType),
            Some(Shape::Whole | Shape::Grown | Shape::Negative) | None => Ok(spot.at),
        }
    }

    /// The deadline that the key would have.
    pub(crate) fn deadline_after(
        &self,
        spot: Spot<'_>,
        expiry: Expiry,
    ) -> Result<Option<UnixMillis>, OpError> {
        match expiry {
            Expiry::Clear => Ok(None),
            Expiry::Keep => Ok(spot.at.and_then(|at| self.table.block(at).deadline())),
            Expiry::At(time) => Ok(Some(time)),
            Expiry::After(millis) => {
                let time = self.stamp.millis().checked_add(millis);
                let time = time.filter(|&time| time <= UnixMillis::MAX.millis());
                time.map(|time| Some(UnixMillis::new(time))).ok_or(OpError::BadExpire)
            }
        }
    }

    fn check_length(&self, start: usize, more: usize) -> Result<(), OpError> {
        let fits = start.checked_add(more).is_some_and(|length| length <= self.value_bytes_max);
        if fits { Ok(()) } else { Err(OpError::TooLong) }
    }

    fn value_reply(&self, spot: Spot<'_>) -> Outcome {
        Ok(match self.string_at(spot)? {
            Some(at) => Reply::Bulk(Cow::Owned(self.table.block(at).value().to_vec())),
            None => Reply::Nil,
        })
    }

    /// Puts this under the key, whatever was there.
    pub(crate) fn put(&mut self, spot: Spot<'_>, put: Put<'_>) {
        if put.deadline.is_some_and(|deadline| deadline <= self.stamp) {
            self.remove(spot);
            return;
        }
        match spot.held {
            Some(at) => self.modify(spot, at, |block| {
                let fits = block.deadline().is_some() == put.deadline.is_some()
                    && block.extra() == put.extra;
                if fits {
                    block.set_value(put.value, put.shape);
                    block.set_deadline(put.deadline);
                } else {
                    let access = block.access();
                    *block = Block::new(put.parts(block.key(), access));
                }
            }),
            None => {
                let block = self.block(spot.key, put);
                self.place(spot, block);
            }
        }
    }

    /// Sets the value; all else stays.
    fn put_value(&mut self, spot: Spot<'_>, value: &[u8]) {
        let Some(at) = spot.at else {
            return self.put(spot, Put::plain(value, None));
        };
        self.modify(spot, at, |block| block.set_value(value, Shape::Whole));
    }

    fn put_deadline(&mut self, spot: Spot<'_>, deadline: Option<UnixMillis>) {
        let Some(at) = spot.at else { return };
        if deadline.is_some_and(|deadline| deadline <= self.stamp) {
            self.remove(spot);
        } else {
            self.modify(spot, at, |block| block.set_deadline(deadline));
        }
    }

    /// Sets all but the key, whatever was there.
    fn put_parts(&mut self, key: &[u8], parts: Parts<'_>) {
        let spot = self.spot(key);
        self.place(spot, Block::new(Parts { key, ..parts }));
    }

    /// Puts an entry with this key in the place of what was there.
    fn place(&mut self, spot: Spot<'_>, block: Block) {
        self.remove(spot);
        self.table.insert(spot.hash, block);
    }

    pub(crate) fn modify(&mut self, spot: Spot<'_>, at: At, change: impl FnOnce(&mut Block)) {
        let stamp = self.stamp;
        self.table.void(spot.key);
        self.table.modify(at, |block| {
            change(block);
            block.set_access(block.access().touched(stamp, roll(spot.hash.0, stamp)));
        });
    }

    /// Removes what is there. Voids the lease also where nothing is: what is loaded under it may be what
    /// the key had before.
    fn remove(&mut self, spot: Spot<'_>) {
        self.table.void(spot.key);
        if let Some(at) = spot.held {
            self.table.remove(at);
        }
    }

    fn block(&self, key: &[u8], put: Put<'_>) -> Block {
        Block::new(put.parts(key, Access::fresh(self.stamp)))
    }
}

impl<'a> Put<'a> {
    fn parts(self, key: &'a [u8], access: Access) -> Parts<'a> {
        let Self { value, deadline, shape, extra } = self;
        Parts { key, value, deadline, shape, access, extra }
    }
}

fn length_reply(length: usize) -> Reply<'static> {
    Reply::Int(i64::try_from(length).expect("memory is smaller than 2^63 bytes"))
}
