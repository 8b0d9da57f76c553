//! What became of the reads of a cache: hits and misses of each level, loads, evictions, bytes.
//!
//! A cache counts into its [`Stats`]; [`StatsHandler`]s are told each so often what came to be: [`Table`] writes
//! a table through `tracing`, [`Metrics`] hands the numbers to the `metrics` crate, and yours may do anything else.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use scatterhoard_client::level::near::Holds;
//! use scatterhoard_client::stats::{Report, Stats, StatsHandler};
//!
//! /// Complains of bad ratios.
//! struct Complain;
//!
//! impl StatsHandler for Complain {
//!     fn period(&self) -> Duration {
//!         Duration::from_secs(10)
//!     }
//!
//!     fn report(&self, report: &Report<'_>) {
//!         if report.recent.total().hit_ratio().is_some_and(|ratio| ratio < 0.5) {
//!             eprintln!("{}: {:?}", report.cache, report.recent);
//!         }
//!     }
//! }
//!
//! let stats = Stats::of("article");
//! stats.hit_near();
//! stats.miss_near();
//! stats.miss();
//! stats.loaded();
//! let counts = stats.counts();
//! assert_eq!(counts.total().hit_ratio(), Some(0.5));
//! assert_eq!(counts.loads, 1);
//!
//! # async fn run(stats: Stats) {
//! // Goes on until it is dropped; a cache does this for each handler that it was given.
//! stats.report_to(&Complain, &Holds::default).await;
//! # }
//! ```
//!
//! To count is to write to memory of one's own thread: about 2 ns. [`Stats::off`] does not even do that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thread_local::ThreadLocal;
use tokio::time::{Instant, sleep_until};

use crate::level::near::Holds;

mod metrics;
mod table;

pub use metrics::Metrics;
pub use table::Table;

/// Counts what becomes of the reads of one cache.
pub struct Stats {
    cache: Arc<str>,
    counted: Option<ThreadLocal<Counted>>,
}

/// What one thread counted. Only that thread writes to it, so that it needs no more than to load and store;
/// and two threads' never share a line of a processor's cache.
#[derive(Default)]
#[repr(align(128))]
struct Counted {
    near_hits: AtomicU64,
    near_misses: AtomicU64,
    cluster_hits: AtomicU64,
    cluster_misses: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    load_failures: AtomicU64,
}

/// What came of the reads of a cache, since it was made or since the report before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads of the near level.
    pub near: Reads,
    /// Reads of the cluster level.
    pub cluster: Reads,
    /// Reads that no level could answer.
    pub misses: u64,
    /// Loads that were begun.
    pub loads: u64,
    /// Those of them that failed, by an error, a panic or their deadline.
    pub load_failures: u64,
    /// Copies that the near level threw away because it was full.
    pub evictions: u64,
}

/// What came of reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Answered.
    pub hits: u64,
    /// Not answered.
    pub misses: u64,
}

/// What a handler is told.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The name of the cache.
    pub cache: &'a str,
    /// Since the report before, or since the first was waited for.
    pub recent: Counts,
    /// How long that is.
    pub period: Duration,
    /// Since the cache was made.
    pub ever: Counts,
    /// What the near level holds.
    pub near: Holds,
}

/// Is told of the statistics of a cache each so often.
pub trait StatsHandler: Send + Sync + 'static {
    /// How long to wait between two reports. A minute, unless it says something else; less than 10 ms is taken for
    /// so much.
    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Takes a report. Should be quick: it is called on the runtime of the cache.
    fn report(&self, report: &Report<'_>);
}

const PERIOD_MIN: Duration = Duration::from_millis(10);

impl Stats {
    /// Of the cache with this name.
    #[must_use]
    pub fn of(cache: impl Into<Arc<str>>) -> Self {
        Self { cache: cache.into(), counted: Some(ThreadLocal::new()) }
    }

