//! Judges who is alive from the heartbeats that gossip brings. Pure: time is an argument.
//!
//! chitchat's detector says quickly who is alive, and with many peers or busy cores just as quickly who is
//! not: it takes a pause of this process for the silence of all others. So its word is enough to be alive,
//! but a node is dead only after a stated silence, measured while this process was awake.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Intervals of silence that are forgiven to a node which was alive, whatever the detector says.
const FORGIVEN_INTERVALS: u32 = 10;

/// Intervals of silence after which a node is dead, whatever the detector says.
const SILENT_INTERVALS_MAX: u32 = 15;

/// Judges the nodes known by `Id`.
pub(crate) struct Judge<Id> {
    interval: Duration,
    /// How long this process was awake since the start.
    awake: Duration,
    looked: Option<Instant>,
    lives: BTreeMap<Id, Life>,
}

struct Life {
    heartbeat: u64,
    /// When the heartbeat last went on, on the clock of `awake`.
    heard: Duration,
    alive: bool,
}

impl<Id: Ord + Clone> Judge<Id> {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, awake: Duration::ZERO, looked: None, lives: BTreeMap::new() }
    }

    /// Takes note of the time. Looks are expected once an interval; a longer gap was a pause of this
    /// process, in which it could not hear anyone.
    pub(crate) fn look(&mut self, now: Instant) {
        let gap =
            self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.awake += gap.min(2 * self.interval);
        self.looked = Some(now);
    }

    /// Whether a node is alive that has this heartbeat, and that the detector finds alive or not.
    pub(crate) fn alive(&mut self, id: &Id, heartbeat: u64, detected: bool) -> bool {
        let awake = self.awake;
        let fresh = Life { heartbeat, heard: awake, alive: false };
        let life = self.lives.entry(id.clone()).or_insert(fresh);
        if heartbeat > life.heartbeat {
            life.heartbeat = heartbeat;
            life.heard = awake;
        }
        let silence = awake - life.heard;
        let forgiven = life.alive && silence <= FORGIVEN_INTERVALS * self.interval;
        life.alive = forgiven || detected && silence <= SILENT_INTERVALS_MAX * self.interval;
        life.alive
    }

    /// Forgets the nodes that are not known any more.
    pub(crate) fn retain(&mut self, known: impl Fn(&Id) -> bool) {
        self.lives.retain(|id, _| known(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    struct Story {
        judge: Judge<&'static str>,
        now: Instant,
    }

    impl Story {
        fn begin() -> Self {
            let mut judge = Judge::new(INTERVAL);
            let now = Instant::now();
            judge.look(now);
            Self { judge, now }
        }

        fn after(&mut self, pause: Duration) {
            self.now += pause;
            self.judge.look(self.now);
        }

        /// Intervals that pass until a node that says nothing more is dead.
        fn intervals_to_death(&mut self, detected: bool) -> u32 {
            (1..100)
                .find(|_| {
                    self.after(INTERVAL);
                    !self.judge.alive(&"n", 2, detected)
                })
                .unwrap()
        }
    }

    #[test]
    fn a_node_is_alive_once_the_detector_says_so() {
        let mut story = Story::begin();
        assert!(!story.judge.alive(&"n", 1, false));
        assert!(story.judge.alive(&"n", 2, true));
    }

    #[test]
    fn a_silent_node_dies_within_its_time_whatever_the_detector_says() {
        for (detected, intervals) in [(false, 11), (true, 16)] {
            let mut story = Story::begin();
            assert!(story.judge.alive(&"n", 2, true));
            assert_eq!(story.intervals_to_death(detected), intervals);
        }
    }

    #[test]
    fn a_pause_of_this_process_is_nobodys_death() {
        let mut story = Story::begin();
        assert!(story.judge.alive(&"n", 2, true));
        story.after(Duration::from_secs(60));
        assert!(story.judge.alive(&"n", 2, false));
        story.after(INTERVAL);
        assert!(story.judge.alive(&"n", 3, false), "it goes on as if nothing had been");
    }

    #[test]
    fn a_dead_node_stays_dead_until_the_detector_finds_it() {
        let mut story = Story::begin();
        assert!(story.judge.alive(&"n", 2, true));
        story.intervals_to_death(false);
        assert!(!story.judge.alive(&"n", 3, false));
        assert!(story.judge.alive(&"n", 4, true));
    }
}
