//! Whether what clients put into one pipeline came in its order. Pure.
//!
//! Linearizability says nothing of that: commands of a pipeline are under way at the same time. So clients append
//! words that say where they belong, and the texts that anyone read tell in which order they came.

use std::collections::BTreeMap;

use scatterhoard_check::history::{Action, Answer, Operation, Outcome};

/// What keys begin with to which only such words are appended.
pub const PREFIX: &str = "order:";

/// The word at this place of a client's pipeline.
#[must_use]
pub fn word(client: u32, pipeline: u32, place: u32) -> String {
    format!("{client}.{pipeline}.{place},")
}

/// What came before what it should have come after, for each key at most once.
#[must_use]
pub fn broken(history: &[Operation]) -> Vec<String> {
    let mut broken: BTreeMap<&[u8], String> = BTreeMap::new();
    for operation in history {
        let Action::Get { key } = &operation.action else { continue };
        let Outcome::Done { answer: Answer::Value(Some(text)), .. } = &operation.outcome else {
            continue;
        };
        if key.starts_with(PREFIX.as_bytes())
            && !broken.contains_key(&key[..])
            && let Some(why) = broken_in(&String::from_utf8_lossy(text))
        {
            broken.insert(key, format!("out of order: in {} {why}", key.escape_ascii()));
        }
    }
    broken.into_values().collect()
}

fn broken_in(text: &str) -> Option<String> {
    let mut last: BTreeMap<&str, u32> = BTreeMap::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let parts = word.rsplit_once('.');
        let place = parts.and_then(|(pipeline, place)| Some((pipeline, place.parse().ok()?)));
        let Some((pipeline, place)) = place else {
            return Some(format!("is {word:?}, which nobody appended"));
        };
        if let Some(before) = last.insert(pipeline, place).filter(|&before| before >= place) {
            return Some(format!("{pipeline}.{before} comes before {word}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, text: &str) -> Operation {
        let outcome = Outcome::Done { answer: Answer::value(text.to_owned()), at: 2 };
        Operation { client: 0, action: Action::get(key.to_owned()), invoked: 1, outcome }
    }

    fn text(places: &[(u32, u32, u32)]) -> String {
        places.iter().map(|&(client, pipeline, place)| word(client, pipeline, place)).collect()
    }

    #[test]
    fn pipelines_may_interleave_and_have_gaps() {
        let fine = text(&[(1, 7, 0), (2, 7, 0), (1, 7, 2), (1, 8, 0), (2, 7, 1), (2, 7, 3)]);
        assert!(broken(&[read("order:1", &fine), read("order:2", "")]).is_empty());
    }

    #[test]
    fn a_later_word_of_a_pipeline_may_not_come_before_an_earlier_one_or_twice() {
        let late = text(&[(1, 7, 0), (1, 7, 2), (2, 3, 0), (1, 7, 1)]);
        let twice = text(&[(1, 7, 0), (1, 7, 0)]);
        let history = [read("order:1", &late), read("order:1", &late), read("order:2", &twice)];
        assert_eq!(
            broken(&history),
            [
                "out of order: in order:1 1.7.2 comes before 1.7.1",
                "out of order: in order:2 1.7.0 comes before 1.7.0"
            ]
        );
    }

    #[test]
    fn other_keys_hold_what_they_like() {
        assert!(broken(&[read("text:1", "1.7.2,1.7.1,"), read("register:1", "x")]).is_empty());
    }
}
