//! Who goes when memory runs out. The leader asks, and logs the answer; sampled as in Redis
//! (`evict.c`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use scatterhoard_ring::Slot;

use crate::block::Block;
use crate::slot_table::SlotTable;
use crate::{Store, UnixMillis};

/// Keys looked at for each victim. Redis, `maxmemory-samples`, has 5.
const SAMPLES: usize = 8;
/// Candidates kept from one victim to the next. Redis, `EVPOOL_SIZE`.
const POOL_MAX: usize = 16;

/// How victims are chosen. Under Redis's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nobody goes: writes are refused.
    #[default]
    NoEviction,
    /// Whoever was not used for longest.
    AllKeysLru,
    /// Whoever is used least often.
    AllKeysLfu,
    /// Anyone.
    AllKeysRandom,
    /// Whoever was not used for longest, among those with a deadline.
    VolatileLru,
    /// Whoever is used least often, among those with a deadline.
    VolatileLfu,
    /// Anyone with a deadline.
    VolatileRandom,
    /// Whoever has the earliest deadline.
    VolatileTtl,
}

/// There is no policy of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown eviction policy")]
pub struct UnknownPolicy;

/// A key to be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its slot.
    pub slot: Slot,
    /// The key.
    pub key: Vec<u8>,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// Redis's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// Whether only keys with a deadline go.
    const fn is_volatile(self) -> bool {
        match self {
            Self::NoEviction | Self::AllKeysLru | Self::AllKeysLfu | Self::AllKeysRandom => false,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl => {
                true
            }
        }
    }

    /// How gladly this entry is given up. One that has expired or is stale goes before all others.
    fn score(self, table: &SlotTable, block: &Block, now: UnixMillis) -> u64 {
        if !table.is_live(block, now) {
            return u64::MAX;
        }
        match self {
            Self::NoEviction | Self::AllKeysRandom | Self::VolatileRandom => 0,
            Self::AllKeysLru | Self::VolatileLru => block.access().idle_secs(now),
            Self::AllKeysLfu | Self::VolatileLfu => {
                u64::from(u8::MAX - block.access().frequency(now))
            }
            Self::VolatileTtl => {
                block.deadline().map_or(0, |deadline| u64::MAX - 1 - deadline.millis())
            }
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    /// In any case of letters, as Redis has it.
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let named = |policy: &Self| policy.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(named).ok_or(UnknownPolicy)
    }
}

impl Store {
    /// Keys whose eviction frees at least `bytes_wanted`, or fewer if there are none left that the
    /// policy lets go. `rolls` gives numbers that are evenly spread. Changes nothing: the leader logs
    /// [`crate::Write::Evict`] for them.
    ///
    /// Costs one look at each slot, and some entries a victim; so ask for many at once.
    #[must_use]
    pub fn victims(
        &self,
        policy: Policy,
        bytes_wanted: u64,
        rolls: &mut dyn FnMut() -> u64,
        now: UnixMillis,
    ) -> Vec<Victim> {
        if policy == Policy::NoEviction {
            return Vec::new();
        }
        let crowd = Crowd::of(self, policy);
        let (slots, candidates) = (&self.slots[..], Vec::new());
        let mut pool = Pool { slots, policy, now, candidates, taken: BTreeSet::new() };
        let mut victims = Vec::new();
        let mut bytes_freed = 0;
        // Rounds that find nobody new end it: all that may go are taken, or nearly all.
        let mut rounds_vain = 0;
        while bytes_freed < bytes_wanted && victims.len() < crowd.count && rounds_vain < 100 {
            for _ in 0..SAMPLES {
                if let Some((at, block)) = crowd.draw(rolls) {
                    pool.offer(at, block);
                }
            }
            let Some((at, block)) = pool.take() else {
                rounds_vain += 1;
                continue;
            };
            rounds_vain = 0;
            bytes_freed += block.bytes() as u64;
            victims.push(Victim { slot: self.slot_at(at), key: block.key().to_vec() });
        }
        victims
    }
}

/// Those who may go: for drawing one, each with about the same chance.
struct Crowd<'s> {
    slots: &'s [SlotTable],
    /// How many may go in the slots up to this one and in it.
    sums: Vec<usize>,
    count: usize,
    is_volatile: bool,
}

impl<'s> Crowd<'s> {
    fn of(store: &'s Store, policy: Policy) -> Self {
        let is_volatile = policy.is_volatile();
        let mut count = 0;
        let sums = store.slots.iter().map(|table| {
            let tally = table.tally();
            let may_go = if is_volatile { tally.expires_count } else { tally.keys_count };
            // What says that there is nothing may always go: it was made to be forgotten.
            count += may_go + tally.negatives_count;
            count
        });
        Self { sums: sums.collect(), slots: &store.slots, count, is_volatile }
    }

    fn draw(&self, rolls: &mut dyn FnMut() -> u64) -> Option<(usize, &'s Block)> {
        let rank = usize::try_from(rolls().checked_rem(self.count as u64)?).ok()?;
        let at = self.sums.partition_point(|&sum| sum <= rank);
        let (roll, table) = (rolls(), &self.slots[at]);
        let first_bin = (roll >> 32) as usize % table.bins_count();
        let bins = (first_bin..table.bins_count()).chain(0..first_bin);
        let mut bins = bins.map(|bin| table.bin(bin)).filter(|(blocks, may_expire)| {
            !blocks.is_empty()
                && (*may_expire || !self.is_volatile || blocks.iter().any(Block::is_negative))
        });
        bins.find_map(|(blocks, _)| {
            let first = (roll & 0xffff_ffff) as usize % blocks.len();
            let mut turn = blocks[first..].iter().chain(&blocks[..first]);
            let may_go = |block: &&Block| {
                !self.is_volatile || block.is_negative() || block.deadline().is_some()
            };
            turn.find(may_go)
        })
        .map(|block| (at, block))
    }
}

/// The best candidates met so far.
struct Pool<'s> {
    slots: &'s [SlotTable],
    policy: Policy,
    now: UnixMillis,
    /// The best last.
    candidates: Vec<(u64, usize, &'s Block)>,
    /// Blocks that are candidates or victims, by address.
    taken: BTreeSet<usize>,
}

impl<'s> Pool<'s> {
    fn offer(&mut self, at: usize, block: &'s Block) {
        if !self.taken.insert(block.address()) {
            return;
        }
        let score = self.policy.score(&self.slots[at], block, self.now);
        let place = self.candidates.partition_point(|&(other, ..)| other <= score);
        self.candidates.insert(place, (score, at, block));
        if self.candidates.len() > POOL_MAX {
            let (_, _, worst) = self.candidates.remove(0);
            self.taken.remove(&worst.address());
        }
    }

    fn take(&mut self) -> Option<(usize, &'s Block)> {
        self.candidates.pop().map(|(_, at, block)| (at, block))
    }
}
