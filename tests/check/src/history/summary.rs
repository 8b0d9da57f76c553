//! What can be said of a whole history without looking for an order: counts, outages, lost writes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Action, Answer, Operation, Outcome, When};

/// How many operations came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Answered.
    pub done: usize,
    /// Answered as not done.
    pub refused: usize,
    /// In doubt.
    pub unknown: usize,
}

/// A time in which something was asked and nothing was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// When it began: an operation was under way, and the last one before had been done.
    pub start: u64,
    /// When the next operation was done, or else the last time in the history.
    pub end: u64,
}

/// An acknowledged write that was not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWrite {
    /// The key.
    pub key: Bytes,
    /// What was written and acknowledged.
    pub written: Bytes,
    /// What was read later instead.
    pub read: Option<Bytes>,
}

/// What became of the writes to keys that were written once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostWrites {
    /// How many acknowledged writes were read back later.
    pub checked: usize,
    /// How many were never read after they had been acknowledged: nothing is known of them.
    pub unread: usize,
    /// Those that the last read did not find, in the order of their keys.
    pub lost: Vec<LostWrite>,
}

impl Outage {
    /// How long, in the unit of the history's times.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.end - self.start
    }
}

/// Counts the outcomes.
#[must_use]
pub fn summarize(history: &[Operation]) -> Summary {
    let mut summary = Summary::default();
    for operation in history {
        match operation.outcome {
            Outcome::Done { .. } => summary.done += 1,
            Outcome::Refused { .. } => summary.refused += 1,
            Outcome::Unknown => summary.unknown += 1,
        }
    }
    summary
}

/// The longest outage of each set of keys that has one. `set_of` names the set of a key: its partition,
/// say, or the same for all. An operation counts for the sets of all its keys.
#[must_use]
pub fn longest_outages<S: Ord>(
    history: &[Operation],
    set_of: impl Fn(&[u8]) -> S,
) -> BTreeMap<S, Outage> {
    let mut sets: BTreeMap<S, Vec<&Operation>> = BTreeMap::new();
    let mut end = 0;
    for operation in history {
        end = end.max(operation.completed().unwrap_or(0)).max(operation.invoked);
        for key in operation.action.keys() {
            sets.entry(set_of(key)).or_default().push(operation);
        }
    }
    sets.into_iter()
        .filter_map(|(set, operations)| Some((set, longest_outage(&operations, end)?)))
        .collect()
}

/// Compares, for every key that only one operation can have written, what was acknowledged with what the
/// read invoked last was answered. Keys with a deadline are left out.
#[must_use]
pub fn lost_writes(history: &[Operation]) -> LostWrites {
    let mut keys: BTreeMap<&Bytes, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        for key in operation.action.keys() {
            keys.entry(key).or_default().push(operation);
        }
    }
    let mut report = LostWrites::default();
    for (key, operations) in keys {
        let Some((written, acknowledged)) = only_write(&operations) else { continue };
        let reads = operations.iter().filter_map(|operation| {
            let Outcome::Done { answer: Answer::Value(read), .. } = &operation.outcome else {
                return None;
            };
            let counts = operation.action.is_read() && operation.invoked > acknowledged;
            counts.then_some((operation.invoked, read))
        });
        match reads.max_by_key(|&(invoked, _)| invoked) {
            None => report.unread += 1,
            Some((_, read)) => {
                report.checked += 1;
                if read.as_ref() != Some(written) {
                    let (key, written) = (key.clone(), written.clone());
                    report.lost.push(LostWrite { key, written, read: read.clone() });
                }
            }
        }
    }
    report
}

fn longest_outage(operations: &[&Operation], end: u64) -> Option<Outage> {
    let mut invocations: Vec<u64> = operations.iter().map(|operation| operation.invoked).collect();
    invocations.sort_unstable();
    let mut answered: Vec<(u64, u64)> = operations
        .iter()
        .filter_map(|operation| match operation.outcome {
            Outcome::Done { at, .. } => Some((at, operation.invoked)),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        })
        .collect();
    answered.sort_unstable();
    // As if one more operation were done at the end of the history.
    answered.push((end, u64::MAX));

    let mut before = 0;
    let mut longest: Option<Outage> = None;
    for (at, invoked) in answered {
        let asked = invocations.get(invocations.partition_point(|&time| time < before)).copied();
        let start = asked.unwrap_or(u64::MAX).min(invoked).max(before);
        if start < at && longest.is_none_or(|longest| longest.length() < at - start) {
            longest = Some(Outage { start, end: at });
        }
        before = at;
    }
    longest
}

/// The value of the only write, and when it was acknowledged.
fn only_write<'a>(operations: &[&'a Operation]) -> Option<(&'a Bytes, u64)> {
    let mut writes = operations.iter().filter(|operation| {
        !operation.action.is_read() && !matches!(operation.outcome, Outcome::Refused { .. })
    });
    let (write, None) = (writes.next()?, writes.next()) else { return None };
    match (&write.action, &write.outcome) {
        (
            Action::Set { value, when: When::Always, ttl: None, .. },
            Outcome::Done { answer: Answer::Done, at },
        ) => Some((value, *at)),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(invoked: u64, at: u64, action: Action, answer: Answer) -> Operation {
        Operation { client: 0, action, invoked, outcome: Outcome::Done { answer, at } }
    }

    fn set(invoked: u64, key: &'static str) -> Operation {
        done(invoked, invoked + 5, Action::set(key, "v"), Answer::Done)
    }

    fn failed(invoked: u64, key: &'static str, outcome: Outcome) -> Operation {
        Operation { client: 0, action: Action::set(key, "w"), invoked, outcome }
    }

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_next_success() {
        let refused = failed(20, "a", Outcome::Refused { at: 21 });
        let history = [set(0, "a"), refused, failed(30, "a", Outcome::Unknown), set(90, "a")];
        let outages = longest_outages(&history, |_| "all");
        assert_eq!(outages["all"], Outage { start: 20, end: 95 });
        assert_eq!(summarize(&history), Summary { done: 2, refused: 1, unknown: 1 });
    }

    #[test]
    fn a_pause_of_the_clients_is_no_outage() {
        let outages = longest_outages(&[set(0, "a"), set(500, "a")], |_| ());
        assert_eq!(outages[&()].length(), 5);
    }

    #[test]
    fn sets_are_told_apart_and_the_end_counts() {
        let history = [set(0, "a"), failed(10, "b", Outcome::Unknown), set(100, "a")];
        let outages = longest_outages(&history, <[u8]>::to_vec);
        assert_eq!(outages[b"b".as_slice()], Outage { start: 10, end: 105 });
        assert_eq!(outages[b"a".as_slice()].length(), 5);
    }

    #[test]
    fn an_acknowledged_write_that_is_not_read_back_is_lost() {
        let read = |key, answer| done(50, 51, Action::get(key), answer);
        let history = [
            set(0, "kept"),
            set(0, "lost"),
            set(0, "unread"),
            set(0, "twice"),
            failed(9, "twice", Outcome::Unknown),
            read("kept", Answer::value("v")),
            read("lost", Answer::nil()),
            read("twice", Answer::value("w")),
        ];
        let report = lost_writes(&history);
        assert_eq!((report.checked, report.unread), (2, 1));
        let lost = LostWrite { key: "lost".into(), written: "v".into(), read: None };
        assert_eq!(report.lost, [lost]);
    }
}
