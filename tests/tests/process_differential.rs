//! Random commands to a real `redis-server` and to a node: the same replies, byte for byte, but for what
//! `docs/redis-differences.md` lists.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for more and other scripts.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use scatterhoard_tests::process::differential::{Pair, Request, Script};

/// Scripts in an ordinary run, about 15 seconds' worth in a debug build.
const SCRIPTS: u32 = 500;

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let pair = Pair::start();
    let mut runner = TestRunner::new(config());
    let used = RefCell::new(BTreeMap::<&str, u32>::new());
    let outcome = runner.run(&script(), |script| {
        let needed = pair.compare(&script).map_err(|mismatch| {
            TestCaseError::fail(format!("{mismatch}\n  in the script\n{script}"))
        })?;
        needed.into_iter().for_each(|name| *used.borrow_mut().entry(name).or_default() += 1);
        Ok(())
    });
    println!("differences met: {:?}", used.borrow());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn every_listed_difference_is_there() {
    let pair = Pair::start();
    for row in pair.differences().rows() {
        let script = Script { requests: row.example.clone(), pieces: Vec::new() };
        // A few rows are about chance or time, where both may be the same once.
        let shows = (0..200).any(|_| {
            let needed = pair.compare(&script).unwrap_or_else(|mismatch| panic!("{mismatch}"));
            assert!(needed.iter().all(|name| *name == row.name), "{}: {needed:?}", row.name);
            !needed.is_empty()
        });
        assert!(shows, "{}: there is no such difference", row.name);
    }
}

/// The same scripts in each run, unless asked for others.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let is_set = |name| std::env::var_os(name).is_some();
    let cases = if is_set("PROPTEST_CASES") { asked.cases } else { SCRIPTS };
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(6379),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 400, ..asked }
}

fn script() -> impl Strategy<Value = Script> {
    let hello = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Request::parse("HELLO 3"))),
    ];
    let pieces = prop_oneof![Just(Vec::new()), vec(1..40_usize, 1..6)];
    (hello, vec(request(), 1..25), pieces).prop_map(|(hello, mut requests, pieces)| {
        if requests.iter().any(|request| request.is("client reply")) {
            // Redis does not close if nobody is to hear of it.
            requests.retain(|request| !request.is("quit"));
        }
        Script { requests: hello.into_iter().chain(requests).collect(), pieces }
    })
}

/// What a command takes, word by word.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Key,
    /// One of a few keys that share a slot.
    Near,
    Value,
    Integer,
    Float,
    /// Seconds or milliseconds from now: far enough not to pass while the script runs, or past.
    Ttl,
    /// Seconds since 1970, likewise.
    Second,
    /// Milliseconds since 1970, likewise.
    Milli,
    /// A position or an offset.
    Position,
    Pattern,
    Word(&'static str),
}

use Slot::{Float, Integer, Key, Milli, Near, Pattern, Position, Second, Ttl, Value, Word};

/// How often a command is drawn, its name, what it takes, and words that may follow.
type Shape = (u32, &'static str, &'static [Slot], &'static [&'static [Slot]]);

