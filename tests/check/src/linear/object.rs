//! One object of a history, made ready to be searched: the operations that can matter, in the order of
//! their invocation, and what is known of them beforehand.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::Rules;
use super::state::{self, Cell, State};
use crate::history::{Action, Answer, Operation, Outcome, When};

/// One operation of an object.
pub(super) struct Op {
    pub(super) action: Action,
    /// The places of the action's keys in the state.
    pub(super) slots: Vec<usize>,
    /// What was answered; `None` when in doubt.
    pub(super) answer: Option<Answer>,
    pub(super) invoked: u64,
    /// When it was answered; `u64::MAX` when in doubt.
    pub(super) returned: u64,
}

/// When a key with a deadline may be gone, and must be.
#[derive(Clone, Copy)]
struct Lease {
    gone_from: u64,
    gone_by: u64,
}

/// What an operation does to a state.
pub(super) enum Effect {
    /// It would have answered something else, or a key is there that must have expired before.
    Illegal,
    /// Its answer is right and the state stays.
    Same,
    /// Its answer is right and this is the state afterwards.
    Next(State),
}

/// The operations on a set of keys, in the order of their invocation.
pub(super) struct Object {
    pub(super) ops: Vec<Op>,
    pub(super) keys_count: usize,
    /// Whether all actions are `Get`, an unconditional `Set` without a deadline, or `Swap`.
    pub(super) plain: bool,
    /// Whether a value can come to be by `Incr` or `Append`, so that not only equal values matter.
    pub(super) computed: bool,
    /// The value that stands for all those that no answer tells. Unused where `computed`.
    unseen: Bytes,
    leases: HashMap<u32, Lease>,
    growth: Growth,
}

/// Whether the value of the only key only ever grows, which tells hopeless states early.
enum Growth {
    None,
    /// Only `Get` and `Append`: each value begins all later ones. Here is the longest that was read.
    Text(Bytes),
    /// Only `Get` and `Incr` by positive numbers.
    Number,
}

/// The positions of each object's operations. Keys that are named together belong to one object. Objects
/// are in the order in which they appear first.
pub(super) fn split(history: &[Operation]) -> Vec<Vec<usize>> {
    let mut ids: HashMap<&Bytes, usize> = HashMap::new();
    let mut parents: Vec<usize> = Vec::new();
    let mut firsts = Vec::with_capacity(history.len());
    for operation in history {
        let mut first = None;
        for key in operation.action.keys() {
            let id = *ids.entry(key).or_insert_with(|| {
                parents.push(parents.len());
                parents.len() - 1
            });
            let root = root(&mut parents, id);
            let joined = *first.get_or_insert(root);
            let joined = self::root(&mut parents, joined);
            parents[root] = joined;
        }
        firsts.push(first);
    }
    let mut objects: Vec<Vec<usize>> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for (position, first) in firsts.into_iter().enumerate() {
        let Some(first) = first else { continue };
        let root = root(&mut parents, first);
        let place = *places.entry(root).or_insert_with(|| {
            objects.push(Vec::new());
            objects.len() - 1
        });
        objects[place].push(position);
    }
    objects
}

/// The keys of an object, for people.
pub(super) fn name(history: &[Operation], positions: &[usize]) -> String {
    let keys: BTreeSet<String> = positions
        .iter()
        .flat_map(|&position| history[position].action.keys())
        .map(|key| key.escape_ascii().to_string())
        .collect();
    let mut shown: Vec<String> = keys.iter().take(8).cloned().collect();
    if keys.len() > shown.len() {
        shown.push(format!("and {} more", keys.len() - shown.len()));
    }
    shown.join(", ")
}

impl Object {
    /// Takes what was invoked by `now`; what was answered after it counts as in doubt. Refused operations
    /// have no effect, and reads in doubt no consequence: both are left out.
    pub(super) fn new(rules: &Rules, history: &[Operation], positions: &[usize], now: u64) -> Self {
        let mut slots_by_key: BTreeMap<&Bytes, usize> = BTreeMap::new();
        let mut ops = Vec::with_capacity(positions.len());
        for operation in positions.iter().map(|&position| &history[position]) {
            let (answer, returned) = match &operation.outcome {
                Outcome::Done { answer, at } if *at <= now => (Some(answer.clone()), *at),
                Outcome::Refused { .. } => continue,
                Outcome::Done { .. } | Outcome::Unknown => (None, u64::MAX),
            };
            if operation.invoked > now || (answer.is_none() && operation.action.is_read()) {
                continue;
            }
            let mut slots = Vec::with_capacity(1);
            for key in operation.action.keys() {
                let fresh = slots_by_key.len();
                slots.push(*slots_by_key.entry(key).or_insert(fresh));
            }
            let action = operation.action.clone();
            ops.push(Op { action, slots, answer, invoked: operation.invoked, returned });
        }
        ops.sort_by_key(|op| op.invoked);
        let mut object = Self {
            keys_count: slots_by_key.len(),
            plain: ops.iter().all(|op| is_plain(&op.action)),
            computed: ops.iter().any(|op| is_computed(&op.action)),
            unseen: Bytes::new(),
            leases: leases(rules, &ops),
            growth: growth(&ops),
            ops,
        };
        object.merge_alike();
        object
    }

