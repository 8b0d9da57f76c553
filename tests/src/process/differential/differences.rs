//! The table of intended differences, and a rule for each of its rows.

use std::collections::BTreeSet;

use scatterhoard_resp::Value;

use super::talk::{Answer, Request};

/// A command, and what both answered to it.
pub(super) struct Exchange<'a> {
    pub(super) words: &'a [Vec<u8>],
    pub(super) redis: &'a Answer,
    pub(super) hoard: &'a Answer,
}

/// What a difference means for what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Both hold the same still.
    GoesOn,
    /// They hold different things, or speak differently: the rest of the script is not compared.
    Parts,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// Commands, the last of which shows the difference.
    pub example: Vec<Request>,
}

/// The table.
#[derive(Debug)]
pub struct Differences {
    rows: Vec<Row>,
}

const TABLE: &str = include_str!("../../../../docs/redis-differences.md");

type Rule = fn(&Exchange<'_>) -> Option<Then>;

/// In the order of the table. The first rule that applies counts.
const RULES: [(&str, Rule); 28] = [
    ("version", version),
    ("client-id", |it| it.is(b"client id").then_some(()).and_then(|()| it.both_integers())),
    ("client-fields", client_fields),
    ("unknown-command", unknown_command),
    ("command-table", command_table),
    ("help", help),
    ("cluster-words", cluster_words),
    ("memory-doctor", |it| it.is(b"memory doctor").then_some(Then::GoesOn)),
    ("memory-usage", memory_usage),
    ("slowlog", |it| it.is(b"slowlog len").then_some(()).and_then(|()| it.both_integers())),
    ("time", |it| it.is(b"time").then_some(Then::GoesOn)),
    ("odd-bytes-in-errors", odd_bytes_in_errors),
    ("cross-slot", cross_slot),
    ("one-database", one_database),
    ("bad-expiry", bad_expiry),
    ("float-range", float_range),
    ("config-names", config_names),
    ("config-twice", config_twice),
    ("random-key", random_key),
    ("order-of-keys", order_of_keys),
    ("time-left", time_left),
    ("object-freq", object_freq),
    ("object-refcount", |it| {
        it.is(b"object refcount").then_some(()).and_then(|()| it.both_integers())
    }),
    ("float-encoding", float_encoding),
    ("command-notes", command_notes),
    ("long-words-in-errors", long_words_in_errors),
    ("cursor-with-nul", cursor_with_nul),
    ("expired-counted", expired_counted),
];

impl Exchange<'_> {
    /// Whether the command begins with these words, in any case of letters.
    fn is(&self, words: &[u8]) -> bool {
        let mut words =
            words.split(|&byte| byte == b' ').zip(self.words.iter().map(Some).chain([None; 2]));
        words.all(|(name, word)| word.is_some_and(|word| word.eq_ignore_ascii_case(name)))
    }

    fn values(&self) -> (&Value, &Value) {
        (&self.redis.value, &self.hoard.value)
    }

    fn both_integers(&self) -> Option<Then> {
        matches!(self.values(), (Value::Integer(_), Value::Integer(_))).then_some(Then::GoesOn)
    }

    fn both_errors(&self) -> Option<(&str, &str)> {
        match self.values() {
            (Value::Error(redis), Value::Error(hoard)) => Some((redis, hoard)),
            _ => None,
        }
    }

    /// What the node refused, if it did.
    fn refused(&self) -> Option<&str> {
        match &self.hoard.value {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }
}

fn goes_on_if(condition: bool) -> Option<Then> {
    condition.then_some(Then::GoesOn)
}

/// The pairs of a map, which is a flat array in RESP2.
fn pairs(value: &Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs.clone(),
        Value::Array(items) => {
            items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// All but the version and the number of the client.
fn version(it: &Exchange<'_>) -> Option<Then> {
    let rest = |value: &Value| {
        let own = [Value::Bulk(b"version".to_vec()), Value::Bulk(b"id".to_vec())];
        pairs(value).into_iter().filter(|(key, _)| !own.contains(key)).collect::<Vec<_>>()
    };
    let (redis, hoard) = it.values();
    goes_on_if(it.is(b"hello") && !rest(redis).is_empty() && rest(redis) == rest(hoard))
}

/// Each field that Redis has is there.
fn client_fields(it: &Exchange<'_>) -> Option<Then> {
    let fields = |value: &Value| match value {
        Value::Bulk(text) | Value::Verbatim { text, .. } => {
            let text = String::from_utf8_lossy(text).into_owned();
            let words = text.split_whitespace().filter_map(|word| word.split_once('='));
            words.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>()
        }
        _ => BTreeSet::new(),
    };
    let (redis, hoard) = (fields(&it.redis.value), fields(&it.hoard.value));
    let is_asked = it.is(b"client info") || it.is(b"client list");
    goes_on_if(is_asked && !redis.is_empty() && redis.is_subset(&hoard))
}

/// Read-only ones, of which a script may have some: both hold the same after them.
fn unknown_command(it: &Exchange<'_>) -> Option<Then> {
    let known_to_redis = [&b"llen"[..], b"lcs"].into_iter().any(|name| it.is(name));
    goes_on_if(known_to_redis && it.refused()?.starts_with("ERR unknown command"))
}

fn command_table(it: &Exchange<'_>) -> Option<Then> {
    let names = |value: &Value| match value {
        Value::Array(items) => {
            let name = |item: &Value| match item {
                Value::Array(entry) => entry.first().cloned(),
                other => Some(other.clone()),
            };
            items.iter().filter_map(name).map(|name| format!("{name:?}")).collect::<BTreeSet<_>>()
        }
        _ => BTreeSet::new(),
    };
    let (redis, hoard) = it.values();
    let is_whole = it.words.len() == 1 || (it.words.len() == 2 && it.is(b"command info"));
    if it.is(b"command count") {
        return it.both_integers();
    }
    let is_list = it.is(b"command list") || (it.is(b"command") && is_whole);
    goes_on_if(is_list && !names(hoard).is_empty() && names(redis).len() > names(hoard).len())
}

/// The same first line, and the same last word.
fn help(it: &Exchange<'_>) -> Option<Then> {
    let is_help = it.words.len() == 2 && it.words[1].eq_ignore_ascii_case(b"help");
    let (Value::Array(redis), Value::Array(hoard)) = it.values() else { return None };
    let named = |lines: &[Value]| {
        let at = lines.len().checked_sub(2)?;
        Some((lines.first()?.clone(), lines[at].clone()))
    };
    goes_on_if(is_help && named(redis).is_some() && named(redis) == named(hoard))
}

fn cluster_words(it: &Exchange<'_>) -> Option<Then> {
    let is_one = [&b"readonly"[..], b"readwrite", b"asking"].into_iter().any(|name| it.is(name));
    goes_on_if(is_one && it.hoard.value == Value::Simple("OK".to_owned()))
}

/// The same text up to the first byte that is odd, where Redis may end it.
fn odd_bytes_in_errors(it: &Exchange<'_>) -> Option<Then> {
    let is_odd = |word: &Vec<u8>| word.contains(&0) || str::from_utf8(word).is_err();
    let (redis, hoard) = it.both_errors()?;
    let odd = |c: char| c == '\0' || c == '\u{fffd}';
    let until = hoard.find(odd).unwrap_or(hoard.len());
    let same = hoard.get(..until).is_some_and(|text| redis.starts_with(text));
    goes_on_if(it.words.iter().any(is_odd) && until > "ERR ".len() && same)
}

/// Other numbers; and Redis still counts a key that has expired, until it is looked at.
fn memory_usage(it: &Exchange<'_>) -> Option<Then> {
    let both = matches!(it.values(), (Value::Integer(_), Value::Integer(_) | Value::Null));
    goes_on_if(it.is(b"memory usage") && both)
}

/// Redis counts a key that was expired when it was set, until it is looked at.
fn expired_counted(it: &Exchange<'_>) -> Option<Then> {
    let (Value::Integer(redis), Value::Integer(hoard)) = it.values() else { return None };
    goes_on_if(it.is(b"dbsize") && redis > hoard)
}

fn cross_slot(it: &Exchange<'_>) -> Option<Then> {
    let names = [&b"rename"[..], b"renamenx", b"copy", b"msetnx"];
    let is_one = names.into_iter().any(|name| it.is(name));
    (is_one && it.refused()?.starts_with("CROSSSLOT ")).then_some(Then::Parts)
}

fn one_database(it: &Exchange<'_>) -> Option<Then> {
    let refused = it.refused()?;
    let is_copy = it.is(b"copy") && refused == "ERR DB index is out of range";
    let is_select = it.is(b"select") && refused == "ERR DB index is out of range";
    (is_copy || is_select).then_some(Then::Parts)
}

fn bad_expiry(it: &Exchange<'_>) -> Option<Then> {
    let refused = it.refused()?;
    let is_expiry = refused == "ERR invalid expire time in 'getex' command"
        || refused == "ERR value is not an integer or out of range";
    goes_on_if(it.is(b"getex") && is_expiry && it.redis.value == Value::Null)
}

fn float_range(it: &Exchange<'_>) -> Option<Then> {
    // Too long for 64 bits, too long even for Redis, or in hexadecimal.
    let is_outcome = |value: &Value| match value {
        Value::Bulk(_) => true,
        Value::Error(text) => {
            text == "ERR increment would produce NaN or Infinity"
                || text == "ERR value is not a valid float"
        }
        _ => false,
    };
    (it.is(b"incrbyfloat") && is_outcome(&it.redis.value) && is_outcome(&it.hoard.value))
        .then_some(Then::Parts)
}

/// The same settings, in any order and any case of letters.
fn config_names(it: &Exchange<'_>) -> Option<Then> {
    let lower = |value: Value| match value {
        Value::Bulk(text) => text.to_ascii_lowercase(),
        other => format!("{other:?}").into_bytes(),
    };
    let settings = |value: &Value| {
        let pairs = pairs(value).into_iter();
        pairs.map(|(name, value)| (lower(name), lower(value))).collect::<BTreeSet<_>>()
    };
    let (redis, hoard) = it.values();
    goes_on_if(it.is(b"config get") && settings(redis) == settings(hoard))
}

fn config_twice(it: &Exchange<'_>) -> Option<Then> {
    let (redis, hoard) = it.both_errors()?;
    let is_unknown = redis.starts_with("ERR Unknown option");
    goes_on_if(it.is(b"config set") && is_unknown && hoard.ends_with("duplicate parameter"))
}

fn random_key(it: &Exchange<'_>) -> Option<Then> {
    let both = matches!(it.values(), (Value::Bulk(_), Value::Bulk(_)));
    goes_on_if(it.is(b"randomkey") && both)
}

/// The same keys in another order; and of a scan in steps, any that go on.
fn order_of_keys(it: &Exchange<'_>) -> Option<Then> {
    let sorted = |value: &Value| match value {
        Value::Array(keys) => {
            let mut keys: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
            keys.sort_unstable();
            Some(keys)
        }
        _ => None,
    };
    let (redis, hoard) = it.values();
    if it.is(b"keys") {
        return goes_on_if(sorted(redis)? == sorted(hoard)?);
    }
    let (Value::Array(redis), Value::Array(hoard)) = (redis, hoard) else { return None };
    let ([at, keys], [other_at, other_keys]) = (&redis[..], &hoard[..]) else { return None };
    let is_over = |cursor: &Value| *cursor == Value::Bulk(b"0".to_vec());
    let same = sorted(keys)? == sorted(other_keys)?;
    goes_on_if(it.is(b"scan") && (same || !is_over(at) || !is_over(other_at)))
}

/// Two clocks, and two moments: within two seconds.
fn time_left(it: &Exchange<'_>) -> Option<Then> {
    if it.is(b"object idletime") {
        // Redis shares small numbers, and their clock with them: any number of seconds.
        return it.both_integers();
    }
    let in_seconds = [&b"ttl"[..], b"expiretime"];
    let millis = if in_seconds.into_iter().any(|name| it.is(name)) {
        1000
    } else if it.is(b"pttl") || it.is(b"pexpiretime") {
        1
    } else {
        return None;
    };
    let (Value::Integer(redis), Value::Integer(hoard)) = it.values() else { return None };
    let apart = redis.abs_diff(*hoard).saturating_mul(millis);
    goes_on_if(*redis >= 0 && *hoard >= 0 && apart <= 2000)
}

fn object_freq(it: &Exchange<'_>) -> Option<Then> {
    let is_counted = matches!(it.hoard.value, Value::Integer(_));
    let is_refused = matches!(&it.redis.value, Value::Error(text) if text.contains("LFU"));
    goes_on_if(it.is(b"object freq") && is_counted && is_refused)
}

fn float_encoding(it: &Exchange<'_>) -> Option<Then> {
    let is = |value: &Value, text: &[u8]| *value == Value::Bulk(text.to_vec());
    let (redis, hoard) = it.values();
    goes_on_if(it.is(b"object encoding") && is(redis, b"embstr") && is(hoard, b"int"))
}

/// The same without the notes.
fn command_notes(it: &Exchange<'_>) -> Option<Then> {
    let (redis, hoard) = it.values();
    goes_on_if(it.is(b"command info") && noteless(redis) == noteless(hoard))
}

/// A value as text without `notes` and what follows it.
fn noteless(value: &Value) -> String {
    let notes = Value::Bulk(b"notes".to_vec());
    let all = |values: &[Value]| values.iter().map(noteless).collect::<Vec<_>>().join(" ");
    match value {
        Value::Array(items) if items.contains(&notes) => {
            let kept: Vec<_> = pairs(value).into_iter().filter(|(key, _)| *key != notes).collect();
            kept.iter().map(|(key, value)| all(&[key.clone(), value.clone()])).collect()
        }
        Value::Map(pairs) => {
            let kept = pairs.iter().filter(|(key, _)| *key != notes);
            kept.map(|(key, value)| all(&[key.clone(), value.clone()])).collect()
        }
        Value::Array(items) => {
            let is_flat_map = items.first() == Some(&Value::Bulk(b"flags".to_vec()));
            if is_flat_map {
                pairs(value).iter().map(|(key, value)| all(&[key.clone(), value.clone()])).collect()
            } else {
                format!("[{}]", all(items))
            }
        }
        Value::Set(items) => format!("[{}]", all(items)),
        other => format!("{other:?}"),
    }
}

/// Up to where ours is cut.
fn long_words_in_errors(it: &Exchange<'_>) -> Option<Then> {
    let (redis, hoard) = it.both_errors()?;
    let until = hoard.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
    let is_long = it.words.iter().any(|word| word.len() > 128);
    goes_on_if(is_long && until > "ERR ".len() && redis.starts_with(&hoard[..until]))
}

fn cursor_with_nul(it: &Exchange<'_>) -> Option<Then> {
    let has_nul = it.words.get(1).is_some_and(|word| word.contains(&0));
    goes_on_if(it.is(b"scan") && has_nul && it.refused()? == "ERR invalid cursor")
}

impl Differences {
    /// Reads the table.
    ///
    /// # Panics
    /// If a row has no rule, or a rule no row.
    #[must_use]
    pub fn read() -> Self {
        let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `"));
        let rows = rows.map(|line| {
            let mut columns = line.split(" | ");
            let name = columns.next().expect("a row has columns").trim_end_matches('`');
            let example = columns.next().expect("a row has an example");
            let example = example.split("<br>").map(|it| Request::parse(it.trim_matches('`')));
            Row { name, example: example.collect() }
        });
        let rows: Vec<_> = rows.collect();
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names, RULES.map(|(name, _)| name), "each row has a rule, in the same order");
        Self { rows }
    }

    /// Its rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row that allows this difference.
    pub(super) fn allow(&self, exchange: &Exchange<'_>) -> Option<(&'static str, Then)> {
        RULES.iter().find_map(|(name, rule)| Some((*name, rule(exchange)?)))
    }
}
