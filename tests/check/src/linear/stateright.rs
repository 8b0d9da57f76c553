//! The search against somebody else's: stateright's linearizability tester, on small random histories.
//!
//! It is given a sequential specification of its own as well, written from what the commands of Redis are
//! documented to do, so that a mistake in [`super::state`] shows too. An expiry is to it what the search
//! takes it for: an operation in doubt, invoked when the key may be gone.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::tests::{KEYS, Plan, a_value, join, mutate, plans, run, some_plans};
use super::{Rules, check, check_by};
use crate::history::{Action, Answer, Operation, Outcome, When};

/// Keys, their values, and which operation gave each its deadline.
#[derive(Clone, Debug, Default)]
struct Keyspace(BTreeMap<Bytes, (Bytes, Option<usize>)>);

#[derive(Clone, Debug)]
enum Event {
    /// The operation at this position of the history.
    Asked(usize, Action),
    /// The key goes, if it still has the deadline that this operation gave it.
    Expired(usize, Bytes),
}

impl Keyspace {
    fn value(&self, key: &Bytes) -> Option<Bytes> {
        self.0.get(key).map(|(value, _)| value.clone())
    }

    /// Sets a value; the deadline stays.
    fn change(&mut self, key: &Bytes, value: Bytes) {
        self.0.entry(key.clone()).or_default().0 = value;
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, deadline: Option<usize>) {
        self.0.insert(key.clone(), (value.clone(), deadline));
    }

    fn incr(&mut self, key: &Bytes, by: i64) -> Answer {
        let text = self.value(key).unwrap_or_else(|| "0".into());
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<i64>().ok());
        let Some(sum) = number.and_then(|number| number.checked_add(by)) else {
            return Answer::Failed;
        };
        self.change(key, sum.to_string().into());
        Answer::Number(sum)
    }

    fn ask(&mut self, position: usize, action: &Action) -> Answer {
        match action {
            Action::Get { key } => Answer::Value(self.value(key)),
            Action::GetMany { keys } => {
                Answer::Values(keys.iter().map(|key| self.value(key)).collect())
            }
            Action::Set { key, value, when, ttl } => {
                let before = self.value(key);
                let may = match when {
                    When::Always => true,
                    When::Absent => before.is_none(),
                    When::Present => before.is_some(),
                    When::Equal(expected) => before.as_ref() == Some(expected),
                };
                if may {
                    self.put(key, value, ttl.map(|_| position));
                }
                if *when == When::Always { Answer::Done } else { Answer::Bool(may) }
            }
            Action::SetMany { pairs } => {
                pairs.iter().for_each(|(key, value)| self.put(key, value, None));
                Answer::Done
            }
            Action::Swap { key, value } => {
                let before = self.value(key);
                self.put(key, value, None);
                Answer::Value(before)
            }
            Action::Incr { key, by } => self.incr(key, *by),
            Action::Append { key, value } => {
                let whole = [self.value(key).unwrap_or_default(), value.clone()].concat();
                let length = i64::try_from(whole.len()).expect("these values are short");
                self.change(key, whole.into());
                Answer::Number(length)
            }
            Action::Delete { key } => Answer::Bool(self.0.remove(key).is_some()),
            Action::GetDelete { key } => Answer::Value(self.0.remove(key).map(|(value, _)| value)),
        }
    }
}

impl SequentialSpec for Keyspace {
    type Op = Event;
    type Ret = Answer;

    fn invoke(&mut self, event: &Event) -> Answer {
        match event {
            Event::Asked(position, action) => self.ask(*position, action),
            Event::Expired(by, key) => {
                if self.0.get(key).is_some_and(|(_, deadline)| *deadline == Some(*by)) {
                    self.0.remove(key);
                }
                Answer::Done
            }
        }
    }
}

/// One thing that happens in a history.
enum Happens<Op, Ret> {
    Invoked(Op),
    Returned(Ret),
}

/// What happens when, in which thread.
type Events<Spec> =
    Vec<(u64, usize, Happens<<Spec as SequentialSpec>::Op, <Spec as SequentialSpec>::Ret>)>;

