//! Delays that were noticed: `LATENCY LATEST`, `HISTORY` and `RESET`. There is one event, `command`: a
//! batch of commands that took longer than `latency-monitor-threshold`.

use std::collections::VecDeque;

use parking_lot::Mutex;
use scatterhoard_store::UnixMillis;

/// Delays that are kept. Redis, `LATENCY_TS_LEN`.
const KEPT_COUNT_MAX: usize = 160;

#[derive(Default)]
pub(crate) struct Spikes(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The oldest first; at most one a second.
    spikes: VecDeque<Spike>,
    /// The longest since the last reset, in milliseconds.
    ms_max: u64,
}

/// The longest delay within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spike {
    /// Seconds since the Unix epoch.
    pub(crate) at_secs: u64,
    pub(crate) ms: u64,
}

impl Spikes {
    /// The one event that is watched.
    pub(crate) const EVENT: &'static str = "command";

    pub(crate) fn add(&self, at: UnixMillis, ms: u64) {
        let at_secs = at.millis() / 1000;
        let mut kept = self.0.lock();
        kept.ms_max = kept.ms_max.max(ms);
        match kept.spikes.back_mut() {
            Some(last) if last.at_secs == at_secs => last.ms = last.ms.max(ms),
            Some(_) | None => {
                if kept.spikes.len() == KEPT_COUNT_MAX {
                    kept.spikes.pop_front();
                }
                kept.spikes.push_back(Spike { at_secs, ms });
            }
        }
    }

    /// The oldest first.
    pub(crate) fn history(&self) -> Vec<Spike> {
        self.0.lock().spikes.iter().copied().collect()
    }

    /// The latest, and the most milliseconds since the last reset; `None` if there was none.
    pub(crate) fn latest(&self) -> Option<(Spike, u64)> {
        let kept = self.0.lock();
        kept.spikes.back().map(|&spike| (spike, kept.ms_max))
    }

    /// Forgets all. `false`: there was nothing.
    pub(crate) fn reset(&self) -> bool {
        let kept = std::mem::take(&mut *self.0.lock());
        !kept.spikes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_spike_the_longest() {
        let spikes = Spikes::default();
        assert_eq!(spikes.latest(), None);
        for (at_ms, ms) in [(1_000, 5), (1_900, 9), (1_950, 7), (3_000, 4)] {
            spikes.add(UnixMillis::new(at_ms), ms);
        }
        let spike = |at_secs, ms| Spike { at_secs, ms };
        assert_eq!(spikes.history(), [spike(1, 9), spike(3, 4)]);
        assert_eq!(spikes.latest(), Some((spike(3, 4), 9)));
        assert!(spikes.reset());
        assert!(!spikes.reset());
        for second in 0..1000 {
            spikes.add(UnixMillis::new(second * 1000), 1);
        }
        assert_eq!(spikes.history().len(), KEPT_COUNT_MAX);
    }
}
