//! What came of a run: how many, how fast, what went wrong. Printed as one JSON object.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Slower is recorded as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Counts while a run goes on.
#[derive(Debug)]
pub struct Tally {
    latency_ns: Histogram<u64>,
    requests: u64,
    misses: u64,
    moved: u64,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing counted.
    #[must_use]
    pub fn new() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("three digits and these bounds are within what the histogram can do");
        Self { latency_ns, requests: 0, misses: 0, moved: 0, errors: BTreeMap::new() }
    }

    /// So many requests were answered after this time.
    pub fn answered(&mut self, count: u64, after: Duration) {
        let ns = u64::try_from(after.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.latency_ns.saturating_record_n(ns.clamp(1, LATENCY_NS_MAX), count);
        self.requests += count;
    }

    /// A read found nothing. It is answered all the same.
    pub fn missed(&mut self) {
        self.misses += 1;
    }

    /// A request was sent on to another node.
    pub fn moved(&mut self) {
        self.moved += 1;
    }

    /// A request was refused. Counted by the first word.
    pub fn refused(&mut self, error: &str) {
        let word = error.split_ascii_whitespace().next().unwrap_or("EMPTY");
        match self.errors.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(word.to_owned(), 1)),
        }
    }

    /// The end: everything took so long, and so much CPU of ours.
    #[must_use]
    pub fn close(&self, elapsed: Duration, cpu: Duration) -> Outcome {
        let us = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Outcome {
            requests: self.requests,
            seconds: elapsed.as_secs_f64(),
            requests_per_second: self.requests as f64 / elapsed.as_secs_f64().max(1e-9),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.latency_ns.max() as f64 / 1e3,
            misses: self.misses,
            moved: self.moved,
            errors: self.errors.clone(),
            generator_cpu_seconds: cpu.as_secs_f64(),
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// What `hoard-load` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests that were answered, with errors. `SET` + `WAIT` is one.
    pub requests: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests over seconds.
    pub requests_per_second: f64,
    /// Half of the requests were answered within, from when their batch was sent.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Requests that a node sent on to another one. They count once, when answered there.
    pub moved: u64,
    /// Refusals, by their first word.
    pub errors: BTreeMap<String, u64>,
    /// What the load generator itself used.
    pub generator_cpu_seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_summed_up() {
        let mut tally = Tally::new();
        tally.answered(98, Duration::from_micros(100));
        tally.answered(2, Duration::from_micros(900));
        tally.refused("OOM command not allowed");
        tally.refused("OOM again");
        let outcome = tally.close(Duration::from_millis(500), Duration::from_millis(20));
        assert_eq!(outcome.requests, 100);
        assert_eq!(outcome.requests_per_second, 200.0);
        assert!((99.0..101.0).contains(&outcome.p50_us), "{outcome:?}");
        assert!((899.0..901.0).contains(&outcome.p99_us), "{outcome:?}");
        assert_eq!(outcome.errors["OOM"], 2);
    }
}
