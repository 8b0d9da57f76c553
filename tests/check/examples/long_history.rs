//! How long the checker takes: `cargo run --release -p scatterhoard-check --example long_history [COUNT]`.
//!
//! Makes up a history of so many operations (100,000 unless told otherwise) of 32 clients on 200 keys, a
//! tenth of them on one, one in a hundred in doubt, and judges it; then the same with one stale answer.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use scatterhoard_check::history::{Action, Answer, Operation, Outcome};
use scatterhoard_check::linear::{self, Verdict};

const CLIENTS_COUNT: u64 = 32;
const KEYS_COUNT: usize = 200;

fn main() {
    let count = std::env::args().nth(1).map_or(100_000, |count| count.parse().expect("a count"));
    let mut history = make_up(count);
    let (verdict, took) = judge(&history);
    println!("{verdict}, in {took:?}");
    make_stale(&mut history);
    let (verdict, took) = judge(&history);
    match verdict {
        Verdict::Violation(found) => {
            println!("one stale answer was found in {took:?}:\n{}", found.explanation);
        }
        Verdict::Linearizable { .. } | Verdict::TooHard { .. } => panic!("{verdict}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "it is measured how long something takes")]
fn judge(history: &[Operation]) -> (Verdict, Duration) {
    let started = std::time::Instant::now();
    let verdict = linear::check(history);
    (verdict, started.elapsed())
}

/// Operations happen one after the other, 10 apart, and each is under way for up to 320 around its moment:
/// as many overlap as there are clients.
fn make_up(count: u64) -> Vec<Operation> {
    let mut rng = StdRng::seed_from_u64(7);
    let mut values: BTreeMap<usize, String> = BTreeMap::new();
    let mut history = Vec::new();
    for number in 0..count {
        let key = if rng.random_ratio(1, 10) { 0 } else { rng.random_range(0..KEYS_COUNT) };
        let name = format!("key{key}");
        let moment = 1000 + 10 * number;
        let before = values.get(&key).cloned();
        let value = format!("v{number}");
        let (action, answer, after) = match rng.random_range(0..10) {
            0..5 => (Action::get(name), told(before.clone()), before),
            5..8 => (Action::set(name, value.clone()), Answer::Done, Some(value)),
            8 => (Action::swap(name, value.clone()), told(before), Some(value)),
            _ => (Action::delete(name), Answer::Bool(before.is_some()), None),
        };
        let happens = !rng.random_ratio(1, 200);
        let outcome = if happens && !rng.random_ratio(1, 200) {
            Outcome::Done { answer, at: moment + rng.random_range(0..160) }
        } else {
            Outcome::Unknown
        };
        match after {
            _ if !happens => None,
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        };
        let client = u32::try_from(number % CLIENTS_COUNT).expect("there are few clients");
        let invoked = moment - rng.random_range(0..160);
        history.push(Operation { client, action, invoked, outcome });
    }
    history
}

fn told(value: Option<String>) -> Answer {
    Answer::Value(value.map(Into::into))
}

/// The last read of the busiest key that found something gets the answer of the first that did.
fn make_stale(history: &mut [Operation]) {
    let found = |operation: &Operation| match (&operation.action, &operation.outcome) {
        (Action::Get { key }, Outcome::Done { answer: Answer::Value(Some(value)), .. }) => {
            (key == "key0").then(|| value.clone())
        }
        _ => None,
    };
    let first = history.iter().find_map(found).expect("the busiest key is read");
    let last = history.iter_mut().rfind(|it| found(it).is_some()).expect("it is read");
    if let Outcome::Done { answer, .. } = &mut last.outcome {
        *answer = Answer::value(first);
    }
}
