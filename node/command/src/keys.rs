//! The keys of a read or a write, and the slot that they share.

use scatterhoard_ring::Slot;
use scatterhoard_store::{Read, Write};

/// Keys lie in different slots, and the command cannot be split. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CROSSSLOT Keys in request don't hash to the same slot")]
pub struct CrossSlot;

/// The keys of a read or a write, in the order of the request; one named twice comes twice.
#[derive(Clone, Debug)]
pub struct Keys<'r, 'a>(Source<'r, 'a>);

#[derive(Clone, Debug)]
enum Source<'r, 'a> {
    /// At most two, the next one first.
    Few(Option<&'a [u8]>, Option<&'a [u8]>),
    Listed(std::slice::Iter<'r, &'a [u8]>),
    Paired(std::slice::Iter<'r, (&'a [u8], &'a [u8])>),
}

impl<'a> Iterator for Keys<'_, 'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.0 {
            Source::Few(first, second) => std::mem::replace(first, second.take()),
            Source::Listed(keys) => keys.next().copied(),
            Source::Paired(pairs) => pairs.next().map(|&(key, _)| key),
        }
    }
}

/// The keys of a read.
#[must_use]
pub fn keys_of_read<'r, 'a>(read: &'r Read<'a>) -> Keys<'r, 'a> {
    Keys(match read {
        Read::Get { key }
        | Read::Length { key }
        | Read::GetRange { key, .. }
        | Read::Type { key }
        | Read::Deadline { key, .. }
        | Read::Encoding { key }
        | Read::IdleTime { key }
        | Read::Frequency { key }
        | Read::RefCount { key }
        | Read::MemoryUsage { key }
        | Read::Lookup { key, .. }
        | Read::InFilter { key, .. }
        | Read::FilterInfo { key, .. } => Source::Few(Some(key), None),
        Read::GetMany { keys } | Read::Exists { keys } | Read::Touch { keys } => {
            Source::Listed(keys.iter())
        }
    })
}

/// The keys of a write.
#[must_use]
pub fn keys_of_write<'r, 'a>(write: &'r Write<'a>) -> Keys<'r, 'a> {
    Keys(match write {
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
        | Write::AddToFilter { key, .. } => Source::Few(Some(key), None),
        Write::Rename { from, to, .. } | Write::Copy { from, to, .. } => {
            Source::Few(Some(from), Some(to))
        }
        Write::SetMany { pairs } | Write::SetManyIfAbsent { pairs } => Source::Paired(pairs.iter()),
        Write::Delete { keys } | Write::Evict { keys } => Source::Listed(keys.iter()),
    })
}

/// The slot of all keys of a read. One without keys, which no request makes, is at home in slot 0.
///
/// # Errors
/// There is more than one slot.
pub fn slot_of_read(read: &Read<'_>) -> Result<Slot, CrossSlot> {
    slot_of(keys_of_read(read))
}

/// The slot of all keys of a write. One without keys, which no request makes, is at home in slot 0.
///
/// # Errors
/// There is more than one slot.
pub fn slot_of_write(write: &Write<'_>) -> Result<Slot, CrossSlot> {
    slot_of(keys_of_write(write))
}

fn slot_of(mut keys: Keys<'_, '_>) -> Result<Slot, CrossSlot> {
    let slot = Slot::of(keys.next().unwrap_or_default());
    if keys.all(|key| Slot::of(key) == slot) { Ok(slot) } else { Err(CrossSlot) }
}
