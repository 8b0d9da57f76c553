//! Batches of commands that took long: `SLOWLOG`.
//!
//! A batch is timed as a whole, from when it was read to when its replies were ready; waiting for other
//! nodes counts. Only names of commands are kept: keys and values may be secrets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_store::UnixMillis;

#[derive(Default)]
pub(crate) struct SlowLog(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// The newest first.
    kept: VecDeque<SlowCommand>,
    next_id: u64,
}

/// A batch that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlowCommand {
    /// Ascending; given by the log.
    pub(crate) id: u64,
    pub(crate) at: UnixMillis,
    pub(crate) took: Duration,
    /// The names of its commands with how many of each there were, in the order of the first of each.
    pub(crate) commands: Vec<(&'static str, u64)>,
    pub(crate) addr: SocketAddr,
    pub(crate) client_name: String,
}

impl SlowLog {
    /// Keeps this entry, and forgets the oldest beyond `count_max`.
    pub(crate) fn add(&self, entry: SlowCommand, count_max: usize) {
        let mut entries = self.0.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.kept.push_front(SlowCommand { id, ..entry });
        entries.kept.truncate(count_max);
    }

    /// The newest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<SlowCommand> {
        self.0.lock().kept.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().kept.len()
    }

    /// Forgets all. Ids go on.
    pub(crate) fn reset(&self) {
        self.0.lock().kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &'static str) -> SlowCommand {
        SlowCommand {
            id: 0,
            at: UnixMillis::new(1),
            took: Duration::from_millis(20),
            commands: vec![(name, 1)],
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            client_name: String::new(),
        }
    }

    #[test]
    fn the_newest_are_kept_under_ids_that_go_on() {
        let log = SlowLog::default();
        for name in ["get", "set", "keys"] {
            log.add(entry(name), 2);
        }
        let ids: Vec<_> = log.newest(10).iter().map(|it| (it.id, it.commands[0].0)).collect();
        assert_eq!(ids, [(2, "keys"), (1, "set")]);
        assert_eq!(log.newest(1).len(), 1);
        log.reset();
        assert_eq!(log.len(), 0);
        log.add(entry("get"), 2);
        assert_eq!(log.newest(1)[0].id, 3);
    }
}