const SHAPES: &[Shape] = &[
    (6, "get", &[Key], &[]),
    (10, "set", &[Key, Value], SET),
    (2, "getset", &[Key, Value], &[]),
    (4, "getex", &[Key], GETEX),
    (2, "getdel", &[Key], &[]),
    (2, "setex", &[Key, Ttl, Value], &[]),
    (2, "psetex", &[Key, Ttl, Value], &[]),
    (2, "setnx", &[Key, Value], &[]),
    (3, "mget", &[Key, Key], &[&[Key], &[Key]]),
    (3, "mset", &[Key, Value], &[&[Key, Value], &[Key, Value]]),
    (2, "msetnx", &[Near, Value], &[&[Near, Value], &[Near, Value]]),
    (3, "incr", &[Key], &[]),
    (3, "decr", &[Key], &[]),
    (3, "incrby", &[Key, Integer], &[]),
    (3, "decrby", &[Key, Integer], &[]),
    (3, "incrbyfloat", &[Key, Float], &[]),
    (3, "append", &[Key, Value], &[]),
    (2, "strlen", &[Key], &[]),
    (3, "getrange", &[Key, Position, Position], &[]),
    (1, "substr", &[Key, Position, Position], &[]),
    (3, "setrange", &[Key, Position, Value], &[]),
    (3, "del", &[Key], &[&[Key], &[Key]]),
    (1, "unlink", &[Key], &[&[Key], &[Key]]),
    (2, "exists", &[Key], &[&[Key], &[Key]]),
    (1, "touch", &[Key], &[&[Key], &[Key]]),
    (1, "type", &[Key], &[]),
    (3, "expire", &[Key, Ttl], EXPIRE),
    (2, "pexpire", &[Key, Ttl], EXPIRE),
    (3, "expireat", &[Key, Second], EXPIRE),
    (2, "pexpireat", &[Key, Milli], EXPIRE),
    (3, "ttl", &[Key], &[]),
    (3, "pttl", &[Key], &[]),
    (2, "expiretime", &[Key], &[]),
    (2, "pexpiretime", &[Key], &[]),
    (2, "persist", &[Key], &[]),
    (3, "rename", &[Near, Near], &[]),
    (2, "renamenx", &[Near, Near], &[]),
    (3, "copy", &[Near, Near], COPY),
    (2, "dbsize", &[], &[]),
    (2, "keys", &[Pattern], &[]),
    (2, "scan", &[Word("0")], SCAN),
    (1, "randomkey", &[], &[]),
    (1, "flushall", &[], FLUSH),
    (1, "flushdb", &[], FLUSH),
    (3, "object encoding", &[Key], &[]),
    (1, "object refcount", &[Key], &[]),
    (1, "object idletime", &[Key], &[]),
    (1, "object freq", &[Key], &[]),
    (1, "object help", &[], &[]),
    (1, "memory usage", &[Key], &[&[Word("samples"), Integer]]),
    (1, "ping", &[], &[&[Value]]),
    (1, "echo", &[Value], &[]),
    (1, "select", &[Word("0")], &[]),
    (1, "select", &[Word("x")], &[]),
    (1, "hello", &[], HELLO),
    (1, "hello", &[Integer], HELLO),
    (1, "auth", &[Value], &[&[Value]]),
    (1, "reset", &[], &[]),
    (1, "quit", &[], &[]),
    (1, "client getname", &[], &[]),
    (1, "client setname", &[Value], &[]),
    (1, "client id", &[], &[]),
    (1, "client info", &[], &[]),
    (1, "client list", &[], CLIENT_LIST),
    (1, "client kill", &[Value], &[]),
    (1, "client no-evict", &[], &[&[Word("on")], &[Word("off")]]),
    (1, "client reply", &[], &[&[Word("on")], &[Word("off")], &[Word("skip")]]),
    (1, "client unpause", &[], &[]),
    (1, "client help", &[], &[]),
    (1, "command count", &[], &[]),
    (1, "command getkeys", &[Word("mset"), Key, Value], &[&[Key, Value]]),
    (1, "command getkeys", &[Word("set"), Key, Value], SET),
    (1, "command info", &[Word("get")], &[&[Word("set")], &[Word("nosuch")]]),
    (1, "command list", &[], &[&[Word("filterby"), Word("pattern"), Word("xyz*")]]),
    (1, "command help", &[], &[]),
    (1, "config get", &[Word("nosuch*")], &[&[Word("save")], &[Word("maxmemory")]]),
    (1, "config set", &[Value, Value], &[&[Value, Value]]),
    (1, "config help", &[], &[]),
    (1, "latency latest", &[], &[]),
    (1, "latency help", &[], &[]),
    (1, "slowlog len", &[], &[]),
    (1, "slowlog help", &[], &[]),
    (1, "memory help", &[], &[]),
    (1, "memory doctor", &[], &[]),
    (1, "wait", &[Word("0"), Word("1")], &[]),
    (1, "readonly", &[], &[]),
    (1, "readwrite", &[], &[]),
    (1, "asking", &[], &[]),
    (1, "cluster info", &[], &[]),
    (1, "time", &[], &[]),
    (1, "nosuchcommand", &[Value], &[&[Value]]),
    (1, "llen", &[Key], &[]),
    (1, "lcs", &[Key, Key], &[]),
    (1, "object nosuch", &[Key], &[]),
];

