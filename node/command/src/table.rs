//! The table of commands: what each is called, takes, touches and needs.
//!
//! One entry here is all there is about a command besides what it does: its grammar, its `COMMAND`
//! entry, its documentation and its line of help come from it. Facts that clients act on (arity, flags,
//! keys, tips) are those of Redis 7.0.15; commands that came later are as in the version named by `since`.

mod cluster;
mod connection;
mod filters;
mod keyspace;
mod keyspace_spans;
mod loads;
mod server;
mod strings;

use std::fmt;

use crate::grammar::{Grammar, server::container};

/// What is known of a command or a subcommand.
pub struct CommandSpec {
    /// In lower case; of a subcommand both words: `client|kill`.
    pub name: &'static str,
    /// The arguments after the name, as documentation writes them: `key [EX seconds]`.
    pub syntax: &'static str,
    /// One sentence without a full stop.
    pub summary: &'static str,
    /// The version that first had it: of Redis, or of the module that it comes from.
    pub since: &'static str,
    /// What it is about.
    pub group: Group,
    /// How its cost grows.
    pub complexity: &'static str,
    /// What to use instead, if Redis says so.
    pub deprecated: Option<Deprecated>,
    /// How many words, its name included; if negative, at least so many. Of a subcommand both words of
    /// the name count. Never 0.
    pub arity: i8,
    /// What servers and clients have to know.
    pub flags: Flags,
    /// Categories besides those that follow from the flags.
    pub categories: &'static [Category],
    /// Hints about answers, and about how to ask several nodes. Redis, "Command tips".
    pub tips: &'static [&'static str],
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// What its second word may be. Empty: anything.
    pub subcommands: &'static [CommandSpec],
    pub(crate) grammar: Grammar,
}

/// Why a command should no longer be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// The version of Redis.
    pub since: &'static str,
    /// What does the same.
    pub replaced_by: &'static str,
}

/// Where keys are among the words of a command, and what is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The index of the first one; the name is at 0.
    pub first: i8,
    /// The index of the last one, counted from the first; if negative, from the end: -1 is the last word.
    pub last: i8,
    /// From one key to the next.
    pub step: i8,
    /// Redis, "Key specifications": `RO`, `RW`, `OW` or `RM`, then what is done.
    pub flags: &'static [&'static str],
}

/// What servers and clients have to know of a command. The names are those in `COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// It may change values.
    Write,
    /// It reads values and changes none.
    Readonly,
    /// It is refused when memory is full.
    DenyOom,
    /// It is for operators.
    Admin,
    /// It is about channels.
    PubSub,
    /// Scripts may not use it.
    NoScript,
    /// It is answered before a node is ready.
    Loading,
    /// It is answered by a replica that lost its leader.
    Stale,
    /// Its cost does not depend on values: O(1) or O(log n).
    Fast,
    /// It is answered before the client has proven who it is.
    NoAuth,
    /// It is answered while a script keeps the server busy.
    AllowBusy,
    /// It is refused while a replica loads.
    NoAsyncLoading,
}

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

/// A set of commands that access rules speak of. The names are those in `COMMAND`, after `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// About keys, whatever their type.
    Keyspace,
    /// Reads values.
    Read,
    /// Changes values.
    Write,
    /// About strings.
    String,
    /// About channels.
    PubSub,
    /// For operators.
    Admin,
    /// Not slow.
    Fast,
    /// Not fast.
    Slow,
    /// Can do harm.
    Dangerous,
    /// About connections.
    Connection,
}

/// What a command is about. The names are those in `COMMAND DOCS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Keys, whatever their type.
    Generic,
    /// Strings.
    String,
    /// Connections.
    Connection,
    /// Nodes.
    Server,
    /// The cluster.
    Cluster,
    /// What Redis has in modules, or not at all.
    Module,
    /// Channels.
    PubSub,
}

impl Flags {
    /// These and no others.
    #[must_use]
    pub const fn of(flags: &[Flag]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < flags.len() {
            bits |= 1 << flags[index] as u16;
            index += 1;
        }
        Self(bits)
    }

    /// Whether the flag is among them.
    #[must_use]
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u16) != 0
    }

    /// The flags, in the order that `COMMAND` has.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |&flag| self.has(flag))
    }
}

impl Flag {
    const ALL: [Self; 12] = [
        Self::Write,
        Self::Readonly,
        Self::DenyOom,
        Self::Admin,
        Self::PubSub,
        Self::NoScript,
        Self::Loading,
        Self::Stale,
        Self::Fast,
        Self::NoAuth,
        Self::AllowBusy,
        Self::NoAsyncLoading,
    ];

    /// As in `COMMAND`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Readonly => "readonly",
            Self::DenyOom => "denyoom",
            Self::Admin => "admin",
            Self::PubSub => "pubsub",
            Self::NoScript => "noscript",
            Self::Loading => "loading",
            Self::Stale => "stale",
            Self::Fast => "fast",
            Self::NoAuth => "no_auth",
            Self::AllowBusy => "allow_busy",
            Self::NoAsyncLoading => "no_async_loading",
        }
    }
}