    /// What operation `index` does to `state`.
    pub(super) fn effect(&self, state: &State, index: u32) -> Effect {
        let op = self.op(index);
        if !self.leases.is_empty() && self.is_overdue(state, op.invoked) {
            return Effect::Illegal;
        }
        let (answer, next) = state::apply(state, &op.action, &op.slots, index);
        match (&op.answer, next) {
            (Some(told), _) if *told != answer => Effect::Illegal,
            (_, Some(next)) if next != *state => Effect::Next(next),
            (_, _) => Effect::Same,
        }
    }

    /// The states to which the passing of time can lead, up to `now`: one key expires in each.
    ///
    /// An expiry behaves like an operation in doubt, invoked when the key may be gone; where lateness is
    /// judged, like one that was answered when the key must be gone, see [`Self::is_overdue`].
    pub(super) fn expiries(&self, state: &State, now: u64) -> Vec<State> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        (0..state.len())
            .filter(|&slot| self.lease(state, slot).is_some_and(|lease| lease.gone_from <= now))
            .map(|slot| state::with(state, slot, None))
            .collect()
    }

    /// Whether nothing that is still to come can be right in this state. `front` is the operation that has
    /// to be next, after any that it overlaps.
    pub(super) fn is_hopeless(&self, state: &State, front: u32) -> bool {
        let Some(value) = state.first().and_then(Option::as_ref).map(|cell| &cell.value) else {
            return false;
        };
        match &self.growth {
            Growth::None => false,
            Growth::Text(longest) => {
                let common = value.len().min(longest.len());
                value[..common] != longest[..common]
                    || self.length_before(front).is_some_and(|needed| value.len() > needed)
            }
            Growth::Number => {
                let op = self.op(front);
                let needed = match (&op.action, &op.answer) {
                    (Action::Incr { by, .. }, Some(Answer::Number(after))) => {
                        after.checked_sub(*by)
                    }
                    (Action::Get { .. }, Some(Answer::Value(Some(value)))) => state::number(value),
                    (_, _) => None,
                };
                needed.is_some_and(|needed| state::number(value).is_some_and(|is| is > needed))
            }
        }
    }

    /// How long the value was that the operation found, where its answer tells.
    fn length_before(&self, index: u32) -> Option<usize> {
        let op = self.op(index);
        match (&op.action, &op.answer) {
            (Action::Append { value, .. }, Some(Answer::Number(after))) => {
                usize::try_from(*after).ok()?.checked_sub(value.len())
            }
            (Action::Get { .. }, Some(Answer::Value(Some(value)))) => Some(value.len()),
            (_, _) => None,
        }
    }

    /// Whether the answer says that nothing was changed.
    pub(super) fn is_observation(&self, index: u32) -> bool {
        let op = self.op(index);
        op.action.is_read()
            || match &op.answer {
                Some(Answer::Bool(false) | Answer::Failed) => true,
                Some(Answer::Value(value)) => {
                    value.is_none() && matches!(op.action, Action::GetDelete { .. })
                }
                Some(Answer::Done | Answer::Bool(true) | Answer::Values(_) | Answer::Number(_))
                | None => false,
            }
    }

    /// Whether the value that the operation sets is told by no answer.
    pub(super) fn is_unseen(&self, index: u32) -> bool {
        match &self.op(index).action {
            Action::Set { value, .. } => !self.computed && *value == self.unseen,
            Action::Get { .. }
            | Action::GetMany { .. }
            | Action::SetMany { .. }
            | Action::Swap { .. }
            | Action::Incr { .. }
            | Action::Append { .. }
            | Action::Delete { .. }
            | Action::GetDelete { .. } => false,
        }
    }

    pub(super) fn op(&self, index: u32) -> &Op {
        &self.ops[index as usize]
    }

    /// Makes operations equal that no answer can tell apart. Where values are only ever compared with
    /// answers and conditions, all values that none of these names are as good as one; and of an
    /// operation in doubt nobody knows what it would have answered.
    fn merge_alike(&mut self) {
        for op in self.ops.iter_mut().filter(|op| op.answer.is_none()) {
            match &op.action {
                Action::Swap { key, value } => op.action = Action::set(key.clone(), value.clone()),
                Action::GetDelete { key } => op.action = Action::delete(key.clone()),
                Action::Get { .. }
                | Action::GetMany { .. }
                | Action::Set { .. }
                | Action::SetMany { .. }
                | Action::Incr { .. }
                | Action::Append { .. }
                | Action::Delete { .. } => {}
            }
        }
        if self.computed {
            return;
        }
        let seen: BTreeSet<Bytes> = self.ops.iter().flat_map(seen_by).collect();
        let mut unseen = b"unseen".to_vec();
        while seen.contains(unseen.as_slice()) {
            unseen.push(b'!');
        }
        self.unseen = unseen.into();
        for op in &mut self.ops {
            match &mut op.action {
                Action::Set { value, .. } | Action::Swap { value, .. } => {
                    blind(value, &seen, &self.unseen);
                }
                Action::SetMany { pairs } => {
                    pairs.iter_mut().for_each(|(_, value)| blind(value, &seen, &self.unseen));
                }
                Action::Get { .. }
                | Action::GetMany { .. }
                | Action::Incr { .. }
                | Action::Append { .. }
                | Action::Delete { .. }
                | Action::GetDelete { .. } => {}
            }
        }
    }

    /// Whether a key is there that must have been gone before something invoked `now`.
    fn is_overdue(&self, state: &State, now: u64) -> bool {
        (0..state.len())
            .any(|slot| self.lease(state, slot).is_some_and(|lease| lease.gone_by < now))
    }

    fn lease(&self, state: &State, slot: usize) -> Option<Lease> {
        let Cell { lease, .. } = state[slot].as_ref()?;
        lease.and_then(|lease| self.leases.get(&lease).copied())
    }
}

