//! Looks for an order of one object's operations: depth first, as in Wing and Gong's search with Lowe's
//! memory of configurations (set of operations placed, state), placing each answered operation no earlier
//! than the next answer asks for.
//!
//! What keeps it small, and why no order is missed. `front` is the unplaced operation that was answered
//! first; what can be placed next is what was invoked before that answer.
//!
//! - **Nothing changed, nothing to decide.** An operation whose answer says that it changed nothing is
//!   placed at once where that answer is right: in any order it can be moved to the front, and every other
//!   operation sees what it saw. (Not so a write that happens to change nothing here: elsewhere it would.)
//! - **Doubt comes last.** An operation in doubt is placed only directly before one that needs it. Take an
//!   order with the fewest of them, each as late as possible: if the next operation comes out the same
//!   without it, leaving it out gives a smaller order; if the two can be swapped, a later one. So neither
//!   needs to be tried.
//! - **Alike is alike.** Of equal operations in doubt the one invoked first is taken first: exchanging two
//!   of them in an order changes no state.
//! - **Needed values stay**, see [`super::ledger`].
//! - **Unseen writes hide.** Where there are only reads and unconditional writes, a write whose value
//!   nobody tells is placed directly before another write, together with all such writes that can be: in
//!   any order where it comes later, what follows it is a write, which does not see it, or nothing.
//!   For the same reason it is placed at once where another unseen value stands.

use std::collections::HashSet;

use super::ledger::Ledger;
use super::object::{Effect, Object};
use super::state::{self, State};
use crate::history::{Action, When};

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    NoOrder,
    /// The work bound was reached.
    TooHard,
}

/// A search through the orders of one object.
pub(super) struct Search<'a> {
    object: &'a Object,
    placed: Vec<bool>,
    /// The answered operations without a place, linked in the order of invocation. The last element of
    /// both is the anchor.
    next: Vec<u32>,
    previous: Vec<u32>,
    /// The answered operations in the order of their answers; before `front` all are placed.
    by_return: Vec<u32>,
    front: usize,
    classes: Vec<Class>,
    class_of: Vec<usize>,
    dues: Vec<u64>,
    ledger: Ledger,
    /// Stands for the set of placed operations: the exclusive or of their marks.
    set_mark: u128,
    seen: HashSet<u128>,
    work: u64,
    work_max: u64,
}

/// Operations in doubt that are equal, in the order of invocation; the first `used` are placed.
struct Class {
    ops: Vec<u32>,
    used: usize,
}

/// A configuration on the path, and what is still to be tried from it.
struct Frame {
    state: State,
    /// What was placed to come here, in order, and where `front` was before.
    placed: Vec<u32>,
    front_before: usize,
    /// The best is last.
    choices: Vec<Choice>,
    /// The chains of the length tried last; `None` before the first.
    chains: Option<Vec<Chain>>,
}

/// Some operations in doubt and expiries, then one answered operation.
struct Choice {
    doubtful: Vec<u32>,
    answered: u32,
    state: State,
    due: u64,
}

/// Operations in doubt and expiries, placed one after the other.
#[derive(Clone)]
struct Chain {
    doubtful: Vec<u32>,
    state: State,
    /// The last link, and the state before it.
    last: Option<(Link, State)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Op(u32),
    Expiry,
}

impl<'a> Search<'a> {
    pub(super) fn new(object: &'a Object, work_max: u64) -> Self {
        let anchor = index_of(object.ops.len());
        let mut next = vec![anchor; object.ops.len() + 1];
        let mut previous = next.clone();
        let mut by_return = Vec::new();
        let mut last = anchor;
        for (index, op) in (0u32..).zip(&object.ops) {
            if op.answer.is_some() {
                next[last as usize] = index;
                previous[index as usize] = last;
                last = index;
                by_return.push(index);
            }
        }
        previous[anchor as usize] = last;
        by_return.sort_by_key(|&index| object.op(index).returned);
        let (classes, class_of) = classes(object);
        let ledger = Ledger::new(object);
        Self {
            object,
            placed: vec![false; object.ops.len()],
            next,
            previous,
            by_return,
            front: 0,
            classes,
            class_of,
            dues: ledger.dues(object),
            ledger,
            set_mark: 0,
            seen: HashSet::new(),
            work: 0,
            work_max,
        }
    }

