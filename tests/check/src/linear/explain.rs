//! Tells people why a history has no order: which answer cannot be, who wrote what it tells, and a timeline
//! of the operations around it.

use std::fmt::Write as _;

use bytes::Bytes;

use super::object;
use crate::history::{Action, Answer, Operation, Outcome, When};

/// Operations in a timeline at most: what fits on a screen.
const LINES_MAX: usize = 24;
/// Width of the drawn time, in characters.
const COLUMNS: usize = 48;

/// What is wrong with the answer at position `culprit` of the history.
pub(super) fn explain(history: &[Operation], positions: &[usize], culprit: usize) -> String {
    let bad = &history[culprit];
    let mut text = format!(
        "not linearizable: {}\noperation {culprit} fits no order of what came before it: {}\n",
        object::name(history, positions),
        describe(bad)
    );
    for value in told(bad) {
        let _ = writeln!(text, "{}", origin(history, positions, &value));
    }
    text.push('\n');
    text.push_str(&timeline(history, positions, culprit));
    text
}

/// Where a value that was told comes from.
fn origin(history: &[Operation], positions: &[usize], value: &Bytes) -> String {
    let shown = shorten(value);
    let writers: Vec<usize> = positions
        .iter()
        .copied()
        .filter(|&position| written(&history[position].action).contains(&value))
        .collect();
    let lines: Vec<String> = writers
        .iter()
        .take(3)
        .map(|&position| {
            let what = match history[position].outcome {
                Outcome::Done { .. } => "was set by",
                Outcome::Refused { .. } => "was set by a REFUSED operation,",
                Outcome::Unknown => "was set by an operation in doubt,",
            };
            format!("{shown} {what} operation {position}: {}", describe(&history[position]))
        })
        .collect();
    if lines.is_empty() {
        format!("{shown} was set by no operation as it is")
    } else {
        lines.join("\n")
    }
}

/// The operations that overlap the bad one, those answered last before it, and the writers of what it
/// tells, drawn against time.
fn timeline(history: &[Operation], positions: &[usize], culprit: usize) -> String {
    let bad = &history[culprit];
    let end = bad.completed().unwrap_or(bad.invoked);
    let values = told(bad);
    let mut ranked: Vec<(bool, u64, usize)> = positions
        .iter()
        .copied()
        .filter(|&position| history[position].invoked <= end && position != culprit)
        .map(|position| {
            let operation = &history[position];
            let wrote = written(&operation.action).iter().any(|&value| values.contains(value));
            let last = operation.completed().unwrap_or(operation.invoked).min(end);
            (wrote, last, position)
        })
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let left_out = ranked.len().saturating_sub(LINES_MAX - 1);
    ranked.truncate(LINES_MAX - 1);
    let mut shown: Vec<usize> = ranked.into_iter().map(|(_, _, position)| position).collect();
    shown.push(culprit);
    shown.sort_by_key(|&position| (history[position].invoked, position));
    let start = history[shown[0]].invoked;

    let mut text = String::new();
    for position in shown {
        let operation = &history[position];
        let flag = if position == culprit { '>' } else { ' ' };
        let _ = writeln!(text, "{flag}{} {}", bar(operation, start, end), describe(operation));
    }
    if left_out > 0 {
        let _ = writeln!(text, " … and {left_out} earlier operations on this object");
    }
    text
}

/// When an operation was under way: `├──┤` if it was answered, `├──…` if it is in doubt or was answered
/// after the end of the drawing.
fn bar(operation: &Operation, start: u64, end: u64) -> String {
    let column = |at: u64| {
        let (at, span) = (u128::from(at.clamp(start, end) - start), u128::from(end - start).max(1));
        usize::try_from(at * (COLUMNS as u128 - 1) / span).expect("a column fits the drawing")
    };
    let from = column(operation.invoked);
    let answered = operation.completed().filter(|&at| at <= end);
    let to = answered.map_or(COLUMNS - 1, column);
    (0..COLUMNS)
        .map(|place| match place {
            _ if place < from || place > to => ' ',
            _ if place == to => {
                if answered.is_some() {
                    '┤'
                } else {
                    '…'
                }
            }
            _ if place == from => '├',
            _ => '─',
        })
        .collect()
}

