//! What a request means: one closed enum, by who answers it.

use scatterhoard_store::{Read, Write};

use crate::{Glob, Load, ServerCommand, SessionCommand};

/// What a request means. Borrows from the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    /// A question to the slots of its keys.
    Read(Read<'a>),
    /// A change to the slots of its keys.
    Write(Write<'a>),
    /// A question to the slot of one key that may become a change to it, or a wait for one.
    Load(Load<'a>),
    /// A question or a change to all slots.
    Span(Span<'a>),
    /// About the connection that it came on, or about other connections.
    Session(SessionCommand<'a>),
    /// About the node or the cluster.
    Server(ServerCommand<'a>),
}

/// What concerns the whole key space.
#[derive(Clone, Debug, PartialEq)]
pub enum Span<'a> {
    /// `DBSIZE`: how many keys there are.
    Count,
    /// `KEYS pattern`: an array of all keys that match.
    Keys {
        /// What the keys have to match.
        pattern: Glob<'a>,
    },
    /// `SCAN`: the next cursor and some keys.
    Scan(Scan<'a>),
    /// `RANDOMKEY`: a key, or `Nil` if there is none.
    RandomKey,
    /// `FLUSHALL` and `FLUSHDB`, which mean the same: there is one database.
    Flush(Flush),
    /// `HOARD.INVALIDATE`
    Invalidate(Invalidate<'a>),
}

/// What is no longer true, in all slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidate<'a> {
    /// `HOARD.INVALIDATE TAG tag…`: `Ok` once every value that carries one of these is stale.
    Tags {
        /// At least one.
        tags: Vec<&'a [u8]>,
    },
    /// `HOARD.INVALIDATE PREFIX prefix`: how many keys were removed.
    Prefix {
        /// What the keys begin with. Empty: all keys.
        prefix: &'a [u8],
    },
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
#[derive(Clone, Debug, PartialEq)]
pub struct Scan<'a> {
    /// Where the scan goes on; 0 starts one. Any `u64`, since clients may send anything.
    pub cursor: u64,
    /// Only keys that match. `None`: all keys.
    pub pattern: Option<Glob<'a>>,
    /// About how many keys to look at: `[1, 2^63)`. The caller bounds it.
    pub count: u64,
    /// Only keys with values of this type.
    pub kind: ScanKind,
}

/// Which type of value a scan looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// Whatever type.
    Any,
    /// Strings.
    String,
    /// A type that no key here has, whether Redis knows it or not: the scan finds nothing.
    Absent,
}

/// Whether a flush may answer before memory is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Not said.
    Unstated,
    /// `SYNC`
    Sync,
    /// `ASYNC`
    Async,
}
