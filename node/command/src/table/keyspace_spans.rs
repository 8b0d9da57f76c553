//! The whole key space, and what is known about keys.

use super::{Category, CommandSpec, Flag, Flags, Group, KeySpec, PLAIN};
use crate::grammar::{keyspace, server, span};

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "dbsize",
        summary: "How many keys there are",
        group: Group::Server,
        arity: 1,
        flags: Flags::of(&[Flag::Readonly, Flag::Fast]),
        categories: &[Category::Keyspace],
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        grammar: span::dbsize,
        ..PLAIN
    },
    CommandSpec {
        name: "keys",
        syntax: "pattern",
        summary: "All keys that match a pattern",
        group: Group::Generic,
        complexity: "O(n) in the number of all keys",
        arity: 2,
        flags: Flags::of(&[Flag::Readonly]),
        categories: &[Category::Keyspace, Category::Dangerous],
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        grammar: span::keys,
        ..PLAIN
    },
    CommandSpec {
        name: "scan",
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        summary: "Some keys, and where to go on",
        since: "2.8.0",
        group: Group::Generic,
        complexity: "O(1) for each call, O(n) for a whole scan",
        arity: -2,
        flags: Flags::of(&[Flag::Readonly]),
        categories: &[Category::Keyspace],
        tips: &["nondeterministic_output", "request_policy:special"],
        grammar: span::scan,
        ..PLAIN
    },
    CommandSpec {
        name: "randomkey",
        summary: "Some key",
        group: Group::Generic,
        arity: 1,
        flags: Flags::of(&[Flag::Readonly]),
        categories: &[Category::Keyspace],
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        grammar: span::randomkey,
        ..PLAIN
    },
    CommandSpec {
        name: "flushall",
        syntax: "[ASYNC|SYNC]",
        summary: "Deletes all keys",
        group: Group::Server,
        complexity: "O(n) in the number of all keys",
        arity: -1,
        flags: Flags::of(&[Flag::Write]),
        categories: &[Category::Keyspace, Category::Dangerous],
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        grammar: span::flush,
        ..PLAIN
    },
    CommandSpec {
        name: "flushdb",
        syntax: "[ASYNC|SYNC]",
        summary: "Deletes all keys",
        group: Group::Server,
        complexity: "O(n) in the number of all keys",
        arity: -1,
        flags: Flags::of(&[Flag::Write]),
        categories: &[Category::Keyspace, Category::Dangerous],
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        grammar: span::flush,
        ..PLAIN
    },
    CommandSpec {
        name: "object",
        syntax: "<subcommand>",
        summary: "What is known about a value",
        since: "2.2.3",
        group: Group::Generic,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "object|encoding",
                syntax: "key",
                summary: "How a value is kept in memory",
                since: "2.2.3",
                group: Group::Generic,
                arity: 3,
                flags: Flags::of(&[Flag::Readonly]),
                categories: &[Category::Keyspace],
                tips: &["nondeterministic_output"],
                keys: &[KeySpec { first: 2, last: 0, step: 1, flags: &["RO"] }],
                grammar: keyspace::object_encoding,
                ..PLAIN
            },
            CommandSpec {
                name: "object|freq",
                syntax: "key",
                summary: "How often a key is used, on a logarithmic scale",
                since: "4.0.0",
                group: Group::Generic,
                arity: 3,
                flags: Flags::of(&[Flag::Readonly]),
                categories: &[Category::Keyspace],
                tips: &["nondeterministic_output"],
                keys: &[KeySpec { first: 2, last: 0, step: 1, flags: &["RO"] }],
                grammar: keyspace::object_freq,
                ..PLAIN
            },
            CommandSpec {
                name: "object|idletime",
                syntax: "key",
                summary: "Seconds since a key was used",
                since: "2.2.3",
                group: Group::Generic,
                arity: 3,
                flags: Flags::of(&[Flag::Readonly]),
                categories: &[Category::Keyspace],
                tips: &["nondeterministic_output"],
                keys: &[KeySpec { first: 2, last: 0, step: 1, flags: &["RO"] }],
                grammar: keyspace::object_idletime,
                ..PLAIN
            },
            CommandSpec {
                name: "object|refcount",
                syntax: "key",
                summary: "How many keys share a value",
                since: "2.2.3",
                group: Group::Generic,
                arity: 3,
                flags: Flags::of(&[Flag::Readonly]),
                categories: &[Category::Keyspace],
                tips: &["nondeterministic_output"],
                keys: &[KeySpec { first: 2, last: 0, step: 1, flags: &["RO"] }],
                grammar: keyspace::object_refcount,
                ..PLAIN
            },
            CommandSpec {
                name: "object|help",
                summary: "Prints this help",
                since: "6.2.0",
                group: Group::Generic,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Keyspace],
                grammar: keyspace::object_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
];
