//! One partition's part of a command over all keys, on the node that leads it.

use std::sync::Arc;

use scatterhoard_command::Glob;
use scatterhoard_replication::probe::{self, Event, Point};
use scatterhoard_ring::SlotRange;
use scatterhoard_store::{
    Cursor, Reply, Store, UnixMillis, encode_flush, encode_invalidate_prefix, encode_invalidate_tag,
};
use tokio::time::Instant;

use super::{Answer, Missing, Outdated, Question};
use crate::core::Core;
use crate::partition::{Partition, WriteError};

/// Keys that are looked at while a store is held: some hundred microseconds.
pub(super) const PAGE_KEYS_MAX: u32 = 2048;

/// Slots that one step of an invalidation by prefix looks through: with 60 keys each, some hundred
/// microseconds.
const PREFIX_SLOTS: u16 = 64;

/// Bytes of keys in one page. A page goes to another node in one message.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Answers for a partition that is led here.
pub(super) async fn answer(
    core: &Core,
    partition: &Arc<Partition>,
    question: &Question,
    by: Instant,
) -> Result<Answer, Missing> {
    match question {
        Question::Count => {
            let count = read(core, partition, by, |store, _| store.keys_count() as u64);
            count.await.map(Answer::Count)
        }
        Question::Page { cursor, count, pattern } => {
            let page = read(core, partition, by, |store, time| {
                page(store, *cursor, *count, &Glob::new(pattern), time)
            });
            page.await
        }
        Question::Random { roll } => {
            let key = read(core, partition, by, |store, time| {
                store.random_key(*roll, time).map(<[u8]>::to_vec)
            });
            key.await.map(Answer::Random)
        }
        Question::Flush => flush(core, partition).await,
        Question::Invalidate(Outdated::Tags(tags)) => {
            let mut steps = Vec::new();
            tags.iter().for_each(|tag| encode_invalidate_tag(&mut steps, partition.slots, tag));
            change(core, partition, steps, tags.len()).await.map(|_| Answer::Invalidated(0))
        }
        Question::Invalidate(Outdated::Prefix(prefix)) => {
            invalidate_prefix(core, partition, prefix).await
        }
    }
}

/// Reads the store of a partition that is led here, linearizably: under the lease, or confirmed by a
/// quorum.
pub(super) async fn read<T>(
    core: &Core,
    partition: &Partition,
    by: Instant,
    look: impl Fn(&Store, UnixMillis) -> T,
) -> Result<T, Missing> {
    let of = partition.group.spec().founded();
    if let Some(lease) = partition.lease(Instant::now()) {
        let seen = look(&partition.store.lock(), partition.time(Instant::now()));
        probe::at(Point::AfterRead).await;
        if partition.group.lease_holds(lease, Instant::now()) {
            probe::saw(|| Event::Answered { of, by_lease: true });
            return Ok(seen);
        }
        probe::saw(|| Event::LeaseLost { of });
        core.stats.lost_lease();
    }
    partition.read_index(by).await.map_err(|_| Missing::NotDone)?;
    core.stats.confirmed_read();
    probe::at(Point::AfterReadIndex).await;
    probe::saw(|| Event::Answered { of, by_lease: false });
    Ok(look(&partition.store.lock(), partition.time(Instant::now())))
}

fn page(store: &Store, cursor: Cursor, count: u32, pattern: &Glob<'_>, time: UnixMillis) -> Answer {
    let everything = pattern.is_everything();
    let matches = |key: &[u8]| everything || pattern.matches(key);
    let mut count = count.clamp(1, PAGE_KEYS_MAX) as usize;
    loop {
        let page = store.scan(cursor, count, &matches, time);
        let bytes: usize = page.keys.iter().map(|key| key.len()).sum();
        if bytes <= PAGE_BYTES_MAX || count == 1 {
            let keys = page.keys.into_iter().map(<[u8]>::to_vec).collect();
            return Answer::Page { next: page.next, keys };
        }
        count = (count / 8).max(1);
    }
}

