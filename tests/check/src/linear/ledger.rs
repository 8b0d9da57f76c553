//! Who needs which value, and who can still supply it.
//!
//! Where values only come to be by being set, a value may not be overwritten while an answer yet to be
//! placed tells it and nobody is left to set it again. Absence counts as a value.

use std::collections::HashMap;

use bytes::Bytes;

use super::object::{Object, Op};
use super::state::State;
use crate::history::{Action, Answer, When};

/// Counts over the operations that have no place yet.
pub(super) struct Ledger {
    ids: HashMap<(usize, Option<Bytes>), usize>,
    /// Per operation: the values that it needs, then the values that it supplies.
    needs: Vec<Vec<usize>>,
    supplies: Vec<Vec<usize>>,
    needed: Vec<u32>,
    supplied: Vec<u32>,
}

impl Ledger {
    /// The ledger before anything has a place. Empty where values are computed: nothing is known then.
    pub(super) fn new(object: &Object) -> Self {
        let mut ledger = Self {
            ids: HashMap::new(),
            needs: vec![Vec::new(); object.ops.len()],
            supplies: vec![Vec::new(); object.ops.len()],
            needed: Vec::new(),
            supplied: Vec::new(),
        };
        if object.computed {
            return ledger;
        }
        for (index, op) in object.ops.iter().enumerate() {
            for need in needs_of(op) {
                let id = ledger.id(need);
                ledger.needs[index].push(id);
                ledger.needed[id] += 1;
            }
            for supply in supplies_of(op) {
                let id = ledger.id(supply);
                ledger.supplies[index].push(id);
                ledger.supplied[id] += 1;
            }
            if let Action::Set { ttl: Some(_), .. } = op.action {
                // Time can always take the key away: this supply of absence is never used up.
                let id = ledger.id((op.slots[0], None));
                ledger.supplied[id] += 1;
            }
        }
        ledger
    }

    /// Whether some answer tells a value that nothing can have set before it was answered, or that was
    /// surely replaced before it was asked for: by a write invoked after all that set the value were
    /// answered. The search would find both, but late where much overlaps.
    pub(super) fn has_impossible_answer(&self, object: &Object) -> bool {
        let mut windows = vec![(u64::MAX, 0); self.needed.len()];
        for (op, supplies) in object.ops.iter().zip(&self.supplies) {
            for &id in supplies {
                windows[id] = (windows[id].0.min(op.invoked), windows[id].1.max(op.returned));
            }
        }
        let mut slots = vec![0; self.needed.len()];
        for ((slot, value), &id) in &self.ids {
            slots[id] = *slot;
            if value.is_none() {
                // Nothing is there at the start, and where time takes keys away, at any time.
                windows[id].0 = 0;
            }
        }
        for op in &object.ops {
            if let Action::Set { ttl: Some(_), .. } = op.action
                && let Some(&id) = self.ids.get(&(op.slots[0], None))
            {
                windows[id].1 = u64::MAX;
            }
        }
        let replaced = self.replacements(object);
        object.ops.iter().zip(&self.needs).any(|(op, needs)| {
            needs.iter().any(|&id| {
                let writes = &replaced[slots[id]];
                let before = writes.partition_point(|&(returned, _)| returned < op.invoked);
                let last = before.checked_sub(1).map(|place| writes[place].1);
                windows[id].0 > op.returned || last.is_some_and(|last| last > windows[id].1)
            })
        })
    }

    /// Per slot, the answered operations after which a value that they supply is surely there: when each
    /// was answered, in order, and the last invocation up to it.
    fn replacements(&self, object: &Object) -> Vec<Vec<(u64, u64)>> {
        let mut replaced = vec![Vec::new(); object.keys_count];
        for (op, supplies) in object.ops.iter().zip(&self.supplies) {
            if op.answer.is_some() && !supplies.is_empty() {
                op.slots.iter().for_each(|&slot| replaced[slot].push((op.returned, op.invoked)));
            }
        }
        for writes in &mut replaced {
            writes.sort_unstable();
            let mut last = 0;
            for (_, invoked) in writes {
                last = last.max(*invoked);
                *invoked = last;
            }
        }
        replaced
    }

