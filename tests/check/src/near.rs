//! Reads from near caches: old values are allowed, but none older than a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::time::Duration;

use bytes::Bytes;

use crate::history::{Action, Answer, Operation, Outcome, When};

/// A read whose answer had been out of date for longer than it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The read.
    pub read: Operation,
    /// For how long at least, in the history's time: from when a newer value was acknowledged until the read
    /// began.
    pub age: u64,
}

/// The reads of a history that were older than `bound`: of which everything that can have written what they
/// answered was over before something else began that was acknowledged `bound` before the read.
///
/// Looks at keys that are only read, one or several at a time, set without a condition or a time to live, and deleted. Never accuses a read
/// that was right; misses some, where writes overlap.
#[must_use]
pub fn too_old(history: &[Operation], bound: u64) -> Vec<TooOld> {
    let mut keys: BTreeMap<&Bytes, Writes> = BTreeMap::new();
    let mut odd: BTreeSet<&Bytes> = BTreeSet::new();
    for operation in history {
        match &operation.action {
            Action::Get { .. } | Action::GetMany { .. } => {}
            Action::Set { key, value, when: When::Always, ttl: None } => {
                keys.entry(key).or_default().add(Some(value), operation);
            }
            Action::Delete { key } => keys.entry(key).or_default().add(None, operation),
            other => odd.extend(other.keys()),
        }
    }
    keys.values_mut().for_each(Writes::sort);
    let reads =
        history.iter().flat_map(|read| answers(read).map(move |(key, value)| (key, value, read)));
    let judged = reads.filter(|(key, ..)| !odd.contains(key));
    let found = judged.filter_map(|(key, value, read)| {
        let age = keys.get(key)?.age(value, read.invoked)?;
        (age > bound).then(|| TooOld { read: read.clone(), age })
    });
    found.collect()
}

/// Sees to it that there are no reads older than the bound, and answers how many values were read.
///
/// # Panics
/// If there are, with what had been written by then.
#[track_caller]
pub fn assert_fresh(history: &[Operation], bound: Duration) -> usize {
    let flaws = too_old(history, u64::try_from(bound.as_nanos()).expect("it is short"));
    let Some(first) = flaws.first() else { return history.iter().flat_map(answers).count() };
    let keys = first.read.action.keys();
    let before = |it: &&Operation| !it.action.is_read() && it.invoked <= first.read.invoked;
    let writes = history.iter().filter(before).filter(|it| it.action.keys() == keys);
    let writes: Vec<_> = writes.collect();
    let last = &writes[writes.len().saturating_sub(8)..];
    panic!("{} reads were too old; the first: {first:#?}\nafter {last:#?}", flaws.len());
}

/// The keys that an operation has read, and what each was said to hold.
pub fn answers(read: &Operation) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
    let (keys, values) = match (&read.action, &read.outcome) {
        (Action::Get { key }, Outcome::Done { answer: Answer::Value(value), .. }) => {
            (slice::from_ref(key), slice::from_ref(value))
        }
        (Action::GetMany { keys }, Outcome::Done { answer: Answer::Values(values), .. }) => {
            (&keys[..], &values[..])
        }
        _ => (&[][..], &[][..]),
    };
    keys.iter().zip(values.iter().map(Option::as_ref))
}

/// What wrote one key.
#[derive(Default)]
struct Writes<'h> {
    /// When the last of those that can have written a value was over; `None` if it may not be over yet.
    over: BTreeMap<Option<&'h Bytes>, Option<u64>>,
    /// When each was acknowledged, and when it or any acknowledged before began at the latest.
    acked: Vec<(u64, u64)>,
}

impl<'h> Writes<'h> {
    fn add(&mut self, value: Option<&'h Bytes>, write: &Operation) {
        let over = match write.outcome {
            Outcome::Done { at, .. } => {
                self.acked.push((at, write.invoked));
                Some(at)
            }
            Outcome::Refused { .. } => return,
            Outcome::Unknown => None,
        };
        let last = self.over.entry(value).or_insert(over);
        *last = last.zip(over).map(|(one, other)| one.max(other));
    }

    fn sort(&mut self) {
        self.acked.sort_unstable();
        let mut latest = 0;
        for (_, begun) in &mut self.acked {
            latest = latest.max(*begun);
            *begun = latest;
        }
    }

    /// For how long a value had certainly been out of date at a moment; `None` if it need not have been.
    fn age(&self, value: Option<&Bytes>, now: u64) -> Option<u64> {
        let newer = match self.over.get(&value) {
            // What nobody wrote was there at the beginning.
            None => self.acked.first()?,
            Some(over) => {
                let over = (*over)?;
                self.acked.iter().find(|(_, begun)| *begun > over)?
            }
        };
        now.checked_sub(newer.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, invoked: u64, answer: Answer, at: u64) -> Operation {
        let outcome = Outcome::Done { answer, at };
        Operation { client: 0, action, invoked, outcome }
    }

    fn set(value: &str, invoked: u64, at: u64) -> Operation {
        operation(Action::set("k", value.to_owned()), invoked, Answer::Done, at)
    }

    fn get(value: Option<&str>, invoked: u64) -> Operation {
        let answer = Answer::Value(value.map(|value| Bytes::from(value.to_owned())));
        operation(Action::get("k"), invoked, answer, invoked + 1)
    }

    #[track_caller]
    fn check(history: &[Operation], ages: &[u64]) {
        let found: Vec<_> = too_old(history, 100).into_iter().map(|it| it.age).collect();
        assert_eq!(found, ages);
    }

    #[test]
    fn a_value_may_be_old_but_not_older_than_the_bound() {
        let writes = [set("one", 0, 10), set("two", 20, 30)];
        for (read, ages) in [
            (get(Some("one"), 130), &[][..]),
            (get(Some("one"), 131), &[101]),
            (get(Some("two"), 1000), &[]),
            (get(None, 110), &[]),
            (get(None, 111), &[101]),
        ] {
            check(&[&writes[..], &[read]].concat(), ages);
        }
    }

    #[test]
    fn each_of_several_keys_is_judged() {
        let keys = ["other", "k"].map(Bytes::from);
        let values = [None, Some("one")].map(|value| value.map(Bytes::from));
        let action = Action::GetMany { keys: keys.into() };
        let read = operation(action, 900, Answer::Values(values.into()), 901);
        check(&[set("one", 0, 10), set("two", 20, 30), read], &[870]);
    }

    #[test]
    fn what_overlaps_or_is_in_doubt_accuses_nobody() {
        check(&[set("one", 0, 25), set("two", 20, 30), get(Some("one"), 900)], &[]);
        let mut lost = set("one", 0, 0);
        lost.outcome = Outcome::Unknown;
        check(&[lost, set("two", 20, 30), get(Some("one"), 900)], &[]);
        let again = [set("one", 0, 10), set("two", 20, 30), set("one", 40, 50)];
        check(&[&again[..], &[get(Some("one"), 900), get(Some("two"), 900)]].concat(), &[850]);
    }

    #[test]
    fn what_was_deleted_is_gone_until_it_is_set() {
        let delete = |invoked, at| {
            operation(Action::Delete { key: "k".into() }, invoked, Answer::Bool(true), at)
        };
        let history = [set("one", 0, 10), delete(20, 30), get(Some("one"), 140), get(None, 900)];
        check(&history, &[110]);
        check(&[delete(0, 10), set("one", 20, 30), get(None, 140)], &[110]);
    }
}
