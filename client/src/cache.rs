//! A [`Cache`]: typed keys and values over a near level, a cluster level, or both; it loads what is missing.
//!
//! ```
//! use std::time::Duration;
//! use scatterhoard_client::cache::{Cache, Load};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let squares = Cache::<u64, u64>::builder("square")
//!     .near_bytes(1 << 20)
//!     .ttl(Duration::from_secs(60))
//!     .build()?;
//!
//! // Loaded once, however many ask at the same time; then it is there.
//! let square = squares.get_or_load(&12, Load::new(), || async { Ok::<_, String>(Some(144)) }).await?;
//! assert_eq!(square.as_deref(), Some(&144));
//! assert_eq!(squares.get(&12).await?.as_deref(), Some(&144));
//!
//! squares.remove(&12).await?;
//! assert_eq!(squares.get(&12).await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! **A read that began after a write was acknowledged never yields what was there before it**, whether the write was
//! [`Cache::set`], [`Cache::remove`], or one to the source by way of [`Sourced`], in whichever process, and
//! however loads, other writes and failures lie in between. From a near level over a cluster level it may come as
//! much later as the level's bound says; who wrote it sees it at once, since a write ends this process's own copy.
//!
//! Why it holds, for a key over a cluster level, where W is a write that was acknowledged, and R a read after it:
//! - *R finds a value in the cluster level.* Its look was sent after R began, or R waits for the next one (see
//!   below), and looks and writes are linearizable. So it is of W, or of a later write, or of a fill whose token
//!   was live, given after W: W had made all older ones void. The loader of that fill was started after the
//!   token was given, so after W, and after what W stands for was written to the source.
//! - *R loads.* Its own loader starts after R began. A loader of another's that R waits for has either started
//!   after R came, or its fill was accepted, and R had come before that fill was sent: then no write of the key
//!   lies between token and fill, so W came before the token, and the loader read what W had written.
//! - *R finds a near copy.* Its mark says that no change of the key was told since the look that brought it was
//!   sent, and that everything has been told which was acknowledged before the bound. A copy that is to be kept
//!   while this process writes the key itself is not kept.
//! - *Loads and writes to the source.* [`Sourced`] writes to the source first, then removes the key. A load whose
//!   token was given before the removal is void, whatever it had read; one whose token was given after it starts
//!   after the source was written. There is nothing in between.
//! - *The outcome of W is in doubt.* Then it was not acknowledged: R may see either, and W's caller is told.
//!
//! Without a cluster level the same holds inside the process: a change of a key ends what was being loaded for it
//! under the lock under which copies are kept.
//!
//! **Loads**: one at a time for each key in this process, and with a cluster level in all of them. A loader that
//! panics, fails or takes too long harms nobody but those who waited for it. See [`Cache::get_or_load`].
//!
//! **When the cluster level cannot be asked**, nothing hangs: each look has a timeout, and after some that failed in
//! a row it is not asked for a while. Meanwhile `get_or_load` goes to the source, for each key once at a time, with
//! a limit to all of them and a circuit breaker of their own. What is loaded then is given to those who had asked
//! before, and kept nowhere, since nothing would say when it is over. Copies in the near level are served as long
//! as their proof lasts, which is their bound.

mod breaker;
mod builder;
mod chance;
mod error;
mod event;
mod flight;
mod key;
mod late;
mod levels;
mod many;
mod options;
mod pauses;
mod read;
mod refresh;
mod settings;
mod source;
mod tagged;
mod underway;
mod write;

use std::fmt;
use std::sync::Arc;

pub use crate::level::Cached;
pub use breaker::BreakerSettings;
pub use builder::Builder;
pub use error::{BuildError, LoadError, Reason, SourceError, WriteError};
pub use event::{Event, Kind, Listener, SourceId};
pub use key::{Key, Shown};
pub use options::{Load, Put};
pub use refresh::Refresh;
pub use source::{AfterStore, DataSource, Sourced};

use crate::stats::Stats;
use flight::Flights;
use levels::Levels;
use refresh::Refreshes;

/// Values by key, in the levels that it was built with. Cheap to clone: all clones are one cache.
///
/// See the [module](self) for what it promises.
pub struct Cache<K: Key, V: Send + Sync + 'static> {
    flights: Arc<Flights<K, V>>,
    refreshes: Arc<Refreshes<K>>,
}

impl<K: Key, V: Send + Sync + 'static> Cache<K, V> {
    /// Begins to build one. Its name is in logs and statistics, and the prefix of its keys unless that is set.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> Builder<K, V> {
        Builder::new(name.into())
    }

    /// What it does, and what the cluster level tells of others, from now on. See [`Event`] for what comes and what
    /// does not.
    ///
    /// ```
    /// use scatterhoard_client::cache::{Cache, Event, Kind};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::<u64, String>::builder("name").near_bytes(1 << 20).build()?;
    /// let mut events = cache.events();
    /// cache.set(&7, "Ada".to_owned()).await?;
    /// let told = Event::Here { kind: Kind::Set, key: 7, source: cache.source_id() };
    /// assert_eq!(events.next().await, Some(told));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Listener<K> {
        let levels = self.levels();
        let changes = levels.cluster.as_ref().map(|shared| shared.level.changes());
        levels.events.listen(changes, levels.prefix.clone())
    }

    /// What became of its reads.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.levels().stats
    }

    /// What this cache's own events carry.
    #[must_use]
    pub fn source_id(&self) -> SourceId {
        self.levels().events.source
    }

    fn levels(&self) -> &Levels<K, V> {
        &self.flights.levels
    }
}

impl<K: Key, V: Send + Sync + 'static> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self { flights: Arc::clone(&self.flights), refreshes: Arc::clone(&self.refreshes) }
    }
}

impl<K: Key, V: Send + Sync + 'static> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.name()).finish_non_exhaustive()
    }
}
