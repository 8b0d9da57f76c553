//! Histories as text, one operation a line, so that a failing one can be kept, read and judged again.
//!
//! ```text
//! CLIENT INVOKED OUTCOME AT ACTION ARGUMENTS… [= ANSWER…]
//! 3 1000 done 2500 set k v1 = ok
//! 4 1200 done 1900 get k = value nil
//! 5 1300 unknown - incr n 1
//! 6 1400 refused 1500 setnx k v2
//! ```
//!
//! Words stand apart by one space. In keys and values every byte but letters, digits and `_ . : { }` is
//! written `%` and two hexadecimal digits; the empty string is `%`; `nil` is `nil`, and the value "nil" is
//! `%6eil`. Empty lines and those that begin with `#` are skipped.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};

use bytes::Bytes;

use super::{Action, Answer, Operation, Outcome, When};

/// Why a text is not a history. Nothing was kept of it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading failed.
    #[error("cannot read the history")]
    Read(#[from] io::Error),
    /// This line, counted from 1, is not an operation.
    #[error("line {line} is not an operation: {text}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The line.
        text: String,
    },
}

/// Reads a history.
///
/// # Errors
/// If reading fails, or with the first line that is not an operation.
pub fn read_lines(source: impl BufRead) -> Result<Vec<Operation>, FormatError> {
    let mut history = Vec::new();
    for (number, text) in (1..).zip(source.lines()) {
        let text = text?;
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse(&text) {
            Some(operation) => history.push(operation),
            None => return Err(FormatError::Line { line: number, text }),
        }
    }
    Ok(history)
}

/// Writes a history.
///
/// # Errors
/// If writing fails; some lines may have been written then.
pub fn write_lines(history: &[Operation], mut target: impl Write) -> io::Result<()> {
    history.iter().try_for_each(|operation| writeln!(target, "{}", write_line(operation)))
}

/// One operation as a line, without the line feed.
#[must_use]
pub fn write_line(operation: &Operation) -> String {
    let (outcome, at, answer) = match &operation.outcome {
        Outcome::Done { answer, at } => ("done", at.to_string(), Some(answer)),
        Outcome::Refused { at } => ("refused", at.to_string(), None),
        Outcome::Unknown => ("unknown", "-".to_owned(), None),
    };
    let mut line = format!("{} {} {outcome} {at}", operation.client, operation.invoked);
    for word in action_words(&operation.action) {
        line.push(' ');
        line.push_str(&word);
    }
    if let Some(answer) = answer {
        line.push_str(" = ");
        line.push_str(&answer_words(answer).join(" "));
    }
    line
}

fn parse(line: &str) -> Option<Operation> {
    let (request, answer) = match line.split_once(" = ") {
        Some((request, answer)) => (request, Some(answer)),
        None => (line, None),
    };
    let words: Vec<&str> = request.split(' ').collect();
    let [client, invoked, outcome, at, action @ ..] = words.as_slice() else { return None };
    let outcome = match (*outcome, answer) {
        ("done", Some(answer)) => {
            let words: Vec<&str> = answer.split(' ').collect();
            Outcome::Done { answer: parse_answer(&words)?, at: at.parse().ok()? }
        }
        ("refused", None) => Outcome::Refused { at: at.parse().ok()? },
        ("unknown", None) if *at == "-" => Outcome::Unknown,
        (_, _) => return None,
    };
    let (client, invoked) = (client.parse().ok()?, invoked.parse().ok()?);
    Some(Operation { client, action: parse_action(action)?, invoked, outcome })
}

fn action_words(action: &Action) -> Vec<String> {
    let words = |name: &str, bytes: &[&Bytes]| {
        let mut words = vec![name.to_owned()];
        words.extend(bytes.iter().map(|bytes| escape(bytes)));
        words
    };
    match action {
        Action::Get { key } => words("get", &[key]),
        Action::GetMany { keys } => words("mget", &keys.iter().collect::<Vec<_>>()),
        Action::Set { key, value, when, ttl } => {
            let mut words = match when {
                When::Always => words("set", &[key, value]),
                When::Absent => words("setnx", &[key, value]),
                When::Present => words("setxx", &[key, value]),
                When::Equal(expected) => words("cas", &[key, value, expected]),
            };
            if let Some(ttl) = ttl {
                words.extend(["ttl".to_owned(), ttl.to_string()]);
            }
            words
        }
        Action::SetMany { pairs } => {
            words("mset", &pairs.iter().flat_map(|(key, value)| [key, value]).collect::<Vec<_>>())
        }
        Action::Swap { key, value } => words("getset", &[key, value]),
        Action::Incr { key, by } => {
            let mut words = words("incr", &[key]);
            words.push(by.to_string());
            words
        }
        Action::Append { key, value } => words("append", &[key, value]),
        Action::Delete { key } => words("del", &[key]),
        Action::GetDelete { key } => words("getdel", &[key]),
    }
}

