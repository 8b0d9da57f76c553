//! How a command with keys in several slots becomes one command for each, and one answer again.
//!
//! A split command is not atomic: its parts happen at different times, and some may fail.

use std::collections::BTreeMap;

use scatterhoard_ring::Slot;
use scatterhoard_store::{OpError, Read, Reply, Write};

use crate::{CrossSlot, keys_of_read, slot_of_write};

/// A read or a write, by slots.
#[derive(Clone, Debug, PartialEq)]
pub enum Split<T> {
    /// All of it belongs to one slot.
    Whole {
        /// Of all keys.
        slot: Slot,
        /// As it was.
        op: T,
    },
    /// Its keys lie in several slots.
    Parts {
        /// Two or more, each with a slot of its own, in ascending order.
        parts: Vec<(Slot, T)>,
        /// How the answers, in the order of the parts, become one.
        merge: Merge,
    },
}

/// How the answers to the parts of a command become the answer to all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Numbers are added: `DEL`, `EXISTS`.
    Sum,
    /// Arrays are put together: `MGET`. For each item of each part in turn, its place in the whole.
    InOrder(Vec<usize>),
    /// `Ok` if all are: `MSET`.
    AllOk,
}

impl Merge {
    /// The answer to all of it. An error among the answers is the answer: one that leaves a write in
    /// doubt if there is such, else the first.
    ///
    /// # Panics
    /// If the answers are not those of the parts: one for each, of the shape that its operation has.
    #[must_use]
    pub fn merge<'a>(self, replies: Vec<Reply<'a>>) -> Reply<'a> {
        let errors = || replies.iter().filter(|reply| matches!(reply, Reply::Error(_)));
        let in_doubt = errors().find(|reply| **reply == Reply::Error(OpError::AnswerLost));
        if let Some(error) = in_doubt.or_else(|| errors().next()) {
            return error.clone();
        }
        match self {
            Self::Sum => Reply::Int(replies.into_iter().map(number).sum()),
            Self::AllOk => Reply::Ok,
            Self::InOrder(places) => {
                let items: Vec<_> = replies.into_iter().flat_map(items).collect();
                assert_eq!(items.len(), places.len(), "every key has one answer");
                let mut whole = vec![Reply::Nil; items.len()];
                for (place, item) in places.into_iter().zip(items) {
                    whole[place] = item;
                }
                Reply::Array(whole)
            }
        }
    }
}

fn number(reply: Reply<'_>) -> i64 {
    match reply {
        Reply::Int(number) => number,
        Reply::Ok
        | Reply::Nil
        | Reply::Bulk(_)
        | Reply::Status(_)
        | Reply::Array(_)
        | Reply::Tuple(_)
        | Reply::Map(_)
        | Reply::Bool(_)
        | Reply::Error(_) => panic!("a count is answered with a number"),
    }
}

fn items(reply: Reply<'_>) -> Vec<Reply<'_>> {
    match reply {
        Reply::Array(items) => items,
        Reply::Ok
        | Reply::Nil
        | Reply::Int(_)
        | Reply::Bulk(_)
        | Reply::Status(_)
        | Reply::Tuple(_)
        | Reply::Map(_)
        | Reply::Bool(_)
        | Reply::Error(_) => panic!("many keys are answered with an array"),
    }
}

/// The read by slots. Every read of several keys can be split.
#[must_use]
pub fn split_read(read: Read<'_>) -> Split<Read<'_>> {
    match read {
        Read::GetMany { keys } => {
            split(keys, key_itself, |keys| Read::GetMany { keys }, Merge::InOrder)
        }
        Read::Exists { keys } => split(keys, key_itself, |keys| Read::Exists { keys }, sum),
        Read::Touch { keys } => split(keys, key_itself, |keys| Read::Touch { keys }, sum),
        Read::Get { .. }
        | Read::Length { .. }
        | Read::GetRange { .. }
        | Read::Type { .. }
        | Read::Deadline { .. }
        | Read::Encoding { .. }
        | Read::IdleTime { .. }
        | Read::Frequency { .. }
        | Read::RefCount { .. }
        | Read::MemoryUsage { .. }
        | Read::Lookup { .. }
        | Read::InFilter { .. }
        | Read::FilterInfo { .. } => {
            let slot = Slot::of(keys_of_read(&read).next().unwrap_or_default());
            Split::Whole { slot, op: read }
        }
    }
}

/// The write by slots. What depends on several keys at once cannot be split.
///
/// # Errors
/// The keys of an `MSETNX`, a `RENAME` or a `COPY` lie in different slots.
pub fn split_write(write: Write<'_>) -> Result<Split<Write<'_>>, CrossSlot> {
    match write {
        Write::SetMany { pairs } => {
            Ok(split(pairs, |pair| pair.0, |pairs| Write::SetMany { pairs }, |_| Merge::AllOk))
        }
        Write::Delete { keys } => Ok(split(keys, key_itself, |keys| Write::Delete { keys }, sum)),
        Write::Evict { keys } => Ok(split(keys, key_itself, |keys| Write::Evict { keys }, sum)),
        Write::Set { .. }
        | Write::SetManyIfAbsent { .. }
        | Write::GetExpire { .. }
        | Write::GetDelete { .. }
        | Write::Add { .. }
        | Write::AddFloat { .. }
        | Write::Append { .. }
        | Write::SetRange { .. }
        | Write::Expire { .. }
        | Write::Persist { .. }
        | Write::Rename { .. }
        | Write::Copy { .. }
        | Write::SetWith { .. }
        | Write::Lease { .. }
        | Write::Fill { .. }
        | Write::Release { .. }
        | Write::ReserveFilter { .. }
        | Write::AddToFilter { .. } => Ok(Split::Whole { slot: slot_of_write(&write)?, op: write }),
    }
}

fn key_itself<'a>(key: &&'a [u8]) -> &'a [u8] {
    key
}

fn sum(_: Vec<usize>) -> Merge {
    Merge::Sum
}

/// Splits what there is one of for each key: a key, or a key and its value.
fn split<'a, Item: Copy, Op>(
    items: Vec<Item>,
    key_of: impl Fn(&Item) -> &'a [u8],
    op_of: impl Fn(Vec<Item>) -> Op,
    merge_of: impl Fn(Vec<usize>) -> Merge,
) -> Split<Op> {
    let slot = Slot::of(items.first().map(&key_of).unwrap_or_default());
    // Most have all keys in one slot: then nothing is moved.
    if items.iter().skip(1).all(|item| Slot::of(key_of(item)) == slot) {
        return Split::Whole { slot, op: op_of(items) };
    }
    let mut by_slot: BTreeMap<Slot, (Vec<Item>, Vec<usize>)> = BTreeMap::new();
    for (place, item) in items.into_iter().enumerate() {
        let (of_slot, places) = by_slot.entry(Slot::of(key_of(&item))).or_default();
        of_slot.push(item);
        places.push(place);
    }
    let (mut parts, mut places) = (Vec::with_capacity(by_slot.len()), Vec::new());
    for (slot, (items, of_slot)) in by_slot {
        parts.push((slot, op_of(items)));
        places.extend(of_slot);
    }
    Split::Parts { parts, merge: merge_of(places) }
}
