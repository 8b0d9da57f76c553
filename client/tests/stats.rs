//! Statistics: what was counted is what handlers are told, each in its own time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use parking_lot::Mutex;
use scatterhoard_client::level::near::Holds;
use scatterhoard_client::stats::{Counts, Metrics, Reads, Report, Stats, StatsHandler};
use tokio::time::{sleep, timeout};

#[derive(Default)]
struct Told(Mutex<Vec<(Counts, Counts, Duration)>>);

impl StatsHandler for Told {
    fn report(&self, report: &Report<'_>) {
        assert_eq!(report.cache, "article");
        self.0.lock().push((report.recent, report.ever, report.period));
    }
}

#[test]
fn what_threads_count_adds_up_and_outlives_them() {
    let stats = Stats::of("article");
    for _ in 0..3 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        stats.hit_near();
                        stats.miss_near();
                        stats.hit_cluster();
                        stats.miss_cluster();
                        stats.miss();
                        stats.loaded();
                        stats.load_failed();
                    }
                });
            }
        });
    }
    let reads = Reads { hits: 12_000, misses: 12_000 };
    let counts = Counts {
        near: reads,
        cluster: reads,
        misses: 12_000,
        loads: 12_000,
        load_failures: 12_000,
        evictions: 0,
    };
    assert_eq!(stats.counts(), counts);
    assert_eq!(stats.counts().total(), Reads { hits: 24_000, misses: 12_000 });
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_told_each_minute_what_that_minute_brought() {
    let (stats, told) = (Stats::of("article"), Told::default());
    stats.hit_near();
    let evicted_count = Mutex::new(7);
    let near = || Holds { evicted_count: *evicted_count.lock(), ..Holds::default() };
    let minutes = async {
        for minute in 1..=2 {
            sleep(Duration::from_secs(30)).await;
            (0..minute).for_each(|_| stats.miss_near());
            *evicted_count.lock() += minute;
            sleep(Duration::from_secs(30)).await;
        }
        sleep(Duration::from_millis(1)).await;
    };
    tokio::select! {
        () = stats.report_to(&told, &near) => {}
        () = minutes => {}
    }
    let told = told.0.into_inner();
    let recent: Vec<_> = told.iter().map(|(recent, ..)| (recent.near, recent.evictions)).collect();
    let misses = |misses| Reads { hits: 0, misses };
    assert_eq!(recent, [(misses(1), 1), (misses(2), 2)]);
    assert_eq!(told[1].1.near, Reads { hits: 1, misses: 3 });
    assert_eq!(told[1].1.evictions, 10);
    assert!(told.iter().all(|(.., period)| period.as_secs() == 60), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_off_counts_nothing_and_tells_nobody() {
    let (stats, told) = (Stats::off(), Told::default());
    stats.hit_near();
    assert_eq!(stats.counts(), Counts::default());
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, stats.report_to(&told, &Holds::default)).await.is_err());
    assert!(told.0.lock().is_empty());
}

/// What a recorder was told last, by name and labels.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<(String, f64)>>>);

struct Cell(Recorded, String);

impl Cell {
    fn put(&self, value: f64) {
        self.0.0.lock().push((self.1.clone(), value));
    }
}

impl CounterFn for Cell {
    fn increment(&self, _: u64) {
        unreachable!("counters are set");
    }

    fn absolute(&self, value: u64) {
        self.put(value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.put(value);
    }
}

impl Recorded {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Cell(self.clone(), key.name().to_owned() + &labels.collect::<String>()))
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_gets_all_numbers() {
    let reads = |hits, misses| Reads { hits, misses };
    let ever = Counts {
        near: reads(1, 2),
        cluster: reads(3, 4),
        misses: 5,
        loads: 6,
        load_failures: 7,
        evictions: 8,
    };
    let near = Holds { count: 9, bytes: 10, evicted_count: 8 };
    let period = Duration::from_secs(5);
    let report = Report { cache: "article", recent: Counts::default(), period, ever, near };
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || Metrics::default().report(&report));
    let mut numbers = recorded.0.lock().clone();
    numbers.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("evictions_total cache=article", 8.0),
        ("hits_total cache=article level=cluster", 3.0),
        ("hits_total cache=article level=near", 1.0),
        ("hits_total cache=article level=total", 4.0),
        ("load_failures_total cache=article", 7.0),
        ("loads_total cache=article", 6.0),
        ("misses_total cache=article level=cluster", 4.0),
        ("misses_total cache=article level=near", 2.0),
        ("misses_total cache=article level=total", 5.0),
        ("near_bytes cache=article", 10.0),
        ("near_count cache=article", 9.0),
    ];
    let expected: Vec<_> =
        expected.map(|(name, value)| (format!("scatterhoard_cache_{name}"), value)).into();
    assert_eq!(numbers, expected);
}
