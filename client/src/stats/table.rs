//! Statistics for people.

use std::fmt;
use std::time::Duration;

use tracing::info;

use super::{Reads, Report, StatsHandler};

/// Writes a table each minute, as an event of `tracing` at the level of information:
///
/// ```text
/// cache             |      qpm | hit_ratio |      hit |     miss |    query | query_fail
/// article           |    60000 |    99.50% |    59700 |      300 |      300 |          0
/// article (near)    |    60000 |    98.00% |    58800 |     1200 |        - |          -
/// article (cluster) |     1200 |    75.00% |      900 |      300 |        - |          -
/// ```
///
/// `qpm` are reads a minute, `query` are loads from the source and `query_fail` those that failed. A level that
/// nobody asked has no line.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    period: Duration,
}

impl Table {
    /// Each so often.
    #[must_use]
    pub const fn each(period: Duration) -> Self {
        Self { period }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::each(Duration::from_secs(60))
    }
}

impl StatsHandler for Table {
    fn period(&self) -> Duration {
        self.period
    }

    fn report(&self, report: &Report<'_>) {
        let Report { cache, near, .. } = report;
        info!(
            cache,
            near_count = near.count,
            near_bytes = near.bytes,
            evictions = report.recent.evictions,
            "reads were counted\n{}",
            Lines(report)
        );
    }
}

struct Lines<'a>(&'a Report<'a>);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { cache, recent, period, .. } = self.0;
        let names = [(*cache).to_owned(), format!("{cache} (near)"), format!("{cache} (cluster)")];
        let width = names[2].len();
        write!(f, "{:width$} | {:>8} | {:>9} | {:>8} | ", "cache", "qpm", "hit_ratio", "hit")?;
        write!(f, "{:>8} | {:>8} | {:>10}", "miss", "query", "query_fail")?;
        let loads = Some((recent.loads, recent.load_failures));
        let rows = [(recent.total(), loads), (recent.near, None), (recent.cluster, None)];
        for (name, (reads, loads)) in names.iter().zip(rows) {
            if loads.is_some() || reads.count() > 0 {
                write!(f, "\n{name:width$} | {}", Row { reads, loads, period: *period })?;
            }
        }
        Ok(())
    }
}

struct Row {
    reads: Reads,
    loads: Option<(u64, u64)>,
    period: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, loads, period } = self;
        let per_minute = reads.count() as f64 * 60.0 / period.as_secs_f64();
        let ratio = reads.hit_ratio().map_or("-".to_owned(), |it| format!("{:.2}%", it * 100.0));
        write!(f, "{per_minute:8.0} | {ratio:>9} | {:8} | {:8} | ", reads.hits, reads.misses)?;
        match loads {
            Some((loads, failures)) => write!(f, "{loads:8} | {failures:10}"),
            None => write!(f, "{:>8} | {:>10}", "-", "-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::near::Holds;
    use crate::stats::Counts;

    #[test]
    fn a_table_has_a_line_for_each_level_that_was_asked() {
        let near = Reads { hits: 29_400, misses: 600 };
        let cluster = Reads { hits: 450, misses: 150 };
        let recent = Counts { near, cluster, misses: 150, loads: 150, ..Counts::default() };
        let (period, near) = (Duration::from_secs(30), Holds::default());
        let mut report = Report { cache: "article", recent, period, ever: recent, near };
        let lines = "\
cache             |      qpm | hit_ratio |      hit |     miss |    query | query_fail
article           |    60000 |    99.50% |    29850 |      150 |      150 |          0
article (near)    |    60000 |    98.00% |    29400 |      600 |        - |          -
article (cluster) |     1200 |    75.00% |      450 |      150 |        - |          -";
        assert_eq!(Lines(&report).to_string(), lines);

        report.recent = Counts::default();
        let lines = "\
cache             |      qpm | hit_ratio |      hit |     miss |    query | query_fail
article           |        0 |         - |        0 |        0 |        0 |          0";
        assert_eq!(Lines(&report).to_string(), lines);
    }
}