    /// For each operation, when it must have been placed for the first answer that tells its value.
    pub(super) fn dues(&self, object: &Object) -> Vec<u64> {
        let mut told = vec![u64::MAX; self.needed.len()];
        for (op, needs) in object.ops.iter().zip(&self.needs) {
            needs.iter().for_each(|&id| told[id] = told[id].min(op.returned));
        }
        for ((_, value), &id) in &self.ids {
            if value.is_none() {
                told[id] = u64::MAX;
            }
        }
        let dues = object.ops.iter().zip(&self.supplies);
        dues.map(|(op, supplies)| supplies.iter().map(|&id| told[id]).fold(op.returned, u64::min))
            .collect()
    }

    /// The operation has its place.
    pub(super) fn strike(&mut self, index: u32) {
        for &id in &self.needs[index as usize] {
            self.needed[id] -= 1;
        }
        for &id in &self.supplies[index as usize] {
            self.supplied[id] -= 1;
        }
    }

    /// The operation has no place any more.
    pub(super) fn restore(&mut self, index: u32) {
        for &id in &self.needs[index as usize] {
            self.needed[id] += 1;
        }
        for &id in &self.supplies[index as usize] {
            self.supplied[id] += 1;
        }
    }

    /// Whether going from one state to the other loses a value for ever that is still needed.
    pub(super) fn forbids(&self, source: &State, target: &State) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        source.iter().zip(target).enumerate().any(|(slot, (before, after))| {
            let before = before.as_ref().map(|cell| &cell.value);
            before != after.as_ref().map(|cell| &cell.value)
                && self
                    .ids
                    .get(&(slot, before.cloned()))
                    .is_some_and(|&id| self.needed[id] > 0 && self.supplied[id] == 0)
        })
    }

    fn id(&mut self, value: (usize, Option<Bytes>)) -> usize {
        let Self { ids, needed, supplied, .. } = self;
        *ids.entry(value).or_insert_with(|| {
            needed.push(0);
            supplied.push(0);
            needed.len() - 1
        })
    }
}

fn needs_of(op: &Op) -> Vec<(usize, Option<Bytes>)> {
    match (&op.action, &op.answer) {
        (
            Action::Get { .. } | Action::Swap { .. } | Action::GetDelete { .. },
            Some(Answer::Value(value)),
        ) => vec![(op.slots[0], value.clone())],
        (Action::GetMany { .. }, Some(Answer::Values(values))) => {
            op.slots.iter().copied().zip(values.iter().cloned()).collect()
        }
        (Action::Set { when: When::Equal(expected), .. }, Some(Answer::Bool(true))) => {
            vec![(op.slots[0], Some(expected.clone()))]
        }
        (Action::Set { when: When::Absent, .. }, Some(Answer::Bool(true)))
        | (Action::Delete { .. }, Some(Answer::Bool(false))) => vec![(op.slots[0], None)],
        (_, _) => Vec::new(),
    }
}

fn supplies_of(op: &Op) -> Vec<(usize, Option<Bytes>)> {
    match &op.action {
        Action::Set { .. } if op.answer == Some(Answer::Bool(false)) => Vec::new(),
        Action::Set { value, .. } | Action::Swap { value, .. } => {
            vec![(op.slots[0], Some(value.clone()))]
        }
        Action::SetMany { pairs } => {
            let values = pairs.iter().map(|(_, value)| Some(value.clone()));
            op.slots.iter().copied().zip(values).collect()
        }
        Action::Delete { .. } | Action::GetDelete { .. } => vec![(op.slots[0], None)],
        Action::Get { .. }
        | Action::GetMany { .. }
        | Action::Incr { .. }
        | Action::Append { .. } => Vec::new(),
    }
}
