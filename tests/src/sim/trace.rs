//! What happened in a simulation, line by line, for people and to compare runs.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Dispatch;
use tracing::dispatcher::DefaultGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::chance;

/// Bytes of a trace that are kept; beyond that only the beginning is.
const BYTES_MAX: usize = 512 << 20;

/// Collects this thread's events for as long as it lives.
pub struct Trace {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// Collects events that pass the filter, for example `turmoil=trace,scatterhoard_node=info`.
    ///
    /// # Panics
    /// If the filter cannot be understood.
    #[must_use]
    pub fn start(filter: &str) -> Self {
        let lines = Lines::default();
        let filter = filter.to_owned();
        let writer = lines.clone();
        // Made on another thread: here it would draw chance that is the simulation's, and a run that is
        // looked at would be another one.
        let dispatch = chance::elsewhere(move || {
            let filter = EnvFilter::try_new(filter).expect("a filter in tracing's syntax");
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(false)
                .with_timer(Elapsed)
                .with_writer(writer)
                .finish();
            Dispatch::new(subscriber)
        });
        Self { lines, _guard: tracing::dispatcher::set_default(&dispatch) }
    }

    /// What was collected so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.0.lock()).into_owned()
    }
}

/// Simulated time, in seconds.
struct Elapsed;

impl tracing_subscriber::fmt::time::FormatTime for Elapsed {
    fn format_time(
        &self,
        out: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        write!(out, "{:9.3}", super::clock::elapsed().as_secs_f64())
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock();
        if lines.len() < BYTES_MAX {
            lines.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
