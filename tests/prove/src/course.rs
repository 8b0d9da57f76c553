//! One course of faults under way: which comes when, and how far it is. Decides; others do it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::fault::{self, Course, Deed, Kind};
use crate::plan::Plan;

/// A fault under way.
#[derive(Debug)]
pub(crate) struct Underway {
    /// Which it is.
    pub(crate) fault: fault::Fault,
    /// What is left to do. The first may be waited for.
    pub(crate) left: VecDeque<Deed>,
    /// Since when the first of these is waited for.
    pub(crate) since: Instant,
    /// When its first deed was done, in milliseconds of the campaign.
    pub(crate) began_ms: Option<u64>,
}

/// The faults of one course, one after the other.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Which course.
    pub(crate) course: Course,
    plan: Plan,
    next_at: Instant,
    /// The fault under way.
    pub(crate) underway: Option<Underway>,
}

impl Lane {
    /// What happens to so many nodes, from a moment on.
    pub(crate) fn new(
        seed: u64,
        course: Course,
        kinds: &[Kind],
        nodes: usize,
        now: Instant,
    ) -> Self {
        let mut plan = Plan::new(seed, course, kinds, nodes);
        let next_at = now + Duration::from_millis(plan.gap_ms());
        Self { course, plan, next_at, underway: None }
    }

    /// Begins the next fault if it is time.
    pub(crate) fn draw(&mut self, now: Instant) {
        if self.underway.is_none() && now >= self.next_at {
            self.underway = self.plan.next_fault().map(|fault| Underway {
                left: fault.script.iter().cloned().collect(),
                fault,
                since: now,
                began_ms: None,
            });
        }
    }

    /// Takes the fault away that is over.
    pub(crate) fn finish(&mut self, now: Instant) -> Option<Underway> {
        self.next_at = now + Duration::from_millis(self.plan.gap_ms());
        self.underway.take()
    }

    /// Whether it waits for a whole cluster.
    pub(crate) fn awaits_whole(&self) -> bool {
        let first = self.underway.as_ref().and_then(|underway| underway.left.front());
        first == Some(&Deed::AwaitWhole)
    }
}
