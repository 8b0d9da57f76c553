//! Statistics for machines.

use std::time::Duration;

use metrics::{counter, gauge};

use super::{Reads, Report, StatsHandler};

/// Hands the numbers to whatever recorder of the `metrics` crate is installed, such as one for Prometheus:
///
/// | name | labels | what |
/// |---|---|---|
/// | `scatterhoard_cache_hits_total`, `scatterhoard_cache_misses_total` | `cache`, `level`: `total`, `near`, `cluster` | reads |
/// | `scatterhoard_cache_loads_total`, `scatterhoard_cache_load_failures_total` | `cache` | loads from the source |
/// | `scatterhoard_cache_evictions_total` | `cache` | copies thrown away since the near level was full |
/// | `scatterhoard_cache_near_count`, `scatterhoard_cache_near_bytes` | `cache` | what the near level holds |
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    period: Duration,
}

impl Metrics {
    /// Each so often.
    #[must_use]
    pub const fn each(period: Duration) -> Self {
        Self { period }
    }
}

impl Default for Metrics {
    /// Every five seconds: more often than anyone scrapes.
    fn default() -> Self {
        Self::each(Duration::from_secs(5))
    }
}

impl StatsHandler for Metrics {
    fn period(&self) -> Duration {
        self.period
    }

    fn report(&self, report: &Report<'_>) {
        let Report { cache, ever, near, .. } = report;
        let cache = || (*cache).to_owned();
        let reads = |level: &'static str, reads: Reads| {
            counter!("scatterhoard_cache_hits_total", "cache" => cache(), "level" => level)
                .absolute(reads.hits);
            counter!("scatterhoard_cache_misses_total", "cache" => cache(), "level" => level)
                .absolute(reads.misses);
        };
        reads("total", ever.total());
        reads("near", ever.near);
        reads("cluster", ever.cluster);
        counter!("scatterhoard_cache_loads_total", "cache" => cache()).absolute(ever.loads);
        counter!("scatterhoard_cache_load_failures_total", "cache" => cache())
            .absolute(ever.load_failures);
        counter!("scatterhoard_cache_evictions_total", "cache" => cache()).absolute(ever.evictions);
        gauge!("scatterhoard_cache_near_count", "cache" => cache()).set(near.count as f64);
        gauge!("scatterhoard_cache_near_bytes", "cache" => cache()).set(near.bytes as f64);
    }
}
