//! What a person sees while a campaign runs: one line that changes, or a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line changes on a terminal, and how often there is another elsewhere.
const BLINK: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(5);

/// How a campaign goes.
pub(super) struct Glance {
    /// Since its beginning.
    pub(super) elapsed: Duration,
    /// How long faults happen.
    pub(super) length: Duration,
    /// Operations answered since the beginning.
    pub(super) done: u64,
    /// The longest that any partition has gone without a write.
    pub(super) silence: Duration,
    /// The faults under way.
    pub(super) faults: Vec<String>,
}

/// Shows glances.
pub(super) struct Progress {
    terminal: bool,
    last: Instant,
    last_done: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, last: Instant::now(), last_done: 0 }
    }

    /// Shows how it goes, if the last time is long enough ago.
    pub(super) fn show(&mut self, glance: impl FnOnce() -> Glance) {
        let since = self.last.elapsed();
        if since < if self.terminal { BLINK } else { LINE } {
            return;
        }
        let glance = glance();
        let rate = (glance.done - self.last_done) as f64 / since.as_secs_f64();
        let line = format!(
            "{} of {}  {rate:5.0} operations/s  longest outage {:.1} s  {}",
            clock(glance.elapsed),
            clock(glance.length),
            glance.silence.as_secs_f64(),
            if glance.faults.is_empty() { "-".to_owned() } else { glance.faults.join("; ") },
        );
        if self.terminal {
            // Back to the beginning, and what was there before is cleared.
            print(&format!("\r\x1b[K{line:.160}"));
        } else {
            print(&format!("{line}\n"));
        }
        (self.last, self.last_done) = (Instant::now(), glance.done);
    }

    /// Leaves the line that changes.
    pub(super) fn end(&self) {
        if self.terminal {
            print("\n");
        }
    }
}

/// Says something on a line of its own.
pub(super) fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Nobody has to read it: a closed pipe is no reason to fail.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
