//! Asks all nodes all the time what they see, each in a thread of its own, so that one that does not answer
//! hides nothing of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::campaign::Leadership;
use crate::target::{Counters, Lead, Site, Target, View};

/// Pause between two questions to a node.
const PAUSE: Duration = Duration::from_millis(150);

/// A leadership that was not seen for so long is another one when it is seen again, in milliseconds.
const SEEN_AGAIN_MS_MAX: u64 = 1500;

/// What nodes have said.
pub struct Watch<'a> {
    target: &'a dyn Target,
    sites: Vec<Site>,
    begun: OnceLock<Instant>,
    seen: Mutex<Vec<Seen>>,
    leaderships: Mutex<Vec<Leadership>>,
    sums: Mutex<Sums>,
}

/// What nodes have counted, summed over all of them and over all their lives. What a process counted after it
/// was asked last is lost with it.
#[derive(Debug, Default)]
struct Sums {
    last: BTreeMap<usize, Counters>,
    sums: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// When it was asked.
    at: Instant,
    /// The same, by the wall clock.
    at_wall: SystemTime,
    view: Result<View, String>,
}

impl<'a> Watch<'a> {
    /// A watch over these nodes, which nobody keeps yet.
    pub fn new(target: &'a dyn Target, sites: Vec<Site>) -> Self {
        let unseen = Seen {
            at: Instant::now(),
            at_wall: SystemTime::now(),
            view: Err("not asked yet".to_owned()),
        };
        Self {
            target,
            seen: Mutex::new(vec![unseen; sites.len()]),
            sites,
            begun: OnceLock::new(),
            leaderships: Mutex::default(),
            sums: Mutex::default(),
        }
    }

    /// Notes leaderships, and what nodes count, from now on, in milliseconds since then.
    pub fn begin(&self, begun: Instant) {
        let _once = self.begun.set(begun);
    }

    /// Watches the node with this number until it is over.
    pub fn keep(&self, node: usize, over: &AtomicBool) {
        let site = &self.sites[node - 1];
        while !over.load(Ordering::Relaxed) {
            let (at, at_wall) = (Instant::now(), SystemTime::now());
            let view = self.target.view(site);
            if let Ok(view) = &view {
                self.note(node, &view.leads);
                if let Some(counters) = &view.counters {
                    self.sums.lock().note(node, counters, self.begun.get().is_some());
                }
            }
            self.seen.lock()[node - 1] = Seen { at, at_wall, view };
            thread::sleep(PAUSE);
        }
    }

    /// Why the cluster is not whole, as the running nodes have said when asked since then; empty if it is.
    pub fn lacks(&self, running: &[usize], since: Instant) -> Vec<String> {
        let seen = self.seen.lock();
        let mut lacks = Vec::new();
        for &node in running {
            let Seen { at, view, .. } = &seen[node - 1];
            match view {
                _ if *at < since => lacks.push(format!("n{node} has not answered yet")),
                Err(why) => lacks.push(format!("n{node}: {why}")),
                Ok(view) if !view.lacks.is_empty() => {
                    lacks.extend(view.lacks.iter().map(|lack| format!("n{node}: {lack}")));
                }
                Ok(view) if view.members != running.len() => {
                    let (members, running) = (view.members, running.len());
                    lacks.push(format!("n{node} sees {members} members of {running}"));
                }
                Ok(_) => {}
            }
        }
        lacks
    }

    /// By how many seconds a node's wall clock was wrong when it was asked last, if it has answered since
    /// then and tells its clock.
    pub fn clock_wrong_by_s(&self, node: usize, since: Instant) -> Option<i64> {
        let seen = self.seen.lock();
        let Seen { at, at_wall, view } = &seen[node - 1];
        let told_ms = view.as_ref().ok()?.wall_clock_ms.filter(|_| *at >= since)?;
        let ours_ms = at_wall.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
        let told_s = i64::try_from(told_ms / 1000).ok()?;
        Some(told_s - i64::try_from(ours_ms / 1000).ok()?)
    }