/// Tells stateright what happened, in order; each operation is a thread to it, so that any may overlap.
fn is_consistent<Spec>(spec: Spec, mut events: Events<Spec>) -> bool
where
    Spec: SequentialSpec + Clone,
    Spec::Op: Clone + std::fmt::Debug,
    Spec::Ret: Clone + std::fmt::Debug + PartialEq,
{
    let mut tester = LinearizabilityTester::new(spec);
    // What is asked at the moment of an answer overlaps what was answered.
    events.sort_by_key(|(at, _, happens)| (*at, matches!(happens, Happens::Returned(_))));
    for (_, thread, happens) in events {
        let told = match happens {
            Happens::Invoked(op) => tester.on_invoke(thread, op),
            Happens::Returned(ret) => tester.on_return(thread, ret),
        };
        told.expect("each thread does one thing");
    }
    tester.is_consistent()
}

/// Stateright's verdict.
fn stateright(rules: &Rules, history: &[Operation]) -> bool {
    let mut events = Vec::new();
    for (position, operation) in history.iter().enumerate() {
        let answered = match &operation.outcome {
            Outcome::Done { answer, at } => Some((*at, answer.clone())),
            Outcome::Unknown => None,
            Outcome::Refused { .. } => continue,
        };
        let asked = Event::Asked(position, operation.action.clone());
        events.push((operation.invoked, position, Happens::Invoked(asked)));
        if let Some((at, answer)) = answered {
            events.push((at, position, Happens::Returned(answer)));
        }
        if let Action::Set { key, ttl: Some(ttl), .. } = &operation.action {
            let from = (operation.invoked + ttl).saturating_sub(rules.expiry_early);
            let expired = Happens::Invoked(Event::Expired(position, key.clone()));
            events.push((from, history.len() + position, expired));
        }
    }
    is_consistent(Keyspace::default(), events)
}

/// Stateright's verdict by its own reference object, on a history of plain sets and gets of one key.
fn stateright_register(history: &[Operation]) -> bool {
    let mut events = Vec::new();
    for (position, operation) in history.iter().enumerate() {
        let op = match &operation.action {
            Action::Set { value, .. } => RegisterOp::Write(Some(value.clone())),
            Action::Get { .. } => RegisterOp::Read,
            other => panic!("{other:?} is no operation of a register"),
        };
        if !matches!(operation.outcome, Outcome::Refused { .. }) {
            events.push((operation.invoked, position, Happens::Invoked(op)));
        }
        if let Outcome::Done { answer, at } = &operation.outcome {
            let ret = match answer {
                Answer::Done => RegisterRet::WriteOk,
                Answer::Value(value) => RegisterRet::ReadOk(value.clone()),
                other => panic!("{other:?} is no answer of a register"),
            };
            events.push((*at, position, Happens::Returned(ret)));
        }
    }
    is_consistent(Register(None), events)
}

fn agree(rules: &Rules, history: &[Operation]) -> Result<(), TestCaseError> {
    let verdict = check_by(rules, history);
    let expected = stateright(rules, history);
    prop_assert_eq!(verdict.is_linearizable(), expected, "{}\n{:#?}", verdict, history);
    Ok(())
}

fn register_plans() -> impl Strategy<Value = Vec<Plan>> {
    let action = (any::<bool>(), a_value())
        .prop_map(|(read, value)| if read { Action::get("a") } else { Action::set("a", value) });
    plans(action, 7)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn the_search_agrees_with_stateright(
        plans in some_plans(6),
        which in 0..6usize,
        value in a_value(),
        number in 0..6i64,
        early in 0..10u64,
    ) {
        let rules = Rules { expiry_early: early, ..Rules::default() };
        let mut history = join(run(&plans, &KEYS, 25));
        agree(&rules, &history)?;
        mutate(&mut history, which, value, number);
        agree(&rules, &history)?;
    }

    #[test]
    fn the_search_agrees_with_stateright_and_its_register(
        plans in register_plans(),
        which in 0..7usize,
        value in a_value(),
        number in 0..3i64,
    ) {
        let mut history = run(&plans, &KEYS, 25);
        prop_assert_eq!(check(&history).is_linearizable(), stateright_register(&history));
        mutate(&mut history, which, value, number);
        let verdict = check(&history);
        let expected = stateright_register(&history);
        prop_assert_eq!(verdict.is_linearizable(), expected, "{}\n{:#?}", verdict, history);
    }
}
