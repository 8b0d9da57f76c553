//! Forgetting what has expired. Every replica does it by itself, in its own time: nothing that can be
//! read or written depends on it.

use crate::bin::NEVER;
use crate::{Store, UnixMillis};

/// What a sweep freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys that are forgotten.
    pub keys_count: usize,
    /// Bytes that they took.
    pub bytes: usize,
    /// Whether nothing is left that has expired by the stamp. Otherwise the budget ran out.
    pub is_done: bool,
}

impl Store {
    /// Forgets keys whose deadline is not after [`Store::stamp`]; looks at about `budget` entries, in
    /// slots by turns. Costs next to nothing when nothing is due.
    pub fn sweep(&mut self, budget: usize) -> Swept {
        if self.deadline_min > self.stamp.millis() {
            return Swept { is_done: true, ..Swept::default() };
        }
        let before = self.tally();
        let mut budget_left = budget;
        let is_done = self.sweep_slots(&mut budget_left);
        if is_done {
            let earliest = self.slots.iter().map(|table| table.deadline_min()).min();
            self.deadline_min = earliest.unwrap_or(NEVER);
        }
        let after = self.tally();
        Swept {
            keys_count: before.keys_count - after.keys_count,
            bytes: before.bytes.saturating_sub(after.bytes),
            is_done,
        }
    }

    /// Whether a later stamp would let replicas forget something: a key has expired by `now` that has
    /// not by the last stamp. The leader then logs an entry without steps. May be wrong once for a key
    /// that is gone; a sweep puts it right.
    #[must_use]
    pub fn due(&self, now: UnixMillis) -> bool {
        let newly_due = self.stamp.millis() + 1..=now.millis();
        self.deadline_min <= now.millis()
            && self.slots.iter().any(|table| newly_due.contains(&table.deadline_min()))
    }

    fn sweep_slots(&mut self, budget: &mut usize) -> bool {
        let stamp = self.stamp;
        for step in 0..self.slots.len() {
            let at = (self.sweep_from + step) % self.slots.len();
            if self.slots[at].deadline_min() > stamp.millis() {
                continue;
            }
            if *budget == 0 || !self.change(at, |table| table.sweep(stamp, budget)) {
                self.sweep_from = at;
                return false;
            }
        }
        true
    }
}