    /// Who led what, in the order of its beginning.
    pub fn leaderships(&self) -> Vec<Leadership> {
        let mut leaderships = self.leaderships.lock().clone();
        leaderships.sort_by_key(|it| (it.from, it.partition, it.node));
        leaderships
    }

    /// What nodes have counted since the beginning.
    pub fn counted(&self) -> Vec<(String, u64)> {
        self.sums.lock().sums.clone().into_iter().collect()
    }

    fn note(&self, node: usize, leads: &[Lead]) {
        let Some(begun) = self.begun.get() else { return };
        let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        note(&mut self.leaderships.lock(), node, leads, now);
    }
}

impl Sums {
    /// Adds what a node has counted since it was asked last, if it `has_begun` to matter.
    fn note(&mut self, node: usize, counters: &Counters, has_begun: bool) {
        let last = self.last.insert(node, counters.clone());
        let last = last.filter(|last| last.uptime_s <= counters.uptime_s).unwrap_or_default();
        for (name, count) in &counters.counts {
            let before = last.counts.iter().find(|(known, _)| known == name);
            let before = before.map_or(0, |&(_, before)| before);
            // Less than before is another life, too.
            let more = count.checked_sub(before).unwrap_or(*count);
            *self.sums.entry(name.clone()).or_default() += if has_begun { more } else { 0 };
        }
    }
}

/// How often a partition got another leader, or the same one in a later term.
#[must_use]
pub fn changes(leaderships: &[Leadership]) -> u64 {
    let all: BTreeSet<_> = leaderships.iter().map(|it| (it.partition, it.term, it.node)).collect();
    let partitions: BTreeSet<_> = leaderships.iter().map(|it| it.partition).collect();
    (all.len() - partitions.len()) as u64
}

/// Makes leaderships longer that a node still has, and begins those that it has got.
fn note(leaderships: &mut Vec<Leadership>, node: usize, leads: &[Lead], now: u64) {
    for &Lead { partition, term } in leads {
        let same = leaderships.iter_mut().rev().find(|it| {
            (it.partition, it.node, it.term) == (partition, node, term)
                && now.saturating_sub(it.until) <= SEEN_AGAIN_MS_MAX
        });
        match same {
            Some(leadership) => leadership.until = now,
            None => {
                leaderships.push(Leadership { partition, node, term, from: now, until: now });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leadership_goes_on_while_it_is_seen() {
        let mut leaderships = Vec::new();
        let lead = |term| [Lead { partition: 3, term }];
        note(&mut leaderships, 1, &lead(7), 100);
        note(&mut leaderships, 1, &lead(7), 300);
        note(&mut leaderships, 2, &lead(8), 900);
        note(&mut leaderships, 1, &lead(9), 1200);
        note(&mut leaderships, 2, &lead(8), 5000);
        let seen: Vec<_> =
            leaderships.iter().map(|it| (it.node, it.term, it.from, it.until)).collect();
        assert_eq!(
            seen,
            [(1, 7, 100, 300), (2, 8, 900, 900), (1, 9, 1200, 1200), (2, 8, 5000, 5000)]
        );
        assert_eq!(changes(&leaderships), 2, "what was out of sight for a while is no change");
    }

    #[test]
    fn counts_are_summed_over_nodes_and_over_their_lives() {
        let mut sums = Sums::default();
        let mut note = |node, uptime_s, count, has_begun| {
            let counts = vec![("leases lost".to_owned(), count)];
            sums.note(node, &Counters { uptime_s, counts }, has_begun);
            sums.sums["leases lost"]
        };
        assert_eq!(note(1, 5, 10, false), 0, "what was before does not count");
        assert_eq!(note(1, 6, 12, true), 2);
        assert_eq!(note(2, 1, 5, true), 7, "another node");
        assert_eq!(note(1, 1, 15, true), 22, "another life, though it has counted more");
        assert_eq!(note(1, 1, 4, true), 26, "and another");
        assert_eq!(note(1, 2, 4, true), 26);
    }
}
