//! How a cache is put together.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::breaker::{Breaker, BreakerSettings};
use super::chance::Chance;
use super::error::BuildError;
use super::event::Events;
use super::flight::Flights;
use super::key::Prefix;
use super::late::LateLooks;
use super::levels::{Levels, Shared, Weigh};
use super::pauses::Pauses;
use super::refresh::Refreshes;
use super::settings::Settings;
use super::tagged::Tagged;
use super::underway::Underway;
use super::{Cache, Key};
use crate::codec::Format;
use crate::level::near::{Fronted, Holds, Moka};
use crate::level::{ClusterLevel, NearLevel};
use crate::stats::{Stats, StatsHandler};

/// The part of the near level's bytes that each thread may have in front of it.
const FRONT_PART: u64 = 64;

/// Builds a [`Cache`]. Only the levels have to be set, or one of them.
///
/// ```
/// use std::time::Duration;
/// use scatterhoard_client::cache::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scatterhoard_client::cache::BuildError> {
/// let prices = Cache::<(u32, String), f64>::builder("price")
///     .near_bytes(1 << 20)
///     .ttl(Duration::from_secs(300))
///     .soft_ttl(Duration::from_secs(30))
///     .timeout_hard(Duration::from_secs(2))
///     .build()?;
/// # let _ = prices;
/// # Ok(())
/// # }
/// ```
pub struct Builder<K: Key, V> {
    name: String,
    prefix: Option<String>,
    separator: char,
    near: Option<Arc<dyn NearLevel<K, V>>>,
    cluster: Option<Shared<V>>,
    weigh: Option<Weigh<K, V>>,
    settings: Settings,
    seed: Option<u64>,
    counted: bool,
    handlers: Vec<Arc<dyn StatsHandler>>,
    key: PhantomData<K>,
}

