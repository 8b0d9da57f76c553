//! Judges a history: is there an order of its operations, each at one moment between its invocation and
//! its answer, in which every answer is the right one? (Herlihy and Wing, "Linearizability", 1990.)
//!
//! Keys that no operation names together are judged apart, because linearizability is local: a history is
//! linearizable exactly if each object's part of it is. An operation that was refused must have no effect,
//! so it takes part in no order. One in doubt may stand anywhere after its invocation, or nowhere.
//!
//! The verdict is exact, except that the search gives up on an object at a bound ([`Rules::work_max`]). The
//! values need not be unique, but unique values make a history sharper and the search faster.

#[cfg(test)]
mod brute;
mod explain;
mod ledger;
mod object;
mod search;
mod state;
#[cfg(test)]
mod stateright;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::Operation;
use object::Object;
use search::{Found, Search};

/// What is allowed, and how hard to look.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How much before its deadline a key may be gone, in the unit of the history's times. The deadline is
    /// at the earliest the invocation plus the time to live. Default 0.
    pub expiry_early: u64,
    /// How long after its deadline a key may still be there: the deadline is at the latest the answer plus
    /// the time to live. `None` (the default) does not judge lateness.
    pub expiry_late: Option<u64>,
    /// Steps after which the search gives up on an object. The default is some seconds of work.
    pub work_max: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { expiry_early: 0, expiry_late: None, work_max: 20_000_000 }
    }
}

/// What [`check`] finds.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// There is such an order for every object.
    Linearizable {
        /// How many operations were judged, those refused included.
        operations: usize,
        /// How many objects they were about.
        objects: usize,
    },
    /// There is no such order for this object.
    Violation(Violation),
    /// No violation was found, but the work bound was reached before this object was judged.
    TooHard {
        /// The object's keys.
        object: String,
        /// How many operations it has.
        operations: usize,
    },
}

/// The part of a history that has no order.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The object's keys.
    pub object: String,
    /// The answer that fits no order, as a position in the history. Without it and all that was answered
    /// later, the object's history is linearizable (or too hard to judge).
    pub culprit: usize,
    /// For people: what cannot be, and a timeline of the operations around it.
    pub explanation: String,
}

impl Verdict {
    /// Whether an order was found for every object.
    #[must_use]
    pub const fn is_linearizable(&self) -> bool {
        match self {
            Self::Linearizable { .. } => true,
            Self::Violation(_) | Self::TooHard { .. } => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable { operations, objects } => {
                write!(f, "linearizable: {operations} operations on {objects} objects")
            }
            Self::Violation(violation) => f.write_str(&violation.explanation),
            Self::TooHard { object, operations } => {
                write!(f, "too hard: {operations} operations on {object}")
            }
        }
    }
}

/// Judges a history by the default [`Rules`].
#[must_use]
pub fn check(history: &[Operation]) -> Verdict {
    check_by(&Rules::default(), history)
}

/// Judges a history. The first object with a violation, in the order of the history, is told.
#[must_use]
pub fn check_by(rules: &Rules, history: &[Operation]) -> Verdict {
    let objects = object::split(history);
    let mut hard = None;
    for positions in &objects {
        match judge(rules, history, positions, u64::MAX) {
            Found::Order => {}
            Found::NoOrder => return Verdict::Violation(narrow(rules, history, positions)),
            Found::TooHard => {
                hard.get_or_insert(positions);
            }
        }
    }
    match hard {
        Some(positions) => Verdict::TooHard {
            object: object::name(history, positions),
            operations: positions.len(),
        },
        None => Verdict::Linearizable { operations: history.len(), objects: objects.len() },
    }
}

/// Looks for an order of what was invoked by `now`; what was answered after it counts as in doubt.
fn judge(rules: &Rules, history: &[Operation], positions: &[usize], now: u64) -> Found {
    let object = Object::new(rules, history, positions, now);
    Search::new(&object, rules.work_max).run()
}

/// Finds the earliest moment at which there was no order any more: a longer prefix of a history without an
/// order has none either, so the moment can be bisected.
fn narrow(rules: &Rules, history: &[Operation], positions: &[usize]) -> Violation {
    let mut answered: Vec<(u64, usize)> = positions
        .iter()
        .filter(|&&position| {
            matches!(history[position].outcome, crate::history::Outcome::Done { .. })
        })
        .filter_map(|&position| Some((history[position].completed()?, position)))
        .collect();
    answered.sort_unstable();
    let first = answered
        .partition_point(|&(at, _)| judge(rules, history, positions, at) != Found::NoOrder)
        .min(answered.len().saturating_sub(1));
    // Among answers of one moment the one in the history that comes last is as good as any.
    let now = answered[first].0;
    let culprit =
        answered.iter().rev().find(|&&(at, _)| at == now).expect("`first` is one of these").1;
    Violation {
        object: object::name(history, positions),
        culprit,
        explanation: explain::explain(history, positions, culprit),
    }
}