fn describe(operation: &Operation) -> String {
    let action = match &operation.action {
        Action::Get { key } => format!("GET {}", shorten(key)),
        Action::GetMany { keys } => {
            let keys: Vec<String> = keys.iter().map(|key| shorten(key)).collect();
            format!("MGET {}", keys.join(" "))
        }
        Action::Set { key, value, when, ttl } => {
            let when = match when {
                When::Always => String::new(),
                When::Absent => " NX".to_owned(),
                When::Present => " XX".to_owned(),
                When::Equal(expected) => format!(" IFEQ {}", shorten(expected)),
            };
            let ttl = ttl.map(|ttl| format!(" for {ttl}")).unwrap_or_default();
            format!("SET {} {}{when}{ttl}", shorten(key), shorten(value))
        }
        Action::SetMany { pairs } => pairs.iter().fold("MSET".to_owned(), |text, (key, value)| {
            format!("{text} {} {}", shorten(key), shorten(value))
        }),
        Action::Swap { key, value } => format!("SET {} {} GET", shorten(key), shorten(value)),
        Action::Incr { key, by } => format!("INCRBY {} {by}", shorten(key)),
        Action::Append { key, value } => format!("APPEND {} {}", shorten(key), shorten(value)),
        Action::Delete { key } => format!("DEL {}", shorten(key)),
        Action::GetDelete { key } => format!("GETDEL {}", shorten(key)),
    };
    let outcome = match &operation.outcome {
        Outcome::Done { answer, at } => format!("→ {} [{}, {at}]", say(answer), operation.invoked),
        Outcome::Refused { at } => format!("refused [{}, {at}]", operation.invoked),
        Outcome::Unknown => format!("in doubt [{}, …", operation.invoked),
    };
    format!("client {}: {action} {outcome}", operation.client)
}

fn say(answer: &Answer) -> String {
    let value = |value: &Option<Bytes>| {
        value.as_ref().map_or_else(|| "nil".to_owned(), |value| shorten(value))
    };
    match answer {
        Answer::Done => "OK".to_owned(),
        Answer::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Answer::Value(told) => value(told),
        Answer::Values(told) => told.iter().map(value).collect::<Vec<_>>().join(" "),
        Answer::Number(number) => number.to_string(),
        Answer::Failed => "error".to_owned(),
    }
}

/// The bytes for people: the first and the last few, if they are many.
fn shorten(bytes: &[u8]) -> String {
    if bytes.len() <= 32 {
        return bytes.escape_ascii().to_string();
    }
    let (first, last) = (&bytes[..14], &bytes[bytes.len() - 14..]);
    format!("{}…{}", first.escape_ascii(), last.escape_ascii())
}

fn told(operation: &Operation) -> Vec<Bytes> {
    match &operation.outcome {
        Outcome::Done { answer: Answer::Value(value), .. } => value.iter().cloned().collect(),
        Outcome::Done { answer: Answer::Values(values), .. } => {
            values.iter().flatten().cloned().collect()
        }
        Outcome::Done {
            answer: Answer::Done | Answer::Bool(_) | Answer::Number(_) | Answer::Failed,
            ..
        }
        | Outcome::Refused { .. }
        | Outcome::Unknown => Vec::new(),
    }
}

fn written(action: &Action) -> Vec<&Bytes> {
    match action {
        Action::Set { value, .. } | Action::Swap { value, .. } | Action::Append { value, .. } => {
            vec![value]
        }
        Action::SetMany { pairs } => pairs.iter().map(|(_, value)| value).collect(),
        Action::Get { .. }
        | Action::GetMany { .. }
        | Action::Incr { .. }
        | Action::Delete { .. }
        | Action::GetDelete { .. } => Vec::new(),
    }
}