impl<K: Key, V: Send + Sync + 'static> Builder<K, V> {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            prefix: None,
            separator: ':',
            near: None,
            cluster: None,
            weigh: None,
            settings: Settings::default(),
            seed: None,
            counted: true,
            handlers: Vec::new(),
            key: PhantomData,
        }
    }

    /// Where copies are kept in this process; without a cluster level, the only place. A level is for one cache.
    #[must_use]
    pub fn near(mut self, level: Arc<dyn NearLevel<K, V>>) -> Self {
        self.near = Some(level);
        self
    }

    /// Copies of so many bytes in all in this process, by [`Self::weigh`]: moka, with the hottest copies in front of each
    /// thread.
    #[must_use]
    pub fn near_bytes(self, bytes_max: u64) -> Self {
        let shared = Moka::with_bytes_max(bytes_max);
        self.near(Arc::new(Fronted::new(shared, bytes_max / FRONT_PART)))
    }

    /// What is shared with other processes; values are stored as by default, see [`Format`].
    #[must_use]
    pub fn cluster(self, level: Arc<dyn ClusterLevel>) -> Self
    where
        V: Serialize + DeserializeOwned,
    {
        self.cluster_with(level, Format::default())
    }

    /// The same, and how values are stored: codec, compression, the longest one.
    #[must_use]
    pub fn cluster_with(mut self, level: Arc<dyn ClusterLevel>, format: Format<V>) -> Self {
        self.cluster = Some(Shared { level, format });
        self
    }

    /// What keys begin with in the cluster level. The cache's name.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// What lies between prefix and key. `:`.
    #[must_use]
    pub fn separator(mut self, separator: char) -> Self {
        self.separator = separator;
        self
    }

    /// How many bytes a near copy takes. As many as it has in the cluster level; without one, as its type has on the
    /// stack.
    #[must_use]
    pub fn weigh(mut self, weigh: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Self {
        self.weigh = Some(Arc::new(weigh));
        self
    }

    /// How long a value lives. As given, to the millisecond in a cluster level. 10 minutes.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Values live until they are removed.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.settings.ttl = None;
        self
    }

    /// The part of each time to live that chance may take off, so that what was stored together does not expire
    /// together. From 0 to 1; 0.1.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.settings.jitter = part;
        self
    }

    /// From when on a value is loaded anew by whoever reads it, while it is served as it is. Never.
    #[must_use]
    pub fn soft_ttl(mut self, soft_ttl: Duration) -> Self {
        self.settings.soft_ttl = Some(soft_ttl);
        self
    }

    /// How long it counts that the source has nothing, less up to a tenth, and no less than 10 s less. 1 minute.
    #[must_use]
    pub fn not_found_ttl(mut self, ttl: Duration) -> Self {
        self.settings.not_found_ttl = ttl;
        self
    }

    /// How long a load holds up other processes at most, if its own dies. As long as a loader may take, and 2 s.
    #[must_use]
    pub fn lease(mut self, lasts: Duration) -> Self {
        self.settings.lease = Some(lasts);
        self
    }

    /// How long a caller waits for a fresh value where there is a stale one. 0: he gets the stale one at once.
    #[must_use]
    pub fn timeout_soft(mut self, timeout: Duration) -> Self {
        self.settings.timeout_soft = timeout;
        self
    }

    /// After how long a loader is aborted. 10 s.
    #[must_use]
    pub fn timeout_hard(mut self, timeout: Duration) -> Self {
        self.settings.timeout_hard = timeout;
        self
    }

    /// How long the cluster level may take to say what there is, before the source is asked. 1 s. A look
    /// that takes longer goes on behind the scenes, to give back the right to load if it was given one.
    #[must_use]
    pub fn look_timeout(mut self, timeout: Duration) -> Self {
        self.settings.look_timeout = timeout;
        self
    }

    /// When the cluster level, and the source while there is no cluster level, are left alone after failures. 5 in a
    /// row, for 1 s.
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerSettings) -> Self {
        self.settings.breaker = breaker;
        self
    }

    /// How many loads may run at once while the cluster level cannot be asked. 16.
    #[must_use]
    pub fn degraded_loads_max(mut self, count: usize) -> Self {
        self.settings.degraded_loads_max = count;
        self
    }

    /// How many registered keys are refreshed at once. 4.
    #[must_use]
    pub fn refreshes_max(mut self, count: usize) -> Self {
        self.settings.refreshes_max = count;
        self
    }

    /// How many events are kept for a listener that is slow. 1,024.
    #[must_use]
    pub fn events_max(mut self, count: usize) -> Self {
        self.settings.events_max = count;
        self
    }

    /// Who is told of its statistics each so often. [`crate::stats::Table`] and [`crate::stats::Metrics`] are there.
    /// The cache has to be built inside a runtime then.
    #[must_use]
    pub fn report_to(mut self, handler: impl StatsHandler) -> Self {
        self.handlers.push(Arc::new(handler));
        self
    }

    /// Nothing is counted.
    #[must_use]
    pub fn stats_off(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Where the chance begins by which times are jittered, for tests that are to run again as they did.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<Cache<K, V>, BuildError> {
        if self.near.is_none() && self.cluster.is_none() {
            return Err(BuildError::NoLevel);
        }
        if let Some(flaw) = self.settings.flaw() {
            return Err(BuildError::Setting(flaw));
        }
        let prefix = self.prefix.unwrap_or_else(|| self.name.clone());
        let Some(parsed) = Prefix::parse(&prefix, self.separator) else {
            return Err(BuildError::Prefix(prefix));
        };
        let settings = self.settings;
        let refreshes = Refreshes::new(settings.refreshes_max);
        let events = Events::new(settings.events_max);
        if let Some(near) = &self.near {
            near.tell_evictions(events.evictions());
        }
        let stats = if self.counted { Stats::of(self.name.as_str()) } else { Stats::off() };
        let levels = Levels {
            name: self.name,
            stats: Arc::new(stats),
            near: self.near,
            cluster: self.cluster,
            underway: Underway::new(),
            pauses: Pauses::new(),
            tagged: Tagged::new(),
            late: LateLooks::new(),
            prefix: parsed,
            weigh: self.weigh,
            chance: self.seed.map_or_else(Chance::new, Chance::seeded),
            breaker: Breaker::new(settings.breaker),
            events,
            settings,
        };
        for handler in self.handlers {
            let (stats, near) = (Arc::clone(&levels.stats), levels.near.clone());
            let holds = move || near.as_ref().map_or_else(Holds::default, |near| near.holds());
            let ended = refreshes.ended.clone();
            tokio::spawn(async move {
                let reports = stats.report_to(&*handler, &holds);
                let _until_the_cache_is_gone = ended.run_until_cancelled(reports).await;
            });
        }
        Ok(Cache { flights: Flights::new(levels), refreshes })
    }
}

impl<K: Key, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
