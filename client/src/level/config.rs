//! What a cluster level may be told.

use std::time::Duration;

use crate::Config;

/// How a cluster level behaves. Every field may be set; [`LevelConfig::new`] has what suits most.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LevelConfig {
    /// How it connects.
    pub connections: Config,
    /// How old a copy may be that is served, whatever is lost on the way. While copies are in use, each node is asked
    /// four times as often, so shorter costs more; it should be some times as long as a request takes. From 4 ms to
    /// an hour; 200 ms.
    pub bound: Duration,
}

impl LevelConfig {
    /// Settings for what has nodes at these addresses, each `host:port`.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::over(Config::new(addresses))
    }

    /// Settings for what is connected to so.
    #[must_use]
    pub fn over(connections: Config) -> Self {
        Self { connections, bound: Duration::from_millis(200) }
    }

    /// Copies may be so old.
    #[must_use]
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    pub(super) fn bound_within_limits(&self) -> Duration {
        self.bound.clamp(BOUND_MIN, BOUND_MAX)
    }
}

/// Below this, nothing would ever be served.
const BOUND_MIN: Duration = Duration::from_millis(4);

/// Above this, copies have a time to live rather than a bound.
const BOUND_MAX: Duration = Duration::from_secs(60 * 60);