const SET: &[&[Slot]] = &[
    &[Word("nx")],
    &[Word("xx")],
    &[Word("get")],
    &[Word("keepttl")],
    &[Word("ex"), Ttl],
    &[Word("px"), Ttl],
    &[Word("exat"), Second],
    &[Word("pxat"), Milli],
];
const GETEX: &[&[Slot]] = &[
    &[Word("persist")],
    &[Word("ex"), Ttl],
    &[Word("px"), Ttl],
    &[Word("exat"), Second],
    &[Word("pxat"), Milli],
];
const EXPIRE: &[&[Slot]] = &[&[Word("nx")], &[Word("xx")], &[Word("gt")], &[Word("lt")]];
const COPY: &[&[Slot]] = &[&[Word("replace")], &[Word("db"), Word("0")], &[Word("db"), Value]];
const SCAN: &[&[Slot]] = &[
    &[Word("match"), Pattern],
    &[Word("count"), Word("1000")],
    &[Word("count"), Integer],
    &[Word("type"), Word("string")],
    &[Word("type"), Word("list")],
];
const FLUSH: &[&[Slot]] = &[&[Word("sync")], &[Word("async")]];
const HELLO: &[&[Slot]] = &[&[Word("setname"), Value], &[Word("auth"), Word("default"), Value]];
const CLIENT_LIST: &[&[Slot]] = &[&[Word("type"), Word("normal")], &[Word("id"), Integer]];

/// A command as it should be, with some of the words that may follow, in any case of letters; or with a word
/// too many, too few, or another in its place.
fn request() -> impl Strategy<Value = Request> {
    let shapes = SHAPES.iter().map(|shape| (shape.0, Just(shape).boxed()));
    let shape = prop::strategy::Union::new_weighted(shapes.collect());
    let damage = prop_oneof![
        12 => Just(None),
        1 => (any::<prop::sample::Index>(), junk()).prop_map(Some),
    ];
    (shape, damage, letters(), prop::bool::weighted(0.1)).prop_flat_map(
        |((_, name, slots, more), damage, letters, inline)| {
            let more = if more.is_empty() {
                Just(Vec::new()).boxed()
            } else {
                prop_oneof![
                    3 => Just(Vec::new()),
                    4 => vec(prop::sample::select(*more), 1..2),
                    2 => vec(prop::sample::select(*more), 1..4),
                ]
                .boxed()
            };
            let name = name.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
            more.prop_flat_map(move |more| {
                let slots = slots.iter().chain(more.into_iter().flatten());
                slots.map(|slot| word(*slot)).collect::<Vec<_>>()
            })
            .prop_map(move |args| {
                let mut words = name.clone();
                words.extend(args);
                damaged(&mut words, &damage);
                if words[0] == b"scan" && words.get(1).is_some_and(|word| is_cursor(word)) {
                    words[1] = b"0".to_vec();
                }
                for word in &mut words {
                    letters(word);
                }
                Request { words, inline }
            })
        },
    )
}

/// Whether it would be taken for a cursor, which only means something to the server that gave it.
fn is_cursor(word: &[u8]) -> bool {
    let number = str::from_utf8(word).ok().and_then(|text| text.parse::<i128>().ok());
    number.is_some_and(|number| number.unsigned_abs() <= u128::from(u64::MAX))
}

/// What may be wrong with a command: a word taken out, put in, or replaced.
#[derive(Clone, Debug)]
enum Junk {
    Less,
    More(Vec<u8>),
    Other(Vec<u8>),
}

fn junk() -> impl Strategy<Value = Junk> {
    let integer = prop::sample::select(INTEGERS).prop_map(<[u8]>::to_vec);
    let odd = move || prop_oneof![word(Value), integer.clone(), word(Word("nx")), word(Key)];
    prop_oneof![Just(Junk::Less), odd().prop_map(Junk::More), odd().prop_map(Junk::Other)]
}

fn damaged(words: &mut Vec<Vec<u8>>, damage: &Option<(prop::sample::Index, Junk)>) {
    let Some((at, junk)) = damage else { return };
    match junk {
        Junk::Less if words.len() > 1 => drop(words.remove(at.index(words.len() - 1) + 1)),
        Junk::Less => {}
        Junk::More(word) => words.insert(at.index(words.len()) + 1, word.clone()),
        Junk::Other(word) if words.len() > 1 => {
            let place = at.index(words.len() - 1) + 1;
            words[place].clone_from(word);
        }
        Junk::Other(_) => {}
    }
}

