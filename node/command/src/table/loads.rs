//! Values that are loaded once for all who ask: what Redis does not have.

use super::{CommandSpec, Flag, Flags, Group, KeySpec, PLAIN};
use crate::grammar::load;

const READ: &[KeySpec] = &[KeySpec { first: 1, last: 0, step: 1, flags: &["RO", "access"] }];
const UPDATE: &[KeySpec] = &[KeySpec { first: 1, last: 0, step: 1, flags: &["RW", "update"] }];

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "hoard.get",
        syntax: "key [LEASE milliseconds [STALE]]",
        summary: "What is under a key, and with a lease the right to load it",
        group: Group::Module,
        arity: -2,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom, Flag::Fast]),
        tips: &["nondeterministic_output"],
        keys: &[KeySpec { first: 1, last: 0, step: 1, flags: &["RW", "access"] }],
        grammar: load::get,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.fill",
        syntax: "key token value [NEGATIVE] [PX milliseconds] [SOFT milliseconds] [TAGS numtags tag [tag ...]]",
        summary: "Sets what was loaded, if the token is still live",
        group: Group::Module,
        arity: -4,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom, Flag::Fast]),
        keys: UPDATE,
        grammar: load::fill,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.release",
        syntax: "key token",
        summary: "Gives a lease back without having loaded",
        group: Group::Module,
        arity: 3,
        flags: Flags::of(&[Flag::Write, Flag::Fast]),
        keys: UPDATE,
        grammar: load::release,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.wait",
        syntax: "key timeout-milliseconds",
        summary: "What is under a key, once nobody loads it any more",
        group: Group::Module,
        arity: 3,
        flags: Flags::of(&[Flag::Readonly]),
        tips: &["nondeterministic_output"],
        keys: READ,
        grammar: load::wait,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.set",
        syntax: "key value [NX|XX|IFEQ comparison-value] [VERSION] [NEGATIVE] [PX milliseconds] [SOFT milliseconds] [TAGS numtags tag [tag ...]]",
        summary: "Sets a key with a soft deadline and tags, or as known not to exist",
        group: Group::Module,
        arity: -3,
        flags: Flags::of(&[Flag::Write, Flag::DenyOom, Flag::Fast]),
        keys: UPDATE,
        grammar: load::set,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.invalidate",
        syntax: "TAG tag [tag ...]|PREFIX prefix",
        summary: "Makes stale all that carries a tag, or removes all that begins with a prefix",
        group: Group::Module,
        complexity: "TAG: O(n) in the number of slots. PREFIX: O(n) in the number of keys there are",
        arity: -3,
        flags: Flags::of(&[Flag::Write]),
        tips: &["request_policy:all_shards"],
        grammar: load::invalidate,
        ..PLAIN
    },
    CommandSpec {
        name: "hoard.probe",
        summary: "Proves, after all invalidations before, what this node leads",
        group: Group::Module,
        complexity: "O(n) in the number of partitions",
        arity: 1,
        flags: Flags::of(&[Flag::Fast]),
        tips: &["nondeterministic_output"],
        grammar: load::probe,
        ..PLAIN
    },
];