    pub(super) fn run(mut self) -> Found {
        if self.ledger.has_impossible_answer(self.object) {
            return Found::NoOrder;
        }
        let initial = vec![None; self.object.keys_count];
        let mut path = Vec::new();
        let mut entered = self.enter(&initial, Vec::new(), initial.clone());
        loop {
            if self.front == self.by_return.len() {
                return Found::Order;
            }
            if self.work > self.work_max {
                return Found::TooHard;
            }
            path.extend(entered.take());
            let Some(frame) = path.last_mut() else { return Found::NoOrder };
            match self.next_choice(frame) {
                Some(choice) => {
                    let mut placing = choice.doubtful;
                    self.hide_unseen(choice.answered, &mut placing);
                    placing.push(choice.answered);
                    entered = self.enter(&frame.state, placing, choice.state);
                }
                None => {
                    let frame = path.pop().expect("the path has a last frame");
                    self.undo(&frame.placed, frame.front_before);
                }
            }
        }
    }

    /// Places operations, then all that need no decision. `None`, and nothing placed, if that leads
    /// nowhere or where the search has been.
    fn enter(&mut self, source: &State, mut placing: Vec<u32>, target: State) -> Option<Frame> {
        let front_before = self.front;
        placing.iter().for_each(|&index| self.place(index));
        let mut open = !self.ledger.forbids(source, &target);
        if open {
            self.settle(&target, &mut placing);
            if let Some(&front) = self.by_return.get(self.front) {
                open = !self.object.is_hopeless(&target, front)
                    && self.seen.insert(self.set_mark ^ state::fingerprint(&target));
            }
        }
        if open {
            Some(Frame {
                choices: self.direct(&target),
                state: target,
                placed: placing,
                front_before,
                chains: None,
            })
        } else {
            self.undo(&placing, front_before);
            None
        }
    }

    /// Places every answered operation that needs no decision in this state.
    fn settle(&mut self, state: &State, placing: &mut Vec<u32>) {
        loop {
            self.advance();
            let before = placing.len();
            for index in self.candidates() {
                let free = self.object.is_observation(index)
                    || (self.object.plain && self.object.is_unseen(index));
                if free && let Effect::Same = self.effect(state, index) {
                    self.place(index);
                    placing.push(index);
                }
            }
            if placing.len() == before {
                return;
            }
        }
    }

    fn next_choice(&mut self, frame: &mut Frame) -> Option<Choice> {
        // If nothing at hand serves the front itself, doubt may: before a detour is taken, it is asked.
        let front = self.front_returned();
        if frame.chains.is_none() && frame.choices.last().is_none_or(|best| best.due > front) {
            self.lengthen(frame);
        }
        loop {
            if let Some(choice) = frame.choices.pop() {
                return Some(choice);
            }
            if self.work > self.work_max || !self.lengthen(frame) {
                return None;
            }
        }
    }

    /// The choices of one answered operation without any in doubt.
    fn direct(&mut self, state: &State) -> Vec<Choice> {
        let mut choices = Vec::new();
        for answered in self.candidates() {
            let target = match self.effect(state, answered) {
                Effect::Illegal => continue,
                Effect::Same => state.clone(),
                Effect::Next(target) => target,
            };
            let due = self.dues[answered as usize];
            choices.push(Choice { doubtful: Vec::new(), answered, state: target, due });
        }
        order(&mut choices);
        choices
    }