/// Changes the case of letters in words that a grammar gives a meaning to; keys and values stay.
fn letters() -> impl Strategy<Value = fn(&mut Vec<u8>)> {
    let keep: fn(&mut Vec<u8>) = |_| {};
    let upper: fn(&mut Vec<u8>) = |word| {
        if is_word(word) {
            word.make_ascii_uppercase();
        }
    };
    let mixed: fn(&mut Vec<u8>) = |word| {
        if is_word(word) {
            word.iter_mut().step_by(2).for_each(u8::make_ascii_uppercase);
        }
    };
    prop_oneof![3 => Just(keep), 2 => Just(upper), 1 => Just(mixed)]
}

fn is_word(word: &[u8]) -> bool {
    word.len() > 1 && word.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
}

fn word(slot: Slot) -> BoxedStrategy<Vec<u8>> {
    let from =
        |texts: &'static [&'static [u8]]| prop::sample::select(texts).prop_map(<[u8]>::to_vec);
    let number =
        |numbers: std::ops::Range<i64>| numbers.prop_map(|number| number.to_string().into_bytes());
    match slot {
        Word(text) => Just(text.as_bytes().to_vec()).boxed(),
        Near => prop_oneof![
            9 => from(&[b"{t}a", b"{t}b", b"{t}c"]),
            1 => from(KEYS),
        ]
        .boxed(),
        Key => from(KEYS).boxed(),
        Value => prop_oneof![
            6 => from(VALUES),
            2 => from(INTEGERS),
            1 => from(FLOATS),
            1 => (any::<u8>(), prop::sample::select(&[20_usize, 44, 45, 200, 3000][..]))
                .prop_map(|(byte, length)| vec![byte; length]),
            1 => vec(any::<u8>(), 0..12),
        ]
        .boxed(),
        Integer => {
            prop_oneof![3 => number(-20..20), 2 => from(INTEGERS), 1 => from(VALUES)].boxed()
        }
        Float => prop_oneof![3 => number(-20..20), 3 => from(FLOATS), 1 => from(VALUES)].boxed(),
        Ttl => prop_oneof![
            // Apart from each other, so that no two are the same to the millisecond.
            8 => number(100_000..1_000_000_000),
            1 => number(-5..1),
            1 => from(INTEGERS),
        ]
        .boxed(),
        Second => prop_oneof![
            6 => number(4_000_000_000..5_000_000_000),
            2 => number(-5..1_500_000_000),
            1 => from(INTEGERS),
        ]
        .boxed(),
        Milli => prop_oneof![
            6 => number(4_000_000_000_000..5_000_000_000_000),
            2 => number(-5..1_500_000_000_000),
            1 => from(INTEGERS),
        ]
        .boxed(),
        Position => prop_oneof![
            6 => number(-12..12),
            1 => number(0..5000),
            1 => from(INTEGERS),
            1 => from(&[b"1048575", b"1048576", b"1048577", b"536870911", b"4294967295"]),
        ]
        .boxed(),
        Pattern => from(&[
            b"*", b"k*", b"?", b"[k-l]", b"[^k]", b"{t}*", b"\\k", b"", b"[", b"k[", b"**x", b"[a-",
        ])
        .boxed(),
    }
}

const KEYS: &[&[u8]] =
    &[b"k", b"l", b"{t}a", b"{t}b", b"{t}c", b"", b"\0\xff\r\n", b"{}x", b"a{", b"{t", b"long key"];

const VALUES: &[&[u8]] = &[
    b"v",
    b"",
    b"hello world",
    b"0",
    b"100001",
    b"-1",
    b"12000000",
    b"\r\n",
    b"\0",
    b"\xc3\xa9",
    b"abc",
    b"nx",
    b"'\"\\",
    b"+1",
    b" 1",
    b"1 ",
    b"01",
    b"-0",
];

/// None is a time to live of less than a minute: it might pass while a script runs, here or there.
const INTEGERS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"9223372036854775806",
    b"-9223372036854775807",
    b"9223372036854775",
    b"9223372036854776",
    b"18446744073709551615",
    b"18446744073709551616",
    b"2147483648",
    b"4294967296",
    b"99999999999999999999999",
    b"1.0",
    b"0x10",
    b"1e3",
];

const FLOATS: &[&[u8]] = &[
    b"0.1",
    b"1.5",
    b"-0.5",
    b"3.0e3",
    b"1e400",
    b"-1e400",
    b"inf",
    b"-inf",
    b"nan",
    b"1e-10",
    b".5",
    b"5.",
    b"0x1p3",
    b"1e17",
    b"1e308",
    b"-0.0",
    b"3.14159265358979",
    b"10000000000000000000000",
];
