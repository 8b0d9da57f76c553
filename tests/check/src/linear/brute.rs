//! Tries every order of a small history, with no cleverness at all: what the search is compared with.
//!
//! Each operation gets the earliest moment that its place in the order allows; a history is linearizable
//! exactly if some order, with some of the doubtful operations and some expiries, gives every answered
//! operation a moment within its window and its answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Rules;
use super::state::{self, State};
use crate::history::{Action, Answer, Operation, Outcome};

pub(super) fn is_linearizable(rules: &Rules, history: &[Operation]) -> bool {
    let mut keys: BTreeMap<&Bytes, usize> = BTreeMap::new();
    for key in history.iter().flat_map(|operation| operation.action.keys()) {
        let fresh = keys.len();
        keys.entry(key).or_insert(fresh);
    }
    let state = vec![None; keys.len()];
    go(rules, history, &keys, &mut vec![false; history.len()], &state, 0)
}

fn go(
    rules: &Rules,
    history: &[Operation],
    keys: &BTreeMap<&Bytes, usize>,
    placed: &mut Vec<bool>,
    state: &State,
    now: u64,
) -> bool {
    let must = |(index, operation): (usize, &Operation)| {
        !placed[index] && matches!(operation.outcome, Outcome::Done { .. })
    };
    if !history.iter().enumerate().any(must) {
        return true;
    }
    for (index, operation) in history.iter().enumerate() {
        let (told, until) = match &operation.outcome {
            Outcome::Done { answer, at } => (Some(answer), *at),
            Outcome::Unknown => (None, u64::MAX),
            Outcome::Refused { .. } => continue,
        };
        let moment = now.max(operation.invoked);
        if placed[index] || moment > until || is_overdue(rules, history, state, moment) {
            continue;
        }
        let slots: Vec<usize> = operation.action.keys().iter().map(|&key| keys[key]).collect();
        let this = u32::try_from(index).unwrap();
        let (answer, next) = state::apply(state, &operation.action, &slots, this);
        if told.is_some_and(|told: &Answer| *told != answer) {
            continue;
        }
        placed[index] = true;
        let next = next.unwrap_or_else(|| state.clone());
        let found = go(rules, history, keys, placed, &next, moment);
        placed[index] = false;
        if found {
            return true;
        }
    }
    expire(rules, history, keys, placed, state, now)
}

fn expire(
    rules: &Rules,
    history: &[Operation],
    keys: &BTreeMap<&Bytes, usize>,
    placed: &mut Vec<bool>,
    state: &State,
    now: u64,
) -> bool {
    (0..state.len()).any(|slot| {
        let Some(lease) = state[slot].as_ref().and_then(|cell| cell.lease) else { return false };
        let operation = &history[lease as usize];
        let from = (operation.invoked + ttl(operation)).saturating_sub(rules.expiry_early);
        go(rules, history, keys, placed, &state::with(state, slot, None), now.max(from))
    })
}

fn is_overdue(rules: &Rules, history: &[Operation], state: &State, now: u64) -> bool {
    let Some(late) = rules.expiry_late else { return false };
    state.iter().flatten().filter_map(|cell| cell.lease).any(|lease| {
        let operation = &history[lease as usize];
        operation.completed().is_some_and(|at| at + ttl(operation) + late < now)
    })
}

fn ttl(operation: &Operation) -> u64 {
    match operation.action {
        Action::Set { ttl: Some(ttl), .. } => ttl,
        _ => unreachable!("only a set with a time to live gives a lease"),
    }
}