    /// Adds the choices whose chains are longer by one link. Returns whether there are such chains.
    fn lengthen(&mut self, frame: &mut Frame) -> bool {
        let start = Chain { doubtful: Vec::new(), state: frame.state.clone(), last: None };
        let shorter = frame.chains.take().unwrap_or_else(|| vec![start]);
        let mut longer = Vec::new();
        let mut seen = HashSet::new();
        for chain in &shorter {
            for chain in self.longer(chain) {
                if self.work > self.work_max {
                    break;
                }
                if seen.insert(self.chain_mark(&chain)) {
                    self.end(&chain, &mut frame.choices);
                    longer.push(chain);
                }
            }
        }
        order(&mut frame.choices);
        let any = !longer.is_empty();
        frame.chains = Some(longer);
        any
    }

    /// The chains with one more link, but for those whose last two links could be dropped or swapped.
    fn longer(&mut self, chain: &Chain) -> Vec<Chain> {
        let now = self.front_returned();
        let front = self.by_return[self.front];
        let mut longer = Vec::new();
        for state in self.object.expiries(&chain.state, now) {
            let last = Some((Link::Expiry, chain.state.clone()));
            longer.push(Chain { doubtful: chain.doubtful.clone(), state, last });
        }
        for class in 0..self.classes.len() {
            let Class { ops, used } = &self.classes[class];
            if self.object.op(ops[0]).invoked > now {
                break;
            }
            let linked = |&&index: &&u32| self.class_of[index as usize] == class;
            let used = used + chain.doubtful.iter().filter(linked).count();
            let Some(&index) = ops.get(used) else { continue };
            if self.object.op(index).invoked > now {
                continue;
            }
            let Effect::Next(state) = self.effect(&chain.state, index) else { continue };
            if self.is_idle(chain, index, &state) || self.object.is_hopeless(&state, front) {
                continue;
            }
            let mut doubtful = chain.doubtful.clone();
            doubtful.push(index);
            longer.push(Chain {
                doubtful,
                state,
                last: Some((Link::Op(index), chain.state.clone())),
            });
        }
        longer
    }

    /// Whether the chain's last link makes no difference to `index`, an operation in doubt that leads to
    /// `target`, or comes as well after it. Of two orders the one by class is kept.
    fn is_idle(&mut self, chain: &Chain, index: u32, target: &State) -> bool {
        let Some((link, before)) = &chain.last else { return false };
        let Effect::Next(without) = self.effect(before, index) else { return false };
        if without == *target {
            return true;
        }
        match *link {
            Link::Op(last) if self.class_of[last as usize] > self.class_of[index as usize] => {
                matches!(self.effect(&without, last), Effect::Next(swapped) if swapped == *target)
            }
            Link::Op(_) | Link::Expiry => false,
        }
    }

    /// Adds the choices that end this chain with an answered operation that needs it.
    fn end(&mut self, chain: &Chain, choices: &mut Vec<Choice>) {
        for answered in self.candidates() {
            let target = match self.effect(&chain.state, answered) {
                Effect::Illegal => continue,
                Effect::Same => chain.state.clone(),
                Effect::Next(target) => target,
            };
            if !self.is_needless(chain, answered, &target) {
                let doubtful = chain.doubtful.clone();
                let due = self.dues[answered as usize];
                choices.push(Choice { doubtful, answered, state: target, due });
            }
        }
    }

    /// Whether the answered operation comes out the same without the chain's last link, or before it.
    fn is_needless(&mut self, chain: &Chain, answered: u32, target: &State) -> bool {
        let Some((link, before)) = &chain.last else { return false };
        let without = match self.effect(before, answered) {
            Effect::Illegal => return false,
            Effect::Same => before.clone(),
            Effect::Next(without) => without,
        };
        if without == *target {
            return true;
        }
        match *link {
            Link::Op(last) => {
                matches!(self.effect(&without, last), Effect::Next(swapped) if swapped == *target)
            }
            Link::Expiry => {
                let now = self.front_returned();
                self.object.expiries(&without, now).contains(target)
            }
        }
    }

    /// Adds the unseen writes that are to stand directly before this write, if it is one.
    fn hide_unseen(&self, write: u32, placing: &mut Vec<u32>) {
        let is_write =
            matches!(&self.object.op(write).action, Action::Set { when: When::Always, .. });
        if self.object.plain && is_write {
            let hidden = |&index: &u32| index != write && self.object.is_unseen(index);
            placing.extend(self.candidates().into_iter().filter(hidden));
        }
    }

