//! Nodes.

use super::{Category, CommandSpec, Flag, Flags, Group, KeySpec, PLAIN};
use crate::grammar::{keyspace, server};

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "info",
        syntax: "[section [section ...]]",
        summary: "How this node is",
        group: Group::Server,
        arity: -1,
        flags: Flags::of(&[Flag::Loading, Flag::Stale]),
        categories: &[Category::Dangerous],
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        grammar: server::info,
        ..PLAIN
    },
    CommandSpec {
        name: "time",
        summary: "The time of this node",
        since: "2.6.0",
        group: Group::Server,
        arity: 1,
        flags: Flags::of(&[Flag::Loading, Flag::Stale, Flag::Fast]),
        tips: &["nondeterministic_output"],
        grammar: server::time,
        ..PLAIN
    },
    CommandSpec {
        name: "command",
        summary: "About commands",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(n) in the number of commands",
        arity: -1,
        flags: Flags::of(&[Flag::Loading, Flag::Stale]),
        categories: &[Category::Connection],
        tips: &["nondeterministic_output_order"],
        subcommands: &[
            CommandSpec {
                name: "command|count",
                summary: "How many commands there are",
                since: "2.8.13",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                grammar: server::command_count,
                ..PLAIN
            },
            CommandSpec {
                name: "command|docs",
                syntax: "[command-name [command-name ...]]",
                summary: "What commands do",
                since: "7.0.0",
                group: Group::Server,
                complexity: "O(n) in the number of commands",
                arity: -2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                tips: &["nondeterministic_output_order"],
                grammar: server::command_docs,
                ..PLAIN
            },
            CommandSpec {
                name: "command|getkeys",
                syntax: "command [arg [arg ...]]",
                summary: "The keys in a command",
                since: "2.8.13",
                group: Group::Server,
                complexity: "O(n) in the number of arguments",
                arity: -4,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                grammar: server::command_getkeys,
                ..PLAIN
            },
            CommandSpec {
                name: "command|info",
                syntax: "[command-name [command-name ...]]",
                summary: "What clients have to know of commands",
                since: "2.8.13",
                group: Group::Server,
                complexity: "O(n) in the number of commands",
                arity: -2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                tips: &["nondeterministic_output_order"],
                grammar: server::command_info,
                ..PLAIN
            },
            CommandSpec {
                name: "command|list",
                syntax: "[FILTERBY <MODULE module-name|ACLCAT category|PATTERN pattern>]",
                summary: "The names of commands",
                since: "7.0.0",
                group: Group::Server,
                complexity: "O(n) in the number of commands",
                arity: -2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                tips: &["nondeterministic_output_order"],
                grammar: server::command_list,
                ..PLAIN
            },
            CommandSpec {
                name: "command|help",
                summary: "Prints this help",
                since: "5.0.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                categories: &[Category::Connection],
                grammar: server::command_help,
                ..PLAIN
            },
        ],
        grammar: server::command,
        ..PLAIN
    },
    CommandSpec {
        name: "config",
        syntax: "<subcommand>",
        summary: "Settings",
        since: "2.0.0",
        group: Group::Server,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "config|get",
                syntax: "parameter [parameter ...]",
                summary: "The settings that match patterns",
                since: "2.0.0",
                group: Group::Server,
                complexity: "O(n) in the number of settings",
                arity: -3,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                grammar: server::config_get,
                ..PLAIN
            },
            CommandSpec {
                name: "config|resetstat",
                summary: "Sets counters back to zero",
                since: "2.0.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                grammar: server::config_resetstat,
                ..PLAIN
            },
            CommandSpec {
                name: "config|rewrite",
                summary: "Writes settings to the file they came from",
                since: "2.8.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                grammar: server::config_rewrite,
                ..PLAIN
            },
            CommandSpec {
                name: "config|set",
                syntax: "parameter value [parameter value ...]",
                summary: "Changes settings",
                since: "2.0.0",
                group: Group::Server,
                complexity: "O(n) in the number of settings",
                arity: -4,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
                grammar: server::config_set,
                ..PLAIN
            },
            CommandSpec {
                name: "config|help",
                summary: "Prints this help",
                since: "5.0.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                grammar: server::config_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
    CommandSpec {
        name: "debug",
        syntax: "<subcommand>",
        summary: "For tests",
        group: Group::Server,
        complexity: "depends on the subcommand",
        arity: -2,
        flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
        subcommands: &[
            CommandSpec {
                name: "debug|sleep",
                syntax: "seconds",
                summary: "Answers so much later",
                group: Group::Server,
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                grammar: server::debug_sleep,
                ..PLAIN
            },
            CommandSpec {
                name: "debug|help",
                summary: "Prints this help",
                since: "5.0.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                grammar: server::debug_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
    CommandSpec {
        name: "latency",
        syntax: "<subcommand>",
        summary: "Delays that were noticed",
        since: "2.8.13",
        group: Group::Server,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "latency|doctor",
                summary: "What the delays may come from",
                since: "2.8.13",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_nodes",
                    "response_policy:special",
                ],
                grammar: server::latency_doctor,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|graph",
                syntax: "event",
                summary: "The delays of an event, drawn",
                since: "2.8.13",
                group: Group::Server,
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_nodes",
                    "response_policy:special",
                ],
                grammar: server::latency_graph,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|histogram",
                syntax: "[command [command ...]]",
                summary: "How long commands took",
                since: "7.0.0",
                group: Group::Server,
                complexity: "O(n) in the number of commands",
                arity: -2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_nodes",
                    "response_policy:special",
                ],
                grammar: server::latency_histogram,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|history",
                syntax: "event",
                summary: "The delays of an event",
                since: "2.8.13",
                group: Group::Server,
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_nodes",
                    "response_policy:special",
                ],
                grammar: server::latency_history,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|latest",
                summary: "The latest delay of each event",
                since: "2.8.13",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_nodes",
                    "response_policy:special",
                ],
                grammar: server::latency_latest,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|reset",
                syntax: "[event [event ...]]",
                summary: "Forgets delays",
                since: "2.8.13",
                group: Group::Server,
                arity: -2,
                flags: Flags::of(&[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale]),
                tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
                grammar: server::latency_reset,
                ..PLAIN
            },
            CommandSpec {
                name: "latency|help",
                summary: "Prints this help",
                since: "2.8.13",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                grammar: server::latency_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
    CommandSpec {
        name: "slowlog",
        syntax: "<subcommand>",
        summary: "Commands that took long",
        since: "2.2.12",
        group: Group::Server,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "slowlog|get",
                syntax: "[count]",
                summary: "The latest of them",
                since: "2.2.12",
                group: Group::Server,
                complexity: "O(n) in the number of entries",
                arity: -2,
                flags: Flags::of(&[Flag::Admin, Flag::Loading, Flag::Stale]),
                tips: &["request_policy:all_nodes", "nondeterministic_output"],
                grammar: server::slowlog_get,
                ..PLAIN
            },
            CommandSpec {
                name: "slowlog|len",
                summary: "How many there are",
                since: "2.2.12",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::Loading, Flag::Stale]),
                tips: &[
                    "request_policy:all_nodes",
                    "response_policy:agg_sum",
                    "nondeterministic_output",
                ],
                grammar: server::slowlog_len,
                ..PLAIN
            },
            CommandSpec {
                name: "slowlog|reset",
                summary: "Forgets them",
                since: "2.2.12",
                group: Group::Server,
                complexity: "O(n) in the number of entries",
                arity: 2,
                flags: Flags::of(&[Flag::Admin, Flag::Loading, Flag::Stale]),
                tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
                grammar: server::slowlog_reset,
                ..PLAIN
            },
            CommandSpec {
                name: "slowlog|help",
                summary: "Prints this help",
                since: "6.2.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                grammar: server::slowlog_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
    CommandSpec {
        name: "memory",
        syntax: "<subcommand>",
        summary: "Memory",
        since: "4.0.0",
        group: Group::Server,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "memory|doctor",
                summary: "What may be wrong with memory",
                since: "4.0.0",
                group: Group::Server,
                arity: 2,
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_shards",
                    "response_policy:special",
                ],
                grammar: server::memory_doctor,
                ..PLAIN
            },
            CommandSpec {
                name: "memory|malloc-stats",
                summary: "What the allocator tells",
                since: "4.0.0",
                group: Group::Server,
                complexity: "depends on the allocator",
                arity: 2,
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_shards",
                    "response_policy:special",
                ],
                grammar: server::memory_malloc_stats,
                ..PLAIN
            },
            CommandSpec {
                name: "memory|purge",
                summary: "Gives memory back to the system",
                since: "4.0.0",
                group: Group::Server,
                complexity: "depends on the allocator",
                arity: 2,
                tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
                grammar: server::memory_purge,
                ..PLAIN
            },
            CommandSpec {
                name: "memory|stats",
                summary: "How memory is used",
                since: "4.0.0",
                group: Group::Server,
                arity: 2,
                tips: &[
                    "nondeterministic_output",
                    "request_policy:all_shards",
                    "response_policy:special",
                ],
                grammar: server::memory_stats,
                ..PLAIN
            },
            CommandSpec {
                name: "memory|usage",
                syntax: "key [SAMPLES count]",
                summary: "How much memory a key takes, in bytes",
                since: "4.0.0",
                group: Group::Server,
                arity: -3,
                flags: Flags::of(&[Flag::Readonly]),
                keys: &[KeySpec { first: 2, last: 0, step: 1, flags: &["RO"] }],
                grammar: keyspace::memory_usage,
                ..PLAIN
            },
            CommandSpec {
                name: "memory|help",
                summary: "Prints this help",
                since: "4.0.0",
                group: Group::Server,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                grammar: server::memory_help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
];
