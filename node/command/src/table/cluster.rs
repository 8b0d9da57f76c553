//! The cluster.

use super::{Category, CommandSpec, Deprecated, Flag, Flags, Group, PLAIN};
use crate::grammar::{cluster, server, session};

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "readonly",
        summary: "Accepted; reads are always fresh",
        since: "3.0.0",
        group: Group::Cluster,
        arity: 1,
        flags: Flags::of(&[Flag::Loading, Flag::Stale, Flag::Fast]),
        categories: &[Category::Connection],
        grammar: session::readonly,
        ..PLAIN
    },
    CommandSpec {
        name: "readwrite",
        summary: "Accepted; reads are always fresh",
        since: "3.0.0",
        group: Group::Cluster,
        arity: 1,
        flags: Flags::of(&[Flag::Loading, Flag::Stale, Flag::Fast]),
        categories: &[Category::Connection],
        grammar: session::readwrite,
        ..PLAIN
    },
    CommandSpec {
        name: "asking",
        summary: "Accepted; slots move whole, so it changes nothing",
        since: "3.0.0",
        group: Group::Cluster,
        arity: 1,
        flags: Flags::of(&[Flag::Fast]),
        categories: &[Category::Connection],
        grammar: session::asking,
        ..PLAIN
    },
    CommandSpec {
        name: "wait",
        syntax: "numreplicas timeout",
        summary: "Waits until replicas have this connection's writes, in milliseconds",
        since: "3.0.0",
        group: Group::Generic,
        arity: 3,
        flags: Flags::of(&[Flag::NoScript]),
        categories: &[Category::Connection],
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        grammar: session::wait,
        ..PLAIN
    },
    CommandSpec {
        name: "cluster",
        syntax: "<subcommand>",
        summary: "Who serves what",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "depends on the subcommand",
        arity: -2,
        subcommands: &[
            CommandSpec {
                name: "cluster|countkeysinslot",
                syntax: "slot",
                summary: "How many keys a slot has",
                since: "3.0.0",
                group: Group::Cluster,
                arity: 3,
                flags: Flags::of(&[Flag::Stale]),
                grammar: cluster::countkeysinslot,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|failover",
                syntax: "[FORCE|TAKEOVER]",
                summary: "Hands leadership to another node",
                since: "3.0.0",
                group: Group::Cluster,
                arity: -2,
                flags: Flags::of(&[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading]),
                grammar: cluster::failover,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|forget",
                syntax: "node-id",
                summary: "Takes a node out of the cluster",
                since: "3.0.0",
                group: Group::Cluster,
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading]),
                grammar: cluster::forget,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|getkeysinslot",
                syntax: "slot count",
                summary: "Some keys of a slot",
                since: "3.0.0",
                group: Group::Cluster,
                complexity: "O(log n) in the number of keys, and O(n) in the keys asked for",
                arity: 4,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::getkeysinslot,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|info",
                summary: "How the cluster is",
                since: "3.0.0",
                group: Group::Cluster,
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::info,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|keyslot",
                syntax: "key",
                summary: "The slot of a key",
                since: "3.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the bytes of the key",
                arity: 3,
                flags: Flags::of(&[Flag::Stale]),
                grammar: cluster::keyslot,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|links",
                summary: "The connections to other nodes",
                since: "7.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of nodes",
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::links,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|meet",
                syntax: "ip port [cluster-bus-port]",
                summary: "Takes a node into the cluster",
                since: "3.0.0",
                group: Group::Cluster,
                arity: -4,
                flags: Flags::of(&[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading]),
                grammar: cluster::meet,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|myid",
                summary: "The id of this node",
                since: "3.0.0",
                group: Group::Cluster,
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                grammar: cluster::myid,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|myshardid",
                summary: "The id of this node's shard",
                since: "7.2.0",
                group: Group::Cluster,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::myshardid,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|nodes",
                summary: "The nodes, as text",
                since: "3.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of nodes",
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::nodes,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|replicas",
                syntax: "node-id",
                summary: "The replicas of a node, as text",
                since: "5.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of replicas",
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::replicas,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|shards",
                summary: "Slots and nodes, by shard",
                since: "7.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of nodes",
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::shards,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|slaves",
                syntax: "node-id",
                summary: "The replicas of a node, as text",
                since: "3.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of replicas",
                deprecated: Some(Deprecated { since: "5.0.0", replaced_by: "CLUSTER REPLICAS" }),
                arity: 3,
                flags: Flags::of(&[Flag::Admin, Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::replicas,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|slots",
                summary: "Slots and who serves them",
                since: "3.0.0",
                group: Group::Cluster,
                complexity: "O(n) in the number of nodes",
                deprecated: Some(Deprecated { since: "7.0.0", replaced_by: "CLUSTER SHARDS" }),
                arity: 2,
                flags: Flags::of(&[Flag::Stale]),
                tips: &["nondeterministic_output"],
                grammar: cluster::slots,
                ..PLAIN
            },
            CommandSpec {
                name: "cluster|help",
                summary: "Prints this help",
                since: "5.0.0",
                group: Group::Cluster,
                arity: 2,
                flags: Flags::of(&[Flag::Loading, Flag::Stale]),
                grammar: cluster::help,
                ..PLAIN
            },
        ],
        grammar: server::container,
        ..PLAIN
    },
];