fn parse_action(words: &[&str]) -> Option<Action> {
    let set = |key: &str, value: &str, when: When, rest: &[&str]| {
        let ttl = match rest {
            [] => None,
            ["ttl", ttl] => Some(ttl.parse().ok()?),
            [..] => return None,
        };
        Some(Action::Set { key: unescape(key)?, value: unescape(value)?, when, ttl })
    };
    match words {
        ["get", key] => Some(Action::get(unescape(key)?)),
        ["mget", keys @ ..] => {
            let keys = keys.iter().map(|key| unescape(key)).collect::<Option<Vec<_>>>()?;
            Some(Action::GetMany { keys })
        }
        ["set", key, value, rest @ ..] => set(key, value, When::Always, rest),
        ["setnx", key, value, rest @ ..] => set(key, value, When::Absent, rest),
        ["setxx", key, value, rest @ ..] => set(key, value, When::Present, rest),
        ["cas", key, value, expected, rest @ ..] => {
            set(key, value, When::Equal(unescape(expected)?), rest)
        }
        ["mset", pairs @ ..] if pairs.len().is_multiple_of(2) => {
            let pair = |pair: &[&str]| Some((unescape(pair[0])?, unescape(pair[1])?));
            Some(Action::SetMany { pairs: pairs.chunks(2).map(pair).collect::<Option<_>>()? })
        }
        ["getset", key, value] => Some(Action::swap(unescape(key)?, unescape(value)?)),
        ["incr", key, by] => Some(Action::incr(unescape(key)?, by.parse().ok()?)),
        ["append", key, value] => Some(Action::append(unescape(key)?, unescape(value)?)),
        ["del", key] => Some(Action::delete(unescape(key)?)),
        ["getdel", key] => Some(Action::get_delete(unescape(key)?)),
        [..] => None,
    }
}

fn answer_words(answer: &Answer) -> Vec<String> {
    let word = |value: &Option<Bytes>| {
        value.as_ref().map_or_else(|| "nil".to_owned(), |value| escape(value))
    };
    match answer {
        Answer::Done => vec!["ok".to_owned()],
        Answer::Bool(yes) => vec![if *yes { "yes" } else { "no" }.to_owned()],
        Answer::Value(value) => vec!["value".to_owned(), word(value)],
        Answer::Values(values) => {
            let mut words = vec!["values".to_owned()];
            words.extend(values.iter().map(word));
            words
        }
        Answer::Number(number) => vec!["number".to_owned(), number.to_string()],
        Answer::Failed => vec!["failed".to_owned()],
    }
}

fn parse_answer(words: &[&str]) -> Option<Answer> {
    let value = |word: &str| match word {
        "nil" => Some(None),
        _ => unescape(word).map(Some),
    };
    match words {
        ["ok"] => Some(Answer::Done),
        ["yes"] => Some(Answer::Bool(true)),
        ["no"] => Some(Answer::Bool(false)),
        ["value", word] => Some(Answer::Value(value(word)?)),
        ["values", words @ ..] => {
            Some(Answer::Values(words.iter().map(|word| value(word)).collect::<Option<_>>()?))
        }
        ["number", number] => Some(Answer::Number(number.parse().ok()?)),
        ["failed"] => Some(Answer::Failed),
        [..] => None,
    }
}

fn escape(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "%".to_owned();
    }
    let mut word = String::with_capacity(bytes.len());
    for (place, &byte) in bytes.iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"_.:{}".contains(&byte);
        if plain && !(place == 0 && bytes == b"nil") {
            word.push(char::from(byte));
        } else {
            let _ = write!(word, "%{byte:02x}");
        }
    }
    word
}

fn unescape(word: &str) -> Option<Bytes> {
    if word == "%" {
        return Some(Bytes::new());
    }
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    (!bytes.is_empty()).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Operation> {
        let done = |action, answer| (action, Outcome::Done { answer, at: 9 });
        let set = |when, ttl| Action::Set { key: "k".into(), value: "v".into(), when, ttl };
        let values = vec![Some("nil".into()), None, Some(Bytes::new())];
        [
            done(Action::get("nil"), Answer::nil()),
            done(Action::get("k"), Answer::value("nil")),
            done(Action::get_many(["a", "", "= x"]), Answer::Values(values)),
            done(set(When::Always, Some(5)), Answer::Done),
            done(set(When::Absent, None), Answer::Bool(true)),
            done(set(When::Present, Some(1)), Answer::Bool(false)),
            done(set(When::Equal("\r\n\0%\u{e9}".into()), None), Answer::Bool(true)),
            done(Action::set_many([("a", "1"), ("{b}:c", "2")]), Answer::Done),
            done(Action::swap("k", "ttl"), Answer::value("a b")),
            done(Action::incr("k", i64::MIN), Answer::Number(-1)),
            done(Action::incr("k", 1), Answer::Failed),
            done(Action::append("k", "="), Answer::Number(3)),
            (Action::delete("k"), Outcome::Refused { at: 8 }),
            (Action::get_delete("k"), Outcome::Unknown),
        ]
        .into_iter()
        .map(|(action, outcome)| Operation { client: 7, action, invoked: 1, outcome })
        .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut text = Vec::new();
        write_lines(&all_kinds(), &mut text).unwrap();
        assert_eq!(read_lines(text.as_slice()).unwrap(), all_kinds());
    }

    #[test]
    fn a_line_reads_as_documented() {
        let text = "# a comment\n\n4 1200 done 1900 get k = value nil\n5 1300 unknown - incr n 1\n";
        let history = read_lines(text.as_bytes()).unwrap();
        let lines: Vec<String> = history.iter().map(write_line).collect();
        assert_eq!(lines, ["4 1200 done 1900 get k = value nil", "5 1300 unknown - incr n 1"]);
    }

    #[test]
    fn a_line_that_is_no_operation_is_named() {
        for line in
            ["", "x", "1 2 done 3 get k", "1 2 unknown 3 get k", "1 2 refused 3 get %x", "é"]
        {
            let text = format!("1 2 unknown - get k\n{line} \n");
            let error = read_lines(text.as_bytes()).unwrap_err();
            assert!(matches!(error, FormatError::Line { line: 2, .. }), "{line}: {error}");
        }
    }
}
