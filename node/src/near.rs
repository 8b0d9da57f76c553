//! Copies of what other nodes lead, for clients that want them; and what this node tells others of what it
//! leads, so that their copies stay true.
//!
//! The promise: nobody is answered from a copy with a value that was no longer true one bound before they
//! asked (`--near-max-staleness`), whatever is lost on the way. [`scatterhoard_near`] says why that holds.
//! Here is what carries it. A key that is missing is loaded from its leader, which registers the interest
//! before it reads; loads of one key at a time are one ([`trips`]). As long as copies of a partition are looked
//! up, its leader is always asked for news ([`correspondent`]), and answers under its lease ([`newsroom`]).
//!
//! A node that is never asked for copies holds nothing of this, and one from which nobody keeps copies pays
//! one relaxed load for each entry that it applies.

mod bureau;
mod copies;
mod correspondent;
mod message;
mod newsroom;
mod trips;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scatterhoard_near::{KeyHash, Moment};
use scatterhoard_ring::{PartitionId, Table};
use tokio::time::Instant;

pub(crate) use bureau::{Bells, Bureau};
use copies::Copies;
pub(crate) use copies::Held;
use correspondent::{Followed, Roster};
pub(crate) use newsroom::{serve_load, serve_news};
use trips::Trips;
pub(crate) use trips::{Wanted, load};

use crate::config::Config;

/// The near cache of a node.
pub(crate) struct Near {
    /// When this node's moments begin.
    origin: Instant,
    /// 0: there is none.
    bytes_max: u64,
    bound: Duration,
    counts: Counts,
    bells: Arc<Bells>,
    /// There from when the first client asks.
    shelf: OnceLock<Arc<Shelf>>,
}

/// What a node holds that answers from copies.
struct Shelf {
    hash_seed: u64,
    copies: Copies,
    roster: Roster,
    trips: Trips,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    calls: AtomicU64,
    resets: AtomicU64,
}

/// What has happened since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Keys that were answered from a copy.
    pub(crate) hits: u64,
    /// Keys that had to be loaded.
    pub(crate) misses: u64,
    /// Those that went with the load of another.
    pub(crate) joined: u64,
    /// Calls to leaders for what was missing.
    pub(crate) calls: u64,
    /// How often all copies of a partition were given up.
    pub(crate) resets: u64,
    pub(crate) copies_count: u64,
    /// Of copies and what lies around them, estimated.
    pub(crate) bytes: u64,
}

/// Keys that a write through this node may change: their copies here end before it is sent
/// ([`Near::end`]), and once more when it is answered ([`Near::ended`]). So who wrote through this node, and
/// has the answer, never reads an older value through it.
pub(crate) enum Ending {
    Keys(Arc<Followed>, Vec<KeyHash>),
    /// There were no copies of this partition; there may be some by then.
    All(PartitionId),
}

impl Near {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            origin: Instant::now(),
            bytes_max: config.near_cache_bytes,
            bound: config.near_staleness_max,
            counts: Counts::default(),
            bells: Arc::default(),
            shelf: OnceLock::new(),
        }
    }

    /// Whether there may be copies at all.
    pub(crate) fn is_allowed(&self) -> bool {
        self.bytes_max > 0
    }

    /// What wakes those who wait for news of what this node leads.
    pub(crate) fn bells(&self) -> Arc<Bells> {
        Arc::clone(&self.bells)
    }

    /// What the key holds, if there is a copy that is known to be fresh. `now` is any moment after the client
    /// asked.
    pub(crate) fn look(&self, key: &[u8], now: Instant) -> Option<Arc<Held>> {
        let copy = self.shelf.get()?.copies.find(key)?;
        let now = self.moment(now);
        // A copy that is not known to be may be again with the next news; a load takes its place until then.
        let is_fresh = copy.followed.feed.may_serve(&copy.mark, now);
        is_fresh.then(|| {
            copy.followed.looked_up(now);
            if *copy.held != Held::Unfit {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
            }
            Arc::clone(&copy.held)
        })
    }

    /// Ends the copies of these keys, which are about to be written in a partition that another node leads.
    pub(crate) fn end<'a>(
        &self,
        partition: PartitionId,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Ending {
        let followed =
            |shelf: &Arc<Shelf>| Some((shelf.roster.followed(partition)?, shelf.hash_seed));
        let Some((followed, hash_seed)) = self.shelf.get().and_then(followed) else {
            return Ending::All(partition);
        };
        let keys = keys.into_iter().map(|key| KeyHash::of(key, hash_seed));
        let keys: Vec<_> = keys.inspect(|&key| followed.feed.invalidated(key)).collect();
        Ending::Keys(followed, keys)
    }

    /// They were written, or were not, or it is not known.
    pub(crate) fn ended(&self, ending: &Ending) {
        match ending {
            Ending::Keys(followed, keys) => {
                keys.iter().for_each(|&key| followed.feed.invalidated(key));
            }
            Ending::All(partition) => self.end_partition(*partition),
        }
    }

    /// Ends all copies of a partition's keys.
    pub(crate) fn end_partition(&self, partition: PartitionId) {
        let followed = self.shelf.get().and_then(|shelf| shelf.roster.followed(partition));
        if let Some(followed) = followed {
            followed.feed.reset();
        }
    }

    /// Ends all copies.
    pub(crate) fn end_all(&self) {
        if let Some(shelf) = self.shelf.get() {
            shelf.roster.all().iter().for_each(|followed| followed.feed.reset());
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { hits, misses, joined, calls, resets } = &self.counts;
        let copies = self.shelf.get().map(|shelf| &shelf.copies);
        Tally {
            hits: count(hits),
            misses: count(misses),
            joined: count(joined),
            calls: count(calls),
            resets: count(resets),
            copies_count: copies.map_or(0, Copies::count),
            bytes: copies.map_or(0, Copies::bytes),
        }
    }

    fn shelf(&self, table: &Table) -> &Arc<Shelf> {
        self.shelf.get_or_init(|| {
            let copies = Copies::new(self.bytes_max);
            let roster = Roster::new(self.bytes_max);
            let (hash_seed, trips) = (table.settings.hash_seed, Trips::default());
            Arc::new(Shelf { hash_seed, copies, roster, trips })
        })
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::default().after(now.saturating_duration_since(self.origin))
    }
}