    /// That count nothing, and report to nobody.
    #[must_use]
    pub fn off() -> Self {
        Self { cache: "".into(), counted: None }
    }

    /// Whether anything is counted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.counted.is_some()
    }

    /// The near level answered a read.
    #[inline]
    pub fn hit_near(&self) {
        self.count(|counted| &counted.near_hits);
    }

    /// The near level could not answer a read.
    #[inline]
    pub fn miss_near(&self) {
        self.count(|counted| &counted.near_misses);
    }

    /// The cluster level answered a read.
    #[inline]
    pub fn hit_cluster(&self) {
        self.count(|counted| &counted.cluster_hits);
    }

    /// The cluster level could not answer a read.
    #[inline]
    pub fn miss_cluster(&self) {
        self.count(|counted| &counted.cluster_misses);
    }

    /// No level could answer a read.
    #[inline]
    pub fn miss(&self) {
        self.count(|counted| &counted.misses);
    }

    /// A load began.
    #[inline]
    pub fn loaded(&self) {
        self.count(|counted| &counted.loads);
    }

    /// A load failed, which was counted when it began.
    #[inline]
    pub fn load_failed(&self) {
        self.count(|counted| &counted.load_failures);
    }

    /// What was counted so far, but for evictions: the near level knows of those.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for counted in self.counted.iter().flat_map(ThreadLocal::iter) {
            counts.near.hits += counted.near_hits.load(Ordering::Relaxed);
            counts.near.misses += counted.near_misses.load(Ordering::Relaxed);
            counts.cluster.hits += counted.cluster_hits.load(Ordering::Relaxed);
            counts.cluster.misses += counted.cluster_misses.load(Ordering::Relaxed);
            counts.misses += counted.misses.load(Ordering::Relaxed);
            counts.loads += counted.loads.load(Ordering::Relaxed);
            counts.load_failures += counted.load_failures.load(Ordering::Relaxed);
        }
        counts
    }

    /// Reports to a handler each [period](StatsHandler::period), until it is dropped. `near` tells what the near level
    /// holds. Does nothing, and does not end, if nothing is counted.
    pub async fn report_to(&self, handler: &dyn StatsHandler, near: &(dyn Fn() -> Holds + Sync)) {
        if !self.is_on() {
            return std::future::pending().await;
        }
        let mut last = Instant::now();
        let mut before = self.with(near());
        loop {
            sleep_until(last + handler.period().max(PERIOD_MIN)).await;
            let (now, near) = (Instant::now(), near());
            let ever = self.with(near);
            let (recent, period) = (ever.since(&before), now - last);
            handler.report(&Report { cache: &self.cache, recent, period, ever, near });
            (last, before) = (now, ever);
        }
    }

    fn with(&self, near: Holds) -> Counts {
        Counts { evictions: near.evicted_count, ..self.counts() }
    }

    #[inline]
    fn count(&self, which: impl Fn(&Counted) -> &AtomicU64) {
        if let Some(counted) = &self.counted {
            let counter = which(counted.get_or_default());
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl Counts {
    /// Reads of the cache: answered by either level, or by none.
    #[must_use]
    pub fn total(&self) -> Reads {
        Reads { hits: self.near.hits + self.cluster.hits, misses: self.misses }
    }

    /// What came to these since those.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            near: self.near.since(before.near),
            cluster: self.cluster.since(before.cluster),
            misses: self.misses.saturating_sub(before.misses),
            loads: self.loads.saturating_sub(before.loads),
            load_failures: self.load_failures.saturating_sub(before.load_failures),
            evictions: self.evictions.saturating_sub(before.evictions),
        }
    }
}

impl Reads {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.hits + self.misses
    }

    /// The part of them that was answered, `[0, 1]`; `None` if there were none.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.hits as f64 / count as f64)
    }

    fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats")
            .field("cache", &self.cache)
            .field("is_on", &self.is_on())
            .field("counts", &self.counts())
            .finish()
    }
}