async fn flush(core: &Core, partition: &Partition) -> Result<Answer, Missing> {
    let mut steps = Vec::with_capacity(32);
    encode_flush(&mut steps, partition.slots);
    change(core, partition, steps, 1).await.map(|_| Answer::Flushed)
}

/// Some slots at a time, so that others are served in between.
async fn invalidate_prefix(
    core: &Core,
    partition: &Partition,
    prefix: &[u8],
) -> Result<Answer, Missing> {
    let mut removed = 0;
    let (first, end) = (partition.slots.first().number(), partition.slots.last().number() + 1);
    for start in (first..end).step_by(PREFIX_SLOTS.into()) {
        let slots = SlotRange::new(start, end.min(start + PREFIX_SLOTS));
        let mut steps = Vec::new();
        encode_invalidate_prefix(&mut steps, slots.expect("not empty, and of a partition"), prefix);
        let replies = change(core, partition, steps, 1).await.map_err(|missing| {
            // What was removed stays so.
            if start > first { Missing::InDoubt } else { missing }
        })?;
        removed += match replies.first() {
            Some(Reply::Int(count)) => count.unsigned_abs(),
            Some(_) | None => return Err(Missing::InDoubt),
        };
    }
    Ok(Answer::Invalidated(removed))
}

async fn change(
    core: &Core,
    partition: &Partition,
    steps: Vec<u8>,
    steps_count: usize,
) -> Result<Vec<Reply<'static>>, Missing> {
    if partition.has_too_few_replicas() {
        return Err(Missing::TooFewReplicas);
    }
    let by = Instant::now() + core.config.write_timeout;
    match tokio::time::timeout_at(by, partition.submit(steps, steps_count, None)).await {
        Ok(Ok(replies)) => Ok(replies),
        Ok(Err(WriteError::NotDone)) => Err(Missing::NotDone),
        Ok(Err(WriteError::InDoubt)) | Err(_) => Err(Missing::InDoubt),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use scatterhoard_ring::Slot;
    use scatterhoard_store::{Expiry, SetAnswer, Step, When, Write, encode_header, encode_step};

    use super::*;

    fn store_of(keys: &[String]) -> Store {
        let mut store = Store::new(SlotRange::ALL, 7, 1 << 20);
        let mut bytes = Vec::new();
        encode_header(&mut bytes, UnixMillis::new(1));
        for key in keys {
            let write = Write::Set {
                key: key.as_bytes(),
                value: b"v",
                expiry: Expiry::Clear,
                when: When::Always,
                answer: SetAnswer::Done,
            };
            encode_step(&mut bytes, &Step { slot: Slot::of(key.as_bytes()), write });
        }
        store.apply(1, &bytes, None).unwrap();
        store
    }

    fn walk(store: &Store, count: u32, pattern: &str) -> (usize, BTreeSet<Vec<u8>>) {
        let (mut cursor, mut pages_count, mut found) = (Cursor::START, 0, BTreeSet::new());
        loop {
            let glob = Glob::new(pattern.as_bytes());
            let Answer::Page { next, keys } = page(store, cursor, count, &glob, UnixMillis::new(1))
            else {
                panic!("a page");
            };
            found.extend(keys);
            pages_count += 1;
            cursor = next;
            if cursor == Cursor::START {
                return (pages_count, found);
            }
        }
    }

    #[test]
    fn pages_together_have_every_key_that_matches() {
        let keys: Vec<_> = (0..5000).map(|number| format!("key:{number}")).collect();
        let store = store_of(&keys);
        let (pages_count, found) = walk(&store, 100, "*");
        assert_eq!(found.len(), 5000);
        assert!(pages_count > 10, "{pages_count}");
        assert_eq!(walk(&store, u32::MAX, "key:*").1.len(), 5000);
        assert_eq!(walk(&store, 1000, "key:123?").1.len(), 10);
    }

    #[test]
    fn large_keys_make_small_pages() {
        let keys: Vec<_> =
            (0..20).map(|number| number.to_string() + &"k".repeat(1 << 20)).collect();
        let store = store_of(&keys);
        let (pages_count, found) = walk(&store, 2048, "*");
        assert_eq!(found.len(), 20);
        assert!(pages_count >= 5, "{pages_count}");
    }
}
