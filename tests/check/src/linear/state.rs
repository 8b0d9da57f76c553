//! What one object holds, and what an action does to it: the sequential specification.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::history::{Action, Answer, When};

/// The values of an object's keys, in the object's order of keys.
pub(super) type State = Vec<Option<Cell>>;

/// One key that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub(super) value: Bytes,
    /// Which operation gave it a deadline, if one did: its index in the object.
    pub(super) lease: Option<u32>,
}

/// What `action` answers in `state`, and the state afterwards if it may differ. `slots` are the positions
/// of the action's keys; `this` is the operation's index, which becomes the lease of a key with a deadline.
pub(super) fn apply(
    state: &State,
    action: &Action,
    slots: &[usize],
    this: u32,
) -> (Answer, Option<State>) {
    let first = slots.first().copied().unwrap_or(0);
    let value = |slot: usize| state[slot].as_ref().map(|cell| cell.value.clone());
    match action {
        Action::Get { .. } => (Answer::Value(value(first)), None),
        Action::GetMany { .. } => {
            (Answer::Values(slots.iter().map(|&slot| value(slot)).collect()), None)
        }
        Action::Set { value: new, when, ttl, .. } => {
            let cell = Cell { value: new.clone(), lease: ttl.map(|_| this) };
            set(state, first, when, cell)
        }
        Action::SetMany { pairs } => {
            let mut next = state.clone();
            for (&slot, (_, new)) in slots.iter().zip(pairs) {
                next[slot] = Some(Cell { value: new.clone(), lease: None });
            }
            (Answer::Done, Some(next))
        }
        Action::Swap { value: new, .. } => {
            let cell = Cell { value: new.clone(), lease: None };
            (Answer::Value(value(first)), Some(with(state, first, Some(cell))))
        }
        Action::Incr { by, .. } => incr(state, first, *by),
        Action::Append { value: tail, .. } => append(state, first, tail),
        Action::Delete { .. } => {
            let there = state[first].is_some();
            (Answer::Bool(there), there.then(|| with(state, first, None)))
        }
        Action::GetDelete { .. } => {
            let old = value(first);
            let next = old.is_some().then(|| with(state, first, None));
            (Answer::Value(old), next)
        }
    }
}

/// 128 bits that stand for the state. Two states share them with a probability of 2^-128.
pub(super) fn fingerprint(state: &State) -> u128 {
    let mut hasher = Xxh3::new();
    for cell in state {
        match cell {
            None => hasher.update(&[0]),
            Some(cell) => {
                hasher.update(&[1]);
                hasher.update(&(cell.value.len() as u64).to_le_bytes());
                hasher.update(&cell.value);
                hasher.update(&cell.lease.map_or(0, |lease| u64::from(lease) + 1).to_le_bytes());
            }
        }
    }
    hasher.digest128()
}

/// The state with another cell in one place.
pub(super) fn with(state: &State, slot: usize, cell: Option<Cell>) -> State {
    let mut next = state.clone();
    next[slot] = cell;
    next
}

/// The number that a value is, as Redis reads it: decimal, without sign for 0, spaces or leading zeros.
pub(super) fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn set(state: &State, slot: usize, when: &When, cell: Cell) -> (Answer, Option<State>) {
    let old = state[slot].as_ref();
    let applies = match when {
        When::Always => return (Answer::Done, Some(with(state, slot, Some(cell)))),
        When::Absent => old.is_none(),
        When::Present => old.is_some(),
        When::Equal(expected) => old.is_some_and(|old| old.value == *expected),
    };
    (Answer::Bool(applies), applies.then(|| with(state, slot, Some(cell))))
}

fn incr(state: &State, slot: usize, by: i64) -> (Answer, Option<State>) {
    let old = state[slot].as_ref();
    let before = old.map_or(Some(0), |cell| number(&cell.value));
    let Some(after) = before.and_then(|before| before.checked_add(by)) else {
        return (Answer::Failed, None);
    };
    let lease = old.and_then(|cell| cell.lease);
    let cell = Cell { value: after.to_string().into(), lease };
    (Answer::Number(after), Some(with(state, slot, Some(cell))))
}

fn append(state: &State, slot: usize, tail: &[u8]) -> (Answer, Option<State>) {
    let old = state[slot].as_ref();
    let mut value = old.map(|cell| cell.value.to_vec()).unwrap_or_default();
    value.extend_from_slice(tail);
    let length = Answer::Number(i64::try_from(value.len()).expect("a value fits into memory"));
    let lease = old.and_then(|cell| cell.lease);
    (length, Some(with(state, slot, Some(Cell { value: value.into(), lease }))))
}