fn root(parents: &mut [usize], mut id: usize) -> usize {
    while parents[id] != id {
        parents[id] = parents[parents[id]];
        id = parents[id];
    }
    id
}

fn is_plain(action: &Action) -> bool {
    match action {
        Action::Get { .. } | Action::Swap { .. } => true,
        Action::Set { when, ttl, .. } => *when == When::Always && ttl.is_none(),
        Action::GetMany { .. }
        | Action::SetMany { .. }
        | Action::Incr { .. }
        | Action::Append { .. }
        | Action::Delete { .. }
        | Action::GetDelete { .. } => false,
    }
}

fn is_computed(action: &Action) -> bool {
    match action {
        Action::Incr { .. } | Action::Append { .. } => true,
        Action::Get { .. }
        | Action::GetMany { .. }
        | Action::Set { .. }
        | Action::SetMany { .. }
        | Action::Swap { .. }
        | Action::Delete { .. }
        | Action::GetDelete { .. } => false,
    }
}

fn leases(rules: &Rules, ops: &[Op]) -> HashMap<u32, Lease> {
    let mut leases = HashMap::new();
    for (index, op) in (0u32..).zip(ops) {
        if let Action::Set { ttl: Some(ttl), .. } = op.action {
            let gone_from = op.invoked.saturating_add(ttl).saturating_sub(rules.expiry_early);
            let gone_by = match rules.expiry_late {
                Some(late) => op.returned.saturating_add(ttl).saturating_add(late),
                None => u64::MAX,
            };
            leases.insert(index, Lease { gone_from, gone_by });
        }
    }
    leases
}

fn growth(ops: &[Op]) -> Growth {
    let only = |allowed: fn(&Action) -> bool| {
        ops.iter().all(|op| matches!(op.action, Action::Get { .. }) || allowed(&op.action))
    };
    if only(|action| matches!(action, Action::Incr { by, .. } if *by > 0)) {
        Growth::Number
    } else if only(|action| matches!(action, Action::Append { .. })) {
        let read = ops.iter().flat_map(seen_by);
        Growth::Text(read.max_by_key(Bytes::len).unwrap_or_default())
    } else {
        Growth::None
    }
}

/// The values that an operation's answer or condition names.
fn seen_by(op: &Op) -> Vec<Bytes> {
    let mut seen = match &op.answer {
        Some(Answer::Value(value)) => value.iter().cloned().collect(),
        Some(Answer::Values(values)) => values.iter().flatten().cloned().collect(),
        Some(Answer::Done | Answer::Bool(_) | Answer::Number(_) | Answer::Failed) | None => {
            Vec::new()
        }
    };
    if let Action::Set { when: When::Equal(expected), .. } = &op.action {
        seen.push(expected.clone());
    }
    seen
}

fn blind(value: &mut Bytes, seen: &BTreeSet<Bytes>, unseen: &Bytes) {
    if !seen.contains(value) {
        *value = unseen.clone();
    }
}
