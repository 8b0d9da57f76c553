//! Copies in this process.
//!
//! A [`NearLevel`] keeps them; [`Near`] reads it, and shows what may be served. [`Moka`] and [`Quick`] keep copies
//! that all threads share, [`Fronted`] puts the hottest of them before each thread. Medians of short runs on one
//! thread, of a hit on one hot key with its proof of freshness, on a machine where a bare `get` of moka took 135 ns
//! and a look at the clock 30 (`benches/near.rs` has them for yours, and how many of Zipf's reads are hits):
//!
//! | level | a hit | allocates |
//! |---|---|---|
//! | [`Moka`] | 177 ns | as moka does: about once in 125 hits |
//! | [`Quick`] | 75 ns | never |
//! | [`Fronted`] [`Moka`] | 67 ns | seldom |
//! | [`Fronted`] [`Quick`] | 64 ns | never |

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_near::{Mark, Moment};

mod front;
mod held;
mod moka;
mod quick;
mod reader;
pub mod suite;

pub use front::Fronted;
pub use held::{Cached, Handle, Held};
pub use moka::Moka;
pub use quick::Quick;
pub use reader::{Judgement, Near, Sight};

/// Keeps copies of values, decoded, up to a number of bytes. Any thread may use it at any time.
///
/// It need not know when copies end: whoever reads one asks whether it may be served. It should throw away the ones
/// that are least worth keeping when it is full.
pub trait NearLevel<K, V>: Send + Sync + 'static {
    /// The copy of a key. Counts as a use of it.
    fn look(&self, key: &K) -> Option<Held<V>>;

    /// Keeps a copy, in place of the one before.
    fn keep(&self, key: K, copy: Arc<Kept<V>>);

    /// Drops the copy of a key.
    fn remove(&self, key: &K);

    /// Drops the copy of a key if it is this one: another may have come in the meantime.
    fn remove_this(&self, key: &K, copy: &Arc<Kept<V>>);

    /// Drops all copies.
    fn clear(&self);

    /// How much it holds. Copies that were dropped a moment ago may still be counted.
    fn holds(&self) -> Holds;

    /// Who wants to be told of each copy that is thrown away from now on because the level is full; asked for once. A
    /// level that cannot tell takes no note, as here.
    fn tell_evictions(&self, tell: Evicted<K>) {
        drop(tell);
    }
}

/// Who is told whose copy was thrown away. It must not come back to the level: that may hold locks.
pub type Evicted<K> = Box<dyn Fn(&K) + Send + Sync>;

/// How much a near level holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Copies.
    pub count: u64,
    /// The sum of their weights, in bytes.
    pub bytes: u64,
    /// Copies thrown away because it was full, ever.
    pub evicted_count: u64,
}

/// A copy of what a key has.
#[derive(Clone, Debug)]
pub struct Kept<V> {
    /// The value; `None`: the source said that there is nothing.
    pub value: Option<V>,
    /// About how many bytes it takes, key included.
    pub weight: u32,
    /// From when on it should be loaded anew.
    pub soft: Moment,
    /// Until when it may be served.
    pub valid: Valid,
}

/// Until when a copy may be served.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    /// As long as this moment has not come: nobody else writes what this process keeps.
    Until(Moment),
    /// As long as the cluster level says so of this mark.
    Marked(Mark),
}

impl Valid {
    /// When the time to live ends, whatever happens before.
    #[must_use]
    pub fn expires(&self) -> Moment {
        match self {
            Self::Until(moment) => *moment,
            Self::Marked(mark) => mark.expires(),
        }
    }
}

/// The moment after so long from another one; [`Moment::NEVER`] for ever.
#[must_use]
pub fn moment_after(now: Moment, time: Option<Duration>) -> Moment {
    time.map_or(Moment::NEVER, |time| now.after(time))
}
