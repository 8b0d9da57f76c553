//! Bloom filters.

use super::{CommandSpec, Flag, Flags, Group, KeySpec, PLAIN};
use crate::grammar::filters;

const READ: &[KeySpec] = &[KeySpec { first: 1, last: 0, step: 1, flags: &["RO", "access"] }];
const INSERT: &[KeySpec] = &[KeySpec { first: 1, last: 0, step: 1, flags: &["RW", "insert"] }];
const PER_ITEM: &str = "O(k) for each item, in the number of hashes over all layers";

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "bf.reserve",
        syntax: "key error_rate capacity [EXPANSION expansion] [NONSCALING]",
        summary: "Makes an empty Bloom filter",
        group: Group::Module,
        complexity: "O(n) in the capacity",
        arity: -4,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom]),
        keys: INSERT,
        grammar: filters::reserve,
        ..PLAIN
    },
    CommandSpec {
        name: "bf.add",
        syntax: "key item",
        summary: "Adds an item to a Bloom filter, which is made if there is none",
        group: Group::Module,
        complexity: PER_ITEM,
        arity: 3,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom]),
        keys: INSERT,
        grammar: filters::add,
        ..PLAIN
    },
    CommandSpec {
        name: "bf.madd",
        syntax: "key item [item ...]",
        summary: "Adds items to a Bloom filter, which is made if there is none",
        group: Group::Module,
        complexity: PER_ITEM,
        arity: -3,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom]),
        keys: INSERT,
        grammar: filters::madd,
        ..PLAIN
    },
    CommandSpec {
        name: "bf.exists",
        syntax: "key item",
        summary: "Whether an item may have been added to a Bloom filter",
        group: Group::Module,
        complexity: PER_ITEM,
        arity: 3,
        flags: Flags::of(&[Flag::Readonly, Flag::Fast]),
        keys: READ,
        grammar: filters::exists,
        ..PLAIN
    },
    CommandSpec {
        name: "bf.mexists",
        syntax: "key item [item ...]",
        summary: "Whether items may have been added to a Bloom filter",
        group: Group::Module,
        complexity: PER_ITEM,
        arity: -3,
        flags: Flags::of(&[Flag::Readonly, Flag::Fast]),
        keys: READ,
        grammar: filters::mexists,
        ..PLAIN
    },
    CommandSpec {
        name: "bf.info",
        syntax: "key [CAPACITY|SIZE|FILTERS|ITEMS|EXPANSION]",
        summary: "What a Bloom filter is made of",
        group: Group::Module,
        arity: -2,
        flags: Flags::of(&[Flag::Readonly, Flag::Fast]),
        keys: READ,
        grammar: filters::info,
        ..PLAIN
    },
];