    /// The answered operations that can be next, in the order of their invocation.
    fn candidates(&self) -> Vec<u32> {
        let anchor = self.object.ops.len();
        let now = self.front_returned();
        let mut candidates = Vec::new();
        let mut index = self.next[anchor];
        while index as usize != anchor && self.object.op(index).invoked <= now {
            candidates.push(index);
            index = self.next[index as usize];
        }
        candidates
    }

    /// When the front was answered; what was invoked later cannot be next.
    fn front_returned(&self) -> u64 {
        self.by_return.get(self.front).map_or(u64::MAX, |&front| self.object.op(front).returned)
    }

    fn effect(&mut self, state: &State, index: u32) -> Effect {
        self.work += 1;
        self.object.effect(state, index)
    }

    fn advance(&mut self) {
        while self.by_return.get(self.front).is_some_and(|&index| self.placed[index as usize]) {
            self.front += 1;
        }
    }

    fn place(&mut self, index: u32) {
        assert!(!self.placed[index as usize], "an operation has one place");
        self.placed[index as usize] = true;
        self.set_mark ^= mark(index);
        self.ledger.strike(index);
        if self.object.op(index).answer.is_some() {
            let (before, after) = (self.previous[index as usize], self.next[index as usize]);
            self.next[before as usize] = after;
            self.previous[after as usize] = before;
        } else {
            self.classes[self.class_of[index as usize]].used += 1;
        }
    }

    /// Takes operations out again, the last first, so that each finds the neighbours that it left.
    fn undo(&mut self, placed: &[u32], front: usize) {
        for &index in placed.iter().rev() {
            self.placed[index as usize] = false;
            self.set_mark ^= mark(index);
            self.ledger.restore(index);
            if self.object.op(index).answer.is_some() {
                let (before, after) = (self.previous[index as usize], self.next[index as usize]);
                self.next[before as usize] = index;
                self.previous[after as usize] = index;
            } else {
                self.classes[self.class_of[index as usize]].used -= 1;
            }
        }
        self.front = front;
    }

    /// Stands for the operations of a chain, its state, and what its last link forbids.
    fn chain_mark(&self, chain: &Chain) -> u128 {
        let set = chain.doubtful.iter().fold(0, |set, &index| set ^ mark(index));
        let last = match &chain.last {
            None => 0,
            Some((Link::Expiry, before)) => state::fingerprint(before).rotate_left(1),
            Some((Link::Op(index), _)) => mark(*index).rotate_left(1),
        };
        set ^ state::fingerprint(&chain.state) ^ last
    }
}

/// Groups the operations in doubt that are equal. Those that set a deadline have each their own.
fn classes(object: &Object) -> (Vec<Class>, Vec<usize>) {
    let mut classes: Vec<Class> = Vec::new();
    let mut class_of = vec![usize::MAX; object.ops.len()];
    let mut places = std::collections::HashMap::new();
    for (index, op) in (0u32..).zip(&object.ops).filter(|(_, op)| op.answer.is_none()) {
        let own = matches!(op.action, Action::Set { ttl: Some(_), .. }).then_some(index);
        let class = *places.entry((&op.action, own)).or_insert_with(|| {
            classes.push(Class { ops: Vec::new(), used: 0 });
            classes.len() - 1
        });
        classes[class].ops.push(index);
        class_of[index as usize] = class;
    }
    (classes, class_of)
}

/// The best last: what is due first, with the shortest chain.
fn order(choices: &mut [Choice]) {
    choices.sort_by_key(|choice| std::cmp::Reverse((choice.due, choice.doubtful.len())));
}

/// 128 bits that stand for an operation in a set; two sets share theirs with a probability of 2^-128.
fn mark(index: u32) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&index.to_le_bytes())
}

fn index_of(position: usize) -> u32 {
    u32::try_from(position).expect("an object has fewer than 2^32 operations")
}
