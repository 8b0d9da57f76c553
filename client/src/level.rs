//! Levels: where values lie. A [`ClusterLevel`] is shared by all processes and decides what is true; a [`NearLevel`]
//! keeps copies in this process. A cache has either of them, or both.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
pub use scatterhoard_near::{Mark, Moment};
use tokio::sync::broadcast;

use crate::Error;

mod config;
pub mod hoard;
pub mod near;
mod pulse;
pub mod redis;
#[cfg(feature = "suite")]
pub mod suite;
mod waiters;
mod watch;

pub use config::LevelConfig;
pub use hoard::HoardLevel;
pub use near::{Cached, Held, Kept, Near, NearLevel};
pub use redis::RedisLevel;

/// What several processes share: a cluster of ours, any server that speaks Redis' protocol, or your own.
///
/// **What an implementation promises.** Reads and writes of one key are linearizable, as far as the store behind it
/// makes them so. A token fills once, and not after any change of its key that began after it was given. A [`Mark`]
/// is given only if the copy's end is noticed: [`Self::may_serve`] never lets a copy through that is older than the
/// bound.
///
/// None of its methods hangs: each has a deadline, after which it fails.
pub trait ClusterLevel: Send + Sync + 'static {
    /// What is there for a key. With [`Ask::Lease`], a cache that is tired of waiting does not drop the future, but
    /// lets it end by itself, and gives back what it brings.
    ///
    /// # Errors
    /// See [`Error`]. With [`Error::InDoubt`] there may be a lease that nobody knows of; it ends by itself.
    fn look<'a>(&'a self, key: &'a [u8], ask: Ask) -> BoxFuture<'a, Result<Look, Error>>;

    /// The same for several keys, in their order: one request to each node that leads some of them.
    fn look_many<'a>(
        &'a self,
        keys: &'a [Bytes],
        ask: Ask,
    ) -> BoxFuture<'a, Vec<Result<Look, Error>>>;

    /// Waits until nobody loads the key any more, at most for so long. Says nothing of what came of it.
    ///
    /// # Errors
    /// See [`Error`].
    fn wait<'a>(&'a self, key: &'a [u8], at_most: Duration) -> BoxFuture<'a, Result<(), Error>>;

    /// Stores what was loaded. Answers with whether the token was live.
    ///
    /// # Errors
    /// See [`Error`].
    fn fill<'a>(
        &'a self,
        key: &'a [u8],
        token: Token,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Gives the right to load back: the load failed. Answers with whether the token was live.
    ///
    /// # Errors
    /// See [`Error`].
    fn release<'a>(&'a self, key: &'a [u8], token: Token) -> BoxFuture<'a, Result<bool, Error>>;

    /// Sets a key, and makes its token void. Answers with whether the condition held.
    ///
    /// # Errors
    /// See [`Error`].
    fn set<'a>(
        &'a self,
        key: &'a [u8],
        entry: &'a Entry,
        when: &'a When,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Sets several keys, each for itself; outcomes are in their order. One request to each node.
    fn set_many<'a>(
        &'a self,
        entries: &'a [(Bytes, Entry)],
    ) -> BoxFuture<'a, Vec<Result<(), Error>>>;

    /// Removes a key, and makes its token void, also if the key is not there. Answers with whether it was.
    ///
    /// # Errors
    /// See [`Error`].
    fn remove<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool, Error>>;

    /// Makes all entries stale that carry one of these tags and were written before.
    ///
    /// # Errors
    /// See [`Error`]. Some entries may have become stale; it does no harm to ask again.
    fn invalidate_tags<'a>(&'a self, tags: &'a [Bytes]) -> BoxFuture<'a, Result<(), Error>>;

    /// Whether a copy with this mark may be served at this moment. Asked after the copy was found.
    fn may_serve(&self, mark: &Mark, now: Moment) -> bool;

    /// Whether a copy with this mark will never be served again.
    fn is_dead(&self, mark: &Mark, now: Moment) -> bool;

    /// What is told of changes from now on, for whoever keeps something that is made of several keys.
    fn changes(&self) -> broadcast::Receiver<Change>;
}

/// The longest lease, which our nodes give.
const LEASE_MAX: Duration = Duration::from_secs(600);

/// What is asked for besides the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: a look.
    Peek,
    /// On a miss, the right to load, unless another has it.
    Lease {
        /// How long a load may take before another may try. At most ten minutes; longer is taken for that.
        lasts: Duration,
        /// Whether a value past its soft deadline will do, for whoever cannot load it.
        stale: bool,
    },
}

/// What was found, and whether a copy of it may be kept.
#[derive(Clone, Debug)]
pub struct Look {
    /// What was found.
    pub found: Found,
    /// What to store beside a copy; `None` if none may be kept.
    pub mark: Option<Mark>,
}

/// What there is for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, and nobody was asked to load.
    Absent,
    /// A value.
    Value(Stored),
    /// The source said that there is nothing.
    Negative {
        /// How long that counts; `None`: until it is removed.
        lives_for: Option<Duration>,
    },
    /// Nothing; whoever asked loads.
    Load(Lease),
    /// Nothing, and someone else loads.
    Wait {
        /// For so long at most.
        at_most: Duration,
    },
}

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes, as they were set.
    pub bytes: Bytes,
    /// How long it need not be loaded; `None`: as long as it lives. Zero: past its soft deadline.
    pub fresh_for: Option<Duration>,
    /// How long it lives; `None`: until it is removed.
    pub lives_for: Option<Duration>,
    /// The right to load it anew, past its soft deadline.
    pub refresh: Option<Lease>,
}

/// The right to fill a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What proves it.
    pub token: Token,
    /// How long it lasts.
    pub lasts: Duration,
}

/// What proves the right to fill a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What is stored for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A value, or that there is none.
    pub content: Content,
    /// From when on it should be loaded anew; `None`: never.
    pub soft: Option<Duration>,
    /// When it is gone; `None`: never. Milliseconds count.
    pub hard: Option<Duration>,
    /// What it can be invalidated by.
    pub tags: Vec<Bytes>,
}

/// A value, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Value(Bytes),
    /// The source said that there is nothing.
    Negative,
}

/// When a key is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// In any case.
    #[default]
    Always,
    /// If there is no value; what the source does not have counts as none.
    Absent,
    /// If there is a value.
    Present,
    /// If it has exactly these bytes.
    Equal(Bytes),
}

/// What somebody changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This key: written, removed, evicted, expired, or made stale by a tag.
    Key(Bytes),
    /// Any key may have changed: something may have been lost.
    Everything,
}