impl Category {
    const ALL: [Self; 10] = [
        Self::Keyspace,
        Self::Read,
        Self::Write,
        Self::String,
        Self::PubSub,
        Self::Admin,
        Self::Fast,
        Self::Slow,
        Self::Dangerous,
        Self::Connection,
    ];

    /// As in `COMMAND`, with the `@`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyspace => "@keyspace",
            Self::Read => "@read",
            Self::Write => "@write",
            Self::String => "@string",
            Self::PubSub => "@pubsub",
            Self::Admin => "@admin",
            Self::Fast => "@fast",
            Self::Slow => "@slow",
            Self::Dangerous => "@dangerous",
            Self::Connection => "@connection",
        }
    }

    /// Whether this is its name, without the `@`, in any case of letters.
    pub(crate) fn is_called(self, name: &[u8]) -> bool {
        self.name().as_bytes()[1..].eq_ignore_ascii_case(name)
    }
}

impl Group {
    /// As in `COMMAND DOCS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::String => "string",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
            Self::Module => "module",
            Self::PubSub => "pubsub",
        }
    }
}

impl CommandSpec {
    /// Whether it may change values.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        self.flags.has(Flag::Write)
    }

    /// Whether it is refused when memory is full.
    #[must_use]
    pub const fn is_denied_when_full(&self) -> bool {
        self.flags.has(Flag::DenyOom)
    }

    /// Whether it is answered before the client has proven who it is.
    #[must_use]
    pub const fn is_allowed_before_auth(&self) -> bool {
        self.flags.has(Flag::NoAuth)
    }

    /// Whether a connection in RESP2 that has subscribed may still use it.
    #[must_use]
    pub fn is_allowed_when_subscribed(&self) -> bool {
        self.flags.has(Flag::PubSub) || ["ping", "quit", "reset"].contains(&self.name)
    }

    /// Whether its cost does not depend on values.
    #[must_use]
    pub const fn is_fast(&self) -> bool {
        self.flags.has(Flag::Fast)
    }

    /// Whether so many words, its name included, are neither too few nor too many.
    #[must_use]
    pub const fn accepts(&self, words_count: usize) -> bool {
        let words_named = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words_count >= words_named } else { words_count == words_named }
    }

    /// The categories that it is in, in the order that `COMMAND` has.
    pub fn categories(&self) -> impl Iterator<Item = Category> {
        Category::ALL.into_iter().filter(|&category| self.is_in(category))
    }

    /// Whether it is in the category, by itself or by what its flags say.
    #[must_use]
    pub fn is_in(&self, category: Category) -> bool {
        let follows = match category {
            Category::Read => self.flags.has(Flag::Readonly),
            Category::Write => self.flags.has(Flag::Write),
            Category::Admin | Category::Dangerous => self.flags.has(Flag::Admin),
            Category::Fast => self.flags.has(Flag::Fast),
            Category::Slow => !self.flags.has(Flag::Fast),
            Category::PubSub => self.flags.has(Flag::PubSub),
            Category::Keyspace | Category::String | Category::Connection => false,
        };
        follows || self.categories.contains(&category)
    }

    /// The indices of the keys among so many words. `None`: there are too few words for a key.
    #[must_use]
    pub fn key_indices(&self, words_count: usize) -> Option<Vec<usize>> {
        let mut indices = Vec::new();
        for spec in self.keys {
            let first = usize::from(spec.first.unsigned_abs());
            let past = match spec.last {
                0.. => first + usize::from(spec.last.unsigned_abs()) + 1,
                _ => (words_count + 1).checked_sub(usize::from(spec.last.unsigned_abs()))?,
            };
            if first >= words_count || past > words_count {
                return None;
            }
            indices.extend((first..past).step_by(usize::from(spec.step.unsigned_abs()).max(1)));
        }
        Some(indices)
    }
}

impl fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandSpec({})", self.name)
    }
}

/// Two entries are the same if they have the same name: names are unique.
impl PartialEq for CommandSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Every command, without subcommands, in a fixed order.
pub fn commands() -> impl ExactSizeIterator<Item = &'static CommandSpec> {
    ALL.iter().copied()
}

/// What most entries have in common.
const PLAIN: CommandSpec = CommandSpec {
    name: "",
    syntax: "",
    summary: "",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    deprecated: None,
    arity: -1,
    flags: Flags::of(&[]),
    categories: &[],
    tips: &[],
    keys: &[],
    subcommands: &[],
    grammar: container,
};

const FAMILIES: [&[CommandSpec]; 8] = [
    strings::COMMANDS,
    keyspace::COMMANDS,
    keyspace_spans::COMMANDS,
    connection::COMMANDS,
    cluster::COMMANDS,
    server::COMMANDS,
    loads::COMMANDS,
    filters::COMMANDS,
];

const COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// All families, one after the other.
pub(crate) static ALL: [&CommandSpec; COUNT] = {
    let mut all = [&FAMILIES[0][0]; COUNT];
    let mut next = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut member = 0;
        while member < FAMILIES[family].len() {
            all[next] = &FAMILIES[family][member];
            next += 1;
            member += 1;
        }
        family += 1;
    }
    all
};
